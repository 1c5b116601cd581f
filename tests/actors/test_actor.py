"""What a ``DispatchedActor`` does beyond, or unlike, a ``ThreadingActor``."""

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pykka import ActorDeadError, ActorRef, ActorRegistry, Future, ThreadingFuture
from pykka.messages import _ActorStop

from connect_actor.actors.actor import ANSWER_LATER, DispatchedActor, mailbox_of, signal
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.mailbox import Envelope, MailboxFullError
from connect_actor.errors import OverloadedError
from tests.support.futures import result
from tests.support.process import PATIENCE


@pytest.fixture
async def on_loop() -> AsyncIterator[Dispatcher]:
    """A dispatcher on the test's own loop: nothing runs until the test awaits."""
    yield Dispatcher(asyncio.get_running_loop())
    for stopping in ActorRegistry.stop_all(block=False):
        await result(stopping)


class Worker(DispatchedActor):
    """Calls what it is sent; remembers and returns anything else."""

    def __init__(self, log: list[object] | None = None) -> None:
        super().__init__()
        self.log: list[object] = [] if log is None else log

    def on_receive(self, message: object) -> object:
        if isinstance(message, BaseException):
            raise message
        if callable(message):
            return message(self)
        self.log.append(message)
        return message


class Small(Worker):
    mailbox_capacity = 3


# --- Start ----------------------------------------------------------------------------------------


def test_an_actor_is_made_by_start_only() -> None:
    with pytest.raises(TypeError, match=r"use Worker\.start\(\)"):
        Worker()


async def test_an_actor_knows_its_dispatcher_from_its_constructor_on(on_loop: Dispatcher) -> None:
    class Parent(DispatchedActor):
        def __init__(self) -> None:
            super().__init__()
            self.child = Worker.start(dispatcher=self.dispatcher)

    parent = Parent.start(dispatcher=on_loop)
    child = await result(parent.ask(lambda: None, block=False))
    assert child is None
    [child_ref] = ActorRegistry.get_by_class(Worker)
    assert await result(child_ref.ask("hello", block=False)) == "hello"


async def test_what_the_constructor_tells_comes_first(on_loop: Dispatcher) -> None:
    class Prepares(Worker):
        def __init__(self, log: list[object]) -> None:
            super().__init__(log)
            self.actor_ref.tell("first")

    log: list[object] = []
    await result(Prepares.start(log, dispatcher=on_loop).ask("second", block=False))
    assert log == ["first", "second"]


async def test_actors_of_several_dispatchers_talk_to_each_other(
    dispatcher: Dispatcher, on_loop: Dispatcher
) -> None:
    near = Worker.start(dispatcher=on_loop)
    far = Worker.start(dispatcher=dispatcher)
    assert await result(
        await result(far.ask(lambda _: near.ask("to near", block=False), block=False))
    ) == ("to near")
    assert await result(
        await result(near.ask(lambda _: far.ask("to far", block=False), block=False))
    ) == ("to far")


# --- Answering later ------------------------------------------------------------------------------


async def test_a_handler_can_answer_later(on_loop: Dispatcher) -> None:
    kept: list[Future[Any] | None] = []

    def keep(actor: Worker) -> object:
        kept.append(actor.sender)
        return ANSWER_LATER

    ref = Worker.start(dispatcher=on_loop)
    future = ref.ask(keep, block=False)
    assert await result(ref.ask("meanwhile", block=False)) == "meanwhile"
    assert kept == [future]
    future.set("at last")
    assert await result(future) == "at last"


async def test_a_told_message_has_no_sender(on_loop: Dispatcher) -> None:
    senders: list[object] = []

    def note(actor: Worker) -> object:
        senders.append(actor.sender)
        return ANSWER_LATER

    ref = Worker.start(dispatcher=on_loop)
    asked = ref.ask(note, block=False)
    ref.tell(note)
    await result(ref.ask("end", block=False))
    assert senders == [asked, None]


