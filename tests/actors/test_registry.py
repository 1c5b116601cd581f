"""Pykka's registry on an ordered set: see ``actors.registry``."""

from typing import Any

import pytest
from pykka import ActorRef, ActorRegistry, ThreadingActor

from connect_actor.actors.actor import DispatchedActor
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.registry import _OrderedRefs, use_ordered_registry
from tests.support.process import PATIENCE


class Plain(DispatchedActor):
    pass


class Threaded(ThreadingActor):
    pass


def test_pykka_still_keeps_its_refs_where_we_replace_them() -> None:
    assert use_ordered_registry()
    assert type(ActorRegistry._actor_refs).__name__ == _OrderedRefs.__name__


def test_refs_registered_before_are_kept_in_order(
    dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ActorRegistry, "_actor_refs", [])
    refs: list[ActorRef[Any]] = [Plain.start(dispatcher=dispatcher) for _ in range(3)]
    assert use_ordered_registry()
    refs.append(Plain.start(dispatcher=dispatcher))
    assert ActorRegistry.get_all() == refs
    assert ActorRegistry.stop_all(timeout=PATIENCE) == [True] * 4


def test_a_registry_of_another_make_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    other = object()
    monkeypatch.setattr(ActorRegistry, "_actor_refs", other)
    assert not use_ordered_registry()
    assert ActorRegistry._actor_refs is other


def test_actors_of_both_types_share_the_registry(dispatcher: Dispatcher) -> None:
    refs: list[ActorRef[Any]] = [Plain.start(dispatcher=dispatcher), Threaded.start()]
    assert ActorRegistry.get_all() == refs
    assert ActorRegistry.get_by_class(ThreadingActor) == refs[1:]
    assert ActorRegistry.stop_all(timeout=PATIENCE) == [True, True]
    assert ActorRegistry.get_all() == []


def test_unregistering_twice_is_no_error(dispatcher: Dispatcher) -> None:
    ref = Plain.start(dispatcher=dispatcher)
    ref.stop(timeout=PATIENCE)
    ActorRegistry.unregister(ref)
    assert ActorRegistry.get_all() == []


def test_registering_twice_makes_one_entry(dispatcher: Dispatcher) -> None:
    ref = Plain.start(dispatcher=dispatcher)
    ActorRegistry.register(ref)
    assert ActorRegistry.get_all() == [ref]
    assert len(ActorRegistry._actor_refs) == 1
    assert list(ActorRegistry._actor_refs) == [ref]
