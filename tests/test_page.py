"""The page: its JavaScript agrees with PyTorch and digits.py; a browser reads what is drawn."""

import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from drawings import KINDS, STROKES, drawn, photo
from PIL import Image, ImageOps

from src.data import MEAN, STD, normalize
from src.demo import page
from src.demo.digits import Classifier, read_colours, read_digit
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
        expected = Classifier()(images)
    javascript.eval(
        "const read = images => images.map(pixels => Array.from(forward(network, weights, pixels).logProbabilities));"
    )
    found = torch.tensor(javascript.call("read", images.flatten(1).tolist()))
    assert (found.argmax(1) == expected.argmax(1)).all()
    assert (found - expected).abs().max() < 1e-4


def test_the_feature_maps_and_receptive_fields_are_pytorchs(javascript):
    features, image = load_model().features, torch.rand(1, 1, 28, 28)
    blocks = [index for index, part in enumerate(features) if isinstance(part, torch.nn.Sequential)]
    javascript.eval(
        "const maps = pixels => forward(network, weights, pixels).maps.map(map => Array.from(map.data));"
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
    pixels = torch.rand(784, generator=torch.Generator().manual_seed(1)).tolist()
    javascript.eval("let run;")
    javascript.call("(pixels => { run = forward(network, weights, pixels); })", pixels)
    for number, layer in enumerate(layers_and_weights()[0]):
        if layer["type"] != "convolution":
            continue
        number = javascript.eval(f"network.layers.slice(0, {number}).filter(l => l.out).length")
        last = layer["size"] - 1  # at the border of the last layer, some of the values are padding
        for channel, x, y in ((0, 0, 0), (1, last, last), (2, last // 2, last // 3)):
            steps = javascript.eval(
                f"explain(run.maps[{number}], network.layers.filter(l => l.out)[{number}],"
                f" {channel}, {x}, {y})"
            )
            shown = javascript.eval(
                f"run.maps[{number}].data[({channel} * run.maps[{number}].height + {y})"
                f" * run.maps[{number}].width + {x}]"
            )
            sums = [np.dot(part["weights"], part["values"]) for part in steps["parts"]]
            assert sums == sorted(sums, key=abs, reverse=True)
            assert steps["sum"] == pytest.approx(sum(sums), abs=1e-6)
            value = max(0, sum(sums)) * steps["factor"] + steps["shift"]
            assert steps["value"] == pytest.approx(value, abs=1e-6)
            assert steps["value"] == pytest.approx(shown, abs=1e-4)  # summed in float32


@pytest.mark.parametrize("digit", range(10))
def test_a_drawing_is_prepared_as_in_digits_py(digit, javascript, tmp_path):
    image = drawn(digit, (6, 12, 24)[digit % 3], (0.2, 0, -0.1)[digit % 3], tremor=1)
    image.save(tmp_path / "digit.png")
    ink = 1 - np.asarray(image, dtype=float) / 255
    found = javascript.call("readInk", ink.flatten().tolist(), *image.size)
    expected = read_digit(tmp_path / "digit.png").pixels
    assert (torch.tensor(found["pixels"]) - expected.flatten()).abs().max() < 0.02


@pytest.mark.parametrize("number, kind", enumerate(KINDS))
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


def test_the_page_is_small_complete_and_the_same_every_time():
    text = page.make(page_numbers())
    assert text == page.make(page_numbers()) and page.is_current(page_numbers())
    assert len(text.encode()) <= 130_000 and "{{" not in text
    assert re.findall(r"(?:src|href)=\"(?!data:,|\.\./)", text) == []


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
    """The page, opened from disk without a network; fails if it logs an error or asks for anything."""
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


EMPTY = "There is no ink yet: draw a digit, or pick a test image."


BOXES = [
    (20, 20, 160, 160, 20),
    (100, 10, 70, 90, 10),
    (10, 90, 80, 100, 12),
    (60, 40, 100, 130, 26),
    (110, 100, 80, 90, 8),
]


@pytest.mark.parametrize("digit", range(10))
def test_drawn_digits_are_read(digit, opened):
    draw(opened, STROKES[digit], *BOXES[digit % len(BOXES)])
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
    for kind, point in [
        ("touchStart", points[0]),
        *(("touchMove", point) for point in points),
        ("touchEnd", None),
    ]:
        places = [{"x": point[0], "y": point[1]}] if point else []
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
    assert tab.evaluate("scrollY") == 0 and tab.evaluate("strokes.length") == 1
    assert read_digit_of(tab) == 7
    context.close()


def test_undo_clear_and_test_images(opened):
    assert opened.inner_text("#prediction") == EMPTY and opened.is_disabled("#undo")
    draw(opened, STROKES[7], 40, 30, 120, 140, 16)
    one = opened.inner_text("#prediction")
    draw(opened, [[(0, 0), (1, 1)]], 40, 30, 120, 140, 16)
    assert opened.inner_text("#prediction") != one
    opened.click("#undo")
    assert opened.inner_text("#prediction") == one
    opened.locator("#undo").press("Enter")
    assert opened.is_disabled("#undo") and opened.evaluate("document.activeElement.id") == "clear"
    opened.click("#clear")
    assert opened.inner_text("#prediction") == EMPTY
    for name, count in (("random", 20), ("wrong", opened.evaluate("DATA.images.length") - 20)):
        buttons = opened.locator(f"#{name} button")
        assert buttons.count() == count
        for button in buttons.all():
            button.click()
            label = int(re.search(r"Its label: (\d)", opened.inner_text("#preparation"))[1])
            assert name == "random" or read_digit_of(opened) != label


def test_the_page_shows_the_networks_numbers(opened, mnist):
    opened.locator("#random button").first.click()
    index = int(re.search(r"Test image (\d+)", opened.inner_text("#preparation"))[1])
    with torch.no_grad():
        expected = Classifier()(mnist[1][0][index : index + 1])[0]
    assert opened.evaluate("Array.from(result.logProbabilities)") == pytest.approx(
        expected.tolist(), abs=1e-4
    )
    opened.locator(".maps canvas").nth(14).hover()
    assert re.match(
        r"Convolution 2, map 3 of 16, row 1[23], column 1[23]: ", opened.inner_text("#about")
    )
    filters = load_model().features[1][0].weight[2].detach().flatten()
    assert opened.evaluate(
        "Array.from(result.maps[1].filters.subarray(2 * 108, 3 * 108))"
    ) == pytest.approx(filters.tolist())
    for key in ["ArrowRight", "ArrowRight", *["Shift+ArrowDown"] * 9, *["Shift+ArrowRight"] * 9]:
        opened.locator(".maps").nth(6).press(key)
    about = opened.inner_text("#about")
    assert (
        about.startswith("Convolution 6, map 2 of 14, row 6, column 6: ")
        and "depends on 20\u00a0×\u00a020 pixels" in about
    )
    assert (
        opened.locator("[aria-activedescendant]").count()
        == opened.locator("[aria-selected=true]").count()
        == 1
    )


@pytest.mark.parametrize(
    "width, height", [(360, 740), (740, 360), (1000, 800), (1366, 620), (1600, 800)]
)
def test_the_page_fits_the_screen_and_shows_what_is_chosen(width, height, opened):
    opened.set_viewport_size({"width": width, "height": height})
    draw(opened, STROKES[3], 40, 30, 120, 140, 16)
    for number in (0, 30, 85):
        opened.locator(".maps canvas").nth(number).hover()
        detail = opened.locator("#detail").bounding_box()
        assert detail["y"] >= 0 and detail["y"] + detail["height"] <= height
    assert opened.evaluate("document.documentElement.scrollWidth") <= width


def drop(tab, name, kind, content):
    data = tab.evaluate_handle(
        "([name, type, bytes]) => { const data = new DataTransfer();"
        "data.items.add(new File([Uint8Array.from(bytes)], name, {type})); return data; }",
        [name, kind, list(content)],
    )
    tab.dispatch_event("body", "drop", {"dataTransfer": data})


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def wait_for(tab, line):
    tab.wait_for_function(
        f"document.getElementById('prediction').textContent.startsWith({json.dumps(line)})"
    )


def test_pictures_are_read_however_they_come(opened, tmp_path):
    drop(opened, "three.png", "image/png", png(photo(drawn(3, 14))))
    wait_for(opened, "Prediction: 3 (")
    transparent = Image.new("RGBA", (160, 160), (250, 250, 250, 0))
    transparent.putalpha(ImageOps.invert(drawn(5, 14)))  # a light digit on nothing
    (tmp_path / "five.png").write_bytes(png(transparent))
    opened.set_input_files("#file", tmp_path / "five.png")
    wait_for(opened, "Prediction: 5 (")
    exif = Image.Exif()
    exif[274] = 6  # stored turned by 90 degrees
    drawn(7, 14).resize((1600, 1600)).rotate(90).save(tmp_path / "seven.jpg", exif=exif)
    opened.set_input_files("#file", tmp_path / "seven.jpg")
    wait_for(opened, "Prediction: 7 (")
    opened.evaluate(
        """bytes => { const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([Uint8Array.from(bytes)], "two.png", {type: "image/png"}));
        document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData, bubbles: true})); }""",
        list(png(drawn(2, 14))),
    )
    wait_for(opened, "Prediction: 2 (")


def test_the_newest_input_wins(opened):
    opened.evaluate(
        """bytes => { openPicture(new File([Uint8Array.from(bytes)], "three.png"));
        document.querySelector("#random button").click(); }""",
        list(png(photo(drawn(3, 14)))),
    )
    opened.wait_for_timeout(500)
    assert opened.inner_text("#preparation").startswith("Test image ")
    opened.evaluate("""() => { drawing.setPointerCapture = () => {};
        drawing.dispatchEvent(new PointerEvent("pointerdown", {pointerId: 1, button: 0, clientX: 90, clientY: 200}));
        document.querySelector("#random button").click(); }""")  # before the stroke was read
    opened.wait_for_timeout(500)
    assert opened.inner_text("#preparation").startswith("Test image ")


def test_clear_and_undo_end_a_stroke(opened):
    area = opened.locator("#drawing").bounding_box()
    for button in ("#clear", "#undo"):
        opened.mouse.move(area["x"] + 50, area["y"] + 50)
        opened.mouse.down()
        opened.mouse.move(area["x"] + 90, area["y"] + 150)
        opened.locator(button).press("Enter")
        opened.mouse.move(area["x"] + 150, area["y"] + 150)
        opened.mouse.up()
        assert opened.inner_text("#prediction") == EMPTY
        assert opened.get_attribute("#prediction", "aria-live") == "polite"
    draw(opened, STROKES[1], 40, 30, 120, 140, 16)
    one = opened.inner_text("#prediction")
    opened.evaluate(
        "document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData: new DataTransfer(), bubbles: true}))"
    )
    assert (
        opened.inner_text("#prediction") == one
        and opened.inner_text("#preparation") == "That was not a picture."
    )


def test_bad_input_ends_in_a_clear_line(opened):
    whole = png(drawn(4, 14))
    for name, content, line in [
        ("notes.txt", b"no image", "notes.txt is not an image that this browser can read."),
        (
            "half.png",
            whole[: len(whole) // 2],
            "half.png is not an image that this browser can read.",
        ),
        ("huge.png", png(Image.new("1", (10_000, 10_000), 1)), "The picture shows no ink"),
        ("blank.png", png(Image.new("L", (50, 50), 255)), "The picture shows no ink"),
    ]:
        draw(opened, STROKES[1], 40, 30, 120, 140, 16)
        drop(opened, name, "image/png", content)
        wait_for(opened, line)
        assert opened.evaluate("result") is None
    draw(opened, [[(0, 0)]], 100, 100, 1, 1, 16)  # a dot
    assert read_digit_of(opened) in range(10)
    opened.click("#clear")
    draw(
        opened, [[(k % 2, k / 40) for k in range(41)]], 5, 5, 190, 190, 32
    )  # a scribble over the whole canvas
    assert opened.inner_text("#preparation").startswith("The ink, 200\u00a0×\u00a0200 pixels")
    assert read_digit_of(opened) in range(10)
