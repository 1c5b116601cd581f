"""What one worker is told of itself and the others when it is started."""

import json
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

__all__ = ["Member", "worker_of"]


@dataclass(frozen=True, slots=True)
class Member:
    """One of the processes that are a service; by default the only one."""

    number: int = 0
    """From 0."""
    workers: int = 1
    listen: str = ""
    """host:port that all of them listen on."""
    parent: int = 0
    """The supervisor's process id."""
    links: dict[int, int] = field(default_factory=dict)
    """File descriptors of the socket pairs to the others, by their numbers."""

    @property
    def alone(self) -> bool:
        """Whether there are no others."""
        return self.workers == 1

    def connections(self) -> Iterator[tuple[int, socket.socket]]:
        """Yield the others' numbers and connections; each may be taken once."""
        for number, descriptor in self.links.items():
            yield number, socket.socket(fileno=descriptor)

    def to_text(self) -> str:
        """Return the form in which it is handed to a process that is started."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> "Member":
        """Return what ``to_text`` has written."""
        fields = json.loads(text)
        # JSON has no other keys than strings.
        fields["links"] = {int(number): found for number, found in fields["links"].items()}
        return cls(**fields)


def worker_of(connect_id: int, workers: int) -> int:
    """Return the number of the worker that owns a channel, from 0."""
    return connect_id % workers
