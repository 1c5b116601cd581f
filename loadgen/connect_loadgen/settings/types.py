"""How single settings are written: each is checked as it is read, and kept as it was written."""

import shlex
from collections.abc import Callable
from functools import partial
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from connect_actor.network.addresses import parse, parse_host_port, parse_target
from connect_loadgen.settings.arrivals import Arrivals
from connect_loadgen.settings.draws import Draws
from connect_loadgen.settings.stops import parse_stops
from connect_loadgen.settings.storms import parse_storms

__all__ = [
    "LONGEST_THOUGHT",
    "MAX_PAYLOAD_BYTES",
    "Durations",
    "HttpListen",
    "HttpTarget",
    "Listen",
    "PayloadSizes",
    "Rate",
    "ShellCommand",
    "StopConditions",
    "Storms",
    "Target",
    "comma_separated",
]

# What the service takes by default.
MAX_PAYLOAD_BYTES = 1 << 20

# An hour, in seconds.
LONGEST_THOUGHT = 3600.0


def comma_separated(value: object) -> object:
    """Split what a flag or the environment gives as one string."""
    return value.split(",") if isinstance(value, str) else value


def _one_word(value: object) -> object:
    """Let a file say in numbers what is otherwise written as one word."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _rate(value: str) -> str:
    Arrivals.parse(value)
    return value


def _payload_bytes(value: str) -> str:
    Draws.parse(value, MAX_PAYLOAD_BYTES)
    return value


def _think_seconds(value: str) -> str:
    Draws.parse(value, LONGEST_THOUGHT)
    return value


def _storms(value: str) -> str:
    parse_storms(value)
    return value


def _stop_conditions(value: str) -> str:
    parse_stops(value)
    return value


def _shell_words(value: object) -> object:
    return shlex.split(value) if isinstance(value, str) else value


def _checked_by(parser: Callable[[str], object]) -> AfterValidator:
    def check(value: str) -> str:
        parser(value)
        return value

    return AfterValidator(check)


Listen = Annotated[str, _checked_by(parse)]
"""Where gRPC listens, as ``network.addresses`` has it."""

Target = Annotated[str, _checked_by(parse_target)]
"""Where gRPC is found, likewise."""

HttpListen = Annotated[str, _checked_by(parse_host_port)]
"""HOST:PORT where metrics are served."""

HttpTarget = Annotated[str, _checked_by(partial(parse_target, tcp_only=True))]
"""HOST:PORT where metrics are found."""

Rate = Annotated[str, BeforeValidator(_one_word), AfterValidator(_rate)]
"""Operations per second over time, as ``arrivals`` has it."""

PayloadSizes = Annotated[str, BeforeValidator(_one_word), AfterValidator(_payload_bytes)]
"""Distribution of bytes, as ``draws`` has it."""

Durations = Annotated[str, BeforeValidator(_one_word), AfterValidator(_think_seconds)]
"""Distribution of seconds, as ``draws`` has it."""

Storms = Annotated[str, AfterValidator(_storms)]
"""Moments, as ``storms`` has them."""

StopConditions = Annotated[str, AfterValidator(_stop_conditions)]
"""Bounds, as ``stops`` has them."""

ShellCommand = Annotated[tuple[str, ...] | None, BeforeValidator(_shell_words)]
"""A command line, taken apart as a shell would."""
