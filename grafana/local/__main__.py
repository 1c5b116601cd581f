"""``make stack``: the demo stack without Docker, until Ctrl-C."""

import argparse
import asyncio
import signal
import sys
from contextlib import suppress

from connect_loadgen.program.running import ProgramError
from grafana.dashboards.queries import resolve
from grafana.dashboards.strategies import ANSWERS
from grafana.local.programs import InstallError, find_programs
from grafana.local.prometheus import PrometheusApi, PrometheusError
from grafana.local.stack import STRATEGIES, LocalStack, StackOptions

__all__ = ["answers", "main"]

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
        sys.stderr.write("stack: given up; what was started is stopped\n")
        return 1
    except (InstallError, ProgramError) as error:
        sys.stderr.write(f"stack: {error}\n")
        return 1
    return 0


async def _run(options: StackOptions) -> None:
    _cancel_at_signals()
    _say("looking for Prometheus")
    programs = await asyncio.to_thread(find_programs)
    _say(f"starting {len(STRATEGIES)} services, a load on each, and Prometheus")
    async with LocalStack(programs, options) as stack:
        _say(f"Prometheus  http://{stack.prometheus.address}")
        for strategy, service in stack.services.items():
            _say(f"{strategy:<12} gRPC {service.listen}, metrics http://{service.metrics}/metrics")
            _say(f"{'':<12} its load: http://{stack.loads[strategy]}/metrics")
        _say(f"in turn, {options.part_seconds:g} s each: an equal load, and all that each can do")
        _say("Ctrl-C ends everything")
        with suppress(asyncio.CancelledError):
            await stack.while_alive(_tell_answers(stack, 2 * options.part_seconds))
        _say("stopping")
    _say("stopped")


async def _tell_answers(stack: LocalStack, course_seconds: float) -> None:
    """After each course say what the first row of the strategies' dashboard shows of it."""
    while True:
        await asyncio.sleep(course_seconds)
        for line in await asyncio.to_thread(answers, stack.prometheus, course_seconds):
            _say(line)


def answers(prometheus: PrometheusApi, course_seconds: float) -> list[str]:
    """Return a line for each strategy: what the last course showed of it."""
    found: dict[str, list[str]] = {strategy: [] for strategy in STRATEGIES}
    for answer in ANSWERS:
        query = resolve(answer.query, "", f"{course_seconds:.0f}s")
        try:
            for series in prometheus.query(query):
                said = f"{answer.title.lower()} {answer.say(series.value)}"
                found[series.labels["strategy"]].append(said)
        except PrometheusError as error:
            return [str(error)]
    return [f"{strategy:<12} {', '.join(said)}" for strategy, said in found.items()]


def _cancel_at_signals() -> None:
    work = asyncio.current_task()
    if work is None:
        raise RuntimeError("no task runs")
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)


def _say(text: str) -> None:
    sys.stdout.write(f"stack: {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
