"""What messages cost beyond an ordinary one, and who pays for it.

Work is counted in steps of a symmetric-key chain, each 1 to 2 microseconds of CPU. An ordinary
message (the next one of its chain, or one whose key is kept) is free: rates of operations are for
those. What is charged:

- each step that a message demands beyond its own, whether it is authentic or not;
- ``REFUSED_WORK`` for one that isn't, on top of its steps; for one that is refused because its
  caller, or its channel, has used up what it may demand; and for a handshake that is refused;
- each skipped key of a channel that has to be loaded.

A *payer* may run into debt, since what it has sent is on its way already. While it is in debt,
nothing that demands more than ``FREE_WORK`` is done for it.
"""

from connect_actor.reply import Payer

__all__ = [
    "FREE_WORK",
    "REFUSED_WORK",
    "charge",
    "payer_of",
]

FREE_WORK = 64
"""Steps that a message may always demand: a few ordinary messages' worth."""
REFUSED_WORK = 50
"""What it takes to read, refuse and answer a message, or to make the exchange of a forged turn."""


def charge(payer: Payer | None, work: int) -> None:
    """Charge whoever pays, if that is known."""
    if payer is not None:
        payer.charge(work)


def payer_of(reply: object) -> Payer | None:
    """Return who pays for the message that is answered there, if it is known."""
    payer: Payer | None = getattr(reply, "payer", None)
    return payer
