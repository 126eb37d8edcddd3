"""Files of FAT, as mtools puts them there: names of all kinds, damage, what a floppy may have."""

from __future__ import annotations

import hashlib
import random
import struct
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ImagingError, NotFoundError, ReadError
from imprint.core.extent import Kind
from imprint.filesystems import identify
from imprint.filesystems.fat.editor import FatEditor
from imprint.filesystems.fat.tree import FatTree
from imprint.filesystems.tree import Type
from imprint.filesystems.walking import find_path, walk
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_medium import BadMedium, Faults
from imprint.testing.file_trees import bare, of_folder, opened, told
from imprint.testing.format_faults import bounded_memory
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Entry

pytest.importorskip("pytsk3")

SECTOR = 512


def floppy(path: Path, *files: Path | str) -> Path:
    """3.5 inch: a sector in a cluster, the table from sector 1 on, the root at sector 19."""
    run("mkfs.vfat", "-C", path, "1440")
    run("mcopy", "-i", path, *files, "::")
    return path


def read(source: Source, size: int | None = None) -> bytes:
    buffer = bytearray(source.size if size is None else size)
    source.readinto(memoryview(buffer), 0)
    return bytes(buffer)


def link(content: bytearray, cluster: int, following: int) -> None:
    """Change an entry of 12 bits in both tables of a floppy: bytes 0 to 2 have entries 0 and 1."""
    for table in (SECTOR, 10 * SECTOR):
        at = table + cluster * 3 // 2
        pair = int.from_bytes(content[at : at + 2], "little")
        pair = pair & 0x000F | following << 4 if cluster % 2 else pair & 0xF000 | following
        content[at : at + 2] = pair.to_bytes(2, "little")


def only(files: FatTree) -> Entry:
    (found,) = (entry for entry in walk(files) if entry.type is Type.FILE)
    return found


