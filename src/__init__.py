"""MNIST to 99.4 % with fewer than 10,000 parameters: data, networks, training and evidence."""

import re
from importlib.metadata import PackageNotFoundError, version

OLDEST_TORCH = (2, 5)  # has the fused optimizers for MPS


def check_torch(installed: str) -> None:
    """End the program in one line if this version of PyTorch is too old."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", installed)[:2])
    if numbers < OLDEST_TORCH:
        oldest = ".".join(map(str, OLDEST_TORCH))
        raise SystemExit(
            f"PyTorch {installed} is too old: install {oldest} or newer, "
            "with pip install --upgrade torch torchvision"
        )


try:
    check_torch(version("torch"))
except PackageNotFoundError:
    raise SystemExit("PyTorch is not installed: pip install -r requirements.txt") from None
