"""Journals that are damaged on purpose: files, or one error, and never anything else."""

from __future__ import annotations

import contextlib
import random
import struct
from typing import TYPE_CHECKING, Final

import pytest

from imprint.codecs.crc32c import crc32c
from imprint.core.errors import FormatError, ImagingError, UnsupportedFeatureError
from imprint.core.units import MIB
from imprint.endpoints.browsing import BrowsedVolume, opened_tree
from imprint.filesystems import identify
from imprint.filesystems.allocation import VolumeReader
from imprint.filesystems.ext.geometry import read_geometry
from imprint.filesystems.ext.ring import Ring
from imprint.filesystems.journals import replayed
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing import xfs_volume
from imprint.testing.ext_volume import LOG_MAGIC, crash, make
from imprint.testing.ntfs_volume import Editor, restart_page, small_volume
from imprint.testing.oracles import run
from imprint.testing.unsettled import of_volume, prepare, unsettle
from imprint.testing.volumes import mounted, shut_down

if TYPE_CHECKING:
    from pathlib import Path

SECTOR: Final = 512
RECORD: Final = bytes.fromhex("feedbabe")
HEADER_BYTES: Final = 328
READ_BYTES: Final = 64 << 10
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
    return crash(path, rounds=3, before=prepare, more=unsettle).read_bytes()


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


def look(content: bytes | bytearray) -> None:
    """Files, and the start of each, or one error."""
    volume = MemoryStorage(bytes(content))
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
        look(content)


def sealed(content: bytearray, log: tuple[int, int]) -> bytearray:
    """The same, each record of its log with the checksum that it has to have."""
    start, end = log
    for at in range(start, end, SECTOR):
        if content[at : at + 4] != RECORD:
            continue
        (length,) = struct.unpack_from(">I", content, at + 12)
        (size,) = struct.unpack_from(">I", content, at + 320)
        data = bytes(content[at + SECTOR : at + SECTOR + length])
        if size > 64 * SECTOR or len(data) != length or length > 64 * SECTOR:
            continue
        head = bytearray(content[at : at + HEADER_BYTES])
        head[32:36] = bytes(4)
        content[at + 32 : at + 36] = crc32c(data, crc32c(bytes(head))).to_bytes(4, "little")
    return content


def items(content: bytes, log: tuple[int, int], mark: bytes) -> list[int]:
    """Where items of a kind seem to begin: behind the head of an operation, 12 bytes long."""
    start, end = log
    return [
        at
        for at in range(start, end - 64, 4)
        if content[at : at + 2] == mark and 0 < content[at + 2] < 8 and content[at + 3] == 0
    ]


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs", "xfs_db")
def test_a_log_that_changes_what_is_outside_is_refused(xfs: tuple[bytes, int, int]) -> None:
    """Fails if an inode or a block is put behind the end, or beside its buffer."""
    whole, *log = xfs
    span = (log[0], log[1])
    look(whole)
    volume = MemoryStorage(bytes(sealed(bytearray(whole), span)))
    assert replayed("xfs", volume)[1]  # the checksums of the test are right
    inode, buffer = items(whole, span, INODE_ITEM)[0], items(whole, span, BUFFER_ITEM)[0]
    for at, field in (
        (inode + 40, struct.pack("<q", 1 << 40)),
        (inode + 40, struct.pack("<q", -8)),
        (inode + 52, struct.pack("<i", 1 << 20)),
        (inode + 52, struct.pack("<i", -512)),
        (inode + 52, struct.pack("<i", 3)),
        (buffer + 8, struct.pack("<q", 1 << 40)),
    ):
        content = bytearray(whole)
        content[at : at + len(field)] = field
        with pytest.raises(UnsupportedFeatureError, match="cannot be replayed") as caught:
            replayed("xfs", MemoryStorage(bytes(sealed(content, span))))
        assert caught.value.advice is not None


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs", "xfs_db")
def test_any_log_of_xfs_gives_files_or_one_error(xfs: tuple[bytes, int, int]) -> None:
    """Fails if an item, a core, a fork or a tree in the log makes us do anything else."""
    whole, *log = xfs
    span, dice = (log[0], log[1]), random.Random(2)
    found = items(whole, span, INODE_ITEM) + items(whole, span, BUFFER_ITEM)
    assert len(found) > 10
    for _ in range(20):
        content = bytearray(whole)
        for _ in range(dice.choice((1, 4))):
            at = dice.choice(found) + dice.randrange(2, 400)
            value = dice.choice((bytes(4), b"\xff" * 4, b"\x08\0\0\0", dice.randbytes(4)))
            content[at : at + 4] = value
        look(sealed(content, span))


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
