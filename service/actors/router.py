"""The router: finds or starts the actor of a channel, passivates it, starts it anew after a crash.

A channel is in one of these places, and a command for it goes accordingly:

- nowhere: the journal is asked first, so that an unknown id starts no actor (``_Waiting``);
- live: into its actor's mailbox;
- passivating: kept here, in order, until the actor has stopped, then to a new one (``_Waiting``);
- crashed a moment ago: refused until its back-off is over.

In ``awaiting`` mode one operation at a time is under way in the whole service, as behind the
audited server's parent actor, so that the effect can be measured.

All of it runs on the event loop's thread.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pykka import ActorRef

from service.actors.actor import mailbox_of, signal
from service.actors.commands import Command, Establish, Passivate, Reply
from service.actors.connect import ConnectActor
from service.actors.dispatcher import Dispatcher
from service.actors.environment import ConnectEnvironment, Guardian
from service.actors.future import LoopFuture
from service.actors.mailbox import Envelope, Mailbox
from service.errors import (
    ActorCrashedError,
    ChannelNotFoundError,
    ConnectError,
    OverloadedError,
    ShuttingDownError,
    StorageError,
)
from service.tracing import id_of

__all__ = ["Router", "RouterSettings"]

# Commands kept for one channel while its actor is found or passivated.
_MAX_WAITING = 4_096
# Idle actors are looked for this many times within the idle timeout.
_SWEEPS_PER_TIMEOUT = 8


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How a router looks after actors. Times are seconds."""

    awaiting: bool
    idle_timeout: float
    max_live_actors: int
    restart_backoff: float
    max_restart_backoff: float


@dataclass(slots=True)
class _Live:
    ref: ActorRef[ConnectActor]
    mailbox: Mailbox
    last_used: int
    """In sweeps."""


@dataclass(slots=True)
class _Waiting:
    """Commands for a channel that has no actor at this moment, in order."""

    commands: deque[tuple[Command, Reply]] = field(default_factory=deque)
    stopping: str | None = None
    """URN of the actor that has to stop first; None while the journal is asked."""


@dataclass(slots=True)
class _Backoff:
    crashes: int
    until: float


