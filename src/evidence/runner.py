"""Running the studies: what is missing, in processes of this machine or on a Dask cluster.

A finished run is recorded in `study.jsonl` in `store.OUTPUT`; `report.write` publishes it.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from threading import RLock
from typing import TYPE_CHECKING

import torch
from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from .. import store
from ..device import one_thread, pick_device
from ..experiments import find_reduction, run
from ..provenance import environment
from ..recipes import Experiment
from ..training import DivergenceError
from .records import STUDY_FILE, load_study_records, load_valid_keys
from .studies import STUDIES

if TYPE_CHECKING:
    import distributed


def find_missing_runs(
    names: Iterable[str], device: torch.device, seeds: int | None = None
) -> list[tuple[Experiment, int]]:
    """The runs of the named studies that are not recorded for this device, each once.

    `seeds` replaces the number of seeds of each study. Runs with another version of PyTorch do not
    count: a study is shown from one. Nor do your own runs that `load_valid_keys` leaves out.
    """
    platform = store.name_platform(environment(device))
    recorded = load_valid_keys(STUDY_FILE) | load_study_records().keys()
    found = {}
    for name in names:
        for experiment, seed in STUDIES[name].runs(seeds):
            key = store.make_key(asdict(experiment), seed, platform)
            if key not in recorded:
                found.setdefault(key, (experiment, seed))
    return list(found.values())


def progress_table(names: Iterable[str], device: torch.device, seeds: int | None = None) -> str:
    """A line for each study: how many of its runs are recorded, and its question.

    `seeds` replaces the number of seeds of each study.
    """
    names = list(names)
    width = max(map(len, names), default=0)
    lines = []
    for name in names:
        total = len(STUDIES[name].runs(seeds))
        recorded = total - len(find_missing_runs([name], device, seeds))
        lines.append(f"{name:{width}} {recorded:3} of {total:3} runs   {STUDIES[name].question}")
    return "\n".join(lines)


def run_studies(
    names: Iterable[str],
    seeds: int | None = None,
    jobs: int | None = None,
    device: str | None = None,
    scheduler: str | None = None,
) -> None:
    """Run the missing runs of the studies, or of their seeds 1 to `seeds`; record each at once.

    `jobs` runs at a time, each with one thread, in processes of their own if there are several: by
    default one per core, or one on an accelerator. With the address of a Dask `scheduler`, as many
    as its cluster has workers. Raises RuntimeError if no such cluster answers, if its workers
    cannot make these runs, or if one dies.
    """
    if find_reduction():
        print("MNIST_REDUCED is set: runs are shortened, and none is recorded", file=sys.stderr)
    torch_device = pick_device(device)
    runs = find_missing_runs(names, torch_device, seeds)
    jobs = jobs or (-1 if torch_device.type == "cpu" else 1)
    path = store.OUTPUT / STUDY_FILE
    with _backend(scheduler, jobs):
        tasks = (delayed(_run)(experiment, seed, str(torch_device)) for experiment, seed in runs)
        records = Parallel(return_as="generator_unordered")(tasks)
        for record in tqdm(records, total=len(runs), unit="run", smoothing=0):
            # A worker on another machine has recorded its run there.
            stored = store.load_records(path).get(store.record_key(record), {})
            if not find_reduction() and stored.get("finished") != record["finished"]:
                store.append_records(path, [record])


@contextmanager
def _backend(scheduler: str | None, jobs: int) -> Iterator[None]:
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
            _check_workers(client)
            with parallel_config("dask", client=client):
                yield
    except KilledWorker as error:
        raise RuntimeError(
            f"a Dask worker died; run the command again to resume: {error}"
        ) from error


def _check_workers(client: "distributed.Client") -> None:
    """Raise RuntimeError if runs of these workers would not count, or would disturb each other."""
    threads = client.nthreads().values()
    if any(count > 1 for count in threads):  # PyTorch's generator is shared
        raise RuntimeError("each run needs its own process: dask worker --nthreads 1")
    if len(threads) < 2:
        fault = f"the cluster has {len(threads)} worker(s)"
        raise RuntimeError(f"{fault}: with fewer than two, joblib runs locally")
    if any(client.run(find_reduction).values()):
        raise RuntimeError("a worker has MNIST_REDUCED set: unset it, or its runs are shortened")
    torch_version, commit = _read_versions()
    for other_version, other_commit in client.run(_read_versions).values():
        if other_version != torch_version:
            fault = f"a worker has PyTorch {other_version}, this machine has {torch_version}"
            raise RuntimeError(f"{fault}: a study needs one version")
        if other_commit != commit:
            fault = f"a worker has the code of commit {other_commit}, this machine of {commit}"
            raise RuntimeError(f"{fault}: a study needs the same code")


def _read_versions() -> tuple[str, str | None]:
    """The version of PyTorch, without the name of its build, and the commit of the code."""
    here = environment(torch.device("cpu"))
    return here["torch"].partition("+")[0], here["commit"]


def _run(experiment: Experiment, seed: int, device: str) -> dict:
    """Train in a worker; returns the record, also of a run that diverges."""
    tqdm.set_lock(RLock())  # the default lock is a semaphore, which an interrupted process leaks
    with one_thread():
        try:
            return run(experiment, seed, device, verbose=False, file="study")[1]
        except DivergenceError as error:
            return error.record
