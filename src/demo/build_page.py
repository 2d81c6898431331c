"""docs/index.html, where one draws a digit: one file, made from `page/`, with the network in it."""

import base64
import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..data import MEAN, MNIST_ROOT, STD, TEST, read_mnist
from ..experiments import load_model
from ..models import count_parameters
from ..store import EVIDENCE, write_text

PARTS = Path(__file__).parent / "page"
PAGE = Path(__file__).parent.parent.parent / "docs" / "index.html"
WEIGHTS = EVIDENCE / "augmentation.pt"
MISREAD = 36  # images at most: the page stays small, whichever network it shows
BLOCK = [nn.Conv2d, nn.ReLU, nn.BatchNorm2d]  # what network.js computes as one step


def make(numbers: Mapping[str, str], misread: Sequence[int]) -> str:
    """The page: its parts, the weights, test images that it misreads, and 20 at random.

    `numbers` are texts for the names in double braces: `accuracy` (%), and the number of `seeds`.
    `misread` are the indices of the test images that the network misclassifies; the page shows the
    first `MISREAD` of them.
    """
    layers, weights = layers_and_weights()
    images, labels = (part[TEST.start :] for part in read_mnist(MNIST_ROOT))
    random = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))[:20].tolist()
    misread = misread[:MISREAD]
    chosen = [*misread, *random]
    pixels = images[chosen].numpy()
    data = {
        "network": {"layers": layers, "mean": MEAN, "std": STD},
        "weights": base64.b64encode(weights.astype("<f4").tobytes()).decode(),
        "pixels": base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode(),
        "images": [{"index": index, "label": labels[index].item()} for index in chosen],
        "misread": len(misread),
    }
    parts = PARTS.glob("[!.]*.*")  # without the hidden files of editors
    texts = {path.name: path.read_text(encoding="utf-8").strip() for path in parts}
    parameters = sum(layer.get("parameters", 0) for layer in layers)
    texts |= {**numbers, "parameters": f"{parameters:,}"}
    texts["data"] = json.dumps(data)
    text = re.sub(r"{{([\w.]+)}}", lambda match: texts[match[1]], texts["index.html"]) + "\n"
    return text.replace("POLICY", content_policy(text))


def content_policy(text: str) -> str:
    """A policy that lets the browser use the page's own scripts and styles, and fetch nothing."""
    sources = {"default": "'none'", "img": "data: blob:", "script": "", "style": ""}
    for tag in ("script", "style"):
        for part in re.findall(rf"<{tag}(?: type=\"module\")?>(.*?)</{tag}>", text, re.DOTALL):
            digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
            sources[tag] += f" 'sha256-{digest}'"
    return "; ".join(f"{kind}-src {source}" for kind, source in sources.items())


def write(numbers: Mapping[str, str], misread: Sequence[int]) -> None:
    """Write `docs/index.html`; see `make` for the arguments."""
    write_text(PAGE, make(numbers, misread))


def is_current(numbers: Mapping[str, str], misread: Sequence[int]) -> bool:
    """Whether the page is what `make` returns; its weights may differ by rounding."""
    *expected, expected_weights = _parse(make(numbers, misread))
    try:
        *found, weights = _parse(PAGE.read_text("utf-8"))
    except (OSError, ValueError, LookupError, TypeError, zlib.error):  # missing or damaged
        return False
    same = found == expected and weights.shape == expected_weights.shape
    return same and np.allclose(weights, expected_weights, rtol=1e-5, atol=1e-6)


def _parse(page: str) -> tuple[str, dict, bytes, np.ndarray]:
    """A page taken apart: the text around its data, the data, the pixels, the weights."""
    text = re.search(r"^<script .* id=\"data\">(.*)</script>$", page, re.MULTILINE)[1]
    data = json.loads(text)
    weights = np.frombuffer(base64.b64decode(data.pop("weights")), "<f4")
    pixels = zlib.decompress(base64.b64decode(data.pop("pixels")))
    return page.replace(text, ""), data, pixels, weights


def layers_and_weights() -> tuple[list[dict], np.ndarray]:
    """The trained network as plain data: its layers, and all weights in their order, float32.

    Only the layers of `AugmentedNet` are known, here and in `page/network.js`, which computes them.

    A convolution has its filters, then a factor and a shift for each channel: batch normalisation,
    which follows the ReLU. The linear layer has its matrix, then its bias.
    """
    model = load_model(weights=WEIGHTS)
    layers, weights, size = [], [], 28
    for part in [*model.features, model.classifier]:
        if not _is_known(part):
            raise ValueError(f"page/network.js cannot compute {part}")
        if isinstance(part, nn.Sequential):
            convolution, _, norm = part
            weights += [convolution.weight.detach().numpy(), *_fold(norm)]
            kernel, padding = convolution.kernel_size[0], convolution.padding[0]
            size += 2 * padding - kernel + 1
            number = 1 + sum(layer.get("kernel", 1) > 1 for layer in layers)
            name = f"Convolution {number}" if kernel > 1 else "1 × 1 convolution"
            layer = {"type": "convolution", "name": name, "out": convolution.out_channels}
            layer |= {"kernel": kernel, "padding": padding, "size": size}
            layers.append({**layer, "parameters": count_parameters(part)})
        elif isinstance(part, nn.MaxPool2d):
            size //= 2
            layers.append({"type": "max pool"})
    layers.append({"type": "average and linear", "parameters": count_parameters(model.classifier)})
    weights += [model.classifier.weight.detach().numpy(), model.classifier.bias.detach().numpy()]
    return layers, np.concatenate([weight.ravel() for weight in weights]).astype(np.float32)


def _is_known(part: nn.Module) -> bool:
    """Whether `page/network.js` computes this part of a network."""
    if isinstance(part, nn.MaxPool2d):
        sizes = part.kernel_size, part.stride, part.padding, part.dilation
        return sizes == (2, 2, 0, 1) and not part.ceil_mode
    if isinstance(part, nn.AdaptiveAvgPool2d):
        return part.output_size in (1, (1, 1))
    if isinstance(part, nn.Linear):
        return True
    if type(part) is not nn.Sequential or [*map(type, part)] != BLOCK:  # a subclass may do more
        return False
    convolution = part[0]
    return (
        convolution.kernel_size in ((1, 1), (3, 3))
        and convolution.padding in ((0, 0), (1, 1))
        and convolution.stride == convolution.dilation == (1, 1)
        and convolution.groups == 1
        and convolution.bias is None
    )


def _fold(norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray]:
    """Batch normalisation as a factor and a shift for each channel, of shape (channels,).

    They are computed in float64, so that every processor rounds alike.
    """
    gamma, beta, mean, variance = (
        value.detach().double().numpy()
        for value in (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    )
    factor = gamma / np.sqrt(variance + norm.eps)
    return factor, beta - mean * factor
