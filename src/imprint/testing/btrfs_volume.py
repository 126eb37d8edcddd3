"""Btrfs volumes for tests, and what ``btrfs`` itself says of them."""

from __future__ import annotations

import os
import random
import re
from typing import TYPE_CHECKING, Final

from imprint.codecs.crc32c import crc32c
from imprint.core.runs import Runs
from imprint.core.units import KIB, MIB
from imprint.filesystems.btrfs.chunks import Chunk
from imprint.testing.oracles import run
from imprint.testing.volumes import fill, mounted

if TYPE_CHECKING:
    from pathlib import Path

SUPERBLOCK_AT: Final = 64 * KIB
SUPERBLOCK_BYTES: Final = 4 * KIB
CHECKSUM_BYTES: Final = 32


def make(path: Path, *options: str, size: int = 256 * MIB) -> Path:
    """Make a Btrfs in a new sparse file."""
    with path.open("wb") as file:
        file.truncate(size)
    run("mkfs.btrfs", "-q", *options, path)
    return path


def can_make(feature: str) -> bool:
    """Whether ``mkfs.btrfs`` knows a feature."""
    return feature in run("mkfs.btrfs", "-O", "list-all").stderr


def populate(folder: Path, *, seed: int = 0) -> None:
    """Age a mounted one: files, subvolumes, snapshots, shared, reserved and compressed extents."""
    dice = random.Random(seed)
    fill(folder, seed=seed, size=6 * MIB)
    subvolume = folder / "subvolume"
    run("btrfs", "subvolume", "create", subvolume)
    run("cp", "-r", folder / "folder1", subvolume)
    run("btrfs", "subvolume", "snapshot", folder, folder / "snapshot")
    run("btrfs", "subvolume", "snapshot", "-r", subvolume, folder / "another")
    run("btrfs", "subvolume", "snapshot", subvolume, folder / "deleted")
    names = folder / "names"
    names.mkdir()
    for number in range(400):
        (names / f"a name of some length {number}").write_bytes(dice.randbytes(100))
    copy = folder / "copy"
    run("cp", "--reflink=always", folder / "into the gaps", copy)
    with copy.open("r+b") as file:
        for place in range(0, MIB, 64 * KIB):
            file.seek(place)
            file.write(dice.randbytes(100))
        os.posix_fallocate(file.fileno(), 4 * MIB, MIB)
    (folder / "text").write_text("all of this can be compressed\n" * 60_000, encoding="ascii")
    os.sync()
    run("rm", "-r", folder / "folder2")
    run("btrfs", "subvolume", "delete", "--commit-after", folder / "deleted")


def forget_others() -> None:
    """Make the kernel forget volumes of the same identity, which copies for tests are."""
    run("btrfs", "device", "scan", "--forget")


def scrub_errors(path: Path) -> dict[str, int]:
    """What the kernel finds when it reads every copy of all: counts of errors above 0.

    What it could correct counts too. A log is replayed in the file, if there is one.
    """
    forget_others()
    with mounted(path) as folder:
        text = run("btrfs", "scrub", "start", "-B", "-R", "-r", folder).stdout
    counts = re.findall(r"(\w+_errors): (\d+)", text)
    assert counts, text
    return {name: int(count) for name, count in counts if int(count)}


def checked(path: Path) -> None:
    """Let ``btrfs check`` look at a volume that is not mounted, data included."""
    run("btrfs", "check", "--readonly", "--check-data-csum", path)


def field_of_dump_super(path: Path, name: str) -> int:
    """A number of the first superblock."""
    text = run("btrfs", "inspect-internal", "dump-super", path).stdout
    found = re.search(rf"^{re.escape(name)}\s+(\d+|0x[0-9a-f]+)", text, re.MULTILINE)
    assert found, name
    return int(found[1], 0)


def chunks_of_dump_tree(path: Path) -> list[Chunk]:
    """All chunks; ``kind`` tells only whether nodes may be in them (1) or not (0)."""
    text = run("btrfs", "inspect-internal", "dump-tree", "-t", "chunk", path).stdout
    found = []
    for part in text.split("CHUNK_ITEM ")[1:]:
        start = int(part.split(")")[0])
        length, kind = re.search(r"length (\d+) owner .* type (\S+)", part, re.MULTILINE).groups()  # type: ignore[union-attr]
        places = re.findall(r"stripe \d+ devid 1 offset (\d+)", part)
        has_nodes = int("METADATA" in kind or "SYSTEM" in kind)
        found.append(Chunk(start, int(length), has_nodes, tuple(map(int, places))))
    return found


def extents_of_dump_tree(path: Path) -> Runs:
    """Addresses of all extents, as the extent tree has them."""
    node_size = field_of_dump_super(path, "nodesize")
    text = run("btrfs", "inspect-internal", "dump-tree", "-t", "extent", path).stdout
    data = re.findall(r"key \((\d+) EXTENT_ITEM (\d+)\)", text)
    nodes = re.findall(r"key \((\d+) METADATA_ITEM \d+\)", text)
    return Runs.of(
        [(int(start), int(length)) for start, length in data]
        + [(int(start), node_size) for start in nodes]
    )


def used_by_dump_tree(path: Path) -> Runs:
    """Where every copy of every extent is in the volume."""
    extents = extents_of_dump_tree(path)
    return Runs.of(
        (place + start - chunk.start, length)
        for chunk in chunks_of_dump_tree(path)
        for start, length in extents.clip(chunk.start, chunk.end)
        for place in chunk.places
    )


def change(path: Path, place: int, data: bytes, *, sealed: tuple[int, int] | None) -> None:
    """Overwrite a part of a structure, and mend its CRC-32C if ``sealed``: its offset, length."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)
        if sealed is not None:
            offset, length = sealed
            file.seek(offset + CHECKSUM_BYTES)
            value = crc32c(file.read(length - CHECKSUM_BYTES))
            file.seek(offset)
            file.write(value.to_bytes(4, "little") + bytes(CHECKSUM_BYTES - 4))


def leaf_of_dump_tree(path: Path, tree: str) -> list[int]:
    """Where every copy of the root of a tree is in the volume, of one that is a leaf."""
    text = run("btrfs", "inspect-internal", "dump-tree", "-t", tree, path).stdout
    found = re.search(r"^leaf (\d+) ", text, re.MULTILINE)
    assert found, tree
    address = int(found[1])
    return [
        place + address - chunk.start
        for chunk in chunks_of_dump_tree(path)
        if chunk.start <= address < chunk.end
        for place in chunk.places
    ]
