"""The six operations, from the wire to a command and from its answer back to the wire.

Shared by unary calls and streams: one ``OperationKind`` each, found by its name in the wire's
``Operation.request``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from connect_actor.actors.commands import (
    Acknowledge,
    Close,
    Command,
    Decrypt,
    Encrypt,
    Establish,
    Restore,
    Restored,
)
from connect_actor.errors import MalformedRequestError, MessageTooLargeError
from connect_actor.protocol.delivery import Delivered
from connect_actor.protocol.handshake import MAX_CONNECT_ID, connect_id_of
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.wire import payload_from_wire, payload_to_wire
from connect_actor.v1 import connect_pb2 as wire

__all__ = ["OPERATIONS", "OperationKind"]


@dataclass(frozen=True, slots=True)
class OperationKind:
    """How one operation crosses the wire."""

    name: str
    """Its field in ``Operation.request`` and ``OperationResult.outcome``."""
    request: type[Message]
    response: type[Message]
    """Those of its unary call."""
    command: Callable[[Any, float | None, int], tuple[int, Command]]
    """Turns a request, a deadline and the largest message size into a connect id and a command.

    Raises ``CallerError`` for what can be seen to be wrong without the channel.
    """
    fill: Callable[[Any, Any], None]
    """Writes a command's answer into a response message."""
    answers_in_kind: bool = False
    """Whether an answer is at most some 200 bytes larger than its request."""

    @property
    def method(self) -> str:
        """Name of its unary method."""
        return self.name.capitalize()


def _require_known_form(connect_id: int) -> int:
    if 0 < connect_id <= MAX_CONNECT_ID:
        return connect_id
    raise MalformedRequestError(
        f"connect_id is {connect_id}, expected 1 to {MAX_CONNECT_ID}: send the id that Establish"
        " returned"
    )


def _too_large(size: int, max_bytes: int, what: str) -> MessageTooLargeError:
    return MessageTooLargeError(
        f"{what} has {size} bytes, at most {max_bytes} are accepted: send less at once"
    )


def _establish(
    request: wire.EstablishRequest, deadline: float | None, max_bytes: int
) -> tuple[int, Command]:
    if request.ByteSize() > max_bytes:
        raise _too_large(request.ByteSize(), max_bytes, "the request")
    try:
        return connect_id_of(request), Establish(request, deadline)
    except OverflowError:
        raise MalformedRequestError("a prekey id doesn't fit 32 bits") from None


def _encrypt(
    request: wire.EncryptRequest, deadline: float | None, max_bytes: int
) -> tuple[int, Command]:
    plaintext = request.plaintext
    if len(plaintext) > max_bytes:
        raise _too_large(len(plaintext), max_bytes, "plaintext")
    return (
        _require_known_form(request.connect_id),
        Encrypt(plaintext, request.request_id, deadline, request.idempotency_key),
    )


def _decrypt(
    request: wire.DecryptRequest, deadline: float | None, max_bytes: int
) -> tuple[int, Command]:
    payload = payload_from_wire(request.payload)
    if len(payload.ciphertext) > max_bytes:
        raise _too_large(len(payload.ciphertext), max_bytes, "payload.ciphertext")
    return _require_known_form(request.connect_id), Decrypt(payload, deadline)


def _acknowledge(
    request: wire.AcknowledgeRequest, deadline: float | None, _: int
) -> tuple[int, Command]:
    return (
        _require_known_form(request.connect_id),
        Acknowledge(request.up_to_delivery_number, deadline),
    )


def _restore(request: wire.RestoreRequest, deadline: float | None, _: int) -> tuple[int, Command]:
    return _require_known_form(request.connect_id), Restore(deadline)


def _close(request: wire.CloseRequest, deadline: float | None, _: int) -> tuple[int, Command]:
    return _require_known_form(request.connect_id), Close(deadline)


def _fill_established(response: wire.EstablishResponse, answer: bytes) -> None:
    response.MergeFromString(answer)


def _fill_encrypted(response: wire.EncryptResponse, answer: Payload | Delivered[Payload]) -> None:
    if type(answer) is Payload:
        payload_to_wire(answer, response.payload)
    elif isinstance(answer, Delivered):
        payload_to_wire(answer.result, response.payload)
        response.delivery_number = answer.number
        response.redelivered = answer.redelivered


def _fill_decrypted(response: wire.DecryptResponse, answer: bytes | Delivered[bytes]) -> None:
    if isinstance(answer, Delivered):
        response.plaintext = answer.result
        response.delivery_number = answer.number
        response.redelivered = answer.redelivered
    else:
        response.plaintext = answer
        response.SetInParent()


def _fill_restored(response: wire.RestoreResponse, answer: Restored) -> None:
    response.sending_chain_length = answer.sending_chain_length
    response.receiving_chain_length = answer.receiving_chain_length
    response.skipped_message_keys = answer.skipped_message_keys
    response.expires_at_unix_micros = answer.expires_at


def _fill_empty(response: wire.AcknowledgeResponse | wire.CloseResponse, _: None) -> None:
    response.SetInParent()


OPERATIONS: Mapping[str, OperationKind] = {
    kind.name: kind
    for kind in (
        OperationKind(
            "establish",
            wire.EstablishRequest,
            wire.EstablishResponse,
            _establish,
            _fill_established,
        ),
        OperationKind(
            "encrypt",
            wire.EncryptRequest,
            wire.EncryptResponse,
            _encrypt,
            _fill_encrypted,
            answers_in_kind=True,
        ),
        OperationKind(
            "decrypt",
            wire.DecryptRequest,
            wire.DecryptResponse,
            _decrypt,
            _fill_decrypted,
            answers_in_kind=True,
        ),
        OperationKind(
            "acknowledge",
            wire.AcknowledgeRequest,
            wire.AcknowledgeResponse,
            _acknowledge,
            _fill_empty,
        ),
        OperationKind(
            "restore", wire.RestoreRequest, wire.RestoreResponse, _restore, _fill_restored
        ),
        OperationKind("close", wire.CloseRequest, wire.CloseResponse, _close, _fill_empty),
    )
}
