"""Errors that a notebook shows in one line."""


class OneLineError:
    """Jupyter shows the message of such an error, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class InputError(OneLineError, ValueError):
    """An argument or an environment variable has a wrong value."""


class FileError(OneLineError, RuntimeError):
    """A file is missing or damaged, or is not the right one."""
