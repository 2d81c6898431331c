"""Everything on disk: the records of runs, their weights, and checkpoints of unfinished runs.

`results/` holds what the READMEs and notebooks are based on. What you run is recorded in
`results/local/`, which git ignores, until `evidence.report` publishes it. Every file is written to
a temporary name and then renamed, so that no reader ever sees half of one.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from .training import Setup

RESULTS = Path(os.environ.get("MNIST_RESULTS") or Path(__file__).parent.parent / "results")
LOCK_TIMEOUT = 10  # seconds
CONDITIONS = ("fingerprint", "torch", "threads", "device_name")  # the same, or a run starts over


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
    run = json.dumps([recipe, record["seed"], record["device"], record["fingerprint"]])
    return json.dumps(json.loads(run, parse_int=float), sort_keys=True)


def results_path(name: str, local: bool = False) -> Path:
    """A file of the evidence, or of what was run here: "basic.pt" holds the weights of step 1."""
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


def save_records(
    file: str, added: Collection[dict], removed: Collection[str] = (), local: bool = True
) -> None:
    """Append records to `<file>.jsonl`, local or tracked; each replaces one of the same run.

    Removes the records with the keys `removed`. Processes that save at the same time wait for each
    other. Raises OSError if the file cannot be written or locked; it is then unchanged.
    """
    path, lock = results_path(f"{file}.jsonl", local), RESULTS / ".lock"
    RESULTS.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=LOCK_TIMEOUT):
            new = {record_key(record): record for record in added}
            replaced = {*removed, *new}
            old = load_records(file, local).items()
            kept = [record for key, record in old if key not in replaced]
            lines = [json.dumps(record) + "\n" for record in (*kept, *new.values())]
            with atomic_write(path) as temporary:
                temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
    except Timeout:
        fault = "is locked by another process, or this file system cannot lock files"
        raise OSError(f"{lock} {fault}") from None


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


def _parts(setup: Setup) -> dict[str, Any]:
    """The parts of a run that have a state: model, optimizer, scheduler, average."""
    return {name: part for name, part in vars(setup).items() if hasattr(part, "state_dict")}


def _generators(setup: Setup) -> list[tuple[Callable, Callable]]:
    """How to get and to set the state of each random generator of a run."""
    loader = setup.train_loader.generator
    pairs = [(loader.get_state, loader.set_state), (torch.get_rng_state, torch.set_rng_state)]
    if setup.device.type != "cpu":
        module = torch.get_device_module(setup.device)
        pairs.append((module.get_rng_state, module.set_rng_state))
    return pairs


def save_checkpoint(path: Path, record: dict, setup: Setup, history: list[dict]) -> None:
    """Save the state of an unfinished run; if this fails in the first epoch, say so."""
    state = {"conditions": {name: record[name] for name in CONDITIONS}, "history": history}
    state["parts"] = {name: part.state_dict() for name, part in _parts(setup).items()}
    state["generators"] = [get() for get, _ in _generators(setup)]
    try:
        save_state(state, path)
    except OSError as error:
        if len(history) == 1:
            fault = "this run cannot be resumed if it is interrupted"
            print(f"cannot write a checkpoint ({error}): {fault}", file=sys.stderr)


def load_checkpoint(path: Path, record: dict, setup: Setup) -> list[dict]:
    """Restore what `save_checkpoint` saved; returns the history, empty if there is nothing.

    A file that is damaged, or was saved under other conditions, is reported and ignored.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        fits = saved["conditions"] == {name: record[name] for name in CONDITIONS}
    except FileNotFoundError:
        return []
    except Exception:  # whatever damaged bytes make the unpickler raise
        fits = False
    if not fits:
        fault = "is damaged, or of another model, PyTorch version, thread count or processor"
        print(f"{path.name} {fault}: starting over", file=sys.stderr)
        return []
    for name, part in _parts(setup).items():
        part.load_state_dict(saved["parts"][name])
    for (_, set_state), state in zip(_generators(setup), saved["generators"], strict=True):
        set_state(state)
    print(f"Resuming an interrupted run after epoch {len(saved['history'])}.")
    return saved["history"]
