"""Files of Btrfs against the kernel: compressed, shared, inline, in subvolumes and snapshots."""

from __future__ import annotations

import os
import random
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.codecs.crc32c import crc32c
from imprint.core.errors import ImagingError, UnsupportedFeatureError
from imprint.core.units import KIB, MIB
from imprint.filesystems.btrfs import contents
from imprint.filesystems.btrfs import tree as btrfs_tree
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import walk
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import of_folder, of_tree
from imprint.testing.oracles import run
from imprint.testing.volumes import mounted

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.root, pytest.mark.oracle("mkfs.btrfs", "btrfs", "mount", "cp")]

NODE = 16 * KIB


def empty(path: Path, size: int, *options: str) -> Path:
    """A new file system."""
    with path.open("wb") as file:
        file.truncate(size)
    run("mkfs.btrfs", "-q", *options, path)
    return path


def text(seed: int, size: int) -> bytes:
    """What can be compressed, and has no period."""
    chance = random.Random(seed)
    words = [chance.randbytes(chance.randrange(2, 9)).hex().encode() for _ in range(300)]
    return b" ".join(chance.choices(words, k=size // 5))[:size]


def populate(folder: Path, seed: int) -> None:
    """Files of all shapes that Btrfs stores in ways of its own."""
    (folder / "noise").write_bytes(random.Random(seed).randbytes(900_001))
    (folder / "text").write_bytes(text(seed, 1_500_000))
    (folder / "mixed").write_bytes(text(seed + 1, 400_000) + random.Random(1).randbytes(300_000))
    (folder / "inline").write_bytes(text(seed, 1_900))
    (folder / "tiny").write_bytes(b"tiny")
    (folder / "none").touch()
    with (folder / "sparse").open("wb") as file:
        file.truncate(5 * MIB)
        file.seek(3_000_001)
        file.write(text(seed, 70_000))
    run("fallocate", "-l", "1M", folder / "reserved")
    with (folder / "grown").open("wb") as file:
        file.write(text(seed, 5_000))  # of its last sector, the rest is not packed
        file.flush()
        os.posix_fallocate(file.fileno(), 0, 900_000)
    os.sync()
    (folder / "link").symlink_to("x/" * 900)
    os.link(folder / "tiny", folder / "hard")
    os.mkfifo(folder / "fifo")
    os.mknod(folder / "device", 0o20644, os.makedev(5, 6))
    os.chown(folder / "tiny", 70_000, 80_000)
    for number in range(300):
        (folder / f"many {number}").write_bytes(b"%d" % number * 9)
    with open(os.fsencode(folder) + b"/no \xff\xfe text", "wb") as file:  # noqa: PTH123 - bytes
        file.write(b"named by bytes")
    # Within what is stored already: parts of extents, and extents that two files have.
    with (folder / "text").open("r+b") as file:
        for place in (150_000, 131_072, 700_007):
            file.seek(place)
            file.write(b"changed")
        file.truncate(1_234_567)
    run("cp", "--reflink=always", folder / "text", folder / "shared")
    with (folder / "reserved").open("r+b") as file:
        file.seek(70_000)
        file.write(b"written")
    os.sync()


@pytest.mark.parametrize("compression", ["none", "zlib", "lzo", "zstd"])
def test_files_are_told_as_the_kernel_tells_them(tmp_path: Path, compression: str) -> None:
    """Fails if a name, a fact or a byte of any file differs."""
    if compression == "lzo":
        pytest.importorskip("lzallright")
    path = empty(tmp_path / "volume", 160 * MIB)
    with mounted(path) as folder:
        if compression != "none":
            run("btrfs", "property", "set", folder, "compression", compression)
        populate(folder, 7)
        expected = of_folder(folder)
    with closing(FileStorage.open(path)) as volume, closing(tree("btrfs", volume)) as files:
        assert of_tree(files) == expected
        assert files.notes == []
        entries = {entry.path: entry for entry in walk(files)}
        assert entries["/noise"].is_plain
        assert entries["/text"].is_plain is False or compression == "none"
        assert not entries["/tiny"].is_plain
        assert entries["/noise"].times.created is not None


@pytest.mark.parametrize(
    "options", [("-n", "4096"), ("-n", "65536", "-m", "dup", "-d", "dup"), ("--csum", "sha256")]
)
def test_subvolumes_are_folders_and_snapshots_have_what_they_had(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Fails if a snapshot shows what was changed since, or what it does not hold."""
    path = empty(tmp_path / "volume", 300 * MIB, *options)
    with mounted(path) as folder:
        run("btrfs", "subvolume", "create", folder / "work")
        for name in ("inner", "other"):
            run("btrfs", "subvolume", "create", folder / "work" / name)
        (folder / "work" / "inner" / "file").write_bytes(b"inner")
        (folder / "work" / "kept").write_bytes(text(1, 50_000))
        run("btrfs", "subvolume", "snapshot", folder / "work", folder / "before")
        (folder / "work" / "kept").unlink()
        (folder / "work" / "new").write_bytes(b"new")
        for number in range(2000):
            (folder / f"file {number}").touch()
        os.sync()
        expected = of_folder(folder)
    held = {name: expected.pop(f"/before/{name}") for name in ("inner", "other")}
    with closing(FileStorage.open(path)) as volume, closing(tree("btrfs", volume)) as files:
        found = of_tree(files)
        for name, item in held.items():  # of what a snapshot does not hold, it has the name
            assert found.pop(f"/before/{name}").type is item.type is Type.DIRECTORY
        assert found == expected
        assert "/before/kept" in found
        assert "/work/kept" not in found
        assert files.notes == []


def test_files_in_too_many_runs_are_listed_and_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if one file takes memory without bounds, or its size and times are lost with it."""
    path = empty(tmp_path / "volume", 120 * MIB)
    with mounted(path) as folder:
        run("btrfs", "property", "set", folder, "compression", "zstd")
        (folder / "large").write_bytes(text(1, 2_000_000))
        (folder / "small").write_bytes(text(2, 100_000))
        os.sync()
    monkeypatch.setattr(btrfs_tree, "PIECES_MAX", 4)
    monkeypatch.setattr(contents, "PIECES_MAX", 4)
    with closing(FileStorage.open(path)) as volume, closing(tree("btrfs", volume)) as files:
        large, small = sorted(files.children(files.root()), key=lambda entry: entry.path)
        assert (large.size, large.extents, large.is_plain) == (2_000_000, (), False)
        assert files.notes == ["/large: lies in more than 4 runs"]
        with pytest.raises(UnsupportedFeatureError, match="more than 4 runs"):
            files.content(large)
        assert files.content(small).size == 100_000


def test_damaged_trees_end_in_notes_or_one_error(tmp_path: Path) -> None:
    """Fails if any bytes in a leaf, correctly sealed, lead outside or do not end."""
    path = empty(tmp_path / "volume", 120 * MIB, "-m", "single")
    with mounted(path) as folder:
        run("btrfs", "property", "set", folder, "compression", "zstd")
        run("btrfs", "subvolume", "create", folder / "work")
        for number in range(20):
            (folder / "work" / f"file {number}").write_bytes(text(number, 300 + number * 9_000))
        os.sync()
    content = bytearray(path.read_bytes())
    identity = bytes(content[64 * KIB + 0x20 : 64 * KIB + 0x30])
    leaves = [
        at
        for at in range(0, len(content), NODE)
        if content[at + 32 : at + 48] == identity and content[at + 100] == 0
    ]
    assert leaves
    chance = random.Random(5)
    told = 0
    for _ in range(150):
        at = chance.choice(leaves)
        before = bytes(content[at : at + NODE])
        for _ in range(chance.choice((1, 3, 20))):
            content[at + chance.randrange(96, NODE)] = chance.randrange(256)
        seal = crc32c(bytes(content[at + 32 : at + NODE]))
        content[at : at + 4] = seal.to_bytes(4, "little")
        told += _read_all(content)
        content[at : at + NODE] = before
    assert told


def _read_all(content: bytearray) -> int:
    """Walk and read what can be; whether there was anything to complain of."""
    volume = MemoryStorage(b"", name="volume")
    volume.content = content
    try:
        files = tree("btrfs", volume)
    except ImagingError:
        return 1
    failed = 0
    for entry in walk(files):
        if entry.type is not Type.FILE:
            continue
        try:
            source = files.content(entry)
            buffer = bytearray(min(source.size, 1 << 16))
            source.readinto(memoryview(buffer), 0)
        except ImagingError:
            failed = 1
    return failed or bool(files.notes)
