"""The page: its JavaScript agrees with PyTorch and digits.py; a browser reads what is drawn."""

import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from drawings import KINDS, STROKES, drawn, photo
from PIL import Image

from src.data import MEAN, STD, normalize
from src.demo import page
from src.demo.digits import read_colours, read_digit
from src.demo.page import layers_and_weights
from src.evidence.report import page_numbers
from src.experiments import load_model

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))),
    None,
)


@pytest.fixture(scope="module")
def javascript():
    """An engine with the page's forward pass and preparation, the network, and its weights."""
    engine = pytest.importorskip("py_mini_racer").MiniRacer()
    for name in ("network.js", "prepare.js"):
        engine.eval((page.PARTS / name).read_text(encoding="utf-8"))
    layers, weights = layers_and_weights()
    engine.eval(
        f"const network = {json.dumps({'layers': layers, 'mean': MEAN, 'std': STD})};"
        f"const weights = Float32Array.from({json.dumps(weights.tolist())});"
        "const plain = digit => digit && {...digit, pixels: Array.from(digit.pixels)};"
        "const readInk = (ink, w, h) => plain(normalizeInk(Float32Array.from(ink), w, h));"
        "const readPicture = (colours, w, h) =>"
        "  plain(readDigit(colours.map(channel => Float32Array.from(channel)), w, h));"
    )
    return engine


def test_the_forward_pass_agrees_with_pytorch_on_test_images(javascript, mnist):
    images = mnist[1][0][:200]
    with torch.no_grad():
        expected = load_model()(normalize(images))
    javascript.eval(
        "const read = images =>"
        "  images.map(pixels => Array.from(forward(network, weights, pixels).logProbabilities));"
    )
    found = torch.tensor(javascript.call("read", images.flatten(1).tolist()))
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert (found - expected).abs().max() < 1e-4


def test_the_feature_maps_and_receptive_fields_are_pytorchs(javascript):
    features, image = load_model().features, torch.rand(1, 1, 28, 28)
    blocks = [index for index, part in enumerate(features) if isinstance(part, torch.nn.Sequential)]
    javascript.eval(
        "const maps = pixels =>"
        "  forward(network, weights, pixels).maps.map(map => Array.from(map.data));"
    )
    for number, (block, found) in enumerate(
        zip(blocks, javascript.call("maps", image.flatten().tolist()), strict=True)
    ):
        outputs = features[: block + 1](normalize(image))
        assert torch.tensor(found) == pytest.approx(outputs.detach().flatten().numpy(), abs=1e-3)
        x, y = outputs.shape[-1] // 2, outputs.shape[-1] // 3
        field = javascript.eval(f"receptiveField(network.layers, {number}, {x}, {y})")
        left, top, size = (field[name] for name in ("left", "top", "size"))
        inside = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
        inside[..., max(top, 0) : top + size, max(left, 0) : left + size] = True
        for changed, same in (
            (~inside, True),
            (inside, False),
        ):  # only the pixels in the field change the value
            other = features[: block + 1](
                normalize(torch.where(changed, torch.rand_like(image), image))
            )
            assert torch.equal(other[..., y, x], outputs[..., y, x]) == same


def test_the_arithmetic_of_a_pixel_adds_up_to_its_value(javascript):
    javascript.eval(
        """const explained = (pixels, number, channel, x, y) => {
          const map = forward(network, weights, pixels).maps[number];
          const steps = explain(map, network.layers.filter(l => l.out)[number], channel, x, y);
          return {...steps, shown: map.data[(channel * map.height + y) * map.width + x]}; }"""
    )
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


@pytest.mark.parametrize("digit", range(10))
def test_a_drawing_is_prepared_as_in_digits_py(digit, javascript, tmp_path):
    image = drawn(digit, (6, 12, 24)[digit % 3], (0.2, 0, -0.1)[digit % 3], tremor=1)
    image.save(tmp_path / "digit.png")
    ink = 1 - np.asarray(image, dtype=float) / 255
    found = javascript.call("readInk", ink.flatten().tolist(), *image.size)
    expected = read_digit(tmp_path / "digit.png").pixels
    assert (torch.tensor(found["pixels"]) - expected.flatten()).abs().max() < 0.02


