"""Training with the channels last, in bfloat16 on the CPU, with the kernels of channels_last.c.

With the channels last, convolutions take three fifths of the time. PyTorch's batch normalisation, though, takes many
times as long with 6, 12 or 14 channels as with the channels first: so it is here, and what comes before and after it.
"""

import ctypes
import functools
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .models import Net

SOURCE = Path(__file__).with_suffix(".c")


@functools.cache
def kernels() -> ctypes.CDLL | None:
    """The kernels, built for this machine in half a second; where that does not work, None, and a line that says why."""
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernels.so"
        try:
            subprocess.run([*shlex.split(os.environ.get("CC", "cc")), "-O3", "-march=native", "-fopenmp", "-shared", "-fPIC",
                            SOURCE, "-o", library, "-lm"], check=True, capture_output=True, text=True)
            return ctypes.CDLL(str(library))
        except (OSError, subprocess.CalledProcessError) as error:
            reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
            print(f"Training is slower than it could be: {SOURCE.name} cannot be built ({reason}).", file=sys.stderr)


def _call(name: str, *values: torch.Tensor | int | float) -> None:
    def argument(value):
        if isinstance(value, torch.Tensor):
            return ctypes.c_void_p(value.data_ptr())
        return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_long(value)

    getattr(kernels(), name)(*map(argument, values))


def _ready(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def _empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)


class _ReLUBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, running_mean, running_var, momentum, eps):
        x = _ready(x)
        ctx.size = x.numel() // x.shape[1], x.shape[1]
        y, mean, inverse = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        _call("norm_forward", x, y, weight, bias, running_mean, running_var, mean, inverse, *ctx.size, momentum, eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        return y

    @staticmethod
    def backward(ctx, grad):
        x, weight, mean, inverse = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        _call("norm_backward", _ready(grad), x, grad_x, weight, mean, inverse, grad_weight, grad_bias, *ctx.size)
        return grad_x, grad_weight, grad_bias, None, None, None, None


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        n, channels, height, width = x.shape
        ctx.size = n, height // 2, width // 2, channels
        y = _empty(n, channels, height // 2, width // 2)
        which = torch.empty_like(y, dtype=torch.uint8)
        _call("pool_forward", _ready(x), y, which, *ctx.size)
        ctx.save_for_backward(which)
        return y

    @staticmethod
    def backward(ctx, grad):
        n, height, width, channels = ctx.size
        grad_x = _empty(n, channels, 2 * height, 2 * width)
        _call("pool_backward", _ready(grad), *ctx.saved_tensors, grad_x, *ctx.size)
        return grad_x


class ReLUBatchNorm2d(nn.Module):
    """ReLU and then `norm`, in training: it uses and updates the parameters and buffers of that.

    Takes (N, C, H, W); computes in float32, and returns the same shape in bfloat16.
    """

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        self.norm = norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        norm = self.norm
        norm.num_batches_tracked += 1
        return _ReLUBatchNorm.apply(x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.momentum, norm.eps)


class MaxPool2d(nn.Module):
    """`nn.MaxPool2d(2)`; takes (N, C, H, W), and returns (N, C, H // 2, W // 2), bfloat16."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[2:]
        return _MaxPool.apply(x[:, :, :height // 2 * 2, :width // 2 * 2])


def channels_last(model: Net) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What computes the model's output in training, faster than `model` itself; None where the kernels cannot be built.

    It shares the parameters and buffers of the model, and is called as that is, under autocast to bfloat16 on the CPU.
    """
    if kernels() is None:
        return None
    layers = []
    for layer in (layer for part in model.features for layer in (part if isinstance(part, nn.Sequential) else [part])):
        before = layers[-1] if layers else None
        match layer:
            case nn.BatchNorm2d(affine=True, track_running_stats=True, momentum=float()) if isinstance(before, nn.ReLU):
                layers[-1] = ReLUBatchNorm2d(layer)
            case nn.MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False, return_indices=False):
                layers.append(MaxPool2d())
            case _:
                layers.append(layer)
    features = nn.Sequential(*layers)

    def forward(x: torch.Tensor) -> torch.Tensor:
        n, _, height, width = x.shape  # of one channel, whose place PyTorch takes from the strides alone
        return model.classify(features(x.reshape(n, height, width, 1).permute(0, 3, 1, 2)))

    return forward
