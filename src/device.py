"""The device: which one, and what makes a training step fast on it."""

import ctypes
import platform
import re
from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

Step = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def pick_device(name: str | None = None) -> torch.device:
    """The device of that name; without one, CUDA if there is one, then MPS, then the CPU.

    Raises ValueError if there is no such kind of device, RuntimeError if there is none here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if not re.fullmatch(r"(cuda|mps|cpu)(:\d+)?", name):
        raise ValueError(f"unknown device {name!r}: it is 'cuda', 'mps' or 'cpu'")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise RuntimeError(f"no device {name!r} here: leave it out to take the best there is, or ask for 'cpu'") from error
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What the device is sold as, as far as it tells."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu().get("cpu_name", platform.machine())


def _cpu() -> dict:
    return getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch that this package runs with


def pick_precision(device: torch.device, name: str = "auto") -> torch.dtype:
    """The type in which the forward and backward pass compute: float32, or bfloat16 under autocast.

    "auto" is bfloat16 where the device has instructions for it (CUDA; CPUs with AVX-512 BF16), else float32.
    """
    if name not in ("auto", "float32", "bfloat16"):
        raise ValueError(f"unknown precision {name!r}: it is 'auto', 'float32' or 'bfloat16'")
    if name == "auto":
        fast = (torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else
                device.type == "cpu" and _cpu().get("avx512_bf16", False))
        name = "bfloat16" if fast else "float32"
    return getattr(torch, name)


def keep_memory() -> None:
    """Let glibc keep the memory that a step frees for the next step, instead of returning it to the system.

    Without this, every step on the CPU takes thousands of page faults. It holds for the whole process, and does nothing
    where there is no glibc.
    """
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    if mallopt(M_MMAP_THRESHOLD, 1 << 30) or mallopt(M_MMAP_THRESHOLD, 1 << 25):  # older ones take no more than 32 MiB
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


class CapturedStep:
    """A training step as a CUDA graph: captured once, then replayed with one launch in place of hundreds.

    It is called as the step that it captures, with the data and target of a batch, and returns the same; what it returns is
    overwritten by the next call. The first batches run uncaptured, and so does every batch of another size, such as the last
    one of an epoch. Capturing runs nothing, so that no batch counts twice. See PyTorch's notes on CUDA graphs:
    https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    WARM_UP = 3  # batches

    def __init__(self, step: Step, optimizer: torch.optim.Optimizer):
        self.step, self.graph, self.seen = step, None, 0
        for group in optimizer.param_groups:  # a replay reads the learning rate from the device
            group["lr"] = torch.as_tensor(group["lr"], device=group["params"][0].device)
            if "capturable" in group:
                group["capturable"] = True

    def __call__(self, data: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if self.seen < self.WARM_UP:
            self.seen += 1
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                outcome = self.step(data, target)
            torch.cuda.current_stream().wait_stream(stream)
            return outcome
        if self.graph is None:
            self.data, self.target, self.graph = data.clone(), target.clone(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.outcome = self.step(self.data, self.target)
        if data.shape != self.data.shape:
            return self.step(data, target)
        self.data.copy_(data)
        self.target.copy_(target)
        self.graph.replay()
        return self.outcome


def averaging(averaged: AveragedModel, model: nn.Module) -> Callable[[], None]:
    """What takes the new weights and buffers of `model` into `averaged`, an exponential average.

    It does what `averaged.update_parameters(model)` does, but does not look for them anew every time, and leaves out the copy
    of a count to the device, which takes time and which a CUDA graph cannot hold.
    """
    both = [[value for value in (*module.parameters(), *module.buffers()) if value.is_floating_point()]
            for module in (averaged.module, model)]

    @torch.no_grad()
    def update() -> None:
        if averaged.n_averaged == 0:
            averaged.update_parameters(model)
        else:
            averaged.multi_avg_fn(*both, averaged.n_averaged)

    return update
