"""Changes of every kind, for property tests."""

from hypothesis import strategies as st

from connect_actor.protocol.changes import (
    Acknowledged,
    Change,
    IdempotentSend,
    Received,
    ReceivedSkipped,
    Sent,
)

__all__ = ["CHANGES"]

_POSITIONS = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 127, 128, 16_383, 16_384])
_REQUEST_IDS = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 127, 128])
_KEYS = st.binary(min_size=32, max_size=32)
_DIGESTS = st.just(b"") | st.binary(min_size=16, max_size=16)
_IDEMPOTENT_SENDS = st.builds(
    IdempotentSend,
    st.binary(min_size=1, max_size=64),
    _KEYS,
    st.binary(min_size=12, max_size=12),
    _REQUEST_IDS,
    st.integers(-(2**63), 2**63 - 1),
)

CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(Sent, _POSITIONS, st.just(b"") | _KEYS, st.none() | _IDEMPOTENT_SENDS),
    st.builds(Received, _POSITIONS, st.just(b""), st.just(0), _DIGESTS),
    st.builds(Received, _POSITIONS, _KEYS, _POSITIONS, _DIGESTS),
    st.builds(ReceivedSkipped, _POSITIONS, _POSITIONS, _DIGESTS),
    st.builds(Acknowledged, _REQUEST_IDS),
)
