"""From claims and figures to the rows of the verdict table."""

from loadgen.audit.claims import CLAIMS, Claim
from loadgen.audit.figures import FigureBook
from loadgen.audit.results import AuditRow, Measured
from loadgen.audit.verdicts import Verdict
from loadgen.compare import summarise
from loadgen.results import Round

__all__ = ["claim_rows", "missed_rows"]

_NOT_HAD = "The figure could not be had in this run: see the warnings."

FORWARDING, AWAITING = "forwarding", "awaiting"


def claim_rows(figures: FigureBook) -> list[AuditRow]:
    """Return a row for each claim, judged."""
    return [_row(claim, figures) for claim in CLAIMS]


def _row(claim: Claim, figures: FigureBook) -> AuditRow:
    measured = None if claim.figure is None else figures.get(claim.figure)
    verdict, remark = Verdict.NOT_MEASURABLE, claim.remark
    if isinstance(claim.expected, str):
        pass
    elif measured is None:
        remark = _NOT_HAD
    else:
        verdict = claim.expected.judge(measured.spread)
    return AuditRow(
        name=claim.name,
        subject=claim.subject,
        text=claim.text,
        place=claim.place,
        claimed=str(claim.expected),
        figure=claim.figure,
        measured=measured,
        verdict=verdict.value,
        remark=remark,
    )


def missed_rows(routers: dict[str, list[Round]]) -> list[AuditRow]:
    """Return what the audited server's awaiting router costs, which the audit did not see."""
    summary = summarise(routers[AWAITING], routers[FORWARDING])
    rows = []
    for figure, text in (
        ("messages_per_second", "Throughput behind a router that awaits each operation"),
        ("p99_ms", "p99 latency there"),
        ("messages_per_commit", "Messages that share a commit there"),
    ):
        ratio = summary.ratios[figure]
        rows.append(
            AuditRow(
                name=f"router_{figure}",
                subject="What the audit did not see",
                text=text,
                place="reference/ecliptix-server.md, section 9.1",
                claimed="nothing",
                figure=figure,
                measured=None
                if ratio is None
                else Measured(
                    spread=ratio,
                    unit="ratio",
                    rounds=len(routers[AWAITING]),
                    how="strategy full, closed loop, router awaiting against forwarding",
                ),
                verdict="",
                remark="",
            )
        )
    return rows
