"""What happens to channels beside the workload: churn, and storms of peers that come back.

Churn establishes channels and closes those whose places they take, at a rate. A storm is a moment
at which the peers of all channels come back at once: ``restore`` asks for each over the load's own
connection, ``reconnect`` over a new connection for each. The workload goes on meanwhile, and what
all this does to it shows in its latencies.
"""

import asyncio
import os

from grpc import aio

from connect_actor.client import ConnectClient, Identity
from connect_actor.errors import ConnectError
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.channels import ChannelEnd
from connect_loadgen.drive.pacing import LONGEST_NAP, NO_ANSWER, SECOND, Line
from connect_loadgen.drive.peer import PeerEnd, status_name
from connect_loadgen.drive.recording import Recorder
from connect_loadgen.drive.transport import OWN_CONNECTION
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.settings.load import LoadSettings
from connect_loadgen.settings.storms import Storm, parse_storms

__all__ = ["Lifecycle"]

# More at once would say nothing new about a service that does not keep up, and fill its queues.
_REPLACEMENTS_AT_ONCE = 64


class _FailedError(Exception):
    """An operation beside the workload was answered with an error status, or not at all."""


class Lifecycle:
    """Churn and storms of one measured phase."""

    def __init__(
        self, line: Line, ends: list[ChannelEnd], settings: LoadSettings, endpoint: Endpoint
    ) -> None:
        """Prepare; ``ends`` is kept to what the channels are at any time."""
        self._line = line
        self._recorder: Recorder = line.recorder
        self._ends = ends
        self._settings = settings
        self._endpoint = endpoint
        self._identity = Identity.generate(os.urandom)
        self._place = 0
        self._replacing = 0
        self._storms = 0
        self._calm = asyncio.Event()
        self._calm.set()

    async def run(self) -> None:
        """Do what is due until the phase ends, then finish what was begun.

        Failures are counted among the phase's errors and wrong answers.
        """
        settings, recorder = self._settings, self._recorder
        storms = list(parse_storms(settings.storms))
        churn_gap = SECOND / settings.churn_rate if settings.churn_rate else 0.0
        replaced = 0
        async with (
            self._endpoint.client() as client,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                replacement_at = recorder.begins_at + int((replaced + 1) * churn_gap)
                due = [replacement_at] if churn_gap else []
                due += [recorder.begins_at + int(storm.at * SECOND) for storm in storms[:1]]
                if not due or min(due) >= recorder.ends_at:
                    return
                if (wait := min(due) - self._line.now()) > 0:
                    await asyncio.sleep(min(wait, LONGEST_NAP) / SECOND)
                    # The phase may have been ended early meanwhile.
                    continue
                if churn_gap and replacement_at == min(due):
                    replaced += 1
                    if self._replacing >= _REPLACEMENTS_AT_ONCE:
                        recorder.replacements_skipped += 1
                    else:
                        tasks.create_task(self._replace(client, replacement_at))
                else:
                    tasks.create_task(self._storm(storms.pop(0)))

    async def _replace(self, client: ConnectClient, due_at: int) -> None:
        place, self._place = self._place, (self._place + 1) % len(self._ends)
        self._replacing += 1
        try:
            initiation = client.begin(self._identity, self._settings.one_time_prekeys)
            established = await self._ask(wire.Operation(establish=initiation.request))
            end = ChannelEnd(client.complete(initiation, established.establish))
            self._record("establish", due_at)
            former, self._ends[place] = self._ends[place], end
            idle = asyncio.Event()
            self._line.peers.replace(place, end, idle.set)
            await idle.wait()
            # A storm under way may still ask for it.
            await self._calm.wait()
            closing_at = self._line.now()
            await self._ask(wire.Operation(close=wire.CloseRequest(connect_id=former.connect_id)))
            self._record("close", closing_at)
        except _FailedError as error:
            self._recorder.errors[str(error)] += 1
        except ConnectError:
            # The handshake's answer is not acceptable.
            self._recorder.wrong += 1
        finally:
            self._replacing -= 1

    async def _storm(self, storm: Storm) -> None:
        begun_at = self._line.now()
        self._storms += 1
        self._calm.clear()
        come_back = self._restore if storm.kind == "restore" else self._reconnect

        async def one(end: PeerEnd) -> None:
            try:
                await come_back(end)
            except _FailedError as error:
                self._recorder.errors[str(error)] += 1
            else:
                self._record(storm.kind, begun_at)

        await asyncio.gather(*(one(end) for end in list(self._ends)))
        self._storms -= 1
        if not self._storms:
            self._calm.set()

    async def _restore(self, end: PeerEnd) -> None:
        await self._ask(wire.Operation(restore=wire.RestoreRequest(connect_id=end.connect_id)))

    async def _reconnect(self, end: PeerEnd) -> None:
        async with self._endpoint.connect(OWN_CONNECTION) as connection:
            stub = self._endpoint.stub(connection)
            try:
                await stub.Restore(
                    wire.RestoreRequest(connect_id=end.connect_id),
                    timeout=self._settings.timeout_seconds,
                    wait_for_ready=True,
                )
            except aio.AioRpcError as error:
                raise _FailedError(error.code().name) from error

    async def _ask(self, operation: wire.Operation) -> wire.OperationResult:
        asked = operation.WhichOneof("request")
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                result = await self._line.ask(operation)
        except TimeoutError:
            self._line.peers.forget(operation.operation_id)
            raise _FailedError(NO_ANSWER) from None
        if result.WhichOneof("outcome") == "error":
            raise _FailedError(status_name(result.error.code))
        if result.WhichOneof("outcome") != asked:
            self._recorder.wrong += 1
            raise _FailedError("WRONG_KIND")
        return result

    def _record(self, name: str, since: int) -> None:
        self._recorder.lifecycle[name].record(self._line.now() - since)
