"""The page: its JavaScript agrees with PyTorch and digits.py; a browser reads what is drawn."""

import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from drawings import KINDS, STROKES, clean, save
from PIL import Image, ImageDraw

from src.data import MEAN, STD, normalize
from src.demo import build_page
from src.demo.build_page import layers_and_weights
from src.demo.digits import SURE, read_colours, read_digit
from src.experiments import load_model

BROWSERS = map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))
BROWSER = next(filter(None, BROWSERS), None)


def load_page_model():
    """The network of the page, in PyTorch."""
    return load_model(weights=build_page.WEIGHTS)


@pytest.fixture(scope="module")
def javascript():
    """An engine with the page's forward pass and preparation, the network, and its weights."""
    engine = pytest.importorskip("py_mini_racer").MiniRacer()
    for name in ("network.js", "prepare.js"):
        engine.eval((build_page.PARTS / name).read_text(encoding="utf-8"))
    layers, weights = layers_and_weights()
    engine.eval(
        f"const network = {json.dumps({'layers': layers, 'mean': MEAN, 'std': STD})};"
        f"const weights = Float32Array.from({json.dumps(weights.tolist())});"
        """
        const read = images =>
          images.map(pixels => Array.from(forward(network, weights, pixels).logProbabilities));
        const maps = pixels =>
          forward(network, weights, pixels).maps.map(map => Array.from(map.data));
        const explained = (pixels, number, channel, x, y) => {
          const map = forward(network, weights, pixels).maps[number];
          const steps = explain(map, network.layers.filter(l => l.out)[number], channel, x, y);
          return {...steps, shown: map.data[(channel * map.height + y) * map.width + x]}; };
        const readPicture = (colours, w, h) => {
          const digit = readDigit(colours.map(channel => Float32Array.from(channel)), w, h);
          return digit && {...digit, pixels: Array.from(digit.pixels)}; };
        const readDrawing = ink => normalizeInk(Float32Array.from(ink), 100, 100);
        const compared = (pixels, digit, rival) => {
          const result = forward(network, weights, pixels);
          return {...compareDigits(result, digit, rival), logits: result.logits}; };
        const weighed = (pixels, digit, rival) => {
          const logits = image => forward(network, weights, image).logits, all = logits(pixels);
          const patches = findPatches(pixels).map(({x, y}) =>
            ({x, y, logits: logits(emptyPatch(pixels, x, y))}));
          return Array.from(weighPixels(patches, all[digit] - all[rival], digit, rival)); };"""
    )
    return engine


def test_the_forward_pass_agrees_with_pytorch_on_test_images(javascript, mnist):
    images = mnist[1][0][:200]
    with torch.no_grad():
        expected = load_page_model()(normalize(images))
    found = torch.tensor(javascript.call("read", images.flatten(1).tolist()))
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert (found - expected).abs().max() < 1e-4


@torch.no_grad()
def test_the_feature_maps_and_receptive_fields_are_pytorchs(javascript):
    features, image = load_page_model().features, torch.rand(1, 1, 28, 28)
    blocks = [index for index, part in enumerate(features) if isinstance(part, torch.nn.Sequential)]
    maps = javascript.call("maps", image.flatten().tolist())
    for number, (block, found) in enumerate(zip(blocks, maps, strict=True)):
        outputs = features[: block + 1](normalize(image))
        assert torch.tensor(found) == pytest.approx(outputs.flatten().numpy(), abs=1e-3)
        x, y = outputs.shape[-1] // 2, outputs.shape[-1] // 3
        field = javascript.eval(f"receptiveField(network.layers, {number}, {x}, {y})")
        left, top, size = (field[name] for name in ("left", "top", "size"))
        inside = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
        inside[..., max(top, 0) : top + size, max(left, 0) : left + size] = True
        for changed in (inside, ~inside):  # only the pixels in the field change the value
            other = torch.where(changed, torch.rand_like(image), image)
            again = features[: block + 1](normalize(other))
            assert torch.equal(again[..., y, x], outputs[..., y, x]) == (changed is not inside)


