"""Keeps a gRPC server serving: when its own loop ends, another takes its place.

grpcio (1.85, ``_server_main_loop`` in server.pyx.pxi) decodes the name of the method that is called
as UTF-8, outside of any call: one call to a name that is none ends the whole server, for everybody,
while the process lives on. Whoever reaches the port can do that. Found by fuzzing the port.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from service.addresses import ListenError
from service.rpc.server import RpcServer

__all__ = ["SupervisedServer"]

_log = logging.getLogger(__name__)

# Seconds between two attempts to listen again, while something else has the address.
_PAUSE = 0.1


class SupervisedServer:
    """A server that listens until it is told to stop."""

    def __init__(self, server: RpcServer, again: Callable[[str], Awaitable[RpcServer]]) -> None:
        """Look after ``server``; ``again`` starts one like it at an address."""
        self._server = server
        self._again = again
        self._keeper = asyncio.create_task(self._keep(), name="grpc-supervision")
        self.restarts = 0

    @property
    def address(self) -> str:
        """host:port, the same for all servers that take each other's place."""
        return self._server.address

    async def _keep(self) -> None:
        while True:
            await self._server.ended()
            _log.error("gRPC's server has ended by itself; calls under way are lost, it restarts")
            address = self._server.address
            while True:
                try:
                    self._server = await self._again(address)
                    break
                except ListenError:
                    await asyncio.sleep(_PAUSE)
            self.restarts += 1

    async def stop(self, grace: float) -> None:
        """Refuse new calls, finish those accepted, within ``grace`` seconds."""
        self._keeper.cancel()
        await self._server.stop(grace)
