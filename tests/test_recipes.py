"""Recipes: what they accept, and what they refuse in one line when they are made."""

import io
import pickle
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from src.experiments import AUGMENTATION, BASIC, REGULARIZATION, STEPS, prepare, run
from src.models import MODELS, Net, count_parameters
from src.recipes import OPTIMIZERS, RecipeError, build_model, build_optimizer


@pytest.mark.parametrize(
    "step, parameters", [("basic", 10_578), ("regularization", 8_178), ("augmentation", 7_946)]
)
def test_steps_are_within_the_limits(step, parameters):
    experiment = STEPS[step]
    assert experiment.epochs <= 15 and experiment.split == "test"
    assert count_parameters(build_model(experiment)) == parameters


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_that_is_offered_moves_every_weight(optimizer, smoke, output):
    recipe = replace(BASIC, optimizer=optimizer, optimizer_args={"lr": 0.001})
    model, _ = run(recipe, verbose=False)
    start = prepare(recipe, limit=1).model.state_dict()
    assert all(not torch.equal(start[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_uses_the_rate_that_a_scheduler_sets(optimizer):
    weight = torch.nn.Parameter(torch.ones(1))
    recipe = replace(BASIC, optimizer=optimizer, optimizer_args={"lr": 0.1})
    built = build_optimizer(recipe, [weight])
    for rate in (0.1, 0.1, 0.0):
        before = weight.clone()
        built.param_groups[0]["lr"] = rate
        weight.grad = torch.ones(1)
        built.step()
    assert torch.equal(weight, before), f"{optimizer} moves the weights at a rate of 0"


def test_an_argument_that_an_optimizer_asserts_to_be_wrong_is_refused():
    with pytest.raises(RecipeError, match="^optimizer_args={'capturable': True}: If capturable"):
        replace(BASIC, optimizer="NAdam", optimizer_args={"capturable": True})  # for GPUs alone


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("name", "a/b", "name='a/b': must be up to 100 letters"),
        ("name", 300 * "x", "must be up to 100 letters"),
        ("name", "", "name='': must be"),
        ("model", "BasicNets", "model='BasicNets': choose one of BasicNet, Reg"),
        ("model_args", {"dropuot": 0.1}, "unexpected keyword argument 'dropuot'"),
        ("model_args", {"dropout": 1.5}, "model_args={'dropout': 1.5}: dropout probability "),
        ("optimizer", "adam", "optimizer='adam': choose one of SGD, Adam"),
        ("optimizer_args", {"lr": -0.1}, "'lr': -0.1}: Invalid learning rate"),
        ("optimizer_args", {"lr": "fast"}, "'lr': 'fast'}: "),
        ("optimizer_args", {"foreach": True}, "optimizer_args={'fused': True, 'foreach': True}: "),
        ("optimizer_args", {"lr": torch.tensor(1.0)}, "type Tensor is not JSON serializable"),
        ("optimizer_args", None, "optimizer_args=None: must be a dict"),
        ("scheduler", "LambdaLR", "scheduler='LambdaLR': choose one of StepLR"),
        ("scheduler", None, "'cycle_momentum': False}: there is no scheduler to pass them to"),
        ("scheduler_args", {"pct_start": 2.0}, "scheduler_args={'pct_start': 2.0}: "),
        ("augmentation", {}, "augmentation={}: must be None or name at least one argument"),
        ("augmentation", {"degree": 7}, "unexpected keyword argument 'degree'"),
        ("augmentation", {"translate": None}, "augmentation={'translate': None}: translate"),
        ("augmentation", {"scale": (-1, 1)}, "scale values should be positive"),
        ("augmentation", {"scale": (1.1, 0.9)}, "scale must be (low, high) with 0 < low <= high"),
        ("augmentation", {"interpolation": "linear"}, "'linear' is not a valid Interpolation"),
        ("augmentation", {"interpolation": "lanczos"}, "{'interpolation': 'lanczos'}: "),
        ("augmentation", {"degrees": float("nan")}, "{'degrees': nan}: "),
        ("epochs", 0, "epochs=0: must be a positive integer"),
        ("batch_size", "128", "batch_size='128': must be a positive integer"),
        ("normalized", "no", "normalized='no': must be True or False"),
        ("ema_decay", 1, "ema_decay=1: must be None or between 0 and 1"),
        ("split", "train", "split='train': choose one of 'fold 1'"),
        ("name", "-a", "and begin with a letter"),
        ("model_args", {"dropout": torch.zeros(2, 2)}, "model_args: Object of type Tensor is not"),
        ("scheduler_args", {"total_steps": 5}, "{'total_steps': 5}: epochs and batch_size "),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(field, value, message):
    with pytest.raises(RecipeError) as raised:
        replace(REGULARIZATION, **{field: value})
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert raised.value._render_traceback_() == [f"RecipeError: {raised.value}"]  # in Jupyter


@pytest.mark.parametrize(
    "recipe, changes, message",
    [
        (AUGMENTATION, {"model_args": {"width": -1}}, "model_args={'width': -1}: "),
        (BASIC, {"optimizer_args": {"betas": [0.9]}}, "'betas': (0.9,)}: "),
        (BASIC, {"scheduler": "StepLR", "scheduler_args": {"step_size": 0}}, "{'step_size': 0}: "),
        (
            BASIC,  # it is used after the fifth epoch
            {"scheduler": "StepLR", "scheduler_args": {"step_size": 5, "gamma": "0.1"}},
            "'gamma': '0.1'}: ",
        ),
        (AUGMENTATION, {"scheduler_args": {"pct_start": 1.0}}, "pct_start must be below 1"),
    ],
)
def test_what_pytorch_would_refuse_only_in_training_is_refused_at_once(recipe, changes, message):
    with pytest.raises(RecipeError) as raised:
        replace(recipe, **changes)
    assert message in str(raised.value)


def test_a_network_whose_layers_do_not_fit_is_refused(monkeypatch):
    def make():
        layers = [nn.Conv2d(1, 8, 3), nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1)]
        return Net(*layers, classifier=nn.Linear(8, 10))

    monkeypatch.setitem(MODELS, "Mismatched", make)
    with pytest.raises(RecipeError, match="expected input.* to have 4 channels, but got 8"):
        replace(BASIC, model="Mismatched")


def test_a_scheduler_that_sets_the_momentum_is_tried_before_the_first_step():
    # After a step without momentum, RMSprop fails: OneCycleLR must have set it before, as in a run.
    replace(BASIC, optimizer="RMSprop", optimizer_args={"lr": 0.001}, scheduler="OneCycleLR")


def test_a_recipe_that_contains_itself_is_refused():
    circular = {}
    circular["again"] = circular
    with pytest.raises(RecipeError, match="optimizer_args: Circular reference"):
        replace(BASIC, optimizer_args=circular)


def test_a_mistake_in_the_code_of_a_model_keeps_its_traceback(monkeypatch):
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = undefined  # noqa: F821

    monkeypatch.setitem(MODELS, "Broken", Broken)
    with pytest.raises(NameError, match="undefined"):
        replace(BASIC, model="Broken")


def test_numbers_of_numpy_become_plain_ones_which_a_checkpoint_can_hold():
    recipe = replace(BASIC, optimizer_args={"lr": np.logspace(-3, -2, 2)[0]})
    file = io.BytesIO()
    torch.save(prepare(recipe, limit=1).optimizer.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["param_groups"][0]["lr"] == pytest.approx(0.001)


def test_a_rise_over_exactly_one_step_is_refused_when_the_steps_are_known():
    recipe = replace(AUGMENTATION, epochs=1, scheduler_args={"pct_start": 0.01})
    assert prepare(recipe, limit=1000).scheduler  # 8 steps
    message = r"'pct_start': 0.01}: pct_start must not be exactly one of the 100 steps"
    with pytest.raises(RecipeError, match=message):
        prepare(replace(recipe, batch_size=1), limit=100)


def test_a_recipe_draws_no_random_numbers():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    replace(BASIC, model="RegularizedNet", augmentation=AUGMENTATION.augmentation)
    assert torch.equal(torch.rand(3), expected)


def test_a_recipe_cannot_be_changed_and_is_the_same_however_it_is_written():
    with pytest.raises(TypeError, match="support item assignment"):
        BASIC.optimizer_args["lr"] = 1
    with pytest.raises(AttributeError, match="read-only"):
        AUGMENTATION.augmentation.update(degrees=7)
    for copied in (pickle.loads(pickle.dumps(AUGMENTATION)), deepcopy(AUGMENTATION)):
        assert copied == AUGMENTATION and hash(copied) == hash(AUGMENTATION)
    as_list = replace(AUGMENTATION, augmentation={**AUGMENTATION.augmentation, "scale": [0.9, 1.1]})
    assert as_list == AUGMENTATION
    assert replace(BASIC, split="fold 6") == replace(BASIC, split="validation")
