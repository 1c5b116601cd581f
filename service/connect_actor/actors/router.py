"""The router: finds or starts the actor of a channel, passivates it, starts it anew after a crash.

A command comes with its caller's *owner*: what stands for a principal, empty for everybody where
callers are not authenticated. A channel's actor and its memory exist for the channel's owner alone,
who finds the channel in one of these places:

- live: its actor serves the command at once if it is idle, and finds it in its mailbox if it is
  busy, or while a commit is being settled, which may fail for channels not yet told;
- waiting (``_Waiting``): kept here, in order, until an actor that is passivating has stopped, or
  until there is room for another live actor; then to a new one;
- crashed a moment ago: refused until its back-off is over;
- nowhere: the journal is asked first, so that an unknown id starts no actor.

To anyone else it is nowhere, wherever it is: the journal is asked, and the answer is that of an
unknown id, by the same way and after the same work.

Live actors are bounded. A newcomer beyond makes the least recently used idle one passivate, and
waits for its place; it is refused only if none of those looked at is idle.

In ``awaiting`` mode one operation at a time is under way in the whole service, and goes through
a mailbox, as behind the audited server's parent actor, so that the effect can be measured.

All of it runs on the event loop's thread.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from pykka import ActorRef

from connect_actor.access.quotas import ChannelQuota
from connect_actor.actors.actor import mailbox_of, signal
from connect_actor.actors.commands import (
    Command,
    Establish,
    Passivate,
    refusal_to_others,
)
from connect_actor.actors.connect import ConnectActor
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.environment import ConnectEnvironment, Guardian
from connect_actor.actors.mailbox import Mailbox
from connect_actor.errors import (
    ActorCrashedError,
    ConnectError,
    OverloadedError,
    ShuttingDownError,
    StorageError,
)
from connect_actor.persistence.committer import Standing
from connect_actor.reply import Reply, ReplyWithEnd

__all__ = ["Router", "RouterSettings", "Routes"]

# Commands kept for one channel while its actor is found or passivated.
_MAX_WAITING = 4_096
# Channels that the journal is being asked about, of all callers: a few rounds' worth of reads.
_MAX_ASKED = 65_536
# Actors looked at to find the least recently used: a fraction of a millisecond.
_LOOKS = 1_024
# Idle actors are looked for this many times within the idle timeout.
_SWEEPS_PER_TIMEOUT = 8


class Routes(Protocol):
    """A way to every channel: a ``Router``, or one that hands on what is another process's."""

    @property
    def dispatcher(self) -> Dispatcher:
        """What gives turns to actors, and may give them to the rest of their callers' work."""

    def route(self, connect_id: int, command: Command, reply: Reply, owner: bytes = b"") -> None:
        """See that an owner's command gets to its channel and its answer to ``reply``."""

    async def drain(self) -> None:
        """Start nothing new, and stop every actor behind what its mailbox holds."""


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """How a router looks after actors. Times are seconds."""

    awaiting: bool
    idle_timeout: float
    max_live_actors: int
    restart_backoff: float
    max_restart_backoff: float
    max_channels: int = 0
    """Channels that a principal may own, or that may have no owner; 0: any number."""


_Commands = deque[tuple[Command, Reply]]


@dataclass(slots=True)
class _Live:
    ref: ActorRef[ConnectActor]
    mailbox: Mailbox
    owner: bytes
    last_used: int
    """In sweeps."""
    due: int
    """The sweep that looks at it next."""


_Found = tuple[int, _Live]


