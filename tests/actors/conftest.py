"""Two runtimes for one suite: Pykka's own actor type, and ours."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar, cast

import pytest
from pykka import Actor, ActorRef, ActorRegistry, Future, ThreadingActor, ThreadingFuture

from connect_actor.actors.actor import DispatchedActor
from connect_actor.actors.dispatcher import Dispatcher
from tests.support.process import PATIENCE

A = TypeVar("A", bound=Actor)


class Runtime(Protocol):
    """Starts a behaviour, written as a subclass of ``pykka.Actor``, as one type of actor."""

    def start(self, behaviour: Callable[..., A], *args: object) -> ActorRef[A]: ...

    def future(self) -> Future[Any]: ...


def _combine(behaviour: Callable[..., A], base: type[Actor]) -> Any:  # noqa: ANN401 - A and base
    """Make a class; the argument is typed as a callable since Pykka's base class is abstract."""
    made = cast("type[A]", behaviour)
    return type(made.__name__, (made, base), {})


class ThreadingRuntime:
    def start(self, behaviour: Callable[..., A], *args: object) -> ActorRef[A]:
        made = _combine(behaviour, ThreadingActor)
        return cast("ActorRef[A]", made.start(*args))

    def future(self) -> Future[Any]:
        return ThreadingFuture()


class DispatchedRuntime:
    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def start(self, behaviour: Callable[..., A], *args: object) -> ActorRef[A]:
        made = _combine(behaviour, DispatchedActor)
        return cast("ActorRef[A]", made.start(*args, dispatcher=self._dispatcher))

    def future(self) -> Future[Any]:
        return ThreadingFuture()


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    """A dispatcher in a thread of its own; every actor is stopped in the end."""
    with Dispatcher.in_thread() as made:
        yield made
        ActorRegistry.stop_all(timeout=PATIENCE)


@pytest.fixture(params=["threading", "dispatched"])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    """Each type of actor in turn."""
    if request.param == "threading":
        yield ThreadingRuntime()
        ActorRegistry.stop_all(timeout=PATIENCE)
    else:
        yield DispatchedRuntime(request.getfixturevalue("dispatcher"))
