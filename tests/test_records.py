"""No finished record is lost or duplicated, whatever happens to the file or the disk."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies

from src import records
from src.experiments import run

pytestmark = pytest.mark.usefixtures("results")


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A file system of 64 KB, mounted with the options of the call; skips where mounting is not allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(*options: str) -> None:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(["size=64k", *options]), "tmpfs", str(disk)],
            capture_output=True,
            text=True,
        )
        if mounted.returncode:
            pytest.skip(f"a file system may not be mounted here: {mounted.stderr.strip()}")
        monkeypatch.setattr(records, "RESULTS", disk / "results")

    yield mount
    subprocess.run(["umount", str(disk)], capture_output=True)


def record(seed, name="a", **recipe):
    return {
        "recipe": {"name": name, **recipe},
        "seed": seed,
        "device": "cpu",
        "fingerprint": "0",
        "history": [seed],
    }


def seeds():
    return [kept["seed"] for kept in records.load_records("runs").values()]


def test_a_repeated_run_replaces_its_record():
    records.save_record("runs", record(1, lr=0.1))
    records.save_record("runs", record(2, lr=0.1))
    records.save_record("runs", {**record(1, lr=0.1, name="b"), "history": ["new"]})
    assert [kept["history"] for kept in records.load_records("runs").values()] == [[2], ["new"]]


def test_processes_that_save_at_once_lose_and_duplicate_nothing(results):
    code = (
        "import sys; from pathlib import Path; from src import records; records.RESULTS = Path(sys.argv[1])\n"
        "for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 10):\n"
        "    records.save_record('runs', {'recipe': {}, 'seed': seed, 'device': 'cpu', 'fingerprint': '0', 'history': []})"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(results), str(10 * number)])
        for number in range(4)
    ]
    assert [process.wait() for process in processes] == [0] * 4
    assert sorted(seeds()) == list(range(40))
    assert len((results / "runs.jsonl").read_text().splitlines()) == 40


def test_a_truncated_last_line_costs_only_its_own_run(results, capsys):
    for seed in (1, 2, 3):
        records.save_record("runs", record(seed))
    path = results / "runs.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert seeds() == [1, 2]
    assert capsys.readouterr().err == "runs.jsonl: skipped incomplete records (lines 3)\n"
    records.save_record("runs", record(3))
    assert seeds() == [1, 2, 3]
    records.load_records("runs")
    assert len(path.read_text().splitlines()) == 3


@settings(max_examples=60, deadline=None)
@given(
    strategies.binary()
    | strategies.recursive(
        strategies.none() | strategies.integers() | strategies.text(),
        lambda inner: (
            strategies.lists(inner)
            | strategies.dictionaries(strategies.sampled_from(list(record(1))), inner)
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_other_records_are_read_whatever_a_line_contains(line):
    whole = json.dumps(record(1)).encode()
    (records.RESULTS / "runs.jsonl").write_bytes(whole + b"\n" + line)
    assert 1 in seeds()


def test_a_full_disk_loses_no_record(small_disk):
    small_disk()
    saved = 0
    with pytest.raises(OSError, match="No space left on device: .*runs.jsonl"):
        for saved in range(100):
            records.save_record("runs", {**record(saved), "history": ["x" * 4000]})
    assert saved > 2 and seeds() == list(range(saved))
    assert {path.name for path in records.RESULTS.iterdir()} <= {"runs.jsonl", ".lock"}


@pytest.mark.parametrize(
    "options, reason",
    [(["ro"], "Read-only file system"), (["nr_inodes=1"], "No space left on device")],
)
def test_a_run_trains_even_if_nothing_can_be_written(options, reason, small_disk, tiny, capsys):
    small_disk(*options)
    _, made = run(replace(tiny, epochs=2), progress=False)
    assert len(made["history"]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("cannot write a checkpoint") and reason in first
    assert last.startswith("the run was not recorded") and reason in last
