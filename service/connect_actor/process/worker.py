"""One worker: ``python -m connect_actor.process.worker MEMBER FLAGS...``, by the supervisor."""

import asyncio
import sys
from collections.abc import Sequence

from connect_actor.observe.logs import configure_logging
from connect_actor.process.app import serve
from connect_actor.process.exit_codes import CANNOT_START
from connect_actor.process.hardening import die_with_parent
from connect_actor.process.heartbeat import beat
from connect_actor.process.program import detach_output, run_program
from connect_actor.process.serve import run_process
from connect_actor.process.shares import share_of
from connect_actor.settings import Settings, load_settings
from connect_actor.workers.member import Member

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run the worker; return the process's exit code.

    Args:
        arguments: the member, as ``Member.to_text`` has it, and the flags of ``serve``.
    """
    member = Member.from_text(arguments[0])
    if not die_with_parent(member.parent):
        sys.stderr.write("connect-actor: a worker can't be bound to its supervisor's life\n")
        return CANNOT_START
    settings = share_of(load_settings(arguments[1:]), member.workers, member.listen)
    detach_output()
    configure_logging(settings.log_level, worker=member.number)
    return run_process(settings, lambda: _serve(settings, member))


async def _serve(settings: Settings, member: Member) -> None:
    beats = asyncio.create_task(beat(sys.stdout.fileno()))
    try:
        await serve(settings, member)
    finally:
        beats.cancel()


if __name__ == "__main__":
    sys.exit(run_program("connect-actor", lambda: main(sys.argv[1:])))
