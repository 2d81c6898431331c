"""READMEs and notebooks agree with the records, their links resolve, and their examples work."""

import ast
import re
import shutil

import nbformat
import pytest
from PIL import Image

from src.demo import page
from src.evidence import report, tables
from src.experiments import BASIC, STEPS, run
from src.models import MODELS

TEXTS = {path: path.read_text(encoding="utf-8") for path in report.TABLES}
TEXT = TEXTS[report.README]
IDS = {"ids": lambda path: str(path.relative_to(report.ROOT))}


def test_report_check_passes(cli):
    done = cli("report", "--check")
    assert done.status == 0 and "agree" in done.out, done.err


def altered(text, start):
    """The text with the first digit after `start` changed."""
    position = re.compile(r"\d").search(text, start).start()
    return text[:position] + str((int(text[position]) + 1) % 10) + text[position + 1 :]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of everything that `check` reads and `write` writes, in another root."""
    for name in ("images", "Notebooks"):
        shutil.copytree(report.ROOT / name, tmp_path / name)
    moved = {}
    for path, made in report.TABLES.items():
        new = tmp_path / path.relative_to(report.ROOT)
        new.parent.mkdir(exist_ok=True)
        new.write_text(TEXTS[path], encoding="utf-8")
        moved[new] = made
    monkeypatch.setattr(report, "TABLES", moved)
    monkeypatch.setattr(report, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(page, "PAGE", tmp_path / "index.html")
    shutil.copy(report.ROOT / "docs" / "index.html", page.PAGE)
    monkeypatch.setattr(report, "ROOT", tmp_path)
    return tmp_path


def test_check_names_everything_that_was_altered(copy):
    expected = []
    for path, made in report.TABLES.items():
        text = path.read_text(encoding="utf-8")
        for name in made:
            marker = f"<!-- generated: {name} -->"
            text = altered(text, text.index(marker) + len(marker))
            expected.append(f"{path.relative_to(copy)}, table {name!r}")
        path.write_text(text, encoding="utf-8")
    for name in report.PICTURES:
        path = copy / "images" / f"{name}.png"
        Image.open(path).save(path)  # without the data that it draws
        expected.append(f"images/{name}.png")
    text = page.PAGE.read_text(encoding="utf-8")
    page.PAGE.write_text(text.replace('"mean": 0', '"mean": 1'), encoding="utf-8")
    expected.append("docs/index.html")
    for step in STEPS:
        path = copy / "Notebooks" / f"MNIST_{step}.ipynb"
        text = path.read_text(encoding="utf-8")
        start = text.index("Loss=", text.index("EPOCH: 3"))
        path.write_text(altered(text, start), encoding="utf-8")
        expected.append(path.name)
    assert [fault.split(" does not")[0] for fault in report.check()] == expected


def test_what_another_processor_rounds_otherwise_agrees():
    data = report._round([{"a": (99.54, 0.0123456)}, {"seconds": 1.0}])
    assert data == report._round([{"a": [99.54 + 1e-9, 0.0123457]}, {"seconds": 2.0}])
    assert data != report._round([{"a": [99.55, 0.0123456]}, {}])


@pytest.mark.parametrize("path", TEXTS, **IDS)
def test_links_and_pictures_resolve(path):
    text = TEXTS[path]
    targets = re.findall(r"(?:\]\(|href=\"|src=\")([^)\"\s]+)", text)
    assert len(targets) >= 5
    for target in targets:
        file, _, heading = target.partition("#")
        if "://" in target:
            continue
        linked = path.parent / file if file else path
        assert linked.exists(), target
        if heading:
            lines = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            headings = {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
            assert heading in headings, target


def prose(text):
    """The sentences of a Markdown text: without code, tables, targets and generated parts."""
    text = re.sub(r"<!-- generated.*?<!-- end -->|```.*?```|<details>.*?</details>", "", text,
                  flags=re.DOTALL)  # fmt: skip
    text = re.sub(r"^\|.*$|`[^`]*`|\]\([^)]*\)", "", text, flags=re.MULTILINE)
    return text


NUMBER = re.compile(r"\d[\d,]*\.\d+|\d+ of \d+")
# Numbers that are not measured: the target, constants of the data, and the target of step 1.
GIVEN = {"99.4", "99.40", "97.96", "99.33", "99.44", "2.30", "3.11", "3.0"}


def evidence():
    return "\n".join(make() for made in report.TABLES.values() for make in made.values())


@pytest.mark.parametrize("path", TEXTS, **IDS)
def test_every_number_in_a_sentence_is_in_a_table(path):
    known = evidence().replace("−", "")
    missing = [number for number in NUMBER.findall(prose(TEXTS[path])) if number not in known]
    assert {*missing} <= GIVEN
    for paragraph in re.split(r"\n\n|\n- ", prose(TEXTS[path])):
        assert len(NUMBER.findall(paragraph)) <= 8, paragraph
        for sentence in re.split(r"[.:;](?:\s|$)", paragraph):
            assert len(NUMBER.findall(sentence)) <= 3, sentence


@pytest.mark.parametrize("step", STEPS)
def test_every_number_in_a_notebooks_sentence_is_in_a_table(step):
    cells = nbformat.read(report.notebook_path(step), as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    known = evidence().replace("−", "") + code
    for cell in cells:
        if cell.cell_type == "markdown":
            found = NUMBER.findall(prose(cell.source))
            assert {number for number in found if number not in known} <= GIVEN, cell.source


def test_the_readme_is_short_and_every_picture_is_generated_and_shown():
    unfolded = re.sub(r"<details>.*?</details>", "", TEXT, flags=re.DOTALL)
    assert len(unfolded.encode()) <= 9_000
    pictures = {f"{name}.png" for name in [*report.PICTURES, "page"]}  # that one is a screenshot
    assert {path.name for path in report.IMAGES.iterdir()} == pictures
    assert all(f"images/{name}" in "".join(TEXTS.values()) for name in pictures)
    code = re.findall(r"```bash.*?```", TEXT, re.DOTALL)
    assert max(len(line) for block in code for line in block.splitlines()) <= 110


def test_the_log_is_what_training_printed(results, capsys, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "1")
    _, record = run(BASIC)
    _, *printed, _ = capsys.readouterr().out.split("\n")  # without the line on the smoke test
    ours = tables.log(record).splitlines()
    for line, shown in zip(ours, [line.split("\r")[-1] for line in printed], strict=True):
        assert line.split("[")[0] == shown.split("[")[0]  # except the times of the bar


def test_the_examples_work_as_they_stand(results, monkeypatch, capsys):
    use, own = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    monkeypatch.setenv("MNIST_REDUCED", "1")
    monkeypatch.setitem(MODELS, "TinyNet", None)  # removed again after the test
    from src import store

    monkeypatch.setattr(store, "RESULTS", report.ROOT / "results")  # a smoke test records nothing
    exec(use, {})
    assert capsys.readouterr().out.startswith("tensor([7, 2, 1, 0, 4]) tensor([7, 2, 1, 0, 4])")
    scope = {}
    exec(own, scope)
    assert scope["record"]["recipe"]["model"] == "TinyNet"


def test_imports_point_downwards():
    floors = [
        *("data", "models", "device", "training", "store", "experiments", "plots"),
        *("demo.digits", "demo.page", "evidence.studies", "evidence.runner"),
        *("evidence.statistics", "evidence.figures", "evidence.benchmark", "evidence.tables"),
        *("evidence.report", "__main__"),
    ]
    source = report.ROOT / "src"
    found = {path: ".".join(path.relative_to(source).with_suffix("").parts)
             for path in source.rglob("*.py") if path.name != "__init__.py"}  # fmt: skip
    assert sorted(found.values()) == sorted(floors)
    for path, module in found.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, *(node.module or "").split(".")]).strip(".")
                names = {f"{base}.{name.name}".strip(".") for name in node.names} | {base}
                for name in names & set(floors):
                    assert floors.index(name) < floors.index(module), f"{module} imports {name}"
                    core = not module.startswith(("demo", "evidence", "__main__"))
                    assert not (core and name.startswith(("demo", "evidence")))


def test_no_function_is_long_and_none_has_many_parameters():
    sizes = {}
    for path in (report.ROOT / "src").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        sizes[path.relative_to(report.ROOT / "src").as_posix()] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                arguments = [*node.args.args, *node.args.kwonlyargs]
                arguments = [name for name in arguments if name.arg != "self"]
                assert node.end_lineno - node.lineno < 45 and len(arguments) <= 7, node.name
    read = ("data.py", "models.py", "training.py", "experiments.py")
    core = [size for name, size in sizes.items() if "/" not in name and name != "__main__.py"]
    assert sum(sizes[name] for name in read) <= 750 and sum(core) <= 1_250
    assert max(sizes.values()) <= 320 and sum(sizes.values()) <= 3_000