@pytest.mark.parametrize("number, kind", list(enumerate(KINDS)))
def test_a_picture_is_prepared_as_in_digits_py(number, kind, javascript, tmp_path):
    image = KINDS[kind](number % 10, number % 3)
    path = tmp_path / f"digit.{'tiff' if image.mode in ('F', 'CMYK') else 'png'}"
    image.save(path)
    expected, colours = read_digit(path), read_colours(path)
    channels = colours.reshape(-1, 3).T.tolist()
    found = javascript.call("readPicture", channels, colours.shape[1], colours.shape[0])
    assert found["doubts"] == expected.doubts
    assert tuple(found["box"].values()) == expected.box
    difference = torch.tensor(found["pixels"]) - expected.pixels.flatten()
    assert difference.abs().max() < 0.02  # at most 0.007 at present


def test_paper_without_a_digit_is_refused_as_in_digits_py(javascript):
    for level in (0, 0.06):
        noise = np.random.default_rng(1).normal(0.7, level, 10_000).clip(0, 1).tolist()
        assert javascript.call("readPicture", [noise] * 3, 100, 100) is None


def test_the_page_is_small_complete_and_current():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.is_current(page_numbers())
    assert len(text.encode()) <= 130_000 and "{{" not in text
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)", text)
    assert {address.split("/")[0] for address in addresses} == {"data:,", "..", "https:"}
    assert [address for address in addresses if "//" in address] == [
        "https://creativecommons.org/licenses/by-sa/3.0/"
    ]


@pytest.mark.parametrize("part", ['"weights": "', '"sprite": "', '"mean": ', "function forward("])
def test_an_altered_page_is_not_current(part, tmp_path, monkeypatch):
    before, _, after = page.PAGE.read_text(encoding="utf-8").partition(part)
    monkeypatch.setattr(page, "PAGE", tmp_path / "index.html")
    page.PAGE.write_text(before + part + "AAAA" + after[4:], encoding="utf-8")
    assert not page.is_current(page_numbers())


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
def opened(browser):
    """The page, opened from disk, offline; fails if it logs an error or asks for anything."""
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True)
    tab, errors, requests = context.new_page(), [], []
    tab.on("console", lambda message: errors.append(message.text))
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on(
        "request",
        lambda request: (
            requests.append(request.url) if not request.url.startswith("blob:") else None
        ),
    )
    tab.goto(page.PAGE.as_uri())
    yield tab
    assert errors == [] and requests == [page.PAGE.as_uri()]
    context.close()


def draw(tab, strokes, left, top, width, height, pen):
    """Draw strokes of a square of side 1 into this box of the drawing area, 200 wide and high."""
    tab.fill("#stroke", str(pen))
    tab.locator("#drawing").scroll_into_view_if_needed()
    area = tab.locator("#drawing").bounding_box()
    for stroke in strokes:
        points = [
            (
                area["x"] + (left + x * width) / 200 * area["width"],
                area["y"] + (top + y * height) / 200 * area["height"],
            )
            for x, y in stroke
        ]
        tab.mouse.move(*points[0])
        tab.mouse.down()
        for point in points[1:]:
            tab.mouse.move(*point)
        tab.mouse.up()


def read_digit_of(tab):
    """The predicted digit that the page shows."""
    return int(re.match(r"Prediction: (\d) \(", tab.inner_text("#prediction"))[1])


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def drop(tab, name, content, kind="image/png"):
    data = tab.evaluate_handle(
        "([name, type, bytes]) => { const data = new DataTransfer();"
        "data.items.add(new File([Uint8Array.from(bytes)], name, {type})); return data; }",
        [name, kind, list(content)],
    )
    tab.dispatch_event("body", "drop", {"dataTransfer": data})


def wait_for(tab, line):
    tab.wait_for_function(
        f"document.getElementById('prediction').textContent.startsWith({json.dumps(line)})"
    )


SEVEN = (STROKES[7], 40, 30, 120, 140, 16)
EMPTY = "There is no ink yet: draw a digit, or pick a test image."
BOXES = [(20, 20, 160, 160, 20), (100, 10, 70, 90, 10), (110, 100, 80, 90, 8)]


def test_drawn_digits_are_read(opened):
    for digit in (0, 2, 5):
        opened.click("#clear")
        draw(opened, STROKES[digit], *BOXES[digit % 3])
        assert read_digit_of(opened) == digit


