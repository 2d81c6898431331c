"""The data are MNIST's, the batches are seeded, and augmentation means what torchvision's does."""

import math
import shutil

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import RandomAffine as TorchvisionRandomAffine
from torchvision.transforms import functional as torchvision_functional

from src import data
from src.data import (
    MEAN,
    STD,
    Loader,
    RandomAffine,
    affine,
    affine_matrices,
    load_mnist,
    read_mnist,
)


def test_counts_per_class(mnist):
    (images, labels), (test_images, test_labels) = mnist
    assert images.shape == (60_000, 1, 28, 28) and test_images.shape == (10_000, 1, 28, 28)
    assert labels.bincount().tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert test_labels.bincount().tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]


def test_first_labels(mnist):
    (_, labels), (_, test_labels) = mnist
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def test_mean_and_standard_deviation(mnist):
    (images, _), _ = mnist
    assert images.min() == 0 and images.max() == 1
    assert images.mean().item() == pytest.approx(MEAN, abs=5e-5)
    assert images.std().item() == pytest.approx(STD, abs=5e-5)


def test_normalised_batches_have_mean_0_and_standard_deviation_1(mnist):
    (images, labels), _ = mnist
    data, _ = next(iter(Loader(images, labels, batch_size=60_000)))
    assert data.mean().item() == pytest.approx(0, abs=1e-3) and data.std().item() == pytest.approx(
        1, abs=1e-3
    )


@pytest.mark.parametrize("number", range(1, 7))
def test_a_fold_is_evaluated_by_the_other_five(number, mnist):
    (images, labels), _ = mnist
    held_out = torch.arange(60_000) // 10_000 == number - 1
    (train_images, train_labels), (fold_images, fold_labels) = load_mnist(f"fold {number}")
    assert torch.equal(fold_images, images[held_out]) and torch.equal(fold_labels, labels[held_out])
    assert torch.equal(train_images, images[~held_out])
    assert torch.equal(train_labels, labels[~held_out])


def test_validation_split_is_the_last_10_000_training_images(mnist):
    (images, labels), _ = mnist
    (train_images, train_labels), (validation_images, validation_labels) = load_mnist("validation")
    assert torch.equal(train_images, images[:50_000]) and torch.equal(train_labels, labels[:50_000])
    assert torch.equal(validation_images, images[50_000:]) and torch.equal(
        validation_labels, labels[50_000:]
    )


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A copy of the archives in a root of its own."""
    raw = tmp_path / "MNIST" / "raw"
    shutil.copytree(data.ROOT / "MNIST" / "raw", raw, ignore=shutil.ignore_patterns("*-ubyte"))
    monkeypatch.setattr(data, "ROOT", tmp_path)
    read_mnist.cache_clear()
    return raw


@pytest.mark.parametrize(
    "fault",
    ["altered by a byte", "truncated", "empty", "swapped", "missing", "no root"],
)
def test_a_damaged_or_missing_archive_is_one_clear_line(fault, raw):
    archive = raw / "t10k-labels-idx1-ubyte.gz"
    whole = archive.read_bytes()
    if fault == "missing":
        archive.unlink()
    elif fault == "no root":
        shutil.rmtree(raw.parent)
        archive = raw / "train-images-idx3-ubyte.gz"
    else:
        archive.write_bytes(
            {
                "altered by a byte": whole[:100] + bytes([whole[100] ^ 1]) + whole[101:],
                "empty": b"",
                "truncated": whole[:-1],
                "swapped": (raw / "train-labels-idx1-ubyte.gz").read_bytes(),
            }[fault]
        )
    with pytest.raises(RuntimeError) as raised:
        load_mnist()
    message = str(raised.value)
    assert (
        "\n" not in message
        and f"{archive} is {'missing' if fault in ('missing', 'no root') else 'damaged'}" in message
    )
    assert (
        "restore it with git checkout" in message and archive.name in message.split("https://")[1]
    )
    assert raw.exists() == (fault != "no root")  # a mistyped root is not created


def test_extracted_files_beside_the_archives_are_ignored_and_nothing_is_written(raw, mnist):
    for archive in raw.glob("*.gz"):
        archive.with_suffix("").write_bytes(
            b"torn"
        )  # as another program's interrupted extraction leaves it
    before = {path: path.read_bytes() for path in raw.iterdir()}
    _, (images, labels) = load_mnist()
    assert torch.equal(images, mnist[1][0]) and torch.equal(labels, mnist[1][1])
    assert {path: path.read_bytes() for path in raw.iterdir()} == before


def batches(mnist, seed, **options):
    (images, labels), _ = mnist
    return list(
        Loader(
            images[:1000],
            labels[:1000],
            128,
            generator=torch.Generator().manual_seed(seed),
            **options,
        )
    )


@pytest.mark.parametrize(
    "augment", [None, RandomAffine(degrees=10, translate=(0.1, 0.1), scale=(0.9, 1.1), shear=5)]
)
def test_batches_follow_the_seed(mnist, augment):
    first, again, other = (batches(mnist, seed, augment=augment) for seed in (1, 1, 2))
    assert [len(target) for _, target in first] == [128] * 7 + [104]
    assert all(torch.equal(a, b) and torch.equal(s, t) for (a, s), (b, t) in zip(first, again))
    assert not torch.equal(first[0][1], other[0][1])


def test_an_epoch_sees_every_image_once_and_the_next_in_another_order(mnist):
    (images, labels), _ = mnist
    loader = Loader(
        images[:1000], torch.arange(1000), 128, generator=torch.Generator().manual_seed(1)
    )
    orders = [torch.cat([target for _, target in loader]) for _ in range(2)]
    assert all(torch.equal(order.sort().values, torch.arange(1000)) for order in orders)
    assert not torch.equal(*orders)


def random_transforms(count):
    """Angle, translation, scale and shear of `count` transforms, wider than any recipe's."""
    generator = torch.Generator().manual_seed(1)
    angle, dx, dy, scale, shear = (
        torch.empty(count).uniform_(low, high, generator=generator)
        for low, high in [(-30, 30), (-5, 5), (-5, 5), (0.7, 1.3), (-20, 20)]
    )
    return angle, torch.stack([dx, dy], dim=1).round(), scale, shear


