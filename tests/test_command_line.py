"""The command line says what it does, does it, and refuses what it cannot do."""

import shutil

import pytest

from src import __main__, experiments
from src.store import results_path


@pytest.mark.parametrize(
    "words, expected",
    [
        ([], ["train", "study", "bench", "predict", "page", "report"]),
        (
            ["train"],
            ["basic,regularization,augmentation", "--seed", "--epochs", "--fresh", "--device"],
        ),
        (["study"], ["--list", "--seeds", "--jobs", "--scheduler", "--device"]),
        (["bench"], ["basic, regularization, augmentation", "--turns", "--quick", "--device"]),
        (["predict"], ["image", "--json", "--show"]),
        (["report"], ["--check"]),
    ],
)
def test_help(cli, words, expected):
    done = cli(*words, "--help")
    assert done.status == 0 and done.err == ""
    assert all(word in done.out for word in expected)


def test_help_does_not_import_torch(python):
    done = python("-X", "importtime", "-m", "src", "--help")
    assert done.returncode == 0 and "argparse" in done.stderr and "torch" not in done.stderr


def test_debug_shows_the_traceback(cli):
    with pytest.raises(ValueError, match="unknown study"):
        cli("--debug", "study", "drop")


def test_train_prints_the_log_of_every_epoch(cli, results, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    done = cli("train", "basic", "--device", "cpu")
    first, second, *lines = done.out.replace("\r", "\n").splitlines()
    assert done.status == 0 and first.startswith("Smoke test: ") and second == "EPOCH: 1"
    assert lines[-2].startswith("Loss=") and "Batch_id=15 Accuracy=" in lines[-2]
    assert "16/16" in lines[-2] and lines[-1].startswith("Test set: Average loss: ")
    assert lines[-1].endswith("%)") and "/2000 (" in lines[-1]


def test_whatever_the_terminal_can_encode(python, tmp_path):
    path = tmp_path / "😀.png"
    path.write_bytes(b"no image")
    shutil.copy(results_path("augmentation.pt"), tmp_path)
    code = (
        f"from src.__main__ import main; main(['train', 'basic']); main(['predict', {str(path)!r}])"
    )
    options = {"PYTHONIOENCODING": "ascii", "MNIST_RESULTS": str(tmp_path), "MNIST_REDUCED": "1"}
    done = python("-c", code, **options)
    assert done.returncode == 1 and "Test set: " in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.endswith("is not a readable image (UnidentifiedImageError)")


def test_a_reader_that_leaves_ends_the_command_quietly(python):
    code = (
        "import subprocess, sys\n"
        "command = subprocess.Popen([sys.executable, '-m', 'src', 'study', '--list'],\n"
        "    stdout=subprocess.PIPE, stderr=subprocess.PIPE)\n"
        "command.stdout.close()\n"
        "print(command.stderr.read().decode())"
    )
    assert python("-c", code).stdout.strip() == ""


def test_an_error_without_a_message_is_named(cli, monkeypatch):
    monkeypatch.setattr(experiments, "run", lambda *_, **__: (_ for _ in ()).throw(OSError()))
    assert cli("train", "basic").err == "python -m src: OSError\n"


def test_study_list(cli):
    done = cli("study", "--list")
    assert done.status == 0 and "60 of  60 runs   What is an epoch worth?" in done.out


@pytest.mark.parametrize(
    "words, status, message",
    [
        (["train", "basics"], 2, "invalid choice: 'basics'"),
        (["train", "basic", "--epochs", "0"], 2, "must be a positive integer, got 0"),
        (["train", "basic", "--seed", "one"], 2, "invalid int value: 'one'"),
        (
            ["train", "basic", "--seed", "-1"],
            2,
            "the seed must be a non-negative integer below 2**63, got -1",
        ),
        (
            ["train", "basic", "--device", "abacus"],
            2,
            "device 'abacus' is not available here: choose 'cuda', 'mps' or 'cpu'",
        ),
        (["train", "basic", "--device", "cuda:99"], 2, "device 'cuda:99' is not available here"),
        (["study", "drop"], 2, "unknown study 'drop': choose from steps, original"),
        (["bench", "basics"], 2, "unknown step 'basics': choose from basic, regularization, "),
        (["bench", "--turns", "0"], 2, "must be a positive integer, got 0"),
        (["predict", "nowhere.png"], 1, "nowhere.png does not exist"),
        ([], 2, "required: COMMAND"),
    ],
)
def test_wrong_use_is_one_clear_line(cli, words, status, message):
    done = cli(*words)
    assert (
        done.status == status
        and message in done.err.splitlines()[-1]
        and "Traceback" not in done.err
    )


def test_steps_are_those_of_the_experiments():
    assert list(experiments.STEPS) == __main__.STEPS
