"""``make stack``: the demo stack without Docker, until Ctrl-C."""

import argparse
import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from connect_loadgen.program.running import ProgramError
from grafana.dashboards.queries import resolve
from grafana.dashboards.strategies import ANSWERS
from grafana.local.programs import InstallError, find_programs
from grafana.local.prometheus import PrometheusApi
from grafana.local.stack import STRATEGIES, LocalStack, StackOptions

__all__ = ["main"]

_DEFAULTS = StackOptions()


def main() -> int:
    """Run the stack and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m grafana.local", description=__doc__)
    parser.add_argument(
        "--rate",
        default=_DEFAULTS.rate,
        help="operations per second on each service in the first part (%(default)s)",
    )
    parser.add_argument(
        "--channels",
        type=int,
        default=_DEFAULTS.channels,
        help="channels of each service (%(default)d)",
    )
    parser.add_argument(
        "--prometheus-listen",
        default="127.0.0.1:9090",
        help="HOST:PORT of Prometheus; port 0 takes a free one (%(default)s)",
    )
    given = parser.parse_args()
    options = StackOptions(
        rate=given.rate, channels=given.channels, prometheus_listen=given.prometheus_listen
    )
    try:
        asyncio.run(_run(options))
    except asyncio.CancelledError:
        sys.stderr.write("stack: given up while starting; what was started is stopped\n")
        return 1
    except (InstallError, ProgramError) as error:
        sys.stderr.write(f"stack: {error}\n")
        return 1
    return 0


async def _run(options: StackOptions) -> None:
    asked_to_stop = _on_signals()
    _say("looking for Prometheus")
    programs = await asyncio.to_thread(find_programs)
    _say(f"starting {len(STRATEGIES)} services, a load on each, and Prometheus")
    async with LocalStack(programs, options) as stack:
        _say(f"Prometheus  http://{stack.prometheus.address}")
        for strategy, service in stack.services.items():
            _say(f"{strategy:<12} gRPC {service.listen}, metrics http://{service.metrics}/metrics")
            _say(f"{'':<12} its load: http://{stack.loads[strategy]}/metrics")
        _say("Ctrl-C ends everything")
        _say(f"in turn, {options.part_seconds:g} s each: an equal load, and all that each can do")
        asked_to_stop.started()
        telling = asyncio.create_task(_tell_answers(stack, 2 * options.part_seconds))
        try:
            await asked_to_stop.unless(stack.watch())
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
        _say("stopping")
    _say("stopped")


async def _tell_answers(stack: LocalStack, course_seconds: float) -> None:
    """After each course say what the first row of the strategies' dashboard shows of it."""
    while True:
        await asyncio.sleep(course_seconds)
        answers = await asyncio.to_thread(_answers, stack.prometheus, course_seconds)
        for strategy, words in answers.items():
            _say(f"{strategy:<12} {', '.join(words)}")


def _answers(prometheus: PrometheusApi, course_seconds: float) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {strategy: [] for strategy in STRATEGIES}
    for answer in ANSWERS:
        query = resolve(answer.query, "", f"{course_seconds:.0f}s")
        for series in prometheus.query(query):
            found[series.labels["strategy"]].append(
                f"{answer.title.lower()} {answer.say(series.value)}"
            )
    return found


class _Stop:
    """The wish to stop: an order once the stack has started, and before that a cancellation."""

    def __init__(self, work: asyncio.Task[Any] | None) -> None:
        self._asked = asyncio.Event()
        self._starting = work

    def ask(self) -> None:
        self._asked.set()
        if self._starting is not None:
            self._starting.cancel()

    def started(self) -> None:
        self._starting = None

    async def unless(self, failure: Coroutine[Any, Any, None]) -> None:
        """Wait until it is asked for; raise what ``failure`` raises before."""
        failed, asked = asyncio.create_task(failure), asyncio.create_task(self._asked.wait())
        await asyncio.wait({failed, asked}, return_when=asyncio.FIRST_COMPLETED)
        for task in (failed, asked):
            task.cancel()
        outcomes = await asyncio.gather(failed, asked, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome


def _on_signals() -> _Stop:
    stop = _Stop(asyncio.current_task())
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.ask)
    return stop


def _say(text: str) -> None:
    sys.stdout.write(f"stack: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