def test_a_finger_draws_and_does_not_scroll(browser):
    context = browser.new_context(
        viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, color_scheme="dark"
    )
    tab = context.new_page()
    tab.goto(page.PAGE.as_uri())
    touch, area = context.new_cdp_session(tab), tab.locator("#drawing").bounding_box()
    points = [
        (area["x"] + (0.2 + 0.6 * x) * area["width"], area["y"] + (0.1 + 0.8 * y) * area["height"])
        for x, y in STROKES[7][0]
    ]
    points = [
        (x + (x2 - x) * k / 9, y + (y2 - y) * k / 9)
        for (x, y), (x2, y2) in zip(points, points[1:])
        for k in range(10)
    ]
    moves = [("touchMove", point) for point in points]
    for kind, point in [("touchStart", points[0]), *moves, ("touchEnd", None)]:
        places = [{"x": point[0], "y": point[1]}] if point else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
    assert tab.evaluate("scrollY") == 0 and tab.evaluate("paper.strokes.length") == 1
    assert read_digit_of(tab) == 7
    tab.locator("#images canvas").nth(30).tap()
    wait = "document.getElementById('preparation').textContent.startsWith('Test image ')"
    tab.wait_for_function(wait)
    area = tab.locator("#answer").bounding_box()
    assert 0 <= area["y"] < 300
    context.close()


def test_it_starts_with_a_digit_and_undo_takes_everything_back(opened, tmp_path):
    assert read_digit_of(opened) == 3 and opened.is_disabled("#undo")
    texts = [opened.inner_text("#prediction")]
    drawn(5, 14).save(tmp_path / "five.png")
    for change in (
        lambda: draw(opened, *SEVEN),  # replaces the example
        lambda: draw(opened, [[(0, 0), (1, 1)]], 40, 30, 120, 140, 16),
        lambda: opened.click("#clear"),
        lambda: opened.set_input_files("#file", tmp_path / "five.png"),
        lambda: opened.locator("#images").press("ArrowRight"),
        lambda: drop(opened, "half.png", png(drawn(4, 14))[:-100]),
    ):
        change()
        opened.wait_for_function(
            f"!['Reading the picture …', {json.dumps(texts[-1])}].includes("
            "document.getElementById('prediction').textContent)"
        )
        texts.append(opened.inner_text("#prediction"))
    assert [text[:13] for text in texts[:2]] == ["Prediction: 3", "Prediction: 7"]
    assert texts[3] == EMPTY and texts[4].startswith("Prediction: 5 (")
    assert texts[6] == "half.png is not an image that this browser can read."
    for number, text in enumerate(reversed(texts[:-1])):
        opened.keyboard.press("Control+z") if number % 2 else opened.locator("#undo").press("Enter")
        assert opened.inner_text("#prediction") == text
    assert opened.is_disabled("#undo") and opened.evaluate("document.activeElement.id") == "clear"


def test_a_picture_is_shown_with_the_box_of_its_digit(opened):
    image = Image.new("L", (400, 400), 255)
    image.paste(drawn(3, 14), (200, 200))
    drop(opened, "three.png", png(image))
    wait_for(opened, "Prediction: 3 (")
    found = opened.evaluate(
        "[...pen.getImageData(0, 0, 400, 400).data].reduce((count, value, k, all) =>"
        " count + (k % 4 === 0 && value > 150 && all[k + 1] < 120 && all[k + 3] === 255), 0)"
    )
    assert found > 400  # red pixels of the frame


def test_the_page_explains_the_networks_numbers(opened, mnist):
    opened.locator("#images canvas").first.click()
    index = int(re.search(r"Test image (\d+)", opened.inner_text("#preparation"))[1])
    with torch.no_grad():
        expected = load_model()(normalize(mnist[1][0][index : index + 1]))[0]
    found = opened.evaluate("Array.from(result.logProbabilities)")
    assert found == pytest.approx(expected.tolist(), abs=1e-4)
    opened.locator(".maps canvas").nth(14).click()
    about = opened.inner_text("#about")
    assert re.match(r"Convolution 2, map 3 of 16, row 1[23], column 1[23]", about)
    value = opened.evaluate(
        "result.maps[1].data[(chosen.channel * 24 + chosen.y) * 24 + chosen.x].toFixed(2)"
    ).replace("-", "−")
    text = opened.inner_text("#sums")
    assert f"= {value}, the value in the map" in text and "The other 9 maps" in text
    assert opened.locator("#sums td").count() == 3 * 9
    for key in ["ArrowDown", "ArrowDown", *["Shift+ArrowRight"] * 30]:
        opened.locator("#layers").press(key)
    assert opened.inner_text("#about").startswith("Convolution 3, map 3 of 12, row 10, column 10")
    assert "from the maps after max pool" in opened.inner_text("#sums")
    assert opened.locator("#layers [aria-selected=true]").count() == 1


