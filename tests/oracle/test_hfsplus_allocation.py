"""HFS+: maps of volumes that macOS made, against The Sleuth Kit."""

from __future__ import annotations

import contextlib
import lzma
import random
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import FormatError
from imprint.core.runs import Runs
from imprint.filesystems.hfsplus import FILE_SYSTEM
from imprint.storage.memory import MemoryStorage
from imprint.testing.oracles import run
from imprint.testing.volumes import allocation_of, spoil_unused, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES: Final = (
    "formats/log2timeline+dfvfs/test_data/hfsplus.raw",
    "forensics/util-linux+util-linux/tests/ts/blkid/images-fs/hfsplus.img.xz",
)
HEADER: Final = 1024


def read(corpus: Path, name: str) -> bytes:
    content = (corpus / name).read_bytes()
    return lzma.decompress(content) if name.endswith(".xz") else content


@pytest.fixture
def volume(corpus: Path) -> bytearray:
    """One with files, which has a journal."""
    return bytearray(read(corpus, NAMES[0]))


@contextlib.contextmanager
def recovered(path: Path) -> Iterator[Path]:
    """All files of a volume, read by The Sleuth Kit."""
    with tempfile.TemporaryDirectory() as folder:
        run("tsk_recover", "-a", "-f", "hfs", path, folder)
        yield Path(folder)


@pytest.mark.oracle("blkls", "tsk_recover")
@pytest.mark.parametrize("name", NAMES)
def test_the_map_is_what_the_sleuth_kit_says_and_both_headers(
    corpus: Path, tmp_path: Path, name: str
) -> None:
    """Fails if a block is taken for free that is not, or the other way round."""
    path = tmp_path / "hfsplus"
    path.write_bytes(read(corpus, name))
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    lines = run("blkls", "-e", "-l", "-f", "hfs", path).stdout.splitlines()
    matches = (re.match(r"(\d+)\|a", line) for line in lines)
    theirs = Runs.of((int(match[1]) * found.unit, found.unit) for match in matches if match)
    size = path.stat().st_size
    behind = size - size % found.unit
    assert found.used == theirs | Runs.of([(behind, size - behind)])
    reached = Runs.of(FILE_SYSTEM.reached(MemoryStorage(path.read_bytes())))
    assert len(reached - found.used) == 0
    assert reached.total > found.used.total // 2
    with recovered(path) as folder:
        files = tree(folder)
    assert spoil_unused(path, found.used) > size // 2
    with recovered(path) as folder:
        assert tree(folder) == files


def changed(volume: bytearray, at: int, value: int, size: int = 4) -> MemoryStorage:
    content = bytearray(volume)
    content[at : at + size] = value.to_bytes(size)
    return MemoryStorage(bytes(content))


def test_counts_states_and_journals_that_speak_against_the_map_are_doubts(
    volume: bytearray,
) -> None:
    """Fails if a map is relied upon that a crash has left behind the times."""
    attributes = int.from_bytes(volume[HEADER + 4 : HEADER + 8])
    free = int.from_bytes(volume[HEADER + 48 : HEADER + 52])
    cases = {
        "free blocks": changed(volume, HEADER + 48, free + 1),
        "not unmounted": changed(volume, HEADER + 4, attributes & ~(1 << 8)),
        "needs to be checked": changed(volume, HEADER + 4, attributes | 1 << 11),
    }
    # The volume has no journal: one is written into free blocks, as TN1150 describes it.
    info, journal = 500 * 4096, 501 * 4096
    volume[HEADER + 4 : HEADER + 8] = (attributes | 1 << 13).to_bytes(4)
    volume[HEADER + 12 : HEADER + 16] = (500).to_bytes(4)
    volume[info : info + 4] = (1).to_bytes(4)
    volume[info + 36 : info + 52] = journal.to_bytes(8) + (4096).to_bytes(8)
    head = b"".join(number.to_bytes(8, "little") for number in (512, 512, 4096))
    volume[journal : journal + 32] = b"xLNJ" + (0x12345678).to_bytes(4, "little") + head
    assert FILE_SYSTEM.allocation(MemoryStorage(bytes(volume))).doubts == ()
    cases["has not been replayed"] = changed(volume, journal + 16, 1024, 8)
    cases["no header"] = changed(volume, journal, 0)
    cases["another device"] = changed(volume, info, 2)
    for expected, storage in cases.items():
        assert expected in " ".join(FILE_SYSTEM.allocation(storage).doubts), expected


def test_random_damage_gives_a_map_or_one_error(volume: bytearray) -> None:
    """Fails if hostile trees raise anything else, or hang."""
    dice = random.Random(1)
    used = FILE_SYSTEM.allocation(MemoryStorage(bytes(volume))).used
    for _ in range(200):
        content = bytearray(volume)
        for _ in range(dice.choice((1, 2, 8))):
            start, length = dice.choice(list(used))
            at = dice.choice((HEADER + dice.randrange(512), start + dice.randrange(length - 4)))
            content[at : at + 4] = dice.choice((b"\0" * 4, b"\xff" * 4, dice.randbytes(4)))
        storage = MemoryStorage(bytes(content))
        with contextlib.suppress(FormatError):
            assert FILE_SYSTEM.allocation(storage).used.end <= storage.size
        with contextlib.suppress(FormatError):
            assert Runs.of(FILE_SYSTEM.reached(storage)).end <= storage.size
