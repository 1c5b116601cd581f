"""What a command would do, in sentences, without doing it (``--dry-run``)."""

from collections.abc import Iterator

from connect_loadgen.drive.fleet import split
from connect_loadgen.experiment.turns import shuffled_rounds
from connect_loadgen.experiments.compare import VARIANTS, CompareSettings
from connect_loadgen.settings.arrivals import Arrivals
from connect_loadgen.settings.load import LoadSettings, RunSettings
from connect_loadgen.settings.storms import parse_storms

__all__ = ["plan_of_compare", "plan_of_run"]


def plan_of_run(settings: RunSettings) -> list[str]:
    """Return what ``loadgen run`` would do."""
    if settings.target is None:
        service = (
            f"service: started; strategy {settings.strategy}, journal {settings.journal}, router"
            f" {settings.router}, a snapshot every {settings.snapshot_interval} records, redelivery"
            f" window {settings.redelivery_window}"
            + (f", {settings.workers} workers" if settings.workers > 1 else "")
        )
    else:
        service = f"service: the one at {settings.target}"
    seconds = settings.warm_up_seconds + settings.duration_seconds
    return [service, *_load(settings), f"load in all: {seconds:g} s"]


def plan_of_compare(settings: CompareSettings) -> list[str]:
    """Return what ``loadgen compare`` would do."""
    orders = shuffled_rounds(VARIANTS, settings.rounds, settings.seed)
    runs = sum(len(order) for order in orders)
    seconds = runs * (settings.warm_up_seconds + settings.duration_seconds)
    return [
        *_load(settings),
        *(
            f"round {number}: {', '.join(variant.name for variant in order)}"
            for number, order in enumerate(orders, 1)
        ),
        "after each but memory: kill -9, start again, Restore of all channels, a message each way",
        f"load in all: {runs} runs, {seconds:g} s",
    ]


def _load(settings: LoadSettings) -> Iterator[str]:
    parts = " + ".join(str(part.channels) for part in split(settings))
    shared = f", {settings.processes} processes: {parts}" if settings.processes > 1 else ""
    skew = f", chosen by Zipf {settings.channel_skew:g}" if settings.channel_skew else ""
    yield f"channels: {settings.channels}{shared}{skew}"
    weights = {
        "encrypt": settings.encrypt_weight,
        "decrypt": settings.decrypt_weight,
        "round trip": settings.round_trip_weight,
    }
    mix = ", ".join(
        f"{name} {weight / sum(weights.values()):.0%}" for name, weight in weights.items() if weight
    )
    yield (
        f"operations: {mix}; payloads of {settings.payload_bytes} B; {settings.out_of_order:.1%} of"
        f" the peers' messages out of order; seed {settings.seed}"
    )
    frames = f" in frames of {settings.frame_operations}" if settings.transport == "stream" else ""
    yield f"transport: {settings.transport}{frames}"
    yield from _pacing(settings)
    if settings.churn_rate:
        due = int(settings.churn_rate * settings.duration_seconds)
        yield f"churn: {settings.churn_rate:g} channels/s, about {due} in all"
    for storm in parse_storms(settings.storms):
        yield f"storm: {storm.kind} of {settings.channels} channels after {storm.at:g} s"
    if settings.stop_if:
        yield f"stopped early, as a failure: if {settings.stop_if}"


def _pacing(settings: LoadSettings) -> Iterator[str]:
    warm_up, seconds = settings.warm_up_seconds, settings.duration_seconds
    if settings.rate is None:
        thought = (
            f", {settings.think_seconds} s of thought" if settings.think_seconds != "0" else ""
        )
        yield f"closed loop: {settings.concurrency} in flight{thought}"
        yield f"warm-up {warm_up:g} s, measured {seconds:g} s"
        return
    arrivals = Arrivals.parse(settings.rate)
    first = arrivals.at_its_beginning().mean_rate
    yield (
        f"open loop: {settings.rate} operations/s, {arrivals.mean_rate * seconds:,.0f} due in"
        f" {seconds:g} s; at {settings.max_in_flight} in flight sends are skipped"
    )
    if settings.alternate_seconds is not None:
        yield (
            f"in turn, {settings.alternate_seconds:g} s each by the wall clock: that, and a closed"
            f" loop with {settings.concurrency} in flight"
        )
    yield f"warm-up {warm_up:g} s at {first:g} operations/s"
