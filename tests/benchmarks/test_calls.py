"""The way of a frame stays short: counted in calls, which hardly depend on the machine."""

from benchmarks.calls import count_calls
from connect_actor.protocol import message_step

_OPERATIONS = 64


def test_an_encrypt_on_a_stream_takes_few_calls_and_files() -> None:
    loop, journal = count_calls(_OPERATIONS, channels=_OPERATIONS)
    assert 20 < loop.calls.total() / _OPERATIONS <= 60
    assert 4 < journal.calls.total() / _OPERATIONS <= 20
    # Without the native step its Python code is a file more.
    python_step = message_step.NATIVE is None
    assert 8 < len(loop.files(_OPERATIONS)) <= 18 + python_step
