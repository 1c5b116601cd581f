"""What a benchmark is: a name, how to prepare it, how to tell that it did its work."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

__all__ = ["Benchmark", "Operation", "Prepare"]

Operation = Callable[[], object]
"""What is measured, called again and again; returns its result, for the check."""

Prepare = Callable[[int], AbstractContextManager[Operation]]
"""Makes ready for so many calls, outside of what is measured, and cleans up after."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One row of the table."""

    name: str
    """What it does, behind its group: ``encrypt: 64 B``. Without commas, which part names."""
    prepare: Prepare
    check: Callable[[object], bool]
    """Whether a result shows that the work was done."""
    operations: int = 1
    """How many operations a call makes; every figure is that of one."""
    is_baseline: bool = False
    """Whether the others of its group are divided by it."""

    @property
    def group(self) -> str:
        """What it is compared with."""
        return self.name.partition(":")[0]

    def require_right(self) -> None:
        """Run it once.

        Raises:
            ArithmeticError: the result is not what it must be, so its figures would mean nothing.
        """
        with self.prepare(1) as operation:
            if not self.check(operation()):
                raise ArithmeticError(f"benchmark {self.name!r} does not do its work")
