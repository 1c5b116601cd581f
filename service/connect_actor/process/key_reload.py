"""Rotation of the master keys while the service runs: read anew at SIGHUP.

New records are sealed under the new first key at once; what older keys have sealed is sealed anew
bit by bit (``persistence.sqlite.resealing``). Keys that can't be used change nothing.
"""

import asyncio
import logging

from connect_actor.files import require_rereadable
from connect_actor.keys.sources import KeyFileError, load_identity
from connect_actor.persistence.committer import Committer
from connect_actor.persistence.contract import JournalError
from connect_actor.process.paths import IDENTITY_FILE, key_source
from connect_actor.protocol.primitives import Random
from connect_actor.settings import Settings

__all__ = ["KEY_RETRY", "KeyReload"]

KEY_RETRY = 30.0
"""Seconds until keys that could not be used are read again: a command may ask a secret store."""

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

    async def reload(self) -> bool:
        """Read the keys and seal under the first one from now on; return True.

        Raises:
            AccessFileError: they can't be used; the old ones stay.
        """
        settings = self._settings
        if settings.sealing_key_file is not None:
            require_rereadable(settings.sealing_key_file)
        keys = await key_source(settings).read(self._random, may_make=False)
        try:
            await self._committer.perform(lambda journal: journal.use_keys(keys))
        except JournalError as error:
            raise KeyFileError(f"the sealing keys were not changed: {error}") from error
        if self._seals_identity:
            await asyncio.to_thread(
                load_identity, settings.data_dir / IDENTITY_FILE, keys, self._random
            )
        _log.info("sealing under master key %s from now on", keys.sealing.id.hex())
        return True
