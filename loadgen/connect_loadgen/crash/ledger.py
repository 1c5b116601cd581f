"""The ledger: everything the service ever said, and whether it has kept to it.

It makes each operation together with the rule that its answer is held to (``crash.rules``),
so nothing can be sent that is not judged. It does no I/O: what was answered, and what never will
be, is told to the rules by whoever carries the operations.
"""

from typing import TypeVar

from connect_actor.client import ConnectClient, Initiation
from connect_loadgen.crash.account import Account, Message, Standing
from connect_loadgen.crash.faults import FaultKind, Faults
from connect_loadgen.crash.rules import (
    Book,
    CloseRule,
    Counts,
    DecryptRule,
    EncryptRule,
    EstablishAgainRule,
    EstablishRule,
    RestoreRule,
    Rule,
)

__all__ = ["Ledger"]

_Rule = TypeVar("_Rule", bound=Rule)


class Ledger:
    """What is known of all channels, over every life of the service."""

    def __init__(self) -> None:
        self._book = Book()
        self._accounts: dict[int, Account] = {}
        self._initiations: dict[int, Initiation] = {}
        self._numbers = 0

    # --- What it has found ------------------------------------------------------------------------

    @property
    def faults(self) -> Faults:
        """All broken promises."""
        return self._book.faults

    @property
    def counts(self) -> Counts:
        """Operations by how they ended, and what became of messages sent again."""
        return self._book.counts

    @property
    def messages(self) -> int:
        """Different messages seen on the wire, of both ends."""
        return len(self._book.sightings)

    @property
    def established(self) -> int:
        """Channels made."""
        return len(self._accounts)

    @property
    def life(self) -> int:
        """Starts of the service so far."""
        return self._book.life

    def begin_life(self) -> None:
        """Take note that the service is started, once more."""
        self._book.life += 1

    def fault(self, kind: FaultKind, text: str, rule: Rule | None = None) -> None:
        """Take note of what whoever carries the operations has seen."""
        account = None if rule is None else rule.account
        connect_id = None if account is None else account.connect_id
        self._book.fault(kind, connect_id, text)

    # --- Channels ---------------------------------------------------------------------------------

    def channels(self, standing: Standing) -> list[Account]:
        """Return the channels that stand so, those with a fault left out."""
        faulty = self._book.faults.channels
        return [
            account
            for account in self._accounts.values()
            if account.standing is standing and account.connect_id not in faulty
        ]

    def is_sound(self, account: Account) -> bool:
        """Whether it is open and nothing was found against it."""
        return (
            account.standing is Standing.OPEN
            and account.connect_id not in self._book.faults.channels
        )

    @property
    def unanswered_handshakes(self) -> list[Initiation]:
        """Handshakes to be repeated."""
        return list(self._initiations.values())

    # --- Operations, each with its rule -----------------------------------------------------------

    def establish(self, initiation: Initiation, client: ConnectClient) -> EstablishRule:
        """Make a handshake, or repeat one that has no answer."""
        key = id(initiation)
        self._initiations[key] = initiation

        def made(account: Account) -> None:
            self._accounts[account.connect_id] = account
            self._initiations.pop(key, None)

        return self._numbered(EstablishRule(self._book, initiation, client, made))

    def establish_again(self, account: Account) -> EstablishAgainRule:
        """Repeat a handshake that was answered."""
        return self._numbered(EstablishAgainRule(self._book, account))

    def encrypt(self, account: Account, plaintext: bytes) -> EncryptRule:
        """Let the service encrypt."""
        return self._numbered(EncryptRule(self._book, account, plaintext, self._numbers + 1))

    def seal(self, account: Account, plaintext: bytes) -> Message:
        """Let the peer encrypt a message, to be sent now or later."""
        self._numbers += 1
        return account.seal(plaintext, self._numbers)

    def decrypt(self, account: Account, message: Message) -> DecryptRule:
        """Let the service decrypt a message, for the first time or once more."""
        return self._numbered(DecryptRule(self._book, account, message))

    def restore(self, account: Account) -> RestoreRule:
        """Ask where a channel stands; of one that was closed, whether it is still gone."""
        return self._numbered(RestoreRule(self._book, account))

    def close(self, account: Account) -> CloseRule:
        """Close a channel, or repeat a Close that has no answer."""
        return self._numbered(CloseRule(self._book, account))

    def _numbered(self, rule: _Rule) -> _Rule:
        self._numbers += 1
        rule.operation.operation_id = self._numbers
        return rule
