"""The networks return log-probabilities, and are those with which the recorded runs were made."""

import pytest
import torch

from src.models import MODELS, AugmentedNet, RegularizedNet, block, count_parameters

# The first log-probabilities that each returns in training mode, with random weights of seed 1.
# Records name a network, not its layers: a changed network needs a new name.
OUTPUTS = {
    "BasicNet": [-2.42510, -2.04789, -2.49694, -2.34380],
    "RegularizedNet": [-2.50517, -2.40813, -2.16841, -2.17948],
    "AugmentedNet": [-2.52289, -2.11577, -2.23710, -2.55537],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_network_is_the_one_of_the_records(name):
    torch.manual_seed(1)
    images = torch.rand(4, 1, 28, 28)
    output = MODELS[name]()(images)[0, :4]
    assert output.tolist() == pytest.approx(OUTPUTS[name], abs=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_a_network_returns_log_probabilities(name):
    output = MODELS[name]()(torch.rand(5, 1, 28, 28))
    assert output.shape == (5, 10) and output.dtype == torch.float32
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(5))


@pytest.mark.parametrize("width, parameters", [(0.34, 1_048), (0.5, 2_100), (0.7, 3_948)])
def test_width_scales_the_channels_of_every_convolution(width, parameters):
    model = AugmentedNet(width)
    assert count_parameters(model) == parameters
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_dropout_drops_in_training_only():
    model, images = RegularizedNet(dropout=0.5), torch.rand(5, 1, 28, 28)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))


def test_dropout_drops_single_values():
    torch.manual_seed(1)
    dropout = block(1, 8, batch_norm=False, dropout=0.5)[2]
    maps = dropout(torch.ones(4, 8, 10, 10))
    assert set(maps[0, 0].unique().tolist()) == {0, 2}  # of one map, some values and not others


def test_batch_normalisation_can_be_left_out():
    layers = RegularizedNet(batch_norm=False).modules()
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in layers)
