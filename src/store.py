"""Everything on disk: the records of runs, their weights, and checkpoints of unfinished runs.

`results/` holds what the READMEs and notebooks rest on. What you run is recorded in
`results/local/`, which git ignores, until `publish_records` moves it. Every file is written to a
temporary name and then renamed, so that no reader ever sees half of one.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import torch
from filelock import FileLock, Timeout
from torch import nn

RESULTS = Path(os.environ.get("MNIST_RESULTS") or Path(__file__).parent.parent / "results")
LOCK_TIMEOUT = 10  # seconds


class FrozenDict(dict):
    """A dict that cannot be changed, and can be hashed."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a recipe cannot be changed: make another one with dataclasses.replace")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    def __hash__(self) -> int:
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple:
        return FrozenDict, (dict(self),)


def freeze(value: Any) -> Any:
    """The value with containers that cannot be changed. Raises TypeError if JSON cannot hold it."""
    if isinstance(value, Mapping):
        return FrozenDict({name: freeze(part) for name, part in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(map(freeze, value))
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{value!r} is no plain number or string")


def fingerprint(model: nn.Module) -> str:
    """Eight hexadecimal digits that identify a model's layers: types, shapes, hyperparameters.

    Not the text of `repr`, which differs between versions of PyTorch.
    """
    names = ("kernel_size", "stride", "padding", "dilation", "groups", "output_size", "p", "eps")
    layers = []
    for layer in model.modules():
        shapes = [list(parameter.shape) for parameter in layer.parameters(recurse=False)]
        hyperparameters = [str(getattr(layer, name, None)) for name in (*names, "momentum")]
        layers.append((type(layer).__name__, shapes, hyperparameters))
    return hashlib.sha256(repr(layers).encode()).hexdigest()[:8]


def record_key(record: dict) -> str:
    """What identifies a run: recipe without name, seed, type of device and fingerprint.

    The recipe holds the precision that was used. Integers and floats of one value are the same.
    """
    recipe = {name: value for name, value in record["recipe"].items() if name != "name"}
    run = [recipe, record["seed"], record["device"], record["fingerprint"]]
    return json.dumps(_as_floats(run), sort_keys=True)


def _as_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_floats(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_floats(part) for part in value]
    return float(value) if type(value) is int else value


def results_path(name: str, local: bool = False) -> Path:
    """A file of the evidence, or of what was run here."""
    return RESULTS / ("local" if local else "") / name


def load_records(file: str, local: bool = False) -> dict[str, dict]:
    """The records of `results/<file>.jsonl`, or of the `local` one, by their keys, oldest first.

    A line that is not a record, such as a truncated one, is skipped with a message on standard
    error: its run counts as missing. The records are shared: do not change them.
    """
    path = results_path(f"{file}.jsonl", local)
    try:
        status = path.stat()
    except FileNotFoundError:
        return {}
    return dict(_parse_records(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=8)
def _parse_records(path: Path, _time: int, _size: int) -> dict[str, dict]:
    """The records of a file as it was at that time, so that each version is parsed once."""
    records, skipped = {}, []
    for number, line in enumerate(path.read_text("utf-8", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            records[record_key(record)] = {**record, "history": list(record["history"])}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            skipped.append(str(number))
    if skipped:
        lines = ", ".join(skipped)
        print(f"{path.name}: skipped incomplete records (lines {lines})", file=sys.stderr)
    return records


def save_record(file: str, record: dict) -> None:
    """Append a record to `results/local/<file>.jsonl`; it replaces an earlier one of the same run.

    Processes that save at the same time wait for each other. Raises OSError if the file cannot be
    written or locked; the earlier records are then unchanged.
    """
    with _locked():
        records = load_records(file, local=True)
        records.pop(record_key(record), None)
        _write_records(results_path(f"{file}.jsonl", local=True), [*records.values(), record])


def publish_records(file: str, target: str, wanted: Callable[[str, dict], bool]) -> int:
    """Move the `wanted` records, by key and record, from a local file to a tracked one.

    Returns their number. Raises OSError, as `save_record` does.
    """
    local = load_records(file, local=True)
    moved = {key: record for key, record in local.items() if wanted(key, record)}
    if moved:
        with _locked():
            kept = {key: old for key, old in load_records(target).items() if key not in moved}
            _write_records(results_path(f"{target}.jsonl"), [*kept.values(), *moved.values()])
            rest = [record for key, record in local.items() if key not in moved]
            _write_records(results_path(f"{file}.jsonl", local=True), rest)
    return len(moved)


def publish_file(name: str) -> None:
    """Move a local file, such as the weights of a step, into the evidence, if there is one."""
    if results_path(name, local=True).exists():
        os.replace(results_path(name, local=True), results_path(name))


@contextmanager
def _locked() -> Iterator[None]:
    path = RESULTS / ".lock"
    RESULTS.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=LOCK_TIMEOUT):
            yield
    except Timeout:
        raise OSError(
            f"{path} is locked by another process, or this file system cannot lock files"
        ) from None


def _write_records(path: Path, records: Iterable[dict]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(
            "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8", newline="\n"
        )


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary file to write; it replaces `path` when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno:
            error.filename = str(path)  # the name that the user knows
        raise
    finally:
        with suppress(OSError):  # after a successful write there is nothing to remove
            temporary.unlink()


def weights_path(step: str, local: bool = False) -> Path:
    """The file with the trained weights of a step (seed 1): a state dict."""
    return results_path(f"{step}.pt", local)


def save_state(state: dict[str, Any], path: Path) -> None:
    """`torch.save`, atomically, with the same bytes for the same state. Raises OSError."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def remove(path: Path) -> None:
    """Delete a file, if there is one."""
    with suppress(OSError):  # on a read-only file system none was written
        path.unlink(missing_ok=True)


def checkpoint_path(record: dict, smoke: int = 0) -> Path:
    """The checkpoint of the run that a record describes; `smoke` is the epochs of a smoke test.

    A changed model keeps the path, so that `load_checkpoint` can report it.
    """
    run = record_key({**record, "fingerprint": None})
    digest = hashlib.sha256(f"{run} {smoke}".encode()).hexdigest()[:16]
    return RESULTS / ".checkpoints" / f"{record['recipe']['name']}-{record['seed']}-{digest}.pt"


def _conditions(record: dict) -> list:
    """Under which a run resumes bit for bit."""
    return [record[name] for name in ("fingerprint", "torch", "threads", "device_name")]


def save_checkpoint(path: Path, record: dict, state: dict[str, Any]) -> None:
    """Save the state of an unfinished run; if this fails, say so once."""
    try:
        save_state({"conditions": _conditions(record), **state}, path)
    except OSError as error:
        _warn_once(
            f"cannot write a checkpoint ({error}): this run cannot be resumed if it is interrupted"
        )


@lru_cache
def _warn_once(message: str) -> None:
    print(message, file=sys.stderr)


def load_checkpoint(path: Path, record: dict) -> dict[str, Any] | None:
    """What `save_checkpoint` saved; None if there is nothing, or nothing that fits the record.

    A file that is damaged, or was saved under other conditions, is reported and ignored.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        fits = saved["conditions"] == _conditions(record)
    except FileNotFoundError:
        return None
    except Exception:  # whatever damaged bytes make the unpickler raise
        print(f"{path.name} cannot be read: starting over", file=sys.stderr)
        return None
    if not fits:
        print(
            f"{path.name} is of another model, PyTorch version, thread count or processor: "
            "starting over",
            file=sys.stderr,
        )
        return None
    return saved
