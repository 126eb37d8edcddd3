"""F2FS: maps against f2fs-tools' own dump of the segment table, and fsck."""

from __future__ import annotations

import contextlib
import os
import random
import re
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import FormatError, UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.filesystems.f2fs import FILE_SYSTEM
from imprint.filesystems.f2fs.layout import Superblock
from imprint.filesystems.f2fs.state import f2fs_crc
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.oracles import run
from imprint.testing.volumes import GARBAGE, allocation_of, fill, spoil_unused

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK: Final = 4096
SIZE: Final = 160 * MIB

pytestmark = pytest.mark.oracle("mkfs.f2fs", "sload.f2fs", "dump.f2fs", "fsck.f2fs")


def make(path: Path, *options: str, size: int = SIZE, files: int = 10 * MIB) -> Path:
    """A volume of garbage, formatted, with files loaded in two goes."""
    path.write_bytes(GARBAGE * (size // MIB))
    run("mkfs.f2fs", "-q", "-f", *options, path)
    for seed in range(2):
        with tempfile.TemporaryDirectory() as folder:
            fill(Path(folder), seed=seed, size=files // 2)
            run("sload.f2fs", "-f", folder, "-t", f"/go{seed}", path)
    return path


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def valid_by_dump(path: Path, folder: Path) -> Runs:
    """The valid blocks of the main area, in bytes from its start, as dump.f2fs prints them."""
    with working_in(folder):
        run("dump.f2fs", "-s", "0~-1", path)
    found = []
    segment = 0
    bits = 0
    for line in (folder / "dump_sit").read_text().splitlines():
        head = re.match(r"segno:\s*(\d+)", line)
        if head is not None:
            segment, bits = int(head[1]), 0
            continue
        for byte in re.findall(r"\b[0-9a-f]{2}\b", line) if line.startswith("  ") else ():
            first = segment * 512 + bits
            found += [
                ((first + bit) * BLOCK, BLOCK) for bit in range(8) if int(byte, 16) & 0x80 >> bit
            ]
            bits += 8
    return Runs.of(found)


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-i",),
        ("-O", "extra_attr,inode_checksum,inode_crtime,sb_checksum"),
        ("-O", "extra_attr,compression,encrypt,quota", "-s", "2"),
    ],
)
def test_the_map_is_what_the_segment_table_says(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Fails if a block is missed: in the table, in the copy that counts, in the journal."""
    path = make(tmp_path / "f2fs", *options)
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    block = Superblock.unpack(path.read_bytes()[1024:4096])
    main = block.main_block * BLOCK
    assert found.used.clip(main, SIZE).shifted(-main) == valid_by_dump(path, tmp_path)
    assert found.used.covers(0, main)
    with closing(FileStorage.open(path)) as storage:
        assert len(Runs.of(FILE_SYSTEM.reached(storage)) - found.used) == 0
    assert spoil_unused(path, found.used) > SIZE // 2
    run("fsck.f2fs", "--dry-run", path)


def with_flags(path: Path, change: int) -> bytes:
    """The volume with other flags in every checkpoint that is there, and right checksums."""
    content = bytearray(path.read_bytes())
    block = Superblock.unpack(content[1024:4096])
    for pack in range(2):
        start = block.checkpoint_block + pack * 512
        total = int.from_bytes(content[start * BLOCK + 136 : start * BLOCK + 140], "little")
        for number in (start, start + total - 1):
            part = memoryview(content)[number * BLOCK : (number + 1) * BLOCK]
            flags = int.from_bytes(part[132:136], "little") ^ change
            part[132:136] = flags.to_bytes(4, "little")
            at = int.from_bytes(part[164:168], "little")
            if 192 <= at <= BLOCK - 4:
                part[at : at + 4] = f2fs_crc(bytes(part[:at])).to_bytes(4, "little")
    return bytes(content)


def test_a_volume_that_was_not_unmounted_is_doubted(tmp_path: Path) -> None:
    """Fails if files that were synced after the checkpoint are lost."""
    path = make(tmp_path / "f2fs", files=2 * MIB)
    # Without the flag the summaries are elsewhere; compacted ones are where they were.
    found = FILE_SYSTEM.allocation(MemoryStorage(with_flags(path, 0x1 | 0x4)))
    assert "it was not unmounted" in found.doubts
    assert FILE_SYSTEM.allocation(MemoryStorage(with_flags(path, 0x10))).doubts


def test_nodes_behind_a_clean_checkpoint_are_noticed(tmp_path: Path) -> None:
    """Fails if a clean checkpoint is believed although a later mount has synced files."""
    path = make(tmp_path / "f2fs", files=2 * MIB)
    content = bytearray(path.read_bytes())
    block = Superblock.unpack(content[1024:4096])
    packs = [
        content[at * BLOCK :][:BLOCK]
        for at in (block.checkpoint_block, block.checkpoint_block + 512)
    ]
    head = max(packs, key=lambda pack: int.from_bytes(pack[:8], "little"))
    segment = int.from_bytes(head[40:44], "little")
    offset = int.from_bytes(head[70:72], "little")
    end = (block.main_block + segment * 512 + offset + 1) * BLOCK
    content[end - 12 : end - 4] = head[:8]
    found = FILE_SYSTEM.allocation(MemoryStorage(bytes(content)))
    assert found.doubts == ("files were synced after its last checkpoint",)


def test_features_and_sizes_that_are_not_known_are_refused(tmp_path: Path) -> None:
    """Fails if a zoned volume, or one with larger blocks, is read by these rules."""
    path = make(tmp_path / "f2fs", files=MIB)
    for at, value in ((1024 + 2180, 2), (1024 + 2182, 1), (1024 + 16, 14), (1024 + 2201, 0x2F)):
        content = bytearray(path.read_bytes())
        content[at] = value
        with pytest.raises(UnsupportedFeatureError):
            FILE_SYSTEM.allocation(MemoryStorage(bytes(content)))


def test_random_damage_gives_a_map_or_one_error(tmp_path: Path) -> None:
    """Fails if hostile tables raise anything else, or hang."""
    path = make(tmp_path / "f2fs", files=MIB)
    whole = path.read_bytes()
    block = Superblock.unpack(whole[1024:4096])
    places = [
        1024,
        block.checkpoint_block * BLOCK,
        block.sit_block * BLOCK,
        block.nat_block * BLOCK,
    ]
    dice = random.Random(1)
    storage = MemoryStorage(whole)
    for _ in range(120):
        at = dice.choice(places) + dice.choice((dice.randrange(200), dice.randrange(8192)))
        before = whole[at : at + 4]
        storage.write(memoryview(dice.choice((b"\0" * 4, b"\xff" * 4, dice.randbytes(4)))), at)
        with contextlib.suppress(FormatError):
            assert FILE_SYSTEM.allocation(storage).used.end <= storage.size
        with contextlib.suppress(FormatError):
            assert Runs.of(FILE_SYSTEM.reached(storage)).end <= storage.size
        if dice.randrange(4):
            storage.write(memoryview(before), at)
