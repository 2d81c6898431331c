"""What a record says of its origin: the machine, the versions, and the code."""

import inspect
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

import torch
import torchvision
from torch import nn

from .store import digest

PACKAGE = Path(__file__).parent
# What decides the numbers of a run, besides the recipe, the seed and the machine.
TRAINING_FILES = [
    PACKAGE / f"{module}.py"
    for module in ("data", "models", "device", "training", "recipes", "experiments")
]
# The files as they are imported: later edits do not run.
SOURCE = b"".join(path.read_bytes() for path in TRAINING_FILES)


def environment(device: torch.device) -> dict:
    """What a record says of the machine and the code: device, threads, versions and commit."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})"
    return {
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        "commit": COMMIT,
    }


@cache
def _processor() -> str:
    """The name of the processor, as the operating system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        text = ""
    line = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return line[1] if line else platform.processor() or platform.machine()


def _read_commit() -> str | None:
    """The checked-out commit, with "-dirty" if a module differs from it; None without git."""
    root = PACKAGE.parent
    git = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    options = {"cwd": root, "capture_output": True, "encoding": "utf-8", "check": True}
    try:
        name = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], **options).stdout.strip()
        status = [*git, "status", "--porcelain", "--", "src/*.py"]
        changes = subprocess.run(status, **options).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{name}-dirty" if changes else name


COMMIT = _read_commit()  # of the code that is imported, whatever is checked out later


def hash_source(model: nn.Module) -> str:
    """A digest of the code that trains, and of the model.

    It covers `SOURCE`, the model's layers as PyTorch prints them, and the source of its class,
    where Python can find it.
    """
    try:
        source = inspect.getsource(type(model))
    except (OSError, TypeError):  # typed into an interpreter
        source = ""
    text = f"{source}\n{model!r}".encode()
    return digest(SOURCE + text)
