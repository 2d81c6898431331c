"""What is kept on disk, as bytes and dicts: records of runs, checkpoints, weights.

`EVIDENCE` is what the READMEs and notebooks are based on. `OUTPUT` is what you run; `report`
publishes it. Records are only ever appended. Every other file is written to a temporary name and
then renamed, so that no reader ever sees half of one.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import torch
from filelock import FileLock, Timeout

EVIDENCE = Path(__file__).parent.parent / "results"
# A relative path starts at the repository's folder, wherever a notebook or a command runs.
OUTPUT = EVIDENCE.parent / Path(os.environ.get("MNIST_RESULTS") or "results/local").expanduser()
LOCK_TIMEOUT = 10  # seconds


def run_key(recipe: dict, seed: int) -> str:
    """What identifies a run, wherever it was made: its recipe without the name, and its seed.

    Integers and floats of one value are the same in a recipe, but not as seeds.
    """
    text = json.dumps({field: value for field, value in recipe.items() if field != "name"})
    return json.dumps([json.loads(text, parse_int=float), seed], sort_keys=True)


def name_platform(record: dict) -> str:
    """The kind of device and the version of PyTorch of a record, or of `provenance.environment`."""
    return f"{record['device']}, {record['torch'].partition('+')[0]}"


def record_key(record: dict) -> str:
    """What identifies a record: its run and its platform."""
    return make_key(record["recipe"], record["seed"], name_platform(record))


def make_key(recipe: dict, seed: int, platform: str) -> str:
    """The `record_key` of a run on a platform, before there is a record."""
    return f"{run_key(recipe, seed)} on {platform}"


def load_records(path: Path) -> dict[str, dict]:
    """The records of a file by their keys, oldest first; of several with one key, the last one.

    A line that is not a record, such as a truncated one, is named on standard error: its run counts
    as missing. The records are shared: do not change them.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return {}
    return dict(_parse_records(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=8)
def _parse_records(path: Path, _time: int, _size: int) -> dict[str, dict]:
    """The records of a file as it was at that time, so that each version is parsed once."""
    records, unreadable = {}, []
    # Windows PowerShell begins a file with a byte-order mark.
    lines = path.read_text("utf-8-sig", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip("\0\r\t "):
            continue
        try:
            record = json.loads(line)
            if not isinstance(record["history"], list):
                raise TypeError
            key = record_key(record)
            records.pop(key, None)  # the newest of a key is also the newest of all
            records[key] = record
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            unreadable.append(str(number))
    if unreadable:
        print(f"{path}: no record in line {', '.join(unreadable)}", file=sys.stderr)
    return records


def append_records(path: Path, records: Collection[dict]) -> None:
    """Append records to a file, and nothing else: whatever stands in it stays as it is.

    Processes that append at the same time wait for each other. Raises OSError if the file cannot be
    written or locked; it is then unchanged.
    """
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.parent / ".lock"
    try:
        # Without a buffer, which would be written once more when the file is closed.
        with (
            FileLock(lock, timeout=LOCK_TIMEOUT),
            _naming(path),
            open(path, "a+b", buffering=0) as file,
        ):
            size = file.seek(0, os.SEEK_END)
            rest = _missing_line_break(file, size) + lines
            try:
                while rest:
                    written = file.write(rest)
                    rest = rest[written:]
            except OSError:
                file.truncate(size)
                raise
    except (Timeout, NotImplementedError):  # the latter is older filelock's, for such a file system
        fault = "is locked by another process, or this file system cannot lock files"
        raise OSError(f"{lock} {fault}") from None


def _missing_line_break(file: BinaryIO, size: int) -> bytes:
    """A line break if the file ends within a line, as an interrupted copy does."""
    if size == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of the operating system name the file that the user knows."""
    try:
        yield
    except OSError as error:
        if error.errno:
            error.filename = str(path)
        raise


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file to write; it replaces `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # after a successful write there is nothing to remove
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, atomically, with the same line ends everywhere. Raises OSError."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def digest(content: bytes) -> str:
    """Sixteen hexadecimal digits that change with the content."""
    return hashlib.sha256(content).hexdigest()[:16]


def save_state(state: dict[str, Any], path: Path) -> None:
    """`torch.save`, atomically, with the same bytes for the same state. Raises OSError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


class Checkpoint:
    """The file of an unfinished run: the state of its setup, and its history so far.

    `record` is the record of the run as far as it is known. `conditions` must be the same when the
    run is resumed: elsewhere, or with other code, the result would differ from that of an
    uninterrupted run.
    """

    def __init__(self, record: dict, conditions: dict):
        run = f"{record_key(record)} {record['train_size']}"  # a shortened run has another file
        name = record["recipe"]["name"][:40]  # a longer one may be too long for a file
        name = f"{name}-{record['seed']}-{digest(run.encode())}.pt"
        self.path = OUTPUT / ".checkpoints" / name
        self.conditions = conditions
        self.warned = False

    def save(self, setup_state: dict, history: list[dict]) -> None:
        """Save the state of a setup; if this fails, say so the first time."""
        state = {"conditions": self.conditions, "setup": setup_state, "history": history}
        try:
            save_state(state, self.path)
        except OSError as error:
            if not self.warned:
                fault = f"if the run is interrupted, it loses epoch {len(history)} and later ones"
                print(f"cannot write a checkpoint ({error}): {fault}", file=sys.stderr)
            self.warned = True

    def load(self) -> tuple[dict | None, list[dict]]:
        """What was saved: the state of the setup, and the history; None and [] without a file.

        A file that cannot be read, is damaged or was saved under other conditions is reported and
        ignored.
        """
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            if saved["conditions"] == self.conditions:
                return saved["setup"], saved["history"]
            fault = "was saved with other code, or another PyTorch, processor or number of threads"
        except FileNotFoundError:
            return None, []
        except (PermissionError, NotADirectoryError) as error:
            fault = f"cannot be read ({error.strerror})"
        except Exception:  # whatever damaged bytes make the unpickler raise
            fault = "is damaged"
        print(f"{self.path.name} {fault}: starting over", file=sys.stderr)
        return None, []

    def remove(self) -> None:
        """Delete the file, if there is one."""
        with suppress(OSError):  # on a read-only file system none was written
            self.path.unlink(missing_ok=True)
