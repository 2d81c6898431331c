"""The studies as data: each a question that several recipes answer, over several seeds.

`REPORTS` are evaluated on the test set or on folds, the others on the validation split alone.
`results/selection.md` shows those of `SELECTION`, `results/README.md` those of `EXPLANATIONS`.
The studies of `selection` led to the recipes of the steps. All others measure these recipes, or
those of the original series: nothing is chosen from them.

`runner` runs the studies, `rows` reads what is recorded, `report` shows it.
"""

from dataclasses import replace

from ..experiments import AUGMENTATION, BASIC, REGULARIZATION
from ..models import count_parameters
from ..recipes import Experiment, build_model
from . import selection
from .original import ORIGINAL
from .study import Study, sweep, vary

STEP_1, STEP_2, STEP_3 = (
    replace(step, split="validation") for step in (BASIC, REGULARIZATION, AUGMENTATION)
)


def _add_changes() -> dict[str, Experiment]:
    """From step 2 to step 3, one group of changes at a time."""
    recipes = {"step 2": STEP_2}
    recipe = replace(STEP_2, model=STEP_3.model, model_args=STEP_3.model_args)
    recipes["+ architecture"] = recipe
    recipe = replace(recipe, ema_decay=STEP_3.ema_decay)
    recipes["+ averaging"] = recipe
    recipe = replace(
        recipe, optimizer_args=STEP_3.optimizer_args, scheduler_args=STEP_3.scheduler_args
    )
    recipes["+ two phases, weight decay 5e-5"] = recipe
    augmentation = {"interpolation": STEP_3.augmentation["interpolation"]}
    transforms = {"rotation": "degrees", "shift": "translate", "scale": "scale", "shear": "shear"}
    for label, name in transforms.items():
        augmentation = {**augmentation, name: STEP_3.augmentation[name]}
        recipes[f"+ {label}"] = replace(recipe, augmentation=augmentation)
    return recipes


def _leave_out() -> dict[str, Experiment]:
    """Step 3, and step 3 with one change."""
    changes = {
        "no averaging": {"ema_decay": None},
        "no rotation": {"augmentation.degrees": 0},
        "no shift": {"augmentation.translate": (0, 0)},
        "no scale": {"augmentation.scale": (1, 1)},
        "no shear": {"augmentation.shear": 0},
        "no weight decay": {"optimizer_args.weight_decay": 0},
        "three phases": {"scheduler_args": REGULARIZATION.scheduler_args},
        "learning rate 0.1": {"optimizer_args.lr": 0.1},
        "learning rate 0.4": {"optimizer_args.lr": 0.4},
    }
    return {"step 3": STEP_3} | {label: vary(STEP_3, change) for label, change in changes.items()}


def _networks(*widths: float) -> dict[str, Experiment]:
    """Step 3 with its channels times each width, and step 3; the labels are their parameters."""
    recipes = [vary(AUGMENTATION, {"model_args.width": width}) for width in widths]
    recipes.append(AUGMENTATION)
    return {f"{count_parameters(build_model(recipe)):,}": recipe for recipe in recipes}


_NETWORKS = _networks(0.34, 0.5, 0.6, 0.7, 0.83)
# The original's recipe of step 2, on the validation split, with a lower learning rate.
_ADAM = vary(ORIGINAL["regularization"], {"split": "validation", "optimizer_args.lr": 0.01})
_NO_BATCH_NORM = vary(STEP_2, {"model_args.batch_norm": False})
_LOW_RATE = {"optimizer_args.lr": 0.02}

