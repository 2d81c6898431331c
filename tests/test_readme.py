"""The README agrees with the records, and its links and pictures resolve."""

import re

import pytest
from PIL import Image

from src import report
from src.experiments import BASIC, run

TEXT = report.README.read_text(encoding="utf-8")


def test_report_check_passes(command):
    done = command("-m", "src", "report", "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", report.PARTS)
def test_check_names_the_part_that_was_altered(name, tmp_path, monkeypatch):
    marker = f"<!-- generated: {name} -->"
    position = re.compile(r"\d").search(TEXT, TEXT.index(marker) + len(marker)).start()
    altered = tmp_path / "README.md"
    altered.write_text(TEXT[:position] + str((int(TEXT[position]) + 1) % 10) + TEXT[position + 1:], encoding="utf-8")
    monkeypatch.setattr(report, "README", altered)
    faults = report.check()
    assert len(faults) == 1 and repr(name) in faults[0]


def test_check_names_the_picture_that_shows_other_data(tmp_path, monkeypatch):
    for name in report.PICTURES:
        Image.open(report.IMAGES / name).save(tmp_path / name)  # without the digest of its data
    monkeypatch.setattr(report, "IMAGES", tmp_path)
    assert [fault.split()[0] for fault in report.check()] == [f"images/{name}" for name in report.PICTURES]


def test_links_and_pictures_resolve():
    targets = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert len(targets) > 20
    headings = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                for heading in re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)}
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (report.ROOT / target).exists(), target


def test_every_picture_is_shown_and_generated():
    assert {path.name for path in report.IMAGES.iterdir()} == set(report.PICTURES)
    assert all(f"](images/{name})" in TEXT for name in report.PICTURES)


@pytest.mark.parametrize("figure", ["Accuracy=", "Average loss: ", "| 0.002 | ", "seeds, worst of the last five epochs "])
def test_check_names_the_notebook_that_shows_another_run(figure, tmp_path, monkeypatch):
    path = report.notebook_path("basic")
    altered = tmp_path / path.name
    start, _, rest = path.read_text(encoding="utf-8").rpartition(figure)
    altered.write_text(start + figure + str((int(rest[0]) + 1) % 10) + rest[1:], encoding="utf-8")
    find = report.notebook_path
    monkeypatch.setattr(report, "notebook_path", lambda step: altered if step == "basic" else find(step))
    assert [fault.split()[0] for fault in report.check()] == [path.name]


def test_log_is_what_training_printed(capsys, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    _, record = run(BASIC)
    printed = capsys.readouterr().out.split("\n")
    for ours, line in zip(report.log(record).splitlines(), [line.split("\r")[-1] for line in printed[:-1]], strict=True):
        assert ours.split("[")[0] == line.split("[")[0]  # but for the seconds, which the bar takes itself


def test_make_it_your_own_works_as_it_stands(command, tmp_path):
    section = TEXT[TEXT.index("## Make it your own"):]
    (script,) = re.findall(r"```python\n(.*?)```", section[:section.index("\n## ")], re.DOTALL)
    done = command("-c", script + "print(sum(parameter.numel() for parameter in model.parameters()), record['recipe']['model'])",
                   MNIST_REDUCED="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(" TinyNet") and "Test set: " in done.stdout


def test_the_trained_network_is_one_line(command):
    (line,) = re.findall(r"^from src import load_model\nmodel = .*$", TEXT, re.MULTILINE)
    done = command("-c", line + "\nimport torch\nprint(tuple(model(torch.zeros(2, 1, 28, 28)).shape), model.training)")
    assert done.stdout == "(2, 10) False\n", done.stderr
