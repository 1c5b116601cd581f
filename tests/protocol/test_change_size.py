"""The size of a change is known without encoding it."""

from hypothesis import given
from hypothesis import strategies as st

from service.protocol.changes import (
    Change,
    Received,
    ReceivedSkipped,
    Sent,
    change_size,
    encode_change,
)

NUMBERS = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 127, 128, 16_383, 16_384])
KEYS = st.just(b"") | st.binary(min_size=32, max_size=32)

CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.builds(Sent, NUMBERS, KEYS),
    st.builds(Received, NUMBERS, KEYS, NUMBERS),
    st.builds(ReceivedSkipped, NUMBERS, NUMBERS),
)


@given(CHANGES)
def test_a_change_is_as_large_as_its_encoding(change: Change) -> None:
    assert change_size(change) == len(encode_change(change))
