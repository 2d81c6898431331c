"""The three architectures are those of the README, with their parameter counts."""

import pytest
import torch
import torchsummary

from src.models import MODELS, AugmentedNet, RegularizedNet, count_parameters

AUGMENTED_ROWS = """
            Conv2d-1           [-1, 12, 26, 26]             108
              ReLU-2           [-1, 12, 26, 26]               0
       BatchNorm2d-3           [-1, 12, 26, 26]              24
            Conv2d-4           [-1, 16, 24, 24]           1,728
              ReLU-5           [-1, 16, 24, 24]               0
       BatchNorm2d-6           [-1, 16, 24, 24]              32
            Conv2d-7            [-1, 6, 24, 24]              96
              ReLU-8            [-1, 6, 24, 24]               0
       BatchNorm2d-9            [-1, 6, 24, 24]              12
        MaxPool2d-10            [-1, 6, 12, 12]               0
           Conv2d-11           [-1, 12, 10, 10]             648
             ReLU-12           [-1, 12, 10, 10]               0
      BatchNorm2d-13           [-1, 12, 10, 10]              24
           Conv2d-14             [-1, 14, 8, 8]           1,512
             ReLU-15             [-1, 14, 8, 8]               0
      BatchNorm2d-16             [-1, 14, 8, 8]              28
           Conv2d-17             [-1, 14, 6, 6]           1,764
             ReLU-18             [-1, 14, 6, 6]               0
      BatchNorm2d-19             [-1, 14, 6, 6]              28
           Conv2d-20             [-1, 14, 6, 6]           1,764
             ReLU-21             [-1, 14, 6, 6]               0
      BatchNorm2d-22             [-1, 14, 6, 6]              28
AdaptiveAvgPool2d-23             [-1, 14, 1, 1]               0
           Linear-24                   [-1, 10]             150
"""


def rows(printed: str) -> list[list[str]]:
    """The layers of a torchsummary table: name, shape, parameters."""
    return [line.split() for line in printed.splitlines() if "[-1," in line]


@pytest.mark.parametrize(
    "name, parameters", [("BasicNet", 10_578), ("RegularizedNet", 8_178), ("AugmentedNet", 7_946)]
)
def test_parameter_count(name, parameters):
    assert count_parameters(MODELS[name]()) == parameters


def test_torchsummary_of_the_final_architecture(capsys):
    torchsummary.summary(AugmentedNet(), (1, 28, 28), device="cpu")
    assert rows(capsys.readouterr().out) == rows(AUGMENTED_ROWS)


@pytest.mark.parametrize(
    "name, layers",
    [
        (
            "BasicNet",
            "Conv2d ReLU Conv2d ReLU Conv2d MaxPool2d Conv2d ReLU Conv2d ReLU Conv2d ReLU "
            "AdaptiveAvgPool2d Conv2d Linear",
        ),
        (
            "RegularizedNet",
            "Conv2d ReLU BatchNorm2d Dropout Conv2d ReLU BatchNorm2d Dropout Conv2d MaxPool2d "
            "Conv2d ReLU BatchNorm2d Dropout Conv2d ReLU BatchNorm2d Dropout "
            "Conv2d ReLU BatchNorm2d Dropout AdaptiveAvgPool2d Conv2d Linear",
        ),
    ],
)
def test_layers_of_the_first_two_steps(name, layers, capsys):
    torchsummary.summary(MODELS[name](), (1, 28, 28), device="cpu")
    assert [row[0].split("-")[0] for row in rows(capsys.readouterr().out)] == layers.split()


@pytest.mark.parametrize("name", MODELS)
def test_output_is_log_probabilities(name):
    output = MODELS[name]()(torch.rand(5, 1, 28, 28))
    assert output.shape == (5, 10) and output.dtype == torch.float32
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(5))


@pytest.mark.parametrize(
    "width, parameters", [(0.34, 1_048), (0.5, 2_100), (0.7, 3_948), (1.0, 7_946)]
)
def test_width_scales_the_channels_of_every_convolution(width, parameters):
    model = AugmentedNet(width)
    assert count_parameters(model) == parameters and model(torch.rand(2, 1, 28, 28)).shape == (
        2,
        10,
    )
    convolutions = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [
        round(width * count) for count in (12, 16, 6, 12, 14, 14, 14)
    ]


def test_dropout_drops_in_training_only():
    model, images = RegularizedNet(dropout=0.5), torch.rand(5, 1, 28, 28)
    assert not torch.equal(model(images), model(images))
    model.eval()
    assert torch.equal(model(images), model(images))
