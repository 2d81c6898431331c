"""The device that computes, and the settings of PyTorch."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import joblib
import torch
from torch import nn

from .errors import InputError


def pick_device(name: str | None = None) -> torch.device:
    """The named device; by default CUDA if it works, then MPS, then the CPU.

    An old GPU may be "available" though this PyTorch has no kernels for it, so each device has to
    add two numbers first. Raises InputError if the named device cannot.
    """
    if name is not None:
        try:
            return _compute_on(name)
        except (RuntimeError, AssertionError) as error:
            raise InputError(
                f"device {name!r} is not available here: choose 'cuda', 'mps' or 'cpu', or omit it"
            ) from error
    for available, candidate in (
        (torch.cuda.is_available(), "cuda"),
        (torch.backends.mps.is_available(), "mps"),
    ):
        if available:
            try:
                return _compute_on(candidate)
            except RuntimeError:
                print(f"{candidate} is available, but cannot compute: the CPU is used instead.")
    return torch.device("cpu")


def pick_memory_format(model: nn.Module, device: torch.device) -> torch.memory_format:
    """The order in which the weights and maps of a network lie in memory: the faster one.

    With the channels of a pixel side by side (`channels_last`), convolutions are faster; images
    with one channel are the same in both orders. But in this order, the threads of PyTorch's batch
    normalisation add up their sums next to each other: with few channels, these share a line of the
    cache, and two threads are slower than one. On MPS, some versions of PyTorch compute wrong
    gradients of batch normalisation in this order, or fail
    (https://github.com/pytorch/pytorch/issues/175189).
    """
    has_batch_norm = any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())
    several_threads = device.type == "cpu" and torch.get_num_threads() > 1
    if device.type == "mps" or (several_threads and has_batch_norm):
        return torch.contiguous_format
    return torch.channels_last


def _compute_on(name: str) -> torch.device:
    """The device, after an addition whose result is read back."""
    result = torch.ones(1, device=name) + 1
    result.item()
    return result.device


def configure() -> None:
    """Set what the whole process computes with: determinism, precision, threads and memory."""
    torch.backends.cudnn.deterministic = True  # the same seed gives the same history
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, also on Ampere and newer
    # In a container, PyTorch counts the machine's CPUs, and too many threads are slow: joblib
    # counts those that the process may use.
    torch.set_num_threads(min(torch.get_num_threads(), joblib.cpu_count()))
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step; without glibc, this does nothing.

    Without this, a training step on the CPU causes hundreds of page faults.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    # Older versions accept at most 32 MiB.
    if mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25):
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread; the caller's number is restored afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
