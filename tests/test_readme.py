"""READMEs and notebooks agree with the records, their links resolve, and their examples work."""

import ast
import json
import re
import shutil

import pytest
from PIL import Image

from src import store
from src.demo import build_page
from src.evidence import report, tables
from src.experiments import REGULARIZATION, run
from src.models import MODELS

READMES = {path: path.read_text(encoding="utf-8") for path in report.TABLES}
README = READMES[report.README]


def read_sentences(notebook):
    """The Markdown cells of a notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


TEXTS = READMES | {path: read_sentences(path) for path in report.NOTEBOOKS.values()}
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
    """A copy of everything that `check` reads, in another root."""
    texts = [path.relative_to(report.ROOT).as_posix() for path in report.TABLES]
    for name in (*texts, "images", "Notebooks", "docs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        make_copy = shutil.copytree if (report.ROOT / name).is_dir() else shutil.copy
        make_copy(report.ROOT / name, tmp_path / name)

    def moved(paths):
        return {tmp_path / path.relative_to(report.ROOT): value for path, value in paths.items()}

    monkeypatch.setattr(report, "TABLES", moved(report.TABLES))
    notebooks = {
        step: tmp_path / "Notebooks" / path.name for step, path in report.NOTEBOOKS.items()
    }
    monkeypatch.setattr(report, "NOTEBOOKS", notebooks)
    monkeypatch.setattr(report, "IMAGES", tmp_path / "images")
    monkeypatch.setattr(build_page, "PAGE", tmp_path / "docs" / "index.html")
    monkeypatch.setattr(report, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", READMES, **IDS)
def test_every_table_that_is_marked_as_generated_is(path):
    marked = re.findall(r"<!-- generated: (.+?) -->", READMES[path])
    assert sorted(marked) == sorted(report.TABLES[path])


def test_check_names_everything_that_was_altered(copy):
    expected = []
    for path, makers in report.TABLES.items():
        text = path.read_text(encoding="utf-8")
        for name in makers:
            marker = f"<!-- generated: {name} -->"
            text = altered(text, text.index(marker) + len(marker))
            expected.append(f"{path.relative_to(copy)}, table {name!r}")
        if quotation := re.search(r"<!-- \w+/[^<>]* -->", text):
            text = altered(text, quotation.end())
            expected.append(f"{path.relative_to(copy)}, a number in a sentence")
        path.write_text(text, encoding="utf-8")
    for name in report.PICTURES:
        path = copy / "images" / f"{name}.png"
        Image.open(path).save(path)  # without the data that it draws
        expected.append(f"images/{name}.png")
    text = build_page.PAGE.read_text(encoding="utf-8")
    build_page.PAGE.write_text(text.replace('"mean": 0', '"mean": 1'), encoding="utf-8")
    expected.append("docs/index.html")
    for path in report.NOTEBOOKS.values():
        text = path.read_text(encoding="utf-8")
        text = altered(text, text.index("Loss=", text.index("EPOCH: 3")))
        text = altered(text, text.index(" -->", text.index("/last -->")))
        expected.append(f"Notebooks/{path.name}, a number in a sentence")
        if '"Markdown(table(' in text:
            text = altered(text, text.index("| 0.002 |") + len("| 0.002 |"))
            expected.append(f"Notebooks/{path.name}, a table")
        label = '"label": "'
        text = altered(text, text.index(label) + len(label))
        expected.append(f"Notebooks/{path.name}, a picture of records")
        expected.append(f"Notebooks/{path.name}, its training log")
        path.write_text(text, encoding="utf-8")
    assert [fault.split(" does not")[0] for fault in report.check()] == expected


def test_check_names_weights_that_are_not_those_of_the_record(copy, monkeypatch):
    results = copy / "results"
    private = shutil.ignore_patterns("local", ".lock")
    shutil.copytree(store.EVIDENCE, results, ignore=private, dirs_exist_ok=True)
    monkeypatch.setattr(store, "EVIDENCE", results)
    shutil.copy(results / "basic.pt", results / "regularization.pt")
    (fault,) = report.check()
    assert fault.startswith("results/regularization.pt does not hold the weights of its record")


def test_write_publishes_first_and_mends_what_check_names(copy, monkeypatch):
    order = []

    load_rows = report.load_rows

    def load_and_note():
        order.append("load_rows")
        return load_rows()

    monkeypatch.setattr(report, "publish", lambda: order.append("publish"))
    monkeypatch.setattr(report.behaviour, "update", lambda: order.append("update"))
    monkeypatch.setattr(report, "load_rows", load_and_note)
    path = copy / "README.md"
    text = path.read_text(encoding="utf-8")
    path.write_text(altered(text, text.index("/mean last -->")), encoding="utf-8")
    build_page.PAGE.write_text("old", encoding="utf-8")
    (copy / "images" / "steps.png").unlink()
    with monkeypatch.context() as quick:
        quick.setattr(report, "PICTURES", {"steps": report.PICTURES["steps"]})
        report.write()
    assert order == ["publish", "update", "load_rows"]
    assert report.check() == []


def test_a_sentence_that_names_a_picture_draws_none(copy):
    for path in report.NOTEBOOKS.values():
        notebook = json.loads(path.read_text(encoding="utf-8"))
        notebook["cells"][0]["source"].append('\n\n`draw("steps")` draws a picture.')
        path.write_text(json.dumps(notebook), encoding="utf-8")
    assert report.check() == []


def test_a_new_line_of_the_log_that_the_pattern_leaves_out_is_named(monkeypatch):
    format_log = tables.format_log
    changed = lambda record: format_log(record).replace("\nTest set", "\nRate: 0.1\nTest set")
    monkeypatch.setattr(tables, "format_log", changed)
    faults = [fault for fault in report.check() if "README" not in fault]
    assert len(faults) == len(report.NOTEBOOKS)
    assert all("matches the pattern of report._log_lines" in fault for fault in faults)


def test_a_notebook_holds_the_label_of_a_picture_that_it_draws():
    label = report.draw("scheduler").get_label()
    notebook = report.NOTEBOOKS["regularization"].read_text(encoding="utf-8")
    assert label and f'"label": "{label}"' in notebook


def test_a_smoke_test_is_not_published(copy, smoke, capsys):
    path = copy / "README.md"
    path.write_text("altered", encoding="utf-8")
    report.write()
    assert path.read_text(encoding="utf-8") == "altered"
    assert "MNIST_REDUCED is set" in capsys.readouterr().err


def test_writing_numbers_keeps_the_format_of_a_notebook(copy):
    for path in report.NOTEBOOKS.values():
        before = path.read_bytes()
        report._write_numbers(path, report.named_values(report.load_rows()))
        assert path.read_bytes() == before


def test_the_package_is_described_as_it_is():
    package = report.ROOT / "src"
    text = (package / "README.md").read_text(encoding="utf-8")
    written = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|js))`", text))
    paths = [path for path in package.rglob("*.*") if path.suffix in (".py", ".js")]
    for path in paths:
        if path.name != "__init__.py":
            assert path.name in {name.split("/")[-1] for name in written}, path
    for name in written:
        folders = report.ROOT, package, package / "demo", package / "evidence"
        assert any((folder / name).exists() for folder in folders), name
    paths += [*(report.ROOT / "tests").glob("*.py"), *package.rglob("*.html")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in paths)
    for name in re.findall(r"`(?:\w+\.)?(\w{3,})`", text):  # functions, classes and tables
        assert re.search(rf"\b{name}\b", code), name


@pytest.mark.parametrize("path", TEXTS, **IDS)
def test_links_and_pictures_resolve(path):
    targets = re.findall(r"(?:\]\(|href=\"|src=\")([^)\"\s]+)", TEXTS[path])
    assert targets
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
    blocks = r"<!-- generated.*?<!-- end -->|```.*?```|<details>.*?</details>"
    text = re.sub(blocks, "", text, flags=re.DOTALL)
    text = re.sub(r"<!-- [^<>]* -->", "", text)  # around quoted numbers
    return re.sub(r"^\|.*$|`[^`]*`|\]\([^)]*\)", "", text, flags=re.MULTILINE)


NUMBER = re.compile(r"\d[\d,]*\.\d+|\d+ of \d+")


@pytest.mark.parametrize("path", READMES, **IDS)
def test_no_sentence_has_many_numbers(path):
    for paragraph in re.split(r"\n\n|\n- ", prose(READMES[path])):
        assert len(NUMBER.findall(paragraph)) <= 8, paragraph
        for sentence in re.split(r"[.:;](?:\s|$)", paragraph):
            assert len(NUMBER.findall(sentence)) <= 3, sentence


def test_the_readme_is_short_and_every_picture_is_generated_and_shown():
    unfolded = re.sub(r"<details>.*?</details>", "", README, flags=re.DOTALL)
    visible = re.sub(r"<!-- [^<>]* -->", "", unfolded)
    assert len(visible.encode()) <= 8_000
    pictures = {f"{name}.png" for name in [*report.PICTURES, "page"]}  # that one is a screenshot
    assert {path.name for path in report.IMAGES.iterdir()} == pictures
    texts = "".join(READMES.values())
    hidden = [name for name in pictures if f"images/{name}" not in texts]
    assert not hidden, "no README shows them"
    code = re.findall(r"```bash.*?```", README, re.DOTALL)
    assert max(len(line) for block in code for line in block.splitlines()) <= 110


def test_the_log_is_what_training_printed(few_images, output, capsys, monkeypatch):
    monkeypatch.setenv("MNIST_REDUCED", "2")  # epochs; the learning rate changes with every batch
    _, record = run(REGULARIZATION)
    # Without the line on the smoke test, and without the summary.
    _, *printed, _, _ = capsys.readouterr().out.split("\n")
    ours = tables.format_log(record).splitlines()
    for line, shown in zip(ours, [line.split("\r")[-1] for line in printed], strict=True):
        assert line.split("[")[0] == shown.split("[")[0]  # except the times of the bar


def test_the_examples_work_as_they_stand(monkeypatch, smoke, output, capsys):
    monkeypatch.setitem(MODELS, "TinyNet", None)  # removed again after the test
    use, own = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(use, {})
    assert capsys.readouterr().out.startswith("tensor([7, 2, 1, 0, 4]) tensor([7, 2, 1, 0, 4])")
    exec(own, scope := {})
    assert scope["record"]["recipe"]["model"] == "TinyNet"


FLOORS = [
    *("errors", "data", "models", "device", "store", "provenance"),
    *("training", "recipes", "experiments", "plots"),
    *("demo.ink", "demo.digits", "demo.build_page", "evidence.measures"),
    *("evidence.study", "evidence.original", "evidence.selection"),
    *("evidence.studies", "evidence.misclassified", "evidence.records", "evidence.rows"),
    *("evidence.runner", "evidence.robustness", "evidence.compared"),
    *("evidence.behaviour", "evidence.usual_pipeline", "evidence.benchmark"),
    *("evidence.publish", "evidence.formats", "evidence.tables", "evidence.values"),
    *("evidence.pictures", "evidence.report", "__main__"),
]
SOURCES = {
    ".".join(path.relative_to(report.ROOT / "src").with_suffix("").parts): path.read_text("utf-8")
    for path in (report.ROOT / "src").rglob("*.py")
    if path.name != "__init__.py"
}


def test_imports_point_downwards():
    assert sorted(SOURCES) == sorted(FLOORS)
    for module, text in SOURCES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, *(node.module or "").split(".")]).strip(".")
                names = {f"{base}.{name.name}".strip(".") for name in node.names} | {base}
                for name in names & set(FLOORS):
                    assert FLOORS.index(name) < FLOORS.index(module), f"{module} imports {name}"
                    core = not module.startswith(("demo", "evidence", "__main__"))
                    assert not (core and name.startswith(("demo", "evidence")))


def test_every_file_of_the_evidence_is_described():
    text = READMES[report.RESULTS / "README.md"]
    paths = [path for path in report.RESULTS.iterdir() if path.is_file()]
    files = {path.name for path in paths if not path.name.startswith(".")}
    assert {name for name in files - {"README.md"} if f"`{name}`" not in text} == set()


def test_the_modules_that_name_files_of_records_are_listed():
    text = (report.ROOT / "src" / "README.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^### The format of the records\n(.*?)^### ", text, re.M | re.S)
    naming = {module.split(".")[-1] for module, code in SOURCES.items() if ".jsonl" in code}
    listed = {name.split("/")[-1] for name in re.findall(r"`([\w/]+)\.py`", section)}
    assert listed - {"store", "test_store"} == naming, "src/README.md lists others"
