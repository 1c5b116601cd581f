"""What the gRPC surface counts of itself.

An operation is *accepted* when its call comes, or its frame is read, and *answered* when its
result, or its refusal, is handed to gRPC; one that nobody waits for any more, because its call or
stream has ended, is never answered. The clock is read once for each frame: what comes or goes
together has one time.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Protocol

from grpc import StatusCode

from connect_actor.errors import ConnectError
from connect_actor.observe.counting import SIZES, Distribution
from connect_actor.rpc.operations import OPERATIONS
from connect_actor.rpc.status import STATUSES, rule_of

__all__ = [
    "ANSWER_CODES",
    "UNKNOWN_OPERATION",
    "Answer",
    "Arrival",
    "Arrivals",
    "OperationStatistics",
    "RequestStatistics",
]

UNKNOWN_OPERATION = "unknown"
"""What an operation of a stream is counted as if it holds no request that this service knows."""

_OK = StatusCode.OK.name
# What gRPC itself says when a handler raises anything but a refusal.
_DEFECT = StatusCode.UNKNOWN.name

ANSWER_CODES: Sequence[str] = sorted(
    {_OK, _DEFECT, *(rule.code.name for rule in STATUSES.values())}
)
"""Name of every gRPC code that an operation can be answered with."""

# A frame of results holds at most 1,024 of them.
_FRAME_SIZES = SIZES[:11]


class Arrival:
    """The operations of one kind that came in one frame: they have one name and one time."""

    __slots__ = ("accepted_at", "kind", "operation")

    def __init__(self, operation: str, accepted_at: float) -> None:
        self.operation = operation
        self.kind = OPERATIONS.get(operation)
        """None for what this service does not know."""
        self.accepted_at = accepted_at


class Arrivals(dict[str, Arrival]):
    """A frame's arrivals by the operations' names, made as they are asked for."""

    def __init__(self, accepted_at: float) -> None:
        super().__init__()
        self._accepted_at = accepted_at

    def __missing__(self, operation: str) -> Arrival:
        arrival = self[operation] = Arrival(operation, self._accepted_at)
        return arrival


class Answer(Protocol):
    """One answer of a stream."""

    @property
    def arrival(self) -> Arrival:
        """What the operation came with."""

    @property
    def error(self) -> ConnectError | None:
        """Why it was refused, if it was."""


class OperationStatistics:
    """Counts of one kind of operation, by the name of its answer's code."""

    __slots__ = ("duration", "stream", "unary")

    def __init__(self) -> None:
        self.unary = dict.fromkeys(ANSWER_CODES, 0)
        self.stream = dict.fromkeys(ANSWER_CODES, 0)
        self.duration = Distribution()
        """Seconds from accepted to answered, whatever the transport and the answer."""


class RequestStatistics:
    """Counts since the start, for whoever publishes them. On the event loop's thread."""

    def __init__(self) -> None:
        self.operations: Mapping[str, OperationStatistics] = {
            name: OperationStatistics() for name in (*OPERATIONS, UNKNOWN_OPERATION)
        }
        self.refusals = {rule.reason: 0 for rule in STATUSES.values()}
        self.unary_in_flight = 0
        self.stream_in_flight = 0
        self.streams_open = 0
        self.frames_in = Distribution(_FRAME_SIZES)
        """Operations in each frame that came."""
        self.frames_out = Distribution(_FRAME_SIZES)
        """Results in each frame that went."""

    def call_accepted(self) -> float:
        """Count a unary call that has come; return when."""
        self.unary_in_flight += 1
        return perf_counter()

    def call_answered(self, operation: str, accepted_at: float) -> float:
        """Count a unary call's result; return how many seconds it took."""
        return self._count_call(operation, accepted_at, _OK)

    def call_refused(self, operation: str, accepted_at: float, refusal: ConnectError) -> None:
        """Count a unary call's refusal."""
        self._count_call(operation, accepted_at, self._count_refusal(refusal))

    def call_failed(self, operation: str, accepted_at: float) -> None:
        """Count a unary call that met a defect."""
        self._count_call(operation, accepted_at, _DEFECT)

    def stream_refused(self, refusal: ConnectError) -> None:
        """Count a stream that was ended, or never begun, by a refusal of its caller."""
        self._count_refusal(refusal)

    def call_ended(self) -> None:
        """Count a unary call as no longer in flight, answered or not."""
        self.unary_in_flight -= 1

    def frame_accepted(self, operations: int) -> Arrivals:
        """Count a frame that has come."""
        self.frames_in.add(operations)
        return Arrivals(perf_counter())

    def frame_answered(self, answers: Sequence[Answer]) -> tuple[Arrival, float] | None:
        """Count the answers of a frame that is about to go.

        Returns:
            The earliest arrival that was granted, and how many seconds ago that was.
        """
        now = perf_counter()
        self.frames_out.add(len(answers))
        # By arrival, not one by one: most of a frame's answers have arrived together.
        granted = Counter([answer.arrival for answer in answers if answer.error is None])
        for arrival, times in granted.items():
            operation = self.operations[arrival.operation]
            operation.duration.add(now - arrival.accepted_at, times)
            operation.stream[_OK] += times
        for answer in answers:
            if answer.error is not None:
                operation = self.operations[answer.arrival.operation]
                operation.duration.add(now - answer.arrival.accepted_at)
                operation.stream[self._count_refusal(answer.error)] += 1
        if not granted:
            return None
        earliest = min(granted, key=lambda arrival: arrival.accepted_at)
        return earliest, now - earliest.accepted_at

    def _count_call(self, operation: str, accepted_at: float, code: str) -> float:
        statistics = self.operations[operation]
        seconds = perf_counter() - accepted_at
        statistics.duration.add(seconds)
        statistics.unary[code] += 1
        return seconds

    def _count_refusal(self, refusal: ConnectError) -> str:
        """Count a refusal and return the name of its code."""
        rule = rule_of(refusal)
        self.refusals[rule.reason] += 1
        return rule.code.name
