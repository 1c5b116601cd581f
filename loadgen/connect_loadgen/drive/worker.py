"""A generator process among several: does as ``fleet`` says, over standard input.

Its first line says what the load is; after that each line is an order. Standard output is for news
alone. It ends when its standard input does.
"""

import asyncio
import json
import sys
from typing import Any

import uvloop

from connect_loadgen.drive.channels import encode_end, establish
from connect_loadgen.drive.load import Load
from connect_loadgen.drive.transport import TransportError, open_transport
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.settings.load import LoadSettings
from connect_loadgen.settings.stops import Tally

__all__: list[str] = []


class _News:
    """Tells the main process what happens; as the load's progress, too."""

    def tell(self, event: str, **details: Any) -> None:  # noqa: ANN401 - whatever JSON can say
        sys.stdout.write(json.dumps({"event": event, **details}) + "\n")
        sys.stdout.flush()

    def step(self, text: str) -> None:
        """Say nothing: the main process knows what it has ordered."""

    def tick(self, share: float, text: str) -> None:
        self.tell("tick", share=share, text=text)

    def judge(self, tally: Tally) -> None:
        """Leave it to the main process, which has the tallies of all, whether to stop."""
        self.tell("tally", finished=tally.finished, failed=tally.failed, slower=list(tally.slower))


async def _work() -> None:
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    told = json.loads(await orders.readline())
    endpoint = Endpoint.decode(told["endpoint"])
    # What was checked by the main process, and must not be mixed with the environment again.
    settings = LoadSettings.model_construct(**told["settings"])
    news = _News()
    try:
        async with open_transport(endpoint, settings) as transport:
            ends = await establish(transport, settings, endpoint)
            load = Load(
                transport,
                ends,
                settings,
                endpoint,
                news,
                part=(told["part"], told["parts"]),
                judge=news.judge,
            )
            news.tell("established")
            await _obey(orders, load, news)
    except* TransportError as group:
        news.tell("failed", why=str(group.exceptions[0]))


async def _obey(orders: asyncio.StreamReader, load: Load, news: _News) -> None:
    async with asyncio.TaskGroup() as tasks:
        while line := await orders.readline():
            told = json.loads(line)
            match told["order"]:
                case "warm_up":
                    tasks.create_task(_warm_up(load, news))
                case "measure":
                    tasks.create_task(_measure(load, news))
                    # Until it has begun it can't be stopped.
                    await asyncio.sleep(0)
                case _:
                    load.line.stop(told["reason"])


async def _warm_up(load: Load, news: _News) -> None:
    await load.warm_up()
    news.tell("warm")


async def _measure(load: Load, news: _News) -> None:
    await load.measure()
    news.tell(
        "measured",
        figures=load.figures(None).model_dump(mode="json"),
        ends=[encode_end(end) for end in load.ends()],
    )


if __name__ == "__main__":
    uvloop.run(_work())
