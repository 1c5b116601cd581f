"""``python -m benchmarks.figures``: figures that need the service's own process."""

import json

import pytest

from benchmarks.figures import code_lines, copies, decrypt, erasure, main
from connect_actor.observe.allocation import AllocationProbe

_SOURCE = '''"""A docstring
of two lines."""

# a comment
class Named:
    """Documentation."""

    text = """a string
    of two lines"""  # a comment behind code
'''


def test_code_lines_are_without_docstrings_comments_and_blanks() -> None:
    assert code_lines(_SOURCE) == 3


@pytest.mark.skipif(AllocationProbe.install() is None, reason="the allocation hook is not built")
def test_a_payload_is_copied_at_least_once_and_less_than_ten_times() -> None:
    assert 1 <= copies()["per_payload_byte"] < 10


def test_decrypts_with_and_without_a_window_are_compared_with_encrypts() -> None:
    figures = decrypt(rounds=1, frames=1)
    assert {"decrypt_to_encrypt", "window_to_none"} < set(figures)
    assert all(value > 0 for value in figures.values())


def test_full_is_measured_with_and_without_overwriting() -> None:
    figures = erasure(rounds=1, frames=1)
    assert figures["with_us"] > 0
    assert figures["without_us"] > 0


def test_figures_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["lines", "--json"])
    assert json.loads(capsys.readouterr().out)["lines"]["service"] > 1_000


def test_an_unknown_figure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["linse"])
    assert "no figures are called linse" in capsys.readouterr().err
