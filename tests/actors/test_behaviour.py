"""What must be the same for a ``ThreadingActor`` and a ``DispatchedActor``: each test runs on both.

Only ``ask``, ``tell`` and ``stop`` with a timeout are used to wait, so a hang is a failure.
"""

import queue
import threading
from types import TracebackType
from typing import Any

import pykka
import pytest
from pykka import ActorDeadError, ActorRef, ActorRegistry, Timeout

from tests.actors.conftest import Runtime

WAIT = 10.0


class Recorder(pykka.Actor):
    """Does what it is told and writes down what happens to it."""

    def __init__(self, log: list[object] | None = None) -> None:
        super().__init__()
        self.log: list[object] = [] if log is None else log
        self.ended = threading.Event()

    def on_start(self) -> None:
        self.log.append("start")

    def on_stop(self) -> None:
        self.log.append("stop")
        self.ended.set()

    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert exception_type is type(exception_value)
        assert traceback is not None
        self.log.append(exception_value)
        self.ended.set()

    def on_receive(self, message: object) -> object:
        if isinstance(message, BaseException):
            raise message
        if callable(message):
            return message(self)
        self.log.append(message)
        return message


def hold(ref: ActorRef[Any]) -> threading.Event:
    """Keep an actor busy, so that what follows is in its inbox together, until the event is set."""
    busy, go_on = threading.Event(), threading.Event()

    def wait(_: Recorder) -> None:
        busy.set()
        assert go_on.wait(WAIT)

    ref.tell(wait)
    assert busy.wait(WAIT)
    return go_on


# --- Ask and tell ---------------------------------------------------------------------------------


def test_an_ask_returns_what_the_handler_returns(runtime: Runtime) -> None:
    assert runtime.start(Recorder).ask("hello", timeout=WAIT) == "hello"


def test_an_ask_without_blocking_returns_a_future(runtime: Runtime) -> None:
    future = runtime.start(Recorder).ask("hello", block=False)
    assert future.get(timeout=WAIT) == "hello"
    assert future.get(timeout=WAIT) == "hello"


def test_messages_are_handled_in_the_order_sent(runtime: Runtime) -> None:
    log: list[object] = []
    ref = runtime.start(Recorder, log)
    for number in range(300):
        ref.tell(number)
    ref.ask("end", timeout=WAIT)
    assert log == ["start", *range(300), "end"]


def test_an_asker_gets_the_exception_and_the_actor_goes_on(runtime: Runtime) -> None:
    log: list[object] = []
    ref = runtime.start(Recorder, log)
    with pytest.raises(ValueError, match="no good"):
        ref.ask(ValueError("no good"), timeout=WAIT)
    assert ref.ask("still here", timeout=WAIT) == "still here"
    assert log == ["start", "still here"]


def test_an_ask_that_is_not_answered_in_time_times_out(runtime: Runtime) -> None:
    ref = runtime.start(Recorder)
    go_on = hold(ref)
    with pytest.raises(Timeout, match=r"0\.01 seconds"):
        ref.ask("hello", timeout=0.01)
    go_on.set()


def test_an_actor_without_a_handler_answers_none(runtime: Runtime) -> None:
    assert runtime.start(Account).ask("anything", timeout=WAIT) is None


def test_start_hands_its_arguments_to_the_constructor(runtime: Runtime) -> None:
    log: list[object] = ["before"]
    runtime.start(Recorder, log).stop(timeout=WAIT)
    assert log == ["before", "start", "stop"]


def test_an_actor_may_ask_another_without_blocking(runtime: Runtime) -> None:
    other = runtime.start(Recorder)
    ref = runtime.start(Recorder)
    future = ref.ask(lambda _: other.ask("passed on", block=False), timeout=WAIT)
    assert future.get(timeout=WAIT) == "passed on"


def test_what_an_actor_tells_itself_is_handled_after_the_message_in_hand(runtime: Runtime) -> None:
    log: list[object] = []
    ref = runtime.start(Recorder, log)

    def tell_self(actor: Recorder) -> None:
        actor.actor_ref.tell("second")
        actor.log.append("first")

    ref.ask(tell_self, timeout=WAIT)
    ref.ask("third", timeout=WAIT)
    assert log == ["start", "first", "second", "third"]


# --- Hooks and the end ----------------------------------------------------------------------------


