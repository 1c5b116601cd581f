"""A bounded share of fuzzing, what it has found before, and whether it can find anything."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from connect_actor.errors import HandshakeRefusedError
from connect_actor.protocol import primitives
from connect_actor.protocol.changes import InconsistentChangeError, Received, Sent
from connect_actor.protocol.session import Session
from connect_actor.protocol.wire import bundle_from_wire
from connect_actor.v1 import connect_pb2 as wire
from tests.fuzz.driver import CORPUS, Score, corpus_of, fuzz, try_input
from tests.fuzz.mutations import Mutator, fields_of, frames_of
from tests.fuzz.target import FaultError
from tests.fuzz.targets import TARGETS
from tests.support.channels import make_ends

# Of each target: about as dear as each other.
_SHARE = {
    "payload": 600,
    "change": 1_000,
    "changes": 600,
    "request": 250,
    "response": 250,
    "session": 400,
    "operation": 400,
    "frame": 30,
    "sealed": 3_000,
    "row": 3_000,
    "keyfile": 500,
    "configuration": 25,
    "connection": 100,
}


@pytest.mark.parametrize("name", TARGETS)
def test_no_mutation_breaks_a_promise(name: str) -> None:
    kind = TARGETS[name]
    corpus = [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]
    target = kind()
    try:
        score = fuzz(target, corpus, _SHARE[name], seed=1)
    finally:
        target.close()
    assert not score.faults, score.faults[0].text
    assert score.inputs == _SHARE[name] + len(corpus)
    assert score.accepted > 0


# But for those of a service whose ids differ, and for the settings: each new one would change it.
_CHANGING = ("operation", "frame", "connection", "configuration")


@pytest.mark.parametrize("name", [name for name in TARGETS if name not in _CHANGING])
def test_the_corpus_is_what_the_targets_make_of_real_messages(name: str) -> None:
    target = TARGETS[name]()
    made = target.seeds()
    target.close()
    stored = {path.name: path.read_bytes() for path in (CORPUS / name).iterdir()}
    assert {seed: stored.get(seed) for seed in made} == made


# --- What it has found --------------------------------------------------------------------------


def test_a_bundle_of_half_a_million_prekeys_is_refused_before_it_is_looked_at() -> None:
    bundle = wire.PrekeyBundle.FromString(b"\x2a\x00" * 500_000)
    with pytest.raises(HandshakeRefusedError, match="500000 one-time prekeys, at most 200"):
        bundle_from_wire(bundle)


@pytest.mark.parametrize(
    ("change", "said"),
    [(Sent(2**32 - 1), "not the next"), (Received(2**32 - 1), "beyond the end")],
)
def test_a_chain_does_not_grow_beyond_what_can_be_stored(
    change: Sent | Received, said: str
) -> None:
    ends = make_ends()
    ends.round_trip()
    ratchet = ends.service.ratchet
    assert ratchet.sending is not None
    assert ratchet.receiving is not None
    ratchet.sending.next_index = ratchet.receiving.next_index = 2**32 - 1
    with pytest.raises(InconsistentChangeError, match=said):
        ends.service.apply(change)


@pytest.mark.parametrize("part", ["root_key", "chain_key", "skipped", "pending"])
def test_a_stored_session_with_a_key_of_no_use_is_refused_at_once(part: str) -> None:
    ends = make_ends()
    ends.round_trip()
    ends.up()
    ends.at_service(ends.up())
    ratchet = ends.service.ratchet
    assert ratchet.sending is not None
    if part == "root_key":
        ratchet.root_key = bytes(31)
    elif part == "chain_key":
        ratchet.sending.chain_key = bytes(33)
    elif part == "skipped":
        ratchet.skipped[0].keys.clear()
    else:
        ratchet.pending_peer_key = bytes(32)
    with pytest.raises(InconsistentChangeError, match="a stored session"):
        Session.decode(ends.service.encode())


# --- Whether it can find anything ---------------------------------------------------------------


class _Careless:
    """A target that fails in each of the ways that count as faults."""

    name: ClassVar[str] = "careless"
    style: ClassVar[str] = "bytes"
    max_steps: ClassVar[int] = 3
    base_bytes: ClassVar[int] = 0

    def seeds(self) -> Mapping[str, bytes]:
        return {}

    def run(self, data: bytes) -> bool:
        if data == b"steps":
            for _ in range(4):
                primitives.step_chain(bytes(32))
        if data == b"memory":
            bytearray(10_000_000)
        if data == b"raises":
            raise KeyError(data)
        if data == b"cancels":
            raise asyncio.CancelledError
        return False

    def close(self) -> None:
        pass


@pytest.mark.parametrize("way", [b"steps", b"memory"])
def test_work_without_bound_is_a_fault(way: bytes) -> None:
    with pytest.raises(FaultError, match=r"4 steps, at most 3|bytes were held"):
        try_input(_Careless(), way, Score(), traced=True)


def test_an_exception_that_nobody_documented_is_a_fault_and_the_run_goes_on() -> None:
    score = fuzz(_Careless(), [b"fine", b"raises", b"raises", b"cancels", b"fine"], 0, seed=1)
    assert (score.inputs, len(score.faults)) == (5, 2)
    assert "KeyError" in score.faults[0].text


def test_a_seed_says_which_inputs_are_tried() -> None:
    corpus = corpus_of(TARGETS["payload"])
    for style in ("message", "frames", "text", "bytes"):
        one, same, other = (Mutator(seed, corpus, style) for seed in (1, 1, 2))
        inputs = [one.next() for _ in range(200)]
        assert inputs == [same.next() for _ in range(200)]
        assert inputs != [other.next() for _ in range(200)]
        assert len(set(inputs)) > 150


def test_a_message_is_taken_apart_into_its_fields() -> None:
    message = wire.EncryptRequest(connect_id=1, plaintext=b"abc", request_id=300)
    fields = fields_of(message.SerializeToString())
    assert fields == [(1, 1, b"\x01" + bytes(7)), (2, 2, b"abc"), (3, 0, b"\xac\x02")]
    assert fields_of(b"\x0a\xff") is None


def test_a_conversation_is_taken_apart_into_its_frames() -> None:
    conversation = Path(CORPUS / "connection" / "unary").read_bytes()
    frames = frames_of(conversation)
    assert b"".join(frames) == conversation
    assert [frame[3:4] for frame in frames[1:]] == [b"\x04", b"\x01", b"\x08", b"\x00"]
