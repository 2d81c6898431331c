"""The networks, side by side.

Each takes images of shape (N, 1, 28, 28) and returns log-probabilities of the ten digits, float32
of shape (N, 10). The convolutions have no bias. The comments give the size of a layer's maps.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    """A stack of layers that ends in one value per channel, a linear classifier and log_softmax."""

    def __init__(self, *layers: nn.Module, classifier: nn.Linear):
        super().__init__()
        self.features = nn.Sequential(*layers)
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.classifier(self.features(x).flatten(1))
        return F.log_softmax(scores, dim=1)


def block(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    *,
    padding: int = 0,
    batch_norm: bool = True,
    dropout: float | None = None,
) -> nn.Sequential:
    """Convolution without bias, ReLU and, optionally, batch normalisation and dropout.

    `dropout` is a probability in [0, 1]; None omits the layer.
    """
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, bias=False)
    layers = [convolution, nn.ReLU(inplace=True)]
    if batch_norm:
        layers.append(nn.BatchNorm2d(out_channels))
    if dropout is not None:
        layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers)


class BasicNet(Net):
    """Step 1: a plain stack of convolutions, 10,578 parameters."""

    def __init__(self):
        super().__init__(
            block(1, 8, batch_norm=False),  # 26 × 26
            block(8, 16, batch_norm=False),  # 24 × 24
            nn.Conv2d(16, 4, 1, bias=False),
            nn.MaxPool2d(2),  # 12 × 12
            block(4, 8, batch_norm=False),  # 10 × 10
            block(8, 16, batch_norm=False),  #  8 × 8
            block(16, 48, batch_norm=False),  #  6 × 6
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(48, 16, 1, bias=False),
            classifier=nn.Linear(16, 10),
        )


class RegularizedNet(Net):
    """Step 2: fewer channels, with batch normalisation and dropout, 8,178 parameters.

    `dropout` is a probability in [0, 1]. `batch_norm=False` shows what batch normalisation
    contributes.
    """

    def __init__(self, dropout: float = 0.0, batch_norm: bool = True):
        options = {"batch_norm": batch_norm, "dropout": dropout}
        super().__init__(
            block(1, 8, **options),  # 26 × 26
            block(8, 16, **options),  # 24 × 24
            nn.Conv2d(16, 4, 1, bias=False),
            nn.MaxPool2d(2),  # 12 × 12
            block(4, 8, **options),  # 10 × 10
            block(8, 16, **options),  #  8 × 8
            block(16, 32, **options),  #  6 × 6
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(32, 16, 1, bias=False),
            classifier=nn.Linear(16, 10),
        )


class AugmentedNet(Net):
    """Step 3: one more 3 × 3 convolution, no 1 × 1 convolution at the end, 7,946 parameters.

    `width` scales the channels of every convolution, to measure what a parameter is worth.
    """

    def __init__(self, width: float = 1.0):
        def scale(channels: int) -> int:
            return round(width * channels)

        super().__init__(
            block(1, scale(12)),  # 26 × 26
            block(scale(12), scale(16)),  # 24 × 24
            block(scale(16), scale(6), kernel_size=1),
            nn.MaxPool2d(2),  # 12 × 12
            block(scale(6), scale(12)),  # 10 × 10
            block(scale(12), scale(14)),  #  8 × 8
            block(scale(14), scale(14)),  #  6 × 6
            block(scale(14), scale(14), padding=1),  #  6 × 6
            nn.AdaptiveAvgPool2d(1),
            classifier=nn.Linear(scale(14), 10),
        )


MODELS = {model.__name__: model for model in (BasicNet, RegularizedNet, AugmentedNet)}


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
