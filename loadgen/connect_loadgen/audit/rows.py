"""From claims and figures to the rows of the verdict table."""

from connect_loadgen.audit.claims import CLAIMS, Claim
from connect_loadgen.audit.figures import FigureBook
from connect_loadgen.audit.results import AuditRow, Measured
from connect_loadgen.compare import summarise
from connect_loadgen.experiment.results import Round
from connect_loadgen.experiment.statistics import valid_pairs
from connect_loadgen.experiment.verdicts import Verdict

__all__ = ["claim_rows", "missed_rows"]

_NOT_HAD = "The figure could not be had in this run: see the warnings."

_ENDED = "The command ended before it was measured."
_GENERATOR = "The generator was the limit in"

FORWARDING, AWAITING = "forwarding", "awaiting"


def claim_rows(figures: FigureBook, *, is_complete: bool = True) -> list[AuditRow]:
    """Return a row for each claim, judged.

    Args:
        figures: what was measured.
        is_complete: whether everything was: else what is missing was left out.
    """
    return [_row(claim, figures, is_complete=is_complete) for claim in CLAIMS]


def _row(claim: Claim, figures: FigureBook, *, is_complete: bool) -> AuditRow:
    measured = None if claim.figure is None else figures.get(claim.figure)
    verdict, remark = Verdict.NOT_MEASURABLE, claim.remark
    if isinstance(claim.expected, str):
        pass
    elif measured is not None:
        verdict = claim.expected.judge(measured.spread)
        if left_out := measured.rounds_left_out:
            rounds = left_out + measured.rounds
            remark = f"{_GENERATOR} {left_out} of {rounds} rounds, which are left out. {remark}"
    elif claim.figure is not None and figures.is_invalid(claim.figure):
        verdict, remark = Verdict.NO_VERDICT, f"{_GENERATOR} every round."
    elif not is_complete:
        verdict, remark = Verdict.LEFT_OUT, _ENDED
    else:
        remark = _NOT_HAD
    return AuditRow(
        name=claim.name,
        subject=claim.subject,
        text=claim.text,
        place=claim.place,
        claimed=str(claim.expected),
        figure=claim.figure,
        measured=measured,
        verdict=verdict.value,
        remark=remark.strip(),
    )


def missed_rows(routers: dict[str, list[Round]]) -> list[AuditRow]:
    """Return what the audited server's awaiting router costs, which the audit did not see."""
    done = routers[AWAITING]
    summary = summarise(done, routers[FORWARDING])
    valid = len(valid_pairs(routers[FORWARDING], done)[0])
    verdict, remark = "", ""
    if not done:
        verdict, remark = Verdict.LEFT_OUT.value, _ENDED
    elif not valid:
        verdict, remark = Verdict.NO_VERDICT.value, f"{_GENERATOR} every round."
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
                    rounds=valid,
                    rounds_left_out=len(done) - valid,
                    how="strategy full, closed loop, router awaiting against forwarding",
                ),
                verdict=verdict,
                remark=remark,
            )
        )
    return rows
