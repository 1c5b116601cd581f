"""The frame of every result: when it began, how long it took, with what, and where."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from connect_loadgen.experiment.environment import describe_environment
from connect_loadgen.experiment.results import Result
from connect_loadgen.program.ending import ending
from connect_loadgen.settings.load import CommandSettings

__all__ = ["Conduct"]

_Detail = TypeVar("_Detail")


class Conduct:
    """Notes when a command began, and makes its result."""

    def __init__(self, settings: CommandSettings) -> None:
        """Begin now."""
        self._settings = settings
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._begun = time.monotonic()

    def result(self, directory: Path, detail: _Detail, **parts: Any) -> Result[_Detail]:  # noqa: ANN401 - fields of the result
        """Return the result.

        Args:
            directory: where the service kept its data: an existing directory.
            detail: what only this command has.
            parts: other fields of ``Result``.
        """
        return Result[_Detail](
            command=self._settings.command,
            started_at=self._started_at,
            seconds=time.monotonic() - self._begun,
            settings=self._settings.model_dump(mode="json"),
            environment=describe_environment(directory),
            cut_short=ending().reason,
            detail=detail,
            **parts,
        )
