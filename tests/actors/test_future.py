"""What ``LoopFuture`` does beyond Pykka's futures: event loops, callbacks, never blocking them."""

import asyncio
import gc
import queue
import threading
import types
from collections.abc import Callable, Generator, Iterable
from typing import Any

import pytest
from pykka import ActorDeadError, ActorRef, ThreadingFuture

from connect_actor.actors.actor import DispatchedActor
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.future import LoopFuture, WouldBlockError
from tests.support.process import PATIENCE


class Echo(DispatchedActor):
    def on_receive(self, message: object) -> object:
        return message


def from_another_thread(action: Callable[..., object], *args: object) -> None:
    thread = threading.Thread(target=action, args=args)
    thread.start()
    thread.join()


# --- Await ----------------------------------------------------------------------------------------


async def test_awaiting_a_future_that_is_set_returns_at_once() -> None:
    future: LoopFuture[str] = LoopFuture()
    future.set("here")
    assert await future == "here"


async def test_awaiting_lets_the_loop_go_on() -> None:
    future: LoopFuture[str] = LoopFuture()
    asyncio.get_running_loop().call_soon(future.set, "later")
    assert await future == "later"


async def test_awaiting_raises_what_was_set() -> None:
    future: LoopFuture[str] = LoopFuture()
    error = ValueError("no good")
    asyncio.get_running_loop().call_soon(future.set_exception, (ValueError, error, None))
    with pytest.raises(ValueError, match="no good"):
        await future


async def test_a_result_from_another_thread_wakes_the_waiting_task() -> None:
    future: LoopFuture[str] = LoopFuture()
    waiting = asyncio.ensure_future(_result_of(future))
    await asyncio.sleep(0)
    from_another_thread(future.set, "from afar")
    assert await asyncio.wait_for(waiting, PATIENCE) == "from afar"


async def _result_of(future: LoopFuture[str]) -> str:
    return await future


async def test_a_generator_based_coroutine_can_wait_for_a_future() -> None:
    @types.coroutine
    def wait(future: LoopFuture[str]) -> Generator[Any, None, str]:
        return (yield from future)

    future: LoopFuture[str] = LoopFuture()
    asyncio.get_running_loop().call_later(0.001, future.set, "later")
    assert await wait(future) == "later"


async def test_several_tasks_can_await_one_future() -> None:
    future: LoopFuture[str] = LoopFuture()
    waiting = asyncio.gather(*(_result_of(future) for _ in range(3)))
    await asyncio.sleep(0)
    future.set("all of you")
    assert await waiting == ["all of you"] * 3


async def test_a_result_for_a_cancelled_task_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    future: LoopFuture[str] = LoopFuture()
    cancelled = asyncio.ensure_future(_result_of(future))
    other = asyncio.ensure_future(_result_of(future))
    await asyncio.sleep(0)
    cancelled.cancel()
    future.set("too late for one")
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert await other == "too late for one"
    assert caplog.records == []


async def test_a_cancelled_task_leaves_nothing_behind_in_the_future() -> None:
    future: LoopFuture[str] = LoopFuture()
    waiting = asyncio.ensure_future(_result_of(future))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert not future._callbacks


async def test_a_derived_future_can_be_awaited_without_blocking() -> None:
    first: LoopFuture[Iterable[int]] = LoopFuture()
    second: LoopFuture[Iterable[int]] = LoopFuture()
    loop = asyncio.get_running_loop()
    loop.call_later(0.001, first.set, [1, 2])
    loop.call_later(0.002, second.set, [3])
    joined = first.map(sum).join(second.reduce(lambda total, number: total + number, 10))
    assert await joined == [3, 13]


async def test_a_derived_futures_function_runs_once_however_long_it_is_awaited() -> None:
    calls: list[int] = []
    source: LoopFuture[int] = LoopFuture()
    asyncio.get_running_loop().call_later(0.001, source.set, 1)
    derived = source.map(calls.append)
    await derived
    await derived
    assert calls == [1]


async def test_a_derived_future_raises_what_its_source_raises() -> None:
    source: LoopFuture[int] = LoopFuture()
    error = KeyError("gone")
    asyncio.get_running_loop().call_soon(source.set_exception, (KeyError, error, None))
    with pytest.raises(KeyError, match="gone"):
        await source.map(str)


async def test_a_stop_can_be_awaited() -> None:
    ref = Echo.start(dispatcher=Dispatcher(asyncio.get_running_loop()))
    assert await ref.stop(block=False) is True
    assert await ref.stop(block=False) is False


async def test_a_closed_loop_of_a_waiter_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    future: LoopFuture[str] = LoopFuture()

    def wait_on_a_loop_that_ends() -> None:
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(_result_of(future))
        loop.run_until_complete(asyncio.sleep(0))
        # Closed with the task in it; the task itself must not complain when it is collected.
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()

    from_another_thread(wait_on_a_loop_that_ends)
    future.set("nobody there")
    assert await future == "nobody there"
    assert caplog.records == []


# --- Never blocking a loop ------------------------------------------------------------------------


async def test_get_without_a_result_refuses_to_block_an_event_loop() -> None:
    future: LoopFuture[str] = LoopFuture()
    with pytest.raises(WouldBlockError) as raised:
        future.get(timeout=PATIENCE)
    assert raised.value.future is future
    future.set("here")
    assert future.get() == "here"


