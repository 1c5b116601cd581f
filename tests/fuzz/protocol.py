"""Targets of the protocol: payloads, handshakes, stored sessions and changes."""

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from google.protobuf.message import DecodeError

from connect_actor.errors import ConnectError
from connect_actor.protocol import handshake
from connect_actor.protocol.changes import (
    MAX_CHANGES,
    InconsistentChangeError,
    Received,
    Sent,
    decode_change,
    decode_changes,
    encode_change,
)
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.replay import apply_all
from connect_actor.protocol.session import Session
from connect_actor.protocol.wire import bundle_from_wire, payload_from_wire, payload_to_wire
from connect_actor.stored.v1 import session_pb2 as stored
from connect_actor.v1 import connect_pb2 as wire
from tests.fuzz.target import require
from tests.support.channels import NOW, Ends, make_ends, response_of, seeded

__all__ = [
    "PROTOCOL_TARGETS",
    "ChangeTarget",
    "ChangesTarget",
    "PayloadTarget",
    "talk",
    "wire_bytes",
]

# Small, so that inputs reach both sides of it.
_LIMITS = ChannelLimits(dh_ratchet_every=2, max_skip=40, max_skipped_keys=60, one_time_prekeys=2)


def wire_bytes(payload: Payload) -> bytes:
    """Return a payload as it travels."""
    message = wire.CipherPayload()
    payload_to_wire(payload, message)
    return message.SerializeToString()


def talk(seed: int = 1) -> tuple[Ends, Mapping[str, Payload]]:
    """Make ends that have talked, and messages to the service of every kind."""
    ends = make_ends(seed, _LIMITS)
    payloads = {"replayed": ends.up(b"replayed")}
    ends.at_service(payloads["replayed"])
    payloads["skipped"] = ends.up(b"skipped")
    ends.at_service(ends.up())
    ends.at_peer(ends.down())
    ends.at_service(ends.up())
    payloads["late"] = ends.up(b"late")
    ends.at_peer(ends.down())
    ends.at_service(ends.up())
    # Now the peer is due to turn; what is next on the old chain was made before.
    before = Session.decode(ends.peer.encode())
    ends.at_peer(ends.down())
    ends.at_peer(ends.down())
    payloads["next"] = before.encrypt(b"next", now=NOW, random=ends.random)[0]
    for _ in range(3):
        payloads["turning"] = ends.up(b"turning")
    for _ in range(30):
        payloads["ahead"] = ends.up(b"far ahead")
    payloads["empty"] = ends.up(b"")
    return ends, payloads


class PayloadTarget:
    """A payload as it comes, on a channel that has talked."""

    name: ClassVar[str] = "payload"
    style: ClassVar[str] = "message"
    max_steps: ClassVar[int] = 3 * _LIMITS.max_skip + 2
    base_bytes: ClassVar[int] = 0

    def __init__(self) -> None:
        ends, self._payloads = talk()
        self._stored = ends.service.encode()
        self._session = Session.decode(self._stored)

    def seeds(self) -> Mapping[str, bytes]:
        return {name: wire_bytes(payload) for name, payload in self._payloads.items()}

    def run(self, data: bytes) -> bool:
        try:
            payload = payload_from_wire(wire.CipherPayload.FromString(data))
        except DecodeError:
            return False  # gRPC's affair
        try:
            self._session.decrypt(payload, now=NOW)
        except ConnectError:
            require(self._session.encode() == self._stored, "a refused payload changed the session")
            return False
        require(payload in self._payloads.values(), "a payload was accepted that nobody sent")
        self._session = Session.decode(self._stored)
        return True

    def close(self) -> None:
        pass


class _HandshakeTarget:
    """Common to both messages: what is changed is tried as it is, and signed anew."""

    style: ClassVar[str] = "message"
    max_steps: ClassVar[int] = 0
    base_bytes: ClassVar[int] = 0

    def close(self) -> None:
        pass