@pytest.mark.oracle("mkfs.vfat", "mcopy")
@pytest.mark.parametrize(
    "options",
    [("-F", "12", "-s", "16"), ("-F", "16", "-f", "1"), ("-F", "32", "-S", "4096")],
    ids=["large clusters", "one table", "large sectors"],
)
def test_long_names_are_told_to_their_ends(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Fails if a name of more than fifteen entries loses its last characters."""
    source = tmp_path / "source"
    source.mkdir()
    for length in (12, 13, 14, 194, 195, 196, 209, 234, 254):
        (source / f"{length}".ljust(length, "n")).write_bytes(b"%d" % length)
    (source / ("日" * 85)).touch()
    (source / "folder of some name" / "another one").mkdir(parents=True)
    kib = 400 << 10 if "4096" in options else 20 << 10
    path = tmp_path / "volume"
    run("mkfs.vfat", *options, "-C", path, str(kib))
    run("mcopy", "-s", "-i", path, *sorted(source.iterdir()), "::")
    assert bare(told(path)) == bare(of_folder(source))


@pytest.mark.oracle("mkfs.vfat", "mcopy", "mattrib")
def test_short_names_have_the_letters_of_dos(tmp_path: Path) -> None:
    """Fails if two names with umlauts are one, a name with a blank in it lacks, or modes lie."""
    for name in ("A1.TXT", "A2.TXT", "A3.TXT"):
        (tmp_path / name).write_text(name)
    path = floppy(tmp_path / "disk", *sorted(tmp_path.glob("A?.TXT")))
    run("mattrib", "+h", "+r", "-i", path, "::A3.TXT")
    content = bytearray(path.read_bytes())
    for old, new in ((b"A1      TXT", b"\x9aBER    TXT"), (b"A2      TXT", b"\x8eB ER   TXT")):
        at = content.index(old)
        content[at : at + 11] = new
    with closing(FatTree(MemoryStorage(content))) as files:
        found = {entry.path: entry for entry in walk(files) if entry.type is Type.FILE}
        # Source: IBM's code page 437, 0x8e and 0x9a.
        assert sorted(found) == ["/A3.TXT", "/ÄB ER.TXT", "/ÜBER.TXT"]
        assert read(files.content(found["/ÜBER.TXT"])) == b"A1.TXT"
        assert [found[path].mode for path in sorted(found)] == [0o555, 0o777, 0o777]
        assert files.notes == []


@pytest.mark.oracle("mkfs.vfat", "mcopy")
def test_a_chain_that_breaks_off_is_read_up_to_there(tmp_path: Path) -> None:
    """Fails if the rest of a file of which the chain is damaged is refused, or made of zeros."""
    (tmp_path / "file").write_bytes(random.Random(2).randbytes(10 * SECTOR))
    path = floppy(tmp_path / "disk", tmp_path / "file")
    content = bytearray(path.read_bytes())
    # The file is in clusters 2 to 11; entry 4 of 12 bits is at byte 6, its upper half in byte 7.
    content[SECTOR + 6] = 0
    content[SECTOR + 7] &= 0xF0
    with closing(FatTree(MemoryStorage(content))) as files:
        entry = only(files)
        assert entry.size == 10 * SECTOR
        assert len(files.notes) == 1
        source = files.content(entry)
        there = 3 * SECTOR
        assert read(source, there) == (tmp_path / "file").read_bytes()[:there]
        assert [
            (item.length, item.kind is Kind.BAD) for item in source.extents(0, source.size)
        ] == [
            (there, False),
            (entry.size - there, True),
        ]
        with pytest.raises(ReadError, match="it is cut off"):
            read(source)


@pytest.mark.oracle("mkfs.vfat", "mcopy")
@pytest.mark.parametrize(("last", "back"), [(5, 2), (5, 4), (5, 5), (8, 3), (11, 10)])
def test_a_chain_that_leads_back_into_itself_ends_there(
    tmp_path: Path, last: int, back: int
) -> None:
    """Fails if the same clusters are told again and again, as if they were the rest of a file."""
    (tmp_path / "file").write_bytes(random.Random(5).randbytes(20 * SECTOR))
    path = floppy(tmp_path / "disk", tmp_path / "file")
    content = bytearray(path.read_bytes())
    link(content, last, back)
    with closing(FatTree(MemoryStorage(content))) as files:
        entry = only(files)
        there = (last - 1) * SECTOR  # from cluster 2 on
        assert (entry.is_plain, sum(length for _, length in entry.extents)) == (False, there)
        assert ["back into itself" in note for note in files.notes] == [True]
        source = files.content(entry)
        assert read(source, there) == (tmp_path / "file").read_bytes()[:there]
        with pytest.raises(ReadError):
            read(source, there + 1)


@pytest.mark.oracle("mkfs.vfat", "mcopy", "mtype")
def test_names_are_found_in_any_case(tmp_path: Path) -> None:
    """Fails if a file is not found by a name by which DOS, and mtype, finds it."""
    (tmp_path / "Config.sys").write_bytes(b"FILES=40")
    (tmp_path / "Größe der Datei.txt").write_bytes(b"long")
    image = floppy(tmp_path / "floppy", tmp_path / "Config.sys", tmp_path / "Größe der Datei.txt")
    with opened(image) as files:
        for name in ("CONFIG.SYS", "config.sys", "Config.sys"):
            assert run("mtype", "-i", image, f"::/{name}").stdout == "FILES=40"
            assert read(files.content(find_path(files, f"/{name}"))) == b"FILES=40"
        assert find_path(files, "/GRÖSSE DER DATEI.TXT").name == "Größe der Datei.txt"
        with pytest.raises(NotFoundError):
            find_path(files, "/config")


@pytest.mark.oracle("mkfs.vfat", "mcopy")
def test_a_name_that_begins_with_a_dot_is_a_name(tmp_path: Path) -> None:
    """Fails if a file is left out, or a folder taken for an empty one, for its first letter."""
    (tmp_path / "FILE.TXT").write_bytes(b"there")
    path = floppy(tmp_path / "disk", tmp_path / "FILE.TXT")
    content = bytearray(path.read_bytes())
    at = content.index(b"FILE    TXT")
    content[at : at + 11] = b".ILE    TXT"
    with closing(FatTree(MemoryStorage(content))) as files:
        assert only(files).path == "/.ILE.TXT"
        assert read(files.content(only(files))) == b"there"


@pytest.mark.oracle("mkfs.vfat", "mcopy", "mdir")
def test_pieces_of_a_name_that_are_left_of_others_do_not_count(tmp_path: Path) -> None:
    """Fails if a file has the name of another, or one of which pieces lack.

    Or if files before it are removed with it, as if they were pieces of its name.
    """
    (tmp_path / "a name of three entries, about.txt").write_bytes(b"long")
    path = floppy(tmp_path / "disk", tmp_path / "a name of three entries, about.txt")
    content = bytearray(path.read_bytes())
    root = 19 * SECTOR
    entries = [bytes(content[root + at : root + at + 32]) for at in range(0, 128, 32)]
    assert [entry[0] for entry in entries[:3]] == [0x43, 2, 1]
    short = entries[3]
    cases = {
        "the second lacks": [entries[0], entries[2]],
        "the first lacks": [entries[1], entries[2]],
        "the last lacks": [entries[0], entries[1]],
        "twice": [entries[0], entries[1], entries[1], entries[2]],
        "of another": [entries[0], entries[1][:13] + b"\0" + entries[1][14:], entries[2]],
        "in between": [*entries[:3], short, entries[2]],
    }
    for what, pieces in cases.items():
        content[root : root + 32 * 10] = b"".join([*pieces, short]).ljust(32 * 10, b"\0")
        path.write_bytes(content)
        with closing(FatTree(MemoryStorage(content))) as files:
            names = [entry.name for entry in walk(files) if entry.type is Type.FILE]
        assert names[-1] == "ANAMEO~1.TXT", what
        volume = MemoryStorage(content)
        editor = FatEditor(volume)
        editor.remove("/ANAMEO~1.TXT")
        editor.close()
        left = bytearray(len(content))
        volume.readinto(memoryview(left), 0)
        is_left = [left[root + 32 * index] != 0xE5 for index in range(len(pieces))]
        assert is_left == [True] * len(pieces) or what == "in between", what


@pytest.mark.oracle("mkfs.vfat")
@pytest.mark.parametrize("last", [0x0FFFFFFF, 40_000], ids=["ends", "loops"])
def test_a_root_of_a_whole_volume_is_not_held_at_once(tmp_path: Path, last: int) -> None:
    """Fails if a chain of most clusters costs as much memory as they have bytes."""
    path = tmp_path / "disk"
    run("mkfs.vfat", "-F", "32", "-s", "8", "-C", path, str(300 << 10))
    head = path.read_bytes()[:SECTOR]
    table = int.from_bytes(head[14:16], "little") * SECTOR
    size = int.from_bytes(head[36:40], "little") * SECTOR
    count = 60_000  # of 4 KiB each
    chain = struct.pack(f"<{count}I", *range(3, count + 2), last)
    with path.open("r+b") as file:
        for copy in (0, 1):
            file.seek(table + copy * size + 8)
            file.write(chain)
    with closing(FileStorage.open(path)) as volume, closing(FatTree(volume)) as files:
        with bounded_memory(100 << 20):
            assert [entry.type for entry in files.children(files.root())] == [Type.SYSTEM] * 3
        # Microsoft's limit is 65,536 entries of 32 bytes.
        expected = f"/: a folder of {count * 4096} bytes: no more than 2097152 of them are read"
        assert expected in files.notes
        assert len(files.notes) == (1 if last > count else 2)


@pytest.mark.oracle("mkfs.vfat", "mcopy", "mmd")
def test_names_that_cannot_be_read_are_noted_and_the_others_told(tmp_path: Path) -> None:
    """Fails if a folder is lost with one of its sectors, or names are left out in silence."""
    folder = tmp_path / "folder"
    folder.mkdir()
    names = [f"{number:02}.TXT" for number in range(40)]  # after . and .., 14 in a sector, then 16
    for name in names:
        (folder / name).write_bytes(name.encode())
    path = tmp_path / "disk"
    run("mkfs.vfat", "-C", path, "1440")
    run("mmd", "-i", path, "::folder")
    run("mcopy", "-i", path, *(folder / name for name in names), "::folder")
    content = path.read_bytes()
    bad = content.index(b"14      TXT")
    assert bad % SECTOR == 0
    volume = BadMedium(MemoryStorage(content), Faults(bad=((bad, SECTOR),)))
    with closing(FatTree(volume)) as files:
        found = sorted(entry.name for entry in walk(files) if entry.type is Type.FILE)
        assert found == names[:14] + names[30:]
        assert [f"cannot read at 0x{bad:x}" in note for note in files.notes] == [True]
    # The folder's last sector is behind the end of what there is: one of its clusters is moved.
    first = (bad - 33 * SECTOR) // SECTOR + 2
    moved = bytearray(content)
    link(moved, first, 2000)
    with closing(FatTree(MemoryStorage(moved[: 1000 * SECTOR]))) as files:
        found = sorted(entry.name for entry in walk(files) if entry.type is Type.FILE)
        assert found == names[:30]
        assert any(note.startswith("/folder: ") for note in files.notes)


@pytest.mark.oracle("mkfs.vfat", "mcopy", "mmd", "fls")
def test_a_file_below_the_root_is_not_hidden_by_the_mark_of_a_label(tmp_path: Path) -> None:
    """Fails if one bit takes a file out of sight; The Sleuth Kit tells it, by another name."""
    (tmp_path / "FILE.TXT").write_bytes(b"hidden")
    path = tmp_path / "disk"
    run("mkfs.vfat", "-C", path, "1440")
    run("mmd", "-i", path, "::folder")
    run("mcopy", "-i", path, tmp_path / "FILE.TXT", "::folder")
    content = bytearray(path.read_bytes())
    content[content.index(b"FILE    TXT") + 11] |= 0x08
    path.write_bytes(content)
    with closing(FatTree(MemoryStorage(content))) as files:
        assert only(files).path == "/folder/FILE.TXT"
        assert read(files.content(only(files))) == b"hidden"
        assert f"{only(files).inode}:\tFILE    TXT" in run("fls", "-r", "-f", "fat12", path).stdout


@pytest.mark.oracle("mkfs.vfat")
def test_a_label_leads_nowhere(tmp_path: Path) -> None:
    """Fails if the letters of a label are folders."""
    path = tmp_path / "disk"
    run("mkfs.vfat", "-n", "LABEL", "-C", path, "1440")
    content = path.read_bytes().replace(b"LABEL      ", b"../../../AA")
    with closing(FatTree(MemoryStorage(content))) as files:
        labels = [entry.path for entry in walk(files) if "Label" in entry.path]
        assert labels == ["/..\\x2f..\\x2f..\\x2fAA (Volume Label Entry)"]


@pytest.mark.oracle("mkfs.vfat", "mcopy", "mdel", "fls")
def test_deleted_names_stand_beside_the_others(tmp_path: Path) -> None:
    """Fails if a file is told twice, or by another number, when deleted ones are asked for."""
    (tmp_path / "kept.txt").write_bytes(b"kept")
    (tmp_path / "gone.txt").write_bytes(b"gone")
    path = floppy(tmp_path / "disk", tmp_path / "kept.txt", tmp_path / "gone.txt")
    run("mdel", "-i", path, "::gone.txt")
    with closing(FileStorage.open(path)) as volume, closing(FatTree(volume)) as files:
        entries = [entry for entry in walk(files, deleted=True) if entry.type is Type.FILE]
        assert [(entry.name, entry.is_deleted) for entry in entries] == [
            ("kept.txt", False),
            ("_one.txt", True),  # the letter is overwritten
        ]
        assert [read(files.content(entry)) for entry in entries] == [b"kept", b"gone"]
        done = subprocess.run(["fls", "-f", "fat12", path], capture_output=True, check=True)
        for entry in entries:
            assert f"{entry.inode}:\t{entry.name}" in done.stdout.decode()


@pytest.mark.oracle("mformat", "mcopy", "mdir")
@pytest.mark.parametrize(("heads", "sectors"), [(1, 8), (1, 9), (2, 8), (2, 9)])
def test_floppies_of_dos_1_are_known_by_their_size(
    tmp_path: Path, heads: int, sectors: int
) -> None:
    """Fails if a floppy from before boot sectors had fields is no file system."""
    path = tmp_path / "disk"
    shape = ("-t", "40", "-h", str(heads), "-n", str(sectors))
    run("mformat", "-C", "-i", path, *shape, "::")
    (tmp_path / "FILE.TXT").write_bytes(random.Random(4).randbytes(9000))
    run("mcopy", "-i", path, tmp_path / "FILE.TXT", "::")
    content = bytearray(path.read_bytes())
    content[:SECTOR] = b"\xeb\x27\x90".ljust(11, b" ") + bytes(19) + b"code" * 120 + b"!!"
    path.write_bytes(content)
    assert "FILE.TXT" in run("mdir", "-b", "-i", path, "::").stdout
    with opened(path) as files:
        entry = next(item for item in walk(files) if item.type is Type.FILE)
        assert entry.path == "/FILE.TXT"
        assert read(files.content(entry)) == (tmp_path / "FILE.TXT").read_bytes()
        # The library does not know it: that takes no other name away.
        assert [item for item in walk(files, deleted=True) if item.type is Type.FILE] == [entry]
        assert ["deleted names are not told" in note for note in files.notes] == [True]
    content[SECTOR] ^= 1
    path.write_bytes(content)
    with closing(FileStorage.open(path)) as volume:
        assert identify(volume) is None


@pytest.mark.oracle("mkfs.vfat", "mcopy")
def test_floppies_of_atari_have_no_signature(tmp_path: Path) -> None:
    """Fails if a file system without the mark of a boot sector is none."""
    path = tmp_path / "disk"
    run("mkfs.vfat", "-A", "-C", path, "720")
    (tmp_path / "file").write_bytes(b"of an ST")
    run("mcopy", "-i", path, tmp_path / "file", "::")
    assert path.read_bytes()[510:512] == bytes(2)
    assert [item.content for item in told(path).values()] == [
        hashlib.sha256(b"of an ST").hexdigest()
    ]


@pytest.mark.oracle("mkfs.vfat", "mcopy")
def test_any_damage_gives_files_notes_or_one_error(tmp_path: Path) -> None:
    """Fails if a flipped byte of a table or folder is a crash, or leads out of the volume."""
    source = tmp_path / "source"
    (source / "folder" / "deeper").mkdir(parents=True)
    for number in range(40):
        (source / "folder" / f"a file of a long name {number}").write_bytes(b"x" * 700 * number)
    path = floppy(tmp_path / "disk", "-s", source / "folder")
    whole = path.read_bytes()
    for seed in range(60):
        dice = random.Random(seed)
        content = bytearray(whole)
        for _ in range(dice.choice((1, 10, 100, 1000))):
            content[dice.randrange(60 * SECTOR)] = dice.choice((0, 1, 0x10, 0xE5, 255))
        try:
            files = FatTree(MemoryStorage(content))
        except ImagingError:
            continue
        for entry in walk(files):
            entry.path.encode("utf-8", "surrogateescape")
            for start, length in entry.extents:
                assert 0 <= start < start + length <= len(content)
            if entry.type is Type.FILE:
                try:
                    read(files.content(entry), min(entry.size, 4096))
                except ImagingError:
                    continue
