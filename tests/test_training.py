"""The loops do what the plain PyTorch loops do, and a run is bitwise reproducible."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from src.data import Loader, RandomAffine, normalize
from src.experiments import AUGMENTATION, BASIC, REGULARIZATION, run
from src.models import AugmentedNet, BasicNet, RegularizedNet
from src.training import fit, pick_precision, predict, train
from src.training import test as evaluate

CPU = torch.device("cpu")


def optimizer_of(model):
    return torch.optim.Adam(model.parameters(), lr=0.01)


def test_training_equals_the_plain_loop(mnist):
    (images, labels), _ = mnist
    images, labels = images[:512], labels[:512]
    torch.manual_seed(1)
    ours = AugmentedNet()
    plain = copy.deepcopy(ours)

    loader = Loader(images, labels, 128, generator=torch.Generator().manual_seed(1))
    loss, accuracy = train(ours, CPU, loader, optimizer_of(ours))

    optimizer, losses, correct = optimizer_of(plain), [], 0
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


def test_the_loops_take_an_ordinary_dataloader(mnist, capsys):
    (images, labels), (test_images, test_labels) = mnist
    loaders = [
        DataLoader(TensorDataset(normalize(x[:500]), y[:500]), 100)
        for x, y in [(images, labels), (test_images, test_labels)]
    ]
    torch.manual_seed(1)
    model = BasicNet()
    history = fit(model, CPU, *loaders, optimizer_of(model), epochs=2)
    assert [epoch["epoch"] for epoch in history] == [1, 2]
    printed = capsys.readouterr().out
    assert "EPOCH: 2" in printed and "Batch_id=4" in printed and "5/5" in printed
    assert f"({history[-1]['test_accuracy']:.2f}%)" in printed.splitlines()[-1]


def test_evaluation_equals_a_direct_count(mnist):
    _, (images, labels) = mnist
    torch.manual_seed(1)
    model = BasicNet()
    loss, accuracy = evaluate(model, CPU, Loader(images[:2500], labels[:2500]), progress=False)
    predictions, confidences = predict(model, CPU, Loader(images[:2500], labels[:2500]))
    with torch.no_grad():
        output = model(normalize(images[:2500]))
    assert torch.equal(predictions, output.argmax(dim=1))
    torch.testing.assert_close(confidences, output.exp().amax(dim=1))
    assert accuracy == pytest.approx((predictions == labels[:2500]).double().mean().item() * 100)
    assert loss == pytest.approx(F.nll_loss(output, labels[:2500]).item(), rel=1e-5)


def test_step_scheduler_goes_by_epochs_and_one_cycle_by_batches(mnist):
    (images, labels), (test_images, test_labels) = mnist
    loader, test_loader = (
        Loader(images[:400], labels[:400], 100),
        Loader(test_images[:100], test_labels[:100]),
    )
    model = BasicNet()

    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
    history = fit(
        model, CPU, loader, test_loader, optimizer, 3, scheduler=scheduler, progress=False
    )
    assert [epoch["learning_rate"] for epoch in history] == pytest.approx([1, 1, 0.1])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)

    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.1, total_steps=8, pct_start=0.25
    )
    fit(model, CPU, loader, test_loader, optimizer, 2, scheduler=scheduler, progress=False)
    assert scheduler.last_epoch == 8


def test_the_averaged_model_is_the_one_tested(mnist):
    (images, labels), (test_images, test_labels) = mnist
    torch.manual_seed(1)
    model = RegularizedNet()
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    test_loader = Loader(test_images[:1000], test_labels[:1000])
    history = fit(
        model,
        CPU,
        Loader(images[:1000], labels[:1000], 100),
        test_loader,
        optimizer_of(model),
        1,
        averaged=averaged,
        progress=False,
    )
    tested = history[0]["test_loss"]
    assert tested == evaluate(averaged.module, CPU, test_loader, progress=False)[0]
    assert tested != evaluate(model, CPU, test_loader, progress=False)[0]


def test_300_steps_reach_95_percent(mnist):
    (images, labels), (test_images, test_labels) = mnist
    torch.manual_seed(1)
    model = AugmentedNet()
    loader = Loader(
        images[:19_200],
        labels[:19_200],
        64,
        generator=torch.Generator().manual_seed(1),
        augment=RandomAffine(**AUGMENTATION.augmentation),
    )
    history = fit(
        model,
        CPU,
        loader,
        Loader(test_images[:2000], test_labels[:2000]),
        optimizer_of(model),
        1,
        progress=False,
    )
    assert history[0]["test_accuracy"] >= 95


def test_precision_is_as_asked_or_refused():
    assert (
        pick_precision(CPU, "float32") == "float32"
        and pick_precision(CPU, "bfloat16") == "bfloat16"
    )
    assert pick_precision(CPU) in ("float32", "bfloat16")
    with pytest.raises(ValueError, match="'half'"):
        pick_precision(CPU, "half")


RECIPES = [
    BASIC,
    REGULARIZATION,
    AUGMENTATION,
    replace(REGULARIZATION, name="dropout", model_args={"dropout": 0.1}),
    *(
        replace(AUGMENTATION, name=precision, precision=precision)
        for precision in ("float32", "bfloat16")
    ),
]


@pytest.mark.parametrize("experiment", RECIPES, ids=lambda experiment: experiment.name)
def test_the_same_seed_gives_the_same_run_bit_for_bit(experiment, results, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")

    def outcome(seed):
        model, record = run(experiment, seed, progress=False)
        return (
            [{**epoch, "seconds": None} for epoch in record["history"]],
            [value.tolist() for value in model.state_dict().values()],
        )

    first, again, other = outcome(3), outcome(3), outcome(4)
    assert first == again
    assert first != other
