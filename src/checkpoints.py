"""Checkpoints: the state of an unfinished run after its last finished epoch, so that it resumes bit for bit."""

import hashlib
import io
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import records
from .data import smoke_test_epochs


def save_state(state: dict[str, Any], path: Path) -> None:
    """`torch.save`, atomically, with the same bytes for the same state. Raises OSError if `path` cannot be written."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with records.atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def fingerprint(model: nn.Module) -> str:
    """Eight hexadecimal digits that identify the model's layers: their types, parameter shapes and hyperparameters.

    Not the text of `repr`, which differs between versions of PyTorch.
    """
    hyperparameters = (
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
        "output_size",
        "p",
        "eps",
        "momentum",
    )
    layers = [
        (
            type(layer).__name__,
            [list(parameter.shape) for parameter in layer.parameters(recurse=False)],
            [str(getattr(layer, name, None)) for name in hyperparameters],
        )
        for layer in model.modules()
    ]
    return hashlib.sha256(repr(layers).encode()).hexdigest()[:8]


def checkpoint_path(record: dict) -> Path:
    """The checkpoint of the run that `record` describes. A changed model keeps the path, so that `load` can report it."""
    run = records.record_key({**record, "fingerprint": None})
    digest = hashlib.sha256(f"{run} {smoke_test_epochs()}".encode()).hexdigest()[:16]
    return (
        records.RESULTS
        / ".checkpoints"
        / f"{record['recipe']['name']}-{record['seed']}-{digest}.pt"
    )


class Checkpoint:
    """The checkpoint of the run that `record` describes; `parts` are the arguments of `fit`, as `experiments.prepare` returns them.

    One that cannot be read, or was saved under other conditions, is reported and ignored; so is one that cannot be written.
    """

    def __init__(self, record: dict, parts: dict[str, Any]):
        self.path, self.device = checkpoint_path(record), parts["device"]
        self.conditions = [
            record[name] for name in ("fingerprint", "torch", "threads")
        ]  # under which a run resumes exactly
        self.parts = {
            name: part for name, part in parts.items() if hasattr(part, "state_dict")
        }  # model, optimizer, ...
        self.generator = parts["train_loader"].generator
        self.writable = True

    def load(self) -> list[dict]:
        """Restore the saved state; returns the history so far, empty if there is no checkpoint."""
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            conditions = saved["conditions"]
        except FileNotFoundError:
            return []
        except Exception:  # whatever damaged bytes make the unpickler raise
            print(f"{self.path.name} cannot be read: starting over", file=sys.stderr)
            return []
        if conditions != self.conditions:
            print(
                f"{self.path.name} is of another model, PyTorch version or thread count: starting over",
                file=sys.stderr,
            )
            return []
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        self.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["device"], self.device)
        elif self.device.type == "mps":
            torch.mps.set_rng_state(saved["device"])
        return saved["history"]

    def save(self, history: list[dict]) -> None:
        """Save the state after the last epoch of `history`. A process killed meanwhile leaves the previous one intact."""
        if not self.writable:
            return
        state = {
            "history": history,
            "conditions": self.conditions,
            "generator": self.generator.get_state(),
            "cpu": torch.get_rng_state(),
            **{name: part.state_dict() for name, part in self.parts.items()},
        }
        if self.device.type == "cuda":
            state["device"] = torch.cuda.get_rng_state(self.device)
        elif self.device.type == "mps":
            state["device"] = torch.mps.get_rng_state()
        try:
            save_state(state, self.path)
        except OSError as error:
            self.writable = False
            print(
                f"cannot write a checkpoint ({error}): this run cannot be resumed if it is interrupted",
                file=sys.stderr,
            )

    def remove(self) -> None:
        """Delete the checkpoint, if there is one."""
        with suppress(OSError):  # on a read-only file system none was written
            self.path.unlink(missing_ok=True)
