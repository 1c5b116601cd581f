"""``python -m benchmarks.peers``: every contender does the work, or says what it needs."""

import pytest

from benchmarks import peers
from benchmarks.peers import CONTENDERS, Missing, measure

_FEW = {1: 64, 64: 64}


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_contender_s_messages_are_opened_by_the_peer(name: str) -> None:
    try:
        figures = measure(name, _FEW)
    except Missing as why:
        pytest.skip(str(why))
    assert set(figures) == set(_FEW)
    assert all(pace.wall > 0 for pace in figures.values())


def test_a_contender_that_is_not_installed_says_what_to_install() -> None:
    with pytest.raises(Missing, match="pip install no_such_module"):
        peers._module("no_such_module")
    with pytest.raises(Missing, match="apt install a-package"):
        peers._program("no-such-program", "a-package")