@dataclass(slots=True)
class _Waiting:
    """Commands for a channel that is about to have an actor, in order."""

    owner: bytes
    commands: _Commands = field(default_factory=deque)
    stopping: str | None = None
    """URN of the actor that has to stop first; None for a newcomer that waits for room."""


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
        # Commands for channels that the journal is being asked about, by channel and owner.
        self._asked: dict[tuple[int, bytes], _Commands] = {}
        self._newcomers: deque[int] = deque()
        self._live_actors = 0
        self._actors = 0  # live ones, and those that are stopping
        self._quota = ChannelQuota(settings.max_channels, environment.committer.owned)
        self._backoffs: dict[int, _Backoff] = {}
        self._serial = _Serial() if settings.awaiting else None
        self._draining = False
        self._drained = asyncio.Event()
        self._sweep = 0
        # Channels by the sweep in which they may have been idle for long enough.
        self._due: defaultdict[int, deque[int]] = defaultdict(deque)
        self._period = settings.idle_timeout / _SWEEPS_PER_TIMEOUT
        self._timer = loop.call_later(self._period, self._on_sweep)

    @property
    def dispatcher(self) -> Dispatcher:
        """See ``Routes``."""
        return self._dispatcher

    @property
    def live(self) -> int:
        """Channels whose actor is live or on its way there or from there."""
        return len(self._channels)

    # --- Routing ----------------------------------------------------------------------------------

    def route(self, connect_id: int, command: Command, reply: Reply, owner: bytes = b"") -> None:
        """See that an owner's command gets to its channel and its answer to ``reply``.

        Never raises.
        """
        channel = self._channels.get(connect_id)
        if (
            type(channel) is _Live
            and channel.owner == owner
            and self._serial is None
            and not self._environment.committer.settling
        ):
            channel.last_used = self._sweep
            channel.mailbox.serve(command, reply)
        elif self._serial is None:
            self._forward(connect_id, command, owner, reply)
        else:
            self._serial.submit(partial(self._forward, connect_id, command, owner), reply)

    def _forward(self, connect_id: int, command: Command, owner: bytes, reply: Reply) -> None:
        channel = self._channels.get(connect_id)
        if type(channel) is _Live and channel.owner == owner:
            channel.last_used = self._sweep
            channel.mailbox.put_asked(command, reply)
            return
        try:
            if self._draining:
                raise ShuttingDownError("the service is stopping: try again on another instance")
            if type(channel) is _Waiting and channel.owner == owner:
                _keep(channel.commands, command, reply)
            else:
                self._ask(connect_id, command, owner, reply)
        except ConnectError as error:
            reply.refuse(error)

    def _ask(self, connect_id: int, command: Command, owner: bytes, reply: Reply) -> None:
        """A command for a channel that, as far as its caller may know, has no actor."""
        key = connect_id, owner
        asked = self._asked.get(key)
        if asked is not None:
            _keep(asked, command, reply)
        elif (
            type(command) is Establish
            and not owner
            and connect_id not in self._channels
            and self._quota.has_room(owner)
        ):
            # Whose a channel is matters to nobody here; should it be a principal's, the actor
            # withdraws. With no room left the journal is asked whether it is a new one.
            self._establish(connect_id, owner, deque([(command, reply)]))
        elif len(self._asked) >= _MAX_ASKED:
            raise OverloadedError(
                f"the journal is being asked about {_MAX_ASKED} channels: try again after a pause"
            )
        else:
            self._asked[key] = deque([(command, reply)])
            self._environment.committer.look_up(connect_id, owner, partial(self._found, key))

    def _found(
        self, key: tuple[int, bytes], standing: Standing, error: StorageError | None
    ) -> None:
        """Go on with a channel that had no actor, now that the journal has been asked."""
        connect_id, owner = key
        asked: _Commands = self._asked.pop(key)
        try:
            if connect_id in self._channels:
                # Another's, which may not be durable yet.
                standing = Standing.FOREIGN
            if error is not None:
                raise error
            if standing is Standing.OWN:
                self._hand_over(connect_id, owner, asked)
            elif standing is Standing.UNKNOWN and _establishes(asked):
                self._quota.require_room(owner)
                self._establish(connect_id, owner, asked)
            else:
                for command, reply in asked:
                    reply.refuse(refusal_to_others(command))
        except ConnectError as refusal:
            for _, reply in asked:
                reply.refuse(refusal)
        self._note_if_drained()

    def _establish(self, connect_id: int, owner: bytes, commands: _Commands) -> None:
        """Hand over what is to make a new channel, counted as one until it is answered."""
        reserve = self._quota.reserve
        counted = deque(
            (command, reserve(owner, reply) if type(command) is Establish else reply)
            for command, reply in commands
        )
        try:
            self._hand_over(connect_id, owner, counted)
        except ConnectError as refusal:
            # The refusals, too, go where the quota hears of them.
            for _, reply in counted:
                reply.refuse(refusal)

    def call_up(self, connect_id: int, owner: bytes) -> None:
        """Have a channel at rest loaded and passivated at once, which ends it if it has expired.

        Nobody has to make room for it: nothing is done if there is none, if the channel is in use,
        or if the service is stopping.
        """
        in_use = connect_id in self._channels or (connect_id, owner) in self._asked
        full = self._actors >= self._settings.max_live_actors
        if not (self._draining or in_use or full):
            self._passivate(connect_id, self._start(connect_id, owner, deque()))

    # --- Room for actors --------------------------------------------------------------------------

    def _hand_over(self, connect_id: int, owner: bytes, commands: _Commands) -> None:
        """Give an owner's commands to a new actor, now or once there is room for it.

        Raises:
            ActorCrashedError: the last one crashed a moment ago.
            OverloadedError: there is no room, and there will be none, or too many channels wait to
                be loaded.
        """
        backoff = self._backoffs.get(connect_id)
        if backoff is not None and self._loop.time() < backoff.until:
            raise ActorCrashedError(
                f"the channel's actor failed and restarts in"
                f" {backoff.until - self._loop.time():.1f} s: try again then"
            )
        self._environment.permits.require_room()
        if self._actors < self._settings.max_live_actors:
            self._start(connect_id, owner, commands)
            return
        self._make_room()
        self._channels[connect_id] = _Waiting(owner, commands)
        self._newcomers.append(connect_id)

    def _make_room(self) -> None:
        """See that more actors are about to stop than newcomers wait.

        Raises:
            OverloadedError: all that were looked at have something to do.
        """
        if self._stopping > len(self._newcomers):
            return
        idle, _ = self._least_recently_used()
        if idle is None:
            raise OverloadedError(
                f"{self._settings.max_live_actors} channels are live and busy:"
                " try again after a pause"
            )
        self._passivate(*idle)

    def _admit_newcomers(self) -> None:
        while self._newcomers and self._actors < self._settings.max_live_actors:
            connect_id = self._newcomers.popleft()
            waiting = self._channels[connect_id]
            if type(waiting) is _Waiting:
                self._start(connect_id, waiting.owner, waiting.commands)
        # Who came back while its own actor stopped was never refused: a busy one goes, if need be.
        while self._stopping < len(self._newcomers):
            idle, any_live = self._least_recently_used()
            chosen = idle or any_live
            if chosen is None:
                return
            self._passivate(*chosen)

    @property
    def _stopping(self) -> int:
        return self._actors - self._live_actors

    def _least_recently_used(self) -> tuple[_Found | None, _Found | None]:
        """Return the actors used in the earliest sweep, of those looked at: an idle one, and any.

        Looks where the next sweeps would, and leaves what it has looked at where it belongs.
        """
        idle: _Found | None = None
        any_live: _Found | None = None
        looks = _LOOKS
        for due in range(self._sweep + 1, self._sweep + _SWEEPS_PER_TIMEOUT + 2):
            bucket = self._due.get(due, ())
            for _ in range(min(len(bucket), looks)):
                looks -= 1
                found = self._next_due(due)
                if found is None:
                    continue
                any_live = any_live or found
                if found[1].mailbox.empty():
                    if found[1].due == due:
                        return found, found
                    if idle is None or found[1].last_used < idle[1].last_used:
                        idle = found
        return idle, any_live

    def _next_due(self, sweep: int) -> _Found | None:
        """Take the next channel of those that may have been idle for long enough in a sweep.

        Files it anew, by its last use. None if it has gone, or is filed elsewhere.
        """
        connect_id = self._due[sweep].popleft()
        channel = self._channels.get(connect_id)
        if type(channel) is not _Live or channel.due != sweep:
            return None
        channel.due = channel.last_used + _SWEEPS_PER_TIMEOUT + 1
        self._due[channel.due].append(connect_id)
        return connect_id, channel

    def _start(self, connect_id: int, owner: bytes, commands: _Commands) -> _Live:
        ref = ConnectActor.start(
            connect_id, owner, self._environment, self, dispatcher=self._dispatcher
        )
        due = self._sweep + _SWEEPS_PER_TIMEOUT + 1
        live = self._channels[connect_id] = _Live(ref, mailbox_of(ref), owner, self._sweep, due)
        self._due[due].append(connect_id)
        self._actors += 1
        self._live_actors += 1
        for command, reply in commands:
            live.mailbox.put_asked(command, reply)
        if self._draining:
            self._passivate(connect_id, live)
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
                self._live_actors -= 1
            case _Waiting(stopping=urn) if urn == actor.actor_urn:
                if channel.commands:
                    # Behind those for whom it had to go.
                    channel.stopping = None
                    self._newcomers.append(connect_id)
                else:
                    del self._channels[connect_id]
            case _:
                return
        self._actors -= 1
        self._environment.committer.forget(connect_id)
        self._admit_newcomers()
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
        self._channels[connect_id] = _Waiting(live.owner, stopping=live.ref.actor_urn)
        self._live_actors -= 1
        self._environment.statistics.passivated += 1
        signal(live.ref, Passivate())

    def _on_sweep(self) -> None:
        """Passivate what has been idle; look at each channel about once per idle timeout."""
        self._sweep += 1
        for _ in range(len(self._due[self._sweep])):
            found = self._next_due(self._sweep)
            if found is not None and found[1].due <= self._sweep:
                self._passivate(*found)
        del self._due[self._sweep]
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
        if self._draining and not self._channels and not self._asked:
            self._drained.set()


def _establishes(commands: _Commands) -> bool:
    return any(type(command) is Establish for command, _ in commands)


def _keep(commands: _Commands, command: Command, reply: Reply) -> None:
    if len(commands) >= _MAX_WAITING:
        raise OverloadedError(
            f"{_MAX_WAITING} commands are waiting for this channel: try again after a pause"
        )
    commands.append((command, reply))


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
            forward(ReplyWithEnd(reply, self._ended))
        self._pumping = False

    def _ended(self) -> None:
        self._busy = False
        self._pump()
