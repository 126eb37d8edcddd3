"""Damaged extended attributes, with checksums that match: some of them, notes, or one error."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.codecs.crc32c import crc32c
from imprint.core.errors import ImagingError
from imprint.core.units import KIB, MIB
from imprint.filesystems.tree import ATTRIBUTES_BYTES_MAX
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import walk
from imprint.testing.attributed_files import dress, many
from imprint.testing.format_faults import bounded_memory
from imprint.testing.fuzzing.endless import EndlessVolume
from imprint.testing.oracles import run
from imprint.testing.volumes import mounted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BLOCK: Final = 4 * KIB
ROUNDS: Final = 50

Blocks = dict[int, bytes]
"""By their numbers; all others are zeros."""


def made(path: Path, size: int, *command: str) -> Blocks:
    """What a volume of many attributes has in its blocks."""
    with path.open("wb") as file:
        file.truncate(size)
    run(*command, path)
    with mounted(path) as folder:
        dress(folder)
        many(folder, count=8 if "mke2fs" in command else 120, size=100)
    with path.open("rb") as file:
        found = {number: file.read(BLOCK) for number in range(size // BLOCK)}
    return {number: data for number, data in found.items() if any(data)}


def asked(blocks: Blocks, kind: str) -> Iterator[tuple[str, int]]:
    """Every file, and of how many bytes its attributes are, which has to be bounded."""
    places = tuple(sorted(blocks))
    volume = EndlessVolume(b"".join(blocks[place] for place in places), places)
    with closing(tree(kind, volume)) as files:
        for entry in walk(files):
            told = files.attributes(entry)
            size = sum(len(name) + len(value) for name, value in told.items())
            assert size <= ATTRIBUTES_BYTES_MAX
            yield entry.path, size
        for note in files.notes:
            note.encode()


def spoiled(data: bytes, dice: random.Random, start: int) -> bytes:
    """A block with other bytes here and there."""
    found = bytearray(data)
    for _ in range(dice.choice((1, 3, 20, 200))):
        found[dice.randrange(start, BLOCK)] = dice.choice((0, 1, 4, 127, 255, dice.randrange(256)))
    return bytes(found)


def outlived(
    kind: str, blocks: Blocks, chosen: list[int], start: int, seal: Callable[[bytes], bytes]
) -> int:
    """How many damaged volumes told of some attributes nevertheless."""
    assert chosen
    count = 0
    for seed in range(ROUNDS):
        dice, changed = random.Random(seed), dict(blocks)
        for number in dice.sample(chosen, min(2, len(chosen))):
            changed[number] = seal(spoiled(blocks[number], dice, start))
        with bounded_memory(200 * MIB):
            try:
                count += any(size for _, size in asked(changed, kind))
            except ImagingError as failure:
                str(failure).encode()
    return count


def _is_of_xfs(data: bytes) -> bool:
    return data[8:10] in (b"\x3b\xee", b"\x3e\xbe") or data[:4] == b"XARM"


def _seal_xfs(data: bytes) -> bytes:
    value = crc32c(data[:12] + bytes(4) + data[16:])
    return data[:12] + value.to_bytes(4, "little") + data[16:]


def _seal_btrfs(data: bytes) -> bytes:
    return crc32c(data[32:]).to_bytes(4, "little") + data[4:]


@pytest.mark.root
@pytest.mark.oracle("mke2fs")
def test_damaged_attributes_of_ext_are_notes(tmp_path: Path) -> None:
    """Fails if lengths or places of ext's attributes are believed."""
    pytest.importorskip("pytsk3")
    options = ("-q", "-t", "ext4", "-b", "4096", "-I", "512", "-O", "ea_inode,^has_journal")
    blocks = made(tmp_path / "volume", 8 * MIB, "mke2fs", *options)
    mark = (0xEA020000).to_bytes(4, "little")
    chosen = [number for number, data in blocks.items() if mark in data]
    assert outlived("ext4", blocks, chosen, 128, bytes) > ROUNDS // 2


@pytest.mark.root
@pytest.mark.oracle("mkfs.xfs")
def test_damaged_attributes_of_xfs_are_notes(tmp_path: Path) -> None:
    """Fails if counts, places or links of XFS's leaves are believed."""
    blocks = made(tmp_path / "volume", 300 * MIB, "mkfs.xfs", "-q")
    chosen = [number for number, data in blocks.items() if _is_of_xfs(data)]
    assert outlived("xfs", blocks, chosen, 0, _seal_xfs) > ROUNDS // 2
    chosen = [number for number, data in blocks.items() if data[:2] == b"IN"]
    assert outlived("xfs", blocks, chosen, 176, bytes) > ROUNDS // 2


@pytest.mark.root
@pytest.mark.oracle("mkfs.btrfs")
def test_damaged_attributes_of_btrfs_are_notes(tmp_path: Path) -> None:
    """Fails if lengths of Btrfs's items are believed."""
    command = ("mkfs.btrfs", "-q", "--nodesize", "4096", "--metadata", "single")
    blocks = made(tmp_path / "volume", 128 * MIB, *command)
    identity = blocks[16][32:48]
    chosen = [
        number
        for number, data in blocks.items()
        if number > 16 and data[32:48] == identity and b"user.number" in data
    ]
    assert outlived("btrfs", blocks, chosen, 101, _seal_btrfs) > ROUNDS // 2
