"""What may be answered to each operation: one class each, made as the operation goes out.

Judged by gRPC status alone, as anybody outside would. Every operation ends in exactly one way: by
an answer (``take``) or without one (``unknown``); an answer that comes after all is judged too.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from connect_actor.client import ConnectClient, Initiation
from connect_actor.errors import ConnectError
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.crash.account import Account, Message, Standing
from connect_loadgen.crash.faults import Fault, FaultKind, Faults
from connect_loadgen.crash.sightings import Sender, Sighting, Sightings
from connect_loadgen.drive.channels import ChannelEnd
from connect_loadgen.drive.peer import RefusedByPeerError, status_name

__all__ = [
    "Book",
    "CloseRule",
    "Counts",
    "DecryptRule",
    "EncryptRule",
    "EstablishAgainRule",
    "EstablishRule",
    "RestoreRule",
    "Rule",
    "Verdict",
]

# Broken connections, a service that stops, a journal that did not confirm: done or not.
_OUTCOME_UNKNOWN = frozenset({"UNAVAILABLE", "CANCELLED"})
_NOT_DONE = "RESOURCE_EXHAUSTED"
_LATE = "DEADLINE_EXCEEDED"
_ABSENT = "NOT_FOUND"
_REPLAYED = "ALREADY_EXISTS"
# Of a chain that is used up nothing is kept, so its messages look forged, or too far ahead.
_OF_NO_KNOWN_CHAIN = frozenset({"INVALID_ARGUMENT", "OUT_OF_RANGE"})


class Verdict(Enum):
    """How an operation ended."""

    DONE = "done"
    """Answered, or refused in a way that says that it had been done before."""
    NOT_DONE = "not done"
    """Refused, and known not to have happened."""
    UNKNOWN = "unknown"
    """Without an answer: it may have happened."""


@dataclass(slots=True)
class Counts:
    """What was counted; none of it is a fault."""

    operations: Counter[tuple[str, Verdict]] = field(default_factory=Counter)
    """By name, and how they ended."""
    replays_refused: int = 0
    """Messages that were known to be decrypted, sent again and refused."""
    undecided_refused: int = 0
    """Messages without an answer, sent again and refused: they had been decrypted."""
    redelivered: int = 0
    """Messages that were known to be decrypted, and came again marked as such."""

    def by_name(self) -> dict[str, dict[str, int]]:
        """Return the operations, as JSON can hold them."""
        names = sorted({name for name, _ in self.operations})
        return {
            name: {verdict.value: self.operations[name, verdict] for verdict in Verdict}
            for name in names
        }


class Book:
    """What all rules write in."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.sightings = Sightings()
        self.counts = Counts()
        self.life = 0
        """Which start of the service this is, from 1."""

    def fault(self, kind: FaultKind, connect_id: int | None, text: str) -> None:
        """Take note of a broken promise."""
        self.faults.add(Fault(kind, connect_id, self.life, text))

    def see(
        self, sender: Sender, account: Account, payload: wire.CipherPayload, plaintext: bytes
    ) -> Sighting:
        """Take note of a message on the wire."""
        sighting = self.sightings.see(sender, payload, plaintext)
        if sighting is Sighting.PLACE_TAKEN:
            self.fault(
                FaultKind.REUSED,
                account.connect_id,
                f"two messages of the {sender} bear index {payload.ratchet_index} of one chain",
            )
        elif sighting is Sighting.NONCE_TAKEN:
            self.fault(
                FaultKind.REUSED,
                account.connect_id,
                f"a message of the {sender} bears the nonce of another",
            )
        return sighting


