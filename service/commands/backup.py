"""The command ``connect-actor backup``: a consistent copy, while the service goes on."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from service.commands.common import (
    journal_of,
    operator_parser,
    print_json,
    print_text,
    reporting,
    settings_of,
)
from service.exit_codes import RIGHT
from service.paths import IDENTITY_FILE
from service.persistence.backup import back_up

__all__ = ["run"]


def run(flags: Sequence[str]) -> int:
    """Make a backup; return the process's exit code."""
    parser = operator_parser(
        "backup",
        "Copy the journal and the identity into a new directory; the service may be running."
        " The master keys are not copied.",
    )
    parser.add_argument("directory", type=Path, help="is made; must not exist")
    asked = parser.parse_args(flags)

    def work() -> int:
        made = back_up(
            journal_of(settings_of(asked)),
            asked.directory,
            beside=[IDENTITY_FILE],
            made_at=time.time_ns(),
        )
        if asked.json:
            print_json({"directory": str(asked.directory), **asdict(made)})
        else:
            print_text(
                [
                    ("backup", f"{asked.directory}: {', '.join(made.files)}"),
                    ("journal", f"{made.size:,} bytes, up to row {made.head}"),
                    ("not in it", "the master keys: keep them elsewhere, nothing opens without"),
                    ("needs", f"master key {', '.join(made.key_ids)}"),
                ]
            )
        return RIGHT

    return reporting(work)
