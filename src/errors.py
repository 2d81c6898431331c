"""Errors that a notebook shows in one line."""


class OneLineError:
    """Jupyter shows the message of such an error, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
