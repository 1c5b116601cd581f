"""A call as a servicer sees it, without a server around it."""

import asyncio
from typing import NoReturn

import grpc
from google.protobuf.message import Message

__all__ = ["CallContext", "RefusedError"]


class RefusedError(Exception):
    """The call ended with a status."""

    def __init__(self, code: grpc.StatusCode, *status: object) -> None:
        super().__init__(code, *status)
        self.code = code


class CallContext:
    """Of a caller without deadline and metadata, who sends these messages."""

    def __init__(self, *messages: Message | bytes, ends: bool = True) -> None:
        self._messages = list(messages)
        self._ends = ends

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def read(self) -> object:
        if self._messages:
            message = self._messages.pop(0)
            return message if isinstance(message, bytes) else message.SerializeToString()
        if not self._ends:
            await asyncio.Event().wait()
        return grpc.aio.EOF

    def time_remaining(self) -> float | None:
        return None

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return ()

    async def send_initial_metadata(self, metadata: object) -> None:
        del metadata

    def set_trailing_metadata(self, metadata: object) -> None:
        del metadata

    async def abort(self, code: grpc.StatusCode, *status: object) -> NoReturn:
        raise RefusedError(code, *status)
