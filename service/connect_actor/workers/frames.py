"""What workers say to each other, and its bytes: commands handed on, and their answers.

A frame is a length and its lists in MessagePack, by ``msgspec``: it takes the commands'
and answers' own types, checks them as it decodes, and costs a fifth of what protobuf would here,
which every message of another's channel pays. Frames never leave the machine and don't outlive the
processes, which run the same program: there is no version in them.
"""

import struct
from collections.abc import Iterator
from typing import Any

import msgspec
from google.protobuf.message import DecodeError

from connect_actor import errors
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
from connect_actor.errors import ConnectError
from connect_actor.protocol.delivery import Delivered
from connect_actor.protocol.payload import Payload
from connect_actor.v1 import connect_pb2 as wire

__all__ = [
    "Answer",
    "Frame",
    "FrameError",
    "FrameReader",
    "Refusal",
    "Request",
    "answer_with",
    "encode",
    "refuse_with",
    "request_for",
]

_LENGTH = struct.Struct(">Q")


class FrameError(Exception):
    """What came is no frame: a defect, since both ends run the same program."""


class Request(msgspec.Struct, array_like=True, gc=False):
    """A command that is handed on; each kind is a class of its own, below."""

    number: int
    """The sender's own, which the answer bears."""
    connect_id: int
    owner: bytes
    """What stands for the caller's principal."""
    request_id: str | None
    """For ``observe.tracing``."""
    command: Any
    """Its deadline is on the monotonic clock, which all processes of a machine share."""

    def __repr__(self) -> str:
        """Show whose and what, and nothing of the message."""
        return f"Request({self.number}, {self.connect_id}, {type(self.command).__name__})"


class _Establish(Request, tag=1):
    command: Establish


class _Encrypt(Request, tag=2):
    command: Encrypt


class _Decrypt(Request, tag=3):
    command: Decrypt


class _Acknowledge(Request, tag=4):
    command: Acknowledge


class _Restore(Request, tag=5):
    command: Restore


class _Close(Request, tag=6):
    command: Close


class Answer(msgspec.Struct, array_like=True, gc=False):
    """What a command was answered with; each form is a class of its own, below."""

    number: int
    """That of the request."""
    work: int
    """What its caller is charged with: ``actors.work``."""
    result: Any

    def __repr__(self) -> str:
        """Show whose, and nothing of the message."""
        return f"Answer({self.number}, {type(self.result).__name__})"


class _Nothing(Answer, tag=11):
    result: None


class _Bytes(Answer, tag=12):
    result: bytes


class _DeliveredBytes(Answer, tag=13):
    result: Delivered[bytes]


class _Payload(Answer, tag=14):
    result: Payload


class _DeliveredPayload(Answer, tag=15):
    result: Delivered[Payload]


class _Restored(Answer, tag=16):
    result: Restored


class Refusal(Answer, tag=17):
    """A refusal: the public error's name, what it says, and when to try again."""

    result: tuple[str, str, float | None]

    @property
    def error(self) -> ConnectError:
        """The error itself.

        Raises:
            FrameError: no public error has this name.
        """
        name, message, retry_after = self.result
        if name not in _PUBLIC:
            raise FrameError(f"there is no error {name[:100]!r}")
        error = _PUBLIC[name](message)
        error.retry_after = retry_after
        return error


class Frame(msgspec.Struct, array_like=True, gc=False):
    """What is said at once."""

    requests: list[_Establish | _Encrypt | _Decrypt | _Acknowledge | _Restore | _Close]
    answers: list[
        _Nothing | _Bytes | _DeliveredBytes | _Payload | _DeliveredPayload | _Restored | Refusal
    ]
    finished: bool = False
    """The sender hands on nothing more; it still answers."""


_REQUESTS: dict[type, type[Request]] = {
    Establish: _Establish,
    Encrypt: _Encrypt,
    Decrypt: _Decrypt,
    Acknowledge: _Acknowledge,
    Restore: _Restore,
    Close: _Close,
}
_ANSWERS: dict[type, type[Answer]] = {
    type(None): _Nothing,
    bytes: _Bytes,
    Payload: _Payload,
    Restored: _Restored,
}
_DELIVERED: dict[type, type[Answer]] = {bytes: _DeliveredBytes, Payload: _DeliveredPayload}
_PUBLIC: dict[str, type[ConnectError]] = {name: getattr(errors, name) for name in errors.__all__}


def request_for(
    number: int, connect_id: int, command: Command, owner: bytes, request_id: str | None
) -> Request:
    """Return a command as a message."""
    return _REQUESTS[type(command)](number, connect_id, owner, request_id, command)


def answer_with(number: int, result: object, work: int = 0) -> Answer:
    """Return an answer as a message."""
    if isinstance(result, Delivered):
        return _DELIVERED[type(result.result)](number, work, result)
    return _ANSWERS[type(result)](number, work, result)


def refuse_with(number: int, error: ConnectError, work: int = 0) -> Answer:
    """Return a refusal as a message; a room's own subclass of a public error goes as that."""
    name = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _PUBLIC)
    return Refusal(number, work, (name, str(error), error.retry_after))


def _to_known(value: Any) -> bytes:  # noqa: ANN401 - as msgspec
    if isinstance(value, wire.EstablishRequest):
        return value.SerializeToString()
    raise TypeError(f"{type(value).__name__} has no place in a frame")


def _from_known(kind: type, value: Any) -> wire.EstablishRequest:  # noqa: ANN401 - as msgspec
    if kind is wire.EstablishRequest:
        return wire.EstablishRequest.FromString(value)
    raise TypeError(f"{kind.__name__} has no place in a frame")


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_known)
_decoder = msgspec.msgpack.Decoder(Frame, dec_hook=_from_known)


def encode(requests: list[Any], answers: list[Any], *, finished: bool = False) -> bytes:
    """Return the bytes of a frame of such messages."""
    body = _encoder.encode(Frame(requests, answers, finished))
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Puts frames together from the pieces in which they come."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._buffer = bytearray()

    def read(self, piece: bytes) -> Iterator[Frame]:
        """Yield every frame that is whole with this piece.

        Raises:
            FrameError: what came is no frame.
        """
        buffer = self._buffer
        buffer += piece
        while len(buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(buffer)
            end = _LENGTH.size + size
            if len(buffer) < end:
                return
            body = bytes(buffer[_LENGTH.size : end])
            del buffer[:end]
            try:
                frame = _decoder.decode(body)
            except (msgspec.MsgspecError, DecodeError) as error:
                # From None: what it says may quote what came.
                raise FrameError(f"{type(error).__name__} in a frame of {size} bytes") from None
            yield frame
