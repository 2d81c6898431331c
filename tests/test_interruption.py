"""An interrupted run resumes and ends exactly as if it had not been interrupted."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from src import experiments, provenance, store, training
from src.experiments import AUGMENTATION, BASIC, run
from src.models import MODELS

# With everything that has a state: dropout, augmentation, averaging, momentum and a scheduler.
RECIPE = replace(AUGMENTATION, model="RegularizedNet", model_args={"dropout": 0.1})


def signal_in_epoch_2(number, code, epochs, folder):
    """Start `code`, which trains, and send it a signal; its exit status, and what it wrote."""
    tests = Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tests.parent,
        encoding="utf-8",
        env={
            **os.environ,
            "MNIST_REDUCED": str(epochs),
            "MNIST_RESULTS": str(folder),
            "PYTHONPATH": str(tests),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    lines = iter(process.stdout)
    assert any(line.startswith("EPOCH: 2") for line in lines)
    # While its progress bar is made, tqdm would answer with a traceback.
    assert any("0/" in line for line in lines)
    process.send_signal(number)
    _, errors = process.communicate()
    return process.returncode, errors


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal that Windows lacks")
def test_a_killed_process_resumes_bit_for_bit(output, outcome, monkeypatch, capsys):
    code = "from test_interruption import RECIPE, run; run(RECIPE, 3, 'cpu')"
    status, errors = signal_in_epoch_2(signal.SIGKILL, code, 3, output)
    assert status == -signal.SIGKILL, errors

    monkeypatch.setenv("MNIST_REDUCED", "3")
    resumed = outcome(*run(RECIPE, 3, "cpu"))
    assert "Resuming an interrupted run after epoch " in capsys.readouterr().out
    assert resumed == outcome(*run(RECIPE, 3, "cpu", fresh=True))
    assert not any((output / ".checkpoints").iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal that Windows lacks")
def test_ctrl_c_ends_in_one_line(tmp_path):
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from src.__main__ import main; main(['train', 'basic', '--device', 'cpu'])"
    )  # a job in the background ignores the signal otherwise
    status, errors = signal_in_epoch_2(signal.SIGINT, code, 500, tmp_path)
    (line,) = [line for line in errors.splitlines() if line.strip()]
    assert status == 130
    assert line.startswith("python -m src: Interrupted after ") and line.endswith("to resume.")


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal that Windows lacks")
@pytest.mark.parametrize(
    "handler, status, message",
    [
        (lambda *_: None, 130, "python -m src: Interrupted.\n"),
        (signal.SIG_IGN, 0, ""),  # under nohup
    ],
)
def test_a_closed_terminal_ends_a_command_unless_the_signal_is_ignored(
    handler, status, message, cli, monkeypatch
):
    monkeypatch.setattr(experiments, "run", lambda *_, **__: signal.raise_signal(signal.SIGHUP))
    signal.signal(signal.SIGHUP, handler)  # `cli` restores the one before
    done = cli("train", "basic")
    assert (done.status, done.err) == (status, message)


def interrupt_epoch(number, monkeypatch, **options):
    """Run BASIC, and press Ctrl-C when the network is tested after this epoch."""
    test, calls = training.test, []

    def press_ctrl_c(*args, **options):
        calls.append(args)
        if len(calls) == number:
            raise KeyboardInterrupt
        return test(*args, **options)

    with monkeypatch.context() as once:
        once.setattr(training, "test", press_ctrl_c)
        run(BASIC, verbose=False, **options)


@pytest.fixture
def interrupted(few_images, output, monkeypatch):
    """Interrupts a run of BASIC for three short epochs after the first; returns its checkpoint."""
    monkeypatch.setenv("MNIST_REDUCED", "3")
    with pytest.raises(
        KeyboardInterrupt, match="Interrupted after 1 of 3 epochs. Run the same command"
    ):
        interrupt_epoch(2, monkeypatch)
    (checkpoint,) = (output / ".checkpoints").glob("*.pt")
    return checkpoint


def test_a_resumed_run_says_where_it_resumes(interrupted, capsys):
    _, record = run(BASIC)
    assert len(record["history"]) == 3 and not interrupted.exists()
    lines = capsys.readouterr().out.replace("\r", "\n").splitlines()
    assert lines[1] == "Resuming an interrupted run after epoch 1."
    assert [line for line in lines if line.startswith("EPOCH")] == ["EPOCH: 2", "EPOCH: 3"]


def test_an_interrupt_counts_the_epochs_that_are_saved(few_images, output, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "2")
    save, saved = store.Checkpoint.save, []

    def press_ctrl_c(*arguments):
        saved.append(arguments)
        if len(saved) == 2:
            raise KeyboardInterrupt
        save(*arguments)

    monkeypatch.setattr(store.Checkpoint, "save", press_ctrl_c)
    with pytest.raises(KeyboardInterrupt, match="Interrupted after 1 of 2 epochs"):
        run(BASIC, verbose=False)


def test_a_fresh_run_does_not_resume_even_if_the_checkpoint_cannot_be_deleted(
    interrupted, monkeypatch, capsys
):
    monkeypatch.setattr(store.Checkpoint, "remove", lambda self: None)
    run(BASIC, fresh=True)
    assert "Resuming" not in capsys.readouterr().out


@pytest.mark.parametrize("epoch, resumed", [(1, []), (3, ["2"])])
def test_an_interrupted_fresh_run_is_not_the_earlier_one(
    epoch, resumed, interrupted, monkeypatch, capsys
):
    with pytest.raises(KeyboardInterrupt, match="again without 'fresh' to resume"):
        interrupt_epoch(epoch, monkeypatch, fresh=True)
    run(BASIC)
    printed = capsys.readouterr().out
    assert re.findall(r"Resuming an interrupted run after epoch (\d)", printed) == resumed


def test_a_fresh_run_and_one_of_another_recipe_or_seed_do_not_resume_it(interrupted, capsys):
    run(replace(BASIC, optimizer_args={"lr": 0.001}))
    run(BASIC, seed=2)
    assert interrupted.exists()
    _, record = run(BASIC, fresh=True)
    assert len(record["history"]) == 3 and "Resuming" not in capsys.readouterr().out


@pytest.mark.parametrize("fault", ["no checkpoint", "torn", "of another model"])
def test_an_unusable_checkpoint_is_reported_and_the_run_starts_over(
    fault, interrupted, capsys, monkeypatch
):
    class Changed(MODELS["BasicNet"]):  # layers of the same shapes: the weights would load
        def __init__(self):
            super().__init__()
            self.features[0][1] = torch.nn.LeakyReLU(5.0)

    whole = interrupted.read_bytes()
    if fault == "of another model":
        monkeypatch.setitem(MODELS, "BasicNet", Changed)
    else:
        interrupted.write_bytes(b"no checkpoint" if fault == "no checkpoint" else whole[:9_000])
    _, record = run(BASIC, verbose=False)
    assert len(record["history"]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    reason = "was saved with other code, " if fault == "of another model" else "is damaged"
    assert line.startswith(f"{interrupted.name} {reason}") and line.endswith(": starting over")


@pytest.mark.parametrize("changed", [{"device_name": "another"}, {"threads": 99}])
def test_a_run_of_another_machine_is_not_resumed(changed, interrupted, monkeypatch, capsys):
    here = experiments.environment
    monkeypatch.setattr(experiments, "environment", lambda device: here(device) | changed)
    run(BASIC, verbose=False)
    assert "was saved with other code, or another PyTorch, processor" in capsys.readouterr().err


def test_a_shortened_run_has_another_checkpoint():
    record = {"recipe": asdict(BASIC), "seed": 1, "device": "cpu", "torch": torch.__version__}
    paths = {store.Checkpoint({**record, "train_size": size}, {}).path for size in (8_000, 60_000)}
    assert len(paths) == 2


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(interrupted, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", refuse)
    run(BASIC, verbose=False)
    assert "cannot be read (Permission denied): starting over" in capsys.readouterr().err


def test_a_checkpoint_that_cannot_exist_is_not_called_damaged(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(store, "OUTPUT", tmp_path / "file")
    store.OUTPUT.write_text("no folder")
    monkeypatch.setenv("MNIST_REDUCED", "1")
    run(BASIC, verbose=False)
    assert "is damaged" not in capsys.readouterr().err


def test_the_longest_name_has_a_checkpoint(output, tiny):
    recipe = replace(tiny, name=100 * "字")
    record = {"recipe": asdict(recipe), "seed": 2**62, "train_size": 60_000}
    record |= {"device": "cpu", "torch": torch.__version__}
    checkpoint = store.Checkpoint(record, {})
    checkpoint.save({}, [{"epoch": 1}])
    assert checkpoint.load() == ({}, [{"epoch": 1}])


def test_changed_code_has_another_hash(monkeypatch):
    class Sloped(torch.nn.Module):
        def __init__(self, slope):
            super().__init__()
            self.activation = torch.nn.LeakyReLU(slope)

    assert provenance.hash_source(Sloped(0.01)) == provenance.hash_source(Sloped(0.01))
    assert provenance.hash_source(Sloped(0.01)) != provenance.hash_source(Sloped(5.0))
    before = provenance.hash_source(Sloped(0.01))
    monkeypatch.setattr(provenance, "SOURCE", provenance.SOURCE.replace(b"loss.backward()", b""))
    assert provenance.hash_source(Sloped(0.01)) != before


def test_a_record_names_the_code_that_was_imported_not_a_later_edit(tmp_path):
    package = tmp_path / "src"
    shutil.copytree(
        provenance.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "demo")
    )
    git = ["git", "-c", "user.name=me", "-c", "user.email=me", "-c", "commit.gpgsign=false"]
    git += ["-C", str(tmp_path)]
    for words in (["init"], ["add", "."], ["commit", "-m", "all"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    (package / ".DS_Store").write_text("of no module")
    code = """
