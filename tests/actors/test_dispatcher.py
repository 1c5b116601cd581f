"""When turns run, on which thread, and what becomes of them when the dispatcher closes."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest
from pykka import ActorDeadError, ActorRef, ActorRegistry

from connect_actor.actors.actor import DispatchedActor, ask, mailbox_of, signal
from connect_actor.actors.dispatcher import PASS_SECONDS, TURN_SECONDS, Dispatcher
from connect_actor.reply import AwaitedReply
from tests.support.futures import result
from tests.support.house import until
from tests.support.process import PATIENCE


class Turn:
    """A turn that calls a function."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action = action
        self.abandoned = False

    def run(self) -> None:
        self.action()

    def abandon(self) -> None:
        self.abandoned = True


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that is not running and counts how often it is woken."""
    made = asyncio.new_event_loop()
    for name in ("call_soon", "call_soon_threadsafe"):
        monkeypatch.setattr(made, name, Mock(wraps=getattr(made, name)))
    yield made
    made.close()


def woken_by(method: object) -> int:
    assert isinstance(method, Mock)
    return method.call_count


async def settle() -> None:
    """Let everything run that is due, in a few rounds of the loop."""
    for _ in range(5):
        await asyncio.sleep(0)


class Echo(DispatchedActor):
    def on_receive(self, message: object) -> object:
        return message


# --- Turns ----------------------------------------------------------------------------------------


async def test_turns_run_in_the_order_asked_for() -> None:
    dispatcher = Dispatcher(asyncio.get_running_loop())
    order: list[int] = []
    for number in range(5):
        dispatcher.schedule(Turn(lambda number=number: order.append(number)))  # type: ignore[misc]
    await settle()
    assert order == [0, 1, 2, 3, 4]


def test_turns_run_on_the_dispatchers_thread(dispatcher: Dispatcher) -> None:
    threads: list[int] = []
    done = threading.Event()
    dispatcher.schedule(Turn(lambda: threads.append(threading.get_ident())))
    dispatcher.schedule(Turn(done.set))
    assert done.wait(PATIENCE)
    assert threads != [threading.get_ident()]
    assert len(threads) == 1


class Clock:
    """Seconds that pass when work is done."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


class Labourer(DispatchedActor):
    """Each message is a name, and how many turns' worth of time it takes."""

    def __init__(self, clock: Clock, done: list[str]) -> None:
        super().__init__()
        self.clock = clock
        self.done = done

    def on_receive(self, message: tuple[str, float]) -> None:
        name, turns = message
        self.clock.now += turns * TURN_SECONDS
        self.done.append(name)


class Caller:
    """Pays for what it asks, as far as turns go."""

    debt = 0.0

    def __init__(self, name: str) -> None:
        self.flow = name

    def charge(self, work: int) -> None:
        raise AssertionError(f"nobody is charged {work} here")

    def ask(self, ref: ActorRef[Labourer], turns: float) -> None:
        reply: AwaitedReply = AwaitedReply()
        reply.payer = self
        mailbox_of(ref).put_asked((self.flow, turns), reply)


async def end(*refs: ActorRef[Labourer]) -> None:
    for ref in refs:
        ref.stop(block=False)
    await settle()


@pytest.mark.parametrize(("turns", "messages"), [(0.26, 4), (0.51, 2), (1.01, 1), (40.0, 1)])
async def test_a_turn_ends_by_time_whatever_its_messages_cost(turns: float, messages: int) -> None:
    clock, done = Clock(), list[str]()
    dispatcher = Dispatcher(asyncio.get_running_loop(), clock)
    first, second = (Labourer.start(clock, done, dispatcher=dispatcher) for _ in range(2))
    for _ in range(messages + 1):
        first.tell(("first", turns))
    second.tell(("second", turns))
    await settle()
    assert done == ["first"] * messages + ["second", "first"]
    await end(first, second)


async def test_messages_that_cost_nothing_share_a_turn() -> None:
    clock, done = Clock(), list[str]()
    dispatcher = Dispatcher(asyncio.get_running_loop(), clock)
    first, second = (Labourer.start(clock, done, dispatcher=dispatcher) for _ in range(2))
    for _ in range(100):
        first.tell(("first", 0.0))
    second.tell(("second", 0.0))
    await settle()
    assert done == ["first"] * 100 + ["second"]
    await end(first, second)