def test_a_failed_tell_ends_the_actor_with_on_failure_alone(runtime: Runtime) -> None:
    log: list[object] = []
    ref = runtime.start(Recorder, log)
    ended = ref.ask(lambda actor: actor.ended, block=True, timeout=WAIT)
    error = ValueError("no good")
    ref.tell(error)
    assert ended.wait(WAIT)
    assert log == ["start", error]
    assert not ref.is_alive()
    assert ref not in ActorRegistry.get_all()


def test_what_a_failed_tell_leaves_in_the_inbox_is_answered(runtime: Runtime) -> None:
    ref = runtime.start(Recorder)
    go_on = hold(ref)
    ref.tell(ValueError("no good"))
    left = ref.ask("too late", block=False)
    go_on.set()
    with pytest.raises(ActorDeadError, match="stopped before handling the message"):
        left.get(timeout=WAIT)


class FailsToStart(Recorder):
    def __init__(self, log: list[object], gate: threading.Event) -> None:
        super().__init__(log)
        self._gate = gate

    def on_start(self) -> None:
        assert self._gate.wait(WAIT)
        raise ValueError("no good")


def test_an_actor_that_fails_to_start_is_gone_without_any_hook(runtime: Runtime) -> None:
    log: list[object] = []
    gate = threading.Event()
    ref = runtime.start(FailsToStart, log, gate)
    waiting = ref.ask("hello", block=False)
    gate.set()
    with pytest.raises(ActorDeadError):
        waiting.get(timeout=WAIT)
    assert log == []
    assert not ref.is_alive()
    assert ref not in ActorRegistry.get_all()


class FailsToStop(Recorder):
    def on_stop(self) -> None:
        super().on_stop()
        raise ValueError("no good")


def test_an_actor_that_fails_in_on_stop_has_stopped(runtime: Runtime) -> None:
    log: list[object] = []
    ref = runtime.start(FailsToStop, log)
    assert ref.stop(timeout=WAIT)
    assert log == ["start", "stop"]
    assert not ref.is_alive()


