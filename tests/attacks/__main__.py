"""``python -m tests.attacks [NAME...]``: the table of docs/results/overload.md, in Markdown.

Each row is a run of its own: a service, a victim who calls it every few milliseconds, alone, beside
the attacker, and afterwards.
"""

import argparse
import sys

from tests.attacks.arena import MAX_BYTES, Phase, Report, attack_and_watch
from tests.attacks.attacks import ATTACKS

_MIB = 1 << 20


def _milliseconds(phase: Phase) -> str:
    times = f"{phase.quantile(0.5) * 1_000:.1f} / {phase.quantile(0.99) * 1_000:.1f}"
    return f"{times}, {phase.failed} failed" if phase.failed else times


def _row(report: Report) -> str:
    cells = (
        f"`{report.attack.name}`: {report.attack.says}",
        _milliseconds(report.alone),
        _milliseconds(report.attacked),
        _milliseconds(report.afterwards),
        f"{report.base_bytes / _MIB:.0f}",
        f"{report.held_bytes / _MIB:.0f}",
        f"{report.log_bytes / 1_024:.1f}",
    )
    return f"| {' | '.join(cells)} |"


def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ATTACKS)}; all")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each phase (6)")
    parser.add_argument(
        "--haproxy",
        action="store_true",
        help="with docs/how-to/haproxy.cfg in front (needs haproxy)",
    )
    options = parser.parse_args()
    if unknown := set(options.names) - set(ATTACKS):
        parser.error(f"no such attack: {', '.join(sorted(unknown))}")
    out = sys.stdout
    out.write(f"max-bytes-in-service: {MAX_BYTES // _MIB} MiB\n\n")
    out.write("| attack | alone: p50 / p99, ms | attacked | afterwards | RSS before, MiB |")
    out.write(" held beyond that, MiB | log, KiB |\n|---|---|---|---|---|---|---|\n")
    for name in options.names or ATTACKS:
        report = attack_and_watch(ATTACKS[name], options.seconds, haproxy=options.haproxy)
        out.write(_row(report) + "\n")
        out.flush()


if __name__ == "__main__":
    _main()
