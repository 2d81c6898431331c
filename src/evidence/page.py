"""The page for drawing a digit: one HTML file that holds the trained network, made from the parts in `src/page/`."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..data import MEAN, STD, load_mnist, smoke_test_epochs
from ..digits import Classifier, layers_and_weights
from ..models import AugmentedNet, count_parameters
from ..records import atomic_write
from .analysis import keep_numbers_together, step_3_records, summary, trained

PARTS = Path(__file__).parent.parent / "page"
PAGE = Path(__file__).parent.parent.parent / "docs" / "index.html"


def _texts() -> dict[str, str]:
    """What is filled in for the names in double braces, except the data."""
    records = step_3_records()
    found = summary(records)
    return {
        **{
            path.name: path.read_text(encoding="utf-8").strip()
            for path in PARTS.iterdir()
            if path.suffix in (".html", ".css", ".js")
        },
        "parameters": f"{count_parameters(AugmentedNet()):,}",
        "seeds": str(len(trained(records))),
        "accuracy": keep_numbers_together(f"{found['test']} %{found['note']}"),
    }


def make() -> str:
    """The page: HTML, CSS and JavaScript, the weights, 20 test images at random, and those that the network misclassifies."""
    layers, weights = layers_and_weights()
    _, (images, labels) = load_mnist()
    with torch.no_grad():
        wrong = (Classifier()(images).argmax(dim=1) != labels).nonzero().flatten().tolist()
    random = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))[:20].tolist()
    chosen = [*random, *wrong]
    sprite = io.BytesIO()
    Image.fromarray(np.uint8(images[chosen].mul(255).round().view(-1, 28).numpy())).save(
        sprite, "PNG", optimize=True
    )
    data = {
        "network": {"layers": layers, "mean": MEAN, "std": STD},
        "weights": base64.b64encode(weights.astype("<f4").tobytes()).decode(),
        "sprite": base64.b64encode(sprite.getvalue()).decode(),
        "images": [
            {"index": index, "label": labels[index].item(), "wrong": position >= len(random)}
            for position, index in enumerate(chosen)
        ],
    }
    texts = {**_texts(), "data": json.dumps(data)}
    return re.sub(r"{{([\w.]+)}}", lambda match: texts[match[1]], texts["index.html"]) + "\n"


def write() -> None:
    """Write `docs/index.html`; a smoke test leaves it unchanged."""
    if not smoke_test_epochs():
        with atomic_write(PAGE) as temporary:
            temporary.write_text(make(), encoding="utf-8", newline="\n")


def is_current() -> bool:
    """Whether the page is what `make` returns for the committed weights, records and parts."""
    return PAGE.exists() and _comparable(PAGE.read_text(encoding="utf-8")) == _comparable(make())


def _comparable(text: str) -> tuple[str, bytes | None]:
    """The page without its PNG, whose bytes depend on the version of the encoder; and the pixels of that PNG."""
    sprite = re.search(r'"sprite": "([^"]*)"', text)
    try:
        with Image.open(io.BytesIO(base64.b64decode(sprite[1]))) as image:
            return text.replace(sprite[1], ""), image.tobytes()
    except (TypeError, ValueError, OSError):  # there is none, or it is damaged
        return text, None