class Router(Guardian):
    """Routes commands to the actors of channels, and guards those actors."""

    def __init__(
        self,
        settings: RouterSettings,
        environment: ConnectEnvironment,
        dispatcher: Dispatcher,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Begin without any actor."""
        self._settings = settings
        self._environment = environment
        self._dispatcher = dispatcher
        self._loop = loop
        self._channels: dict[int, _Live | _Waiting] = {}
        self._backoffs: dict[int, _Backoff] = {}
        self._serial = _Serial() if settings.awaiting else None
        self._draining = False
        self._drained = asyncio.Event()
        self._sweep = 0
        # Channels by the sweep in which they may have been idle for long enough.
        self._due: defaultdict[int, list[int]] = defaultdict(list)
        self._period = settings.idle_timeout / _SWEEPS_PER_TIMEOUT
        self._timer = loop.call_later(self._period, self._on_sweep)

    @property
    def live(self) -> int:
        """Actors that are live or on their way there or from there."""
        return len(self._channels)

    # --- Routing ----------------------------------------------------------------------------------

    def route(self, connect_id: int, command: Command, reply: Reply) -> None:
        """See that a command gets to its channel and its answer to ``reply``; never raises."""
        if self._serial is None:
            self._forward(connect_id, command, reply)
        else:
            self._serial.submit(partial(self._forward, connect_id, command), reply)

    def _forward(self, connect_id: int, command: Command, reply: Reply) -> None:
        try:
            channel = self._channels.get(connect_id)
            if type(channel) is _Live:
                channel.last_used = self._sweep
                channel.mailbox.put(Envelope(command, reply))
            elif self._draining:
                raise ShuttingDownError("the service is stopping: try again on another instance")
            elif type(channel) is _Waiting:
                self._keep(channel, command, reply)
            else:
                self._admit(connect_id, command, reply)
        except ConnectError as error:
            reply.set_exception((type(error), error, None))

    def _keep(self, waiting: "_Waiting", command: Command, reply: Reply) -> None:
        if len(waiting.commands) >= _MAX_WAITING:
            raise OverloadedError(
                f"{_MAX_WAITING} commands are waiting for this channel: try again after a pause"
            )
        waiting.commands.append((command, reply))

    def _admit(self, connect_id: int, command: Command, reply: Reply) -> None:
        """A command for a channel that has no actor."""
        backoff = self._backoffs.get(connect_id)
        if backoff is not None and self._loop.time() < backoff.until:
            raise ActorCrashedError(
                f"the channel's actor failed and restarts in"
                f" {backoff.until - self._loop.time():.1f} s: try again then"
            )
        if len(self._channels) >= self._settings.max_live_actors:
            raise OverloadedError(
                f"{self._settings.max_live_actors} channels are live: try again after a pause"
            )
        self._environment.permits.require_room()
        if isinstance(command, Establish):
            self._start(connect_id).mailbox.put(Envelope(command, reply))
        else:
            waiting = self._channels[connect_id] = _Waiting()
            self._keep(waiting, command, reply)
            self._environment.committer.look_up(
                connect_id, partial(self._found, connect_id, waiting)
            )

    def _found(
        self,
        connect_id: int,
        waiting: "_Waiting",
        known: bool,  # noqa: FBT001 - a callback's argument
        error: StorageError | None,
    ) -> None:
        """Go on with a channel that had no actor, now that the journal has been asked."""
        del self._channels[connect_id]
        if known or any(isinstance(command, Establish) for command, _ in waiting.commands):
            self._hand_over(connect_id, waiting)
        else:
            refusal = error or ChannelNotFoundError("no such channel: establish one")
            for _, reply in waiting.commands:
                reply.set_exception((type(refusal), refusal, None))
            self._note_if_drained()

    def _hand_over(self, connect_id: int, waiting: "_Waiting") -> None:
        live = self._start(connect_id)
        for command, reply in waiting.commands:
            live.mailbox.put(Envelope(command, reply))
        if self._draining:
            self._passivate(connect_id, live)

    def _start(self, connect_id: int) -> _Live:
        ref = ConnectActor.start(connect_id, self._environment, self, dispatcher=self._dispatcher)
        live = self._channels[connect_id] = _Live(ref, mailbox_of(ref), self._sweep)
        self._due[self._sweep + _SWEEPS_PER_TIMEOUT + 1].append(connect_id)
        return live

    # --- Looking after actors ---------------------------------------------------------------------

    def idle(self, actor: ConnectActor) -> None:
        """See ``Guardian``."""
        channel = self._channels.get(actor.connect_id)
        if type(channel) is _Live and channel.ref.actor_urn == actor.actor_urn:
            self._passivate(actor.connect_id, channel)

    def stopped(self, actor: ConnectActor) -> None:
        """See ``Guardian``."""
        connect_id = actor.connect_id
        channel = self._channels.get(connect_id)
        match channel:
            case _Live(ref=ref) if ref.actor_urn == actor.actor_urn:
                del self._channels[connect_id]
            case _Waiting(stopping=urn) if urn == actor.actor_urn:
                del self._channels[connect_id]
                if channel.commands:
                    self._hand_over(connect_id, channel)
            case _:
                return
        self._environment.committer.forget(connect_id)
        self._note_if_drained()

    def crashed(self, actor: ConnectActor) -> None:
        """See ``Guardian``."""
        now = self._loop.time()
        backoff = self._backoffs.setdefault(actor.connect_id, _Backoff(0, now))
        pause = min(
            self._settings.restart_backoff * 2**backoff.crashes,
            self._settings.max_restart_backoff,
        )
        backoff.crashes += 1
        backoff.until = now + pause

    def _passivate(self, connect_id: int, live: _Live) -> None:
        self._channels[connect_id] = _Waiting(stopping=live.ref.actor_urn)
        self._environment.statistics.passivated += 1
        signal(live.ref, Passivate())

    def _on_sweep(self) -> None:
        """Passivate what has been idle; look at each channel about once per idle timeout."""
        self._sweep += 1
        for connect_id in self._due.pop(self._sweep, ()):
            channel = self._channels.get(connect_id)
            if type(channel) is not _Live:
                continue
            due = channel.last_used + _SWEEPS_PER_TIMEOUT + 1
            if due <= self._sweep:
                self._passivate(connect_id, channel)
            else:
                self._due[due].append(connect_id)
        now = self._loop.time()
        forgiven = self._settings.max_restart_backoff
        self._backoffs = {
            connect_id: backoff
            for connect_id, backoff in self._backoffs.items()
            if now < backoff.until + forgiven
        }
        self._timer = self._loop.call_later(self._period, self._on_sweep)

    # --- Stopping ---------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Start nothing new, and passivate every actor behind what its mailbox holds."""
        self._draining = True
        self._timer.cancel()
        for connect_id, channel in list(self._channels.items()):
            if type(channel) is _Live:
                self._passivate(connect_id, channel)
        self._note_if_drained()
        await self._drained.wait()

    def _note_if_drained(self) -> None:
        if self._draining and not self._channels:
            self._drained.set()


class _Serial:
    """Lets one operation at a time through: the audited server's parent, which awaits each."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Callable[[Reply], None], Reply]] = deque()
        self._busy = False
        self._pumping = False

    def submit(self, forward: Callable[[Reply], None], reply: Reply) -> None:
        self._queue.append((forward, reply))
        self._pump()

    def _pump(self) -> None:
        # A loop, since an operation that is refused at once answers from within ``forward``.
        if self._pumping:
            return
        self._pumping = True
        while self._queue and not self._busy:
            self._busy = True
            forward, reply = self._queue.popleft()
            relay: LoopFuture[object] = LoopFuture()
            request_id = id_of(reply)
            if request_id is not None:
                relay.request_id = request_id
            relay.add_done_callback(partial(self._relay, reply))
            forward(relay)
        self._pumping = False

    def _relay(self, reply: Reply, done: LoopFuture[object]) -> None:
        done.pass_on(reply)
        self._busy = False
        self._pump()
