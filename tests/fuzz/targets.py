"""All fuzz targets, by name."""

from collections.abc import Mapping

from tests.fuzz.configuration import ConfigurationTarget
from tests.fuzz.connection import ConnectionTarget
from tests.fuzz.protocol import PROTOCOL_TARGETS
from tests.fuzz.rpc import RPC_TARGETS
from tests.fuzz.storage import STORAGE_TARGETS
from tests.fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: Mapping[str, type[Target]] = {
    target.name: target
    for target in (
        *PROTOCOL_TARGETS,
        *RPC_TARGETS,
        *STORAGE_TARGETS,
        ConfigurationTarget,
        ConnectionTarget,
    )
}
