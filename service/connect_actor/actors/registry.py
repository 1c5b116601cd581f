"""Makes stopping an actor cost the same however many others live.

Pykka's ``ActorRegistry`` keeps its refs in a list, so taking one out means looking through all:
3 ms an actor at 100,000 live ones, and minutes to stop them all.

What was considered: taking refs out in batches leaves dead refs in ``get_all()`` until the next
batch, and ``broadcast()`` raises at the first of them; not registering our actors gives up
``stop_all()`` and the lookups. So the list is replaced by an ordered set that offers the operations
the registry uses. Every registry method, for every kind of actor, stays exact at every moment;
start order, which ``stop_all()`` promises to reverse, is kept. ``get_by_urn`` and ``get_by_class``
remain linear.

The list is a private attribute of Pykka. Should a later version keep something else there, it is
left alone: the registry is then right, only slow, and a test of ours says so.
"""

from collections.abc import Iterator
from typing import Any

from pykka import ActorRef, ActorRegistry

__all__ = ["use_ordered_registry"]


class _OrderedRefs:
    """Refs in order of registration, each once; adding, finding and removing one take O(1)."""

    __slots__ = ("_refs",)

    def __init__(self, refs: list[ActorRef[Any]]) -> None:
        self._refs = dict.fromkeys(refs)

    def append(self, ref: ActorRef[Any]) -> None:
        self._refs[ref] = None

    def remove(self, ref: ActorRef[Any]) -> None:
        del self._refs[ref]

    def __contains__(self, ref: ActorRef[Any]) -> bool:
        return ref in self._refs

    def __iter__(self) -> Iterator[ActorRef[Any]]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, part: slice) -> list[ActorRef[Any]]:
        return list(self._refs)[part]


def use_ordered_registry() -> bool:
    """Let Pykka's registry use an ordered set from now on; refs registered so far are kept.

    Returns:
        Whether it does: False if Pykka keeps its refs in another way than this module knows.
    """
    with ActorRegistry._actor_refs_lock:  # noqa: SLF001 - see the module's text
        refs: object = ActorRegistry._actor_refs  # noqa: SLF001
        if isinstance(refs, list):
            ActorRegistry._actor_refs = _OrderedRefs(refs)  # type: ignore[assignment] # noqa: SLF001
            return True
        return isinstance(refs, _OrderedRefs)
