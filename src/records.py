"""The records in `results/`: one line of JSON per finished run."""

import json
import os
from pathlib import Path

from filelock import FileLock

RESULTS = Path(__file__).parent.parent / "results"


def key(record: dict) -> str:
    """What makes a run one and the same: its recipe (whatever its name) and its seed."""
    recipe = {field: value for field, value in record["recipe"].items() if field != "name"}
    return json.dumps([recipe, record["seed"]], sort_keys=True)


def load(file: str) -> dict[str, dict]:
    """The records of `results/<file>.jsonl` by their keys; none where there is no such file."""
    try:
        lines = (RESULTS / f"{file}.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    return {key(record): record for record in map(json.loads, lines)}


def save(file: str, record: dict) -> None:
    """Add a record to `results/<file>.jsonl`, in place of an earlier one of the same recipe and seed.

    Processes that save at once wait for each other, and a reader never sees half a file.
    """
    RESULTS.mkdir(exist_ok=True)
    with FileLock(RESULTS / ".lock"):
        text = "".join(json.dumps(kept) + "\n" for kept in {**load(file), key(record): record}.values())
        new = RESULTS / f".{file}.jsonl.new"
        new.write_text(text, encoding="utf-8")
        os.replace(new, RESULTS / f"{file}.jsonl")
