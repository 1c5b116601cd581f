"""The command ``connect-actor backup``: a consistent copy, while the service goes on."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from connect_actor.keys.sources import identity_key_id
from connect_actor.operator.common import Operation, operator_parser, perform
from connect_actor.persistence.backup import back_up
from connect_actor.process.exit_codes import RIGHT

__all__ = ["run"]


def run(flags: Sequence[str]) -> int:
    """Make a backup; return the process's exit code."""
    parser = operator_parser(
        "backup",
        "Copy the journal and the identity into a new directory; the service may be running."
        " The master keys are not copied.",
    )
    parser.add_argument("directory", type=Path, help="is made; must not exist")
    return perform(parser, flags, _back_up)


def _back_up(operation: Operation) -> int:
    directory: Path = operation.asked.directory
    made = back_up(
        operation.present_journal,
        directory,
        beside=[operation.identity.name],
        made_at=time.time_ns(),
    )
    key_ids = set(made.key_ids)
    identity = directory / operation.identity.name
    if identity.exists():
        # Another one, if the keys were rotated meanwhile.
        key_ids.add(identity_key_id(identity).hex())
    operation.show(
        {"directory": str(directory), **asdict(made), "key_ids": sorted(key_ids)},
        [
            ("backup", f"{directory}: {', '.join(made.files)}"),
            ("journal", f"{made.size:,} bytes, up to row {made.head}"),
            ("not in it", "the master keys: keep them elsewhere, nothing opens without"),
            ("needs", f"master key {', '.join(sorted(key_ids))}"),
        ],
    )
    return RIGHT