REPORTS = {
    "basic": Study("What does step 1 reach?", "step", {"basic": BASIC}),
    "regularization": Study(
        "What does step 2 reach?", "step", {"regularization": REGULARIZATION}, seeds=30
    ),
    "augmentation": Study(
        "What does step 3 reach?", "step", {"augmentation": AUGMENTATION}, seeds=100
    ),
    "original": Study(
        "What do the recipes of the original series reach?", "original recipe", ORIGINAL
    ),
    "folds": Study(
        "What does step 3 reach on other images?",
        "fold that is left out, step 3",
        {f"fold {n}": replace(AUGMENTATION, split=f"fold {n}") for n in range(1, 7)},
        seeds=5,
    ),
    "fewer_images": Study(
        "Are the folds harder than the test set, or do their networks have too few images?",
        "training images of step 3",
        {"60,000": AUGMENTATION, "50,000": replace(AUGMENTATION, split="test, 50,000 images")},
        "60,000",
    ),
    "parameters": Study(
        "What is a parameter worth?",
        "parameters of step 3's network",
        _NETWORKS,
        reference=list(_NETWORKS)[-1],  # step 3
    ),
}

EXPLANATIONS = {
    "ablation": Study(
        "What does each change from step 2 to step 3 contribute?",
        "recipe, each with the changes above it",
        _add_changes(),
        "the row above",
    ),
    "leave_one_out": Study(
        "What is each part of step 3 worth to the whole?", "recipe", _leave_out(), "step 3"
    ),
    "scheduler": Study(
        "Which optimizer and scheduler are best in step 2?",
        "optimizer, its learning rate and scheduler, step 2",
        {
            "Adam 0.01, StepLR(5)": _ADAM,
            "SGD 0.2, two phases": replace(STEP_2, scheduler_args=STEP_3.scheduler_args),
            "SGD 0.2, three phases (step 2)": STEP_2,
        },
        "Adam 0.01, StepLR(5)",
    ),
    "parts": Study(
        "What do batch normalisation, dropout and the scheduler contribute to step 2?",
        "recipe",
        {
            "step 2": STEP_2,
            "no batch normalisation": _NO_BATCH_NORM,
            "no batch normalisation, learning rate 0.02": vary(_NO_BATCH_NORM, _LOW_RATE),
            "learning rate 0.02": vary(STEP_2, _LOW_RATE),
            "no scheduler": replace(STEP_2, scheduler=None, scheduler_args={}),
            **{
                f"dropout {label}": recipe
                for label, recipe in sweep(STEP_2, "model_args.dropout", (0.05, 0.1, 0.2)).items()
            },
        },
        "step 2",
    ),
    "epochs": Study(
        "What is an epoch worth?",
        "epochs of step 3, each with its whole schedule",
        sweep(STEP_3, "epochs", (2, 3, 5, 8, 10, 15)),
        "15",
    ),
}

SELECTION = {
    **selection.STUDIES,
    "learning_rate_basic": Study(
        "Which learning rate is best in step 1?",
        "learning rate of Adam, step 1",
        sweep(STEP_1, "optimizer_args.lr", (0.002, 0.005, 0.01, 0.02, 0.05)),
        "0.005",
    ),
    "learning_rate_regularization": Study(
        "Which learning rate is best in step 2?",
        "learning rate of SGD with OneCycleLR, step 2",
        sweep(STEP_2, "optimizer_args.lr", (0.05, 0.1, 0.2, 0.4)),
        "0.2",
    ),
    "original_values": Study(
        "Are a dropout of 0 and a step size of 5 best with Adam and StepLR, as the original says?",
        "dropout and step size (epochs) of StepLR, step 2 with Adam",
        {
            "dropout 0, step size 5": _ADAM,
            "dropout 0.05": vary(_ADAM, {"model_args.dropout": 0.05}),
            "dropout 0.1": vary(_ADAM, {"model_args.dropout": 0.1}),
            "step size 3": vary(_ADAM, {"scheduler_args.step_size": 3}),
            "step size 9": vary(_ADAM, {"scheduler_args.step_size": 9}),
        },
        "dropout 0, step size 5",
    ),
}

STUDIES = REPORTS | EXPLANATIONS | SELECTION
# These are not shown until their runs are there.
UNFINISHED = []
SHOWN = [name for name in STUDIES if name not in UNFINISHED]
