"""The studies as data, each a question answered by several recipes over several seeds; and how they are run."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from threading import RLock

from joblib import Parallel, delayed, parallel_config
from tqdm import tqdm

from ..checkpoints import checkpoint_path, fingerprint
from ..data import smoke_test_epochs
from ..experiments import AUGMENTATION, BASIC, REGULARIZATION, STEPS, Experiment, run
from ..models import MODELS, AugmentedNet, count_parameters
from ..records import load_records, record_key, save_record
from ..training import DivergenceError, pick_device, pick_precision

# The recipes of the notebooks of 2021, in float32 as then.
ORIGINAL = {
    "basic": replace(BASIC, optimizer_args={"lr": 0.05}, precision="float32"),
    "regularization": replace(REGULARIZATION, optimizer_args={"lr": 0.05}, precision="float32"),
    "augmentation": Experiment(
        "augmentation",
        "AugmentedNet",
        augmentation={"degrees": 7, "translate": (0.15, 0.15), "scale": (0.7, 1.3), "shear": 8},
        optimizer="SGD",
        optimizer_args={"lr": 0.015, "momentum": 0.9},
        scheduler="StepLR",
        scheduler_args={"step_size": 9, "gamma": 0.1},
        precision="float32",
    ),
}


@dataclass(frozen=True)
class Study:
    """A question, what is varied, the experiments by the labels that tables show, and the number of seeds (1 to `seeds`)."""

    question: str
    setting: str
    experiments: dict[str, Experiment]
    reference: str | None = None  # the label that the others are compared with, or "the row above"
    seeds: int = 10
    more_seeds: dict[str, int] = field(default_factory=dict)  # of single labels

    def runs(self, label: str, seeds: int | None = None) -> list[tuple[Experiment, int]]:
        """The runs of one label: its experiment with each of its seeds, or with seeds 1 to `seeds`."""
        return [
            (self.experiments[label], seed)
            for seed in range(1, (seeds or self.more_seeds.get(label, self.seeds)) + 1)
        ]

    def comparisons(self) -> dict[str, str]:
        """For each label that is compared with another, this other one."""
        if self.reference == "the row above":
            return dict(zip(list(self.experiments)[1:], self.experiments))
        return {
            label: self.reference
            for label in self.experiments
            if self.reference not in (None, label)
        }


def _vary(experiment: Experiment, **changes) -> Experiment:
    """The experiment on the validation split, with changes; those of a dict are merged into it."""
    merged = {
        name: {**getattr(experiment, name), **change} if isinstance(change, dict) else change
        for name, change in changes.items()
    }
    return replace(experiment, split="validation", **merged)


# These report, on the test set.
REPORTS = {
    "steps": Study(
        "What do the three steps reach?", "step", STEPS, more_seeds={"augmentation": 30}
    ),
    "original": Study(
        "What do the recipes of the original series reach?", "original recipe", ORIGINAL
    ),
    "precision": Study(
        "Does bfloat16 cost accuracy?",
        "precision of step 3",
        {name: replace(AUGMENTATION, precision=name) for name in ("bfloat16", "float32")},
        "float32",
    ),
    "parameters": Study(
        "What is a parameter worth?",
        "parameters of step 3's network",
        {
            f"{count_parameters(AugmentedNet(width)):,}": replace(
                AUGMENTATION, model_args={"width": width} if width < 1 else {}
            )
            for width in (0.34, 0.5, 0.6, 0.7, 0.83, 1)
        },
        "7,946",
    ),
}

# The highest accuracies in % found elsewhere for so few parameters: one seed each, chosen by the test set.
CLAIMS = {
    "woolly-of-cv": (3_762, 99.52),
    "4,838": (4_838, 99.41),
    "EVA6": (7_496, 99.56),
    "ERA2": (8_172, 99.57),
    "EVA-4": (9_142, 99.45),
    "EVA4": (9_994, 99.60),
    "Keras example": (34_826, 99.1),
}

# These select or explain: they use the validation split alone.
STEP_2 = _vary(REGULARIZATION)
STEP_3 = _vary(AUGMENTATION)
_DROPOUT = _vary(STEP_2, model_args={"dropout": 0.05})
_ARCHITECTURE = replace(STEP_2, model="AugmentedNet", model_args={})
_SGD = replace(
    _ARCHITECTURE,
    optimizer=AUGMENTATION.optimizer,
    optimizer_args=AUGMENTATION.optimizer_args,
    scheduler=AUGMENTATION.scheduler,
    scheduler_args=AUGMENTATION.scheduler_args,
)
_AVERAGING = replace(_SGD, ema_decay=AUGMENTATION.ema_decay)


def _augmented(*parts: str) -> Experiment:
    """Step 3 with only these parts of its augmentation."""
    return replace(
        _AVERAGING,
        augmentation={part: AUGMENTATION.augmentation[part] for part in (*parts, "interpolation")},
    )


SELECTION = {
    "learning_rate_basic": Study(
        "Which learning rate is best in step 1?",
        "learning rate of Adam, step 1",
        {
            f"{lr:g}": _vary(BASIC, optimizer_args={"lr": lr})
            for lr in (0.002, 0.005, 0.01, 0.02, 0.05)
        },
        "0.002",
    ),
    "learning_rate_regularization": Study(
        "Which learning rate is best in step 2?",
        "learning rate of Adam, step 2",
        {f"{lr:g}": _vary(STEP_2, optimizer_args={"lr": lr}) for lr in (0.005, 0.01, 0.02, 0.05)},
        "0.01",
    ),
    "dropout": Study(
        "Which dropout is best in step 2?",
        "dropout (probability)",
        {
            f"{dropout:g}": _vary(STEP_2, model_args={"dropout": dropout})
            for dropout in (0.0, 0.01, 0.025, 0.05, 0.1, 0.2)
        },
        "0",
    ),
    "step_size": Study(
        "Which step size of StepLR is best in step 2?",
        "step size of StepLR (epochs)",
        {f"{size}": _vary(STEP_2, scheduler_args={"step_size": size}) for size in (3, 5, 7, 9)},
        "5",
    ),
    "parts": Study(
        "What do batch normalisation, dropout and the scheduler each contribute?",
        "recipe of step 2",
        {
            "all three": _DROPOUT,
            "no batch normalisation": _vary(_DROPOUT, model_args={"batch_norm": False}),
            "no dropout": STEP_2,
            "no scheduler": replace(_DROPOUT, scheduler=None, scheduler_args={}),
            "none": replace(
                _vary(STEP_2, model_args={"batch_norm": False}), scheduler=None, scheduler_args={}
            ),
        },
        "all three",
    ),
    "ablation": Study(
        "What does each change from step 2 to step 3 contribute?",
        "recipe, each with the changes above it",
        {
            "step 2": STEP_2,
            "+ architecture": _ARCHITECTURE,
            "+ SGD with OneCycleLR": _SGD,
            "+ averaging": _AVERAGING,
            "+ rotation": _augmented("degrees"),
            "+ shift": _augmented("degrees", "translate"),
            "+ scale": _augmented("degrees", "translate", "scale"),
            "+ shear (step 3)": STEP_3,
        },
        "the row above",
    ),
}
# The neighbours of step 3's recipe: each hyperparameter moved one step down and one step up.
NEIGHBOURS = {
    "learning rate 0.1": {"optimizer_args": {"lr": 0.1}},
    "learning rate 0.4": {"optimizer_args": {"lr": 0.4}},
    "weight decay 5e-5": {"optimizer_args": {"weight_decay": 5e-5}},
    "weight decay 8e-4": {"optimizer_args": {"weight_decay": 8e-4}},
    "momentum 0.85": {"optimizer_args": {"momentum": 0.85}},
    "momentum 0.95": {"optimizer_args": {"momentum": 0.95}},
    "averaging 0.995": {"ema_decay": 0.995},
    "averaging 0.9995": {"ema_decay": 0.9995},
    "warm-up 5 %": {"scheduler_args": {"pct_start": 0.05}},
    "warm-up 30 %": {"scheduler_args": {"pct_start": 0.3}},
    "batch 64, learning rate 0.1": {"batch_size": 64, "optimizer_args": {"lr": 0.1}},
    "batch 256, learning rate 0.4": {"batch_size": 256, "optimizer_args": {"lr": 0.4}},
    "rotation ± 5°": {"augmentation": {"degrees": 5}},
    "rotation ± 15°": {"augmentation": {"degrees": 15}},
    "no shift": {"augmentation": {"translate": (0, 0)}},
    "shift ± 2 pixels": {"augmentation": {"translate": (2 / 28, 2 / 28)}},
    "scale ± 5 %": {"augmentation": {"scale": (0.95, 1.05)}},
    "scale ± 15 %": {"augmentation": {"scale": (0.85, 1.15)}},
    "no shear": {"augmentation": {"shear": 0}},
    "shear ± 12°": {"augmentation": {"shear": 12}},
    "bilinear interpolation": {"augmentation": {"interpolation": "bilinear"}},
}
SELECTION |= {
    "sensitivity": Study(
        "Is any neighbour of step 3's recipe better?",
        "recipe",
        {
            "step 3": STEP_3,
            **{label: _vary(STEP_3, **change) for label, change in NEIGHBOURS.items()},
        },
        "step 3",
        seeds=5,
    ),
    "epochs": Study(
        "What is an epoch worth?",
        "epochs of step 3, each with its whole schedule",
        {f"{epochs}": _vary(STEP_3, epochs=epochs) for epochs in (2, 3, 5, 8, 10, 15)},
        "15",
    ),
}
STUDIES = REPORTS | SELECTION
PLATFORMS = [
    (device, precision)
    for device in ("cpu", "cuda", "mps")
    for precision in ("bfloat16", "float32")
]


_fingerprint = lru_cache(lambda model, **arguments: fingerprint(model(**arguments)))


def run_key(experiment: Experiment, seed: int, device: str, precision: str) -> str:
    """The key of the record of this run on that type of device; `precision` is what "auto" means there."""
    used = experiment.precision if experiment.precision != "auto" else precision
    return record_key(
        {
            "recipe": asdict(replace(experiment, precision=used)),
            "seed": seed,
            "device": device,
            "fingerprint": _fingerprint(MODELS[experiment.model], **experiment.model_args),
        }
    )


def study_records(name: str) -> dict[str, list[dict]]:
    """The recorded runs of a study, for each label in the order of the seeds; all from the platform that has most of them."""
    study, records = STUDIES[name], load_records("study")
    on_platforms = [
        {
            label: [
                records[key]
                for run in study.runs(label)
                if (key := run_key(*run, *platform)) in records
            ]
            for label in study.experiments
        }
        for platform in PLATFORMS
    ]
    return max(on_platforms, key=lambda found: sum(map(len, found.values())))


def missing(
    names: Iterable[str], device: str, precision: str, seeds: int | None = None
) -> list[tuple[Experiment, int]]:
    """The runs of the named studies that are not recorded for this platform; a run shared by several studies appears once."""
    wanted = {
        run_key(*run, device, precision): run
        for name in names
        for label in STUDIES[name].experiments
        for run in STUDIES[name].runs(label, seeds)
    }
    records = load_records("study")
    return [run for key, run in wanted.items() if key not in records]


def run_studies(
    names: Iterable[str],
    seeds: int | None = None,
    jobs: int | None = None,
    device: str | None = None,
    scheduler: str | None = None,
) -> None:
    """Run the missing runs of the studies, or of their seeds 1 to `seeds`, and save each record as its run finishes.

    `jobs` runs at a time, each in its own process: by default one per core, or one on an accelerator. With the address of a Dask
    `scheduler`, as many as its cluster has workers. Raises RuntimeError if no such cluster answers, or if its workers have threads.
    """
    picked = pick_device(device)
    todo = missing(names, picked.type, pick_precision(picked), seeds)
    jobs = jobs or (-1 if picked.type == "cpu" else 1)
    with (
        parallel_config("loky", n_jobs=jobs)
        if scheduler is None
        else parallel_config("dask", client=_cluster(scheduler))
    ):
        finished = Parallel(return_as="generator_unordered")(
            delayed(_record)(
                replace(experiment, precision=pick_precision(picked, experiment.precision)),
                seed,
                str(picked),
            )
            for experiment, seed in todo
        )
        for record in tqdm(finished, total=len(todo), unit="run", smoothing=0):
            if not smoke_test_epochs():
                save_record("study", record)
                checkpoint_path(record).unlink(missing_ok=True)


def _cluster(scheduler: str):
    from distributed import Client

    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"no Dask scheduler answers at {scheduler!r}: {error}") from error
    if any(
        threads > 1 for threads in client.nthreads().values()
    ):  # PyTorch's random generator is shared by threads
        raise RuntimeError(
            "each run needs its own process: start the workers with dask worker --nthreads 1"
        )
    return client


def _record(experiment: Experiment, seed: int, device: str) -> dict:
    tqdm.set_lock(RLock())  # the default lock is a semaphore, which an interrupted process leaks
    try:
        return run(experiment, seed, device, progress=False, keep=False)[1]
    except DivergenceError as error:
        return error.record
