"""The form of a crash run's result."""

from connect_loadgen.experiment.results import Record

__all__ = ["FaultRecord", "StrategyFigures"]


class FaultRecord(Record):
    """One broken promise."""

    kind: str
    connect_id: int | None
    life: int
    """Which start of the service it was found in, from 1."""
    text: str


class StrategyFigures(Record):
    """What the kills of one strategy showed."""

    strategy: str
    seconds: float
    kills: dict[str, int]
    """By what the service was doing, as seen from outside."""
    lives: int
    """Starts of the service, the last one's included."""
    ended_before_the_kill: int
    """Services that were told to stop and had ended when their kill was due: no kill."""
    lives_proved: int
    """Lives that lasted until every channel was proved."""
    kills_with_in_flight: dict[str, int]
    """Kills at which an operation of this name was waiting for its answer."""
    operations: dict[str, dict[str, int]]
    """By name: ``done``, ``not done`` (refused), ``unknown`` (no answer)."""
    messages: int
    """Different messages seen on the wire, of both ends, each in a place of its own."""
    replays_refused: int
    """Messages that were acknowledged, sent again and refused."""
    undecided_refused: int
    """Messages without an answer that were sent again and refused: they had been decrypted."""
    redelivered: int
    channels: int
    """Channels established."""
    closed: int
    proved_at_the_end: int
    """Channels open at the end, each proved once more."""
    service_work: dict[str, int]
    """Of the service's own counters, summed up over lives, each as last read before the kill: so
    these are lower bounds."""
    faults: dict[str, int]
    fault_records: list[FaultRecord]
    """The first of them."""

    @property
    def total_kills(self) -> int:
        """Kills of all phases."""
        return sum(self.kills.values())

    @property
    def done(self) -> int:
        """Operations that were acknowledged."""
        return sum(ends.get("done", 0) for ends in self.operations.values())
