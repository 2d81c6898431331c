"""The machine: a device that computes, no more threads than CPUs, and the caller left as it was."""

import joblib
import pytest
import torch

from src import device
from src.device import configure, one_thread, pick_device, pick_memory_format
from src.errors import InputError
from src.models import AugmentedNet, BasicNet
from src.provenance import PACKAGE, TRAINING_FILES


@pytest.mark.parametrize("name", ["meta", "abacus", "cuda:99"])
def test_a_device_that_cannot_compute_is_refused(name):
    with pytest.raises(InputError, match=f"device '{name}' is not available here: choose 'cuda'"):
        pick_device(name)


def test_a_gpu_without_kernels_for_it_is_passed_over(monkeypatch, capsys):
    def compute(name):
        if name == "cuda":
            raise RuntimeError("no kernel image is available for execution on the device")
        return torch.device(name)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(device, "_compute_on", compute)
    assert pick_device() == torch.device("cpu")
    assert capsys.readouterr().out == (
        "cuda is available, but cannot compute: the CPU is used instead.\n"
    )


def test_the_channels_of_a_pixel_lie_side_by_side_where_that_is_faster():
    plain, normalised = BasicNet(), AugmentedNet()
    cpu, cuda, mps = (torch.device(name) for name in ("cpu", "cuda", "mps"))
    with one_thread():
        assert pick_memory_format(normalised, cpu) is torch.channels_last
        torch.set_num_threads(2)
        assert pick_memory_format(plain, cpu) is torch.channels_last
        assert pick_memory_format(normalised, cpu) is torch.contiguous_format
        assert pick_memory_format(normalised, cuda) is torch.channels_last
        assert pick_memory_format(plain, mps) is torch.contiguous_format  # it may train wrongly


def test_there_are_never_more_threads_than_the_process_may_use(monkeypatch):
    with one_thread():
        torch.set_num_threads(8)
        monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
        configure()
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        configure()
        assert torch.get_num_threads() == 1  # not more than was set


def test_one_thread_leaves_the_callers_number():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with pytest.raises(KeyError), one_thread():
            assert torch.get_num_threads() == 1
            raise KeyError
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_code_of_every_core_module_that_trains_is_a_condition_of_resuming():
    others = {"__init__.py", "__main__.py", "errors.py", "provenance.py", "store.py", "plots.py"}
    modules = {path.name for path in PACKAGE.glob("*.py")} - others
    assert {path.name for path in TRAINING_FILES} == modules