async def test_a_caller_with_many_busy_actors_delays_another_by_one_turn() -> None:
    clock, done = Clock(), list[str]()
    dispatcher = Dispatcher(asyncio.get_running_loop(), clock)
    refs = [Labourer.start(clock, done, dispatcher=dispatcher) for _ in range(101)]
    await settle()
    greedy, modest = Caller("greedy"), Caller("modest")
    for ref in refs[:-1]:
        for _ in range(20):
            greedy.ask(ref, 1.5)
    modest.ask(refs[-1], 0.1)
    modest.ask(refs[-1], 0.1)
    await until(lambda: len(done) == 2_002)
    assert done[:3] == ["greedy", "modest", "modest"]
    await end(*refs)


async def test_flows_take_turns_and_each_keeps_its_order() -> None:
    dispatcher = Dispatcher(asyncio.get_running_loop(), Clock())
    order: list[str] = []

    def ask(flow: str, *names: str) -> None:
        for name in names:
            dispatcher.schedule(Turn(lambda name=name: order.append(name)), flow)  # type: ignore[misc]

    ask("a", "a1", "a2", "a3", "a4")
    ask("b", "b1", "b2")
    ask("c", "c1")
    await settle()
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_a_signal_belongs_to_the_flow_of_the_last_caller() -> None:
    clock, done = Clock(), list[str]()
    dispatcher = Dispatcher(asyncio.get_running_loop(), clock)
    greedy, modest = (Labourer.start(clock, done, dispatcher=dispatcher) for _ in range(2))
    await settle()
    Caller("greedy").ask(greedy, 0.0)
    Caller("modest").ask(modest, 0.0)
    await settle()
    for _ in range(3):
        Caller("greedy").ask(greedy, 1.0)
    others = [Turn(lambda: done.append("of the service")) for _ in range(3)]
    for other in others:
        dispatcher.schedule(other)
    signal(modest, ("signal", 1.0))
    await settle()
    assert done[2:5] == ["greedy", "of the service", "signal"]
    await end(greedy, modest)


async def test_a_pass_ends_by_time_however_many_flows_there_are() -> None:
    clock = Clock()
    dispatcher = Dispatcher(asyncio.get_running_loop(), clock)
    ran: list[int] = []

    def work(number: int) -> None:
        ran.append(number)
        clock.now += PASS_SECONDS / 2

    for number in range(6):
        dispatcher.schedule(Turn(lambda number=number: work(number)), number)  # type: ignore[misc]
    seen = []
    for _ in range(4):
        await asyncio.sleep(0)
        seen.append(len(ran))
    assert seen == [2, 4, 6, 6]


async def test_a_task_has_a_function_called_in_a_turn() -> None:
    clock = Clock()
    dispatcher = Dispatcher(asyncio.get_running_loop(), clock)
    seen: list[bool] = []

    def work() -> str:
        seen.append(dispatcher.turn_over())
        clock.now += TURN_SECONDS
        seen.append(dispatcher.turn_over())
        return "done"

    def fail() -> None:
        raise ZeroDivisionError

    assert await dispatcher.turn(work, "flow") == "done"
    assert seen == [False, True]
    with pytest.raises(ZeroDivisionError):
        await dispatcher.turn(fail, "flow")
    given_up = asyncio.ensure_future(dispatcher.turn(work, "flow"))
    await asyncio.sleep(0)
    given_up.cancel()
    await settle()
    assert len(seen) == 2
    left = asyncio.ensure_future(dispatcher.turn(work, "flow"))
    await asyncio.sleep(0)
    dispatcher.close()
    with pytest.raises(asyncio.CancelledError):
        await left


async def test_busy_actors_leave_the_loop_its_share() -> None:
    class Restless(DispatchedActor):
        def on_receive(self, message: object) -> None:
            self.actor_ref.tell(message)

    dispatcher = Dispatcher(asyncio.get_running_loop())
    refs = [Restless.start(dispatcher=dispatcher) for _ in range(3)]
    for ref in refs:
        ref.tell("again")
    # Without a bound on passes, none of these would ever return.
    await asyncio.sleep(0.001)
    for ref in refs:
        assert await result(ref.stop(block=False)) is True