async def test_a_derived_future_names_the_one_that_has_no_result() -> None:
    source: LoopFuture[int] = LoopFuture()
    with pytest.raises(WouldBlockError) as raised:
        source.map(str).get()
    assert raised.value.future is source


def test_a_handler_that_blocks_for_an_answer_gets_an_error(dispatcher: Dispatcher) -> None:
    class Blocks(DispatchedActor):
        def on_receive(self, message: ActorRef[Echo]) -> object:
            return message.ask("hello")

    echo = Echo.start(dispatcher=dispatcher)
    with pytest.raises(WouldBlockError):
        Blocks.start(dispatcher=dispatcher).ask(echo, timeout=PATIENCE)


# --- Callbacks ------------------------------------------------------------------------------------


def test_a_callback_runs_when_the_result_is_set_in_the_setters_thread() -> None:
    future: LoopFuture[str] = LoopFuture()
    calls: list[tuple[str, int]] = []
    future.add_done_callback(lambda done: calls.append((done.get(), threading.get_ident())))
    assert calls == []
    threads: list[int] = []

    def set_result() -> None:
        threads.append(threading.get_ident())
        future.set("here")

    from_another_thread(set_result)
    assert calls == [("here", threads[0])]


def test_callbacks_run_in_the_order_added() -> None:
    future: LoopFuture[str] = LoopFuture()
    calls: list[int] = []
    for number in range(3):
        future.add_done_callback(lambda _, number=number: calls.append(number))  # type: ignore[misc]
    future.set("here")
    assert calls == [0, 1, 2]


def test_a_callback_on_a_future_that_is_done_runs_at_once() -> None:
    future: LoopFuture[str] = LoopFuture()
    future.set("here")
    calls: list[str] = []
    future.add_done_callback(lambda done: calls.append(done.get()))
    assert calls == ["here"]


def test_a_callback_runs_for_an_exception_too() -> None:
    future: LoopFuture[str] = LoopFuture()
    calls: list[bool] = []
    future.add_done_callback(lambda done: calls.append(done.done()))
    future.set_exception((ValueError, ValueError("no good"), None))
    assert calls == [True]


def test_a_callback_that_raises_harms_neither_setter_nor_other_callbacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    future: LoopFuture[str] = LoopFuture()
    calls: list[str] = []

    def fail(_: object) -> None:
        raise ValueError("no good")

    future.add_done_callback(fail)
    future.add_done_callback(lambda done: calls.append(done.get()))
    future.set("here")
    assert calls == ["here"]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_future_that_is_never_set_takes_no_callback() -> None:
    source: LoopFuture[str] = LoopFuture()
    with pytest.raises(TypeError, match="get hook"):
        LoopFuture.add_done_callback(source.map(str), print)  # type: ignore[arg-type]


def test_a_timeout_leaves_nothing_behind_in_the_future() -> None:
    future: LoopFuture[str] = LoopFuture()
    with pytest.raises(Exception, match=r"0\.001 seconds"):
        future.get(timeout=0.001)
    assert not future._callbacks


def test_a_result_is_passed_on() -> None:
    future: LoopFuture[str] = LoopFuture()
    before: LoopFuture[str] = LoopFuture()
    after: ThreadingFuture[str] = ThreadingFuture()
    future.pass_on(before)
    future.set("here")
    future.pass_on(after)
    assert before.get(timeout=PATIENCE) == "here"
    assert after.get(timeout=PATIENCE) == "here"


def test_an_exception_is_passed_on() -> None:
    future: LoopFuture[str] = LoopFuture()
    other: LoopFuture[str] = LoopFuture()
    future.pass_on(other)
    future.set_exception((ValueError, ValueError("no good"), None))
    with pytest.raises(ValueError, match="no good"):
        other.get(timeout=PATIENCE)


# --- Odds and ends --------------------------------------------------------------------------------


def test_set_exception_needs_an_exception() -> None:
    future: LoopFuture[str] = LoopFuture()
    with pytest.raises(TypeError, match="needs exc_info"):
        future.set_exception()
    assert not future.done()


def test_of_many_threads_that_set_a_future_exactly_one_succeeds() -> None:
    future: LoopFuture[int] = LoopFuture()
    outcomes: list[str] = []
    together = threading.Barrier(8)

    def set_result(number: int) -> None:
        together.wait()
        try:
            future.set(number)
        except queue.Full:
            outcomes.append("full")
        else:
            outcomes.append("set")

    threads = [threading.Thread(target=set_result, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["full"] * 7 + ["set"]


def test_reading_an_exception_again_does_not_grow_its_traceback() -> None:
    future: LoopFuture[str] = LoopFuture()
    error = ValueError("no good")
    future.set_exception((ValueError, error, None))
    lengths: list[int] = []
    for _ in range(3):
        with pytest.raises(ValueError, match="no good"):
            future.get()
        length, frame = 0, error.__traceback__
        while frame is not None:
            length, frame = length + 1, frame.tb_next
        lengths.append(length)
    assert len(set(lengths)) == 1


def test_a_stopped_actor_is_freed_while_its_ref_lives_on(dispatcher: Dispatcher) -> None:
    ref = Echo.start(dispatcher=dispatcher)
    actor = ref._actor_weakref
    assert actor() is not None
    gc.disable()  # by reference counts alone
    try:
        ref.stop(timeout=PATIENCE)
        Echo.start(dispatcher=dispatcher).ask("the turn that stopped it is over", timeout=PATIENCE)
        assert actor() is None
    finally:
        gc.enable()
    with pytest.raises(ActorDeadError):
        ref.tell("hello")
