"""Every number in a sentence is quoted from the records, or listed as one that is not measured.

`plain_numbers.json` lists the latter, such as limits, settings and years, in the order of the text.
A changed sentence needs its numbers changed there, too: no number changes unnoticed.
`pytest tests/test_numbers.py --update-numbers` writes the list; read what changed in it.
"""

import difflib
import json
import re
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import pytest
from conftest import history

from src import store
from src.evidence.report import NOTEBOOKS, ROOT, TABLES
from src.evidence.rows import load_rows
from src.evidence.studies import STUDIES
from src.evidence.study import Study
from src.evidence.values import fill_in, named_values, quote_row
from src.experiments import BASIC

LIST = Path(__file__).with_name("plain_numbers.json")
DOCUMENTS = [path.relative_to(ROOT).as_posix() for path in (*TABLES, *NOTEBOOKS.values())]
NUMBER = re.compile(r"(?<!\w)\d+(?:[.,]\d+)*")  # not in names such as float32
QUOTATION = r"<!-- [^<>]+ -->[^<>]*<!-- -->"
NOT_PROSE = [
    r"^<!-- generated: .*?^<!-- end -->$",
    r"^```.*?^```$",  # code
    r"`[^`]*`",
    r"^\|[^\n]*$",  # a line of a table
    r"\]\([^)]*\)",  # the target of a link
    r"<[a-z/!][^>]*>",  # HTML with its attributes, and comments
]


@cache
def load_values():
    return named_values(load_rows())


def read_text(name):
    """The Markdown of a document; of a notebook, that of its Markdown cells."""
    text = (ROOT / name).read_text(encoding="utf-8")
    if name.endswith(".md"):
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


def blank_out(pattern, text):
    """Spaces in place of what matches, so that everything else keeps its position."""
    options = re.MULTILINE | re.DOTALL
    return re.sub(pattern, lambda match: re.sub(r"\S", " ", match[0]), text, flags=options)


def blank_all_but_prose(text):
    for pattern in NOT_PROSE:
        text = blank_out(pattern, text)
    return text


def find_plain_numbers(text):
    """The numbers of the sentences that are not quoted."""
    return NUMBER.findall(blank_all_but_prose(blank_out(QUOTATION, text)))


def raise_last_digit(text, end):
    """The text with the digit before this position raised by one, 9 to 0."""
    digit = (int(text[end - 1]) + 1) % 10
    return f"{text[: end - 1]}{digit}{text[end:]}"


def test_plain_numbers_are_those_of_the_list(pytestconfig):
    found = {name: find_plain_numbers(read_text(name)) for name in DOCUMENTS}
    text = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    if pytestconfig.getoption("update_numbers"):
        LIST.write_text(text, encoding="utf-8", newline="\n")
    listed = LIST.read_text(encoding="utf-8")
    changes = difflib.unified_diff(listed.splitlines(), text.splitlines(), lineterm="")
    advice = "if this is right, run pytest tests/test_numbers.py --update-numbers"
    assert text == listed, "\n".join([*changes, advice])


@pytest.mark.parametrize("name", DOCUMENTS)
def test_quoted_numbers_are_what_the_records_say(name):
    text = read_text(name)
    assert fill_in(text, load_values(), name) == text


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_changed_number_is_noticed(name):
    text = read_text(name)
    plain = find_plain_numbers(text)
    for number in NUMBER.finditer(blank_all_but_prose(text)):
        changed = raise_last_digit(text, number.end())
        is_plain = find_plain_numbers(changed) != plain
        is_quoted = fill_in(changed, load_values(), name) != changed
        rest = text[number.start() : number.end() + 60]
        assert is_plain or is_quoted, f"nothing notices a change of the first number in {rest!r}"


def test_an_unknown_name_is_an_error():
    text = "It weighs <!-- step 3/weight -->1<!-- --> kg."
    with pytest.raises(ValueError, match="README.md quotes 'step 3/weight', but no record has"):
        fill_in(text, {"step 3/size": "2"}, "README.md")


def test_a_single_seed_has_no_interval(evidence, monkeypatch):
    recipes = {size: replace(BASIC, batch_size=int(size)) for size in ("128", "256")}
    monkeypatch.setitem(STUDIES, "one", Study("?", "x", recipes, "128", seeds=1))
    for recipe in recipes.values():
        run = {"seed": 1, "device": "cpu", "torch": "2.9.1", "history": history(*[99.5] * 5)}
        record = {"recipe": asdict(recipe), **run}
        store.append_records(store.EVIDENCE / "study.jsonl", [record])
    values = quote_row(load_rows(["one"])["one"]["256"])
    assert values["size"] == "0.00" and "interval" not in values


def test_an_exercise_that_diverges_has_no_numbers(evidence):
    recipe = asdict(replace(BASIC, name="exercise 1.2"))
    record = {"recipe": recipe, "seed": 1, "device": "cpu", "torch": "2.9.1", "history": []}
    store.append_records(store.EVIDENCE / "exercises.jsonl", [record])
    assert not any(name.startswith("exercise") for name in named_values(load_rows()))
