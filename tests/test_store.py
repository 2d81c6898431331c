"""No finished record is lost or duplicated, whatever happens to the file or the disk."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings, strategies

from src import store
from src.experiments import run

pytestmark = pytest.mark.usefixtures("results")


@pytest.fixture
def fail(monkeypatch):
    """Makes a method of paths write ten bytes or characters at most, and raise an error."""

    def patch(method, number):
        whole = getattr(Path, method)

        def failing(path, *content, **options):
            if content:
                whole(path, content[0][:10], **options)
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(Path, method, failing)

    return patch


def record(seed, name="a", **recipe):
    run = {"recipe": {"name": name, **recipe}, "seed": seed, "device": "cpu"}
    return {**run, "fingerprint": "0", "history": [seed]}


def seeds(local=True):
    return [kept["seed"] for kept in store.load_records("runs", local).values()]


def test_a_repeated_run_replaces_its_record():
    store.save_records("runs", [record(1, lr=1), record(2, lr=1)])
    store.save_records("runs", [{**record(1, lr=1.0, name="b"), "history": ["new"]}])  # 1 is 1.0
    kept = store.load_records("runs", local=True).values()
    assert [run["history"] for run in kept] == [[2], ["new"]]


def test_records_are_added_and_removed_at_once():
    store.save_records("runs", [record(1), record(2), record(3)], local=False)
    assert seeds() == []  # what is run is the reader's
    removed = [store.record_key(record(seed)) for seed in (1, 2, 9)]
    store.save_records("runs", [record(4), record(1)], removed, local=False)
    assert seeds(local=False) == [3, 4, 1]


def test_processes_that_save_at_once_lose_and_duplicate_nothing(results):
    code = """
import sys; from pathlib import Path; from src import store; store.RESULTS = Path(sys.argv[1])
for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 10):
    run = {'recipe': {}, 'seed': seed, 'device': 'cpu', 'fingerprint': '0', 'history': []}
    store.save_records('runs', [run])
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(results), str(start)])
        for start in (0, 10, 20)
    ]
    assert [process.wait() for process in processes] == [0] * 3
    lines = (results / "local" / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["seed"] for line in lines) == list(range(30))


def test_a_lock_that_cannot_be_had_is_one_line_and_the_run_can_be_recorded_later(
    results, tiny, capsys, monkeypatch
):
    monkeypatch.setattr(store, "LOCK_TIMEOUT", 0.1)
    with FileLock(results / ".lock"):
        _, made = run(tiny, progress=False)
    error = capsys.readouterr().err
    assert error.startswith("the run was not recorded (") and "is locked by another" in error
    assert seeds() == [] and len(list((results / ".checkpoints").iterdir())) == 1
    _, again = run(tiny, progress=False)  # nothing is trained again
    assert again["history"] == made["history"] and seeds() == [1]


def test_a_truncated_last_line_costs_only_its_own_run(results, capsys):
    for seed in (1, 2, 3):
        store.save_records("runs", [record(seed)])
    path = results / "local" / "runs.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert seeds() == [1, 2]
    assert capsys.readouterr().err == "runs.jsonl: skipped incomplete records (lines 3)\n"
    store.save_records("runs", [record(3)])
    assert seeds() == [1, 2, 3]


VALUES = strategies.recursive(
    strategies.none() | strategies.integers() | strategies.text(),
    lambda inner: (
        strategies.lists(inner)
        | strategies.dictionaries(strategies.sampled_from(list(record(1))), inner)
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(strategies.binary() | VALUES.map(lambda value: json.dumps(value).encode()))
def test_other_records_are_read_whatever_a_line_contains(line):
    whole = json.dumps(record(1)).encode()
    (store.RESULTS / "runs.jsonl").write_bytes(whole + b"\n" + line)
    store._parse_records.cache_clear()  # two files of one size may be written within a clock tick
    assert 1 in seeds(local=False)


def test_a_full_disk_loses_no_record(results, fail):
    store.save_records("runs", [record(1), record(2)])
    fail("write_text", errno.ENOSPC)
    with pytest.raises(OSError, match="No space left on device: .*local.runs.jsonl"):
        store.save_records("runs", [record(3)])
    assert seeds() == [1, 2]
    assert [path.name for path in (results / "local").iterdir()] == ["runs.jsonl"]


@pytest.mark.parametrize(
    "methods, number", [(["mkdir"], errno.EROFS), (["write_bytes", "write_text"], errno.ENOSPC)]
)
def test_a_run_trains_even_if_nothing_can_be_written(methods, number, fail, tiny, capsys):
    for method in methods:
        fail(method, number)
    _, made = run(replace(tiny, epochs=2), progress=False)
    assert len(made["history"]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("cannot write a checkpoint") and os.strerror(number) in first
    assert last.startswith("the run was not recorded") and os.strerror(number) in last