async def test_there_is_no_sender_between_messages(on_loop: Dispatcher) -> None:
    ref = Worker.start(dispatcher=on_loop)
    actor = await result(ref.ask(lambda actor: actor, block=False))
    assert actor.sender is None


async def test_a_second_answer_to_a_message_is_logged_and_nothing_more(
    on_loop: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    def answer_twice(actor: Worker) -> str:
        assert actor.sender is not None
        actor.sender.set("first")
        return "second"

    ref = Worker.start(dispatcher=on_loop)
    assert await result(ref.ask(answer_twice, block=False)) == "first"
    assert await result(ref.ask("still here", block=False)) == "still here"
    assert "more than one answer" in caplog.text


async def test_a_proxied_method_can_answer_later(on_loop: Dispatcher) -> None:
    class Slow(DispatchedActor):
        def work(self) -> object:
            sender = self.sender
            assert sender is not None
            self.dispatcher.loop.call_soon(sender.set, "done")
            return ANSWER_LATER

    proxy: Any = Slow.start(dispatcher=on_loop).proxy()
    assert await result(proxy.work()) == "done"


# --- Bounded mailbox ------------------------------------------------------------------------------


async def test_a_tell_beyond_the_bound_is_refused(on_loop: Dispatcher) -> None:
    log: list[object] = []
    ref = Small.start(log, dispatcher=on_loop)
    for number in range(Small.mailbox_capacity):
        ref.tell(number)
    with pytest.raises(MailboxFullError, match="3 messages wait"):
        ref.tell("one too many")
    assert issubclass(MailboxFullError, OverloadedError)
    assert mailbox_of(ref).depth == Small.mailbox_capacity
    await result(ref.stop(block=False))
    assert log == [0, 1, 2]


async def test_an_ask_beyond_the_bound_is_answered_with_the_refusal(on_loop: Dispatcher) -> None:
    ref = Small.start(dispatcher=on_loop)
    accepted = [ref.ask(number, block=False) for number in range(Small.mailbox_capacity)]
    refused = ref.ask("one too many", block=False)
    with pytest.raises(MailboxFullError):
        await result(refused)
    assert [await result(future) for future in accepted] == [0, 1, 2]


async def test_a_mailbox_has_room_again_once_messages_are_handled(on_loop: Dispatcher) -> None:
    ref = Small.start(dispatcher=on_loop)
    for _ in range(3):
        futures = [ref.ask(number, block=False) for number in range(Small.mailbox_capacity)]
        assert [await result(future) for future in futures] == [0, 1, 2]
        assert mailbox_of(ref).depth == 0


async def test_a_signal_gets_into_a_full_mailbox_in_its_order(on_loop: Dispatcher) -> None:
    log: list[object] = []
    ref = Small.start(log, dispatcher=on_loop)
    for number in range(Small.mailbox_capacity):
        ref.tell(number)
    signal(ref, "signal")
    assert await result(ref.stop(block=False))
    assert log == [0, 1, 2, "signal"]


async def test_an_actor_signals_itself(on_loop: Dispatcher) -> None:
    log: list[object] = []
    ref = Worker.start(log, dispatcher=on_loop)
    await result(ref.ask(lambda actor: actor.signal("to myself"), block=False))
    await result(ref.ask("end", block=False))
    assert log == ["to myself", "end"]


async def test_a_signal_to_a_stopped_actor_is_dropped(on_loop: Dispatcher) -> None:
    log: list[object] = []
    ref = Worker.start(log, dispatcher=on_loop)
    await result(ref.stop(block=False))
    signal(ref, "too late")
    await asyncio.sleep(0)
    assert log == []
    assert mailbox_of(ref).depth == 0


async def test_a_signal_whose_handler_fails_ends_the_actor(on_loop: Dispatcher) -> None:
    ref = Worker.start(dispatcher=on_loop)
    signal(ref, ValueError("no good"))
    with pytest.raises(ActorDeadError):
        await result(ref.ask("hello", block=False))


async def test_a_full_mailbox_takes_a_stop(on_loop: Dispatcher) -> None:
    ref = Small.start(dispatcher=on_loop)
    for number in range(Small.mailbox_capacity):
        ref.tell(number)
    actor = ref._actor_weakref()
    assert actor is not None
    actor.stop()
    assert await result(ref.stop(block=False)) is True


def test_only_dispatched_actors_have_a_mailbox() -> None:
    class Impostor:
        actor_inbox = None

    with pytest.raises(TypeError, match="no dispatched actor"):
        mailbox_of(Impostor())  # type: ignore[arg-type]


# --- No ask without its answer, no actor out of action --------------------------------------------


async def test_an_actor_outlives_the_cancelled_tasks_of_its_askers(on_loop: Dispatcher) -> None:
    async def ask(message: object) -> object:
        return await result(ref.ask(message, block=False))

    ref = Worker.start(dispatcher=on_loop)
    tasks = [asyncio.ensure_future(ask(number)) for number in range(5)]
    await asyncio.sleep(0)  # they have asked; the actor has not had its turn
    for task in tasks[1:4]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == (
        ["int", "CancelledError", "CancelledError", "CancelledError", "int"]
    )
    assert await result(ref.ask("still here", block=False)) == "still here"


@pytest.mark.parametrize("message", ["hello", ValueError("no good")])
async def test_an_actor_outlives_a_reply_future_that_raises(
    on_loop: Dispatcher, message: object, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ThreadingFuture[Any]):
        def set(self, _value: object = None) -> None:
            raise asyncio.InvalidStateError

        def set_exception(self, _exc_info: object = None) -> None:
            raise asyncio.InvalidStateError

    ref = Worker.start(dispatcher=on_loop)
    mailbox_of(ref).put(Envelope(message, Broken()))
    assert await result(ref.ask("still here", block=False)) == "still here"
    assert caplog.records[-1].levelno == logging.ERROR


async def test_what_is_put_after_the_end_is_still_answered(on_loop: Dispatcher) -> None:
    # As if ``ask`` had seen the actor alive just before it stopped.
    ref = Worker.start(dispatcher=on_loop)
    await result(ref.stop(block=False))
    late: ThreadingFuture[Any] = ThreadingFuture()
    late_stop: ThreadingFuture[Any] = ThreadingFuture()
    mailbox_of(ref).put(Envelope("late", late))
    mailbox_of(ref).put(Envelope(_ActorStop(), late_stop))
    mailbox_of(ref).put(Envelope("told"))
    with pytest.raises(ActorDeadError, match="stopped before handling"):
        await result(late)
    assert await result(late_stop) is None
    assert mailbox_of(ref).depth == 0


def test_every_ask_that_races_with_a_stop_is_answered_once(dispatcher: Dispatcher) -> None:
    answers: list[object] = []

    def ask_until_refused(ref: ActorRef[Worker]) -> None:
        for number in range(10_000):
            future = ref.ask(number, block=False)
            try:
                answers.append(future.get(timeout=PATIENCE))
            except ActorDeadError:
                return

    for _ in range(20):
        ref = Worker.start(dispatcher=dispatcher)
        askers = [threading.Thread(target=ask_until_refused, args=(ref,)) for _ in range(3)]
        for asker in askers:
            asker.start()
        ref.stop(timeout=PATIENCE)
        for asker in askers:
            asker.join(PATIENCE)
            assert not asker.is_alive()


async def test_all_messages_that_wait_are_refused_at_the_end(on_loop: Dispatcher) -> None:
    ref = Worker.start(dispatcher=on_loop)
    stopping = ref.stop(block=False)
    left = [ref.ask(number, block=False) for number in range(200)]
    assert await result(stopping) is True
    outcomes = await asyncio.gather(*(result(future) for future in left), return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {ActorDeadError}


async def test_the_asker_of_a_base_exception_gets_an_answer(
    on_loop: Dispatcher, caplog: pytest.LogCaptureFixture
) -> None:
    ref, other = Worker.start(dispatcher=on_loop), Worker.start(dispatcher=on_loop)
    behind = other.ask("accepted", block=False)
    with pytest.raises(ActorDeadError, match="by SystemExit"):
        await result(ref.ask(SystemExit("enough"), block=False))
    assert await result(behind) == "accepted"
    await result(other.stop(block=False))
    assert ActorRegistry.get_all() == []
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]


async def test_the_loop_and_new_actors_go_on_after_a_base_exception(on_loop: Dispatcher) -> None:
    Worker.start(dispatcher=on_loop).tell(KeyboardInterrupt())
    await asyncio.sleep(0)
    assert await result(Worker.start(dispatcher=on_loop).ask("hello", block=False)) == "hello"


async def test_a_base_exception_after_an_answer_stops_all_actors_too(on_loop: Dispatcher) -> None:
    def answer_and_exit(actor: Worker) -> None:
        assert actor.sender is not None
        actor.sender.set("answered")
        raise SystemExit

    ref, other = Worker.start(dispatcher=on_loop), Worker.start(dispatcher=on_loop)
    assert await result(ref.ask(answer_and_exit, block=False)) == "answered"
    await asyncio.sleep(0)
    assert not other.is_alive()
    assert not ref.is_alive()


async def test_a_cancelled_operation_is_an_ordinary_failure(on_loop: Dispatcher) -> None:
    ref, other = Worker.start(dispatcher=on_loop), Worker.start(dispatcher=on_loop)
    ref.tell(asyncio.CancelledError())
    assert await result(other.ask("hello", block=False)) == "hello"
    assert not ref.is_alive()
    assert await result(other.ask("still here", block=False)) == "still here"


@pytest.mark.parametrize("hook", ["on_start", "on_stop", "on_failure"])
async def test_a_base_exception_in_a_hook_ends_the_actor_and_answers_what_is_left(
    on_loop: Dispatcher, hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    def leave(*_: object) -> None:
        raise SystemExit

    made: type[Worker] = type("Exits", (Worker,), {hook: leave})
    ref = made.start(dispatcher=on_loop)
    ref.tell(ValueError("no good") if hook == "on_failure" else lambda actor: actor.stop())
    left = [ref.ask(number, block=False) for number in range(2)]
    outcomes = await asyncio.gather(*(result(future) for future in left), return_exceptions=True)
    if hook == "on_stop":  # told to itself, so behind what was asked before
        assert outcomes == [0, 1]
        await asyncio.sleep(0)
    else:
        assert {type(outcome) for outcome in outcomes} == {ActorDeadError}
    assert not ref.is_alive()
    assert ActorRegistry.get_by_urn(ref.actor_urn) is None
    # The actor has dealt with it: nothing got through to the dispatcher's last resort.
    assert "a turn failed" not in caplog.text


# --- Many -----------------------------------------------------------------------------------------


async def test_a_hundred_thousand_actors_live_and_stop(on_loop: Dispatcher) -> None:
    count = 100_000
    stopped: list[int] = []

    class Idle(DispatchedActor):
        def on_stop(self) -> None:
            stopped.append(1)

        def on_receive(self, message: int) -> int:
            return message

    gc.disable()  # nothing here is garbage; looking for it would take most of the test's time
    try:
        threads = threading.active_count()
        refs = [Idle.start(dispatcher=on_loop) for _ in range(count)]
        answers = [ref.ask(number, block=False) for number, ref in enumerate(refs)]
        total = sum([await result(answer) for answer in answers])
        assert total == sum(range(count))
        assert threading.active_count() == threads
        assert len(ActorRegistry.get_all()) == count
        stopping = [ref.ask(_ActorStop(), block=False) for ref in refs]
        for stop in stopping:
            await result(stop)
    finally:
        gc.enable()
    assert len(stopped) == count
    assert ActorRegistry.get_all() == []
