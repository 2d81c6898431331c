"""The device, the precision, and the captured training step."""

import contextlib
import copy
from unittest.mock import MagicMock

import pytest
import torch

from src.device import CapturedStep, pick_device, pick_precision
from src.experiments import AUGMENTATION, BASIC, prepare
from src.training import make_step, train

CPU = torch.device("cpu")


def test_a_device_that_is_not_there_is_refused_in_one_line():
    with pytest.raises(RuntimeError, match="no device 'cuda:99' here"):
        pick_device("cuda:99")
    with pytest.raises(ValueError, match="unknown device 'abacus'"):
        pick_device("abacus")


def test_precision_is_as_asked_or_refused():
    assert pick_precision(CPU, "float32") == torch.float32 and pick_precision(CPU, "bfloat16") == torch.bfloat16
    assert pick_precision(CPU) in (torch.float32, torch.bfloat16)
    with pytest.raises(ValueError, match="'half'"):
        pick_precision(CPU, "half")


@pytest.fixture
def graphs_on_the_cpu(monkeypatch):
    """Stand-ins for CUDA's graphs where there is no CUDA: a capture takes back all that the step changes, a replay runs it."""
    if torch.cuda.is_available():
        return lambda step, *changed: None

    def stand_in(step: CapturedStep, *changed) -> None:
        class Graph:
            def replay(self):
                for kept, new in zip(step.outcome, step.step(step.data, step.target)):
                    kept.copy_(new)

        @contextlib.contextmanager
        def graph(_):
            before = [copy.deepcopy(part.state_dict()) for part in changed]
            yield
            for part, kept in zip(changed, before):
                part.load_state_dict(kept)

        for name, fake in {"CUDAGraph": Graph, "graph": graph, "Stream": MagicMock, "current_stream": MagicMock(),
                           "stream": lambda _: contextlib.nullcontext()}.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    return stand_in


@pytest.mark.parametrize("experiment", [BASIC, AUGMENTATION], ids=lambda experiment: experiment.name)
def test_a_captured_step_trains_as_the_plain_one_does(experiment, graphs_on_the_cpu, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    device, outcomes = pick_device(), []
    for capture in (False, True):
        parts = prepare(experiment, 1, device.type)
        model, optimizer, averaged = parts["model"], parts["optimizer"], parts["averaged"]
        for group in optimizer.param_groups:  # a float32, as it is in a captured step
            group["lr"] = torch.tensor(group["lr"], device=device)
        step = make_step(model, CPU, optimizer, averaged=averaged)  # which it captures on no CPU
        if capture:
            step = CapturedStep(step, optimizer)
            graphs_on_the_cpu(step, *filter(None, (model, optimizer, averaged)))
        # Two epochs of 15 batches and a smaller one each; the learning rate moves with every batch.
        losses = [train(model, device, parts["train_loader"], optimizer, step=step, scheduler=parts["scheduler"],
                        progress=False) for _ in range(2)]
        outcomes.append((losses, [value for value in (averaged.module if averaged else model).state_dict().values()
                                  if value.is_floating_point()]))
        assert not capture or step.graph is not None
    torch.testing.assert_close(*outcomes)