class RequestTarget(_HandshakeTarget):
    """A handshake's request, as it comes from a stranger."""

    name: ClassVar[str] = "request"

    def __init__(self) -> None:
        self._identity = Identity.generate(seeded(1))
        self._stranger = Identity.generate(seeded(2))
        self._random = seeded(3)

    def seeds(self) -> Mapping[str, bytes]:
        return {
            f"{prekeys}-prekeys": Initiation.begin(
                self._stranger, seeded(4), prekeys
            ).request.SerializeToString()
            for prekeys in (0, 1, 10)
        }

    def run(self, data: bytes) -> bool:
        try:
            request = wire.EstablishRequest.FromString(data)
        except DecodeError:
            return False
        accepted = self._responded(request)
        try:
            self._sign(request)
        except ConnectError:
            return accepted
        return self._responded(request) or accepted

    def _sign(self, request: wire.EstablishRequest) -> None:
        """Sign whatever it holds, so that the signature keeps no change from being looked at."""
        request.bundle.identity_key = self._stranger.public_key
        context = handshake._initiator_context(request.ephemeral_key, request.ratchet_key)
        request.bundle.signature = self._stranger.sign(
            bundle_from_wire(request.bundle).content(context)
        )

    def _responded(self, request: wire.EstablishRequest) -> bool:
        try:
            connect_id = handshake.connect_id_of(request)
            session = respond(
                request, identity=self._identity, limits=_LIMITS, now=NOW, random=self._random
            )
        except ConnectError:
            return False
        require(response_of(session).connect_id == connect_id, "an id that is not the request's")
        stored = session.encode()
        require(Session.decode(stored).encode() == stored, "a new session does not come back")
        return True


class ResponseTarget(_HandshakeTarget):
    """A handshake's response, as it comes to an initiator."""

    name: ClassVar[str] = "response"

    def __init__(self) -> None:
        self._identity = Identity.generate(seeded(1))
        self._initiation = self._begin()
        self._digest = handshake._digest_of(self._initiation.request)

    def _begin(self) -> Initiation:
        return Initiation.begin(Identity.generate(seeded(2)), seeded(4), 1)

    def seeds(self) -> Mapping[str, bytes]:
        return {
            f"{prekeys}-prekeys": respond(
                self._initiation.request,
                identity=self._identity,
                limits=ChannelLimits(one_time_prekeys=prekeys),
                now=NOW,
                random=seeded(5),
            ).handshake.response
            for prekeys in (0, 1, 10)
        }

    def run(self, data: bytes) -> bool:
        try:
            response = wire.EstablishResponse.FromString(data)
        except DecodeError:
            return False
        accepted = self._completed(response)
        try:
            self._sign(response)
        except (ConnectError, OverflowError):  # a negative expiry can't be signed
            return accepted
        return self._completed(response) or accepted

    def _sign(self, response: wire.EstablishResponse) -> None:
        response.bundle.identity_key = self._identity.public_key
        prekey = response.one_time_prekey_id if response.HasField("one_time_prekey_id") else None
        context = handshake._responder_context(
            self._digest, prekey, response.expires_at_unix_micros, response.dh_ratchet_every
        )
        response.bundle.signature = self._identity.sign(
            bundle_from_wire(response.bundle).content(context)
        )

    def _completed(self, response: wire.EstablishResponse) -> bool:
        initiation = self._initiation
        try:
            session = initiation.complete(
                response, pinned_identity=self._identity.public_key, max_skip=_LIMITS.max_skip
            )
        except ConnectError:
            require(initiation._keys is not None, "a refused response used the handshake up")
            return False
        self._initiation = self._begin()
        stored = session.encode()
        require(Session.decode(stored).encode() == stored, "a new session does not come back")
        return True


class SessionTarget:
    """A stored session: damaged by whom the seal did not keep from it, or of another version."""

    name: ClassVar[str] = "session"
    style: ClassVar[str] = "message"
    # Encrypting, and each of the messages: what a state says of itself is its own bound.
    max_steps: ClassVar[int] = 10 * (3 * _LIMITS.max_skip + 2)
    base_bytes: ClassVar[int] = 0

    def __init__(self) -> None:
        ends, payloads = talk()
        self._sessions = {"service": ends.service, "peer": ends.peer, "new": make_ends().service}
        self._payloads = list(payloads.values())

    def seeds(self) -> Mapping[str, bytes]:
        return {name: session.encode() for name, session in self._sessions.items()}

    def run(self, data: bytes) -> bool:
        try:
            session = Session.decode(data)
        except InconsistentChangeError:
            return False
        stored = session.encode()
        require(Session.decode(stored).encode() == stored, "it comes back as another")
        require(session.ratchet.limits.max_skip <= 2**32 - 1, "no bound")
        if session.ratchet.limits.max_skip > _LIMITS.max_skip:
            return True  # using it may cost what it says
        random = seeded(1)
        uses: Sequence[Callable[[], object]] = [
            lambda: session.encrypt(b"x", now=NOW, random=random),
            *(lambda p=payload: session.decrypt(p, now=NOW) for payload in self._payloads),
            lambda: session.encrypt(b"y", now=NOW, random=random),
        ]
        for use in uses:
            before = session.encode()
            try:
                use()
            except (ConnectError, InconsistentChangeError):
                require(session.encode() == before, "a refusal changed the session")
            session.encode()
        return True

    def close(self) -> None:
        pass


