"""Classic HFS: names, numbers, times and both forks against hfsutils, and discs of two sides."""

from __future__ import annotations

import lzma
import random
import struct
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.units import KIB, MIB
from imprint.endpoints.survey import describe, open_partition
from imprint.filesystems.hfs import FILE_SYSTEM
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import bare, of_folder, of_tree, opened
from imprint.testing.hfs_volume import (
    WORDS,
    HfsUtils,
    MacFile,
    below,
    hfs_mounted,
    in_pieces,
    some_files,
)
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import FileTree

pytestmark = pytest.mark.oracle("hformat", "hcopy")

S_TO_1970: Final = 2_082_844_800
UPPER: Final = (
    "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø"  # noqa: RUF001
    "¿¡¬√ƒ≈∆«»…\xa0ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ"  # noqa: RUF001
    "\uf8ffÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ"  # noqa: RUF001
)
"""MacRoman from 128 on, as Apple's ROMAN.TXT has it."""


def read(source: Source) -> bytes:
    buffer = bytearray(source.size)
    source.readinto(memoryview(buffer), 0)
    return bytes(buffer)


def path_of(raw: bytes) -> str:
    """As macOS tells ``:folder:name``: ``:`` is ``/`` between names, and the reverse in them."""
    return raw.decode("mac_roman").translate(str.maketrans(":/", "/:"))


def compare(files: FileTree, tools: HfsUtils) -> int:
    """How many files there are; all are the same on both sides."""
    told = {entry.path: entry for entry in walk(files)}
    del told["/"]
    listed = {path_of(raw): (raw, number, is_folder) for raw, number, is_folder in below(tools)}
    assert set(told) == set(listed)
    compared = 0
    for path, (raw, number, is_folder) in listed.items():
        entry = told[path]
        assert entry.inode == number
        assert (entry.type is Type.DIRECTORY) == is_folder
        if is_folder:
            continue
        theirs = tools.read(raw)
        assert read(files.content(entry)) == theirs.data, path
        assert entry.size == len(theirs.data)
        assert entry.streams == (("rsrc",) if theirs.resource else ())
        for stream in entry.streams:
            assert read(files.content(entry, stream)) == theirs.resource, path
        assert entry.times.modified == (theirs.modified_s - S_TO_1970) * 10**9
        assert entry.times.created == (theirs.created_s - S_TO_1970) * 10**9
        assert files.attributes(entry)["user.com.apple.FinderInfo"][:8] == theirs.finder
        compared += 1
    assert files.notes == []
    return compared


def test_names_numbers_times_and_forks_are_those_of_hfsutils(tmp_path: Path) -> None:
    """Fails if a name, a number, a time, a type or a byte of any of some 300 files differs."""
    path = tmp_path / "volume"
    with hfs_mounted(path, tmp_path, size=8 * MIB) as tools:
        tools.add(b":", some_files(40, seed=1, most=30_000))
        for number in range(12):
            tools.call("hmkdir", b":folder %d" % number)
            tools.add(b":folder %d" % number, some_files(4 * number + 1, seed=number, most=3000))
        tools.call("hmkdir", b":folder 3:in it")
        tools.add(b":folder 3:in it", some_files(3, seed=5, most=3))
    with hfs_mounted(path, tmp_path) as tools, opened(path) as files:
        assert compare(files, tools) == 40 + 4 * 66 + 12 + 3


def test_every_character_of_a_mac_is_the_one_of_unicode(tmp_path: Path) -> None:
    """Fails if a byte of MacRoman is another character than Apple's table has, or a path."""
    path = tmp_path / "volume"
    usual = [byte for byte in range(1, 256) if byte not in (10, ord(":"))]
    names = [bytes(usual[start : start + 20]) for start in range(0, len(usual), 20)]
    names += [b"..", b".", b"Icon\r", b"a/b", b"x" * 31]
    with hfs_mounted(path, tmp_path, size=MIB) as tools:
        tools.add(b":", [MacFile(name, name) for name in names])
    with opened(path) as files:
        told = {read(files.content(entry)): entry.name for entry in files.children(files.root())}
    table = "".join(map(chr, range(128))).replace("/", ":") + UPPER
    expected = {name: "".join(table[byte] for byte in name) for name in names}
    expected |= {b".": "\\x2e", b"..": "\\x2e\\x2e"}
    assert told == expected


def test_files_in_more_than_three_pieces_are_read_whole(tmp_path: Path) -> None:
    """Fails if a further extent of a fork, or of the catalog, is missing, or in another place."""
    path = tmp_path / "volume"
    with hfs_mounted(path, tmp_path, size=1 * MIB) as tools:
        in_pieces(tools, 350, 3000)
    master = path.read_bytes()[1024:1186]
    size, *pairs = struct.unpack_from(">I6H", master, 146)
    assert size > 512 * sum(pairs[1::2]), "the catalog has no further extents"
    with hfs_mounted(path, tmp_path) as tools, opened(path) as files:
        assert compare(files, tools) == 178
        entries = {entry.name: entry for entry in files.children(files.root())}
        assert len(entries["large 2"].extents) > 20


