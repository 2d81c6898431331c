"""The records in `results/`: one line of JSON per finished run."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

RESULTS = Path(os.environ.get("MNIST_RESULTS") or Path(__file__).parent.parent / "results")


def record_key(record: dict) -> str:
    """What identifies a run: its recipe (except the name; with the precision used), seed, device type and model layers."""
    recipe = {field: value for field, value in record["recipe"].items() if field != "name"}
    return json.dumps(
        [recipe, record["seed"], record["device"], record["fingerprint"]], sort_keys=True
    )


def load_records(file: str) -> dict[str, dict]:
    """The records of `results/<file>.jsonl` by their keys, oldest first; empty if there is no such file.

    A line that is not a record, such as a truncated one, is skipped with a message on standard error: its run counts as missing.
    """
    path, records, skipped = RESULTS / f"{file}.jsonl", {}, []
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            records[record_key(record)] = {**record, "history": list(record["history"])}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            skipped.append(number)
    if skipped:
        print(
            f"{path.name}: skipped incomplete records (lines {', '.join(map(str, skipped))})",
            file=sys.stderr,
        )
    return records


def save_record(file: str, record: dict) -> None:
    """Append a record to `results/<file>.jsonl`, replacing an earlier one of the same run.

    Processes that save at the same time wait for each other, and a reader never sees half a file. Raises OSError if the file
    cannot be written; the earlier records are then unchanged.
    """
    RESULTS.mkdir(parents=True, exist_ok=True)
    with FileLock(RESULTS / ".lock"), atomic_write(RESULTS / f"{file}.jsonl") as temporary:
        records = load_records(file)
        records.pop(record_key(record), None)
        temporary.write_text(
            "".join(json.dumps(kept) + "\n" for kept in [*records.values(), record]),
            encoding="utf-8",
        )


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file to write; it replaces `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno:
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        with suppress(
            OSError
        ):  # after a successful write, or on a read-only file system, there is nothing to remove
            temporary.unlink()