class Rule:
    """Common to all operations."""

    name = ""
    """In ``Operation.request`` and ``OperationResult.outcome``."""

    def __init__(self, book: Book, operation: wire.Operation, account: Account | None) -> None:
        self.operation = operation
        self.account = account
        self.verdict = Verdict.UNKNOWN
        self._book = book
        self._life = book.life
        self._was_closed = account is not None and account.standing is Standing.CLOSED

    def take(self, result: wire.OperationResult) -> None:
        """Judge the answer."""
        outcome = result.WhichOneof("outcome")
        if outcome == self.name:
            if self._was_closed:
                self._fault(FaultKind.REVIVED, "a closed channel answers")
            self._end(Verdict.DONE)
            self._done(result)
        elif outcome == "error":
            self._take_error(status_name(result.error.code), result.error.message)
        else:
            self._fault(FaultKind.WRONG, f"answered with {outcome}")
            self.unknown()

    def unknown(self) -> None:
        """Take note that no answer comes, or one that says nothing."""
        self._end(Verdict.UNKNOWN)
        self._unknown()

    def take_late(self, result: wire.OperationResult) -> None:
        """Judge an answer that comes after it was given up: what it says was said."""

    def _take_error(self, status: str, message: str) -> None:
        if status in _OUTCOME_UNKNOWN:
            self.unknown()
        elif status == _LATE:
            self._fault(FaultKind.HUNG, "not answered within the limit")
            self.unknown()
        elif status == _NOT_DONE:
            self._end(Verdict.NOT_DONE)
            self._not_done()
        elif status == _ABSENT:
            self._absent(message)
        else:
            self._refused(status, message)

    def _end(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self._book.counts.operations[self.name, verdict] += 1

    def _fault(self, kind: FaultKind, text: str) -> None:
        connect_id = None if self.account is None else self.account.connect_id
        self._book.fault(kind, connect_id, f"{self.name}: {text}")

    def _done(self, result: wire.OperationResult) -> None:
        """Judge an answer of the right kind."""

    def _unknown(self) -> None:
        """Keep in mind that it may have happened."""

    def _not_done(self) -> None:
        """Forget it: it did not happen."""

    def _absent(self, message: str) -> None:
        """Judge that there is no such channel."""
        if self.account is None or self.account.standing is Standing.OPEN:
            self._fault(FaultKind.LOST, f"the channel is gone: {message}")
        self._end(Verdict.NOT_DONE)
        self._not_done()

    def _refused(self, status: str, message: str) -> None:
        """Judge any other refusal."""
        self._fault(FaultKind.REFUSED, f"{status}: {message}")
        self._end(Verdict.NOT_DONE)
        self._not_done()


class _OfChannel(Rule):
    """Common to operations on a channel that was made."""

    def __init__(self, book: Book, operation: wire.Operation, account: Account) -> None:
        super().__init__(book, operation, account)
        self._account = account
        account.begun(self)

    def _end(self, verdict: Verdict) -> None:
        super()._end(verdict)
        self._account.ended(self)


class EncryptRule(_OfChannel):
    """An acknowledged message opens at the peer, in a place and with a nonce of its own."""

    name = "encrypt"

    def __init__(self, book: Book, account: Account, plaintext: bytes, request_id: int) -> None:
        request = wire.EncryptRequest(
            connect_id=account.connect_id, plaintext=plaintext, request_id=request_id
        )
        super().__init__(book, wire.Operation(encrypt=request), account)
        self._plaintext = plaintext
        account.encrypt_asked()

    def _done(self, result: wire.OperationResult) -> None:
        self._receive(result.encrypt.payload)
        self._account.encrypt_answered(self._life)

    def take_late(self, result: wire.OperationResult) -> None:
        """See ``Rule``."""
        if result.WhichOneof("outcome") == self.name:
            self._receive(result.encrypt.payload)

    def _receive(self, payload: wire.CipherPayload) -> None:
        sighting = self._book.see("service", self._account, payload, self._plaintext)
        if sighting is not Sighting.NEW:
            # The peer opens each message once.
            return
        try:
            opened = self._account.end.open(payload)
        except RefusedByPeerError as error:
            self._fault(FaultKind.WRONG, f"the peer can't open the message: {error}")
            return
        if opened != self._plaintext:
            self._fault(FaultKind.WRONG, "the message says something else")

    def _unknown(self) -> None:
        self._account.encrypt_unknown(self._life)

    def _not_done(self) -> None:
        self._account.encrypt_refused()


class DecryptRule(_OfChannel):
    """A message is decrypted once; whoever was told so, or not, may send it again and learn it."""

    name = "decrypt"

    def __init__(self, book: Book, account: Account, message: Message) -> None:
        request = wire.DecryptRequest(connect_id=account.connect_id, payload=message.payload)
        super().__init__(book, wire.Operation(decrypt=request), account)
        self._message = message
        self._was_sent = account.has_sent(message)
        self._was_decrypted = self._was_sent and message.place not in account.undecided
        book.see("peer", account, message.payload, message.plaintext)
        if not self._was_decrypted:
            account.sending(message)

    def _done(self, result: wire.OperationResult) -> None:
        answer = result.decrypt
        if answer.plaintext != self._message.plaintext:
            self._fault(FaultKind.WRONG, "the plaintext is another")
        if not self._was_decrypted:
            self._account.was_decrypted(self._message)
        # A service that keeps results for being asked again says so, in a field of its own.
        elif not answer.redelivered:
            self._fault(FaultKind.DECRYPTED_TWICE, "an acknowledged message was decrypted again")
        else:
            self._book.counts.redelivered += 1

    def take_late(self, result: wire.OperationResult) -> None:
        """See ``Rule``."""
        if result.WhichOneof("outcome") == self.name:
            self._done(result)

    def _refused(self, status: str, message: str) -> None:
        is_replay = status == _REPLAYED or (
            status in _OF_NO_KNOWN_CHAIN and self._account.may_be_behind(self._message)
        )
        if not (is_replay and self._was_sent):
            super()._refused(status, message)
            return
        self._end(Verdict.DONE)
        if self._was_decrypted:
            self._book.counts.replays_refused += 1
        else:
            # It had happened, and its answer was lost with the connection.
            self._book.counts.undecided_refused += 1
            self._account.was_decrypted(self._message)

    def _not_done(self) -> None:
        if not self._was_sent:
            self._account.not_sent(self._message)


class RestoreRule(_OfChannel):
    """A channel stands where it was acknowledged to be, or as much further as is undecided."""

    name = "restore"

    def __init__(self, book: Book, account: Account) -> None:
        request = wire.RestoreRequest(connect_id=account.connect_id)
        super().__init__(book, wire.Operation(restore=request), account)
        self._since = account.span()

    def _done(self, result: wire.OperationResult) -> None:
        answer, account, since = result.restore, self._account, self._since
        if not account.may_have_sent(answer.sending_chain_length, since):
            self._fault(
                FaultKind.LOST,
                f"the sending chain has {answer.sending_chain_length} messages,"
                f" {since.sent_length} were acknowledged and {since.encrypts_open} undecided",
            )
        if not account.may_have_received(answer.receiving_chain_length, since):
            self._fault(
                FaultKind.LOST,
                f"the receiving chain has {answer.receiving_chain_length} messages,"
                f" {since.received[1] + 1} were acknowledged",
            )


class CloseRule(_OfChannel):
    """A channel that was closed stays so."""

    name = "close"

    def __init__(self, book: Book, account: Account) -> None:
        request = wire.CloseRequest(connect_id=account.connect_id)
        super().__init__(book, wire.Operation(close=request), account)
        self._was_asked = account.standing is not Standing.OPEN
        account.standing = Standing.CLOSING

    def _done(self, result: wire.OperationResult) -> None:
        del result  # it says no more than that
        self._account.standing = Standing.CLOSED

    def _absent(self, message: str) -> None:
        if not self._was_asked:
            self._fault(FaultKind.LOST, f"the channel is gone: {message}")
        self._account.standing = Standing.CLOSED
        self._end(Verdict.DONE)


class EstablishRule(Rule):
    """An answered handshake has made a channel; one without an answer is repeated until it has."""

    name = "establish"

    def __init__(
        self,
        book: Book,
        initiation: Initiation,
        client: ConnectClient,
        on_channel: Callable[[Account], None],
    ) -> None:
        super().__init__(book, wire.Operation(establish=initiation.request), None)
        self.channel: Account | None = None
        """What it has made."""
        self._initiation = initiation
        self._client = client
        self._on_channel = on_channel

    def _done(self, result: wire.OperationResult) -> None:
        try:
            channel = self._client.complete(self._initiation, result.establish)
        except ConnectError as error:
            self._fault(FaultKind.WRONG, f"the handshake is not acceptable: {error}")
            return
        self.channel = Account(ChannelEnd(channel), self._initiation.request, result.establish)
        self._on_channel(self.channel)


class EstablishAgainRule(_OfChannel):
    """A repeated handshake is answered as it was."""

    name = "establish"

    def __init__(self, book: Book, account: Account) -> None:
        super().__init__(book, wire.Operation(establish=account.request), account)

    def _done(self, result: wire.OperationResult) -> None:
        if result.establish.SerializeToString(deterministic=True) != self._account.response:
            self._fault(FaultKind.LOST, "a repeated handshake is answered with another response")
