"""A service for one turn: started with a data directory of its own, put to work, stopped."""

from collections.abc import Callable, Coroutine
from typing import TypeVar

from connect_loadgen.drive.load import Progress
from connect_loadgen.probes.trial import Variant
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.service.process import ServiceProcess
from connect_loadgen.settings.load import LoadSettings

__all__ = ["on_fresh_service"]

_Result = TypeVar("_Result")


async def on_fresh_service(
    variant: Variant,
    load: LoadSettings,
    work: Callable[[ServiceProcess], Coroutine[None, None, _Result]],
    progress: Progress,
) -> _Result:
    """Start a service, do the work and stop the service.

    Args:
        variant: how to run it.
        load: how to start it, and how patiently.
        work: given the service once it is ready.
        progress: told how it goes.

    Raises:
        ServiceError: it did not start, died, or did not stop in order.
    """
    with scratch_directory() as data_dir:
        progress.step("starting the service")
        options = variant.options(data_dir, load.service_command)
        async with ServiceProcess(options, load.timeout_seconds) as service:
            result = await service.while_alive(work(service))
            await service.stop()
    return result
