"""A call as a servicer sees it, without a server around it."""

from typing import NoReturn

import grpc

__all__ = ["CallContext", "RefusedError"]


class RefusedError(Exception):
    """The call ended with a status."""

    def __init__(self, code: grpc.StatusCode, *status: object) -> None:
        super().__init__(code, *status)
        self.code = code


class CallContext:
    """Of a caller without deadline and metadata."""

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
