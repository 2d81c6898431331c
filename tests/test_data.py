"""The data are MNIST's, the batches are seeded, and augmentation means what torchvision's does."""

import gzip
import shutil

import pytest
import torch
import torchvision
from torchvision.transforms import InterpolationMode, functional

from src import data
from src.data import Loader, RandomAffine, affine, affine_matrices, load_mnist
from src.errors import FileError


def test_the_images_are_those_that_torchvision_reads(mnist, tmp_path):
    for archive in (data.MNIST_ROOT / "MNIST" / "raw").glob("*.gz"):
        extracted = tmp_path / "MNIST" / "raw" / archive.stem
        extracted.parent.mkdir(parents=True, exist_ok=True)
        extracted.write_bytes(gzip.decompress(archive.read_bytes()))
    for train, (images, labels) in zip((True, False), mnist):
        theirs = torchvision.datasets.MNIST(tmp_path, train)
        assert torch.equal((255 * images[:, 0]).round().byte(), theirs.data)
        assert torch.equal(labels, theirs.targets)


def test_normalised_training_images_have_mean_0_and_standard_deviation_1(mnist):
    everything, _ = next(iter(Loader(*mnist[0], batch_size=60_000)))
    assert everything.mean().item() == pytest.approx(0, abs=2e-4)
    assert everything.std().item() == pytest.approx(1, abs=2e-4)


FOLDS = {**{f"fold {number}": number for number in range(1, 7)}, "validation": 6}


@pytest.mark.parametrize("split", FOLDS)
def test_networks_of_a_fold_are_trained_on_the_other_five(split):
    train, evaluate = data.SPLITS[split]
    held_out = range(10_000 * (FOLDS[split] - 1), 10_000 * FOLDS[split])
    trained_on = [index for part in train for index in part]
    assert evaluate == held_out
    assert trained_on == [index for index in range(60_000) if index not in held_out]


def test_a_split_holds_the_images_that_it_names(mnist):
    held_out = torch.arange(60_000) // 10_000 == 1
    for part, chosen in zip(load_mnist("fold 2"), (~held_out, held_out), strict=True):
        assert all(torch.equal(ours, whole[chosen]) for ours, whole in zip(part, mnist[0]))


@pytest.mark.parametrize("split", data.SPLITS)
def test_no_image_is_both_trained_on_and_evaluated(split):
    train, evaluate = data.SPLITS[split]
    indices = [index for part in train for index in part]
    assert len(evaluate) == 10_000 and not set(indices) & set(evaluate)
    assert len(set(indices)) == len(indices) and set(indices) <= set(range(60_000))


def test_a_split_may_take_every_second_image(mnist, monkeypatch):
    every_second = data.Split(train=(range(1, 60_000, 2),), evaluate=range(0, 20_000, 2))
    monkeypatch.setitem(data.SPLITS, "every second", every_second)
    (images, _), (_, labels) = load_mnist("every second")
    assert torch.equal(images, mnist[0][0][1::2]) and torch.equal(labels, mnist[0][1][:20_000:2])


