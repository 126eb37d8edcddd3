"""Discs of several sessions: the last one is told, as drives show it, and what the others had."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import struct
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

import pytest

from imprint.cli.main import main
from imprint.core.errors import FormatError, ReadError
from imprint.filesystems.iso9660.sessions import sessions_of
from imprint.filesystems.iso9660.tree import SessionTree
from imprint.filesystems.tree import Entry, Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path, walk
from imprint.filters.cutoff import Missing
from imprint.filters.pieces import Piece, Pieces
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import bare, digest, of_folder, of_tree, opened
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from pathlib import Path

SECTOR: Final = 2048
LEAD_OUT_AND_IN: Final = 11400
"""Sectors between the first two sessions of a CD."""

MARK: Final = b"\1CD001\1"


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write(folder: Path, files: dict[str, bytes], seconds: int) -> Path:
    """A folder of files, all of one time."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        os.utime(folder / name, (seconds, seconds))
    return folder


def add_session(disc: Path, folder: Path, start: int, *, onto: int | None = None) -> None:
    """Append what genisoimage would burn: ``onto``, the files of a session that begins there."""
    part = disc.with_suffix(".part")
    if onto is None:
        run("genisoimage", "-quiet", "-R", "-J", "-o", part, folder)
        if start:
            places = f"0,{start}"
            run("genisoimage", "-quiet", "-R", "-J", "-C", places, "-o", part, folder)
    else:
        places = f"{onto},{start}"
        run("genisoimage", "-quiet", "-R", "-J", "-C", places, "-M", disc, "-o", part, folder)
    with disc.open("r+b" if disc.exists() else "wb") as file:
        file.truncate(start * SECTOR)
        file.seek(start * SECTOR)
        file.write(part.read_bytes())


