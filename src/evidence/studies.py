"""The studies as data: each a question that several recipes answer, over several seeds.

`REPORTS` are evaluated on the test set or on folds. `SELECTION` select or explain, on the
validation split alone. `runner` runs them, `report` shows them.
"""

from dataclasses import dataclass, field, replace

from ..data import SPLITS
from ..experiments import AUGMENTATION, BASIC, REGULARIZATION, STEPS, Experiment
from ..models import AugmentedNet, count_parameters

# The recipes of the notebooks of 2021, in float32 as then.
ORIGINAL = {
    "basic": Experiment(
        "basic",
        "BasicNet",
        normalized=False,
        optimizer_args={"lr": 0.05},
        precision="float32",
    ),
    "regularization": Experiment(
        "regularization",
        "RegularizedNet",
        model_args={"dropout": 0.0},
        optimizer_args={"lr": 0.05},
        scheduler="StepLR",
        scheduler_args={"step_size": 5, "gamma": 0.1},
        precision="float32",
    ),
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
    """A question, what is varied, the recipes by the labels of the tables, and the seeds."""

    question: str
    setting: str
    experiments: dict[str, Experiment]
    reference: str | None = None  # the label that the others are compared with, or "the row above"
    seeds: int = 10  # 1 to this number
    more_seeds: dict[str, int] = field(default_factory=dict)  # of single labels

    def runs(self, label: str, seeds: int | None = None) -> list[tuple[Experiment, int]]:
        """The runs of one label: its recipe with each of its seeds, or with seeds 1 to `seeds`."""
        count = seeds or self.more_seeds.get(label, self.seeds)
        return [(self.experiments[label], seed) for seed in range(1, count + 1)]

    def all_runs(self, seeds: int | None = None) -> list[tuple[Experiment, int]]:
        """The runs of all labels."""
        return [run for label in self.experiments for run in self.runs(label, seeds)]

    def comparisons(self) -> dict[str, str]:
        """For each label that is compared with another, this other one."""
        if self.reference == "the row above":
            return dict(zip(list(self.experiments)[1:], self.experiments))
        others = self.experiments if self.reference else ()
        return {label: self.reference for label in others if label != self.reference}


def _vary(experiment: Experiment, **changes) -> Experiment:
    """The experiment on the validation split, with changes; those of a dict are merged into it."""
    merged = {
        name: {**getattr(experiment, name), **change} if isinstance(change, dict) else change
        for name, change in changes.items()
    }
    return replace(experiment, split="validation", **merged)


# These report, on the test set and on the folds of the training set.
REPORTS = {
    "steps": Study(
        "What do the three steps reach?", "step", STEPS, more_seeds={"augmentation": 100}
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
    "folds": Study(
        "What does step 3 reach on other images?",
        "fold that is left out, step 3",
        {fold: replace(AUGMENTATION, split=fold) for fold in list(SPLITS)[:6]},
        seeds=5,
    ),
    "parameters": Study(
        "What is a parameter worth?",
        "parameters of step 3's network",
        {
            f"{count_parameters(AugmentedNet(**args)):,}": replace(AUGMENTATION, model_args=args)
            for args in (*({"width": width} for width in (0.34, 0.5, 0.6, 0.7, 0.83)), {})
        },
        "7,946",
    ),
}


# These select or explain: they use the validation split alone.
STEP_2 = _vary(REGULARIZATION)
STEP_3 = _vary(AUGMENTATION)
# The recipe of the original series, with a lower learning rate.
_ADAM = _vary(ORIGINAL["regularization"], optimizer_args={"lr": 0.01}, precision="auto")
_NO_BATCH_NORM = _vary(REGULARIZATION, model_args={"batch_norm": False})
_COSINE = replace(_ADAM, scheduler="CosineAnnealingLR", scheduler_args={"T_max": 15})
_ARCHITECTURE = replace(STEP_2, model="AugmentedNet", model_args={})
_AVERAGING = replace(_ARCHITECTURE, ema_decay=AUGMENTATION.ema_decay)


def _augmented(*parts: str) -> Experiment:
    """Step 3 with only these parts of its augmentation."""
    return replace(
        _AVERAGING,
        augmentation={part: AUGMENTATION.augmentation[part] for part in (*parts, "interpolation")},
    )


SELECTION = {
    "scheduler": Study(
        "Which optimizer and scheduler are best in step 2?",
        "optimizer, its learning rate and scheduler, step 2",
        {
            "Adam 0.01, StepLR(5)": _ADAM,
            "Adam 0.01, StepLR(9)": _vary(_ADAM, scheduler_args={"step_size": 9}),
            "Adam 0.01, CosineAnnealingLR": _COSINE,
            "Adam 0.02, OneCycleLR": replace(STEP_2, optimizer="Adam", optimizer_args={"lr": 0.02}),
            "SGD 0.2, OneCycleLR (step 2)": STEP_2,
        },
        "Adam 0.01, StepLR(5)",
    ),
    "learning_rate_basic": Study(
        "Which learning rate is best in step 1?",
        "learning rate of Adam, step 1",
        {
            f"{lr:g}": _vary(BASIC, optimizer_args={"lr": lr})
            for lr in (0.002, 0.005, 0.01, 0.02, 0.05)
        },
        "0.005",
    ),
    "learning_rate_regularization": Study(
        "Which learning rate is best in step 2?",
        "learning rate of SGD with OneCycleLR, step 2",
        {
            f"{lr:g}": _vary(REGULARIZATION, optimizer_args={"lr": lr})
            for lr in (0.05, 0.1, 0.2, 0.4)
        },
        "0.2",
    ),
    "parts": Study(
        "What do batch normalisation, dropout and the scheduler contribute to step 2?",
        "recipe",
        {
            "step 2": STEP_2,
            "no batch normalisation": _NO_BATCH_NORM,
            "no batch normalisation, learning rate 0.02": _vary(
                _NO_BATCH_NORM, optimizer_args={"lr": 0.02}
            ),
            "no scheduler": replace(STEP_2, scheduler=None, scheduler_args={}),
            **{
                f"dropout {dropout}": _vary(REGULARIZATION, model_args={"dropout": dropout})
                for dropout in (0.05, 0.1, 0.2)
            },
        },
        "step 2",
    ),
    "dropout": Study(
        "Which dropout is best with Adam and StepLR?",
        "dropout (probability)",
        {
            f"{dropout:g}": _vary(_ADAM, model_args={"dropout": dropout})
            for dropout in (0.0, 0.01, 0.025, 0.05, 0.1, 0.2)
        },
        "0",
    ),
    "step_size": Study(
        "Which step size of StepLR is best with Adam?",
        "step size of StepLR (epochs)",
        {f"{size}": _vary(_ADAM, scheduler_args={"step_size": size}) for size in (3, 5, 7, 9)},
        "5",
    ),
    "ablation": Study(
        "What does each change from step 2 to step 3 contribute?",
        "recipe, each with the changes above it",
        {
            "step 2": STEP_2,
            "+ architecture": _ARCHITECTURE,
            "+ averaging": _AVERAGING,
            "+ rotation": _augmented("degrees"),
            "+ shift": _augmented("degrees", "translate"),
            "+ scale": _augmented("degrees", "translate", "scale"),
            "+ shear (step 3)": STEP_3,
        },
        "the row above",
    ),
    "leave_one_out": Study(
        "What is each part of step 3 worth to the whole?",
        "recipe",
        {
            "step 3": STEP_3,
            "no averaging": replace(STEP_3, ema_decay=None),
            "no rotation": _vary(STEP_3, augmentation={"degrees": 0}),
            "no shift": _vary(STEP_3, augmentation={"translate": (0, 0)}),
            "no scale": _vary(STEP_3, augmentation={"scale": (1, 1)}),
            "no shear": _vary(STEP_3, augmentation={"shear": 0}),
            "no weight decay": _vary(STEP_3, optimizer_args={"weight_decay": 0}),
        },
        "step 3",
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
