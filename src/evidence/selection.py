"""The studies that chose schedules, weight decays and an average, on the validation split alone.

They start from recipes of their own, so that they stay what they were when a step changes.
"""

from dataclasses import replace

from ..recipes import Experiment
from .study import Study, sweep, vary

# What steps 2 and 3 were before the choice.
EARLIER_STEP_2 = Experiment(
    "regularization",
    "RegularizedNet",
    split="validation",
    model_args={"dropout": 0.0},
    optimizer="SGD",
    optimizer_args={"lr": 0.2, "momentum": 0.9, "nesterov": True, "weight_decay": 2e-4},
    scheduler="OneCycleLR",
    scheduler_args={"pct_start": 0.15, "anneal_strategy": "linear", "cycle_momentum": False},
)
EARLIER_STEP_3 = replace(
    EARLIER_STEP_2,
    name="augmentation",
    model="AugmentedNet",
    model_args={},
    augmentation={
        "degrees": 10,
        "translate": (1 / 28, 1 / 28),
        "scale": (0.9, 1.1),
        "shear": 6,
        "interpolation": "nearest",
    },
    ema_decay=0.998,
)
# A long end at a low rate, as in the paper by Smith and Topin (2017): the learning rate rises over
# this share of the run, falls over the same share, and is low for the rest.
_THREE_PHASES = {"three_phase": True, "anneal_strategy": "linear", "cycle_momentum": False}
_SHARES = (0.2, 0.25, 0.3, 0.35, 0.4)


def _with_third_phase(experiment: Experiment, share: float = 0.3) -> Experiment:
    """The recipe with three phases: the first takes this share of the run, as does the second."""
    return vary(experiment, {"scheduler_args": {**_THREE_PHASES, "pct_start": share}})


def _schedules(experiment: Experiment) -> dict[str, Experiment]:
    """The recipe, and the same with a third phase after rises of several lengths."""
    return {
        "two phases, 0.15": experiment,
        **{f"three phases, {share:g}": _with_third_phase(experiment, share) for share in _SHARES},
    }


def _low_rates() -> dict[str, Experiment]:
    """Step 2 with three phases, and with several learning rates where the third begins.

    Such a rate is the peak divided by `div_factor`; the run begins at the same one.
    """
    best = _with_third_phase(EARLIER_STEP_2, 0.35)
    return {
        "peak / 10": vary(best, {"scheduler_args.div_factor": 10}),
        "peak / 25": best,  # the default
        "peak / 50": vary(best, {"scheduler_args.div_factor": 50}),
    }


STUDIES = {
    "schedule_regularization": Study(
        "Does a third phase of OneCycleLR make step 2 steadier, and after which rise?",
        "phases of OneCycleLR, and the share of the first, step 2",
        _schedules(EARLIER_STEP_2),
        "two phases, 0.15",
        seeds=5,
    ),
    "schedule_augmentation": Study(
        "Does a third phase of OneCycleLR make step 3 steadier, and after which rise?",
        "phases of OneCycleLR, and the share of the first, step 3",
        _schedules(EARLIER_STEP_3),
        "two phases, 0.15",
        seeds=5,
    ),
    "low_rate_regularization": Study(
        "How low should the learning rate of step 2 be in the third phase?",
        "learning rate where the third phase begins, step 2",
        _low_rates(),
        "peak / 25",
        seeds=5,
    ),
    "weight_decay_regularization": Study(
        "Which weight decay makes step 2 with a third phase steadiest?",
        "weight decay, step 2 with three phases, 0.3",
        sweep(
            _with_third_phase(EARLIER_STEP_2),
            "optimizer_args.weight_decay",
            (5e-5, 1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3),
        ),
        "0.0002",
        seeds=5,
    ),
    "weight_decay_augmentation": Study(
        "Which weight decay makes step 3 steadiest?",
        "weight decay, step 3",
        sweep(EARLIER_STEP_3, "optimizer_args.weight_decay", (2e-5, 5e-5, 1e-4, 2e-4)),
        "0.0002",
        seeds=5,
    ),
    "decision_regularization": Study(
        "Which schedule and weight decay become those of step 2?",
        "phases of OneCycleLR and weight decay, step 2",
        {
            "two phases, 0.0002": EARLIER_STEP_2,
            "three phases, 0.0002": _with_third_phase(EARLIER_STEP_2),
            "three phases, 0.0004": vary(
                _with_third_phase(EARLIER_STEP_2), {"optimizer_args.weight_decay": 4e-4}
            ),
            "three phases, 0.0008": vary(
                _with_third_phase(EARLIER_STEP_2), {"optimizer_args.weight_decay": 8e-4}
            ),
        },
        "two phases, 0.0002",
    ),
    "decision_augmentation": Study(
        "Which weight decay and schedule become those of step 3?",
        "phases of OneCycleLR and weight decay, step 3",
        {
            "two phases, 0.0002": EARLIER_STEP_3,
            "two phases, 5e-5": vary(EARLIER_STEP_3, {"optimizer_args.weight_decay": 5e-5}),
            "three phases, 5e-5": vary(
                _with_third_phase(EARLIER_STEP_3), {"optimizer_args.weight_decay": 5e-5}
            ),
        },
        "two phases, 0.0002",
    ),
    "averaging_augmentation": Study(
        "Which average of the weights makes step 3 steadiest?",
        "decay of the average, step 3",
        sweep(EARLIER_STEP_3, "ema_decay", (0.995, 0.998, 0.999)),
        "0.998",
        seeds=5,
    ),
}
