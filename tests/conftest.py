"""What the tests share."""

import os
import subprocess
import sys
from pathlib import Path

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
def command():
    """Run a command in the checkout, or in `cwd`, as a user would: returns the finished process."""
    def run(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run([sys.executable, *words], cwd=cwd, env={**os.environ, **environment}, capture_output=True,
                              encoding="utf-8", errors="replace")
    return run
