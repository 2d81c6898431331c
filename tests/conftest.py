"""What the tests share. Nothing outside changes a result: one thread, and a clean environment."""

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest

ROOT = Path(__file__).parent.parent
IMAGES = 500  # of a run in the tests
sys.path.insert(0, str(ROOT))
for name in ("MNIST_REDUCED", "MNIST_ROOT", "PYTHONIOENCODING", "PYTHONWARNINGS"):
    os.environ.pop(name, None)  # of the shell that runs the tests
OWN_RUNS = tempfile.TemporaryDirectory()  # empty: no run and no weights of yours change a test
os.environ["MNIST_RESULTS"] = OWN_RUNS.name
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # do not spin while another one works
hypothesis.settings.register_profile("here", deadline=None, database=None)  # keeps no failures
hypothesis.settings.load_profile("here")


def pytest_addoption(parser):
    purpose = "write the list of the numbers that sentences state and do not quote"
    parser.addoption("--update-numbers", action="store_true", help=purpose)


def history(*accuracies):
    """The history of a run with these test accuracies in %."""
    rest = {"learning_rate": 0.1, "train_accuracy": 99.0, "train_loss": 0.1, "test_loss": 0.1}
    return [
        {"epoch": epoch, "test_accuracy": accuracy, "seconds": 1.0, **rest}
        for epoch, accuracy in enumerate(accuracies, 1)
    ]


@pytest.fixture(scope="session")
def mnist():
    """The 60,000 training and 10,000 test images: ((images, labels), (images, labels))."""
    from src.data import load_mnist

    return load_mnist()


@pytest.fixture
def output(tmp_path, monkeypatch):
    """The folder to which this test's records, weights and checkpoints go."""
    from src import store

    folder = tmp_path / "output"
    monkeypatch.setattr(store, "OUTPUT", folder)
    return folder


@pytest.fixture
def evidence(tmp_path, monkeypatch):
    """An empty folder in place of the evidence."""
    from src import provenance, store

    folder = tmp_path / "evidence"
    folder.mkdir()
    monkeypatch.setattr(store, "EVIDENCE", folder)
    monkeypatch.setattr(provenance, "COMMIT", "0123456789")  # else nothing is published
    return folder


@pytest.fixture
def few_images(monkeypatch):
    """Every run of this process trains and tests on `IMAGES` images, whatever it asks for."""
    from src import experiments

    load = experiments.load_mnist
    monkeypatch.setattr(
        experiments, "load_mnist", lambda split, device, limit: load(split, device, IMAGES)
    )


@pytest.fixture
def smoke(few_images, monkeypatch):
    """Makes every run a smoke test: one epoch, and nothing is recorded."""
    monkeypatch.setenv("MNIST_REDUCED", "1")


@pytest.fixture
def tiny(few_images):
    """An experiment of a moment that is recorded: one epoch, no smoke test."""
    from src.experiments import BASIC

    return replace(BASIC, epochs=1)


@pytest.fixture
def outcome():
    """What is the same if a run is repeated: its history without times, and its weights."""

    def select(model, record):
        history = [
            {name: value for name, value in epoch.items() if "seconds" not in name}
            for epoch in record["history"]
        ]
        return history, [value.tolist() for value in model.state_dict().values()]

    return select


@pytest.fixture
def same_signals():
    """Restores the handlers of signals afterwards, which a command replaces."""
    numbers = {getattr(signal, name, signal.SIGTERM) for name in ("SIGTERM", "SIGHUP")}
    handlers = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def cli(capsys, same_signals):
    """Call the command line in this process; returns its exit status and what it printed."""
    from src.__main__ import main

    def call(*words: object) -> SimpleNamespace:
        capsys.readouterr()
        try:
            main([str(word) for word in words])
            status = 0
        except SystemExit as exit:
            status = exit.code
        printed = capsys.readouterr()
        return SimpleNamespace(status=status, out=printed.out, err=printed.err)

    return call


@pytest.fixture
def python():
    """Start Python in the checkout, as a user would; returns the finished process."""

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )

    return run
