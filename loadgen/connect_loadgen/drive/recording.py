"""What happened, as counts and HDR histograms; percentiles come from these and nowhere else.

Times come in as nanoseconds and are kept as microseconds with three significant digits, up to an
hour. A histogram can be merged with another; percentiles can't, and never are.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

from hdrh.histogram import HdrHistogram

from connect_actor.observe.counting import Distribution
from connect_loadgen.drive.figures import Latency
from connect_loadgen.drive.peer import Finished, Outcome
from connect_loadgen.drive.workload import Kind
from connect_loadgen.settings.stops import StopCondition, Tally

__all__ = ["Histogram", "Recorder"]

HIGHEST_MICROSECONDS = 3_600_000_000
_SIGNIFICANT_DIGITS = 3

# hdrhistogram's record_value takes 0.9 us, counting in a dict 0.05 us. So values are counted first
# and recorded by the thousands; this bounds what waits.
_BUFFERED_VALUES = 1 << 16

_NANOSECONDS = 1e9

_PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)


class Histogram:
    """A distribution of durations."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, HIGHEST_MICROSECONDS, _SIGNIFICANT_DIGITS)
        self._buffer: Counter[int] = Counter()

    @classmethod
    def merge(cls, encoded: list[str]) -> "Histogram":
        """Return the sum of histograms that ``summary`` has encoded."""
        merged = cls()
        for blob in encoded:
            merged._histogram.decode_and_add(blob.encode())
        return merged

    def record(self, nanoseconds: int) -> None:
        """Count one duration; less than a microsecond counts as one, more than an hour as that."""
        microseconds = nanoseconds // 1000
        self._buffer[microseconds] += 1
        if len(self._buffer) >= _BUFFERED_VALUES:
            self._flush()

    def summary(self) -> Latency | None:
        """Return the distribution's figures, if anything was recorded."""
        self._flush()
        histogram = self._histogram
        if not histogram.get_total_count():
            return None
        values = histogram.get_percentile_to_value_dict(list(_PERCENTILES))
        return Latency(
            count=histogram.get_total_count(),
            mean_us=histogram.get_mean_value(),
            p50_us=values[50.0],
            p90_us=values[90.0],
            p99_us=values[99.0],
            p99_9_us=values[99.9],
            p99_99_us=values[99.99],
            max_us=histogram.get_max_value(),
            hdr=histogram.encode().decode(),
        )

    def values_at(self, percentiles: Sequence[float]) -> list[int]:
        """Return the microseconds within which so many per cent of the durations lie, of each."""
        self._flush()
        values = self._histogram.get_percentile_to_value_dict(list(percentiles))
        return [values[percentile] for percentile in percentiles]

    def _flush(self) -> None:
        for microseconds, count in self._buffer.items():
            self._histogram.record_value(min(max(microseconds, 1), HIGHEST_MICROSECONDS), count)
        self._buffer.clear()


class Recorder:
    """Everything that is counted during one phase of load.

    A phase lasts from ``begins_at`` to ``ends_at``; what was sent in it and is answered later
    counts in the latencies and the totals, but not in the rate.
    """

    def __init__(
        self, begins_at: int, ends_at: int, conditions: Sequence[StopCondition] = ()
    ) -> None:
        """Begin with nothing; ``conditions`` are those that ``tally`` is asked for."""
        self._bounds = [condition.bound_nanoseconds for condition in conditions]
        self._slower = [0] * len(self._bounds)
        self.begins_at = begins_at
        self.ends_at = ends_at
        self.sent = 0
        self.finished = 0
        self.messages = 0
        self.finished_in_time = 0
        self.messages_in_time = 0
        self.wrong = 0
        """Answers that are not what they must be, or that nobody asked for."""
        self.errors: Counter[str] = Counter()
        self.skipped_at_cap = 0
        self.skipped_late = 0
        self.replacements_skipped = 0
        """Channels whose turn to be replaced came while too many were being replaced."""
        self.lifecycle: defaultdict[str, Histogram] = defaultdict(Histogram)
        """What was done to channels beside the workload, by name, from its due time."""
        self.latency = {kind: Histogram() for kind in Kind}
        """From the intended send time to the answer; in a closed loop, the same as service time."""
        self.latency_buckets = {kind: Distribution() for kind in Kind}
        """The same in seconds, in buckets that can be read while the load runs."""
        self.failures: Counter[tuple[Kind, Outcome]] = Counter()
        """Operations that ended, but not rightly."""
        self.service_time = {kind: Histogram() for kind in Kind}
        """From the actual send time to the answer."""
        self.send_lag = Histogram()
        """From the intended to the actual send time, where there was an intended one."""

    def record_finished(self, finished: Finished, arrived_at: int) -> None:
        """Count one operation that has its last answer; only right ones have a latency."""
        pending = finished.pending
        self.finished += 1
        self.messages += pending.messages
        if arrived_at <= self.ends_at:
            self.finished_in_time += 1
            self.messages_in_time += pending.messages
        match finished.outcome:
            case Outcome.RIGHT:
                latency = arrived_at - pending.intended_at
                self.latency[pending.kind].record(latency)
                self.latency_buckets[pending.kind].add(latency / _NANOSECONDS)
                self.service_time[pending.kind].record(arrived_at - pending.sent_at)
                for index, bound in enumerate(self._bounds):
                    if bound is not None and latency > bound:
                        self._slower[index] += 1
            case Outcome.WRONG:
                self.wrong += 1
            case Outcome.ERROR:
                self.errors[finished.status] += 1
        if finished.outcome is not Outcome.RIGHT:
            self.failures[pending.kind, finished.outcome] += 1

    def tally(self) -> Tally:
        """Return what the conditions for stopping early are judged by, so far."""
        failed = self.wrong + self.errors.total()
        return Tally(self.finished, failed, tuple(self._slower))