def test_the_arithmetic_of_a_pixel_adds_up_to_its_value(javascript):
    pixels = torch.rand(784, generator=torch.Generator().manual_seed(1)).tolist()
    sizes = [layer["size"] for layer in layers_and_weights()[0] if "size" in layer]
    for number, size in enumerate(sizes):  # at the border of the last layer, values are padding
        for channel, x, y in ((0, 0, 0), (1, size - 1, size - 1), (2, size // 2, size // 3)):
            steps = javascript.call("explained", pixels, number, channel, x, y)
            sums = [np.dot(part["weights"], part["values"]) for part in steps["parts"]]
            assert [abs(part) for part in sums] == pytest.approx(sorted(map(abs, sums))[::-1])
            value = max(0, sum(sums)) * steps["factor"] + steps["shift"]
            assert steps["sum"] == pytest.approx(sum(sums), abs=1e-6)
            assert steps["value"] == pytest.approx(value, abs=1e-6)
            assert steps["value"] == pytest.approx(steps["shown"], abs=1e-4)  # in float32


@torch.no_grad()
def test_the_products_of_the_last_layer_add_up_to_the_difference_of_two_logits(javascript, mnist):
    model, image = load_page_model(), mnist[1][0][3:4]
    averages = model.features(normalize(image)).flatten()
    logits = model.classifier(averages)
    found = javascript.call("compared", image.flatten().tolist(), 2, 7)
    assert found["logits"] == pytest.approx(logits.tolist(), abs=1e-4)
    assert found["difference"] == pytest.approx((logits[2] - logits[7]).item(), abs=1e-4)
    weight = model.classifier.weight[2] - model.classifier.weight[7]
    products = [part["product"] for part in found["parts"]]
    order = [part["map"] for part in found["parts"]]
    assert products == pytest.approx((averages * weight)[order].tolist(), abs=1e-4)
    assert [*map(abs, products)] == sorted(map(abs, products), reverse=True)
    assert sum(products) + found["bias"] == pytest.approx(found["difference"], abs=1e-4)


@torch.no_grad()
def test_a_pixel_counts_as_the_patches_that_hold_it(javascript, mnist):
    model, image = load_page_model(), mnist[1][0][3]
    changes, covered, full = torch.zeros(28, 28), torch.zeros(28, 28), model(normalize(image[None]))
    for y in range(0, 28, 2):
        for x in range(0, 28, 2):
            patch = slice(max(y - 2, 0), y + 3), slice(max(x - 2, 0), x + 3)
            rest = image.clone()
            rest[0][patch] = 0
            if not torch.equal(rest, image):
                values = full - model(normalize(rest[None]))
                changes[patch] += values[0, 0] - values[0, 6]
                covered[patch] += 1
    found = javascript.call("weighed", image.flatten().tolist(), 0, 6)
    assert found == pytest.approx((changes / covered.clamp(min=1)).flatten().tolist(), abs=1e-3)


def read_picture(javascript, path):
    """What the page finds in an image file."""
    colours = read_colours(path)
    channels = colours.reshape(-1, 3).T.tolist()
    return javascript.call("readPicture", channels, colours.shape[1], colours.shape[0])


@pytest.mark.parametrize("number, kind", list(enumerate(KINDS)))
def test_a_picture_is_prepared_as_in_digits_py(number, kind, javascript, tmp_path):
    path = save(KINDS[kind](number % 10, number % 3), tmp_path)
    expected, found = read_digit(path), read_picture(javascript, path)
    assert found["doubts"] == expected.doubts
    assert tuple(found["box"].values()) == expected.box
    difference = torch.tensor(found["pixels"]) - expected.pixels.flatten()
    assert difference.abs().max() < 0.02  # at most 0.007 at present


@pytest.mark.parametrize("width", [69, 90, 111])
def test_a_symmetrical_digit_is_centred_as_in_digits_py(width, javascript, tmp_path):
    image = Image.new("L", (200, 200), 255)  # its centre of mass lies between two pixels
    ImageDraw.Draw(image).ellipse((100 - width // 2, 30, 100 + width // 2, 170), None, 0, 14)
    path = save(image, tmp_path)
    expected, found = read_digit(path).pixels.flatten(), read_picture(javascript, path)
    assert (torch.tensor(found["pixels"]) - expected).abs().max() < 0.02


def test_what_an_eraser_left_over_is_no_digit(javascript):
    ink = [0.25 if 100 <= k < 120 else 0 for k in range(10_000)]
    assert javascript.call("readDrawing", ink) is None
    assert len(javascript.call("readDrawing", [2 * value for value in ink])["pixels"]) == 784


@pytest.mark.parametrize("level", [0, 0.06])
def test_paper_without_a_digit_is_refused_as_in_digits_py(level, javascript):
    noise = np.random.default_rng(1).normal(0.7, level, 10_000).clip(0, 1).tolist()
    assert javascript.call("readPicture", [noise] * 3, 100, 100) is None


def test_the_page_is_small_and_complete():
    text = build_page.PAGE.read_text(encoding="utf-8")
    assert len(text.encode()) <= 140_000, "the page is too large: shorten page/, or lower MISREAD"
    assert "{{" not in text and "unsafe-" not in text
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)", text)
    assert {address.split("/")[0] for address in addresses} == {"data:,", "..", "https:"}
    licence = "https://creativecommons.org/licenses/by-sa/3.0/"
    assert [address for address in addresses if "//" in address] == [licence]


def test_a_network_that_misreads_many_images_makes_no_larger_page():
    few, many = (build_page.make({"accuracy": "99", "seeds": "9"}, range(n)) for n in (40, 500))
    assert few == many and '"misread": 36' in few


def test_hidden_files_of_editors_do_not_matter(tmp_path, monkeypatch):
    parts = shutil.copytree(build_page.PARTS, tmp_path / "page")
    (parts / ".page.js.swp").write_bytes(b"\x84")
    monkeypatch.setattr(build_page, "PARTS", parts)
    assert "<html" in build_page.make({"accuracy": "99", "seeds": "9"}, range(40))


@pytest.mark.parametrize("part", ['"weights": "', '"pixels": "', '"mean": ', "function forward("])
def test_an_altered_page_is_not_current(part, tmp_path, monkeypatch):
    whole = build_page.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(build_page, "make", lambda *_: whole)
    monkeypatch.setattr(build_page, "PAGE", tmp_path / "index.html")
    build_page.PAGE.write_text(whole, encoding="utf-8")
    assert build_page.is_current({}, [])
    before, _, after = whole.partition(part)
    build_page.PAGE.write_text(before + part + "AAAA" + after[4:], encoding="utf-8")
    assert not build_page.is_current({}, [])


def use_another_activation(model):
    model.features[0][1] = torch.nn.LeakyReLU()


def add_a_layer(model):
    model.features.append(torch.nn.Dropout())


def use_larger_filters(model):
    model.features[0][0] = torch.nn.Conv2d(1, 12, 5, bias=False)


def pool_over_more_values(model):
    model.features[3] = torch.nn.MaxPool2d(3)


def pool_beyond_the_border(model):
    model.features[3] = torch.nn.MaxPool2d(2, ceil_mode=True)


def average_over_quarters(model):
    model.features[8] = torch.nn.AdaptiveAvgPool2d(2)


class Residual(torch.nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


def skip_a_block(model):
    model.features[6] = Residual(*model.features[6])


CHANGES = [
    use_another_activation,
    add_a_layer,
    use_larger_filters,
    pool_over_more_values,
    pool_beyond_the_border,
    average_over_quarters,
    skip_a_block,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_that_the_page_cannot_compute_is_refused(change, monkeypatch):
    model = load_page_model()
    change(model)
    monkeypatch.setattr(build_page, "load_model", lambda weights: model)
    with pytest.raises(ValueError, match="^page/network.js cannot compute "):
        layers_and_weights()


@pytest.fixture(scope="module")
def browser():
    if not BROWSER:
        pytest.skip("there is no Chromium or Chrome on this machine")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """Open the page from disk, offline, in a window of this size; fails if it logs an error or
    asks for anything."""
    contexts, errors, requests = [], [], []

    def start(width=1366, height=768, script="", **options):
        context = browser.new_context(
            viewport={"width": width, "height": height}, offline=True, **options
        )
        contexts.append(context)
        context.add_init_script(script)
        tab = context.new_page()
        tab.on("console", lambda message: errors.append(message.text))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(build_page.PAGE.as_uri())
        return tab

    yield start
    for context in contexts:
        context.close()
    assert errors == []
    assert {url for url in requests if not url.startswith("blob:")} == {build_page.PAGE.as_uri()}


@pytest.fixture
def opened(open_page):
    return open_page()


PHONE = {"width": 360, "height": 740, "has_touch": True, "is_mobile": True}


def places(tab, stroke, left=40, top=30, width=120, height=140):
    """Where the points of a stroke are, in this box of the drawing area, 200 wide and high."""
    area = tab.locator("#drawing").bounding_box()
    unit = area["width"] / 200
    return [
        (area["x"] + (left + x * width) * unit, area["y"] + (top + y * height) * unit)
        for x, y in stroke
    ]


def draw(tab, strokes, *box, pen=22):
    """Draw strokes of a square of side 1 into this box of the drawing area, with the mouse."""
    tab.fill("#stroke", str(pen))
    tab.locator("#drawing").scroll_into_view_if_needed()
    for stroke in strokes:
        start, *points = places(tab, stroke, *box)
        tab.mouse.move(*start)
        tab.mouse.down()
        for point in points:
            tab.mouse.move(*point)
        tab.mouse.up()


def line(tab):
    return tab.inner_text("#prediction")


def read_digit_of(tab):
    """The predicted digit that the page shows."""
    return int(re.match(r"Prediction: (\d) \(", line(tab))[1])


def wait_for(tab, start):
    tab.locator("#prediction", has_text=re.compile(f"^{re.escape(start)}")).wait_for()


def seen(tab):
    """The 784 pixels that the page says the network sees, from 0 to 1 (rounded to 8 bits)."""
    rows = tab.evaluate(
        """() => { const copy = new OffscreenCanvas(280, 280);
        const brush = copy.getContext("2d", {willReadFrequently: true});
        brush.drawImage(document.getElementById("seen"), 0, 0);
        const {data} = brush.getImageData(0, 0, 280, 280);
        return Array.from({length: 784}, (_, k) =>
          data[4 * ((10 * Math.floor(k / 28) + 5) * 280 + 10 * (k % 28) + 5)]); }"""
    )
    return torch.tensor([(255 - value) / (255 - 26) for value in rows])  # paper is 255, ink 26


def press(tab, place, *keys):
    for key in keys:
        tab.locator(place).press(key)


def numbers(text):
    """The numbers of three decimals in a text."""
    return [float(number.replace("−", "-")) for number in re.findall(r"−?\d+\.\d{3}", text)]


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def transfer(tab, name, content, kind="image/png"):
    """A file as the browser passes it on when it is dropped or pasted."""
    return tab.evaluate_handle(
        "([name, type, bytes]) => { const data = new DataTransfer();"
        "data.items.add(new File([Uint8Array.from(bytes)], name, {type})); return data; }",
        [name, kind, list(content)],
    )


def drop(tab, *file):
    tab.dispatch_event("body", "drop", {"dataTransfer": transfer(tab, *file)})


def pick(tab, index):
    """Choose the test image with this index of MNIST."""
    tab.locator(f"#images canvas[title^='Test image {index},']").click()


EMPTY = "There is no ink yet: draw a digit, or pick a test image."
NO_IMAGE = "is not an image that this browser can read."

# ---- drawing


def test_drawn_digits_are_read(opened):
    for digit, box, pen in (
        (0, (20, 20, 160, 160), 28),
        (2, (110, 100, 80, 90), 11),
        (5, (100, 10, 70, 90), 14),
    ):
        opened.click("#clear")
        draw(opened, STROKES[digit], *box, pen=pen)
        assert read_digit_of(opened) == digit
        assert "Doubtful" not in line(opened) and "Not sure" not in line(opened)


BARS = [[(0.2, 0), (0.2, 1)], [(0.8, 0), (0.8, 1)]]


@pytest.mark.parametrize(
    "strokes, box, doubt",
    [
        (BARS, (), "several parts"),
        ([[(0, 0)]], (100, 100), "no digit?"),
        (STROKES[0], (20, 110, 120, 160), "touches the border"),
        (STROKES[0], (20, 50, 160, 160), "touches the border"),
    ],
)
def test_a_drawing_is_doubted_as_a_picture_is(strokes, box, doubt, opened):
    draw(opened, strokes, *box)
    shown = line(opened)
    sure = float(re.search(r"(\d+\.\d)\s%", shown)[1]) >= 100 * SURE
    assert ("Not sure" in shown) == (not sure)
    said = f"{'Doubtful' if sure else 'Not sure'}: {doubt}" in shown
    # The border is a reason only if the network is not sure: another one may be.
    assert said == (not sure or doubt != "touches the border")


def test_an_eraser_changes_a_drawing_and_a_picture(opened, tmp_path):
    draw(opened, STROKES[7])
    before = seen(opened).sum()
    opened.click("#eraser")
    draw(opened, [[(0, 0.1), (0.6, 0.1)]], pen=44)
    assert read_digit_of(opened) == 1 and seen(opened).sum() < before
    opened.set_input_files("#file", save(clean(8), tmp_path))
    wait_for(opened, "Prediction: 8 (")
    before, eight = seen(opened).sum(), line(opened)
    draw(opened, [[(0, 0), (1, 0), (1, 1), (0, 1)]], 40, 40, 120, 120, pen=44)
    assert seen(opened).sum() < 0.7 * before and line(opened) != eight


def test_clear_returns_to_the_pen(opened):
    opened.click("#eraser")
    opened.click("#clear")
    draw(opened, STROKES[7])
    assert read_digit_of(opened) == 7


def test_an_erased_image_is_empty(opened):
    opened.locator("#images canvas").first.click()
    opened.click("#eraser")
    for x in range(10):
        draw(opened, [[(x / 9, 0), (x / 9, 1)]], 0, 0, 200, 200, pen=44)
    assert line(opened) == EMPTY and opened.is_hidden("#products")
    opened.click("#eraser")
    draw(opened, STROKES[5], 100, 10, 70, 90, pen=14)  # a drawing like any other
    assert read_digit_of(opened) == 5
    assert opened.inner_text("#preparation").startswith("The drawing is scaled")


def test_a_finger_draws_and_does_not_scroll(open_page):
    tab = open_page(**PHONE, color_scheme="dark")
    touch, (first, corner, last) = tab.context.new_cdp_session(tab), STROKES[7][0]
    stroke = [*np.linspace(first, corner, 10), *np.linspace(corner, last, 10)]
    points = [{"x": x, "y": y} for x, y in places(tab, stroke)]
    for kind, point in zip(["touchStart", *["touchMove"] * 19], points):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert tab.evaluate("scrollY") == 0 and read_digit_of(tab) == 7
    tab.click("#undo")  # one stroke, which replaced the example
    assert read_digit_of(tab) == 3 and tab.is_disabled("#undo")


def test_a_pen_replaces_the_palm_that_rests(open_page):
    tab = open_page(has_touch=True)
    tab.click("#clear")
    input, (palm,) = tab.context.new_cdp_session(tab), places(tab, [(0.9, 0.95)])
    point = [{"x": palm[0], "y": palm[1], "id": 1}]
    input.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": point})
    kinds = ["mousePressed", "mouseMoved", "mouseMoved", "mouseReleased"]
    pen = {"button": "left", "pointerType": "pen", "buttons": 1, "clickCount": 1}
    for kind, (x, y) in zip(kinds, places(tab, [*STROKES[7][0], STROKES[7][0][-1]])):
        input.send("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **pen})
    input.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert read_digit_of(tab) == 7 and "several parts" not in line(tab)


def test_it_starts_with_a_digit_and_undo_takes_everything_back(opened, tmp_path):
    assert read_digit_of(opened) == 3 and opened.is_disabled("#undo")
    lines = [line(opened)]
    for change in (
        lambda: draw(opened, STROKES[7]),  # replaces the example
        lambda: draw(opened, [[(0, 0), (1, 1)]]),
        lambda: opened.click("#clear"),
        lambda: opened.set_input_files("#file", save(clean(5), tmp_path)),
        lambda: press(opened, "#images", "ArrowRight"),
        lambda: drop(opened, "half.png", png(clean(4))[:-100]),
    ):
        change()
        before = f"^(Reading the picture …|{re.escape(lines[-1])})$"
        opened.locator("#prediction", has_not_text=re.compile(before)).wait_for()
        lines.append(line(opened))
    assert [text[:13] for text in lines[:2]] == ["Prediction: 3", "Prediction: 7"]
    assert lines[3] == EMPTY and lines[4].startswith("Prediction: 5 (")
    assert lines[6] == f"half.png {NO_IMAGE}"
    for number, text in enumerate(reversed(lines[:-1])):
        press(opened, "#undo", "Enter") if number % 2 else opened.keyboard.press("Control+z")
        assert line(opened) == text
    assert opened.is_disabled("#undo") and opened.evaluate("document.activeElement.id") == "clear"
    for text in lines[1:]:
        opened.keyboard.press("Control+Shift+z")
        assert line(opened) == text
    assert opened.is_disabled("#redo")


def test_the_shortcuts_work_in_every_layout(opened):
    opened.click("#clear")
    draw(opened, STROKES[7])
    undo, redo = EMPTY, "Prediction: 7 ("
    for key, code, shift, start in [
        ("Z", "KeyZ", False, undo),  # Caps Lock
        ("Z", "KeyZ", True, redo),
        ("я", "KeyZ", False, undo),
        ("y", "KeyY", False, redo),
        ("ζ", "KeyZ", False, undo),
        ("Ζ", "KeyZ", True, redo),
        ("z", "KeyW", False, undo),  # AZERTY
        ("w", "KeyZ", True, undo),
    ]:
        options = {"key": key, "code": code, "ctrlKey": True, "shiftKey": shift}
        opened.dispatch_event("body", "keydown", {**options, "bubbles": True})
        assert line(opened).startswith(start), key


def test_clearing_nothing_is_no_step(opened):
    for _ in range(3):
        opened.click("#clear")
    opened.click("#undo")
    assert read_digit_of(opened) == 3 and opened.is_disabled("#undo")


# ---- how it decides


@torch.no_grad()
def test_the_page_shows_the_networks_numbers(opened, mnist):
    opened.locator("#images canvas").first.click()
    index = int(re.search(r"Test image (\d+)", opened.inner_text("#preparation"))[1])
    model, image = load_page_model(), normalize(mnist[1][0][index : index + 1])
    maps = [image, *(model.features[:count](image) for count in range(1, 11))]
    logits = model.classifier(maps[-1].flatten(1))[0]
    shown = opened.locator("#bars tbody td:nth-child(3)").all_inner_texts()
    assert numbers(" ".join(shown)) == pytest.approx(logits.tolist(), abs=0.002)
    digit, rival = logits.topk(2).indices.tolist()
    products = numbers(" ".join(opened.locator("#products b").all_inner_texts()))
    weight = model.classifier.weight[digit] - model.classifier.weight[rival]
    expected = sorted((maps[-1].flatten() * weight).tolist(), key=abs, reverse=True)
    assert products == pytest.approx(expected, abs=0.002)
    total, bias, difference, *_ = numbers(opened.inner_text("#total"))
    assert total == pytest.approx(sum(products), abs=0.01)
    assert difference == pytest.approx((logits[digit] - logits[rival]).item(), abs=0.002)
    assert difference == pytest.approx(total + bias, abs=0.002)


def test_two_digits_can_be_compared(opened):
    opened.locator("#images canvas").first.click()
    opened.select_option("#winner", "4")
    opened.select_option("#rival", "9")
    logits = numbers(opened.inner_text("#bars"))
    difference = numbers(opened.inner_text("#total"))[2]
    assert difference == pytest.approx(logits[4] - logits[9], abs=0.002)
    assert "4 is e" in opened.inner_text("#softmax")
    assert opened.locator("#rival option[value='4']").is_disabled()
    opened.locator("#images canvas").last.click()
    assert opened.input_value("#winner") == opened.input_value("#rival") == ""


def test_a_digit_is_never_compared_with_itself(opened):
    digit = read_digit_of(opened)
    opened.select_option("#winner", str((digit + 1) % 10))
    opened.select_option("#rival", str(digit))
    opened.select_option("#winner", "")  # that is the rival
    for_, against = (opened.inner_text(f"#{side}") for side in ("for", "against"))
    assert for_ == f"for {digit} →" and against != f"← for {digit}"
    chosen = [opened.locator(f"#{id} option:checked").inner_text() for id in SIDES]
    assert chosen == [f"{digit}, the winner", f"{against.removeprefix('← for ')}, the runner-up"]
    opened.select_option("#winner", chosen[1][0])  # the runner-up, against the winner
    assert opened.locator("#rival option:checked").inner_text() == f"{digit}, the winner"
    assert opened.inner_text("#against") == f"← for {digit}"


def test_the_strokes_that_count_are_those_whose_removal_changes_the_answer(opened):
    misread = opened.locator("#images canvas[title$=misread]").first
    misread.click()
    opened.wait_for_selector("#patches:not(:empty)")
    assert "speaks for" in opened.inner_text("#legend")
    colours = opened.evaluate(
        """() => { const canvas = document.getElementById("strokes"), found = {blue: 0, orange: 0};
        const {data} = canvas.getContext("2d").getImageData(0, 0, 28, 28);
        for (let k = 0; k < data.length; k += 4) {
          if (data[k + 2] > data[k] + 40) found.blue++;
          if (data[k] > data[k + 2] + 40) found.orange++;
        }
        return found; }"""
    )
    assert colours["blue"] and colours["orange"]
    text = opened.inner_text("#patches")
    places = re.findall(r"row (\d+), column (\d+), it is (−?[\d.]+)", text)
    opened.locator("#seen").focus()
    press(opened, "#seen", *["ArrowUp"] * 28, *["ArrowLeft"] * 28)
    frame = 1, 1  # row and column
    for row, column, difference in places:
        down, right = int(row) - frame[0], int(column) - frame[1]
        press(opened, "#seen", *["ArrowDown" if down > 0 else "ArrowUp"] * abs(down))
        press(opened, "#seen", *["ArrowRight" if right > 0 else "ArrowLeft"] * abs(right))
        frame = int(row), int(column)
        first, second = [opened.locator(f"#{id} option").first.inner_text()[0] for id in SIDES]
        opened.select_option("#winner", first)
        opened.select_option("#rival", second)
        opened.locator("#seen").press("Delete")
        assert numbers(opened.inner_text("#total"))[2] == numbers(difference)[0]
        opened.keyboard.press("Control+z")


SIDES = ("winner", "rival")


def test_a_pixel_can_be_switched(opened):
    opened.locator("#images canvas").first.click()
    before = seen(opened)
    box = opened.locator("#seen").bounding_box()
    side = box["width"] / 28
    opened.mouse.click(box["x"] + 3.5 * side, box["y"] + 24.5 * side)
    opened.mouse.move(0, 0)
    opened.locator("#clear").focus()  # the frame goes
    changed = seen(opened) - before
    assert changed[24 * 28 + 3] == 1 and changed.abs().sum() == 1
    assert opened.inner_text("#preparation").startswith("Test image ")
    assert "changed here" in opened.inner_text("#preparation")
    press(opened, "#seen", "Space")
    opened.locator("#clear").focus()
    assert torch.equal(seen(opened), before)


def test_a_click_on_ink_removes_it_however_pale(opened):
    opened.locator("#images canvas").first.click()
    before = seen(opened)
    pale = ((before > 0.15) & (before < 0.45)).nonzero()[0].item()
    box = opened.locator("#seen").bounding_box()
    side, (row, column) = box["width"] / 28, divmod(pale, 28)
    opened.mouse.click(box["x"] + (column + 0.5) * side, box["y"] + (row + 0.5) * side)
    assert opened.inner_text("#pixel") == f"Row {row + 1}, column {column + 1}: ink 0.00."
    assert opened.locator("#seen").bounding_box() == box  # nothing moves
    opened.keyboard.press("Control+z")
    ink = float(re.search(r"ink ([\d.]+)\.", opened.inner_text("#pixel"))[1])
    assert ink == pytest.approx(before[pale].item(), abs=0.01)


def test_a_click_on_the_strokes_empties_five_by_five_pixels(opened):
    opened.locator("#images canvas").first.click()
    before = seen(opened).view(28, 28)
    row, column = (int(part) for part in (before == before.max()).nonzero()[0])
    box = opened.locator("#strokes").bounding_box()
    side = box["width"] / 28
    opened.mouse.click(box["x"] + (column + 0.5) * side, box["y"] + (row + 0.5) * side)
    expected = before.clone()
    expected[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = 0
    assert torch.equal(seen(opened).view(28, 28), expected)


# ---- feature maps


@torch.no_grad()
def test_a_chosen_pixel_is_explained(opened, mnist):
    assert numbers(opened.inner_text("#sums p:nth-last-child(3)"))[0] > 0  # at the start
    opened.locator("#images canvas").first.click()
    index = int(re.search(r"Test image (\d+)", opened.inner_text("#preparation"))[1])
    opened.locator("#map-1-2").click()
    place = re.match(
        r"Convolution 2, map 3 of 16, row (\d+), column (\d+)", opened.inner_text("#about")
    )
    row, column = map(int, place.groups())
    assert {row, column} <= {12, 13}
    maps = load_page_model().features[:2](normalize(mnist[1][0][index : index + 1]))
    *_, value = numbers(opened.inner_text("#sums p:last-child"))
    assert value == pytest.approx(maps[0, 2, row - 1, column - 1].item(), abs=0.002)
    assert opened.locator("#sums td").count() == 3 * 9
    assert "The other 9 maps" in opened.inner_text("#sums")
    press(opened, "#layers", "ArrowDown", "ArrowDown", *["Shift+ArrowRight"] * 30)
    assert opened.inner_text("#about").startswith("Convolution 3, map 3 of 12, row 10, column 10")
    assert "from the maps after max pool" in opened.inner_text("#sums")
    press(opened, "#layers", *["ArrowDown"] * 9)
    assert "Beyond their border, values are 0" in opened.inner_text("#sums")
    press(opened, "#layers", *["ArrowUp"] * 9)
    assert "paper is −0.424" in opened.inner_text("#sums")
    assert opened.locator("#layers [aria-selected=true]").count() == 1


def test_the_printed_arithmetic_adds_up(opened):
    for _ in range(12):
        press(opened, "#layers", "ArrowRight", "Shift+ArrowDown")
        for table in opened.locator("#sums table").all():
            total, *factors = numbers(table.inner_text())
            products = [a * b for a, b in zip(factors[::2], factors[1::2])]
            assert total == pytest.approx(sum(products), abs=0.02)
        text = opened.inner_text("#sums p:last-child")
        positive, factor, shift, value = numbers(text.replace("− ", "−"))
        assert value == pytest.approx(positive * factor + shift, abs=0.005) and "≈" in text
    assert "All numbers are rounded." in opened.inner_text("#sums")


def test_home_and_end_lead_to_the_first_and_the_last_map(opened):
    press(opened, "#layers", "End")
    assert opened.inner_text("#about").startswith("Convolution 6, map 14 of 14,")
    press(opened, "#layers", "Home")
    assert opened.inner_text("#about").startswith("Convolution 1, map 1 of 12,")


def test_a_product_of_the_decision_leads_to_the_strongest_pixel_of_its_map(opened):
    row = opened.locator("#products li").first
    number = int(row.locator("span").inner_text().removeprefix("Map "))
    row.click()
    place = re.fullmatch(
        rf"Convolution 6, map {number} of 14, row (\d), column (\d)", opened.inner_text("#about")
    )
    shades = opened.evaluate(
        """() => { const {data} = document.querySelector("#products canvas").getContext("2d")
        .getImageData(0, 0, 6, 6); return Array.from({length: 36}, (_, k) => data[4 * k]); }"""
    )
    shade = shades[6 * (int(place[1]) - 1) + int(place[2]) - 1]
    assert shade in (min(shades), max(shades))  # whichever way batch normalisation scales the map
    assert shades.count(shade) == 1  # not what ReLU left empty


def test_a_click_pins_a_pixel(opened):
    about = lambda: opened.inner_text("#about")
    opened.locator("#map-3-1").hover()
    assert about().startswith("Convolution 3, map 2")
    opened.locator("#map-4-5").hover()
    assert about().startswith("Convolution 4, map 6")
    opened.locator("#map-4-5").click()
    pinned = about()
    opened.locator("#map-6-1").hover()
    opened.locator("#detail").hover()
    assert about() == pinned
    box = opened.locator("#enlarged").bounding_box()
    opened.mouse.click(box["x"] + 1, box["y"] + 1)
    assert about() == "Convolution 4, map 6 of 14, row 1, column 1"


# ---- layout and keyboard


@pytest.mark.parametrize("width, height", [(320, 568), (360, 740), (740, 360), (1366, 768)])
def test_the_page_fits_the_screen(width, height, open_page):
    tab = open_page(width, height, is_mobile=width < 600)
    for part in ("#drawing", "#prediction"):  # both are in sight
        area = tab.locator(part).bounding_box()
        assert area["y"] >= 0 and area["y"] + area["height"] <= height
    for number in (0, 30, 87):
        tab.locator(".layer canvas").nth(number).click()
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        frame = tab.locator("#detail").bounding_box()
        for table in tab.locator("#sums table").all():
            area = table.bounding_box()
            assert area["x"] + area["width"] <= frame["x"] + frame["width"]


@pytest.mark.parametrize("size", [{}, PHONE])
def test_maps_and_test_images_are_in_sight_while_one_draws(size, open_page):
    tab = open_page(**size)
    height = tab.viewport_size["height"]
    for part in ("#drawing", "#prediction", "#images", "#map-0-0", "#map-1-0", "#map-2-0"):
        area = tab.locator(part).bounding_box()
        assert area["y"] >= 0 and area["y"] + area["height"] <= height


def test_a_phone_keeps_the_answer_in_sight(open_page):
    tab = open_page(**PHONE)
    tab.locator("#total").scroll_into_view_if_needed()
    assert 0 <= tab.locator("#prediction").bounding_box()["y"] < 60


def test_a_phone_shows_a_map_and_its_explanation_together(open_page):
    tab = open_page(**PHONE)
    tab.locator("#map-4-5").tap()
    assert tab.inner_text("#about").startswith("Convolution 4, map 6")
    for part in ("#map-4-5", "#about", "#enlarged"):
        area = tab.locator(part).bounding_box()
        assert area["y"] >= 0 and area["y"] + area["height"] <= tab.viewport_size["height"], part


def test_tab_makes_few_stops(opened):
    draw(opened, STROKES[7])  # so that Undo is enabled
    stops = set()
    for _ in range(24):
        opened.keyboard.press("Tab")
        stops.add(opened.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
    assert 5 <= len({stop for stop in stops if not stop.startswith("<body")}) <= 18


def test_list_boxes_hold_named_groups_of_options_alone(opened):
    for place, groups, options in (("#layers", 7, 88), ("#images", 2, None)):
        snapshot = opened.locator(place).aria_snapshot().splitlines()[1:]
        kinds = [re.match(r"\s*- (\w+) \"", text)[1] for text in snapshot]
        assert kinds.count("group") == groups and {*kinds} == {"group", "option"}
        assert options in (None, kinds.count("option"))
    assert opened.locator("main h1").count() == 1


def test_the_arrow_keys_walk_through_the_test_images(open_page):
    tab = open_page(**PHONE)
    label = lambda: tab.locator("#images [aria-selected=true]").get_attribute("aria-label")
    labels = [option.get_attribute("aria-label") for option in tab.locator("#images canvas").all()]
    for keys, number in (
        (["ArrowRight"], 0),
        (["ArrowRight"] * 9, 9),
        (["ArrowLeft"], 8),
        (["End"], len(labels) - 1),
        (["ArrowRight"], len(labels) - 1),
        (["Home"], 0),
        (["ArrowUp"], 0),
    ):
        press(tab, "#images", *keys)
        assert label() == labels[number]
        area = tab.locator("#images [aria-selected=true]").bounding_box()
        assert 0 <= area["x"] < 360 and 0 <= area["y"] < 740
    tab.click("#undo")
    assert read_digit_of(tab) == 3 and tab.locator("#images [aria-selected=true]").count() == 0
    tab.set_viewport_size({"width": 1366, "height": 768})  # several rows
    press(tab, "#images", "ArrowRight")
    start = tab.locator("#images [aria-selected=true]").bounding_box()
    press(tab, "#images", "ArrowDown")
    area = tab.locator("#images [aria-selected=true]").bounding_box()
    assert area["y"] > start["y"] and abs(area["x"] - start["x"]) < start["width"]
    press(tab, "#images", "ArrowUp")
    assert label() == labels[0]


def test_an_image_can_be_picked_after_as_many_steps_as_undo_keeps(opened):
    opened.locator("#images canvas").first.click()
    opened.evaluate(
        """() => { const seen = document.getElementById("seen"), bubbles = true;
        for (let k = 0; k < 100; k++) seen.dispatchEvent(new KeyboardEvent("keydown", {key: " "}));
        for (let k = 0; k < 100; k++)
          seen.dispatchEvent(new KeyboardEvent("keydown", {key: "z", ctrlKey: true, bubbles})); }"""
    )
    opened.locator("#images canvas").last.click()
    opened.keyboard.press("Control+z")
    draw(opened, STROKES[7])
    assert read_digit_of(opened) == 7


def test_misread_images_are_marked_and_misread(opened):
    misread = opened.locator("#images canvas[title$=misread]")
    for number in (0, 1, 2, -1):
        misread.nth(number).click()
        label = int(re.search(r"label: (\d)", line(opened))[1])
        assert read_digit_of(opened) != label
    assert "Misread:" in opened.inner_text("#images")


# ---- pictures


def test_pictures_are_read_however_they_come(opened, tmp_path):
    lines = "<svg xmlns='http://www.w3.org/2000/svg' width='90' height='90'><path stroke='black'"
    lines += " stroke-width='9' d='M45 10V80'/></svg>"
    drop(opened, "one.svg", lines.encode(), "image/svg+xml")
    wait_for(opened, "Prediction: 1 (")
    paste = "clipboardData => document.body.dispatchEvent("
    paste += "new ClipboardEvent('paste', {clipboardData, bubbles: true}))"
    opened.evaluate(paste, transfer(opened, "two.png", png(clean(2))))
    wait_for(opened, "Prediction: 2 (")
    exif = Image.Exif()
    exif[274] = 6  # stored turned by 90 degrees
    clean(7).resize((1600, 1600)).rotate(90).save(tmp_path / "seven.jpg", exif=exif)
    opened.set_input_files("#file", tmp_path / "seven.jpg")
    wait_for(opened, "Prediction: 7 (")


@pytest.mark.parametrize("kind", ["pen of 0.3 %", "paper of two tones", "transparent"])
def test_a_picture_is_reduced_as_in_digits_py_and_shown_with_its_box(kind, opened, tmp_path):
    path = save(KINDS[kind](4, 1), tmp_path)
    opened.set_input_files("#file", path)
    wait_for(opened, "Prediction: 4 (")
    difference = seen(opened) - read_digit(path).pixels.flatten()
    assert difference.abs().max() < 0.05  # 8 bits are rounded elsewhere
    shown = opened.evaluate(
        """() => { const brush = document.getElementById("drawing").getContext("2d");
        return [...brush.getImageData(0, 0, 280, 280).data].reduce((count, value, k, all) =>
          count + (k % 4 === 0 && value > 150 && all[k + 1] < 120 && all[k + 3] === 255), 0); }"""
    )
    assert shown > 200  # red pixels of the frame


def test_the_newest_input_wins(opened):
    opened.evaluate(
        """data => { document.body.dispatchEvent(new DragEvent("drop",
          {dataTransfer: data, bubbles: true, cancelable: true}));
        document.querySelector("#images canvas").click(); }""",
        transfer(opened, "three.png", png(clean(3).resize((1600, 1600)))),
    )
    opened.wait_for_timeout(500)
    assert opened.inner_text("#preparation").startswith("Test image ")
    opened.click("#undo")
    wait_for(opened, "Prediction: 3 (")  # the picture, which was read meanwhile


def test_undo_while_a_picture_is_read_keeps_the_earlier_drawings(opened):
    draw(opened, STROKES[7])
    opened.evaluate(
        """data => { document.body.dispatchEvent(new DragEvent("drop",
          {dataTransfer: data, bubbles: true, cancelable: true}));
        document.getElementById("undo").click(); }""",
        transfer(opened, "five.png", png(clean(5).resize((1600, 1600)))),
    )
    opened.wait_for_timeout(500)
    assert read_digit_of(opened) == 7
    for button, digit in (("#undo", 3), ("#redo", 7), ("#redo", 5)):
        opened.click(button)
        wait_for(opened, f"Prediction: {digit} (")


LENIENT = "window.createImageBitmap = async () => new OffscreenCanvas(50, 50);"


def test_the_half_of_a_picture_is_refused_even_where_the_browser_shows_it(open_page):
    tab = open_page(script=LENIENT)
    jpeg = io.BytesIO()
    clean(3).save(jpeg, "JPEG", exif=Image.Exif())
    filled = jpeg.getvalue()[:2] + b"\xff" + jpeg.getvalue()[2:]  # a fill byte before a marker
    pictures = ("png", png(clean(3))), ("jpeg", jpeg.getvalue()), ("jpeg", filled)
    for kind, whole in pictures:
        drop(tab, f"half.{kind}", whole[: len(whole) // 2], f"image/{kind}")
        wait_for(tab, f"half.{kind} {NO_IMAGE}")
        drop(tab, f"whole.{kind}", whole, f"image/{kind}")
        wait_for(tab, "The picture shows no digit")


def test_a_middle_click_keeps_the_drawing(opened):
    draw(opened, STROKES[7])
    before = line(opened)
    opened.click("h1", button="middle")  # on Linux, this pastes
    opened.evaluate(
        "document.body.dispatchEvent(new ClipboardEvent('paste', "
        "{clipboardData: new DataTransfer(), bubbles: true}))"
    )
    assert line(opened) == before


def test_the_question_after_back_is_the_one_that_is_answered(opened):
    opened.select_option("#winner", "5")
    opened.goto("about:blank")
    opened.go_back()
    digit = opened.locator("#winner option:checked").inner_text()[0]
    assert f"the logit of {digit} " in opened.inner_text("main")


def test_a_long_file_name_does_not_widen_the_page(open_page):
    tab = open_page(**PHONE)
    drop(tab, f"{20 * '1234567_'}n.heic", b"no image")
    wait_for(tab, "1234567_")
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def test_shortcuts_of_the_browser_stay_its_own(opened):
    press_alt = "element => element.dispatchEvent(new KeyboardEvent('keydown', "
    press_alt += "{key: 'ArrowLeft', altKey: true, bubbles: true, cancelable: true}))"
    for place in ("#seen", "#layers", "#images"):
        assert opened.locator(place).evaluate(press_alt), f"{place} takes Alt+←, which means Back"


def test_bad_input_ends_in_a_clear_line(opened):
    for name, content, start in [
        ("notes.txt", b"no image", f"notes.txt {NO_IMAGE}"),
        ("huge.png", png(Image.new("1", (5_000, 5_000), 1)), "The picture shows no digit"),
        ("blank.png", png(Image.new("L", (50, 50), 255)), "The picture shows no digit"),
    ]:
        draw(opened, STROKES[7])
        drop(opened, name, content)
        wait_for(opened, start)
        assert opened.is_hidden("#products")
    link = (
        "() => { const data = new DataTransfer(); data.setData('text/plain', 'a'); return data; }"
    )
    opened.dispatch_event("body", "drop", {"dataTransfer": opened.evaluate_handle(link)})
    wait_for(opened, "That is no picture file")


def test_a_large_picture_does_not_freeze_the_page(opened):
    """Between the strips, the page does something else."""
    image = Image.new("1", (4_000, 4_000), 1)
    ImageDraw.Draw(image).line((1000, 1000, 3000, 1000, 2000, 3000), 0, 300)
    count = """data => { window.strips = window.pauses = 0;
        const {getImageData} = CanvasRenderingContext2D.prototype;
        let waiting = false;
        const pause = () => { waiting = false; window.pauses++; };
        CanvasRenderingContext2D.prototype.getImageData = function (...box) {
          window.strips += box[2] > 1000;
          if (!waiting) setTimeout(pause);
          waiting = true;
          return getImageData.apply(this, box); };
        const drop = new DragEvent("drop", {dataTransfer: data, bubbles: true});
        document.body.dispatchEvent(drop); }"""
    opened.evaluate(count, transfer(opened, "large.png", png(image)))
    wait_for(opened, "Prediction: 7 (")
    strips, pauses = opened.evaluate("[strips, pauses]")
    assert strips > 10 and pauses >= strips - 1


BLOCKED = """CanvasRenderingContext2D.prototype.getImageData = (left, top, width, height) => {
  const image = new ImageData(width, height);
  image.data.fill(255);
  return image; };"""


def test_where_a_canvas_cannot_be_read_drawings_and_test_images_still_work(open_page):
    tab = open_page(script=BLOCKED)
    draw(tab, STROKES[7])
    assert read_digit_of(tab) == 7
    tab.locator("#images canvas").last.click()
    label = int(re.search(r"label: (\d)", line(tab))[1])
    assert read_digit_of(tab) == label
    drop(tab, "five.png", png(clean(5)))
    wait_for(tab, "This browser does not let a page read pictures")


# ---- the page as a document


def test_without_javascript_the_page_says_so_at_the_top(open_page):
    tab = open_page(java_script_enabled=False)
    assert tab.locator("noscript p").bounding_box()["y"] < 100


def test_paper_shows_the_prediction_and_no_buttons(opened):
    opened.emulate_media(media="print")
    assert opened.is_visible("#prediction") and opened.is_hidden("#undo")


def test_paper_is_white_even_in_the_dark_and_keeps_the_strokes_that_count(open_page):
    tab = open_page(color_scheme="dark")
    tab.wait_for_selector("#patches:not(:empty)")
    tab.evaluate("requestIdleCallback = () => {}")  # nothing is computed anew
    tab.emulate_media(media="print", color_scheme="dark")
    assert "speaks for" in tab.inner_text("#legend")
    corner = "document.getElementById('strokes').getContext('2d').getImageData(0, 0, 1, 1).data[0]"
    # The page learns of the other medium before the next frame.
    tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert tab.evaluate(corner) == 255


def test_no_other_script_runs(browser):
    tab = browser.new_page()
    tab.goto(build_page.PAGE.as_uri())
    tab.evaluate(
        """() => { const script = document.createElement("script");
        script.textContent = "window.foreign = true"; document.body.append(script); }"""
    )
    assert tab.evaluate("window.foreign") is None
    assert tab.evaluate("fetch('data:,').then(() => 'fetched', () => 'refused')") == "refused"
    tab.close()


def test_the_page_keeps_its_names_to_itself(opened):
    """Only the two scripts that are tested on their own define globals."""
    for name in ("past", "result", "show", "read", "DATA", "convolutions"):
        assert opened.evaluate(f"typeof {name}") == "undefined"
