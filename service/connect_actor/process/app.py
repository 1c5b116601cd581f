"""The composition root: builds the service from its settings, runs it, stops it gracefully."""

import asyncio
import gc
import logging
import os
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path

from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.environment import ConnectEnvironment
from connect_actor.actors.expiry import ending_expired_channels
from connect_actor.actors.permits import RecoveryPermits
from connect_actor.actors.router import Router, RouterSettings, Routes
from connect_actor.clock import ServiceClock
from connect_actor.keys.keyring import KeyRing
from connect_actor.keys.pairs import PreparedKeyPairs
from connect_actor.keys.sources import load_identity
from connect_actor.network.addresses import ListenError, parse_host_port
from connect_actor.observe.exposition import serve_metrics
from connect_actor.observe.runtime import Probes
from connect_actor.persistence.committer import Committer
from connect_actor.persistence.contract import Journal, JournalError, JournalFencedError
from connect_actor.persistence.gathering import Gathering
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.sqlite.restoring import finish_restore
from connect_actor.persistence.strategies import STRATEGIES
from connect_actor.process.access import Access
from connect_actor.process.collector import ServiceCollector, Sources
from connect_actor.process.key_reload import KEY_RETRY, KeyReload
from connect_actor.process.limits import channel_limits, connection_bounds, work_bounds
from connect_actor.process.paths import IDENTITY_FILE, journal_file, key_source, make_private
from connect_actor.process.program import announce_ready, raise_descriptor_limit
from connect_actor.process.shares import require_layout
from connect_actor.protocol import message_step
from connect_actor.rpc.server import ConnectionBounds, RpcServer
from connect_actor.rpc.servicer import ConnectServicer
from connect_actor.settings import Settings
from connect_actor.workers.member import Member

__all__ = ["OTHER_DESCRIPTORS", "serve"]

_log = logging.getLogger(__name__)

# One may be late, and one lost.
_RENEWALS_A_LEASE = 3

OTHER_DESCRIPTORS = 128
"""Files, sockets of the metrics, and what libraries open beside the connections."""

# Python's collector runs after so many allocations of containers that outnumber the releases, and
# its older generations after so many runs of the younger one. A message leaves no cycle behind, so
# the 700, 10 and 10 of the interpreter have it look for nothing most of the time.
_COLLECT_AFTER = (20_000, 20, 50)
# Seconds for the actors to stop, even if the calls have used up the grace.
_LEAST_DRAIN = 1.0


def _open_journal(settings: Settings, path: Path, keys: KeyRing) -> Journal:
    """Open the configured journal.

    Raises:
        JournalError: it is in use, or written in a format or under a key that can't be read.
    """
    if settings.journal == "memory":
        _log.warning("the journal is in memory: every channel is lost when the service stops")
        return MemoryJournal()
    journal = SqliteJournal(
        path,
        keys=keys,
        strategy=settings.strategy,
        lease=settings.journal_lease,
    )
    if journal.previous_strategy not in (None, settings.strategy):
        _log.info(
            "the journal was last written by strategy %s and is continued by %s",
            journal.previous_strategy,
            settings.strategy,
        )
    return journal


async def serve(settings: Settings, member: Member | None = None) -> None:
    """Run the service, or one process of it, until SIGTERM or SIGINT, then stop it gracefully.

    SIGHUP has certificates, tokens and sealing keys read anew. Prints one line of JSON on standard
    output once calls are served: the addresses.

    Args:
        settings: how to run; a member's are its share (``process.shares``).
        member: which of several processes this is; without, the only one.

    Raises:
        AccessFileError: a certificate, key or token file can't be used.
        JournalError: the journal can't be opened, or was taken over by another service.
        KeyFileError: a key file can't be used.
        ListenError: an address can't be listened on.
    """
    loop = asyncio.get_running_loop()
    # First of all: what is allocated before its hook is in place is not counted.
    probes = Probes.start(loop)
    message_step.use(native=settings.native_message_step)
    try:
        await _serve_with(settings, member or Member(), probes)
    finally:
        probes.stop()


@dataclass(frozen=True, slots=True)
class _Ends:
    """What ends the service."""

    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """It is told to stop, or can't go on as what it is part of."""
    fenced: asyncio.Event = field(default_factory=asyncio.Event)
    """Its journal has been taken over."""


