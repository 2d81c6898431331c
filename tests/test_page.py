"""The page: its JavaScript agrees with PyTorch and digits.py; a browser reads what is drawn."""

import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from drawings import KINDS, STROKES, clean, save
from PIL import Image

from src.data import MEAN, STD, normalize
from src.demo import page
from src.demo.digits import read_colours, read_digit
from src.demo.page import layers_and_weights
from src.experiments import load_model

BROWSERS = map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))
BROWSER = next(filter(None, BROWSERS), None)


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
          return digit && {...digit, pixels: Array.from(digit.pixels)}; };"""
    )
    return engine


def test_the_forward_pass_agrees_with_pytorch_on_test_images(javascript, mnist):
    images = mnist[1][0][:200]
    with torch.no_grad():
        expected = load_model()(normalize(images))
    found = torch.tensor(javascript.call("read", images.flatten(1).tolist()))
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert (found - expected).abs().max() < 1e-4


@torch.no_grad()
def test_the_feature_maps_and_receptive_fields_are_pytorchs(javascript):
    features, image = load_model().features, torch.rand(1, 1, 28, 28)
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


@pytest.mark.parametrize("number, kind", list(enumerate(KINDS)))
def test_a_picture_is_prepared_as_in_digits_py(number, kind, javascript, tmp_path):
    path = save(KINDS[kind](number % 10, number % 3), tmp_path)
    expected, colours = read_digit(path), read_colours(path)
    channels = colours.reshape(-1, 3).T.tolist()
    found = javascript.call("readPicture", channels, colours.shape[1], colours.shape[0])
    assert found["doubts"] == expected.doubts
    assert tuple(found["box"].values()) == expected.box
    difference = torch.tensor(found["pixels"]) - expected.pixels.flatten()
    assert difference.abs().max() < 0.02  # at most 0.007 at present


@pytest.mark.parametrize("level", [0, 0.06])
def test_paper_without_a_digit_is_refused_as_in_digits_py(level, javascript):
    noise = np.random.default_rng(1).normal(0.7, level, 10_000).clip(0, 1).tolist()
    assert javascript.call("readPicture", [noise] * 3, 100, 100) is None


def test_the_page_is_small_and_complete():
    text = page.PAGE.read_text(encoding="utf-8")
    assert len(text.encode()) <= 130_000 and "{{" not in text
    addresses = re.findall(r"(?:src|href)=\"([^\"]*)", text)
    assert {address.split("/")[0] for address in addresses} == {"data:,", "..", "https:"}
    licence = "https://creativecommons.org/licenses/by-sa/3.0/"
    assert [address for address in addresses if "//" in address] == [licence]


@pytest.mark.parametrize("part", ['"weights": "', '"sprite": "', '"mean": ', "function forward("])
def test_an_altered_page_is_not_current(part, tmp_path, monkeypatch):
    whole = page.PAGE.read_text(encoding="utf-8")
    monkeypatch.setattr(page, "make", lambda numbers: whole)
    monkeypatch.setattr(page, "PAGE", tmp_path / "index.html")
    page.PAGE.write_text(whole, encoding="utf-8")
    assert page.is_current({})
    before, _, after = whole.partition(part)
    page.PAGE.write_text(before + part + "AAAA" + after[4:], encoding="utf-8")
    assert not page.is_current({})


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
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(page.PAGE.as_uri())
    yield tab
    assert errors == []
    assert {url for url in requests if not url.startswith("blob:")} == {page.PAGE.as_uri()}
    context.close()


def places(tab, stroke, left, top, width, height):
    """Where the points of a stroke are, in this box of the drawing area, 200 wide and high."""
    area = tab.locator("#drawing").bounding_box()
    unit = area["width"] / 200
    return [
        (area["x"] + (left + x * width) * unit, area["y"] + (top + y * height) * unit)
        for x, y in stroke
    ]


def draw(tab, strokes, left=40, top=30, width=120, height=140, pen=16):
    """Draw strokes of a square of side 1 into this box of the drawing area, with the mouse."""
    tab.fill("#stroke", str(pen))
    tab.locator("#drawing").scroll_into_view_if_needed()
    for stroke in strokes:
        start, *points = places(tab, stroke, left, top, width, height)
        tab.mouse.move(*start)
        tab.mouse.down()
        for point in points:
            tab.mouse.move(*point)
        tab.mouse.up()


def read_digit_of(tab):
    """The predicted digit that the page shows."""
    return int(re.match(r"Prediction: (\d) \(", tab.inner_text("#prediction"))[1])


def wait_for(tab, line):
    start = f"document.getElementById('prediction').textContent.startsWith({json.dumps(line)})"
    tab.wait_for_function(start)


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


EMPTY = "There is no ink yet: draw a digit, or pick a test image."
NO_IMAGE = "is not an image that this browser can read."


def test_drawn_digits_are_read(opened):
    for digit, box in (
        (0, (20, 20, 160, 160, 20)),
        (2, (110, 100, 80, 90, 8)),
        (5, (100, 10, 70, 90, 10)),
    ):
        opened.click("#clear")
        draw(opened, STROKES[digit], *box)
        assert read_digit_of(opened) == digit
    opened.click("#clear")
    draw(opened, [[(0, 0)]])  # a dot is something, too
    assert read_digit_of(opened) in range(10)


def test_a_finger_draws_and_does_not_scroll(browser):
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    context = browser.new_context(**phone, color_scheme="dark")
    tab = context.new_page()
    tab.goto(page.PAGE.as_uri())
    touch, (first, corner, last) = context.new_cdp_session(tab), STROKES[7][0]
    stroke = [*np.linspace(first, corner, 10), *np.linspace(corner, last, 10)]
    points = [{"x": x, "y": y} for x, y in places(tab, stroke, 40, 20, 120, 160)]
    for kind, point in zip(["touchStart", *["touchMove"] * 19], points):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert tab.evaluate("scrollY") == 0 and tab.evaluate("paper.strokes.length") == 1
    assert read_digit_of(tab) == 7
    tab.locator("#images canvas").nth(30).click()
    wait = "document.getElementById('preparation').textContent.startsWith('Test image ')"
    tab.wait_for_function(wait)
    assert 0 <= tab.locator("#answer").bounding_box()["y"] < 300
    context.close()


def test_it_starts_with_a_digit_and_undo_takes_everything_back(opened, tmp_path):
    assert read_digit_of(opened) == 3 and opened.is_disabled("#undo")
    texts = [opened.inner_text("#prediction")]
    for change in (
        lambda: draw(opened, STROKES[7]),  # replaces the example
        lambda: draw(opened, [[(0, 0), (1, 1)]]),
        lambda: opened.click("#clear"),
        lambda: opened.set_input_files("#file", save(clean(5), tmp_path)),
        lambda: opened.locator("#images").press("ArrowRight"),
        lambda: drop(opened, "half.png", png(clean(4))[:-100]),
    ):
        change()
        opened.wait_for_function(
            f"!['Reading the picture …', {json.dumps(texts[-1])}].includes("
            "document.getElementById('prediction').textContent)"
        )
        texts.append(opened.inner_text("#prediction"))
    assert [text[:13] for text in texts[:2]] == ["Prediction: 3", "Prediction: 7"]
    assert texts[3] == EMPTY and texts[4].startswith("Prediction: 5 (")
    assert texts[6] == f"half.png {NO_IMAGE}"
    for number, text in enumerate(reversed(texts[:-1])):
        opened.keyboard.press("Control+z") if number % 2 else opened.locator("#undo").press("Enter")
        assert opened.inner_text("#prediction") == text
    assert opened.is_disabled("#undo") and opened.evaluate("document.activeElement.id") == "clear"


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


@pytest.mark.parametrize("width, height", [(360, 740), (740, 360), (1366, 768), (1920, 1080)])
def test_the_page_fits_the_screen(width, height, opened):
    opened.set_viewport_size({"width": width, "height": height})
    for part in ("#drawing", "#prediction"):  # both are in sight
        area = opened.locator(part).bounding_box()
        assert area["y"] >= 0 and area["y"] + area["height"] <= height
    opened.locator(".maps canvas").nth(30).click()
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    detail = opened.locator("#detail").bounding_box()
    assert detail["height"] <= height or width < 960  # there it does not cover, but follows


def test_tab_makes_at_most_a_dozen_stops(opened):
    draw(opened, STROKES[7])  # so that Undo is enabled
    stops = set()
    for _ in range(16):
        opened.keyboard.press("Tab")
        stops.add(opened.evaluate("document.activeElement.outerHTML.slice(0, 60)"))
    assert len({stop for stop in stops if not stop.startswith("<body")}) <= 12


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
    expected = read_digit(path)
    assert tuple(opened.evaluate("Object.values(paper.found.box)")) == expected.box
    found = torch.tensor(opened.evaluate("Array.from(paper.found.pixels)"))
    assert (found - expected.pixels.flatten()).abs().max() < 0.05  # 8 bits are rounded elsewhere
    shown = opened.evaluate(
        "[...pen.getImageData(0, 0, 400, 400).data].reduce((count, value, k, all) =>"
        " count + (k % 4 === 0 && value > 150 && all[k + 1] < 120 && all[k + 3] === 255), 0)"
    )
    assert shown > 400  # red pixels of the frame


def test_the_newest_input_wins(opened):
    three = transfer(opened, "three.png", png(clean(3).resize((1600, 1600))))
    opened.evaluate("data => { openPicture(data.files[0]); pick(0); }", three)
    opened.wait_for_timeout(500)
    assert opened.inner_text("#preparation").startswith("Test image ")
    opened.click("#undo")
    assert read_digit_of(opened) == 3  # the picture, which was read meanwhile


def test_bad_input_ends_in_a_clear_line(opened):
    for name, content, line in [
        ("notes.txt", b"no image", f"notes.txt {NO_IMAGE}"),
        ("huge.png", png(Image.new("1", (9_000, 9_000), 1)), "The picture shows no digit"),
        ("blank.png", png(Image.new("L", (50, 50), 255)), "The picture shows no digit"),
    ]:
        draw(opened, STROKES[7])
        drop(opened, name, content)
        wait_for(opened, line)
        assert opened.evaluate("result") is None
