"""The recipes of the original notebooks, of 2021."""

from ..recipes import Experiment

ORIGINAL = {
    "basic": Experiment("basic", "BasicNet", normalized=False, optimizer_args={"lr": 0.05}),
    "regularization": Experiment(
        "regularization",
        "RegularizedNet",
        model_args={"dropout": 0.0},
        optimizer_args={"lr": 0.05},
        scheduler="StepLR",
        scheduler_args={"step_size": 5, "gamma": 0.1},
    ),
    "augmentation": Experiment(
        "augmentation",
        "AugmentedNet",
        augmentation={"degrees": 7, "translate": (0.15, 0.15), "scale": (0.7, 1.3), "shear": 8},
        optimizer="SGD",
        optimizer_args={"lr": 0.015, "momentum": 0.9},
        scheduler="StepLR",
        scheduler_args={"step_size": 9, "gamma": 0.1},
    ),
}