class FailsInOnFailure(Recorder):
    def on_failure(
        self,
        exception_type: type[BaseException] | None,
        exception_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().on_failure(exception_type, exception_value, traceback)
        raise KeyError("worse")


def test_an_actor_that_fails_in_on_failure_has_stopped(runtime: Runtime) -> None:
    ref = runtime.start(FailsInOnFailure)
    go_on = hold(ref)
    ref.tell(ValueError("no good"))
    left = ref.ask("too late", block=False)
    go_on.set()
    with pytest.raises(ActorDeadError):
        left.get(timeout=WAIT)
    assert not ref.is_alive()


def test_stop_handles_what_came_before_it_and_refuses_what_came_after(runtime: Runtime) -> None:
    log: list[object] = []
    ref = runtime.start(Recorder, log)
    go_on = hold(ref)
    before = ref.ask("before", block=False)
    first = ref.stop(block=False)
    after = ref.ask("after", block=False)
    second = ref.stop(block=False)
    go_on.set()
    assert before.get(timeout=WAIT) == "before"
    assert first.get(timeout=WAIT) is True
    with pytest.raises(ActorDeadError):
        after.get(timeout=WAIT)
    assert second.get(timeout=WAIT) is True
    assert log == ["start", "before", "stop"]


def test_stop_says_whether_the_actor_was_alive(runtime: Runtime) -> None:
    ref = runtime.start(Recorder)
    assert ref.stop(timeout=WAIT) is True
    assert ref.stop(timeout=WAIT) is False


def test_stop_waits_for_the_hook(runtime: Runtime) -> None:
    log: list[object] = []
    ref = runtime.start(Recorder, log)
    assert ref.stop(block=True, timeout=WAIT) is True
    assert log == ["start", "stop"]


def test_an_actor_can_stop_itself(runtime: Runtime) -> None:
    log: list[object] = []
    ref = runtime.start(Recorder, log)
    ended = ref.ask(lambda actor: actor.ended, block=True, timeout=WAIT)
    ref.tell(lambda actor: actor.stop())
    assert ended.wait(WAIT)
    assert log == ["start", "stop"]


def test_a_dead_actor_refuses_tells_and_asks(runtime: Runtime) -> None:
    ref = runtime.start(Recorder)
    ref.stop(timeout=WAIT)
    with pytest.raises(ActorDeadError):
        ref.tell("hello")
    with pytest.raises(ActorDeadError):
        ref.ask("hello", timeout=WAIT)
    with pytest.raises(ActorDeadError):
        ref.ask("hello", block=False).get(timeout=WAIT)
    with pytest.raises(ActorDeadError):
        ref.proxy()


def test_actor_stopped_can_be_waited_for(runtime: Runtime) -> None:
    ref = runtime.start(Recorder)
    assert not ref.actor_stopped.wait(0.001)
    waited: list[bool] = []
    waiter = threading.Thread(target=lambda: waited.append(ref.actor_stopped.wait(WAIT)))
    waiter.start()
    ref.stop(timeout=WAIT)
    waiter.join()
    assert waited == [True]
    assert ref.actor_stopped.wait(0)


def test_a_base_exception_stops_every_actor(runtime: Runtime) -> None:
    log: list[object] = []
    ref, other = runtime.start(Recorder, log), runtime.start(Recorder)
    ended = ref.ask(lambda actor: actor.ended, block=True, timeout=WAIT)
    ref.tell(SystemExit("enough"))
    assert ended.wait(WAIT)
    assert other.actor_stopped.wait(WAIT)
    assert not ref.is_alive()
    assert log == ["start", "stop"]


# --- Proxy ----------------------------------------------------------------------------------------


class Account(pykka.Actor):
    owner = "nobody"

    def __init__(self) -> None:
        super().__init__()
        self.balance = 0

    def pay_in(self, amount: int) -> int:
        if amount < 0:
            raise ValueError("negative")
        self.balance += amount
        return self.balance

    def pay_in_later(self, amount: int) -> None:
        self.actor_ref.proxy().pay_in.defer(amount)


def test_a_proxy_calls_methods(runtime: Runtime) -> None:
    proxy: Any = runtime.start(Account).proxy()
    assert proxy.pay_in(5).get(timeout=WAIT) == 5
    assert proxy.pay_in(amount=6).get(timeout=WAIT) == 11


def test_a_proxy_reads_and_writes_attributes(runtime: Runtime) -> None:
    proxy: Any = runtime.start(Account).proxy()
    proxy.owner = "me"
    assert proxy.owner.get(timeout=WAIT) == "me"
    with pytest.raises(AttributeError):
        _ = proxy.nothing_of_this_name


def test_a_proxy_hands_an_exception_to_the_caller(runtime: Runtime) -> None:
    proxy: Any = runtime.start(Account).proxy()
    with pytest.raises(ValueError, match="negative"):
        proxy.pay_in(-1).get(timeout=WAIT)
    assert proxy.balance.get(timeout=WAIT) == 0


def test_a_deferred_call_that_fails_ends_the_actor(runtime: Runtime) -> None:
    ref = runtime.start(Account)
    proxy: Any = ref.proxy()
    proxy.pay_in.defer(-1)
    assert ref.actor_stopped.wait(WAIT)


def test_an_actor_can_use_a_proxy_to_itself(runtime: Runtime) -> None:
    proxy: Any = runtime.start(Account).proxy()
    proxy.pay_in_later(5).get(timeout=WAIT)
    assert proxy.balance.get(timeout=WAIT) == 5


# --- Registry -------------------------------------------------------------------------------------


def test_the_registry_finds_live_actors(runtime: Runtime) -> None:
    recorder, account = runtime.start(Recorder), runtime.start(Account)
    assert ActorRegistry.get_all() == [recorder, account]
    assert ActorRegistry.get_by_class(recorder.actor_class) == [recorder]
    assert ActorRegistry.get_by_class(pykka.Actor) == [recorder, account]  # type: ignore[type-abstract]
    assert ActorRegistry.get_by_class_name("Account") == [account]
    assert ActorRegistry.get_by_urn(account.actor_urn) is account


def test_the_registry_forgets_an_actor_before_its_stop_returns(runtime: Runtime) -> None:
    refs = [runtime.start(Recorder) for _ in range(5)]
    refs[2].stop(timeout=WAIT)
    assert ActorRegistry.get_all() == refs[:2] + refs[3:]
    assert ActorRegistry.get_by_urn(refs[2].actor_urn) is None


def test_stop_all_stops_the_last_started_first(runtime: Runtime) -> None:
    order: list[int] = []

    class Numbered(pykka.Actor):
        def __init__(self, number: int) -> None:
            super().__init__()
            self.number = number

        def on_stop(self) -> None:
            order.append(self.number)

    for number in range(4):
        runtime.start(Numbered, number)
    assert ActorRegistry.stop_all(timeout=WAIT) == [True] * 4
    assert order == [3, 2, 1, 0]
    assert ActorRegistry.get_all() == []


def test_a_broadcast_reaches_every_actor_of_the_class(runtime: Runtime) -> None:
    logs: list[list[object]] = [[], []]
    refs = [runtime.start(Recorder, log) for log in logs]
    runtime.start(Account)
    ActorRegistry.broadcast("all", target_class=Recorder)
    for ref in refs:
        ref.ask("end", timeout=WAIT)
    assert logs == [["start", "all", "end"]] * 2


# --- Futures --------------------------------------------------------------------------------------


def test_derived_futures_wait_for_what_they_derive_from(runtime: Runtime) -> None:
    ref = runtime.start(Recorder)
    go_on = hold(ref)
    numbers = ref.ask([1, 2, 3], block=False)
    more = ref.ask([4], block=False)
    mapped = numbers.map(len)
    filtered = numbers.filter(lambda number: number > 1)
    reduced = numbers.reduce(lambda total, number: total + number, 10)
    joined = numbers.join(more)
    chained = numbers.map(sum).map(str)
    go_on.set()
    assert mapped.get(timeout=WAIT) == 3
    assert filtered.get(timeout=WAIT) == [2, 3]
    assert reduced.get(timeout=WAIT) == 16
    assert joined.get(timeout=WAIT) == [[1, 2, 3], [4]]
    assert chained.get(timeout=WAIT) == "6"
    assert pykka.get_all([numbers, more], timeout=WAIT) == [[1, 2, 3], [4]]


def test_a_derived_futures_function_runs_once(runtime: Runtime) -> None:
    calls: list[int] = []
    source = runtime.future()
    derived = source.map(calls.append)
    source.set(1)
    assert derived.get(timeout=WAIT) is None
    assert derived.get(timeout=WAIT) is None
    assert calls == [1]


def test_a_derived_future_times_out_with_its_source(runtime: Runtime) -> None:
    with pytest.raises(Timeout):
        runtime.future().map(str).get(timeout=0.01)


def test_a_future_without_a_result_times_out(runtime: Runtime) -> None:
    with pytest.raises(Timeout, match="0 seconds"):
        runtime.future().get(timeout=0)


def test_a_future_is_set_once(runtime: Runtime) -> None:
    future = runtime.future()
    future.set("first")
    with pytest.raises(queue.Full):
        future.set("second")
    with pytest.raises(queue.Full):
        future.set_exception((ValueError, ValueError("second"), None))
    with pytest.raises(queue.Full):
        future.set_get_hook(lambda _: "second")
    assert future.get(timeout=WAIT) == "first"


def test_a_future_with_a_get_hook_cannot_be_set(runtime: Runtime) -> None:
    future = runtime.future()
    future.set_get_hook(lambda timeout: timeout)
    with pytest.raises(queue.Full):
        future.set("second")
    with pytest.raises(queue.Full):
        future.set_exception((ValueError, ValueError("second"), None))
    assert future.get(timeout=2.5) == 2.5


def test_a_future_raises_the_exception_in_hand_when_it_was_set(runtime: Runtime) -> None:
    future = runtime.future()
    try:
        raise ValueError("no good")  # noqa: TRY301
    except ValueError:
        future.set_exception()
    for _ in range(2):
        with pytest.raises(ValueError, match="no good"):
            future.get(timeout=WAIT)


def test_a_future_raises_an_exception_given_by_its_type_alone(runtime: Runtime) -> None:
    future = runtime.future()
    future.set_exception((KeyError, None, None))
    with pytest.raises(KeyError):
        future.get(timeout=WAIT)


def test_every_thread_that_waits_gets_the_result(runtime: Runtime) -> None:
    future = runtime.future()
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(future.get(timeout=WAIT))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    future.set("all of you")
    for thread in threads:
        thread.join()
    assert results == ["all of you"] * 4
