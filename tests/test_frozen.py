"""The training path is frozen while its recipes are measured: the first batches, as recorded."""

from itertools import islice

import pytest

from src.evidence.next_studies import STUDIES
from src.experiments import prepare
from src.training import fit

# Training loss of the first six batches, and test loss after them, seed 1. Instruction sets and
# threads change them by less than 0.00005 of their value; another seed by 0.0005 or more.
LOSSES = {
    "basic": (2.31088, 2.30452),
    "regularization": (2.30724, 2.31374),
    "augmentation": (2.28340, 2.31381),
}


@pytest.mark.parametrize("step", LOSSES)
def test_the_first_batches_are_the_recorded_ones(step):
    (recipe,) = STUDIES[step].experiments.values()
    setup = prepare(recipe, 1, "cpu")
    setup.train_loader = list(islice(setup.train_loader, 6))
    (epoch,) = fit(setup, [1])
    assert (epoch["train_loss"], epoch["test_loss"]) == pytest.approx(LOSSES[step], rel=2e-4)


def test_only_reports_use_the_test_set():
    reports = {"basic", "regularization", "augmentation", "original", "fewer_images", "parameters"}
    for name in STUDIES.keys() - reports - {"folds"}:
        splits = {recipe.split for recipe in STUDIES[name].experiments.values()}
        assert splits == {"validation"}, name
