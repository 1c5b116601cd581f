"""What waits while a channel is loaded."""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from connect_actor.actors.actor import ANSWER_LATER
from connect_actor.actors.commands import Command, Passivate
from connect_actor.actors.work import payer_of
from connect_actor.errors import OverloadedError
from connect_actor.reply import Payer, Reply

if TYPE_CHECKING:
    from connect_actor.actors.connect import ConnectActor

__all__ = ["Kept", "Stash"]

# Commands that may wait for a recovery; the mailbox is bounded on its own.
_MAX_STASHED = 4_096

Kept = Command | Passivate


class Stash:
    """What waits for the session, in order of arrival: commands, and the order to passivate."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[tuple[Kept, Reply | None]] = deque()

    def add(self, command: Kept, sender: Reply | None) -> object:
        """Keep a command; return ``ANSWER_LATER``.

        Raises:
            OverloadedError: too many wait.
        """
        if len(self._waiting) >= _MAX_STASHED:
            raise OverloadedError(
                f"{_MAX_STASHED} commands are waiting for this channel to load: try again later"
            )
        self._waiting.append((command, sender))
        return ANSWER_LATER

    @property
    def payer(self) -> Payer | None:
        """Who pays for what was done for the first."""
        return payer_of(self._waiting[0][1]) if self._waiting else None

    def replay(self, actor: "ConnectActor") -> None:
        """Hand everything to the actor's current phase, ahead of what is in its mailbox."""
        while self._waiting:
            command, sender = self._waiting.popleft()
            actor.handle(command, sender)

    def refuse(self, error: Exception) -> None:
        """Answer everything with an error."""
        self.refuse_each(lambda _: error)

    def refuse_each(self, error_of: Callable[[Kept], Exception]) -> None:
        """Answer each command with the error that ``error_of`` returns for it."""
        while self._waiting:
            command, sender = self._waiting.popleft()
            if sender is not None:
                sender.refuse(error_of(command))