def test_fewer_training_images_are_evaluated_on_the_same_test_images(mnist):
    train, test = load_mnist("test, 50,000 images")
    assert all(torch.equal(ours, whole[:50_000]) for ours, whole in zip(train, mnist[0]))
    assert all(torch.equal(ours, whole) for ours, whole in zip(test, mnist[1]))


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A copy of the archives in a root of its own."""
    raw = tmp_path / "MNIST" / "raw"
    archives = data.MNIST_ROOT / "MNIST" / "raw"
    shutil.copytree(archives, raw, ignore=shutil.ignore_patterns("*-ubyte"))
    monkeypatch.setattr(data, "MNIST_ROOT", tmp_path)
    return raw


@pytest.mark.parametrize("fault", ["damaged", "missing"])
def test_a_damaged_or_missing_archive_is_one_clear_line(fault, raw):
    archive = raw / "t10k-labels-idx1-ubyte.gz"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    if fault == "missing":
        archive.unlink()
    with pytest.raises(FileError) as raised:
        load_mnist()
    message = str(raised.value)
    assert message.startswith(f"{archive} is {fault}: restore it with git checkout, or download ")
    assert archive.name in message.split("https://")[1] and "\n" not in message


def test_a_mistyped_root_is_not_created(raw):
    shutil.rmtree(raw.parent)
    with pytest.raises(FileError, match="train-images-idx3-ubyte.gz is missing"):
        load_mnist()
    assert not raw.exists()


def test_extracted_files_beside_the_archives_are_ignored_and_nothing_is_written(raw, mnist):
    for archive in raw.glob("*.gz"):  # as another program's interrupted extraction leaves them
        archive.with_suffix("").write_bytes(b"torn")
    before = {path: path.read_bytes() for path in raw.iterdir()}
    _, (images, labels) = load_mnist()
    assert torch.equal(images, mnist[1][0]) and torch.equal(labels, mnist[1][1])
    assert {path: path.read_bytes() for path in raw.iterdir()} == before


def loader_of(mnist, seed, augment=None):
    """Batches of the first 1,000 training images, labelled by their places."""
    generator = torch.Generator().manual_seed(seed)
    return Loader(mnist[0][0][:1000], torch.arange(1000), 128, generator, augment)


@pytest.mark.parametrize("augment", [None, RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5)])
def test_batches_follow_the_seed(mnist, augment):
    first, again, other = (list(loader_of(mnist, seed, augment)) for seed in (1, 1, 2))
    assert [len(target) for _, target in first] == [128] * 7 + [104]
    assert all(torch.equal(a, b) and torch.equal(s, t) for (a, s), (b, t) in zip(first, again))
    assert not torch.equal(first[0][1], other[0][1])


def test_an_epoch_sees_every_image_once_and_the_next_in_another_order(mnist):
    loader = loader_of(mnist, 1)
    orders = [torch.cat([target for _, target in loader]) for _ in range(2)]
    assert all(torch.equal(order.sort().values, torch.arange(1000)) for order in orders)
    assert not torch.equal(*orders)


# Interpolated values agree to 1e-3 of the range. With "nearest", positions within float32 rounding
# of a pixel's edge may go to either side: up to 1 pixel in 1,000 may differ (seen: 1 in 30,000).
@pytest.mark.parametrize("interpolation, share", [("nearest", 1e-3), ("bilinear", 0)])
def test_affine_agrees_with_torchvision(mnist, interpolation, share):
    images, generator = mnist[0][0][:200], torch.Generator().manual_seed(1)
    angle, dx, dy, scale, shear = (  # wider than any recipe's
        torch.empty(200).uniform_(-width, width, generator=generator) for width in (30, 5, 5, 1, 20)
    )
    translate, scale = torch.stack([dx, dy], dim=1).round(), 1 + 0.3 * scale
    ours = affine(images, affine_matrices(angle, translate, scale, shear), interpolation)
    mode = InterpolationMode(interpolation)
    parts = zip(images, *(values.tolist() for values in (angle, translate, scale, shear)))
    theirs = torch.stack(
        [functional.affine(image, a, t, s, [x, 0.0], mode) for image, a, t, s, x in parts]
    )
    assert ((ours - theirs).abs() > 1e-3).float().mean() <= share
    assert (ours - images).abs().mean() > 0.05  # it does transform


def test_random_affine_draws_from_torchvisions_ranges(monkeypatch):
    monkeypatch.setattr(data, "affine_matrices", lambda *drawn: drawn)
    ours = RandomAffine(degrees=10, translate=(0.1, 0.05), scale=(0.8, 1.1), shear=7)
    generator = torch.Generator().manual_seed(1)
    angle, shift, scale, shear, size = ours.matrices(5_000, generator=generator)
    torch.manual_seed(1)
    ranges = (-10, 10), (0.1, 0.05), (0.8, 1.1), (-7, 7), [size, size]
    draws = [torchvision.transforms.RandomAffine.get_params(*ranges) for _ in range(5_000)]
    theirs = [(angle, *shift, scale, shear[0]) for angle, shift, scale, shear in draws]
    for mine, reference in zip((angle, *shift.T, scale, shear), zip(*theirs), strict=True):
        width = max(reference) - min(reference)
        assert (min(mine), max(mine)) == pytest.approx(
            (min(reference), max(reference)), abs=width / 200
        )
        assert sorted(mine)[::500] == pytest.approx(sorted(reference)[::500], abs=width / 20)
    assert torch.equal(shift, shift.round())  # whole pixels, as torchvision's


def test_a_batch_is_interpolated_as_the_recipe_says(mnist):
    images, labels = (part[:100] for part in mnist[0])
    augment = RandomAffine(degrees=20, interpolation="bilinear")
    generator = torch.Generator().manual_seed(1)
    order = torch.randperm(100, generator=generator)
    expected = affine(images[order], augment.matrices(100, 28, generator), "bilinear")
    generator.manual_seed(1)
    ((found, _),) = Loader(images, labels, 100, generator, augment, normalized=False)
    torch.testing.assert_close(found, expected)
