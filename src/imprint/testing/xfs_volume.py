"""XFS volumes for tests: small ones, which ``mkfs.xfs`` makes for its own tests only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from imprint.codecs.crc32c import crc32c
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.filesystems.xfs import FILE_SYSTEM
from imprint.storage.file import FileStorage
from imprint.testing.oracles import run
from imprint.testing.volumes import age

if TYPE_CHECKING:
    from pathlib import Path

VOLUME_BYTES: Final = 96 * MIB

_SMALL: Final = ("TEST_DIR=/nowhere", "TEST_DEV=/nowhere", "QA_CHECK_FS=1")
"""With these in its environment, mkfs.xfs makes file systems below 300 MiB."""


def make(path: Path, *options: str, size: int = VOLUME_BYTES) -> Path:
    """Make an XFS in a new sparse file."""
    with path.open("wb") as file:
        file.truncate(size)
    run("env", *_SMALL, "mkfs.xfs", "-q", "-f", *options, path)
    return path


def populate(folder: Path, *, reflink: bool) -> None:
    """Age a mounted XFS: files, folders, attributes, holes, and extents that files share."""
    age(folder)
    attributed = folder / "attributed"
    attributed.write_bytes(b"x")
    os.setxattr(attributed, "user.large", os.urandom(30 * KIB))
    for number in range(40):
        os.setxattr(attributed, f"user.small{number}", os.urandom(200))
    if reflink:
        copy = folder / "copy"
        run("cp", "--reflink=always", folder / "into the gaps", copy)
        with copy.open("r+b") as file:
            for place in range(0, MIB, 64 * KIB):
                file.seek(place)
                file.write(os.urandom(100))


def free_of_xfs_db(path: Path, group_blocks: int, block_size: int) -> Runs:
    """What ``xfs_db`` calls free, in bytes: extents of the trees, and blocks of the free lists."""
    lines = run("xfs_db", "-r", "-c", "freesp -d", path).stdout.splitlines()
    extents = [line.split() for line in lines if line.split() and line.split()[0].isdigit()]
    runs = []
    for words in extents:
        if len(words) != 3:
            break  # the histogram, after the extents
        group, block, count = map(int, words)
        runs.append(((group * group_blocks + block) * block_size, count * block_size))
    return Runs.of(runs)


def listed_of_xfs_db(path: Path, group: int) -> list[int]:
    """Blocks of a group's free list, as ``xfs_db`` prints them."""
    commands = ("-c", f"agf {group}", "-c", "p flfirst fllast flcount", "-c", f"agfl {group}")
    text = run("xfs_db", "-r", *commands, "-c", "p bno", path).stdout
    numbers = {line.split(" = ")[0]: line.split(" = ")[1] for line in text.splitlines()}
    first, last, count = (int(numbers[name]) for name in ("flfirst", "fllast", "flcount"))
    key = next(name for name in numbers if name.startswith("bno"))
    room = [word.split(":")[1] for word in numbers[key].split()]
    indices = [(first + step) % len(room) for step in range(count)]
    assert not count or indices[-1] == last
    return [int(room[index]) for index in indices]


def field_of_xfs_db(path: Path, *commands: str) -> int:
    """The number that the last command of ``xfs_db`` prints: ``sb 0``, ``p agblocks``."""
    words = [word for command in commands for word in ("-c", command)]
    return int(run("xfs_db", "-r", *words, path).stdout.splitlines()[-1].split(" = ")[1], 0)


def log_of_xfs_db(path: Path) -> tuple[int, int]:
    """Where the log begins, and how long it is, in bytes."""
    names = ("blocksize", "logstart", "agblklog", "agblocks", "logblocks")
    size, start, group_log, group_blocks, count = (
        field_of_xfs_db(path, "sb 0", f"p {name}") for name in names
    )
    block = (start >> group_log) * group_blocks + start % (1 << group_log)
    return block * size, count * size


def reached_of(path: Path) -> Runs:
    """All that a walk gives, in bytes."""
    storage = FileStorage.open(path)
    try:
        return Runs.of(FILE_SYSTEM.reached(storage))
    finally:
        storage.close()


def change(path: Path, place: int, data: bytes, *, sealed: tuple[int, int, int] | None) -> None:
    """Overwrite some bytes.

    Args:
        path: of the volume.
        place: in bytes.
        data: to be there.
        sealed: offset and length of the structure, and where in it its checksum is to be made
            right again; ``None`` leaves it wrong.
    """
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)
        if sealed is None:
            return
        offset, length, at = sealed
        file.seek(offset)
        content = bytearray(file.read(length))
        content[at : at + 4] = bytes(4)
        content[at : at + 4] = crc32c(content).to_bytes(4, "little")
        file.seek(offset)
        file.write(content)
