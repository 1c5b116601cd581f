"""What must hold of a stored session before any of it is used.

Seals keep strangers from what is stored, and this is what is left to chance: a defect, or another
version, that wrote something else. What is found here is a damaged channel, told as such; found
later, it would be a crash in the middle of a message.
"""

from itertools import pairwise

from connect_actor.protocol.changes import InconsistentChangeError
from connect_actor.protocol.primitives import KEY_SIZE, is_weak_public_key
from connect_actor.stored.v1 import session_pb2 as stored

__all__ = ["require_sound"]


def require_sound(state: stored.SessionState) -> None:
    """Check that a stored session has all its parts, keys of the right size, and an order.

    Raises:
        InconsistentChangeError: with what is wrong.
    """
    if not (
        state.HasField("channel_keys")
        and state.HasField("handshake")
        and state.HasField("limits")
        and state.HasField("ratchet")
        and state.HasField("deliveries") == bool(state.limits.redelivery_window)
    ):
        raise InconsistentChangeError("a stored session lacks a part")
    _require_keys(state.channel_keys)
    _require_ratchet(state.ratchet)
    if state.limits.dh_ratchet_every == 0:
        raise InconsistentChangeError("a stored session would never turn its ratchet")


def _require_size(*keys: bytes) -> None:
    for key in keys:
        if len(key) != KEY_SIZE:
            raise InconsistentChangeError(
                f"a stored session's key has {len(key)} bytes, expected {KEY_SIZE}"
            )


def _require_keys(keys: stored.ChannelKeys) -> None:
    _require_size(keys.identity_key, keys.exchange_identity_key, keys.signed_prekey)
    for pair in keys.one_time_prekeys:
        # Spelled out: of all that is checked these are the most.
        if not len(pair.private_key) == len(pair.public_key) == KEY_SIZE:
            _require_size(pair.private_key, pair.public_key)


def _require_ratchet(ratchet: stored.RatchetState) -> None:
    _require_size(ratchet.root_key)
    for name in ("sending", "receiving"):
        if ratchet.HasField(name):
            end: stored.Chain = getattr(ratchet, name)
            _require_size(end.ratchet_key, end.chain_key)
    if ratchet.ratchet_private_key:
        _require_size(ratchet.ratchet_private_key)
    if ratchet.pending_peer_key and is_weak_public_key(ratchet.pending_peer_key):
        raise InconsistentChangeError("a stored session's peer key is of no use")
    if not (ratchet.HasField("sending") or ratchet.pending_peer_key):
        raise InconsistentChangeError("a stored session has nothing to send with")
    for skipped in ratchet.skipped:
        if not skipped.keys:
            raise InconsistentChangeError("a stored session keeps a chain of no skipped keys")
        _require_size(skipped.ratchet_key, *(key.message_key for key in skipped.keys))
    numbers = [skipped.number for skipped in ratchet.skipped]
    if any(before >= after for before, after in pairwise([*numbers, ratchet.receiving_turns + 1])):
        raise InconsistentChangeError("a stored session's skipped chains are out of order")
