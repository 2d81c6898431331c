"""Training with the channels last: the kernels against PyTorch's own layers."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from src.channels_last import MaxPool2d, ReLUBatchNorm2d, channels_last, kernels
from src.experiments import AUGMENTATION, run
from src.models import AugmentedNet, RegularizedNet

needs_compiler = pytest.mark.skipif(kernels() is None, reason="there is no C compiler")
ORDERS = [torch.channels_last, torch.contiguous_format]


@needs_compiler
@pytest.mark.parametrize("order", ORDERS, ids=["channels last", "channels first"])
@pytest.mark.parametrize("shape", [(96, 6, 24, 24), (128, 14, 6, 6), (7, 16, 5, 3), (1, 1, 2, 1), (3, 37, 8, 9)], ids=str)
def test_relu_and_batch_norm_are_those_of_pytorch(shape, order):
    torch.manual_seed(1)
    channels = shape[1]
    x = (2 * torch.randn(shape) + 0.5).bfloat16().contiguous(memory_format=order)
    x[::2, :, ::3] = 0  # where the slope of ReLU is 0
    grad = torch.randn(shape).bfloat16().contiguous(memory_format=order)
    ours, theirs = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels, dtype=torch.float64)
    for norm in (ours, theirs):
        nn.init.uniform_(norm.weight, -2, 2, generator=torch.Generator().manual_seed(2))
        nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs.weight.copy_(ours.weight)
        theirs.bias.copy_(ours.bias)
    inputs = x.requires_grad_(), x.detach().double().requires_grad_()
    outputs = ReLUBatchNorm2d(ours)(inputs[0]), theirs(F.relu(inputs[1]))
    for output in outputs:
        output.backward(grad.to(output.dtype))

    half = {"rtol": 2 ** -8, "atol": 1e-4}  # the rounding to bfloat16; all else is computed in float32
    torch.testing.assert_close(outputs[0].double(), outputs[1], **half)
    torch.testing.assert_close(inputs[0].grad.double(), inputs[1].grad, **half)
    for name, value in (*theirs.named_buffers(), *((name, value.grad) for name, value in theirs.named_parameters())):
        mine = dict(ours.named_buffers()).get(name, getattr(getattr(ours, name), "grad", None))
        torch.testing.assert_close(mine, value.to(mine.dtype), rtol=1e-4, atol=1e-4)


@needs_compiler
@pytest.mark.parametrize("order", ORDERS, ids=["channels last", "channels first"])
@pytest.mark.parametrize("shape", [(128, 6, 24, 24), (3, 5, 3, 7)], ids=str)
def test_pooling_is_that_of_pytorch_to_the_last_bit(shape, order):
    torch.manual_seed(1)
    x = torch.randint(-2, 3, shape).bfloat16()  # many are equal, and the first of them is the largest
    grad, outcomes = torch.randn(*shape[:2], shape[2] // 2, shape[3] // 2).bfloat16(), []
    broken = torch.where(torch.rand(shape) < 0.02, torch.nan, x)
    for pool in (MaxPool2d(), nn.MaxPool2d(2)):
        data = x.clone(memory_format=order).requires_grad_()
        y = pool(data)
        y.backward(grad)
        outcomes.append((y, data.grad, pool(broken)))
    for mine, theirs in zip(*outcomes):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)


@needs_compiler
def test_values_are_rounded_as_pytorch_rounds_them():
    norm = nn.BatchNorm2d(4)
    nn.init.zeros_(norm.weight)
    norm.bias.data = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1.001, 3e38])  # the first two lie half way
    y = ReLUBatchNorm2d(norm)(torch.randn(2, 4, 6, 6))
    assert torch.equal(y, norm.bias.bfloat16()[:, None, None].expand_as(y))


@needs_compiler
def test_what_is_not_a_number_stays_so():
    x = torch.ones(2, 6, 4, 4, dtype=torch.bfloat16)
    x[0, 3, 1, 1] = torch.nan
    assert ReLUBatchNorm2d(nn.BatchNorm2d(6))(x)[:, 3].isnan().all()


def gradients(model: nn.Module, forward, precision: torch.dtype, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        loss = F.nll_loss(forward(images), labels)
    loss.backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@needs_compiler
@pytest.mark.parametrize("make", [AugmentedNet, lambda: RegularizedNet(0.0), lambda: RegularizedNet(batch_norm=False)])
def test_gradients_are_as_near_to_float32_as_those_of_the_model_itself(make, mnist):
    (images, labels), _ = mnist
    images, labels = images[:128], labels[:128]
    torch.manual_seed(1)
    model = make().train()
    exact = gradients(model, model, torch.float32, images, labels)
    own, fast = (F.cosine_similarity(exact, gradients(model, forward, torch.bfloat16, images, labels), dim=0)
                 for forward in (model, channels_last(model)))
    assert fast > 0.95 and 1 - fast < 2 * (1 - own) + 1e-4


@needs_compiler
def test_the_number_of_threads_does_not_change_the_kernels():
    x = torch.randn(128, 12, 26, 26, generator=torch.Generator().manual_seed(1)).bfloat16()
    outcomes, threads = [], torch.get_num_threads()
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        data, norm = x.clone().requires_grad_(), nn.BatchNorm2d(12)
        y = MaxPool2d()(ReLUBatchNorm2d(norm)(data))
        y.square().sum().backward()
        outcomes.append((y, data.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var))
    torch.set_num_threads(threads)
    for other in outcomes[1:]:
        assert all(torch.equal(a, b) for a, b in zip(outcomes[0], other))


def test_without_a_compiler_a_line_says_so_and_training_goes_on(monkeypatch, capsys):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    monkeypatch.setenv("CC", "no-such-compiler")
    kernels.cache_clear()
    _, record = run(replace(AUGMENTATION, precision="bfloat16"), device="cpu", progress=False)
    kernels.cache_clear()
    assert record["channels_last"] is False and len(record["history"]) == 1
    assert "channels_last.c cannot be built (" in capsys.readouterr().err
