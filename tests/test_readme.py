"""The READMEs agree with the records, their links and pictures resolve, and their examples work."""

import ast
import re

import pytest
import torch
from PIL import Image

from src.demo import page
from src.evidence import report
from src.experiments import BASIC, run
from src.models import MODELS

TEXTS = {path: path.read_text(encoding="utf-8") for path in report.PARTS}
TEXT = TEXTS[report.README]


def test_report_check_passes(cli):
    done = cli("report", "--check")
    assert done.status == 0 and "agree" in done.out, done.err


def altered(text, start):
    """The text with the first digit after `start` changed."""
    position = re.compile(r"\d").search(text, start).start()
    return text[:position] + str((int(text[position]) + 1) % 10) + text[position + 1 :]


def test_check_names_every_part_and_picture_that_was_altered(tmp_path, monkeypatch):
    expected = []
    for path, parts in report.PARTS.items():
        text = TEXTS[path]
        for name in parts:
            marker = f"<!-- generated: {name} -->"
            text = altered(text, text.index(marker) + len(marker))
            expected.append(f"{path.relative_to(report.ROOT)}, part {name!r}")
        copy = tmp_path / path.relative_to(report.ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text, encoding="utf-8")
    for name in report.PICTURES:
        (tmp_path / "images").mkdir(exist_ok=True)
        picture = f"images/{name}.png"
        Image.open(report.ROOT / picture).save(tmp_path / picture)  # without the digest of its data
        expected.append(picture)
    monkeypatch.setattr(
        report,
        "PARTS",
        {tmp_path / path.relative_to(report.ROOT): parts for path, parts in report.PARTS.items()},
    )
    monkeypatch.setattr(report, "IMAGES", tmp_path / "images")
    notebooks = {step: report.notebook_path(step) for step in report.STEPS}
    monkeypatch.setattr(report, "notebook_path", notebooks.get)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    monkeypatch.setattr(page, "PAGE", tmp_path / "index.html")
    page.PAGE.write_text(
        page.make(report.page_numbers()).replace('content="', 'content="0'), encoding="utf-8"
    )
    expected.append("docs/index.html")
    assert [fault.split(" does not")[0] for fault in report.check()] == expected


@pytest.mark.parametrize("figure", ["Accuracy=", "Average loss: ", "| 0.002 | ", "run (seed "])
def test_check_names_the_notebook_that_shows_another_run(figure, tmp_path, monkeypatch):
    path = report.notebook_path("basic")
    copy = tmp_path / path.name
    start, _, rest = path.read_text(encoding="utf-8").rpartition(figure)
    copy.write_text(start + figure + str((int(rest[0]) + 1) % 10) + rest[1:], encoding="utf-8")
    monkeypatch.setattr(report, "STEPS", {"basic": BASIC})
    monkeypatch.setattr(report, "PARTS", {})
    monkeypatch.setattr(report, "PICTURES", {})
    monkeypatch.setattr(report, "notebook_path", lambda step: copy)
    assert [fault.split()[0] for fault in report.check()] == [path.name]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(report.ROOT)))
def test_links_and_pictures_resolve(path):
    text = TEXTS[path]
    targets = re.findall(r"(?:\]\(|href=\"|src=\")([^)\"\s]+)", text)
    assert len(targets) >= 5
    for target in targets:
        file, _, heading = target.partition("#")
        if "://" not in target:
            linked = path.parent / file if file else path
            assert linked.exists(), target
            if heading:
                headings = {
                    re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-")
                    for line in re.findall(
                        r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE
                    )
                }
                assert heading in headings, target


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(report.ROOT)))
def test_numbers_stay_on_one_line_with_their_units_and_commands_are_short(path):
    code = re.findall(r"```.*?```", TEXTS[path], re.DOTALL)
    prose = re.sub(r"```.*?```|`[^`]*`", "", TEXTS[path], flags=re.DOTALL)
    assert re.findall(r"\d (?:%|pp\b)|\d ± \d", prose) == []
    assert (
        max(
            (
                len(line)
                for block in code
                if block.startswith("```bash")
                for line in block.splitlines()
            ),
            default=0,
        )
        <= 110
    )


def test_the_readme_is_short_and_every_picture_is_generated_and_shown():
    unfolded = re.sub(r"<details>.*?</details>", "", TEXT, flags=re.DOTALL)
    assert len(unfolded.encode()) <= 10_000
    pictures = {f"{name}.png" for name in [*report.PICTURES, "page"]}  # that one is a screenshot
    assert {path.name for path in report.IMAGES.iterdir()} == pictures
    assert all(f"images/{name}" in "".join(TEXTS.values()) for name in pictures)


def test_the_log_is_what_training_printed(results, capsys, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    _, record = run(BASIC)
    printed = capsys.readouterr().out.split("\n")
    for ours, line in zip(
        report.log(record).splitlines(),
        [line.split("\r")[-1] for line in printed[:-1]],
        strict=True,
    ):
        assert (
            ours.split("[")[0] == line.split("[")[0]
        )  # except the times, which the bar measures itself


def examples(heading):
    """The Python examples below a heading of the README."""
    section = TEXT[TEXT.index(heading) :]
    return re.findall(r"```python\n(.*?)```", section[: section.index("\n## ")], re.DOTALL)


def test_make_it_your_own_works_as_it_stands(results, monkeypatch, capsys):
    (script,) = examples("## Make it your own")
    monkeypatch.setenv("MNIST_REDUCED", "1")
    monkeypatch.setitem(MODELS, "TinyNet", None)  # removed again after the test
    scope = {}
    exec(script, scope)
    assert (
        scope["record"]["recipe"]["model"] == "TinyNet" and "Test set: " in capsys.readouterr().out
    )


def test_the_trained_network_is_one_line():
    (line,) = re.findall(r"^from src import load_model\nmodel = .*$", TEXT, re.MULTILINE)
    scope = {}
    exec(line, scope)
    assert (
        scope["model"](torch.zeros(2, 1, 28, 28)).shape == (2, 10) and not scope["model"].training
    )


def test_the_core_does_not_import_the_evidence():
    for path in (report.ROOT / "src").glob("*.py"):
        imported = {
            f"{getattr(node, 'module', None) or ''}.{name.name}"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in node.names
        }
        assert path.name == "__main__.py" or not any("evidence" in name for name in imported), (
            path.name
        )