class ChangeTarget:
    """A stored change, applied to a session that it may or may not follow from."""

    name: ClassVar[str] = "change"
    style: ClassVar[str] = "message"
    max_steps: ClassVar[int] = 2 * _LIMITS.max_skip + 2
    base_bytes: ClassVar[int] = 0

    def __init__(self) -> None:
        ends, payloads = talk()
        self._stored = ends.service.encode()
        self._changes = {}
        for name, payload in payloads.items():
            try:
                change = Session.decode(self._stored).decrypt(payload, now=NOW)[1]
            except ConnectError:
                continue
            self._changes[name] = encode_change(change)
        for name in ("sent", "sent-turning"):
            session = Session.decode(self._stored)
            if name == "sent-turning":
                session.decrypt(payloads["turning"], now=NOW)
                self._turned = session.encode()
            for _ in range(3):
                sent = session.encrypt(b"x", now=NOW, random=seeded(9))[1]
                if sent.ratchet_private_key or name == "sent":
                    break
            self._changes[name] = encode_change(sent)
        # And one that has reached the last number of everything.
        last = Session.decode(self._turned).ratchet
        assert last.sending is not None
        assert last.receiving is not None
        last.sending.next_index = last.receiving.next_index = last.receiving_turns = 2**32 - 1
        session.ratchet = last
        self._last = session.encode()
        self._changes["sent-last"] = encode_change(Sent(2**32 - 1))
        self._changes["received-last"] = encode_change(Received(2**32 - 1))

    def seeds(self) -> Mapping[str, bytes]:
        return self._changes

    def run(self, data: bytes) -> bool:
        try:
            change = decode_change(data)
        except InconsistentChangeError:
            return False
        require(decode_change(encode_change(change)) == change, "it comes back as another")
        accepted = False
        for encoded in (self._stored, self._turned, self._last):
            session = Session.decode(encoded)
            try:
                session.apply(change)
            except InconsistentChangeError:
                continue
            again = session.encode()
            require(Session.decode(again).encode() == again, "the session does not come back")
            accepted = True
        return accepted

    def close(self) -> None:
        pass


class ChangesTarget(ChangeTarget):
    """Several stored changes in one record, applied to a session one after another."""

    name: ClassVar[str] = "changes"
    max_steps: ClassVar[int] = 2 * (MAX_CHANGES + _LIMITS.max_skip + 2)

    def seeds(self) -> Mapping[str, bytes]:
        first = {name: stored.Change.FromString(each) for name, each in self._changes.items()}
        runs = {f"{name}-alone": [stored.ChangeRun(first=each)] for name, each in first.items()}
        for name in ("sent", "next"):
            runs[f"{name}-run"] = [stored.ChangeRun(first=first[name], further=39)]
        beginning = stored.ChangeRun(first=stored.Change(kind=stored.Change.SENT))
        runs["mixed"] = [beginning, *(stored.ChangeRun(first=each) for each in first.values())]
        return {
            name: stored.ChangeRuns(runs=each).SerializeToString() for name, each in runs.items()
        }

    def run(self, data: bytes) -> bool:
        session = Session.decode(self._stored)
        try:
            apply_all(session, decode_changes(data))
        except InconsistentChangeError:
            return False
        again = session.encode()
        require(Session.decode(again).encode() == again, "the session does not come back")
        return True


PROTOCOL_TARGETS = (
    PayloadTarget,
    RequestTarget,
    ResponseTarget,
    SessionTarget,
    ChangeTarget,
    ChangesTarget,
)