def sectors(path: Path) -> int:
    return -(-path.stat().st_size // SECTOR)


def of_isoinfo(disc: Path, start: int) -> dict[str, str]:
    """Path and hash of all files of a session, by isoinfo."""
    listed = run("isoinfo", "-T", str(start), "-R", "-l", "-i", disc).stdout
    found = {}
    folder = ""
    for line in listed.splitlines():
        if line.startswith("Directory listing of "):
            folder = line.removeprefix("Directory listing of ").rstrip()
        elif line.startswith("-"):
            path = folder + line.rsplit("] ", 1)[1].strip()
            content = run("isoinfo", "-T", str(start), "-R", "-x", path, "-i", disc).stdout
            found[path] = sha(content.encode())
    return found


def files_of(path: Path) -> dict[str, str]:
    """Path and hash of all files that are not deleted."""
    with opened(path) as files:
        found = bare(of_tree(files))
        assert files.notes == []
    return {name: content for name, (type_, content) in found.items() if type_ is Type.FILE}


def deleted_of(path: Path) -> dict[str, Entry]:
    """What is deleted, by path."""
    with opened(path) as files:
        found = [item for item in walk(files, deleted=True) if item.is_deleted]
        assert files.notes == []
        return {item.path: item for item in found}


@pytest.fixture
def disc(tmp_path: Path) -> tuple[Path, list[int]]:
    """Three sessions: of some files, of these and further ones, and of others alone."""
    path = tmp_path / "disc.iso"
    first = {"kept.txt": b"kept", "changed.txt": b"before", "below/deep.txt": b"deep"}
    add_session(path, write(tmp_path / "first", first, 10**9), 0)
    second = {"changed.txt": b"afterwards", "new.txt": b"new"}
    starts = [0, (sectors(path) + LEAD_OUT_AND_IN) | 1]
    add_session(path, write(tmp_path / "second", second, 2 * 10**9), starts[1], onto=0)
    third = {"other.txt": b"other", "below/deep.txt": b"otherwise"}
    starts.append(sectors(path) + 16)
    add_session(path, write(tmp_path / "third", third, 15 * 10**8), starts[2])
    return path, starts


@pytest.mark.oracle("genisoimage", "isoinfo")
def test_the_last_of_several_sessions_is_told(disc: tuple[Path, list[int]]) -> None:
    """Fails if files of an earlier session are told, or those of the last are not."""
    path, starts = disc
    with path.open("rb") as file:
        volume = MemoryStorage(file.read())
    assert [item.start for item in sessions_of(volume)] == starts
    for start in starts:
        seen = bare(of_tree(SessionTree(volume, start)))
        expected = of_isoinfo(path, start)
        assert {n: c for n, (t, c) in seen.items() if t is Type.FILE} == expected
        assert expected
    assert files_of(path) == {"/other.txt": sha(b"other"), "/below/deep.txt": sha(b"otherwise")}
    with path.open("r+b") as file:
        file.truncate(starts[2] * SECTOR)
    assert files_of(path) == of_isoinfo(path, starts[1])
    assert files_of(path)["/changed.txt"] == sha(b"afterwards")


@pytest.mark.oracle("genisoimage", "isoinfo")
def test_a_gap_that_no_drive_could_read_is_passed_over(disc: tuple[Path, list[int]]) -> None:
    """Fails if what a rescue could not read between two sessions hides the second one."""
    path, starts = disc
    content = path.read_bytes()
    end = sessions_of(MemoryStorage(content))[0].end * SECTOR
    length = starts[1] * SECTOR - end
    gap = Missing("gap", length, "no sector there")
    pieces = [
        Piece(0, end, 0),
        Piece(end, length, 1),
        Piece(end + length, len(content) - end - length, 0, end + length),
    ]
    volume = Pieces("disc", [MemoryStorage(content), gap], pieces)
    assert [item.start for item in sessions_of(volume)] == starts


@pytest.mark.oracle("genisoimage", "isoinfo")
def test_what_earlier_sessions_had_is_deleted(
    disc: tuple[Path, list[int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails if a file is not to be had any more that only an earlier session shows."""
    path, _ = disc
    gone = deleted_of(path)
    assert set(gone) == {
        "/$Session1",
        "/$Session1/changed.txt",
        "/$Session2",
        "/$Session2/below",
        "/$Session2/changed.txt",
        "/$Session2/kept.txt",
        "/$Session2/new.txt",
        "/$Session2/below/deep.txt",
    }, "what both of the first two show is told once"
    assert not any(item.is_allocated for item in gone.values())
    with opened(path) as files:
        entry = find_path(files, "/$Session1/changed.txt", deleted=True)
        assert digest(files.content(entry)) == sha(b"before")
    assert main(["cp", "-r", "--deleted", f"{path}:/", str(tmp_path / "out")]) == 0
    recovered = tmp_path / "out" / "%~deleted"
    assert (recovered / "$Session2/changed.txt").read_bytes() == b"afterwards"
    assert (recovered / "$Session2/below/deep.txt").read_bytes() == b"deep"
    capsys.readouterr()
    assert main(["info", "--json", str(path)]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert finding["severity"] == "warning"
    assert "3 sessions" in finding["what"]


@pytest.mark.oracle("xorriso")
def test_sessions_of_a_disc_that_is_overwritten(tmp_path: Path) -> None:
    """Fails if the sessions that xorriso keeps in a file are not told, or in another order."""
    first = write(tmp_path / "first", {"one": b"1" * 5000, "two": b"2", "below/three": b"3"}, 10**9)
    (first / "empty").mkdir()
    more = write(tmp_path / "more", {"four": b"4" * 3000}, 10**9)
    path = tmp_path / "disc.iso"
    run("xorriso", "-outdev", path, "-map", first, "/", "-commit",
        "-rm", "/one", "--", "-rmdir", "/empty", "--", "-commit",
        "-map", more, "/more", "-mv", "/two", "/below", "--", "-commit")  # fmt: skip
    toc = run("xorriso", "-indev", path, "-toc").stdout
    starts = [
        int(start) for start in re.findall(r"^ISO session  : +\d+ , +(\d+)", toc, re.MULTILINE)
    ]
    with path.open("rb") as file:
        volume = MemoryStorage(file.read())
    assert [item.start for item in sessions_of(volume)] == starts
    assert len(starts) == 3
    for number, start in enumerate(starts, 1):
        out = tmp_path / f"out{number}"
        run("xorriso", "-osirrox", "on", "-load", "session", str(number), "-indev", path,
            "-extract", "/", out)  # fmt: skip
        assert bare(of_tree(SessionTree(volume, start))) == bare(of_folder(out))
    gone = deleted_of(path)
    folders = {"/$Session1", "/$Session2", "/$Session1/empty"}
    assert set(gone) == {"/$Session1/one", "/$Session2/two"} | folders
    assert not gone["/$Session1/one"].is_allocated
    assert gone["/$Session2/two"].is_allocated, "it has another name now"


@pytest.mark.oracle("genisoimage")
def test_a_disc_behind_or_in_another_is_no_session(tmp_path: Path) -> None:
    """Fails if descriptors are believed that were not made for this disc."""
    inner = tmp_path / "inner.iso"
    add_session(inner, write(tmp_path / "files", {"a": b"a"}, 10**9), 0)
    outer = tmp_path / "outer.iso"
    (tmp_path / "folder").mkdir()
    for name in ("first.iso", "second.iso"):
        (tmp_path / "folder" / name).write_bytes(inner.read_bytes())
    add_session(outer, tmp_path / "folder", 0)
    both = MemoryStorage(outer.read_bytes() + inner.read_bytes() * 3)
    assert [item.start for item in sessions_of(both)] == [0]
    assert sessions_of(MemoryStorage(b"")) == []
    assert sessions_of(MemoryStorage(bytes(100 * SECTOR))) == []


@pytest.mark.oracle("genisoimage", "isoinfo")
def test_a_last_session_that_cannot_be_read_leaves_the_one_before(
    disc: tuple[Path, list[int]],
) -> None:
    """Fails if a disc of which the last session is damaged shows nothing."""
    path, starts = disc
    content = bytearray(path.read_bytes())
    root = next(item for item in sessions_of(MemoryStorage(bytes(content)))[2:]).root
    place = root * SECTOR
    at = content.index(b"CE", place, place + 250)  # where Rock Ridge goes on
    struct.pack_into("<I", content, at + 4, 0xFFFFFF)
    with closing(tree("iso9660", MemoryStorage(bytes(content)))) as files:
        assert "/new.txt" in {item.path for item in walk(files)}
        assert [f"sector {starts[2]} is not shown" in note for note in files.notes] == [True]


@pytest.mark.oracle("genisoimage", "isoinfo")
def test_damaged_sessions_give_files_notes_or_one_error(disc: tuple[Path, list[int]]) -> None:
    """Fails if flipped bytes of descriptors, folders and gaps end it in another way."""
    path, starts = disc
    content = path.read_bytes()
    chance = random.Random(3)
    for _ in range(30):
        damaged = bytearray(content)
        for _ in range(300):
            start = chance.choice(starts) * SECTOR
            place = start + 16 * SECTOR + chance.randrange(20 * SECTOR)
            damaged[min(place, len(damaged) - 1)] ^= 1 << chance.randrange(8)
        with (
            suppress(FormatError, ReadError),
            closing(tree("iso9660", MemoryStorage(bytes(damaged)))) as files,
        ):
            assert len(list(walk(files, deleted=True))) < 1000


@pytest.mark.oracle("genisoimage")
def test_marks_without_end_come_to_one(tmp_path: Path) -> None:
    """Fails if a disc that seems to have sessions everywhere is looked through for ever."""
    path = tmp_path / "disc.iso"
    add_session(path, write(tmp_path / "files", {"a": b"a"}, 10**9), 0)
    content = path.read_bytes()
    root = struct.unpack_from("<I", content, 16 * SECTOR + 158)[0] * SECTOR
    head = bytearray(content[16 * SECTOR : 17 * SECTOR])
    assert head[: len(MARK)] == MARK
    struct.pack_into("<I", head, 80, 0)  # it ends where it begins
    noise = MemoryStorage(content + bytes(head) * 20_000)
    assert [item.start for item in sessions_of(noise)] == [0]
    # Each with a root of its own behind it: sessions, as far as anybody can tell.
    sound = bytearray(content)
    for number in range(1000):
        place = len(sound) // SECTOR
        folder = bytearray(content[root : root + SECTOR])
        struct.pack_into("<I", folder, 2, place + 1)
        struct.pack_into("<I", head, 158, place + 1)
        struct.pack_into("<I", head, 80, number % 3)
        sound += head + folder
    with closing(tree("iso9660", MemoryStorage(bytes(sound)))) as files:
        assert 100 < len(list(walk(files, deleted=True))) < 1000