def torchvisions(images, angle, translate, scale, shear, interpolation):
    """The same transforms by torchvision's `affine`, one image after the other."""
    return [
        torchvision_functional.affine(
            image,
            angle[i].item(),
            translate[i].tolist(),
            scale[i].item(),
            [shear[i].item(), 0.0],
            InterpolationMode(interpolation),
        )
        for i, image in enumerate(images)
    ]


# Interpolated values agree to 1e-3 of the range. With "nearest", positions within float32 rounding
# of a pixel's edge may go to either side: up to 1 pixel in 1,000 may differ (seen: 1 in 30,000).
@pytest.mark.parametrize("interpolation, share", [("nearest", 1e-3), ("bilinear", 0)])
def test_affine_agrees_with_torchvision(mnist, interpolation, share):
    images, transforms = mnist[0][0][:200], random_transforms(200)
    ours = affine(images, affine_matrices(*transforms), interpolation)
    theirs = torch.stack(torchvisions(images, *transforms, interpolation))
    assert ((ours - theirs).abs() > 1e-3).float().mean() <= share
    assert (ours - images).abs().mean() > 0.05  # it does transform


def test_a_shift_by_whole_pixels_moves_the_pixels_and_fills_with_0(mnist):
    image = mnist[0][0][:1]
    shift = affine_matrices(
        torch.zeros(1), torch.tensor([[2.0, -1.0]]), torch.ones(1), torch.zeros(1)
    )
    expected = torch.zeros_like(image)
    expected[..., :-1, 2:] = image[..., 1:, :-2]
    torch.testing.assert_close(affine(image, shift), expected)


def test_random_affine_draws_from_torchvisions_ranges():
    ours = RandomAffine(degrees=10, translate=(0.1, 0.05), scale=(0.8, 1.1), shear=7)
    generator = torch.Generator().manual_seed(1)
    matrices = ours.matrices(5_000, generator=generator).double()
    # Take the inverse matrices apart again: forward = R(angle) · scale · shear.
    forward = torch.linalg.inv(matrices[:, :, :2])
    angle = torch.rad2deg(torch.atan2(forward[:, 1, 0], forward[:, 0, 0]))
    scale = torch.linalg.det(forward).sqrt()
    shift = (forward @ -matrices[:, :, 2:]).squeeze(2) * 14
    tan = -(forward[:, 0, 0] * forward[:, 0, 1] + forward[:, 1, 0] * forward[:, 1, 1]) / scale**2
    shear = torch.rad2deg(torch.atan(tan))
    torch.manual_seed(1)
    theirs = [
        TorchvisionRandomAffine.get_params((-10, 10), (0.1, 0.05), (0.8, 1.1), (-7, 7), [28, 28])
        for _ in range(5_000)
    ]
    for mine, reference in [
        (angle, [t[0] for t in theirs]),
        (shift[:, 0], [t[1][0] for t in theirs]),
        (shift[:, 1], [t[1][1] for t in theirs]),
        (scale, [t[2] for t in theirs]),
        (shear, [t[3][0] for t in theirs]),
    ]:
        reference = torch.tensor(reference, dtype=torch.float64)
        width = (reference.max() - reference.min()).item()
        assert mine.min().item() == pytest.approx(reference.min().item(), abs=width / 200)
        assert mine.max().item() == pytest.approx(reference.max().item(), abs=width / 200)
        assert mine.mean().item() == pytest.approx(
            reference.mean().item(), abs=4 * width / math.sqrt(5_000)
        )
        assert mine.std().item() == pytest.approx(reference.std().item(), rel=0.04)
    assert torch.allclose(shift, shift.round(), atol=1e-4)  # whole pixels, as torchvision's
