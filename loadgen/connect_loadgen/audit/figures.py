"""Our figures, by the names that claims ask for, each with its spread and how it was had.

A name ends in the variant whose ratio to ``full`` it is (``disk_write_bytes_per_message.cached``),
or in ``.absolute`` if it is no ratio. A figure that could not be had is simply not there.
"""

from collections.abc import Callable, Mapping, Sequence

from connect_loadgen.audit.micro import Allocated, MicroRound, StrategyFigures
from connect_loadgen.audit.results import CapacitySearch, Measured
from connect_loadgen.compare import BASELINE
from connect_loadgen.experiment.figures import FIGURES
from connect_loadgen.experiment.results import Round, Spread
from connect_loadgen.experiment.statistics import ratio_to, spread_of, valid_pairs

__all__ = ["RATIO", "FigureBook"]

RATIO = "ratio"

_SATURATED = "closed loop at saturation, whole service"
_PACED = "open loop at the same rate for all, one that full bears, whole service"
_IN_PROCESS = "within one process, interleaved, ten messages each way"
_CAPACITY = "open loop, channels added until p99 breaks the objective"

# An audit's load of 100 messages has two snapshots.
_HUNDRED, _SNAPSHOTS = 100, 2
_PRESSURE_RATE = 10_000


class FigureBook:
    """All figures of one audit."""

    def __init__(self) -> None:
        self._figures: dict[str, Measured] = {}
        self._invalid: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._figures

    def get(self, name: str) -> Measured | None:
        """Return a figure, if it could be had."""
        return self._figures.get(name)

    def is_invalid(self, name: str) -> bool:
        """Say whether a figure is missing since the generator was the limit in every round."""
        return name in self._invalid

    def enter(
        self,
        name: str,
        values: Sequence[float | None],
        unit: str,
        how: str,
        *,
        left_out: int = 0,
    ) -> None:
        """Enter a figure by its value in each valid round; nothing if one of them is missing."""
        self._enter(name, spread_of(values), unit, len(values), how, left_out)

    def enter_ratio(
        self,
        name: str,
        baseline: Sequence[float | None],
        values: Sequence[float | None],
        how: str,
        *,
        left_out: int = 0,
    ) -> None:
        """Enter a ratio, worked out within each round that is valid for both."""
        self._enter(name, ratio_to(baseline, values), RATIO, len(values), how, left_out)

    def _enter(
        self, name: str, spread: Spread | None, unit: str, rounds: int, how: str, left_out: int
    ) -> None:
        if spread is not None:
            self._figures[name] = Measured(
                spread=spread, unit=unit, rounds=rounds, how=how, rounds_left_out=left_out
            )
        elif left_out and not rounds:
            self._invalid.add(name)

    # --- From what was run ------------------------------------------------------------------------

    def add_saturated(self, done: Mapping[str, Sequence[Round]]) -> None:
        """Enter every figure of a comparison, as ratios to ``full``."""
        self._add_rounds(done, _SATURATED, rename={"p99_ms": "p99_saturated_ms"})

    def add_paced(self, done: Mapping[str, Sequence[Round]]) -> None:
        """Enter the latencies of a comparison at a fixed rate."""
        self._add_rounds(done, _PACED, only=("p50_ms", "p99_ms", "p99_9_ms"))

    def add_capacity(self, found: Mapping[str, Sequence[CapacitySearch]]) -> None:
        """Enter how many channels were borne."""
        for name, searches in found.items():
            pairs = [
                (float(base.channels), float(search.channels))
                for base, search in zip(found[BASELINE], searches, strict=True)
                if base.is_valid and search.is_valid
            ]
            self.enter_ratio(
                f"channels_within_objective.{name}",
                [base for base, _ in pairs],
                [value for _, value in pairs],
                _CAPACITY,
                left_out=len(searches) - len(pairs),
            )
            valid = [float(search.channels) for search in searches if search.is_valid]
            self.enter(
                f"channels_within_objective.{name}.absolute",
                valid,
                "channels",
                _CAPACITY,
                left_out=len(searches) - len(valid),
            )

    def add_micro(self, rounds: Sequence[MicroRound]) -> None:
        """Enter what was measured within one process."""
        if not rounds:
            return
        self._add_strategies(rounds)
        plain: dict[str, tuple[Callable[[MicroRound], float | None], str]] = {
            "channel_keys_bytes": (lambda r: float(r.channel_keys_bytes), "B"),
            "ratchet_bytes": (lambda r: r.ratchet_bytes, "B"),
            "changed_bytes": (lambda r: r.changed_bytes, "B"),
            "waste_share": (lambda r: 1 - r.changed_bytes / r.state_bytes, "share"),
            "payload_blocks": (lambda r: _blocks(r.payload), "allocations"),
            "payload_bytes": (lambda r: _bytes(r.payload), "B"),
        }
        for name, (value, unit) in plain.items():
            self.enter(f"{name}.absolute", [value(r) for r in rounds], unit, _IN_PROCESS)
        self.enter_ratio(
            "payload_bytes.reused",
            [_bytes(r.fresh) for r in rounds],
            [_bytes(r.reused) for r in rounds],
            _IN_PROCESS,
        )
        self.enter_ratio(
            "encryptions.reused",
            [r.fresh_per_second for r in rounds],
            [r.reused_per_second for r in rounds],
            _IN_PROCESS,
        )

    def _add_strategies(self, rounds: Sequence[MicroRound]) -> None:
        figures: dict[str, tuple[Callable[[StrategyFigures], float | None], str]] = {
            "message_bytes": (lambda s: _bytes(s.message), "B"),
            "message_blocks": (lambda s: _blocks(s.message), "allocations"),
            "record_bytes_allocated": (lambda s: _bytes(s.record), "B"),
            "snapshot_bytes_allocated": (lambda s: _bytes(s.snapshot), "B"),
            "record_bytes": (lambda s: s.record_bytes, "B"),
            "serialisations": (lambda s: s.records_per_second, "operations/s"),
            "serialisation_seconds": (lambda s: 1 / s.records_per_second, "s"),
            "hundred_messages_bytes": (_hundred_messages, "B"),
            "persistence_pressure_10000": (_pressure, "B/s"),
        }
        for name, (value, unit) in figures.items():
            baseline = [value(r.strategies[BASELINE]) for r in rounds]
            for strategy in rounds[0].strategies:
                values = [value(r.strategies[strategy]) for r in rounds]
                self.enter(f"{name}.{strategy}.absolute", values, unit, _IN_PROCESS)
                self.enter_ratio(f"{name}.{strategy}", baseline, values, _IN_PROCESS)

    def _add_rounds(
        self,
        done: Mapping[str, Sequence[Round]],
        how: str,
        *,
        only: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
    ) -> None:
        for figure in FIGURES:
            if only is not None and figure.name not in only:
                continue
            name = (rename or {}).get(figure.name, figure.name)
            for variant, rounds in done.items():
                bases, beside = valid_pairs(done[BASELINE], rounds)
                self.enter_ratio(
                    f"{name}.{variant}",
                    [figure.value(round_) for round_ in bases],
                    [figure.value(round_) for round_ in beside],
                    how,
                    left_out=len(rounds) - len(beside),
                )
                valid = [round_ for round_ in rounds if round_.is_valid]
                self.enter(
                    f"{name}.{variant}.absolute",
                    [figure.value(round_) for round_ in valid],
                    figure.unit,
                    how,
                    left_out=len(rounds) - len(valid),
                )


def _bytes(allocated: Allocated | None) -> float | None:
    return None if allocated is None else allocated.bytes


def _blocks(allocated: Allocated | None) -> float | None:
    return None if allocated is None else allocated.blocks


def _hundred_messages(figures: StrategyFigures) -> float | None:
    if figures.message is None or figures.snapshot is None:
        return None
    return _HUNDRED * figures.message.bytes + _SNAPSHOTS * figures.snapshot.bytes


def _pressure(figures: StrategyFigures) -> float | None:
    return None if figures.record is None else _PRESSURE_RATE * figures.record.bytes
