"""No finished record is lost or doubled, whatever happens to the file or the disk."""

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
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(["size=64k", *options]), "tmpfs", str(disk)],
                                 capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"a file system may not be mounted here: {mounted.stderr.strip()}")
        monkeypatch.setattr(records, "RESULTS", disk / "results")

    yield mount
    subprocess.run(["umount", str(disk)], capture_output=True)


def record(seed, name="a", **recipe):
    return {"version": 1, "recipe": {"name": name, **recipe}, "seed": seed, "history": [seed]}


def seeds():
    return [kept["seed"] for kept in records.load("runs").values()]


def test_the_same_run_again_takes_the_place_of_its_record():
    records.save("runs", record(1, lr=0.1))
    records.save("runs", record(2, lr=0.1))
    records.save("runs", {**record(1, lr=0.1, name="b"), "history": ["new"]})
    assert [kept["history"] for kept in records.load("runs").values()] == [["new"], [2]]


def test_eight_processes_that_save_at_once_lose_and_double_nothing(results):
    code = ("import sys; from pathlib import Path; from src import records; records.RESULTS = Path(sys.argv[1])\n"
            "for seed in range(int(sys.argv[2]), int(sys.argv[2]) + 10):\n"
            "    records.save('runs', {'version': 1, 'recipe': {}, 'seed': seed, 'history': []})")
    processes = [subprocess.Popen([sys.executable, "-c", code, str(results), str(10 * number)]) for number in range(8)]
    assert [process.wait() for process in processes] == [0] * 8
    assert sorted(seeds()) == list(range(80))
    assert len((results / "runs.jsonl").read_text().splitlines()) == 80


def test_a_torn_last_line_costs_its_own_run_alone(results, capsys):
    for seed in (1, 2, 3):
        records.save("runs", record(seed))
    path = results / "runs.jsonl"
    path.write_bytes(path.read_bytes()[:-10])
    assert seeds() == [1, 2]
    assert capsys.readouterr().err == "runs.jsonl, line 3: no whole record; its run counts as missing\n"
    records.save("runs", record(3))
    assert seeds() == [1, 2, 3]
    records.load("runs")
    assert len(path.read_text().splitlines()) == 3


def test_a_record_of_a_newer_version_is_refused_and_kept(results):
    path = results / "runs.jsonl"
    path.write_text(json.dumps({**record(1), "version": 2, "more": 0}) + "\n")
    before = path.read_bytes()
    for use in (lambda: records.load("runs"), lambda: records.save("runs", record(2))):
        with pytest.raises(RuntimeError, match="runs.jsonl, line 1: a record of version 2; .* has to be updated"):
            use()
    assert path.read_bytes() == before


@settings(max_examples=200, deadline=None)
@given(strategies.binary() | strategies.recursive(strategies.none() | strategies.integers() | strategies.text(),
                                                  lambda inner: strategies.lists(inner) | strategies.dictionaries(
                                                      strategies.sampled_from(["version", "recipe", "seed", "history"]),
                                                      inner)).map(lambda value: json.dumps(value).encode()))
def test_whatever_stands_in_a_line_the_other_records_are_read(line):
    whole = json.dumps(record(1)).encode()
    (records.RESULTS / "runs.jsonl").write_bytes(whole + b"\n" + line)
    try:
        assert 1 in seeds()
    except RuntimeError as error:
        assert "of version" in str(error)


def test_a_full_disk_loses_no_record(small_disk):
    small_disk()
    saved = 0
    with pytest.raises(OSError, match="No space left on device: .*runs.jsonl"):
        for saved in range(100):
            records.save("runs", {**record(saved), "history": ["x" * 4000]})
    assert saved > 2 and seeds() == list(range(saved))
    assert {path.name for path in records.RESULTS.iterdir()} <= {"runs.jsonl", ".lock"}


@pytest.mark.parametrize("options, reason", [(["ro"], "Read-only file system"), (["nr_inodes=1"], "No space left on device")])
def test_where_nothing_can_be_written_a_run_trains_all_the_same(options, reason, small_disk, tiny, capsys):
    small_disk(*options)
    _, made = run(replace(tiny, epochs=2), progress=False)
    assert len(made["history"]) == 2
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("no checkpoint can be written") and reason in first
    assert last.startswith("The run cannot be recorded") and reason in last
