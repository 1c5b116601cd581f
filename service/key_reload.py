"""Rotation of the master keys while the service runs: read anew at SIGHUP.

New records are sealed under the new first key at once; what older keys have sealed is sealed anew
bit by bit (``service.persistence.resealing``). Keys that can't be used change nothing.
"""

import asyncio
import logging

from service.keyfiles import KeyFileError, load_identity
from service.paths import IDENTITY_FILE
from service.persistence.committer import Committer
from service.persistence.contract import JournalError
from service.protocol.primitives import Random
from service.settings import Settings

__all__ = ["KeyReload"]

_log = logging.getLogger(__name__)


class KeyReload:
    """Reads the keys of one service anew."""

    def __init__(
        self, settings: Settings, committer: Committer, random: Random, *, seals_identity: bool
    ) -> None:
        """Take note of where the keys come from and who uses them.

        Args:
            settings: say where the keys come from.
            committer: of the journal that they seal.
            random: source of nonces.
            seals_identity: whether to seal the identity anew, which one process does for all.
        """
        self._settings = settings
        self._seals_identity = seals_identity
        self._committer = committer
        self._random = random
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin, unless it is under way."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        settings = self._settings
        try:
            keys = await asyncio.to_thread(
                lambda: settings.key_source.load(self._random, may_make=False)
            )
            await self._committer.perform(lambda journal: journal.use_keys(keys))
            if self._seals_identity:
                await asyncio.to_thread(
                    load_identity, settings.data_dir / IDENTITY_FILE, keys, self._random
                )
        except (KeyFileError, JournalError) as error:
            _log.error("the sealing keys were not changed: %s", error)
        else:
            _log.info("sealing under master key %s from now on", keys.sealing.id.hex())
