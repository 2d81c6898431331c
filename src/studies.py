"""The studies as data, each a question put to several recipes over several seeds; and how they are run."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from threading import RLock

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from . import records
from .data import reduced
from .experiments import AUGMENTATION, BASIC, REGULARIZATION, STEPS, Experiment, checkpoint_path, recorded, run, run_key
from .training import DivergenceError

# What the notebooks of 2021 ran, in its own precision.
ORIGINAL = {
    "basic": replace(BASIC, optimizer_args={"lr": 0.05}, precision="float32"),
    "regularization": replace(REGULARIZATION, optimizer_args={"lr": 0.05}, precision="float32"),
    "augmentation": Experiment(
        "augmentation", "AugmentedNet", augmentation={"degrees": 7, "translate": (0.15, 0.15), "scale": (0.7, 1.3), "shear": 8},
        optimizer="SGD", optimizer_args={"lr": 0.015, "momentum": 0.9}, scheduler="StepLR",
        scheduler_args={"step_size": 9, "gamma": 0.1}, precision="float32"),
}


@dataclass(frozen=True)
class Study:
    """A question, what is varied, the experiments under the labels that a reader sees, and seeds 1 to `seeds` of each."""

    question: str
    setting: str
    experiments: dict[str, Experiment]
    seeds: int = 3


# These report, on the test set.
REPORTS = {
    "steps": Study("What do the three steps reach?", "step", STEPS, seeds=10),
    "original": Study("What do the recipes of the original series reach?", "original recipe", ORIGINAL, seeds=10),
    "precision": Study("Does what makes step 3 fast cost accuracy?", "precision of step 3", {
        "as run": AUGMENTATION, "channels first": replace(AUGMENTATION, channels_last=False),
        "channels first, float32": replace(AUGMENTATION, channels_last=False, precision="float32")}, seeds=10),
}


def _vary(experiment: Experiment, **changes) -> Experiment:
    """The experiment on the validation split, with changes; those of a dict are merged into it.

    All of these run with the channels first: what is compared differs in the change alone.
    """
    merged = {name: {**getattr(experiment, name), **change} if isinstance(change, dict) else change
              for name, change in changes.items()}
    return replace(experiment, split="validation", channels_last=False, **merged)


# These select: they look at the validation split alone.
REFERENCE = Experiment("reference", "RegularizedNet", model_args={"dropout": 0.0}, optimizer_args={"lr": 0.01},
                       scheduler="StepLR", scheduler_args={"step_size": 5, "gamma": 0.1}, split="validation")
WITH_DROPOUT = _vary(REFERENCE, model_args={"dropout": 0.05})
# From step 2 to step 3, one change at a time; each line adds its change to those above it.
_WIDER = replace(REFERENCE, model="AugmentedNet", model_args={})
_SGD = replace(_WIDER, optimizer=AUGMENTATION.optimizer, optimizer_args=AUGMENTATION.optimizer_args,
               scheduler=AUGMENTATION.scheduler, scheduler_args=AUGMENTATION.scheduler_args)
_AVERAGED = replace(_SGD, ema_decay=AUGMENTATION.ema_decay)


def _augmented(*parts: str) -> Experiment:
    """Step 3 on the validation split with these parts of its augmentation alone."""
    return replace(_AVERAGED, augmentation={part: AUGMENTATION.augmentation[part] for part in (*parts, "interpolation")})


SELECTION = {
    "dropout": Study("Which dropout is best in step 2?", "dropout (probability)", {
        f"{dropout:g}": _vary(REFERENCE, model_args={"dropout": dropout})
        for dropout in (0.0, 0.01, 0.025, 0.05, 0.1, 0.2)}),
    "step_size": Study("Which step size of StepLR is best in step 2?", "step size of StepLR (epochs)", {
        f"{size}": _vary(REFERENCE, scheduler_args={"step_size": size}) for size in (3, 5, 7, 9)}),
    "parts": Study("What do batch normalisation, dropout and the scheduler each bring?", "recipe of step 2", {
        "all three": WITH_DROPOUT,
        "no batch norm": _vary(WITH_DROPOUT, model_args={"batch_norm": False}),
        "no dropout": REFERENCE,
        "no scheduler": replace(WITH_DROPOUT, scheduler=None, scheduler_args={}),
        "none": replace(_vary(REFERENCE, model_args={"batch_norm": False}), scheduler=None, scheduler_args={})}),
    "learning_rate_basic": Study("Which learning rate of Adam is best in step 1?", "learning rate of Adam, step 1", {
        f"{lr:g}": _vary(BASIC, optimizer_args={"lr": lr}) for lr in (0.002, 0.005, 0.01, 0.02, 0.05)}),
    "learning_rate_regularization": Study("Which learning rate of Adam is best in step 2?",
                                          "learning rate of Adam, step 2", {
        f"{lr:g}": _vary(REFERENCE, optimizer_args={"lr": lr}) for lr in (0.005, 0.01, 0.02, 0.05)}),
    "path": Study("What does each change from step 2 to step 3 bring?", "recipe, each with the changes above it", {
        "step 2": REFERENCE,
        "+ architecture": _WIDER,
        "+ SGD with OneCycleLR": _SGD,
        "+ averaging": _AVERAGED,
        "+ rotation": _augmented("degrees"),
        "+ shift": _augmented("degrees", "translate"),
        "+ scale": _augmented("degrees", "translate", "scale"),
        "+ shear (step 3)": _vary(AUGMENTATION)}, seeds=10),
    "interpolation": Study("Does the interpolation of the turned images matter in step 3?", "interpolation of step 3", {
        name: _vary(AUGMENTATION, augmentation={"interpolation": name}) for name in ("nearest", "bilinear")}, seeds=5),
    "optimizer": Study("Would AdamW do as well as SGD in step 3?", "optimizer of step 3", {
        "SGD": _vary(AUGMENTATION),
        "AdamW, batches of 64": replace(_vary(AUGMENTATION), batch_size=64, optimizer="AdamW",
                                        optimizer_args={"lr": 0.02, "weight_decay": 0.01})}),
}
STUDIES = REPORTS | SELECTION


def missing(names: Iterable[str], seeds: int | None = None) -> list[tuple[Experiment, int]]:
    """The runs of the named studies that are not yet recorded; one that several studies share comes once."""
    wanted = {run_key(experiment, seed): (experiment, seed) for name in names
              for experiment in STUDIES[name].experiments.values() for seed in range(1, (seeds or STUDIES[name].seeds) + 1)}
    found = recorded("study")
    return [run for key, run in wanted.items() if key not in found]


def study_records(name: str) -> dict[str, list[dict]]:
    """The records of a study: for each label those of its seeds, in order.

    Raises RuntimeError where one is missing.
    """
    study, found = STUDIES[name], recorded("study")
    try:
        return {label: [found[run_key(experiment, seed)] for seed in range(1, study.seeds + 1)]
                for label, experiment in study.experiments.items()}
    except KeyError:
        raise RuntimeError(f"the study {name!r} is not complete: python -m src study {name} runs what is missing") from None


def run_studies(names: Iterable[str], seeds: int | None = None, jobs: int = -1, device: str | None = None,
                scheduler: str | None = None) -> None:
    """Run what `missing` finds, and save each record as its run finishes.

    There are `jobs` runs at a time, each in a process of its own; or, with the address of a Dask `scheduler`, as many as its
    cluster has workers. Raises RuntimeError where there is no such cluster, or one that would mix runs in one process.
    """
    todo = missing(names, seeds)
    with parallel_config("loky", n_jobs=jobs) if scheduler is None else parallel_config("dask", client=_cluster(scheduler)):
        made = Parallel(return_as="generator_unordered")(delayed(_record)(*one, device) for one in todo)
        for record in tqdm(made, total=len(todo), unit="run", smoothing=0):
            if not reduced():
                records.save("study", record)
                checkpoint_path(Experiment(**record["recipe"]), record["seed"]).unlink(missing_ok=True)


def _cluster(scheduler: str):
    try:
        from distributed import Client
    except ImportError:
        raise RuntimeError("a Dask cluster needs the package distributed: pip install 'dask[distributed]'") from None
    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"no Dask scheduler answers at {scheduler!r}: {error}") from error
    if any(threads > 1 for threads in client.nthreads().values()):  # of which torch's generator would be common
        raise RuntimeError("a run needs a process of its own: start the workers with dask worker --nthreads 1")
    return client


def _record(experiment: Experiment, seed: int, device: str | None) -> dict:
    tqdm.set_lock(RLock())  # its own is a semaphore, which a process that is interrupted leaks
    try:
        return run(experiment, seed, device, progress=False, keep=False)[1]
    except DivergenceError as error:
        return error.record
