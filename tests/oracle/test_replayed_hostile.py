"""Journals that are damaged on purpose: files, or one error, and never anything else."""

from __future__ import annotations

import contextlib
import random
import struct
from typing import TYPE_CHECKING, Final

import pytest

from imprint.codecs.crc32c import crc32c
from imprint.core.errors import (
    FormatError,
    ImagingError,
    UnsupportedFeatureError,
)
from imprint.core.units import MIB
from imprint.endpoints.browsing import BrowsedVolume, opened_tree
from imprint.filesystems import identify
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.ext.geometry import read_geometry
from imprint.filesystems.ext.ring import Ring
from imprint.filesystems.journals import replayed
from imprint.filesystems.walking import walk
from imprint.filesystems.xfs.geometry import Reader
from imprint.filesystems.xfs.geometry import read_geometry as read_xfs_geometry
from imprint.filesystems.xfs.log import Log
from imprint.storage.memory import MemoryStorage
from imprint.testing import xfs_volume
from imprint.testing.ext_volume import LOG_MAGIC, crash, make
from imprint.testing.ntfs_volume import Editor, restart_page, small_volume
from imprint.testing.oracles import run
from imprint.testing.unsettled import of_volume, prepare
from imprint.testing.volumes import mounted, shut_down

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SECTOR: Final = 512
RECORD: Final = bytes.fromhex("feedbabe")
HEADER_BYTES: Final = 328
READ_BYTES: Final = 64 << 10
RECORD_BYTES: Final = 64 * SECTOR
INODE_ITEM: Final = struct.pack("<H", 0x123B)
BUFFER_ITEM: Final = struct.pack("<H", 0x123C)


