"""The records in `results/`: one line of JSON per finished run."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

RESULTS = Path(__file__).parent.parent / "results"
VERSION = 1  # of a record


def key(record: dict) -> str:
    """What makes a run one and the same: its recipe (whatever its name) and its seed."""
    recipe = {field: value for field, value in record["recipe"].items() if field != "name"}
    return json.dumps([recipe, record["seed"]], sort_keys=True)


def load(file: str) -> dict[str, dict]:
    """The records of `results/<file>.jsonl` by their keys; none where there is no such file.

    A line that is no record, such as a torn one, is left out and named on standard error: its run counts as missing. Raises
    RuntimeError for a record of a newer version.
    """
    path = RESULTS / f"{file}.jsonl"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return {}
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            version, name, whole = record["version"], key(record), isinstance(record["history"], list)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            whole = False
        if not whole or not isinstance(version, int):
            print(f"{path.name}, line {number}: no whole record; its run counts as missing", file=sys.stderr)
        elif version > VERSION:
            raise RuntimeError(f"{path.name}, line {number}: a record of version {version}; this program knows those up to "
                               f"{VERSION}, and has to be updated")
        else:
            found[name] = record
    return found


def save(file: str, record: dict) -> None:
    """Add a record to `results/<file>.jsonl`, in place of an earlier one of the same recipe and seed.

    Processes that save at once wait for each other, and a reader never sees half a file. Raises OSError where it cannot be
    written; what was recorded before is then as it was.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    with FileLock(RESULTS / ".lock"), replacing(RESULTS / f"{file}.jsonl") as new:
        lines = [json.dumps(kept) + "\n" for kept in {**load(file), key(record): record}.values()]
        new.write_text("".join(lines), encoding="utf-8")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new file to write, which takes the place of `path` once it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield new
        os.replace(new, path)
    except OSError as error:
        if error.errno:
            error.filename = str(path)  # nobody knows of the new one
        raise
    finally:
        with suppress(OSError):  # mostly there is none any more; on a read-only file system there never was
            new.unlink()
