"""What goes on in one life of the service: first the proof of every channel, and load all along.

A proof asks a channel where it stands, sends again what is undecided and what was acknowledged, and
carries a message each way. Channels are proved all at once and take load as soon as they are:
Encrypt, Decrypt (in and out of order), Restore, Close, and Establish for those that were closed.
"""

import asyncio
import os
from collections.abc import Iterator
from random import Random

from connect_actor.client import ConnectClient, Identity, Initiation
from connect_loadgen.crash.account import Account, Message, Standing
from connect_loadgen.crash.faults import FaultKind
from connect_loadgen.crash.ledger import Ledger
from connect_loadgen.crash.lines import Lines, WayName
from connect_loadgen.crash.rules import Rule, Verdict

__all__ = ["PeerSide", "Traffic"]

_WAYS: tuple[WayName, WayName] = ("stream", "unary")

# Shares of the load; the rest is half Encrypt, half Decrypt.
_CLOSE = 0.01
_RESTORE = 0.04
# Of the peers' messages, those held back, and how many later ones of the channel overtake them.
_HELD_BACK = 0.1
_MOST_OVERTAKING = 6
# The higher, the more channels are quiet for longer, and passivate.
_SKEW = 3
# In a proof: share of the channels whose handshake is repeated, and how many of the channels that
# were closed, and asked for since, are asked for once more.
_HANDSHAKES_REPEATED = 0.25
_CLOSED_ASKED_AGAIN = 20
_LONGEST_PADDING = 600
_ONE_TIME_PREKEYS = 3
# Before a proof that was refused for overload begins again, and before another channel is tried
# when one has run ahead of what is in flight, seconds.
_PAUSE = 0.05
_MOMENT = 0.002


class PeerSide:
    """The peers' side, over all lives of the service: who makes channels, and what is said."""

    def __init__(self, client: ConnectClient, random: Random, channels: int) -> None:
        self.client = client
        self.random = random
        self.channels = channels
        """How many there are to be."""
        self.known_closed: dict[int, Account] = {}
        """Closed channels that were asked for after a restart."""
        self._identity = Identity.generate(os.urandom)
        self._texts = 0

    def begin(self) -> Initiation:
        """Begin a handshake."""
        return self.client.begin(self._identity, _ONE_TIME_PREKEYS)

    def text(self) -> bytes:
        """Return a plaintext that no other message has."""
        self._texts += 1
        return b"message %d " % self._texts + b"." * self.random.randrange(_LONGEST_PADDING)


