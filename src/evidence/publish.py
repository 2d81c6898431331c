"""What was run here becomes evidence: the steps with their weights, studies, and a benchmark.

Only runs of committed code are published; `publish` names the others.
"""

import sys
from collections.abc import Container, Iterable
from dataclasses import asdict

from .. import store
from ..experiments import STEPS, load_runs
from ..recipes import Experiment
from . import robustness
from .benchmark import load_benchmark
from .rows import is_committed, load_study_records
from .studies import STUDIES


def publish() -> None:
    """Append what was run here to the evidence.

    Raises ValueError if MNIST_RESULTS is the folder of the evidence.
    """
    if store.OUTPUT.resolve() == store.EVIDENCE.resolve():
        raise ValueError("MNIST_RESULTS is the folder of the evidence: choose another one")
    for step in STEPS:
        _publish_step(step)
    studied = [run for study in STUDIES.values() for run in study.runs()]
    _publish_runs("study.jsonl", load_study_records(), _keys(studied), "the studies")
    compared = [(experiment, 1) for experiment in robustness.COMPARED.values()]
    recorded = store.load_records(store.EVIDENCE / robustness.FILE)
    _publish_runs(robustness.FILE, recorded, _keys(compared), "the robustness")
    _publish_benchmark()


def _publish_step(step: str) -> None:
    """Publish the newest run of an unchanged step with seed 1, if the evidence has no newer one.

    The weights in `store.OUTPUT` are those of this run.
    """
    own = load_runs(store.OUTPUT, step)
    published = [record.get("finished", "") for record in load_runs(store.EVIDENCE, step)]
    if not own or own[-1].get("finished", "") <= max(published, default=""):
        return
    if not is_committed(own[-1]):
        _say_refused(f"{step}, seed 1", own[-1])
        return
    _copy(f"{step}.pt")  # first: if this is interrupted, the next time completes it
    store.append_records(store.EVIDENCE / "runs.jsonl", own[-1:])


def _keys(runs: Iterable[tuple[Experiment, int]]) -> set[str]:
    return {store.run_key(asdict(experiment), seed) for experiment, seed in runs}


def _publish_runs(file: str, published: Container[str], wanted: Container[str], name: str) -> None:
    """Append runs that are not recorded yet, of the wanted recipes and seeds; none is replaced."""
    own = store.load_records(store.OUTPUT / file)
    new = [
        record
        for key, record in own.items()
        if key not in published and store.run_key(record["recipe"], record["seed"]) in wanted
    ]
    committed = [record for record in new if is_committed(record)]
    others = [record for record in new if not is_committed(record)]
    if committed:
        store.append_records(store.EVIDENCE / file, committed)
    if others:
        _say_refused(f"{len(others)} of {len(new)} runs of {name}", others[0])


def _publish_benchmark() -> None:
    """Publish the newest benchmark, and delete it from `store.OUTPUT`."""
    record = load_benchmark(store.OUTPUT)
    if record is None:
        return
    if not is_committed(record):
        _say_refused("the benchmark", record)
        return
    _copy("bench.json")
    (store.OUTPUT / "bench.json").unlink()


def _say_refused(runs: str, record: dict) -> None:
    reason, advice = "with uncommitted code", "commit src, and make it again"
    if record.get("commit") is None:
        reason, advice = "outside a git clone", "make it again in a clone"
    print(f"not published: {runs}, made {reason}: {advice}", file=sys.stderr)


def _copy(name: str) -> None:
    """Copy a file to the evidence."""
    content = (store.OUTPUT / name).read_bytes()
    with store.atomic_write(store.EVIDENCE / name) as temporary:
        temporary.write_bytes(content)
