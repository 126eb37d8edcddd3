"""The log of a VHDX, built by hand: what is replayed, what is not, and what is refused."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from imprint import formats
from imprint.core.errors import CorruptImageError, ImagingError, TruncatedImageError
from imprint.core.events import Severity
from imprint.core.formats import Checkable
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20
BAT = 3 * MIB
GUID = uuid.UUID(int=0x1234)
OTHER = uuid.UUID(int=0x5678)
VHDX = formats.get("vhdx")
ONE, TWO = b"\x01" * MIB, b"\x02" * MIB


def table(*entries: int) -> bytes:
    """A page of the BAT."""
    return struct.pack(f"<{len(entries)}Q", *entries).ljust(4096, b"\0")


def place(mib: int) -> int:
    """The entry of a block at that MiB."""
    return mib << 20 | 6


def first_bytes(content: bytes) -> list[int]:
    """The first byte of each block."""
    with VHDX.open(MemoryStorage(content), DictOpener()) as image:
        return [image.read_at(at, 1)[0] for at in range(0, image.size, MIB)]


def test_the_log_is_replayed_in_memory(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if stale tables are read, or a file that is only read is written to."""
    entry = log_entry(GUID, 9, 0, [(BAT, table(place(5), place(4)))], last=6 * MIB)
    content = maker(2 * MIB, [place(4), 0], [ONE, TWO], log_guid=GUID, log=entry.build()).build()
    storage = MemoryStorage(content, writable=False)
    with VHDX.open(storage, DictOpener()) as image:
        assert image.read_at(0, 1) + image.read_at(MIB, 1) == b"\x02\x01"
        assert any("replayed" in note for note in image.info().notes)
        extents = list(image.extents(0, image.size))
        assert [(each.offset, each.storage_offset) for each in extents] == [
            (0, 5 * MIB),
            (MIB, 4 * MIB),
        ]
    assert storage.content == content


