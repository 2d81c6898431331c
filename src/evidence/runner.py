"""What the studies have recorded, what is missing, and running it: in processes, or on a cluster.

A finished run is recorded in `results/local/study.jsonl`; `report.write` publishes it.
"""

from collections.abc import Iterable
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import cache
from threading import RLock

import torch
from frozendict import frozendict
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from ..device import pick_device, pick_precision
from ..experiments import STEPS, Experiment, run, smoke_test_epochs
from ..models import MODELS
from ..store import checkpoint_path, fingerprint, load_records, record_key, remove, save_records
from ..training import DivergenceError
from .studies import STUDIES

PLATFORMS = [
    (device, precision)
    for device in ("cpu", "cuda", "mps")
    for precision in ("bfloat16", "float32")
]


@cache
def _fingerprint(model: type, arguments: frozendict) -> str:
    return fingerprint(model(**arguments))


@cache
def run_key(experiment: Experiment, seed: int, device: str, precision: str) -> str:
    """The key of the record of a run on that type of device, where "auto" means `precision`."""
    used = experiment.precision if experiment.precision != "auto" else precision
    layers = _fingerprint(MODELS[experiment.model], experiment.model_args)
    recipe = asdict(replace(experiment, precision=used))
    return record_key({"recipe": recipe, "seed": seed, "device": device, "fingerprint": layers})


def study_records(name: str, local: bool = False) -> dict[str, list[dict]]:
    """The recorded runs of a study, for each label in the order of the seeds; or `local` ones, too.

    All runs of a label are from one platform, a type of device and a meaning of "auto": the one
    with most of them.
    """
    study, records = STUDIES[name], load_records("study")
    records |= load_records("study", local=True) if local else {}
    found = {}
    for label in study.experiments:
        keys = [[run_key(*run, *platform) for run in study.runs(label)] for platform in PLATFORMS]
        rows = [[records[key] for key in row if key in records] for row in keys]
        found[label] = max(rows, key=len)
    return found


def seed1_record(step: str) -> dict:
    """The record of the run that a step's notebook shows: seed 1, the newest if there are several.

    Raises RuntimeError if there is none.
    """
    keys = {run_key(STEPS[step], 1, *platform) for platform in PLATFORMS}
    found = [record for key, record in load_records("runs").items() if key in keys]
    if not found:
        raise RuntimeError(f"there is no record of {step} with seed 1: run its notebook")
    return found[-1]


def missing(
    names: Iterable[str], device: str, precision: str, seeds: int | None = None
) -> list[tuple[Experiment, int]]:
    """The runs of the named studies that are not recorded for this platform, each once."""
    runs = [run for name in names for run in STUDIES[name].all_runs(seeds)]
    wanted = {run_key(*run, device, precision): run for run in runs}
    recorded = load_records("study") | load_records("study", local=True)
    return [run for key, run in wanted.items() if key not in recorded]


def progress_table(names: Iterable[str]) -> str:
    """How many runs of each study are recorded, here or in the evidence, and its question."""
    lines = []
    for name in names:
        done = sum(map(len, study_records(name, local=True).values()))
        runs = len(STUDIES[name].all_runs())
        lines.append(f"{name:28} {done:3} of {runs:3} runs   {STUDIES[name].question}")
    return "\n".join(lines)


def run_studies(
    names: Iterable[str],
    seeds: int | None = None,
    jobs: int | None = None,
    device: str | None = None,
    scheduler: str | None = None,
) -> None:
    """Run the missing runs of the studies, or of their seeds 1 to `seeds`; record each at once.

    `jobs` runs at a time, each in its own process with one thread: by default one per core, or one
    on an accelerator. With the address of a Dask `scheduler`, as many as its cluster has workers.
    Raises RuntimeError if no such cluster answers, if its workers have several threads, or if a
    worker dies.
    """
    picked = pick_device(device)
    todo = missing(names, picked.type, pick_precision(picked), seeds)
    jobs = jobs or (-1 if picked.type == "cpu" else 1)
    with _backend(scheduler, jobs):
        finished = Parallel(return_as="generator_unordered")(
            delayed(_run)(
                replace(experiment, precision=pick_precision(picked, experiment.precision)),
                seed,
                str(picked),
            )
            for experiment, seed in todo
        )
        for record in tqdm(finished, total=len(todo), unit="run", smoothing=0):
            if not smoke_test_epochs():
                save_records("study", [record])
                remove(checkpoint_path(record))


@contextmanager
def _backend(scheduler: str | None, jobs: int):
    """Where joblib runs: processes of this machine, or a Dask cluster."""
    if scheduler is None:
        with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
            yield
        return
    from distributed import Client, KilledWorker

    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"no Dask scheduler answers at {scheduler!r}: {error}") from error
    try:
        with client:
            threads = client.nthreads().values()
            if any(count > 1 for count in threads):  # they would share PyTorch's generator
                raise RuntimeError("each run needs its own process: dask worker --nthreads 1")
            with parallel_config("dask", client=client):
                yield
    except KilledWorker as error:
        raise RuntimeError(
            f"a Dask worker died; run the command again to resume: {error}"
        ) from error


def _run(experiment: Experiment, seed: int, device: str) -> dict:
    tqdm.set_lock(RLock())  # the default lock is a semaphore, which an interrupted process leaks
    torch.set_num_threads(1)
    try:
        return run(experiment, seed, device, progress=False, keep=False)[1]
    except DivergenceError as error:
        return error.record