class Traffic:
    """All operations of one life."""

    def __init__(self, ledger: Ledger, lines: Lines, peers: PeerSide, patience: float) -> None:
        """Prepare; a channel that is refused for overload for ``patience`` seconds is a fault."""
        self.all_proved = False
        """Whether every channel has been proved."""
        self.proof_ended = asyncio.Event()
        """Set once the proof of all channels is over, for good or not."""
        self._ledger = ledger
        self._lines = lines
        self._peers = peers
        self._patience = patience
        self._random = peers.random
        self._open = ledger.channels(Standing.OPEN)
        # Channels that there are, or soon will be.
        self._places = len(self._open) + len(ledger.unanswered_handshakes)
        self._pool: list[Account] = []
        self._pool_filled = asyncio.Event()

    async def run(self, in_flight: int) -> None:
        """Prove all channels and keep so many operations in flight, until the service is gone."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(in_flight):
                tasks.create_task(self._work())
            await self.prove()

    async def prove(self, *, with_held: bool = False) -> None:
        """Prove all channels, at once; ``with_held``: with every message that was held back."""
        ledger = self._ledger
        steps = [self._prove(account, with_held=with_held) for account in self._open]
        steps += [self._close(account) for account in ledger.channels(Standing.CLOSING)]
        steps += [self._establish(initiation) for initiation in ledger.unanswered_handshakes]
        steps += [self._ask_for_closed(account) for account in self._closed_to_ask_for()]
        done = await asyncio.gather(*steps)
        # Even if none was proved: nobody needs to wait any more.
        self._pool_filled.set()
        self.all_proved = all(done)
        self.proof_ended.set()

    # --- Proof ------------------------------------------------------------------------------------

    async def _prove(self, account: Account, *, with_held: bool) -> bool:
        now = asyncio.get_running_loop().time
        ends_at = now() + self._patience
        while (verdict := await self._carry_out(account, with_held=with_held)) is Verdict.NOT_DONE:
            if now() >= ends_at:
                self._ledger.fault(
                    FaultKind.HUNG, f"a channel was refused for overload for {self._patience:g} s"
                )
                return False
            await asyncio.sleep(_PAUSE)
        if verdict is Verdict.UNKNOWN:
            return False
        if self._ledger.is_sound(account):
            self._pool.append(account)
            self._pool_filled.set()
        else:
            # A new one takes its place.
            self._places -= 1
        return True

    async def _carry_out(self, account: Account, *, with_held: bool) -> Verdict:
        """Take all steps of a proof; ``NOT_DONE`` if one was refused for overload."""
        for rule in self._proof(account, with_held=with_held):
            verdict = await self._ask(rule)
            overloaded = verdict is Verdict.NOT_DONE and self._ledger.is_sound(account)
            if overloaded or verdict is Verdict.UNKNOWN:
                return verdict
        return Verdict.DONE

    def _proof(self, account: Account, *, with_held: bool) -> Iterator[Rule]:
        ledger, peers = self._ledger, self._peers
        yield ledger.restore(account)
        if self._random.random() < _HANDSHAKES_REPEATED:
            yield ledger.establish_again(account)
        undecided = list(account.undecided.values())
        self._random.shuffle(undecided)
        acknowledged = list(account.decrypted)
        for message in undecided:
            yield ledger.decrypt(account, message)
        # The last one has most likely been told just before the kill.
        again = acknowledged[-1:] + self._random.sample(acknowledged[:-1], len(acknowledged) > 1)
        for message in again:
            yield ledger.decrypt(account, message)
        # Once each: one that is refused is held back again.
        for _ in range(len(account.held)):
            held = account.take_held(even_if_early=with_held)
            if held is not None:
                yield ledger.decrypt(account, held)
        yield ledger.encrypt(account, peers.text())
        yield ledger.decrypt(account, ledger.seal(account, peers.text()))

    def _closed_to_ask_for(self) -> list[Account]:
        known = self._peers.known_closed
        again = self._random.sample(list(known.values()), min(len(known), _CLOSED_ASKED_AGAIN))
        closed = self._ledger.channels(Standing.CLOSED)
        return again + [account for account in closed if account.connect_id not in known]

    async def _ask_for_closed(self, account: Account) -> bool:
        if await self._ask(self._ledger.restore(account)) is Verdict.UNKNOWN:
            return False
        self._peers.known_closed[account.connect_id] = account
        return True

    # --- Load -------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._lines.broken:
            if self._places < self._peers.channels:
                self._places += 1
                answered = await self._establish(self._peers.begin())
            elif not self._pool:
                if self._pool_filled.is_set():
                    return
                await self._pool_filled.wait()
                continue
            else:
                answered = await self._use(self._pick())
            if not answered:
                return

    def _pick(self) -> Account:
        return self._pool[int(len(self._pool) * self._random.random() ** _SKEW)]

    async def _use(self, account: Account) -> bool:
        ledger = self._ledger
        drawn = self._random.random()
        if not ledger.is_sound(account):
            # Found out under load; a new one takes its place.
            self._leave(account)
            return True
        if account.runs_ahead:
            await asyncio.sleep(_MOMENT)
            return True
        if drawn < _CLOSE:
            self._leave(account)
            return await self._close(account)
        rule: Rule
        if drawn < _CLOSE + _RESTORE:
            rule = ledger.restore(account)
        elif self._random.getrandbits(1):
            rule = ledger.encrypt(account, self._peers.text())
        else:
            rule = ledger.decrypt(account, self._next_message(account))
        return await self._ask(rule) is not Verdict.UNKNOWN

    def _next_message(self, account: Account) -> Message:
        held = account.take_held()
        if held is not None:
            return held
        if self._random.random() < _HELD_BACK:
            early = self._ledger.seal(account, self._peers.text())
            account.hold(early, self._random.randint(1, _MOST_OVERTAKING))
        return self._ledger.seal(account, self._peers.text())

    def _leave(self, account: Account) -> None:
        if account in self._pool:
            self._pool.remove(account)
            self._places -= 1

    # --- Single operations ------------------------------------------------------------------------

    async def _close(self, account: Account) -> bool:
        return await self._ask(self._ledger.close(account)) is not Verdict.UNKNOWN

    async def _establish(self, initiation: Initiation) -> bool:
        rule = self._ledger.establish(initiation, self._peers.client)
        verdict = await self._ask(rule)
        if rule.channel is not None:
            self._pool.append(rule.channel)
            self._pool_filled.set()
        return verdict is not Verdict.UNKNOWN

    async def _ask(self, rule: Rule) -> Verdict:
        return await self._lines.ask(rule, self._random.choice(_WAYS))
