"""Transformed test images are what they say, and what the compared networks reach is recorded."""

import re
from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode, functional

from src import provenance, store
from src.evidence import compared, pictures, publish, robustness, tables
from src.evidence.robustness import STRENGTHS
from src.experiments import load_model


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.mark.parametrize("name, angle, shear", [("rotation", 20, 0), ("shear", 0, 20)])
def test_rotation_and_shear_are_torchvisions(name, angle, shear, mnist):
    images = mnist[1][0][:5]
    bilinear = InterpolationMode.BILINEAR
    expected = functional.affine(images, angle, [0, 0], 1.0, [shear, 0.0], bilinear)
    found = robustness.distort(images, f"{name} (degrees)", 20)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_a_distortion_goes_in_both_directions_where_it_has_two(mnist):
    images, labels = (part[:5] for part in mnist[1])
    shifted, twice = robustness.distort_both_ways(images, labels, "shift (pixels)", 4)
    moved = [F.pad(images, (n, -n, n, -n)) for n in (4, -4)]
    torch.testing.assert_close(shifted, torch.cat(moved), atol=1e-4, rtol=0)
    assert torch.equal(twice, labels.repeat(2))
    for distortion, strength in (("scale", 1.2), ("rotation (degrees)", 0)):
        once, _ = robustness.distort_both_ways(images, labels, distortion, strength)
        assert len(once) == 5


def test_the_accuracy_is_the_share_of_right_answers_in_percent(mnist):
    class Zero(torch.nn.Module):  # sees a zero in every image
        def forward(self, images):
            return torch.eye(10)[:1].repeat(len(images), 1).log()

    images, labels = (part[:200] for part in mnist[1])
    accuracy = robustness.measure_accuracy(Zero(), images, labels)
    assert accuracy == pytest.approx((labels == 0).sum().item() / 2)


def test_distortions_move_the_ink_as_they_say(mnist):
    images = mnist[1][0][:20]
    for distortion, strengths in STRENGTHS.items():
        none = 1.0 if distortion == "scale" else 0.0
        assert none in strengths
        torch.testing.assert_close(
            robustness.distort(images, distortion, none), images, atol=1e-4, rtol=0
        )
    shifted = robustness.distort(images, "shift (pixels)", 2)
    torch.testing.assert_close(shifted[..., 2:, 2:], images[..., :-2, :-2], atol=1e-4, rtol=0)
    smaller = robustness.distort(images, "scale", 0.6).mean() / images.mean()
    assert smaller.item() == pytest.approx(0.36, abs=0.05)


def test_augmentation_makes_the_network_robust(mnist):
    images, labels = (part[:300] for part in mnist[1])
    models = {step: load_model(step) for step in ("regularization", "augmentation")}
    step2, step3 = (
        robustness.measure_robustness(model, images, labels) for model in models.values()
    )
    assert step3["scale"][2][0] == 1 and step3["scale"][2][1] > 98  # as they are
    turned2, turned3 = (dict(curves["rotation (degrees)"]) for curves in (step2, step3))
    assert sum(turned3.values()) / 5 > sum(turned2.values()) / 5 + 2


@pytest.fixture
def two_networks(monkeypatch, tiny, output, evidence):
    """Two networks with two seeds, trained in a second each, and tested on a few images."""
    recipes = {"one": tiny, "other": replace(tiny, batch_size=256)}
    study = replace(compared.COMPARED, experiments=recipes, seeds=2)
    for module in (compared, publish):
        monkeypatch.setattr(module, "COMPARED", study)
    load = compared.load_mnist
    monkeypatch.setattr(compared, "load_mnist", lambda device: load(device=device, limit=50))


def test_compared_networks_are_trained_once_and_shown_when_they_are_published(two_networks, cli):
    assert cli("robustness", "--device", "cpu").out.count("EPOCH: 1") == 4
    assert compared.load_compared() == {}  # what is run is the reader's
    publish.publish()
    publish.publish()
    assert len((store.EVIDENCE / "robustness.jsonl").read_text("utf-8").splitlines()) == 4
    assert cli("robustness", "--device", "cpu").out == ""
    networks = compared.load_compared()
    assert list(networks) == ["one", "other"]
    one, other = (
        [dict(record["robustness"]["shift (pixels)"])[0] for record in records]
        for records in networks.values()
    )
    assert len(one) == len(other) == 2
    lines = tables.robustness_table({}).splitlines()
    assert lines[0] == "| distortion | strength | one (%) | other (%) |"
    assert f"| shift (pixels) | 0 | {sum(one) / 2:.1f} | {sum(other) / 2:.1f} |" in lines


def test_more_seeds_are_added_to_those_that_are_recorded(two_networks, cli, monkeypatch):
    with monkeypatch.context() as once:
        once.setattr(compared, "COMPARED", replace(compared.COMPARED, seeds=1))
        assert cli("robustness", "--device", "cpu").out.count("EPOCH: 1") == 2
    out = cli("robustness", "--device", "cpu").out
    assert re.findall(r".*, seed \d:", out) == ["one, seed 2:", "other, seed 2:"]


def test_the_picture_shows_mean_and_range_of_the_seeds():
    def curves(accuracy):
        return {name: [(x, accuracy) for x in values] for name, values in STRENGTHS.items()}

    networks = {"one": [curves(90), curves(96)], "other": [curves(80)]}
    panels = pictures.robustness(networks).axes
    assert [axes.get_xlabel() for axes in panels] == list(STRENGTHS)
    for axes in panels:
        assert [line.get_ydata()[0] for line in axes.lines] == [93, 80]
        ranges = [area.get_paths()[0].get_extents() for area in axes.collections]
        assert [(extent.ymin, extent.ymax) for extent in ranges] == [(90, 96), (80, 80)]


def test_compared_networks_of_another_version_are_not_mixed(two_networks):
    compared.run_compared("cpu")
    file = compared.ROBUSTNESS_FILE
    one, *others = store.load_records(store.OUTPUT / file).values()
    store.append_records(store.EVIDENCE / file, [{**one, "torch": "1.0.0"}, *others])
    seeds = {name: [run["seed"] for run in runs] for name, runs in compared.load_compared().items()}
    assert seeds == {"one": [2], "other": [1, 2]}


def test_a_smoke_test_of_the_compared_networks_records_nothing(two_networks, smoke):
    compared.run_compared("cpu")
    assert not (store.OUTPUT / compared.ROBUSTNESS_FILE).exists()


def test_compared_networks_of_uncommitted_code_are_trained_again_at_the_next_commit(
    two_networks, monkeypatch, cli
):
    for commit, trained in (("0-dirty", 4), ("0-dirty", 0), ("1", 4), ("2", 0)):
        monkeypatch.setattr(provenance, "COMMIT", commit)
        assert cli("robustness", "--device", "cpu").out.count("EPOCH: 1") == trained
    publish.publish()
    assert len(compared.load_compared()) == 2


def test_more_networks_than_can_be_told_apart_are_refused():
    curves = {str(number): {} for number in range(5)}
    with pytest.raises(ValueError, match="there are styles for 4 networks, not for 5"):
        pictures.robustness(curves)
