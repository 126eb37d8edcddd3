"""UFS1 and UFS2 in both byte orders, made by makefs: maps against The Sleuth Kit and arithmetic."""

from __future__ import annotations

import contextlib
import random
import re
import tempfile
from pathlib import Path
from typing import Final

import pytest

from imprint.core.errors import FormatError
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.filesystems import identify
from imprint.filesystems.ufs import FILE_SYSTEM
from imprint.filesystems.ufs.layout import parse_superblock
from imprint.storage.memory import MemoryStorage
from imprint.testing.oracles import run
from imprint.testing.volumes import allocation_of, fill, spoil_unused, tree

pytestmark = pytest.mark.oracle("makefs", "blkls", "blkid", "tsk_recover")

SIZE: Final = 64 * MIB
SUPER: Final = 8192


def make(path: Path, version: int, *options: str, order: str = "le") -> Path:
    with tempfile.TemporaryDirectory() as folder:
        fill(Path(folder), size=12 * MIB)
        chosen = ",".join((f"version={version}", *options))
        size = str(SIZE)
        run("makefs", "-t", "ffs", "-B", order, "-o", chosen, "-s", size, path, folder)
    return path


def for_sleuth_kit(path: Path) -> Path:
    """A copy with the superblock where The Sleuth Kit looks for that of UFS2: not at 8 KiB."""
    content = bytearray(path.read_bytes())
    if int.from_bytes(content[SUPER + 1372 : SUPER + 1376], "little") != 0x011954:
        content[64 * KIB : 64 * KIB + 1376] = content[SUPER : SUPER + 1376]
    copy = path.with_suffix(".tsk")
    copy.write_bytes(content)
    return copy


def recovered(path: Path) -> dict[str, str]:
    """All files, read by The Sleuth Kit."""
    with tempfile.TemporaryDirectory() as folder:
        run("tsk_recover", "-a", "-f", "ufs", for_sleuth_kit(path), folder)
        return tree(Path(folder))


@pytest.mark.parametrize(
    ("version", "options", "order"),
    [
        (1, (), "le"),
        (1, (), "be"),
        (1, ("bsize=4096", "fsize=512", "maxbpcg=2048"), "le"),
        (2, (), "le"),
        (2, ("bsize=8192", "fsize=1024", "maxbpcg=2048"), "le"),
    ],
)
def test_the_map_is_what_the_sleuth_kit_says_and_the_tables(
    tmp_path: Path, version: int, options: tuple[str, ...], order: str
) -> None:
    """Fails if a fragment is taken for free that is not, or the other way round."""
    path = make(tmp_path / "ufs", version, *options, order=order)
    content = path.read_bytes()
    block = parse_superblock(content[SUPER:], SUPER)
    assert block is not None
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    assert found.unit == block.fragment
    lines = run("blkls", "-e", "-l", "-f", "ufs", for_sleuth_kit(path)).stdout.splitlines()
    matches = (re.match(r"(\d+)\|a", line) for line in lines)
    theirs = Runs.of((int(match[1]) * found.unit, found.unit) for match in matches if match)
    kept_anyway = Runs.of((place, 8 * KIB) for place in (0, SUPER, 64 * KIB, 256 * KIB))
    assert len(theirs - found.used) == 0
    assert len(found.used - theirs - kept_anyway) == 0
    storage = MemoryStorage(content)
    reached = Runs.of(FILE_SYSTEM.reached(storage))
    assert len(reached - found.used) == 0
    assert reached.total > 10 * MIB
    files = recovered(path)
    assert len(files) > 20
    assert spoil_unused(path, found.used) > SIZE // 3
    assert recovered(path) == files


def test_big_endian_ufs2_has_the_counts_that_makefs_wrote(tmp_path: Path) -> None:
    """Fails if a map is read in the wrong order. The Sleuth Kit misreads maps of 32 KiB blocks."""
    path = make(tmp_path / "ufs", 2, "bsize=32768", "fsize=4096", order="be")
    found = allocation_of(path, FILE_SYSTEM.allocation)
    assert found.doubts == ()
    totals = path.read_bytes()[SUPER + 1008 : SUPER + 1040]
    blocks, fragments = (int.from_bytes(totals[at : at + 8]) for at in (8, 24))
    free = Runs.whole(SIZE) - found.used
    kept_anyway = 8 * KIB  # at 256 KiB there is room for a superblock, and none
    assert free.total in (
        (8 * blocks + fragments) * 4096 - kept_anyway,
        (8 * blocks + fragments) * 4096,
    )
    storage = MemoryStorage(path.read_bytes())
    assert len(Runs.of(FILE_SYSTEM.reached(storage)) - found.used) == 0


@pytest.mark.parametrize(("version", "order"), [(1, "le"), (1, "be"), (2, "le"), (2, "be")])
def test_it_is_identified_as_by_blkid(tmp_path: Path, version: int, order: str) -> None:
    """Fails if kind, version or identity are other ones than everybody's."""
    path = make(tmp_path / "ufs", version, order=order)
    told = dict(re.findall(r'(\w+)="([^"]*)"', run("blkid", "-p", path).stdout))
    found = identify(MemoryStorage(path.read_bytes()))
    assert found is not None
    assert (found.kind, found.version, found.uuid) == ("ufs", told["VERSION"], told["UUID"])


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        (SUPER + 209, b"\0", "not unmounted"),
        (SUPER + 211, b"\x04", "asks to be checked"),
        (SUPER + 196, b"\1", "free fragments"),
    ],
)
def test_states_and_counts_that_speak_against_the_map_are_doubts(
    tmp_path: Path, at: int, value: bytes, expected: str
) -> None:
    """Fails if a map is relied upon that a crash has left behind the times."""
    content = bytearray(make(tmp_path / "ufs", 1).read_bytes())
    content[at : at + len(value)] = value
    (doubt,) = FILE_SYSTEM.allocation(MemoryStorage(bytes(content))).doubts
    assert expected in doubt


def test_random_damage_gives_a_map_or_one_error(tmp_path: Path) -> None:
    """Fails if hostile tables raise anything else, or hang."""
    storage = MemoryStorage(make(tmp_path / "ufs", 2, "maxbpcg=1024").read_bytes())
    dice = random.Random(1)
    for _ in range(200):
        base = dice.choice((SUPER, 32 * KIB, 48 * KIB))
        at = base + dice.choice((dice.randrange(240), dice.randrange(1400), dice.randrange(16384)))
        before = bytearray(8)
        storage.readinto(memoryview(before), at)
        value = dice.choice((b"\0" * 4, b"\xff" * 4, dice.randbytes(8), b"\x7f"))
        storage.write(memoryview(value), at)
        with contextlib.suppress(FormatError):
            assert FILE_SYSTEM.allocation(storage).used.end <= storage.size
        with contextlib.suppress(FormatError):
            assert Runs.of(FILE_SYSTEM.reached(storage)).end <= storage.size
        if dice.randrange(3):
            storage.write(memoryview(before), at)
