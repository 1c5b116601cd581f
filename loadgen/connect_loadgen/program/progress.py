"""What a user sees while a command works: a live bar on a terminal, lines or nothing in a pipe."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["CommandProgress"]


class CommandProgress:
    """Progress of one command, on standard error, as a context manager.

    On a terminal each step has a bar that moves; in a pipe steps and notes are lines, or nothing.
    """

    def __init__(self, *, lines_in_pipe: bool, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._lines = lines_in_pipe and not self._console.is_terminal
        self._prefix = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0, figures="")

    def __enter__(self) -> Self:
        """Show the bar, on a terminal."""
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bar.stop()

    @contextmanager
    def within(self, prefix: str) -> Iterator[None]:
        """Put ``prefix`` before the steps inside."""
        outer = self._prefix
        self._prefix = outer + prefix
        try:
            yield
        finally:
            self._prefix = outer

    def step(self, text: str) -> None:
        """Say what begins now."""
        text = f"{self._prefix}{text}"
        self._bar.reset(self._task, description=text, figures="")
        if self._lines:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """Say how it goes, where there is no bar that shows it."""
        if self._lines:
            self._console.print(f"{self._prefix}{text}", markup=False, highlight=False)

    def tick(self, share: float, text: str) -> None:
        """Say how much of the step is done, 0 to 1, and how it goes."""
        self._bar.update(self._task, completed=share, figures=text)
