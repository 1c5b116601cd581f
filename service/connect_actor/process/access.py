"""Access as the settings want it: certificate, gate and what keeps both up to date."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from connect_actor.access.certificates import CertificateFiles, ServerCertificate
from connect_actor.access.gate import Gate
from connect_actor.access.quotas import Accounts, Rates
from connect_actor.access.tokens import TokenFile
from connect_actor.files import Reloader
from connect_actor.network.addresses import parse
from connect_actor.settings import Settings

__all__ = ["Access"]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Access:
    """What the server needs to know of who may come in, and how; its files are followed."""

    gate: Gate
    certificate: ServerCertificate | None
    reloader: Reloader
    on_changed: Callable[[], None] = lambda: None
    """Told whenever some callers may no longer be let in."""

    @classmethod
    async def open(cls, settings: Settings, loop: asyncio.AbstractEventLoop) -> "Access":
        """Read what the settings name.

        Raises:
            AccessFileError: a file can't be used.
        """
        certificate = tokens = None
        if settings.tls_certificate is not None and settings.tls_private_key is not None:
            certificate = await ServerCertificate.open(
                CertificateFiles(
                    settings.tls_certificate, settings.tls_private_key, settings.tls_client_ca
                )
            )
        elif not parse(settings.listen).is_loopback:
            _log.warning(
                "gRPC is in clear text on %s: whoever is on the way reads it, tokens included",
                settings.listen,
            )
        if settings.token_file is not None:
            tokens = TokenFile(settings.token_file)
        rates = Rates(
            settings.max_operations_per_second,
            settings.max_bytes_per_second,
            settings.max_derivations_per_second,
            settings.rate_burst,
        )
        # Half of the writes that may wait: those below their share add at most as much again, and
        # never meet the journal's own bound, which knows no principals.
        accounts = Accounts(rates, max(1, settings.max_waiting_writes // 2), loop.time)
        clients = None if certificate is None else certificate.clients
        gate = Gate(tokens=tokens, certificates=clients, accounts=accounts)
        access = cls(gate, certificate, Reloader())
        if certificate is not None:
            paths, reload = certificate.paths, certificate.reload
            access.reloader.follow("certificates", paths, partial(access._reload, reload))
        if tokens is not None:
            # On another thread: a file of many tokens takes a while to read.
            reload = partial(asyncio.to_thread, tokens.reload)
            access.reloader.follow("tokens", [tokens.path], partial(access._reload, reload))
        return access

    async def _reload(self, reload: Callable[[], Awaitable[bool]]) -> bool:
        is_new = await reload()
        if is_new:
            self.on_changed()
        return is_new
