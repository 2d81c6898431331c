"""An interrupted run resumes and ends exactly as if it had not been interrupted."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from src.experiments import BASIC, run
from src.models import MODELS

# A run of three short epochs with everything that has a state: dropout, augmentation, averaging,
# momentum and a scheduler. Its parent, which has imported everything and so restarts it at once,
# kills it at random moments.
KILLS = """
import hashlib, json, os, random, signal, sys, time
from dataclasses import replace
from pathlib import Path
import torch
from src import data, experiments, store
from src.experiments import AUGMENTATION, run

torch.set_num_threads(1)
data.read_mnist(data.ROOT)  # once, for all children
fit = experiments.fit

def count_resumed(setup, epochs):
    if epochs.start > 1:
        with open(results / "resumed", "a") as file:
            file.write("x")
    return fit(setup, epochs)

experiments.fit = count_resumed
recipe = replace(AUGMENTATION, model="RegularizedNet", model_args={"dropout": 0.1})
results = Path(sys.argv[1])
done = results / "done.json"

def start(folder):
    child = os.fork()
    if child:
        return child
    store.RESULTS = results / folder
    model, record = run(recipe, seed=3, device="cpu", progress=False)
    history = [{**epoch, "seconds": None} for epoch in record["history"]]
    weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    done.write_text(json.dumps([history, hashlib.sha256(weights).hexdigest()]))
    os._exit(0)

def outcome():
    try:
        return json.loads(done.read_text())
    finally:
        done.unlink(missing_ok=True)

began = time.monotonic()
os.waitpid(start("whole"), 0)
seconds, expected = time.monotonic() - began, outcome()
kills = 0
random.seed(1)
while kills < 2:
    child = start("killed")
    time.sleep(random.uniform(0.4, 1) * seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    kills += os.WIFSIGNALED(status)
    if done.exists() or kills == 2:
        if not done.exists():
            os.waitpid(start("killed"), 0)
        assert outcome() == expected, "the resumed run differs"
assert not list((results / "killed" / ".checkpoints").glob("*.pt"))
resumed = len((results / "resumed").read_text())
print(json.dumps({"kills": kills, "resumed": resumed, "epochs": len(expected[0])}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_at_any_moment_resumes_bit_for_bit(python, tmp_path):
    done = python("-c", KILLS, str(tmp_path), MNIST_REDUCED="3")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == 2 and found["epochs"] == 3
    assert found["resumed"] >= 1  # in the others, not an epoch had been finished


@pytest.fixture
def interrupted(results, monkeypatch):
    """Interrupts a run of BASIC for three short epochs after the first; returns its checkpoint."""
    monkeypatch.setenv("MNIST_REDUCED", "3")
    from src import training

    test = training.test

    def press_ctrl_c(*args, **options):
        if list((results / ".checkpoints").glob("*.pt")):
            raise KeyboardInterrupt
        return test(*args, **options)

    with monkeypatch.context() as once:
        once.setattr(training, "test", press_ctrl_c)
        with pytest.raises(
            KeyboardInterrupt, match="Interrupted after 1 of 3 epochs. Run the same command"
        ):
            run(BASIC, progress=False)
    (checkpoint,) = (results / ".checkpoints").glob("*.pt")
    return checkpoint


def test_a_resumed_run_says_where_it_resumes(interrupted, capsys):
    _, record = run(BASIC)
    assert len(record["history"]) == 3 and not interrupted.exists()
    lines = capsys.readouterr().out.replace("\r", "\n").splitlines()
    assert lines[1] == "Resuming an interrupted run after epoch 1."
    assert [line for line in lines if line.startswith("EPOCH")] == ["EPOCH: 2", "EPOCH: 3"]


def test_fresh_starts_over(interrupted, capsys):
    _, record = run(BASIC, fresh=True)
    assert len(record["history"]) == 3 and "Resuming" not in capsys.readouterr().out


def test_another_recipe_or_seed_does_not_resume_it(interrupted, capsys):
    run(replace(BASIC, optimizer_args={"lr": 0.001}))
    run(BASIC, seed=2)
    assert "Resuming" not in capsys.readouterr().out and interrupted.exists()


@pytest.mark.parametrize("content", [b"torn", None])
def test_a_damaged_checkpoint_is_reported_and_the_run_starts_over(content, interrupted, capsys):
    whole = interrupted.read_bytes()
    interrupted.write_bytes(whole[: len(whole) // 2] if content is None else content)
    _, record = run(BASIC, progress=False)
    assert len(record["history"]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"{interrupted.name} is damaged, or ") and error.count("\n") == 1


def test_a_checkpoint_of_a_changed_model_is_reported_and_the_run_starts_over(
    interrupted, capsys, monkeypatch
):
    class Changed(MODELS["BasicNet"]):  # layers of the same shapes: the weights would load
        def __init__(self):
            super().__init__()
            self.features[0][1] = torch.nn.Tanh()

    monkeypatch.setitem(MODELS, "BasicNet", Changed)
    _, record = run(BASIC, progress=False)
    assert len(record["history"]) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"{interrupted.name} is damaged, or of another model, ")
    assert error.endswith(": starting over\n") and error.count("\n") == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sends a signal that Windows lacks")
def test_ctrl_c_on_the_command_line_is_one_line(tmp_path):
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from src.__main__ import main; main(['train', 'basic', '--device', 'cpu'])"
    )  # a job in the background ignores the signal otherwise
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent.parent,
        encoding="utf-8",
        env={**os.environ, "MNIST_REDUCED": "500", "MNIST_RESULTS": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for line in process.stdout:
        if line.startswith("EPOCH: 2"):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    (line,) = [line for line in errors.splitlines() if line.strip()]
    assert process.returncode == 130
    assert line.startswith("python -m src: Interrupted after ") and line.endswith("to resume.")
