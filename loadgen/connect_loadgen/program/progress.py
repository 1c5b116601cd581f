"""What a user sees while a command works: a live bar on a terminal, lines in a pipe."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

__all__ = ["CommandProgress"]

# In a pipe, where no bar moves.
_SECONDS_A_LINE = 10.0


class CommandProgress:
    """Progress of one command, on standard error, as a context manager.

    On a terminal each step has a bar that moves. In a pipe each step is a line, and so is how it
    goes, every ten seconds.
    """

    def __init__(
        self, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(stderr=True)
        self._lines = not self._console.is_terminal
        self._clock = clock
        self._told_at = clock()
        self._prefix = ""
        self._step = ""
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
        self._step = f"{self._prefix}{text}"
        self._bar.reset(self._task, description=self._step, figures="")
        self._say(self._step)

    def note(self, text: str) -> None:
        """Say what has happened, where there is no bar that shows it."""
        self._say(f"{self._prefix}{text}")

    def tick(self, share: float, text: str) -> None:
        """Say how much of the step is done, 0 to 1, and how it goes."""
        self._bar.update(self._task, completed=share, figures=text)
        if self._clock() - self._told_at >= _SECONDS_A_LINE:
            self._say(f"{self._step}: {share:.0%}, {text}")

    def _say(self, text: str) -> None:
        self._told_at = self._clock()
        if self._lines:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
