"""A run that is interrupted, however it is, goes on as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from src.experiments import BASIC, checkpoint_path, run

# A run of five short epochs with all that has a state: dropout, augmentation, averaging, momentum and a scheduler. It is killed at
# random moments by its parent, which has imported everything before and so starts it again at once.
KILLS = """
import hashlib, json, os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
from src import records
from src.experiments import AUGMENTATION, run

recipe = replace(AUGMENTATION, model="RegularizedNet", model_args={"dropout": 0.1})
results = Path(sys.argv[1])
done = results / "done.json"

def start(folder):
    child = os.fork()
    if child:
        return child
    records.RESULTS = results / folder
    model, record = run(recipe, seed=3, device="cpu", progress=False)
    history = [{name: value for name, value in epoch.items() if name != "seconds"} for epoch in record["history"]]
    weights = hashlib.sha256(b"".join(value.numpy().tobytes() for value in model.state_dict().values())).hexdigest()
    done.write_text(json.dumps([history, weights]))
    os._exit(0)

def outcome():
    try:
        return json.loads(done.read_text())
    finally:
        done.unlink(missing_ok=True)

began = time.monotonic()
os.waitpid(start("whole"), 0)
seconds, expected = time.monotonic() - began, outcome()
kills = resumed = 0
random.seed(1)
while kills < 20:
    child = start("killed")
    time.sleep(random.uniform(0.3, 1) * seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
        resumed += any((results / "killed" / ".checkpoints").glob("*.pt"))
    if done.exists() or kills == 20:
        if not done.exists():
            os.waitpid(start("killed"), 0)
        assert outcome() == expected, "the resumed run differs"
assert not any((results / "killed" / ".checkpoints").iterdir())
print(json.dumps({"kills": kills, "resumed": resumed, "epochs": len(expected[0])}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_any_moment_goes_on_bit_for_bit(command, tmp_path):
    done = command("-c", KILLS, str(tmp_path), MNIST_REDUCED="5")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 20 and found["epochs"] == 5
    assert found["resumed"] >= 10  # in the others, not an epoch had been finished


THREE = replace(BASIC, epochs=3)


@pytest.fixture
def interrupted(results, monkeypatch):
    """Runs BASIC for three short epochs and interrupts it after the first."""
    monkeypatch.setenv("MNIST_REDUCED", "3")
    from src import training
    test = training.test

    def press_ctrl_c(*args, **options):
        if checkpoint_path(THREE, 1).exists():
            raise KeyboardInterrupt
        return test(*args, **options)

    with monkeypatch.context() as once:
        once.setattr(training, "test", press_ctrl_c)
        with pytest.raises(KeyboardInterrupt, match="Interrupted after 1 of 3 epochs. The same command, or cell, goes on from there."):
            run(BASIC, progress=False)
    return checkpoint_path(THREE, 1)


def test_a_run_that_goes_on_prints_all_epochs(interrupted, capsys):
    _, record = run(BASIC)
    assert len(record["history"]) == 3 and not interrupted.exists()
    lines = capsys.readouterr().out.replace("\r", "\n").splitlines()
    assert lines[0] == "Going on after epoch 1 of a run that was interrupted."
    assert [line for line in lines if line.startswith("EPOCH")] == ["EPOCH: 1", "EPOCH: 2", "EPOCH: 3"]
    assert sum(line.startswith("Test set: ") for line in lines) == 3


def test_fresh_starts_over(interrupted, capsys):
    _, record = run(BASIC, fresh=True)
    assert len(record["history"]) == 3 and "Going on" not in capsys.readouterr().out


def test_another_recipe_does_not_go_on_from_it(interrupted, capsys):
    run(replace(BASIC, optimizer_args={"lr": 0.001}))
    run(BASIC, seed=2)
    assert "Going on" not in capsys.readouterr().out and interrupted.exists()


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_damaged_checkpoint_is_said_and_the_run_starts_over(content, interrupted, capsys):
    whole = interrupted.read_bytes()
    interrupted.write_bytes(whole[:len(whole) // 2] if content is None else content)
    _, record = run(BASIC, progress=False)
    assert len(record["history"]) == 3
    assert capsys.readouterr().err == f"{interrupted.name} cannot be read: the run starts over\n"


def test_ctrl_c_on_the_command_line_is_one_line(monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "500")
    process = subprocess.Popen([sys.executable, "-m", "src", "train", "basic", "--device", "cpu", "--fresh"],
                               cwd=Path(__file__).parent.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("EPOCH: 2"):
            break
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    checkpoint_path(replace(BASIC, epochs=500), 1).unlink()
    lines = [line for line in errors.splitlines() if line.strip()]
    assert process.returncode == 130 and len(lines) == 1, errors
    assert lines[0].startswith("python -m src: Interrupted after ") and lines[0].endswith("goes on from there.")
