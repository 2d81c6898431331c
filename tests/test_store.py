"""No record is lost, whatever happens to the file or the disk: records are only appended."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from filelock import FileLock
from hypothesis import HealthCheck, given, settings, strategies

from src import store
from src.experiments import run


def record(seed, name="a", **recipe):
    run = {"recipe": {"name": name, **recipe}, "seed": seed, "device": "cpu", "torch": "2.9.1+cpu"}
    return {**run, "history": [seed]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "runs.jsonl"


def seeds(path):
    return [record["seed"] for record in store.load_records(path).values()]


def test_the_last_record_of_a_run_counts_and_the_first_one_stays(path):
    store.append_records(path, [record(1, lr=1), record(2, lr=1)])
    store.append_records(path, [{**record(1, lr=1.0, name="b"), "history": ["new"]}])  # 1 is 1.0
    records = store.load_records(path).values()
    assert [run["history"] for run in records] == [[2], ["new"]]  # the newest last
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3


def test_large_seeds_are_different_runs(path):
    store.append_records(path, [record(2**53), record(2**53 + 1)])
    assert seeds(path) == [2**53, 2**53 + 1]


def test_runs_with_another_pytorch_or_device_are_other_records(path):
    same = {**record(1), "torch": "2.9.1+cu130"}
    others = [{**record(1), "torch": "2.10.0"}, {**record(1), "device": "cuda"}]
    store.append_records(path, [record(1), same, *others])
    assert len(store.load_records(path)) == 3


def test_processes_that_append_at_once_lose_and_mix_nothing(path):
    code = """
import sys; from pathlib import Path; from src import store
for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 10):
    store.append_records(Path(sys.argv[1]), [{'seed': seed, 'padding': 'x' * 100_000}])
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(start)])
        for start in (0, 10, 20)
    ]
    assert [process.wait() for process in processes] == [0] * 3
    lines = path.read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["seed"] for line in lines) == list(range(30))


def test_a_lock_that_cannot_be_had_is_one_line_and_the_run_can_be_recorded_later(
    output, tiny, capsys, monkeypatch
):
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.1)
    output.mkdir()
    with FileLock(output / ".lock"):
        _, record = run(tiny, verbose=False)
    error = capsys.readouterr().err
    assert error.startswith("the run was not recorded (") and "is locked by another" in error
    assert len(list((output / ".checkpoints").iterdir())) == 1
    _, again = run(tiny, verbose=False)  # nothing is trained again
    assert again["history"] == record["history"] and seeds(output / "runs.jsonl") == [1]


def test_a_truncated_last_line_costs_only_its_own_run(path, capsys):
    store.append_records(path, [record(seed) for seed in (1, 2, 3)])
    path.write_bytes(path.read_bytes()[:-10])
    assert seeds(path) == [1, 2]
    assert capsys.readouterr().err == f"{path}: no record in line 3\n"
    store.append_records(path, [record(3)])
    assert seeds(path) == [1, 2, 3]


def lines(*seeds, **options):
    return "".join(json.dumps(record(seed), **options) + "\n" for seed in seeds)


@pytest.mark.parametrize(
    "content, readable",
    [
        (lines(1, 2).encode("utf-8-sig"), [1, 2]),  # Windows PowerShell
        (lines(1, 2).encode("utf-16"), []),  # its redirection
        (lines(1, 2).replace("}\n{", "}{").encode() + lines(3).encode(), [3]),
        (lines(1, indent=1).encode() + lines(2).encode(), [2]),
        (lines(1, 2).replace("\n", "\r\n").encode(), [1, 2]),
        (lines(1, 2).replace('"history": [1]', '"history": "1"').encode(), [2]),
    ],
    ids=[
        *("byte-order mark", "UTF-16", "two in one line", "pretty-printed", "Windows line ends"),
        "a text for the history",
    ],
)
def test_what_an_editor_did_to_the_file_stays_and_is_named(content, readable, path, capsys):
    path.write_bytes(content)
    assert seeds(path) == readable
    assert (": no record in line" in capsys.readouterr().err) == (len(readable) != 2)
    store.append_records(path, [record(9)])
    assert path.read_bytes().startswith(content)
    assert seeds(path) == [*readable, 9]


