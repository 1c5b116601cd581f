"""Making many recorded changes again: what a recovery does, without the keys that nobody needs.

A change on its own moves a chain by one step and yields the message's key (``Session.apply``). Of
many in a row nobody asks for those keys, and the chain key itself is asked for only when the chain
is used once more. So the plain messages, those that have just the next number of their chain, are
counted, and the chain makes up for them at once: half of the derivation for each, or nothing at all
if the ratchet turns first, since a chain that has been left behind needs no key.

Whatever is more than a plain message goes to ``Session.apply``, on chains that have caught up. The
session that results is the one that ``Session.apply`` makes of every single change.
"""

from collections.abc import Iterable

from connect_actor.protocol import primitives
from connect_actor.protocol.changes import Change, InconsistentChangeError, Received, Sent
from connect_actor.protocol.ratchet import MAX_CHAIN_LENGTH, Chain
from connect_actor.protocol.session import Session

__all__ = ["apply_all"]


def apply_all(session: Session, changes: Iterable[Change]) -> None:
    """Make changes again, in order: as ``session.apply`` does with each.

    Raises:
        InconsistentChangeError: one does not follow from those before it. The session is then of no
            more use.
    """
    ratchet = session.ratchet
    keeps_none = session.deliveries is None
    # Messages by which a chain's key is behind its number.
    sent = received = 0
    for change in changes:
        if type(change) is Sent:
            index, private_key, once = change
            sending = ratchet.sending
            if private_key:
                # The chain is left behind: its number is all that counts.
                sent = 0
            elif once is None and sending is not None:
                _count(sending, index)
                sent += 1
                continue
            sent = _catch_up(sending, sent)
        elif type(change) is Received:
            index, ratchet_key, previous_chain_length, digest = change
            receiving = ratchet.receiving
            following = 0 if receiving is None else receiving.next_index
            if ratchet_key:
                if previous_chain_length <= following:
                    received = 0
            elif index == following and keeps_none and not digest and receiving is not None:
                _count(receiving, index)
                received += 1
                continue
            received = _catch_up(receiving, received)
        # Else it is about skipped keys or deliveries, which don't lie on a chain.
        session.apply(change)
    _catch_up(ratchet.sending, sent)
    _catch_up(ratchet.receiving, received)


def _count(chain: Chain, index: int) -> None:
    if index != chain.next_index or index >= MAX_CHAIN_LENGTH:
        raise InconsistentChangeError(f"message {index} is not the next one of its chain")
    chain.next_index = index + 1


def _catch_up(chain: Chain | None, messages: int) -> int:
    """Bring a chain's key up to its number; return by how much it is behind then."""
    if chain is not None and messages:
        chain.chain_key = primitives.skip_chain(chain.chain_key, messages)
    return 0
