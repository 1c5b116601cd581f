"""What every journal must do: Akka's persistence TCK, ported as far as it applies, and its gaps.

A backend subclasses ``JournalConformance`` and says how to open one. Every check runs twice: as it
is, and with upkeep forced between all steps, which must change nothing that anyone can see.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import cast

import pytest

from connect_actor.persistence.contract import (
    MAX_SEQUENCE_NUMBER,
    Batch,
    CorruptRecordError,
    Journal,
    Record,
    RecordKind,
    Snapshot,
)

CHANNEL = 11
OTHER = 12
ABSENT = 99


def change(number: int, channel: int = CHANNEL) -> Record:
    return Record(channel, number, RecordKind.CHANGE, f"a-{number}".encode())


def closed(number: int, channel: int = CHANNEL) -> Record:
    return Record(channel, number, RecordKind.CLOSED, b"")


def snapshot(number: int, taken_at: int | None = None, channel: int = CHANNEL) -> Snapshot:
    return Snapshot(channel, number, taken_at or 1_000 + number, f"s-{number}".encode())


def numbers(records: Sequence[Record]) -> list[int]:
    return [record.sequence_number for record in records]


class JournalConformance(ABC):
    """Subclass with a way to open a journal; ``durable`` ones are also closed and reopened."""

    durable = False

    @abstractmethod
    def open(self) -> Journal:
        """Open the journal of this test; again, with what the last opening left."""

    @pytest.fixture(params=[False, True], ids=["", "upkeep"])
    def between(self, request: pytest.FixtureRequest) -> bool:
        """Whether upkeep runs between all steps."""
        return bool(request.param)

    @pytest.fixture
    def journal(self, between: bool) -> Iterator[Journal]:  # noqa: FBT001 - a fixture
        journal = self.open()
        yield cast(Journal, _WithUpkeep(journal)) if between else journal
        journal.close()

    @pytest.fixture
    def five(self, journal: Journal) -> Journal:
        """Hold a-1 to a-5, the last two written as one."""
        for number in (1, 2, 3):
            assert journal.commit(Batch([change(number)])) == []
        assert journal.commit(Batch([change(4), change(5)])) == []
        return journal

    @pytest.fixture
    def fifteen(self, journal: Journal) -> Journal:
        """Hold fifteen records, and snapshots s-11 to s-15."""
        journal.commit(Batch([change(number) for number in range(1, 16)]))
        for number in range(11, 16):
            journal.commit(Batch(snapshots=[snapshot(number)]))
        return journal

    def reopened(self, journal: Journal) -> Journal:
        if not self.durable:
            return journal
        journal.close()
        return self.open()

    # --- J1 to J18 --------------------------------------------------------------------------------

    def test_j1_reads_what_was_written_in_order(self, five: Journal) -> None:
        recovery = five.recover(CHANNEL)
        assert list(recovery.records) == [change(number) for number in range(1, 6)]
        assert recovery.highest_sequence_number == five.highest_sequence_number(CHANNEL) == 5

    def test_j11_an_unknown_channel_has_nothing(self, five: Journal) -> None:
        assert five.highest_sequence_number(ABSENT) == 0
        recovery = five.recover(ABSENT)
        assert (recovery.snapshot, list(recovery.records)) == (None, [])
        assert recovery.highest_sequence_number == 0

    @pytest.mark.parametrize("reopen", [False, True])
    def test_j12_j13_a_snapshot_takes_the_place_of_the_records_up_to_it(
        self,
        five: Journal,
        reopen: bool,  # noqa: FBT001 - a test's parameter
    ) -> None:
        five.commit(Batch(snapshots=[snapshot(3)]))
        journal = self.reopened(five) if reopen else five
        assert numbers(journal.recover(CHANNEL).records) == [4, 5]
        assert journal.highest_sequence_number(CHANNEL) == 5

    @pytest.mark.parametrize("reopen", [False, True])
    def test_j14_a_snapshot_of_everything_keeps_the_highest(
        self,
        five: Journal,
        reopen: bool,  # noqa: FBT001 - a test's parameter
    ) -> None:
        five.commit(Batch(snapshots=[snapshot(5)]))
        journal = self.reopened(five) if reopen else five
        assert numbers(journal.recover(CHANNEL).records) == []
        assert journal.highest_sequence_number(CHANNEL) == 5
        assert journal.commit(Batch([change(5)])) != []
        assert journal.commit(Batch([change(6)])) == []
        assert numbers(self.reopened(journal).recover(CHANNEL).records) == [6]

    # --- S1 to S13 --------------------------------------------------------------------------------

    def test_s1_an_unknown_channel_has_no_snapshot(self, fifteen: Journal) -> None:
        assert fifteen.recover(ABSENT).snapshot is None

    @pytest.mark.parametrize("reopen", [False, True])
    def test_s4_s9_the_newest_snapshot_replaces_every_earlier_one(
        self,
        fifteen: Journal,
        reopen: bool,  # noqa: FBT001 - a test's parameter
    ) -> None:
        assert fifteen.statistics().snapshots_deleted == 4
        journal = self.reopened(fifteen) if reopen else fifteen
        assert journal.recover(CHANNEL).snapshot == snapshot(15)

    @pytest.mark.parametrize("reopen", [False, True])
    def test_an_older_snapshot_replaces_nothing_and_is_no_rejection(
        self,
        fifteen: Journal,
        reopen: bool,  # noqa: FBT001 - a test's parameter
    ) -> None:
        assert fifteen.commit(Batch(snapshots=[snapshot(14, 9_000)])) == []
        assert fifteen.commit(Batch([change(16)], [snapshot(16), snapshot(12)])) == []
        journal = self.reopened(fifteen) if reopen else fifteen
        assert journal.recover(CHANNEL).snapshot == snapshot(16)
        assert numbers(journal.recover(CHANNEL).records) == []

    def test_s10_saving_the_same_number_again_overwrites(self, fifteen: Journal) -> None:
        again = Snapshot(CHANNEL, 15, 2_000, b"again")
        fifteen.commit(Batch(snapshots=[again]))
        assert fifteen.recover(CHANNEL).snapshot == again

    def test_s11_a_large_snapshot_comes_back_whole(self, five: Journal) -> None:
        large = Snapshot(CHANNEL, 5, 1, bytes(range(256)) * 400)
        five.commit(Batch(snapshots=[large]))
        assert self.reopened(five).recover(CHANNEL).snapshot == large

    # --- The TCK's gaps ----------

    @pytest.mark.parametrize("number", [0, 1, 4, 5, 7, 100, MAX_SEQUENCE_NUMBER])
    def test_a_number_that_does_not_follow_is_rejected_and_nothing_else(
        self, five: Journal, number: int
    ) -> None:
        batch = Batch([change(1, OTHER), change(number), change(2, OTHER)])
        rejections = five.commit(batch)
        assert [rejection.entry for rejection in rejections] == [change(number)]
        assert numbers(five.recover(CHANNEL).records) == [1, 2, 3, 4, 5]
        assert numbers(five.recover(OTHER).records) == [1, 2]

    def test_a_rejected_record_takes_the_channels_later_ones_and_its_snapshot_with_it(
        self, five: Journal
    ) -> None:
        batch = Batch([change(7), change(6), change(7)], [snapshot(5), snapshot(7)])
        assert [rejection.entry for rejection in five.commit(batch)] == [
            *batch.records,
            *batch.snapshots,
        ]
        assert five.highest_sequence_number(CHANNEL) == 5
        assert five.recover(CHANNEL).snapshot is None

    def test_a_snapshot_newer_than_the_records_is_left_out(self, five: Journal) -> None:
        rejections = five.commit(Batch(snapshots=[snapshot(6)]))
        assert [(r.entry, r.highest) for r in rejections] == [(snapshot(6), 5)]
        assert five.recover(CHANNEL).snapshot is None

    def test_a_snapshot_beside_its_own_record_is_kept(self, five: Journal) -> None:
        five.commit(Batch([change(6)], [snapshot(6)]))
        assert five.recover(CHANNEL).snapshot == snapshot(6)

    def test_a_snapshot_of_a_channel_that_ends_beside_it_is_no_rejection(
        self, five: Journal
    ) -> None:
        end = Record(CHANNEL, 7, RecordKind.CLOSED, b"")
        assert five.commit(Batch([change(6), end], [snapshot(6)])) == []
        assert five.recover(CHANNEL).snapshot is None
        assert five.highest_sequence_number(CHANNEL) == 0

    def test_recovery_is_the_newest_snapshot_and_what_follows(self, five: Journal) -> None:
        five.commit(Batch(snapshots=[snapshot(2)]))
        five.commit(Batch(snapshots=[snapshot(4)]))
        recovery = self.reopened(five).recover(CHANNEL)
        assert recovery.snapshot == snapshot(4)
        assert numbers(recovery.records) == [5]
        assert recovery.highest_sequence_number == 5

    def test_recovery_works_when_a_snapshot_is_all_there_is(self, fifteen: Journal) -> None:
        fifteen.forget(CHANNEL)
        journal = self.reopened(fifteen)
        recovery = journal.recover(CHANNEL)
        assert recovery.snapshot == snapshot(15)
        assert list(recovery.records) == []
        assert journal.commit(Batch([change(16)])) == []
        assert numbers(self.reopened(journal).recover(CHANNEL).records) == [16]

    def test_many_channels_share_a_batch(self, journal: Journal) -> None:
        records = [change(number, channel) for number in (1, 2, 3) for channel in range(1, 200)]
        assert journal.commit(Batch(records)) == []
        reopened = self.reopened(journal)
        for channel in range(1, 200):
            assert list(reopened.recover(channel).records) == [
                change(number, channel) for number in (1, 2, 3)
            ]

    def test_what_is_forgotten_is_still_there(self, five: Journal) -> None:
        five.forget(CHANNEL)
        five.forget(ABSENT)
        assert numbers(five.recover(CHANNEL).records) == [1, 2, 3, 4, 5]
        assert five.commit(Batch([change(6)])) == []

    @pytest.mark.parametrize("reopen", [False, True])
    def test_closing_a_channel_erases_all_of_it(
        self,
        fifteen: Journal,
        reopen: bool,  # noqa: FBT001 - a test's parameter
    ) -> None:
        fifteen.commit(Batch([change(1, OTHER)]))
        assert fifteen.commit(Batch([closed(16)])) == []
        journal = self.reopened(fifteen) if reopen else fifteen
        assert list(journal.recover(CHANNEL).records) == []
        assert journal.recover(CHANNEL).snapshot is None
        assert journal.highest_sequence_number(CHANNEL) == 0
        assert numbers(journal.recover(OTHER).records) == [1]

    def test_a_closed_channels_id_may_be_used_again(self, five: Journal) -> None:
        five.commit(Batch([closed(6), change(1), change(2)]))
        journal = self.reopened(five)
        assert numbers(journal.recover(CHANNEL).records) == [1, 2]
        assert journal.highest_sequence_number(CHANNEL) == 2

    def test_a_closing_out_of_turn_is_rejected(self, five: Journal) -> None:
        assert len(five.commit(Batch([closed(8)]))) == 1
        assert numbers(five.recover(CHANNEL).records) == [1, 2, 3, 4, 5]

    @pytest.fixture
    def seven_saved(self, journal: Journal) -> Journal:
        """Hold seven channels with a snapshot, and one without."""
        journal.commit(Batch([change(1, ABSENT)]))
        for channel in (2**63 - 1, 70, 0, 3, 2**40, 69, 7):
            saved = snapshot(1, 1_000 + channel % 1_000, channel)
            assert journal.commit(Batch([change(1, channel)], [saved])) == []
        return journal

    @pytest.mark.parametrize(
        ("after", "limit", "expected"),
        [
            (-1, 100, [0, 3, 7, 69, 70, 2**40, 2**63 - 1]),
            (-1, 3, [0, 3, 7]),
            (0, 2, [3, 7]),
            (7, 3, [69, 70, 2**40]),
            (8, 1, [69]),
            (2**40, 2, [2**63 - 1]),
            (2**63 - 1, 5, []),
            (-1, 0, []),
        ],
    )
    @pytest.mark.parametrize("reopen", [False, True])
    def test_channels_are_listed_in_order_and_in_parts(
        self,
        seven_saved: Journal,
        after: int,
        limit: int,
        expected: list[int],
        reopen: bool,  # noqa: FBT001 - a test's parameter
    ) -> None:
        journal = self.reopened(seven_saved) if reopen else seven_saved
        assert journal.channels(after, limit) == expected
        assert [journal.saved_at(channel) for channel in expected] == [
            1_000 + channel % 1_000 for channel in expected
        ]

    def test_channels_that_ended_are_not_listed(self, seven_saved: Journal) -> None:
        seven_saved.commit(Batch([closed(2, 3), closed(2, 2**40)]))
        seven_saved.commit(Batch([change(1, 3)]))
        assert seven_saved.channels(-1, 100) == [0, 7, 69, 70, 2**63 - 1]
        assert [seven_saved.saved_at(channel) for channel in (3, ABSENT, CHANNEL)] == [0] * 3

    def test_the_newest_save_of_all_is_known(self, journal: Journal) -> None:
        assert journal.newest_save() == 0
        journal.commit(Batch([change(1)], [snapshot(1, 700)]))
        journal.commit(Batch([change(1, OTHER)], [snapshot(1, 900, OTHER)]))
        journal.commit(Batch([change(2)], [snapshot(2, 800)]))
        assert journal.newest_save() == 900

    def test_the_newest_snapshot_says_when_a_channel_was_saved(self, fifteen: Journal) -> None:
        assert fifteen.channels(-1, 100) == [CHANNEL]
        assert fifteen.saved_at(CHANNEL) == 1_015
        fifteen.commit(Batch(snapshots=[snapshot(15, 500)]))
        assert fifteen.saved_at(CHANNEL) == 500

    def test_figures_count_what_was_done(self, five: Journal) -> None:
        before = five.statistics()
        five.commit(Batch([change(6), change(9)], []))
        five.commit(Batch([change(7)], [snapshot(7)]))
        after = five.statistics()
        assert after.records - before.records == 2
        assert after.record_bytes - before.record_bytes == 6
        assert after.snapshots - before.snapshots == 1
        assert after.snapshot_bytes - before.snapshot_bytes == 3
        assert after.commits - before.commits == 2

    def test_an_empty_batch_is_harmless(self, five: Journal) -> None:
        assert five.commit(Batch()) == []
        assert numbers(five.recover(CHANNEL).records) == [1, 2, 3, 4, 5]


class DurableJournalConformance(JournalConformance):
    """For journals that survive being closed."""

    durable = True

    @abstractmethod
    def damage_record(self, channel: int, number: int, payload: bytes | None) -> None:
        """Overwrite a stored record's payload behind the closed journal's back; None removes it."""

    def test_everything_is_there_after_reopening(self, five: Journal) -> None:
        journal = self.reopened(five)
        assert list(journal.recover(CHANNEL).records) == [change(number) for number in range(1, 6)]
        assert journal.commit(Batch([change(6)])) == []
        assert numbers(self.reopened(journal).recover(CHANNEL).records) == [1, 2, 3, 4, 5, 6]

    @pytest.mark.parametrize("payload", [b"", b"short", bytes(100), None])
    def test_a_damaged_or_missing_record_is_noticed_and_the_others_are_served(
        self, five: Journal, payload: bytes | None
    ) -> None:
        five.commit(Batch([change(1, OTHER)]))
        five.close()
        self.damage_record(CHANNEL, 3, payload)
        journal = self.open()
        with pytest.raises(CorruptRecordError, match=str(CHANNEL)):
            journal.recover(CHANNEL)
        assert numbers(journal.recover(OTHER).records) == [1]
        journal.close()

    def test_a_channel_that_is_known_to_be_damaged_has_no_time_and_holds_no_other_up(
        self, five: Journal
    ) -> None:
        five.commit(Batch([change(1, OTHER)], [snapshot(1), snapshot(1, channel=OTHER)]))
        five.close()
        self.damage_record(CHANNEL, 3, None)
        journal = self.open()
        with pytest.raises(CorruptRecordError, match=str(CHANNEL)):
            journal.saved_at(CHANNEL)
        assert journal.saved_at(OTHER) == 1_001
        assert OTHER in journal.channels(-1, 100)
        journal.close()


class _WithUpkeep:
    """A journal that does all the upkeep it can before and after every call."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> object:
        method = getattr(self._journal, name)
        if name == "close":
            return method

        def call(*arguments: object, **named: object) -> object:
            while self._journal.upkeep():
                pass
            answer = method(*arguments, **named)
            while self._journal.upkeep():
                pass
            return answer

        return call
