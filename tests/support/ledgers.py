"""A service in memory for tests of the ledger: honest, unless a test turns it back."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from connect_actor.client import ConnectClient, Identity, Initiation
from connect_actor.client.channel import Channel, wall_clock
from connect_actor.errors import ChannelNotFoundError, ConnectError
from connect_actor.protocol.handshake import ChannelLimits, connect_id_of, respond
from connect_actor.protocol.session import Session
from connect_actor.protocol.wire import payload_from_wire, payload_to_wire
from connect_actor.rpc.status import status_of
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.crash.account import Account
from connect_loadgen.crash.faults import FaultKind
from connect_loadgen.crash.ledger import Ledger
from connect_loadgen.crash.rules import Rule, Verdict

if TYPE_CHECKING:
    # Known to the type checker only.
    from connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

__all__ = ["Desk", "MemoryService"]


class MemoryService:
    """The service's ends of some channels."""

    def __init__(self) -> None:
        self.sessions: dict[int, Session] = {}
        self._identity = Identity.generate(os.urandom)

    def turn_back(self, to: dict[int, bytes]) -> None:
        """Go on from what ``states`` has returned, and forget what happened since."""
        self.sessions = {name: Session.decode(state) for name, state in to.items()}

    def states(self) -> dict[int, bytes]:
        return {name: session.encode() for name, session in self.sessions.items()}

    def __call__(self, operation: wire.Operation) -> wire.OperationResult:
        result = wire.OperationResult(operation_id=operation.operation_id)
        name = str(operation.WhichOneof("request"))
        try:
            getattr(self, f"_{name}")(getattr(operation, name), getattr(result, name))
        except ConnectError as error:
            result.error.CopyFrom(status_of(error))
        return result

    def _session(self, connect_id: int) -> Session:
        if connect_id not in self.sessions:
            raise ChannelNotFoundError("no such channel")
        return self.sessions[connect_id]

    def _establish(self, request: wire.EstablishRequest, answer: wire.EstablishResponse) -> None:
        connect_id = connect_id_of(request)
        if connect_id not in self.sessions:
            self.sessions[connect_id] = respond(
                request,
                identity=self._identity,
                limits=ChannelLimits(one_time_prekeys=1),
                now=wall_clock(),
                random=os.urandom,
            )
        answer.MergeFromString(self.sessions[connect_id].handshake.response)

    def _encrypt(self, request: wire.EncryptRequest, answer: wire.EncryptResponse) -> None:
        session = self._session(request.connect_id)
        payload, _ = session.encrypt(
            request.plaintext, now=wall_clock(), random=os.urandom, request_id=request.request_id
        )
        payload_to_wire(payload, answer.payload)

    def _decrypt(self, request: wire.DecryptRequest, answer: wire.DecryptResponse) -> None:
        session = self._session(request.connect_id)
        payload = payload_from_wire(request.payload)
        answer.plaintext = session.decrypt(payload, now=wall_clock())[0]
        answer.SetInParent()

    def _restore(self, request: wire.RestoreRequest, answer: wire.RestoreResponse) -> None:
        ratchet = self._session(request.connect_id).ratchet
        answer.sending_chain_length = 0 if ratchet.sending is None else ratchet.sending.next_index
        answer.receiving_chain_length = (
            0 if ratchet.receiving is None else ratchet.receiving.next_index
        )
        answer.SetInParent()

    def _close(self, request: wire.CloseRequest, answer: wire.CloseResponse) -> None:
        self._session(request.connect_id)
        del self.sessions[request.connect_id]
        answer.SetInParent()


class _Client:
    """As much of a client as a handshake takes."""

    def begin(self) -> Initiation:
        return Initiation.begin(Identity.generate(os.urandom), os.urandom, 1)

    def complete(self, initiation: Initiation, response: wire.EstablishResponse) -> Channel:
        no_stub = cast("ConnectServiceAsyncStub", None)
        return Channel(response.connect_id, initiation.complete(response), no_stub)


class Desk:
    """A ledger, a service, and what goes between them: at once, late, or never."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.ledger.begin_life()
        self.service = MemoryService()
        self.client = cast("ConnectClient", _Client())
        self._texts = 0

    def ask(self, rule: Rule) -> Verdict:
        """Have an operation carried out and answered."""
        rule.take(self.service(rule.operation))
        return rule.verdict

    def do_in_silence(self, rule: Rule) -> wire.OperationResult:
        """Have an operation carried out; its answer is lost, but for whoever called this."""
        result = self.service(rule.operation)
        rule.unknown()
        return result

    def answer(self, rule: Rule, fill: Callable[[wire.OperationResult], None]) -> None:
        """Answer as a test says."""
        result = wire.OperationResult(operation_id=rule.operation.operation_id)
        fill(result)
        rule.take(result)

    def establish(self) -> Account:
        rule = self.ledger.establish(cast("_Client", self.client).begin(), self.client)
        self.ask(rule)
        assert rule.channel is not None
        return rule.channel

    def text(self) -> bytes:
        self._texts += 1
        return b"text %d" % self._texts

    def encrypt(self, account: Account) -> Verdict:
        return self.ask(self.ledger.encrypt(account, self.text()))

    def decrypt(self, account: Account) -> Verdict:
        return self.ask(self.ledger.decrypt(account, self.ledger.seal(account, self.text())))

    def restore(self, account: Account) -> Verdict:
        return self.ask(self.ledger.restore(account))

    @property
    def faults(self) -> list[FaultKind]:
        return [fault.kind for fault in self.ledger.faults.kept]
