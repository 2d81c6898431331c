"""Recipes and training path are frozen while they are measured: runs and first batches."""

import hashlib
from dataclasses import asdict, replace
from itertools import islice

import pytest
import torch
from torch import nn

from src import store
from src.data import SPLITS
from src.evidence import selection
from src.evidence.studies import STUDIES
from src.experiments import STEPS, prepare
from src.training import fit

# After six batches with seed 1: their mean loss and the test loss, the next learning rate, and how
# far the tested weights have moved. Instruction sets and numbers of threads change a loss by less
# than 0.00005 of its value, and the distance by 0.005.
RECORDED = {
    "basic": (2.31088, 2.30452, 0.005, 1.707),
    "regularization": (2.30724, 2.31374, 0.0085461, 0.0897),
    "augmentation": (2.28340, 2.31381, 0.0090927, 0.1226),
}
# These studies were fixed before the first of their runs was made.
NAMES = [
    *("basic", "regularization", "augmentation", "original", "ablation", "leave_one_out"),
    *("folds", "fewer_images", "parts", "scheduler", "parameters", "epochs"),
    *("learning_rate_basic", "learning_rate_regularization", "original_values"),
]
FROZEN = {name: STUDIES[name] for name in NAMES}


def read_weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("step", RECORDED)
def test_the_first_batches_are_the_recorded_ones(step):
    (recipe,) = FROZEN[step].experiments.values()
    setup = prepare(recipe, 1, "cpu")
    start = read_weights(setup.model)
    setup.train_loader = list(islice(setup.train_loader, 6))
    (epoch,) = fit(setup, [1])
    distance = (read_weights(setup.tested_model) - start).norm().item()
    train_loss, test_loss, learning_rate, moved = RECORDED[step]
    assert epoch["train_loss"] == pytest.approx(train_loss, rel=2e-4)
    assert epoch["test_loss"] == pytest.approx(test_loss, rel=2e-4)
    assert setup.optimizer.param_groups[0]["lr"] == pytest.approx(learning_rate, rel=1e-5)
    assert distance == pytest.approx(moved, rel=0.02)


def test_the_runs_are_those_that_were_frozen():
    runs = [run for study in FROZEN.values() for run in study.runs()]
    keys = {store.run_key(asdict(recipe), seed) for recipe, seed in runs}
    assert len(keys) == 685
    text = "\n".join(sorted(keys))  # of values as they are written, so on every machine the same
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "520c8d000104c209"


def test_a_study_of_a_step_compares_with_the_step():
    steps = [replace(step, split=split) for step in STEPS.values() for split in SPLITS]
    with_adam = {"scheduler", "original_values"}
    for name in STUDIES.keys() - selection.STUDIES.keys() - with_adam:
        study = STUDIES[name]
        if study.reference not in (None, "the row above"):
            reference = study.experiments[study.reference]
            assert reference in steps, f"{name}: {study.reference!r} is not the recipe of a step"
