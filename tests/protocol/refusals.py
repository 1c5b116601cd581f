"""Altered messages, and what must hold of every refusal."""

import copy
from typing import Any

import pytest

from connect_actor.protocol.payload import Payload
from connect_actor.protocol.session import Session
from tests.support.channels import NOW

__all__ = ["refused", "with_header"]


def with_header(payload: Payload, **fields: Any) -> Payload:  # noqa: ANN401 - a header's fields
    """Return the payload with other header fields."""
    return payload._replace(header=payload.header._replace(**fields))


def refused(
    session: Session, payload: Payload, *errors: type[Exception], match: str | None = None
) -> None:
    """Expect one of these refusals, and the session as it was, in memory and as stored."""
    before, stored = copy.deepcopy(session), session.encode()
    with pytest.raises(errors, match=match):
        session.decrypt(payload, now=NOW)
    assert session == before
    assert session.encode() == stored
