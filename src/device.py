"""The machine: which device and precision a run uses, and what a record says of where it was made.

Nothing here knows networks or data. `environment` is the last function.
"""

import ctypes
import platform
import subprocess
from functools import lru_cache
from pathlib import Path

import torch
import torchvision


def pick_device(name: str | None = None) -> torch.device:
    """The named device; by default CUDA if available, then MPS, then the CPU.

    Raises ValueError if the device is not available here.
    """
    if name is None:
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device {name!r} is not available here: choose 'cuda', 'mps' or 'cpu', or omit it"
        ) from error


def pick_precision(device: torch.device, name: str = "auto") -> str:
    """The precision of the forward and backward pass; the weights are float32 in any case.

    "float32", or "bfloat16" (autocast). "auto" is bfloat16 if the device has instructions for it
    (CUDA since Ampere; CPUs with AVX-512 BF16), else float32: without them it is several times
    slower. Raises ValueError for any other name.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"unknown precision {name!r}: choose 'auto', 'float32' or 'bfloat16'")
    if name != "auto":
        return name
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and torch.cpu.get_capabilities().get("avx512_bf16", False)
    return "bfloat16" if fast else "float32"


def tune_malloc() -> None:
    """Make glibc keep freed memory for the next step, for the whole process.

    Without this, a training step on the CPU causes hundreds of page faults. Without glibc, this
    does nothing.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    # Older versions accept at most 32 MiB.
    if mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25):
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def environment(device: torch.device) -> dict:
    """What a record says of the machine and the code: device, threads, versions and commit."""
    name = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    return {
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": torchvision.__version__,
        "commit": commit(),
    }


@lru_cache(maxsize=1)
def commit() -> str | None:
    """The checked-out commit, with "-dirty" if a file of the package differs; None without git."""
    root = Path(__file__).parent.parent
    git = ["git", f"--git-dir={root / '.git'}", f"--work-tree={root}"]
    options = {"cwd": root, "capture_output": True, "encoding": "utf-8", "check": True}
    try:
        name = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], **options).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--", "src"], **options).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + "-dirty" * bool(changed)
