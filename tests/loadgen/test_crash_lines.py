"""The lines of the crash run, in virtual time: every operation ends once, and in time."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from itertools import chain
from random import Random

import grpc
import pytest

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.crash.faults import FaultKind
from connect_loadgen.crash.lines import Line, Lines
from connect_loadgen.crash.rules import Rule, Verdict
from connect_loadgen.crash.traffic import PeerSide, Traffic
from connect_loadgen.drive.transport import TransportError
from tests.support.ledgers import Desk
from tests.support.loads import PacedService, failure
from tests.support.virtual_time import VirtualClock, run_virtually

LIMIT = 10.0
FULL: int = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
INTERNAL: int = grpc.StatusCode.INTERNAL.value[0]


class Way:
    """A line to a service in memory that answers after a while."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.account = self.desk.establish()
        self.transport = PacedService(batch=8, answer=self.desk.service)
        self.line = Line(self.transport, self.desk.ledger, asyncio.get_running_loop().time)
        self.lines = Lines({"stream": self.line})

    def encrypt(self) -> Rule:
        return self.desk.ledger.encrypt(self.account, self.desk.text())

    async def ask(self, rule: Rule) -> Verdict:
        return await self.lines.ask(rule, "stream")

    async def ask_all(self, count: int) -> list[Verdict]:
        return await asyncio.gather(*(self.ask(self.encrypt()) for _ in range(count)))


def run(work: Callable[[Way], Coroutine[None, None, None]]) -> Desk:
    async def with_way(clock: VirtualClock) -> Desk:
        del clock
        way = Way()
        await work(way)
        return way.desk

    return run_virtually(with_way)


def test_what_is_asked_for_at_once_shares_frames() -> None:
    async def work(way: Way) -> None:
        assert await way.ask_all(20) == [Verdict.DONE] * 20
        assert [len(batch) for batch in way.transport.batches] == [8, 8, 4]

    assert run(work).faults == []


def test_a_broken_line_ends_what_waits_and_all_that_comes_after() -> None:
    async def work(way: Way) -> None:
        way.transport.stall_until(1e9)
        asked = asyncio.create_task(way.ask_all(3))
        await asyncio.sleep(1)
        assert way.lines.in_flight() == ["encrypt"] * 3
        way.transport.fail(TransportError("broken"))
        assert await asked == [Verdict.UNKNOWN] * 3
        assert way.lines.in_flight() == []
        assert way.lines.broken
        assert await way.ask(way.encrypt()) is Verdict.UNKNOWN
        assert len(way.transport.batches) == 1

    desk = run(work)
    assert desk.faults == []
    assert desk.ledger.counts.operations["encrypt", Verdict.UNKNOWN] == 4


def test_a_channel_that_is_refused_all_the_time_is_a_fault_and_ends_its_proof() -> None:
    async def work(way: Way) -> None:
        clock = asyncio.get_running_loop().time
        full = PacedService(batch=8, answer=partial(failure, code=FULL))
        line = Line(full, way.desk.ledger, clock)
        peers = PeerSide(way.desk.client, Random(1), channels=1)
        lines = Lines({"stream": line, "unary": line})
        traffic = Traffic(way.desk.ledger, lines, peers, LIMIT)
        begun = clock()
        await traffic.prove()
        assert LIMIT <= clock() - begun < LIMIT + 1
        assert traffic.proof_ended.is_set()
        assert not traffic.all_proved

    assert run(work).faults == [FaultKind.HUNG]


def test_a_message_held_back_that_is_refused_is_sent_once_in_a_proof() -> None:
    async def work(way: Way) -> None:
        ledger, account = way.desk.ledger, way.account
        for _ in range(3):
            account.hold(ledger.seal(account, way.desk.text()), 0)
        refusing = PacedService(batch=8, answer=partial(failure, code=INTERNAL))
        line = Line(refusing, ledger, asyncio.get_running_loop().time)
        peers = PeerSide(way.desk.client, Random(1), channels=1)
        traffic = Traffic(ledger, Lines({"stream": line, "unary": line}), peers, LIMIT)
        await asyncio.wait_for(traffic.prove(), LIMIT)
        asked = [operation.WhichOneof("request") for operation in chain(*refusing.batches)]
        # And one of the proof's own.
        assert asked.count("decrypt") == 3 + 1

    assert set(run(work).faults) == {FaultKind.REFUSED}


def test_a_hang_is_a_fault_and_ends_the_operation() -> None:
    async def work(way: Way) -> None:
        loop = asyncio.get_running_loop()
        watch = asyncio.create_task(way.lines.watch(LIMIT))
        way.transport.stall_until(LIMIT * 3)
        begun = loop.time()
        assert await way.ask(way.encrypt()) is Verdict.UNKNOWN
        assert LIMIT <= loop.time() - begun <= LIMIT * 1.1
        # The answer comes after all, and is looked at: its place is taken from now on.
        await asyncio.sleep(LIMIT * 3)
        watch.cancel()

    desk = run(work)
    assert desk.faults == [FaultKind.HUNG]
    assert desk.ledger.messages == 1


def test_an_answer_within_the_limit_is_no_hang() -> None:
    async def work(way: Way) -> None:
        watch = asyncio.create_task(way.lines.watch(LIMIT))
        way.transport.seconds = LIMIT * 0.9
        assert await way.ask_all(3) == [Verdict.DONE] * 3
        watch.cancel()

    assert run(work).faults == []


def test_a_second_answer_is_a_fault() -> None:
    async def work(way: Way) -> None:
        rule = way.encrypt()
        await way.ask(rule)
        again = wire.OperationResult(operation_id=rule.operation.operation_id)
        way.line.on_results([again])

    assert run(work).faults == [FaultKind.UNASKED]


def test_a_rule_that_fails_fails_the_run_and_is_no_end_of_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: Rule, __: wire.OperationResult) -> None:
        raise KeyError("a defect")

    async def work(way: Way) -> None:
        monkeypatch.setattr(Rule, "take", fail)
        with pytest.raises(KeyError, match="a defect"):
            await way.ask(way.encrypt())
        waits = asyncio.create_task(way.ask(way.encrypt()))
        way.transport.stall_until(1e9)
        await asyncio.sleep(0)
        way.transport.fail(KeyError("a defect"))
        with pytest.raises(KeyError, match="a defect"):
            await waits

    desk = run(work)
    assert desk.ledger.counts.operations["encrypt", Verdict.UNKNOWN] == 0


def test_a_fault_of_carrying_names_the_channel() -> None:
    desk = Desk()
    account = desk.establish()
    desk.ledger.fault(FaultKind.HUNG, "text", desk.ledger.restore(account))
    desk.ledger.fault(FaultKind.UNASKED, "text")
    assert [fault.connect_id for fault in desk.ledger.faults.kept] == [account.connect_id, None]
