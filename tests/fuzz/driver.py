"""Runs targets on what mutations make of their corpus, and keeps score."""

import gc
import itertools
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from tests.fuzz.mutations import Mutator
from tests.fuzz.target import FaultError, Target, Work, require, traced_peak

__all__ = ["CORPUS", "Fault", "Score", "corpus_of", "fuzz", "try_input"]

CORPUS = Path(__file__).parent / "corpus"

# Memory is looked at for one input in so many, of the large ones more: tracing makes all several
# times as slow.
_TRACED = 64
_TRACED_LARGE = 8
_LARGE = 8_000
# What Python may hold at a time for an input: so many bytes for each of its bytes, and a base that
# is no matter of the input's.
_PEAK_FACTOR = 48
_PEAK_BASE = 256 * 1024


@dataclass(frozen=True)
class Fault:
    """An input that breaks a promise."""

    data: bytes = field(repr=False)
    text: str
    """The traceback."""

    @property
    def name(self) -> str:
        """A file name for it."""
        return f"fault-{sha256(self.data).hexdigest()[:12]}"


@dataclass
class Score:
    """What a run has seen."""

    inputs: int = 0
    accepted: int = 0
    most_steps: int = 0
    highest_peak: int = 0
    """Bytes, of the inputs whose memory was traced."""
    faults: list[Fault] = field(default_factory=list)
    """One of each kind: the first for each place in the code that raised."""


def corpus_of(target: type[Target]) -> list[bytes]:
    """Return a target's inputs in the repository, in a fixed order."""
    return [path.read_bytes() for path in sorted((CORPUS / target.name).iterdir())]


def try_input(target: Target, data: bytes, score: Score, *, traced: bool) -> None:
    """Feed a target with an input and check what it cost.

    Raises:
        Exception: whatever says that a promise is broken.
    """
    work = Work()
    with work.counted():
        if traced:
            answer: list[bool] = []
            peak = traced_peak(lambda: answer.append(target.run(data)))
            score.highest_peak = max(score.highest_peak, peak)
            require(
                peak <= _PEAK_BASE + target.base_bytes + _PEAK_FACTOR * len(data),
                f"{peak} bytes were held for an input of {len(data)}",
            )
            accepted = answer[0]
        else:
            accepted = target.run(data)
    score.accepted += accepted
    score.most_steps = max(score.most_steps, work.steps)
    require(work.steps <= target.max_steps, f"{work.steps} steps, at most {target.max_steps}")


def _place(error: BaseException) -> tuple[str, int]:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/connect_actor/" in frame.filename] or list(frames)
    kind = str(error)[:20] if isinstance(error, FaultError) else type(error).__name__
    return f"{ours[-1].filename}:{kind}", ours[-1].lineno or 0


def fuzz(target: Target, corpus: Iterable[bytes], inputs: int, seed: int) -> Score:
    """Try the corpus as it is, then so many mutations of it."""
    score = Score()
    corpus = list(corpus)
    mutator = Mutator(seed, corpus, target.style)
    seen = set()
    for data in itertools.chain(corpus, (mutator.next() for _ in range(inputs))):
        score.inputs += 1
        try:
            every = _TRACED_LARGE if len(data) >= _LARGE else _TRACED
            traced = score.inputs % every == 0
            try_input(target, data, score, traced=traced)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is a fault
            place = _place(error)
            if place not in seen:
                seen.add(place)
                score.faults.append(Fault(data, "".join(traceback.format_exception(error))))
        if score.inputs % 10_000 == 0:
            gc.collect()
    return score
