"""What was run here becomes evidence: the steps with their weights, studies, and a benchmark.

Only runs of committed code are published; `publish` names the others.
"""

import sys
from collections.abc import Container, Iterable
from dataclasses import asdict

from .. import store
from ..errors import InputError
from ..experiments import STEPS, holds_weights, load_step_records
from .benchmark import load_benchmark
from .compared import COMPARED, ROBUSTNESS_FILE
from .records import STUDY_FILE, is_committed, load_study_records
from .studies import STUDIES
from .study import Study


def publish() -> None:
    """Append what was run here to the evidence.

    Raises InputError if MNIST_RESULTS is the folder of the evidence.
    """
    if store.OUTPUT.resolve() == store.EVIDENCE.resolve():
        raise InputError("MNIST_RESULTS is the folder of the evidence: choose another one")
    for step in STEPS:
        _publish_step(step)
    _publish_runs(STUDY_FILE, STUDIES.values(), load_study_records())
    compared = store.load_records(store.EVIDENCE / ROBUSTNESS_FILE)
    _publish_runs(ROBUSTNESS_FILE, [COMPARED], compared)
    _publish_benchmark()


def _publish_step(step: str) -> None:
    """Publish the newest run of an unchanged step with seed 1, if the evidence has no newer one."""
    own = load_step_records(store.OUTPUT, step)
    published = [record["finished"] for record in load_step_records(store.EVIDENCE, step)]
    if not own or own[-1].get("finished", "") <= max(published, default=""):
        return
    weights = store.OUTPUT / f"{step}.pt"
    if not holds_weights(weights, own[-1]):
        _say_refused(f"{step}, seed 1", f"whose weights are not in {weights}", "run it again")
        return
    if not is_committed(own[-1]):
        _say_refused(f"{step}, seed 1", *_explain_uncommitted(own[-1]))
        return
    _copy(f"{step}.pt")  # first: if this is interrupted, the next time completes it
    store.append_records(store.EVIDENCE / "runs.jsonl", own[-1:])


def _publish_runs(file: str, studies: Iterable[Study], published: Container[str]) -> None:
    """Append the runs of the studies that are not recorded yet; none is ever replaced."""
    runs = [run for study in studies for run in study.runs()]
    wanted = {store.run_key(asdict(experiment), seed) for experiment, seed in runs}
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
        refused = f"{len(others)} of {len(new)} runs for {file}"
        _say_refused(refused, *_explain_uncommitted(others[0]))


def _publish_benchmark() -> None:
    """Publish the newest benchmark, and delete it from `store.OUTPUT`."""
    record = load_benchmark(store.OUTPUT)
    if record is None:
        return
    if not is_committed(record):
        _say_refused("the benchmark", *_explain_uncommitted(record))
        return
    _copy("bench.json")
    (store.OUTPUT / "bench.json").unlink()


def _explain_uncommitted(record: dict) -> tuple[str, str]:
    """Why a record of uncommitted code is not published, and what to do."""
    if record.get("commit") is None:
        return "made outside a git clone", "run again in a clone"
    return "made with uncommitted code", "commit src and run again"


def _say_refused(runs: str, reason: str, advice: str) -> None:
    print(f"not published: {runs}, {reason}: {advice}", file=sys.stderr)


def _copy(name: str) -> None:
    """Copy a file to the evidence."""
    content = (store.OUTPUT / name).read_bytes()
    with store.atomic_write(store.EVIDENCE / name) as temporary:
        temporary.write_bytes(content)
