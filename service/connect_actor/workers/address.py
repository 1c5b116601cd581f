"""The address that all workers listen on, taken for them before there is any.

It is bound as one that nobody shares, so a second service is refused, and only then opened to
sockets that share it, of the same user. The socket that is bound here never listens, so the kernel
gives it no connection, but keeps the port while workers come and go. Until one of them listens it
would let another socket of this kind be bound, too: a name that goes with the address, in the
kernel's own space of names for sockets, is there for one alone.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from connect_actor.network.addresses import ListenError, parse_host_port

__all__ = ["reserved"]


@contextmanager
def reserved(listen: str) -> Iterator[str]:
    """Keep host:port for the workers; yield it with the port that was really taken.

    Raises:
        ListenError: the address can't be listened on.
    """
    wanted = parse_host_port(listen)
    with ExitStack() as sockets:
        taken = wanted.port
        try:
            for family, (host, _, *rest) in wanted.resolved():
                bound = sockets.enter_context(socket.socket(family, socket.SOCK_STREAM))
                # Connections of a service before that are not quite gone are no reason to wait.
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                bound.bind((host, taken, *rest))
                taken = bound.getsockname()[1]
                name = sockets.enter_context(socket.socket(socket.AF_UNIX))
                name.bind(f"\0connect-actor workers {host} {taken}")
                bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        except OSError as error:
            raise ListenError.of("listen", listen, error) from error
        yield str(wanted.with_port(taken))