@pytest.fixture(scope="module")
def ext(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One whose journal has no checksums."""
    pytest.importorskip("pytsk3")
    path = make(
        tmp_path_factory.mktemp("ext") / "disk",
        "-t ext4 -b 1024 -O ^metadata_csum -J size=1",
        size=16 * MIB,
    )
    return crash(path, rounds=9, before=prepare).read_bytes()


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, int, int]:
    """A volume, and where its log begins and ends."""
    path = xfs_volume.make(tmp_path_factory.mktemp("xfs") / "disk", "-l", "size=8m")
    with mounted(path) as folder:
        prepare(folder)
        (folder / "more").mkdir()
        shut_down(folder, flush_log=True)
    start, length = xfs_volume.log_of_xfs_db(path)
    return path.read_bytes(), start, start + length


def look(volume: MemoryStorage) -> None:
    """Files, and the start of each, or one error."""
    found = identify(volume)
    if found is None:
        return
    with contextlib.suppress(ImagingError):
        _, files = opened_tree(BrowsedVolume("", found.kind, None, volume, "disk"), replays=True)
        with contextlib.closing(files):
            for entry in walk(files):
                files.attributes(entry)
                with contextlib.suppress(ImagingError):
                    source = files.content(entry)
                    source.readinto(memoryview(bytearray(min(source.size, READ_BYTES))), 0)


@pytest.mark.root
@pytest.mark.oracle("mke2fs")
def test_copies_that_belong_outside_are_refused(ext: bytes) -> None:
    """Fails if a block is put behind the end of the volume."""
    volume = MemoryStorage(ext)
    ring = Ring(volume, read_geometry(VolumeReader(volume)))
    at = ring.offset(ring.superblock.start)
    assert ext[at : at + 4] == LOG_MAGIC
    content = bytearray(ext)
    content[at + 12 : at + 16] = b"\xff\xff\xff\xf0"
    with pytest.raises(FormatError, match="inside the volume"):
        replayed("ext4", MemoryStorage(bytes(content)))


@pytest.mark.root
@pytest.mark.oracle("mke2fs")
def test_any_journal_of_ext_gives_files_or_one_error(ext: bytes) -> None:
    """Fails if a journal makes us do anything else: its superblock, tags and copies are changed."""
    dice = random.Random(1)
    volume = MemoryStorage(ext)
    ring = Ring(volume, read_geometry(VolumeReader(volume)))
    live = [ring.offset(ring.superblock.start + index) for index in range(40)]
    for _ in range(20):
        content = bytearray(ext)
        for _ in range(dice.choice((1, 3))):
            at = dice.choice((ring.offset(0) + dice.randrange(12, 48), dice.choice(live)))
            at += dice.choice((0, dice.randrange(64)))
            content[at : at + 4] = dice.choice((bytes(4), b"\xff" * 4, dice.randbytes(4)))
        look(MemoryStorage(content))


def sealed(log: bytes | bytearray) -> bytearray:
    """The same, each of its records with the checksum that it has to have."""
    found = bytearray(log)
    at = found.find(RECORD)
    while at >= 0:
        (length,) = struct.unpack_from(">I", found, at + 12)
        (size,) = struct.unpack_from(">I", found, at + 320)
        data = bytes(found[at + SECTOR : at + SECTOR + length])
        if at % SECTOR == 0 and len(data) == length <= RECORD_BYTES and size <= RECORD_BYTES:
            head = bytearray(found[at : at + HEADER_BYTES])
            head[32:36] = bytes(4)
            found[at + 32 : at + 36] = crc32c(data, crc32c(bytes(head))).to_bytes(4, "little")
        at = found.find(RECORD, at + 4)
    return found


def live_part(whole: bytes) -> tuple[int, int]:
    """What of the log has to be replayed, in bytes of it; it does not go round."""
    reader = Reader(MemoryStorage(whole))
    last, head = Log(reader, read_xfs_geometry(reader)).find_last()
    assert last is not None
    return (last.header.tail_lsn & 0xFFFF_FFFF) * SECTOR, head * SECTOR


def items(log: bytes, span: tuple[int, int], mark: bytes) -> list[int]:
    """Where items of a kind begin, but for buffers of inodes: behind the head of an operation."""
    return [
        at
        for at in range(*span, 4)
        if log[at : at + 2] == mark and 1 < log[at + 2] < 8 and log[at + 3] == 0
        if log[at - 4] == 0x69 and (mark == INODE_ITEM or not log[at + 4] & 0x1F)
    ]


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs", "xfs_db")
def test_a_log_that_changes_what_is_outside_is_refused(xfs: tuple[bytes, int, int]) -> None:
    """Fails if an inode or a block is put behind the end, or beside its buffer."""
    whole, start, end = xfs
    log, span, volume = whole[start:end], live_part(whole), MemoryStorage(whole)
    look(volume)
    volume.content[start:end] = sealed(log)
    assert replayed("xfs", volume)[1]  # the checksums of the test are right
    inode, buffer = items(log, span, INODE_ITEM)[0], items(log, span, BUFFER_ITEM)[0]
    for at, field in (
        (inode + 40, struct.pack("<q", 1 << 40)),
        (inode + 40, struct.pack("<q", -8)),
        (inode + 52, struct.pack("<i", 1 << 20)),
        (inode + 52, struct.pack("<i", -512)),
        (inode + 52, struct.pack("<i", 3)),
        (buffer + 8, struct.pack("<q", 1 << 40)),
    ):
        changed = bytearray(log)
        changed[at : at + len(field)] = field
        volume.content[start:end] = sealed(changed)
        with pytest.raises(UnsupportedFeatureError, match="cannot be replayed") as caught:
            replayed("xfs", volume)
        assert caught.value.advice is not None


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs", "xfs_db")
def test_any_log_of_xfs_gives_files_or_one_error(xfs: tuple[bytes, int, int]) -> None:
    """Fails if an item, a core, a fork or a tree in the log makes us do anything else."""
    whole, start, end = xfs
    log, span, dice = whole[start:end], live_part(whole), random.Random(2)
    found = items(log, span, INODE_ITEM) + items(log, span, BUFFER_ITEM)
    assert len(found) > 10
    volume = MemoryStorage(whole)
    for _ in range(20):
        changed = bytearray(log)
        for _ in range(dice.choice((1, 4))):
            at = dice.choice(found) + dice.randrange(2, 400)
            value = dice.choice((bytes(4), b"\xff" * 4, b"\x08\0\0\0", dice.randbytes(4)))
            changed[at : at + 4] = value
        volume.content[start:end] = sealed(changed)
        look(volume)


def operation(number: int, region: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">IIBBH", number, len(region), 0x69, flags, 0) + region


def log_of(operations: Iterable[bytes], uuid: bytes, size: int) -> bytearray:
    """A log that was begun with these, as many to a record as there is room for."""
    records = [bytearray()]
    counts = [0]
    for item in operations:
        if len(records[-1]) + len(item) > RECORD_BYTES:
            records.append(bytearray())
            counts.append(0)
        records[-1] += item
        counts[-1] += 1
    log = bytearray()
    for data, count in zip(records, counts, strict=True):
        head, lsn = bytearray(SECTOR), 1 << 32 | len(log) // SECTOR
        struct.pack_into(">4sIIIQQIII", head, 0, RECORD, 1, 2, len(data), lsn, 1 << 32, 0, 0, count)
        whole = data.ljust(-(-len(data) // SECTOR) * SECTOR, b"\0")
        for at in range(0, len(whole), SECTOR):  # the cycle stands upon the first word of each
            word = 44 + at // SECTOR * 4
            head[word : word + 4] = whole[at : at + 4]
            whole[at : at + 4] = struct.pack(">I", 1)
        struct.pack_into(">I16sI", head, 300, 1, uuid, RECORD_BYTES)
        log += head + whole
    return sealed(log.ljust(size, b"\0"))


def buffer_of(length: int) -> bytes:
    """An item that changes nothing of so many basic blocks."""
    return struct.pack("<HHHHqII", 0x123C, 1, 0, length, 800, 1, 0)


BEGINNING: Final = (operation(1, flags=1), operation(1, struct.pack("<4I", 0x5452414E, 0, 0, 0)))
END: Final = operation(1, flags=2)


@pytest.mark.oracle("mkfs.xfs", "xfs_db")
@pytest.mark.parametrize(
    ("operations", "error"),
    [
        ([*BEGINNING, operation(1, buffer_of(128)), END], None),
        ([*BEGINNING, operation(1, buffer_of(65_535)), END], "more blocks than"),
        ([*BEGINNING, *BEGINNING, END], "a transaction that has begun"),
        ([operation(number, flags=1) for number in range(140_000)], "transactions are too long"),
    ],
    ids=["sound", "long", "again", "begun"],
)
def test_a_log_that_is_small_costs_little(
    tmp_path: Path, operations: list[bytes], error: str | None
) -> None:
    """Fails if 12 bytes cost half a KiB of memory each, or 40 make us copy 32 MiB."""
    path = xfs_volume.make(tmp_path / "disk", "-l", "size=8m")
    start, size = xfs_volume.log_of_xfs_db(path)
    volume = MemoryStorage(path.read_bytes())
    uuid = read_xfs_geometry(Reader(volume)).superblock.uuid
    volume.content[start : start + size] = log_of(operations, uuid, size)
    if error is None:
        assert ["transactions: 1" in note for note in replayed("xfs", volume)[1]] == [True]
        return
    with pytest.raises(UnsupportedFeatureError, match=error):
        replayed("xfs", volume)


@pytest.mark.oracle("mkfs.ntfs")
def test_a_log_that_is_not_replayed_is_told(tmp_path: Path) -> None:
    """Fails if files of NTFS pass for those that Windows would show, or a clean one for another."""
    sound = small_volume(tmp_path / "volume")
    editor = Editor(sound)
    assert replayed("ntfs", MemoryStorage(bytes(editor.content)))[1] == []
    in_use = restart_page(lsn=7, version=(1, 1))
    editor.put(editor.cluster_of(2), in_use + in_use)
    volume = MemoryStorage(bytes(editor.content))
    same, said = replayed("ntfs", volume)
    assert same is volume
    assert ["cannot be replayed" in note for note in said] == [True]


@pytest.mark.root
@pytest.mark.oracle("mkfs.btrfs")
def test_the_log_of_btrfs_is_told_not_to_be_shown(tmp_path: Path) -> None:
    """Fails if nothing says that files lack which were synchronised."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(128 * MIB)
    run("mkfs.btrfs", "-q", path)
    with mounted(path, "commit=300") as folder:
        run("sync", "-f", folder)
        (folder / "last").write_bytes(b"last")
        run("sync", "-d", folder / "last")
        content = path.read_bytes()
    found = of_volume(MemoryStorage(content), replays=True)
    assert ("/last" in found.told) != any("only in its log" in note for note in found.notes)
