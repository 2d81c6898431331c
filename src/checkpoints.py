"""Checkpoints: an unfinished run after its last finished epoch, so that it can go on from there bit for bit."""

import io
import sys
from pathlib import Path
from typing import Any

import torch

from .records import replacing


def save_state(state: dict[str, Any], path: Path) -> None:
    """`torch.save`, whole or not at all, and the same bytes for the same state. Raises OSError where it cannot be written."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with replacing(path) as new:
        new.write_bytes(buffer.getbuffer())


class Checkpoint:
    """The file that holds the state of one run: of its parts, and of the generators that it draws from.

    `parts` are whatever has a `state_dict`, by name; `generator` is that of the batches. What cannot be written is said
    once, on standard error, and the run goes on without.
    """

    def __init__(self, path: Path, generator: torch.Generator, parts: dict[str, Any]):
        self.path, self.generator, self.parts, self.writable = path, generator, parts, True

    def load(self) -> list[dict]:
        """Put everything back as it was saved; returns the history until then, empty where there is no checkpoint."""
        try:
            saved = torch.load(self.path, weights_only=True)
        except FileNotFoundError:
            return []
        except Exception:  # whatever the damaged bytes make the unpickler say
            print(f"{self.path.name} cannot be read: the run starts over", file=sys.stderr)
            return []
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        self.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["random"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(saved["cuda"])
        return saved["history"]

    def save(self, history: list[dict]) -> None:
        """Save the state after the last epoch of `history`; a process killed meanwhile leaves the checkpoint before."""
        if not self.writable:
            return
        state = {"history": history, "generator": self.generator.get_state(), "random": torch.get_rng_state(),
                 "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
                 **{name: part.state_dict() for name, part in self.parts.items()}}
        try:
            save_state(state, self.path)
        except OSError as error:
            self.writable = False
            print(f"no checkpoint can be written ({error}): an interrupted run will start over", file=sys.stderr)

    def remove(self) -> None:
        """Forget the run."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError:
            pass  # on a read-only file system there is none of ours
