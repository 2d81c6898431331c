"""The loops do what the plain PyTorch loops do, and a run is the same bit for bit."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from src.data import Loader, normalize
from src.experiments import AUGMENTATION, BASIC, run
from src.models import AugmentedNet, BasicNet, RegularizedNet
from src.training import DivergenceError, MovingAverage, Setup, fit, predict, train
from src.training import test as evaluate

CPU = torch.device("cpu")


def adam(model):
    return torch.optim.Adam(model.parameters(), lr=0.01)


def first(mnist, count, batch_size=128):
    """Loaders of the first training images and of the first test images."""
    (images, labels), (test_images, test_labels) = mnist
    generator = torch.Generator().manual_seed(1)
    train_loader = Loader(images[:count], labels[:count], batch_size, generator)
    return train_loader, Loader(test_images[:1000], test_labels[:1000])


def test_training_equals_the_plain_loop(mnist):
    torch.manual_seed(1)
    ours = AugmentedNet()
    plain = copy.deepcopy(ours)
    loss, accuracy = train(ours, CPU, first(mnist, 512)[0], adam(ours))

    images, labels = (part[:512] for part in mnist[0])
    optimizer, losses, correct = adam(plain), [], 0
    plain.train()
    for index in torch.randperm(512, generator=torch.Generator().manual_seed(1)).split(128):
        optimizer.zero_grad()
        output = plain(normalize(images[index]))
        batch_loss = F.nll_loss(output, labels[index])
        batch_loss.backward()
        optimizer.step()
        losses.append(batch_loss.item())
        correct += (output.argmax(dim=1) == labels[index]).sum().item()

    torch.testing.assert_close(ours.state_dict(), plain.state_dict())
    assert loss == pytest.approx(sum(losses) / 4) and accuracy == pytest.approx(100 * correct / 512)


def test_evaluation_equals_a_direct_count(mnist):
    images, labels = (part[:2500] for part in mnist[1])
    torch.manual_seed(1)
    model = BasicNet()
    loss, accuracy = evaluate(model, CPU, Loader(images, labels))
    predictions, confidences = predict(model, CPU, Loader(images, labels))
    with torch.no_grad():
        output = model(normalize(images))
    best = output.topk(2).values  # two digits may be tied within rounding: seen in no image
    assert (predictions == output.argmax(dim=1))[best[:, 0] - best[:, 1] > 1e-4].all()
    torch.testing.assert_close(confidences, output.exp().amax(dim=1))
    assert accuracy == pytest.approx((predictions == labels).double().mean().item() * 100)
    assert loss == pytest.approx(F.nll_loss(output, labels).item(), rel=1e-5)


@pytest.mark.parametrize(
    "scheduler, arguments, rates, steps",
    [
        ("StepLR", {"step_size": 2, "gamma": 0.1}, [1, 1, 0.1], 3),
        ("OneCycleLR", {"max_lr": 1, "total_steps": 12}, [0.04, 0.933, 0.283], 12),
        ("CyclicLR", {"base_lr": 0.1, "max_lr": 1, "step_size_up": 4}, [0.1, 1, 0.1], 12),
    ],
)
def test_schedulers_step_by_epochs_or_by_batches(scheduler, arguments, rates, steps, mnist):
    model = BasicNet()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    scheduler = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **arguments)
    loaders = first(mnist, 400, batch_size=100)
    setup = Setup(CPU, model, *loaders, optimizer, scheduler)
    found = [epoch["learning_rate"] for epoch in fit(setup, range(1, 4))]
    assert found == pytest.approx(rates, abs=0.01) and scheduler.last_epoch == steps


def test_the_averaged_model_is_the_one_tested(mnist):
    torch.manual_seed(1)
    model, loaders = RegularizedNet(), first(mnist, 1000)
    average = MovingAverage(model, 0.9)
    setup = Setup(CPU, model, *loaders, adam(model), average=average)
    (epoch,) = fit(setup, [1])
    assert setup.tested_model is average.model
    assert epoch["test_loss"] == evaluate(average.model, CPU, loaders[1])[0]
    assert epoch["test_loss"] != evaluate(model, CPU, loaders[1])[0]


def test_the_moving_average_warms_up_to_its_decay():
    model = torch.nn.BatchNorm1d(1)
    average, expected = MovingAverage(model, 0.9), None
    generator = torch.Generator().manual_seed(1)
    for n in range(200):
        value = torch.rand((), generator=generator)
        torch.nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value)
        average.update(model)
        decay = min(0.9, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        for averaged in (average.model.weight, average.model.running_mean):
            assert averaged.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_layer_that_is_used_twice_is_averaged_once():
    layer = torch.nn.Linear(1, 1)
    model = torch.nn.Sequential(layer, layer)
    average = MovingAverage(model, 0.9)
    torch.nn.init.constant_(layer.weight, 0)
    average.update(model)
    torch.nn.init.constant_(layer.weight, 1)
    average.update(model)
    assert average.model[0].weight.item() == pytest.approx(1 - 2 / 11)


def test_a_loss_that_is_not_finite_is_an_error_of_every_loop(mnist):
    (images, labels), _ = mnist
    batches = [(images[:100], labels[:100])] * 3
    model = BasicNet()
    torch.nn.init.constant_(model.classifier.bias, math.nan)
    with pytest.raises(DivergenceError, match="the loss is not finite after 3 batches"):
        train(model, CPU, iter(batches), adam(model))  # whose length is unknown
    with pytest.raises(DivergenceError, match="the loss is not finite after 3 batches"):
        evaluate(model, CPU, batches)


def test_a_model_trains_and_is_tested_in_the_mode_for_it(mnist):
    modes = []
    model, loaders = RegularizedNet(), first(mnist, 200)
    model.register_forward_hook(lambda module, *_: modes.append(module.training))
    model.eval()
    train(model, CPU, loaders[0], adam(model))
    assert all(modes) and modes
    for function in (evaluate, predict):
        model.train()
        modes.clear()
        function(model, CPU, loaders[1])
        assert modes and not any(modes)


@pytest.mark.parametrize("experiment", [BASIC, AUGMENTATION], ids=lambda recipe: recipe.name)
def test_the_same_seed_gives_the_same_run_bit_for_bit(experiment, smoke, output, outcome):
    first_run, second_run = (outcome(*run(experiment, 3, verbose=False)) for _ in range(2))
    assert first_run == second_run


def test_the_last_line_sums_the_run_up(few_images, output, monkeypatch, capsys):
    monkeypatch.setenv("MNIST_REDUCED", "6")
    _, record = run(BASIC)
    accuracies = [epoch["test_accuracy"] for epoch in record["history"]]
    line = f"After epoch 6: {accuracies[5]:.2f} %. "
    line += f"Lowest of the last five epochs: {min(accuracies[1:]):.2f} %"
    assert capsys.readouterr().out.splitlines()[-1] == line
