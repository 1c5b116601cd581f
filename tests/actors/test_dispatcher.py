"""When turns run, on which thread, and what becomes of them when the dispatcher closes."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest
from pykka import ActorDeadError, ActorRegistry

from service.actors.actor import THROUGHPUT, DispatchedActor
from service.actors.dispatcher import Dispatcher


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
    assert done.wait(10)
    assert threads != [threading.get_ident()]
    assert len(threads) == 1


async def test_actors_take_turns_of_a_bounded_number_of_messages() -> None:
    dispatcher = Dispatcher(asyncio.get_running_loop())
    order: list[str] = []

    class Named(DispatchedActor):
        def on_receive(self, message: str) -> None:
            order.append(message)

    first, second = Named.start(dispatcher=dispatcher), Named.start(dispatcher=dispatcher)
    for _ in range(THROUGHPUT + 1):
        first.tell("first")
    second.tell("second")
    await settle()
    assert order == ["first"] * THROUGHPUT + ["second", "first"]
    ActorRegistry.stop_all(block=False)
    await settle()


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
        assert await ref.stop(block=False) is True


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
        await ref.ask("hello", block=False)
        woken, soon = woken_by(loop.call_soon_threadsafe), woken_by(loop.call_soon)
        for number in range(10):
            ref.tell(number)
        assert woken_by(loop.call_soon) == soon + 1
        await ref.ask("hello", block=False)
        await ref.stop(block=False)
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
    assert [ref.ask(0, timeout=10) for ref in refs] == [4_000] * 10


# --- Closing --------------------------------------------------------------------------------------


async def test_a_closed_dispatcher_abandons_what_waits_and_what_comes() -> None:
    dispatcher = Dispatcher(asyncio.get_running_loop())
    waiting, late = Turn(lambda: None), Turn(lambda: None)
    dispatcher.schedule(waiting)
    dispatcher.close()
    dispatcher.schedule(late)
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
        assert idle.ask("hello", timeout=10) == "hello"
    with pytest.raises(ActorDeadError, match="stopped before handling"):
        idle.ask("hello", timeout=10)
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
