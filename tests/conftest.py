"""What the tests share."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
for name in ("MNIST_REDUCED", "MNIST_ROOT"):  # of the shell that runs the tests
    os.environ.pop(name, None)


@pytest.fixture(scope="session")
def mnist():
    """The 60,000 training and 10,000 test images: ((images, labels), (images, labels))."""
    from src.data import load_mnist

    return load_mnist()


@pytest.fixture
def results(tmp_path, monkeypatch):
    """The folder to which this test's records and checkpoints go."""
    from src import records

    monkeypatch.setattr(records, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture
def tiny(monkeypatch):
    """An experiment of a second that is recorded: 2,000 images, one epoch, without being a smoke test."""
    from src import experiments

    load = experiments.load_mnist
    monkeypatch.setattr(
        experiments,
        "load_mnist",
        lambda *where: tuple((images[:2000], labels[:2000]) for images, labels in load(*where)),
    )
    return replace(experiments.BASIC, epochs=1)


@pytest.fixture
def cli(capsys):
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
    """Start Python in the checkout, or in `cwd`, as a user would; returns the finished process."""

    def run(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *words],
            cwd=cwd,
            env={**os.environ, **environment},
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )

    return run
