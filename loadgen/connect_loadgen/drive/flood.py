"""A flood of connections: opened and closed, or fed with garbage, as fast as one process can.

``python -m connect_loadgen.drive.flood HOST:PORT SECONDS`` prints how many there were.
"""

import os
import socket
import struct
import sys
import time

from connect_actor.network.addresses import parse_host_port

__all__ = ["flood"]

_GARBAGE_BYTES = 64
_PATIENCE = 5.0
# Closing by a reset leaves no port behind in TIME_WAIT, of which there are 28,000.
_RESET = struct.pack("ii", 1, 0)


def flood(address: str, seconds: float) -> int:
    """Connect for so long; return how often."""
    target = parse_host_port(address)
    where = target.host, target.port
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        try:
            with socket.create_connection(where, _PATIENCE) as connection:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                if count % 2:
                    connection.sendall(os.urandom(_GARBAGE_BYTES))
        except OSError:
            # Refused or reset: that is the service's right.
            pass
        count += 1
    return count


if __name__ == "__main__":
    sys.stdout.write(f"{flood(sys.argv[1], float(sys.argv[2]))}\n")
