"""The router of one worker among several: its own channels' commands here, others' handed on."""

import asyncio
from collections.abc import Callable
from functools import partial

from connect_actor.actors.commands import Command
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.router import Router
from connect_actor.reply import Reply
from connect_actor.workers.link import Link, Route
from connect_actor.workers.member import Member, worker_of

__all__ = ["ShardedRouter"]


class ShardedRouter:
    """Routes as a ``Router`` does, to the channels of all workers."""

    def __init__(self, member: Member, local: Router, links: dict[int, Link]) -> None:
        """Route between a worker's own router and its links to all others, by their numbers."""
        self._workers = member.workers
        self._local = local
        self._links = links
        self._routes: list[Route] = [
            local.route if number == member.number else links[number].hand_on
            for number in range(member.workers)
        ]

    @classmethod
    async def join(
        cls, member: Member, local: Router, on_lost: Callable[[], object]
    ) -> "ShardedRouter":
        """Link a worker to all others.

        Args:
            member: which one it is.
            local: the way to its own channels.
            on_lost: called if another ends before the service does.
        """
        loop = asyncio.get_running_loop()
        links = {}
        for number, connection in member.connections():
            _, links[number] = await loop.create_unix_connection(
                partial(Link, number, local.route, on_lost), sock=connection
            )
        return cls(member, local, links)

    @property
    def dispatcher(self) -> Dispatcher:
        """See ``Routes``."""
        return self._local.dispatcher

    def route(self, connect_id: int, command: Command, reply: Reply, owner: bytes = b"") -> None:
        """See that an owner's command gets to its channel and its answer to ``reply``.

        Never raises.
        """
        self._routes[worker_of(connect_id, self._workers)](connect_id, command, reply, owner)

    async def drain(self) -> None:
        """Take no more from here, wait until the others don't either, then stop all actors.

        What another worker has accepted is so finished here, too.
        """
        for link in self._links.values():
            link.finish()
        for link in self._links.values():
            await link.peer_finished.wait()
        await self._local.drain()
        for link in self._links.values():
            link.close()
