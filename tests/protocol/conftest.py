"""A test in which a message causes unbounded work fails at once, instead of filling memory."""

import pytest

from connect_actor.protocol import primitives

# Far above what any test here needs.
MAX_CHAIN_STEPS = 50_000


@pytest.fixture(autouse=True)
def _bounded_chain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    step_chain = primitives.step_chain
    steps = 0

    def counted(chain_key: bytes) -> tuple[bytes, bytes]:
        nonlocal steps
        steps += 1
        assert steps <= MAX_CHAIN_STEPS, "the work for a message is not bounded"
        return step_chain(chain_key)

    monkeypatch.setattr(primitives, "step_chain", counted)
