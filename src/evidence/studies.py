"""The studies as data: each a question that several recipes answer, over several seeds.

`REPORTS` are evaluated on the test set or on folds, the others on the validation split alone:
`EXPLANATIONS` say what the parts of a recipe contribute, and `SELECTION` compares recipes to choose
one. `NEXT` holds those of `next_studies`; those that are shown stand above, too.
`runner` runs the studies, `rows` reads what is recorded, `report` shows it.
"""

from . import next_studies, selection
from .original import ORIGINAL
from .selection import STEP_2, STEP_3
from .study import Study, sweep, vary

# These report, on the test set and on the folds of the training set. Here and below, `STEP_2` and
# `STEP_3` are the recipes before the last choice, and the labels of their studies say "earlier":
# these are shown as long as those in `next_studies`, of the steps as they are, lack runs.
REPORTS = {
    "basic": next_studies.STUDIES["basic"],
    "regularization": next_studies.STUDIES["regularization"],
    "augmentation": next_studies.STUDIES["augmentation"],
    "original": next_studies.STUDIES["original"],
    "folds": next_studies.STUDIES["folds"],
    "fewer_images": next_studies.STUDIES["fewer_images"],
    "parameters": next_studies.STUDIES["parameters"],
}


# The recipe of the original series, with a lower learning rate, on the validation split.
_ADAM = vary(ORIGINAL["regularization"], {"split": "validation", "optimizer_args.lr": 0.01})

# These explain, on the validation split alone.
EXPLANATIONS = {
    "ablation": next_studies.STUDIES["ablation"],
    "leave_one_out": Study(
        "What is each part of the earlier step 3 worth to the whole?",
        "recipe",
        {
            "earlier step 3": STEP_3,
            "no averaging": vary(STEP_3, {"ema_decay": None}),
            "no rotation": vary(STEP_3, {"augmentation.degrees": 0}),
            "no shift": vary(STEP_3, {"augmentation.translate": (0, 0)}),
            "no scale": vary(STEP_3, {"augmentation.scale": (1, 1)}),
            "no shear": vary(STEP_3, {"augmentation.shear": 0}),
            "no weight decay": vary(STEP_3, {"optimizer_args.weight_decay": 0}),
        },
        "earlier step 3",
    ),
    "scheduler": next_studies.STUDIES["scheduler"],
    "parts": next_studies.STUDIES["parts"],
    "epochs": next_studies.STUDIES["epochs"],
}

# And these select.
SELECTION = {
    **selection.STUDIES,
    "learning_rate_basic": next_studies.STUDIES["learning_rate_basic"],
    "learning_rate_regularization": Study(
        "Which learning rate is best in step 2?",
        "learning rate of SGD with OneCycleLR, earlier step 2",
        sweep(STEP_2, "optimizer_args.lr", (0.05, 0.1, 0.2, 0.4)),
        "0.2",
    ),
    "dropout": Study(
        "Which dropout is best with Adam and StepLR?",
        "dropout (probability)",
        sweep(_ADAM, "model_args.dropout", (0.0, 0.01, 0.025, 0.05, 0.1, 0.2)),
        "0",
    ),
    "step_size": Study(
        "Which step size of StepLR is best with Adam?",
        "step size of StepLR (epochs)",
        sweep(_ADAM, "scheduler_args.step_size", (3, 5, 7, 9)),
        "5",
    ),
}
NEXT = {f"next_{name}": study for name, study in next_studies.STUDIES.items()}
STUDIES = REPORTS | EXPLANATIONS | SELECTION | NEXT
# These are not shown until their runs are there.
UNFINISHED = ()
SHOWN = [name for name in REPORTS | EXPLANATIONS | SELECTION if name not in UNFINISHED]
