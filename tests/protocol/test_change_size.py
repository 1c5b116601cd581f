"""The size of a change is known without encoding it."""

from hypothesis import given

from connect_actor.protocol.changes import Change, change_size, encode_change
from tests.support.changes import CHANGES


@given(CHANGES)
def test_a_change_is_as_large_as_its_encoding(change: Change) -> None:
    assert change_size(change) == len(encode_change(change))