VALUES = strategies.recursive(
    strategies.none() | strategies.integers() | strategies.text(),
    lambda inner: (
        strategies.lists(inner)
        | strategies.dictionaries(strategies.sampled_from(list(record(1))), inner)
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_other_records_are_read_whatever_a_line_contains(path, line):
    path.write_bytes(json.dumps(record(1)).encode() + b"\n" + line)
    store._parse_records.cache_clear()  # two files of one size may be written within a clock tick
    assert 1 in seeds(path)


@pytest.mark.skipif(sys.platform == "win32", reason="replaces a file that is open")
def test_whoever_reads_a_file_while_it_is_replaced_sees_the_whole_old_one(path):
    path.write_text("old", encoding="utf-8")
    with open(path, encoding="utf-8") as reader:
        with store.atomic_write(path) as temporary:
            temporary.write_text("new", encoding="utf-8")
        assert reader.read() == "old" and path.read_text(encoding="utf-8") == "new"
    with pytest.raises(KeyError), store.atomic_write(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise KeyError
    assert path.read_text(encoding="utf-8") == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_a_full_disk_loses_no_record(path, python):
    store.append_records(path, [record(1), record(2)])
    before = path.read_bytes()
    code = """
import resource, signal, sys; from pathlib import Path; from src import store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
limit = path.stat().st_size + 10
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
for size in (1_000, 100_000):  # less and more than a buffer holds
    try:
        store.append_records(path, [{'seed': 3, 'padding': 'x' * size}])
    except OSError as error:
        print(error)
"""
    lines = python("-c", code, str(path)).stdout.splitlines()
    assert len(lines) == 2 and all(str(path) in line for line in lines)
    assert path.read_bytes() == before


@pytest.mark.parametrize("method, number", [("mkdir", errno.EROFS), ("write_bytes", errno.ENOSPC)])
def test_a_run_trains_even_if_nothing_can_be_written(
    method, number, output, tiny, capsys, monkeypatch
):
    def fail(path, *_, **__):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, method, fail)
    monkeypatch.setattr(store, "append_records", fail)
    _, record = run(replace(tiny, epochs=2), verbose=False)
    assert len(record["history"]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("cannot write a checkpoint") and os.strerror(number) in first
    assert first.endswith(": if the run is interrupted, it loses epoch 1 and later ones")
    assert last.startswith("the run was not recorded") and os.strerror(number) in last


def test_a_disk_that_fills_during_a_run_is_reported_once(output, tiny, capsys, monkeypatch):
    save_state = store.save_state

    def fail_after_the_first(state, path):
        if len(state["history"]) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save_state(state, path)

    monkeypatch.setattr(store, "save_state", fail_after_the_first)
    run(replace(tiny, epochs=3), verbose=False, file=None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(": if the run is interrupted, it loses epoch 2 and later ones")


def test_variables_move_data_and_what_you_run_and_not_the_evidence(python):
    code = """
import importlib, os
from src import data, store
print(store.OUTPUT, store.EVIDENCE, data.MNIST_ROOT, sep="\\n")
os.environ["MNIST_RESULTS"] = ""  # as if it were not set
print(importlib.reload(store).OUTPUT)
"""
    variables = {"MNIST_RESULTS": "~/mnist-results-of-a-test", "MNIST_ROOT": "somewhere"}
    done = python("-c", code, **variables)
    output, evidence, root, default = map(Path, done.stdout.splitlines())
    assert output == Path.home() / "mnist-results-of-a-test"
    assert evidence == ROOT / "results" and default == ROOT / "results" / "local"
    assert root == ROOT / "somewhere"  # wherever Python runs
