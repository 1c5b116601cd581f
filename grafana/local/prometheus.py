"""How to start a Prometheus of our own, and the questions that it answers."""

import json
import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from connect_actor.network.connections import http_get
from connect_loadgen.program.running import RunningProgram
from grafana.local.programs import Programs

__all__ = ["PrometheusApi", "PrometheusError", "Series", "prometheus_process"]

_PATIENCE = 30

_READY = re.compile(r'msg="Listening on" address=(\S+).*ready to receive web requests', re.DOTALL)


class PrometheusError(Exception):
    """Prometheus did not answer, or refused a query; the message holds what it said."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer, and its value."""

    labels: dict[str, str]
    value: float


class PrometheusApi:
    """Prometheus's HTTP API, as far as we need it. Calls block."""

    def __init__(self, address: str) -> None:
        """Ask at HOST:PORT."""
        self.address = address

    def query(self, expression: str, at: float | None = None) -> list[Series]:
        """Evaluate an expression at a time, in seconds since the epoch, or else now.

        Raises:
            PrometheusError: it can't be evaluated, or is not a vector.
        """
        moment = {} if at is None else {"time": f"{at:.3f}"}
        data = self.get("query", query=expression, **moment)
        return [Series(each["metric"], float(each["value"][1])) for each in data["result"]]

    def get(self, resource: str, **parameters: str) -> Any:  # noqa: ANN401 - JSON of many shapes
        """Return the data of a resource of API v1.

        Raises:
            PrometheusError: it was refused, or nobody answers.
        """
        path = f"/api/v1/{resource}?{urlencode(parameters)}"
        try:
            status, body = http_get(self.address, path, _PATIENCE)
        except OSError as error:
            raise PrometheusError(f"no Prometheus answers at {self.address}: {error}") from None
        if status != HTTPStatus.OK:
            raise PrometheusError(f"{parameters}: {body.decode(errors='replace')}")
        return json.loads(body)["data"]


def prometheus_process(
    programs: Programs, configuration: Path, data_dir: Path, listen: str
) -> RunningProgram[str]:
    """Return a Prometheus to be started, with this configuration file, at HOST:PORT."""
    return RunningProgram(
        "Prometheus",
        (
            str(programs.prometheus),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={data_dir}",
            f"--web.listen-address={listen}",
        ),
        _address,
        _PATIENCE,
        says_on_stderr=True,
    )


def _address(said: str) -> str | None:
    found = _READY.search(said)
    return found and found[1]
