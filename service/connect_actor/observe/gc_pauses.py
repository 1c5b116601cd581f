"""The GC probe: how long each collection of the cyclic collector stops the interpreter.

Python calls back before and after a collection, on the thread that it runs on. A pause holds the
whole interpreter: the collector does not let go of the GIL, but for finalisers that do.

What it does not see: frees by reference count, which make up most of the memory's management, and
the callbacks of others that run before ours at the start or after ours at the end.
"""

import gc
from collections.abc import Mapping
from time import perf_counter
from typing import Literal

from connect_actor.observe.counting import SECONDS, Distribution

__all__ = ["GcPauses"]

# A collection of the youngest generation takes microseconds.
_PAUSES = (10e-6, 25e-6, *SECONDS)


class GcPauses:
    """Pauses since ``install``, in seconds, by generation."""

    def __init__(self) -> None:
        """Begin empty, and not yet installed."""
        self.by_generation: Mapping[int, Distribution] = {
            generation: Distribution(_PAUSES) for generation in range(len(gc.get_count()))
        }
        self._begun = 0.0

    def install(self) -> None:
        """Begin to measure."""
        gc.callbacks.append(self._called)

    def remove(self) -> None:
        """Stop measuring.

        Raises:
            ValueError: it is not installed.
        """
        gc.callbacks.remove(self._called)

    def _called(self, phase: Literal["start", "stop"], info: Mapping[str, int]) -> None:
        if phase == "start":
            self._begun = perf_counter()
        else:
            self.by_generation[info["generation"]].add(perf_counter() - self._begun)
