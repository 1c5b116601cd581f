"""The exit codes of every command: the table of ``--help`` and docs/reference/commands.md."""

from enum import IntEnum
from typing import Self

from connect_actor.process import exit_codes

__all__ = ["Exit", "exit_table"]


class Exit(IntEnum):
    """How a command ended; each member has its code and its meaning."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Self:
        """Give the code its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    RIGHT = 0, "everything was measured, and nothing was wrong"
    WRONG = (
        1,
        (
            "an answer was wrong, an operation failed, a bound or a promise was broken, a figure"
            " got worse (diff, bench --compare), or a benchmark or a row (reach) failed"
        ),
    )
    CONFIGURATION = 2, "the settings can't be used, or an output can't be written; nothing was run"
    SERVICE = (
        3,
        (
            "the service did not start, died or could not be reached, or the system refused what"
            " the run needed (disk space, file descriptors)"
        ),
    )
    UNSHOWN = (
        exit_codes.UNSHOWN,
        (
            "everything was measured and nothing was wrong, but standard output could not be"
            " written; a closed pipe doesn't count"
        ),
    )
    INVALID = 5, "the generator, not the service, was the limit: no verdict"
    NO_VERDICT = (
        6,
        (
            "nothing was shown: no answer (run), no kill or no operation (crash), no refusal"
            " (overload), no figure in common (diff)"
        ),
    )
    UNWRITTEN = 7, "the run is over, but a file of its result could not be written"
    DEFECT = exit_codes.DEFECT, "a defect of loadgen itself, which the traceback shows"
    INTERRUPTED = (
        130,
        (
            "ended by SIGINT, SIGTERM, SIGHUP or SIGQUIT; the result, marked as cut short, holds"
            " what was measured until then"
        ),
    )


def exit_table() -> str:
    """Return a line for each code, for a terminal."""
    return "".join(f"  {code.value:<10} {code.meaning}\n" for code in Exit)
