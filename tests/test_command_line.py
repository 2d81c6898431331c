"""The command line says what it does, does it, and refuses what it cannot do."""

import pytest

from src import __main__, experiments


@pytest.mark.parametrize("words, expected", [
    ([], ["train", "study", "bench", "notebooks", "report"]),
    (["train"], ["basic,regularization,augmentation", "--seed", "--epochs", "--device"]),
    (["study"], ["--list", "--seeds", "--jobs", "--device"]),
    (["bench"], ["basic, regularization, augmentation", "--turns", "--quick", "--device"]),
    (["predict"], ["image", "--json", "--show"]),
    (["export"], ["mnist.onnx"]),
    (["notebooks"], ["nbconvert"]),
    (["report"], ["--check"]),
])
def test_help(command, words, expected):
    done = command("-m", "src", *words, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert all(word in done.stdout for word in expected)


def test_help_does_not_import_torch(command):
    done = command("-X", "importtime", "-m", "src", "--help")
    assert "argparse" in done.stderr and "torch" not in done.stderr


def test_debug_shows_the_traceback(command):
    done = command("-m", "src", "--debug", "study", "drop")
    assert done.returncode == 1 and "Traceback" in done.stderr


def test_train_prints_the_log_of_every_epoch(command):
    done = command("-m", "src", "train", "basic", "--device", "cpu", MNIST_REDUCED="1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.replace("\r", "\n").splitlines()
    assert lines[0] == "EPOCH: 1"
    assert lines[-2].startswith("Loss=") and "Batch_id=15 Accuracy=" in lines[-2] and "16/16" in lines[-2]
    assert lines[-1].startswith("Test set: Average loss: ") and lines[-1].endswith("%)") and "/2000 (" in lines[-1]


def test_study_list(command):
    done = command("-m", "src", "study", "--list")
    assert done.returncode == 0 and "dropout" in done.stdout and "of  18 runs recorded" in done.stdout


@pytest.mark.parametrize("words, status, message", [
    (["train", "basics"], 2, "invalid choice: 'basics'"),
    (["train", "basic", "--epochs", "0"], 2, "0 is not a whole number of at least 1"),
    (["train", "basic", "--seed", "one"], 2, "invalid int value: 'one'"),
    (["train", "basic", "--seed", "-1"], 2, "the seed is -1: it is a whole number of at least 0"),
    (["train", "basic", "--device", "abacus"], 2, "unknown device 'abacus': it is 'cuda', 'mps' or 'cpu'"),
    (["train", "basic", "--device", "cuda:99"], 1, "no device 'cuda:99' here"),
    (["study", "drop"], 2, "unknown study 'drop'"),
    (["study", "--backend", "dask"], 2, "--backend dask and --scheduler ADDRESS go together"),
    (["bench", "basics"], 2, "unknown step 'basics'"),
    (["bench", "--turns", "0"], 2, "0 is not a whole number of at least 1"),
    (["predict", "nowhere.png"], 1, "nowhere.png does not exist"),
    ([], 2, "required: COMMAND"),
])
def test_wrong_use_is_one_clear_line(command, words, status, message):
    done = command("-m", "src", *words)
    assert done.returncode == status and message in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


def test_steps_are_those_of_the_experiments():
    assert __main__.STEPS == list(experiments.STEPS)