from importlib import reload
from src import device, models, provenance
def describe():
    commit = provenance.environment(device.pick_device('cpu'))['commit']
    return commit, provenance.hash_source(models.BasicNet())
before = describe()
(provenance.PACKAGE / 'training.py').write_text('broken')
assert describe() == before
assert reload(provenance).COMMIT == before[0] + '-dirty'
print(before[0])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert re.fullmatch("[0-9a-f]{10}\n", done.stdout), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal that Windows lacks")
def test_a_study_that_is_told_to_end_ends_with_its_workers(tmp_path):
    words = ["study", "basic", "--seeds", "99", "--jobs", "2", "--device", "cpu"]
    environment = {**os.environ, "MNIST_REDUCED": "500", "MNIST_RESULTS": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "src", *words],
        cwd=Path(__file__).parent.parent,
        env=environment,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,  # so that its workers are found
    )
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob(".checkpoints/basic*.pt"))) < 2:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    # On a busy machine, joblib's resource tracker, a process of its own, may warn at the end.
    lines = [line for line in errors.splitlines() if "resource_tracker" not in line]
    assert lines[-1].endswith("Interrupted. Run the same command again to resume.")
    assert "Traceback" not in errors
    with pytest.raises(ProcessLookupError):  # nobody is left of this session
        for _ in range(100):
            os.killpg(process.pid, 0)
            time.sleep(0.1)