@pytest.mark.parametrize(
    "width, height", [(360, 740), (740, 360), (1366, 768), (1600, 800), (1920, 1080)]
)
def test_the_page_fits_the_screen(width, height, opened):
    opened.set_viewport_size({"width": width, "height": height})
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    for part in ("#drawing", "#prediction"):  # both are in sight
        area = opened.locator(part).bounding_box()
        assert area["y"] >= 0 and area["y"] + area["height"] <= height
    opened.locator(".maps canvas").nth(30).click()
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    detail = opened.locator("#detail").bounding_box()
    assert detail["height"] <= height or width < 960  # there it does not cover, but follows


def test_tab_makes_at_most_a_dozen_stops(opened):
    draw(opened, *SEVEN)  # so that Undo is enabled
    stops = []
    for _ in range(16):
        opened.keyboard.press("Tab")
        stops.append(opened.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
    assert len({stop for stop in stops if not stop.startswith("<body")}) <= 12


def test_pictures_are_read_however_they_come(opened, tmp_path):
    drop(opened, "three.png", png(photo(drawn(3, 14))))
    wait_for(opened, "Prediction: 3 (")
    lines = "<svg xmlns='http://www.w3.org/2000/svg' width='90' height='90'><path stroke='black'"
    lines += " stroke-width='9' d='M45 10V80'/></svg>"
    drop(opened, "one.svg", lines.encode(), "image/svg+xml")
    wait_for(opened, "Prediction: 1 (")
    exif = Image.Exif()
    exif[274] = 6  # stored turned by 90 degrees
    drawn(7, 14).resize((1600, 1600)).rotate(90).save(tmp_path / "seven.jpg", exif=exif)
    opened.set_input_files("#file", tmp_path / "seven.jpg")
    wait_for(opened, "Prediction: 7 (")
    opened.evaluate(
        """bytes => { const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([Uint8Array.from(bytes)], "two.png", {type: "image/png"}));
        document.body.dispatchEvent(
          new ClipboardEvent("paste", {clipboardData, bubbles: true})); }""",
        list(png(drawn(2, 14))),
    )
    wait_for(opened, "Prediction: 2 (")


@pytest.mark.parametrize("kind", ["pen of 0.3 %", "paper of two tones", "transparent"])
def test_a_picture_is_reduced_as_in_digits_py(kind, opened, tmp_path):
    path = tmp_path / "digit.png"
    KINDS[kind](4, 1).save(path)
    opened.set_input_files("#file", path)
    wait_for(opened, "Prediction: 4 (")
    expected = read_digit(path)
    assert tuple(opened.evaluate("Object.values(paper.found.box)")) == expected.box
    found = torch.tensor(opened.evaluate("Array.from(paper.found.pixels)"))
    assert (found - expected.pixels.flatten()).abs().max() < 0.05  # 8 bits are rounded elsewhere


def test_the_newest_input_wins(opened):
    opened.evaluate(
        """bytes => { openPicture(new File([Uint8Array.from(bytes)], "three.png")); pick(0); }""",
        list(png(photo(drawn(3, 14)))),
    )
    opened.wait_for_timeout(500)
    assert opened.inner_text("#preparation").startswith("Test image ")
    opened.click("#undo")
    assert read_digit_of(opened) == 3  # the picture, which was read meanwhile


def test_bad_input_ends_in_a_clear_line(opened):
    for name, content, line in [
        ("notes.txt", b"no image", "notes.txt is not an image that this browser can read."),
        ("huge.png", png(Image.new("1", (9_000, 9_000), 1)), "The picture shows no digit"),
        ("blank.png", png(Image.new("L", (50, 50), 255)), "The picture shows no digit"),
    ]:
        draw(opened, *SEVEN)
        drop(opened, name, content)
        wait_for(opened, line)
        assert opened.evaluate("result") is None
    draw(opened, [[(0, 0)]], 100, 100, 1, 1, 16)  # a dot
    assert read_digit_of(opened) in range(10)