async def test_a_turn_that_raises_ends_neither_the_pass_nor_the_loop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def leave() -> None:
        raise SystemExit

    dispatcher = Dispatcher(asyncio.get_running_loop())
    ran: list[int] = []
    dispatcher.schedule(Turn(leave))
    dispatcher.schedule(Turn(lambda: ran.append(1)))
    await settle()
    assert ran == [1]
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]


# --- Waking the loop ------------------------------------------------------------------------------


def test_the_loop_is_woken_once_for_many_messages_from_another_thread(
    loop: asyncio.AbstractEventLoop,
) -> None:
    dispatcher = Dispatcher(loop)
    refs = [Echo.start(dispatcher=dispatcher) for _ in range(100)]
    for ref in refs:
        ref.tell("hello")
    assert woken_by(loop.call_soon_threadsafe) == 1
    loop.run_until_complete(asyncio.sleep(0))
    for ref in refs:
        ref.stop(block=False)
    loop.run_until_complete(settle())
    assert ActorRegistry.get_all() == []


def test_the_loops_own_thread_wakes_it_without_a_system_call(
    loop: asyncio.AbstractEventLoop,
) -> None:
    dispatcher = Dispatcher(loop)

    async def talk() -> None:
        ref = Echo.start(dispatcher=dispatcher)
        await ask(ref, "hello")
        woken, soon = woken_by(loop.call_soon_threadsafe), woken_by(loop.call_soon)
        for number in range(10):
            ref.tell(number)
        assert woken_by(loop.call_soon) == soon + 1
        await ask(ref, "hello")
        await result(ref.stop(block=False))
        assert woken_by(loop.call_soon_threadsafe) == woken

    loop.run_until_complete(talk())


def test_no_message_is_lost_between_two_threads(dispatcher: Dispatcher) -> None:
    class Counter(DispatchedActor):
        mailbox_capacity = 1_000_000

        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def on_receive(self, message: int) -> int:
            self.count += message
            return self.count

    refs = [Counter.start(dispatcher=dispatcher) for _ in range(10)]

    def tell_all() -> None:
        for _ in range(1_000):
            for ref in refs:
                ref.tell(1)

    tellers = [threading.Thread(target=tell_all) for _ in range(4)]
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    assert [ref.ask(0, timeout=PATIENCE) for ref in refs] == [4_000] * 10


# --- Closing --------------------------------------------------------------------------------------


async def test_a_closed_dispatcher_abandons_what_waits_and_what_comes() -> None:
    clock = Clock()
    dispatcher = Dispatcher(asyncio.get_running_loop(), clock)
    waiting, sorted_in, late = (Turn(lambda: None) for _ in range(3))
    dispatcher.schedule(Turn(lambda: clock.pass_by(PASS_SECONDS)))
    dispatcher.schedule(sorted_in)
    await asyncio.sleep(0)
    dispatcher.schedule(waiting, "flow")
    dispatcher.close()
    dispatcher.schedule(late)
    assert sorted_in.abandoned
    assert waiting.abandoned
    assert late.abandoned
    await settle()


def test_a_dispatcher_of_a_closed_loop_abandons_what_comes() -> None:
    loop = asyncio.new_event_loop()
    dispatcher = Dispatcher(loop)
    loop.close()
    turn = Turn(lambda: None)
    dispatcher.schedule(turn)
    assert turn.abandoned


def test_an_actor_of_a_closed_dispatcher_answers_that_it_is_dead() -> None:
    with Dispatcher.in_thread() as dispatcher:
        idle = Echo.start(dispatcher=dispatcher)
        assert idle.ask("hello", timeout=PATIENCE) == "hello"
    with pytest.raises(ActorDeadError, match="stopped before handling"):
        idle.ask("hello", timeout=PATIENCE)
    assert not idle.is_alive()
    assert idle not in ActorRegistry.get_all()


def test_an_actor_started_on_a_closed_dispatcher_is_dead() -> None:
    with Dispatcher.in_thread() as dispatcher:
        pass
    ref = Echo.start(dispatcher=dispatcher)
    assert not ref.is_alive()
    assert ref not in ActorRegistry.get_all()


def test_the_thread_ends_with_its_dispatcher() -> None:
    with Dispatcher.in_thread() as dispatcher:
        assert dispatcher.loop.is_running()
        assert "dispatcher" in [thread.name for thread in threading.enumerate()]
    assert dispatcher.loop.is_closed()
    assert "dispatcher" not in [thread.name for thread in threading.enumerate()]
