"""The networks return log-probabilities; the report and the weights pin their layers."""

import pytest
import torch

from src.models import MODELS, AugmentedNet, RegularizedNet, count_parameters


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