def test_all_of_a_sequence_is_replayed_in_order(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if only the head counts, or an older entry wins over a newer one."""
    first = log_entry(GUID, 9, 0, [(BAT, table(place(5), 0)), (3 * MIB + 4096, b"\x55" * 4096)])
    second = log_entry(GUID, 10, 0, [(BAT, table(place(4), place(5)))])
    log = first.build() + second.build()
    assert first_bytes(maker(2 * MIB, [0, 0], [ONE, TWO], log_guid=GUID, log=log).build()) == [1, 2]


def test_entries_before_the_tail_are_not_replayed(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if what was applied long ago comes back."""
    first = log_entry(GUID, 9, 0, [(BAT, table(place(5), place(5)))])
    second = log_entry(GUID, 10, 8192, [(BAT + 4096, bytes(4096))])
    log = first.build() + second.build()
    content = maker(2 * MIB, [place(4), 0], [ONE, TWO], log_guid=GUID, log=log).build()
    assert first_bytes(content) == [1, 0]


def test_the_newest_whole_sequence_counts(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if a higher number, whose tail is gone, or another GUID, is believed."""
    lost = log_entry(GUID, 30, 500 * 1024, [(BAT, table(place(5), place(5)))])
    foreign = log_entry(OTHER, 40, 16384, [(BAT, table(place(5), place(5)))])
    good = log_entry(GUID, 12, 8192 * 2, [(BAT, table(place(4), 0))])
    log = lost.build() + foreign.build() + good.build()
    content = maker(2 * MIB, [0, 0], [ONE, TWO], log_guid=GUID, log=log).build()
    assert first_bytes(content) == [1, 0]


def test_a_sequence_may_wrap_around(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if an entry that goes on at the log's start is taken for a torn one."""
    first = log_entry(GUID, 9, MIB - 4096, [(BAT, table(place(5), 0))]).build()
    second = log_entry(GUID, 10, MIB - 4096, [(BAT, table(place(5), place(4)))]).build()
    log = (first[4096:] + second).ljust(MIB - 4096, b"\0") + first[:4096]
    content = maker(2 * MIB, [0, 0], [ONE, TWO], log_guid=GUID, log=log).build()
    assert first_bytes(content) == [2, 1]


def test_zero_descriptors_zero(maker: Callable[..., Any], log_entry: Callable[..., Any]) -> None:
    """Fails if a run of zeros is forgotten, or hides what a later entry writes there."""
    first = log_entry(GUID, 9, 0, zeros=[(BAT, 8192)])
    second = log_entry(GUID, 10, 0, [(BAT, table(0, place(5)))])
    entries = [place(4), place(5)]
    for log, expected in (
        (first.build(), [0, 0]),
        (first.build() + second.build(), [0, 2]),
    ):
        content = maker(2 * MIB, entries, [ONE, TWO], log_guid=GUID, log=log).build()
        assert first_bytes(content) == expected


def test_the_file_grows_to_what_the_log_says(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if a block that the log places behind the end of the file is an error."""
    entry = log_entry(GUID, 9, 0, [(BAT, table(place(4), place(5)))], last=6 * MIB)
    content = maker(2 * MIB, [0, 0], [ONE], log_guid=GUID, log=entry.build()).build()
    assert first_bytes(content) == [1, 0]
    storage = MemoryStorage(content)
    VHDX.edit(storage, DictOpener()).commit()
    assert storage.size == 6 * MIB


def test_opening_for_writing_replays_on_the_file(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if the file stays dirty, or the tables stay old."""
    entry = log_entry(GUID, 9, 0, [(BAT, table(place(5), place(4)))])
    content = maker(2 * MIB, [0, 0], [ONE, TWO], log_guid=GUID, log=entry.build()).build()
    storage = MemoryStorage(content)
    assert isinstance(VHDX, Checkable)
    found = list(VHDX.check(storage, DictOpener(), repair=False))
    assert [each.severity for each in found] == [Severity.WARNING]
    assert storage.content == content
    image = VHDX.edit(storage, DictOpener())
    image.commit()
    assert storage.content[BAT : BAT + 16] == struct.pack("<QQ", place(5), place(4))
    assert first_bytes(bytes(storage.content)) == [2, 1]
    assert list(VHDX.check(storage, DictOpener(), repair=False)) == []


def test_a_check_with_repair_replays_too(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if the only way to clean a file would be to write to its disk."""
    entry = log_entry(GUID, 9, 0, [(BAT, table(place(5), place(4)))])
    made = maker(2 * MIB, [0, 0], [ONE, TWO], log_guid=GUID, log=entry.build())
    storage = MemoryStorage(made.build())
    assert isinstance(VHDX, Checkable)
    assert [each.repaired for each in VHDX.check(storage, DictOpener(), repair=True)] == [True]
    assert list(VHDX.check(storage, DictOpener(), repair=False)) == []
    assert first_bytes(bytes(storage.content)) == [2, 1]


def test_a_file_shorter_than_its_log_knew_is_refused(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if the head's FlushedFileOffset is not looked at: the file was cut off."""
    first = log_entry(GUID, 9, 0, [(BAT, table(place(4), 0))])
    second = log_entry(GUID, 10, 0, [(BAT, table(place(4), 0))], flushed=7 * MIB)
    made = maker(2 * MIB, [0, 0], [ONE], log_guid=GUID, log=first.build() + second.build())
    with pytest.raises(TruncatedImageError, match="log"):
        VHDX.open(MemoryStorage(made.build()), DictOpener())


@pytest.mark.parametrize("damage", ["checksum", "sector", "tail", "sequence"])
def test_a_log_without_a_whole_sequence_is_refused(
    maker: Callable[..., Any], log_entry: Callable[..., Any], damage: str
) -> None:
    """Fails if stale content is read without a word, or a torn entry is applied."""
    torn = 8 if damage == "sector" else None
    entry = log_entry(
        GUID,
        0 if damage == "sequence" else 9,
        4096 if damage == "tail" else 0,
        [(BAT, table(place(4), 0))],
        sector_sequence=torn,
    )
    log = bytearray(entry.build())
    if damage == "checksum":
        log[5000] ^= 1
    content = maker(2 * MIB, [0, 0], [ONE], log_guid=GUID, log=bytes(log)).build()
    for act in (VHDX.open, VHDX.edit):
        with pytest.raises(CorruptImageError, match="log"):
            act(MemoryStorage(content), DictOpener())


def test_a_log_guid_without_entries_is_nothing_to_replay(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if a file whose writer was killed before its first entry cannot be opened."""
    old = log_entry(OTHER, 9, 0, [(BAT, table(place(5), place(5)))])
    content = maker(2 * MIB, [place(4), 0], [ONE, TWO], log_guid=GUID, log=old.build()).build()
    assert first_bytes(content) == [1, 0]


@pytest.mark.parametrize("length", [1 << 40, 1 << 63, 5000])
def test_absurd_zero_runs_are_refused(
    maker: Callable[..., Any], log_entry: Callable[..., Any], length: int
) -> None:
    """Fails if a descriptor of 32 bytes makes us fill memory."""
    entry = log_entry(GUID, 9, 0, zeros=[(BAT, length)])
    content = maker(2 * MIB, [0, 0], [ONE], log_guid=GUID, log=entry.build()).build()
    with pytest.raises(ImagingError):
        VHDX.open(MemoryStorage(content), DictOpener())


def test_the_log_may_not_change_the_headers(
    maker: Callable[..., Any], log_entry: Callable[..., Any]
) -> None:
    """Fails if a replay on the file can overwrite the header that says it is needed."""
    entry = log_entry(GUID, 9, 0, [(64 << 10, bytes(4096)), (128 << 10, bytes(4096))])
    storage = MemoryStorage(maker(2 * MIB, [0, 0], [ONE], log_guid=GUID, log=entry.build()).build())
    before = bytes(storage.content)
    with pytest.raises(CorruptImageError):
        VHDX.edit(storage, DictOpener())
    assert storage.content == before