async def _serve_with(settings: Settings, member: Member, probes: Probes) -> None:
    loop = asyncio.get_running_loop()
    # Before any file of the service's own is touched.
    access = await Access.open(settings, loop)
    require_layout(settings.data_dir, member.workers)
    try:
        make_private(settings.data_dir)
    except OSError as error:
        raise JournalError(f"{settings.data_dir} can't be used: {error.strerror}") from error
    identity_file = settings.data_dir / IDENTITY_FILE
    journal_path = settings.data_dir / journal_file(member.number, member.workers)
    finish_restore(journal_path)
    sealed = (identity_file, journal_path)
    keys = await key_source(settings).read(
        os.urandom, may_make=not any(path.exists() for path in sealed)
    )
    identity = load_identity(identity_file, keys, os.urandom)
    journal = _open_journal(settings, journal_path, keys)
    clock = ServiceClock(journal.newest_save())
    ends = _Ends()
    committer = Committer(
        journal,
        loop,
        max_waiting=settings.max_waiting_writes,
        timeout=settings.journal_timeout,
        gathering=Gathering(settings.commit_delay),
        renew_every=settings.journal_lease / _RENEWALS_A_LEASE,
        on_fenced=ends.fenced.set,
    )
    key_pairs = PreparedKeyPairs(loop, os.urandom)
    key_reload = KeyReload(settings, committer, os.urandom, seals_identity=member.number == 0)
    try:
        environment = ConnectEnvironment(
            committer=committer,
            permits=RecoveryPermits(
                settings.max_concurrent_recoveries,
                loop,
                max_waiting=settings.max_waiting_recoveries,
                timeout=settings.recovery_wait_timeout,
            ),
            strategy=STRATEGIES[settings.strategy],
            snapshot_interval=settings.snapshot_interval,
            identity=identity,
            limits=channel_limits(settings),
            clock=clock.wall,
            settled=clock.settled,
            monotonic=loop.time,
            random=os.urandom,
            key_pairs=key_pairs,
        )
        dispatcher = Dispatcher(loop)
        router = Router(
            RouterSettings(
                awaiting=settings.router == "awaiting",
                idle_timeout=settings.idle_timeout,
                max_live_actors=settings.max_live_actors,
                restart_backoff=settings.restart_backoff,
                max_restart_backoff=settings.max_restart_backoff,
                max_channels=(
                    settings.max_channels_per_principal
                    if settings.authenticates
                    else settings.max_channels
                ),
            ),
            environment,
            dispatcher,
            loop,
        )
        routes = await _routes(member, router, ends.stopping)
        servicer = ConnectServicer(
            routes,
            max_message_bytes=settings.max_message_bytes,
            max_frame_bytes=settings.max_frame_bytes,
            max_in_flight=settings.max_operations_in_flight,
            gate=access.gate,
            bounds=work_bounds(settings),
        )
        access.on_changed = servicer.end_revoked
        sources = Sources(
            requests=servicer.statistics,
            admission=servicer.admission,
            actors=environment.statistics,
            clock=clock,
            mailboxes=dispatcher.mailboxes,
            permits=environment.permits,
            live_actors=lambda: router.live,
            committer=committer.statistics,
            waiting_writes=lambda: committer.waiting,
            journal=journal.statistics,
            probes=probes,
            reloads_failing=access.reloader.failing,
            data_dir=settings.data_dir,
            certificate=access.certificate,
        )
        access.reloader.follow("keys", [], key_reload.reload, retry=KEY_RETRY)
        started = _Started(access, routes, servicer, sources, identity.public_key, ends)
        async with ending_expired_channels(router, environment):
            await _serve_calls(settings, started, share_address=not member.alone)
    finally:
        await access.reloader.stop()
        key_pairs.stop()
        await committer.close()


async def _routes(member: Member, router: Router, stopping: asyncio.Event) -> Routes:
    """Return the way to all channels, which are elsewhere, too, if there are other processes."""
    if member.alone:
        return router
    from connect_actor.workers.router import ShardedRouter  # noqa: PLC0415 - only if it is needed

    return await ShardedRouter.join(member, router, stopping.set)


@dataclass(frozen=True, slots=True)
class _Started:
    """What runs before calls are served."""

    access: Access
    routes: Routes
    servicer: ConnectServicer
    sources: Sources
    identity: bytes
    ends: _Ends


async def _serve_calls(settings: Settings, started: _Started, *, share_address: bool) -> None:
    loop = asyncio.get_running_loop()
    access, ends = started.access, started.ends
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ends.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, access.reloader.reload_all)

    collector = ServiceCollector(
        strategy=settings.strategy,
        journal=settings.journal,
        router=settings.router,
        sources=started.sources,
    )
    try:
        metrics = serve_metrics(collector, settings.metrics_listen)
    except OSError as error:
        raise ListenError.of("metrics_listen", settings.metrics_listen, error) from error
    server = await RpcServer.start(
        started.servicer,
        settings.listen,
        max_frame_bytes=settings.max_frame_bytes,
        certificate=access.certificate,
        connections=_connections_within(connection_bounds(settings), raise_descriptor_limit()),
        share_address=share_address,
    )
    # What is alive now stays so: no collection needs to look at it again.
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    announce_ready(
        listen=server.address,
        metrics=str(parse_host_port(settings.metrics_listen).with_port(metrics.server_port)),
        identity=started.identity.hex(),
    )
    waits = [asyncio.ensure_future(event.wait()) for event in (ends.stopping, ends.fenced)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    if ends.fenced.is_set():
        # Whatever is still answered would come from memory that nothing vouches for.
        await server.stop(0)
        metrics.shutdown()
        raise JournalFencedError("another service has taken the journal over: this one stops")
    _log.info("stopping: finishing what was accepted")
    until = loop.time() + settings.shutdown_grace
    await server.stop(settings.shutdown_grace)
    try:
        await asyncio.wait_for(started.routes.drain(), max(until - loop.time(), _LEAST_DRAIN))
    except TimeoutError:
        _log.warning("some actors did not stop in time; their records are durable all the same")
    metrics.shutdown()
    _log.info("stopped")


def _connections_within(bounds: ConnectionBounds, descriptors: int) -> ConnectionBounds:
    """Keep some file descriptors from connections, for the journal and the metrics."""
    room = max(descriptors - OTHER_DESCRIPTORS, 1)
    if room < bounds.max_connections:
        _log.info(
            "%d file descriptors are left for connections: fewer than the %d of max_connections",
            room,
            bounds.max_connections,
        )
    return replace(bounds, max_connections=min(bounds.max_connections, room))