@pytest.mark.parametrize("size", [800 * KIB, 1440 * KIB, 40 * MIB, 700 * MIB])
def test_floppies_and_disks_with_blocks_of_all_sizes_are_told(tmp_path: Path, size: int) -> None:
    """Fails if the arithmetic of blocks holds for those of 512 bytes only."""
    path = tmp_path / "volume"
    with hfs_mounted(path, tmp_path, size=size) as tools:
        tools.add(b":", some_files(20, seed=size, most=20_000))
    with hfs_mounted(path, tmp_path) as tools, opened(path) as files:
        assert compare(files, tools) == 20


def test_a_volume_that_mkfs_of_others_made_is_told(corpus: Path) -> None:
    """Fails if an empty volume, made by another tool, has notes or files."""
    name = "forensics/util-linux+util-linux/tests/ts/blkid/images-fs/hfs.img.xz"
    volume = MemoryStorage(lzma.decompress((corpus / name).read_bytes()))
    with closing(tree("hfs", volume)) as files:
        assert [entry.path for entry in walk(files)] == ["/"]
        assert files.notes == []
    assert FILE_SYSTEM.allocation(volume).used.total < volume.size // 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is put on a disc."""
    top = tmp_path_factory.mktemp("hybrid") / "tree"
    (top / "sub" / "deeper").mkdir(parents=True)
    for number in range(30):
        (top / "sub" / f"file{number}.txt").write_bytes(WORDS[: number * 1700])
    (top / "sub" / "deeper" / "empty").touch()
    (top / "large.bin").write_bytes(random.Random(2).randbytes(400_000))
    return top


@pytest.mark.oracle("genisoimage", "hls")
@pytest.mark.parametrize("block", [(), ("-cluster-size", "4096")], ids=["2048", "4096"])
def test_both_sides_of_a_hybrid_disc_are_told(
    tmp_path: Path, folder: Path, block: tuple[str, ...]
) -> None:
    """Fails if the Apple side of a disc is not found, or has other contents than the other one."""
    # AppleDouble: the resource fork of a file is in another one.
    source = tmp_path / "tree"
    run("cp", "-r", folder, source)
    resource = WORDS[:5000]
    info = b"APPLMOSS" + bytes(24)
    head = struct.pack(">IIH", 0x00051607, 0x00020000, 0)[:8] + bytes(16) + struct.pack(">H", 2)
    at = len(head) + 24
    table = struct.pack(">III", 9, at, 32) + struct.pack(">III", 2, at + 32, len(resource))
    (source / "%large.bin").write_bytes(head + table + info + resource)
    disc = tmp_path / "disc.iso"
    run("genisoimage", "-quiet", "-hfs", "-part", "-hfs-volid", "Mac side", "-V", "PC_SIDE",
        "--double", *block, "-R", "-o", disc, source)  # fmt: skip

    with closing(FileStorage.open(disc)) as storage:
        survey = describe(storage)
        assert survey.filesystem is not None
        assert (survey.filesystem.kind, survey.filesystem.label) == ("iso9660", "PC_SIDE")
        assert survey.table is not None
        assert survey.table.kind == "apm"
        (number,) = (
            item.partition.index
            for item in survey.volumes
            if item.filesystem is not None and item.filesystem.kind == "hfs"
        )
        expected = bare(of_folder(folder))
        with closing(tree("iso9660", storage)) as files:
            assert bare(of_tree(files)) == expected
        part = open_partition(storage, number)
        with closing(tree("hfs", part)) as files:
            told = bare(of_tree(files))
            assert {path for path in told if not path.startswith("/Desktop")} == set(expected)
            assert {path: told[path] for path in expected} == expected
            entry = find_path(files, "large.bin")
            assert read(files.content(entry, "rsrc")) == resource
            assert files.attributes(entry)["user.com.apple.FinderInfo"][:8] == b"APPLMOSS"
            with hfs_mounted(disc, tmp_path) as tools:
                assert compare(files, tools) == len(told) - 2
        found = FILE_SYSTEM.allocation(part)
        assert found.doubts == ()
        assert all(found.used.covers(*run_) for run_ in FILE_SYSTEM.reached(part))


@pytest.mark.oracle("genisoimage")
def test_a_disc_whose_apple_side_is_no_partition_says_so(tmp_path: Path, folder: Path) -> None:
    """Fails if nobody hears of files that are not shown, or every disc is said to have them."""
    for option in ("-hfs", "-R"):
        disc = tmp_path / f"disc{option}.iso"
        run("genisoimage", "-quiet", option, "-o", disc, folder)
        with closing(FileStorage.open(disc)) as storage:
            survey = describe(storage)
            assert survey.filesystem is not None
            assert survey.filesystem.kind == "iso9660"
            said = " ".join(item.what for item in survey.findings)
            assert ("HFS beside ISO 9660" in said) == (option == "-hfs")
            assert not survey.volumes
