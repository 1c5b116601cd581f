"""Actor metrics: what actors, mailboxes and recoveries have counted."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from connect_actor.actors.dispatcher import MailboxStatistics
from connect_actor.actors.environment import ActorStatistics
from connect_actor.actors.permits import RecoveryPermits
from connect_actor.observe.families import Families
from connect_actor.protocol import message_step

__all__ = ["actor_metrics"]


def actor_metrics(
    families: Families,
    actors: ActorStatistics,
    mailboxes: MailboxStatistics,
    permits: RecoveryPermits,
    live_actors: int,
) -> Iterator[Metric]:
    """Yield the metrics of the actors' lives, their recovery and their mailboxes."""
    counter, gauge = families.counter, families.gauge
    yield families.info(
        "message_step",
        "What does the cryptography of a message.",
        {"implementation": message_step.active().name},
    )
    yield gauge("actors_live", "Actors alive.", live_actors)
    yield counter("actor_starts", "Actors started.", actors.started)
    yield counter("actor_recoveries", "Channels recovered.", actors.recovered)
    yield counter(
        "actor_recovery_failures", "Channels that could not be loaded.", actors.recovery_failures
    )
    yield counter("actor_passivations", "Idle actors stopped.", actors.passivated)
    yield counter("actor_crashes", "Actors that met a defect.", actors.crashed)
    yield counter("actor_discards", "Sessions discarded after a failed commit.", actors.discarded)
    yield families.histogram(
        "actor_recovery_duration_seconds",
        "From the permit to the session.",
        actors.recovery_duration,
    )
    yield counter(
        "recovered_records", "Records behind a snapshot that were read.", actors.recovered_records
    )
    yield gauge("recovery_permits_in_use", "Channels that are loading.", permits.in_use)
    yield gauge("recovery_permits_waiting", "Channels that wait to load.", permits.waiting)
    yield families.histogram(
        "recovery_permit_wait_seconds", "From asking for a permit to having it.", permits.waits
    )
    yield families.counters(
        "recovery_permit_refusals",
        "Times that no channel was loaded because too many were loading.",
        ["reason"],
        [(["full"], permits.turned_away), (["timeout"], permits.timed_out)],
    )
    yield families.histogram(
        "mailbox_depth", "Messages found waiting when an actor gets a turn.", mailboxes.depth
    )
    yield counter("mailbox_rejections", "Messages refused by a full mailbox.", mailboxes.rejected)
    yield counter("channels_established", "Channels made.", actors.established)
    yield counter("channels_closed", "Channels ended.", actors.closed)
    yield counter("channels_expired", "Expired channels ended.", actors.expired)
    yield counter("changes", "Changes made to sessions.", actors.changes)
    yield counter(
        "change_bytes", "Size of those changes in differential form.", actors.change_bytes
    )
    yield counter(
        "forged_chain_steps",
        "Chain steps derived for messages that failed to authenticate.",
        actors.forged_work,
    )
    yield counter("redeliveries", "Answers given again.", actors.redelivered)
