"""TLS as a client of the service needs it: whom to trust, and what to show."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import grpc

__all__ = ["ClientTls"]

_Options = list[tuple[str, str | int]]


@dataclass(frozen=True, slots=True)
class ClientTls:
    """PEM-encoded certificates and keys of a client."""

    ca: bytes
    """Roots of the service's certificate, or that certificate itself."""
    certificate: bytes | None = None
    """The client's own, where the service asks for one."""
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str | None = None
    """The name that the service's certificate has to have, if it isn't the target's."""

    @classmethod
    def from_files(
        cls,
        ca: Path,
        certificate: Path | None = None,
        private_key: Path | None = None,
        server_name: str | None = None,
    ) -> Self:
        """Read the files.

        Raises:
            OSError: one can't be read.
        """
        return cls(
            ca.read_bytes(),
            None if certificate is None else certificate.read_bytes(),
            None if private_key is None else private_key.read_bytes(),
            server_name,
        )

    @property
    def credentials(self) -> grpc.ChannelCredentials:
        """For ``grpc.secure_channel``."""
        return grpc.ssl_channel_credentials(self.ca, self.private_key, self.certificate)

    @property
    def options(self) -> _Options:
        """Options of the channel that go with them."""
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
