"""Links, devices, pipes and sockets of NTFS: of Windows, of its Linux, of NFS and of Interix."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import stat
import struct
from contextlib import chdir, closing, suppress
from typing import TYPE_CHECKING, Final

import pytest

from imprint.cli.main import main
from imprint.core.errors import CorruptImageError, FormatError, NotFoundError, ReadError
from imprint.filesystems.ntfs.reparse import of_interix, of_point
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.memory import MemoryStorage
from imprint.testing import ntfs_volume
from imprint.testing.file_trees import bare, digest, of_folder, of_tree, opened, told

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("pytsk3")

# Source: Microsoft "[MS-FSCC]: File System Control Codes", 2.1.2.1, Reparse Tags.
MOUNT_POINT, SYMLINK, NFS, APPEXECLINK = 0xA0000003, 0xA000000C, 0x80000014, 0x8000001B
LX_SYMLINK = 0xA000001D
RELATIVE: Final = 1
POINT: Final = "system.ntfs_reparse_data"


def point(tag: int, body: bytes) -> bytes:
    """A reparse point: 2.1.2.2."""
    return struct.pack("<IHH", tag, len(body), 0) + body


def junction(target: str, shown: str = "") -> bytes:
    """2.1.2.5; the names end with zeros, as Windows writes them."""
    real, other = target.encode("utf-16-le"), shown.encode("utf-16-le")
    head = struct.pack("<4H", 0, len(real), len(real) + 2, len(other))
    return point(MOUNT_POINT, head + real + b"\0\0" + other + b"\0\0")


def symlink(target: str, shown: str, flags: int) -> bytes:
    """2.1.2.4; the name for people comes first, as Windows writes them."""
    real, other = target.encode("utf-16-le"), shown.encode("utf-16-le")
    head = struct.pack("<4HI", len(other), len(real), 0, len(other), flags)
    return point(SYMLINK, head + other + real)


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
@pytest.mark.parametrize("kind", ["interix", "wsl"])
def test_what_linux_makes_is_told_as_it_was_made(tmp_path: Path, kind: str) -> None:
    """Fails if a link or device that was made on NTFS is told as a file."""
    path = ntfs_volume.make(tmp_path / "volume", size=ntfs_volume.SMALL_BYTES)
    with ntfs_volume.ntfs_mounted(path, f"special_files={kind}") as folder:
        (folder / "folder").mkdir()
        (folder / "file").write_bytes(b"content")
        (folder / "empty").touch()
        (folder / "link").symlink_to("folder/näme 日本")
        (folder / "long").symlink_to("/" + "x" * 1500)
        (folder / "folder/up").symlink_to("../file")
        os.mknod(folder / "character", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.mknod(folder / "block", stat.S_IFBLK | 0o600, os.makedev(8, 1))
        if kind == "wsl":  # of Interix these are files of 0 bytes and of 1
            os.mkfifo(folder / "pipe")
            with chdir(folder), closing(socket.socket(socket.AF_UNIX)) as made:
                made.bind("socket")
        expected = bare(of_folder(folder))
    found = bare(told(path))
    assert {name: found[name] for name in expected} == expected
    with opened(path) as files:
        entry = find_path(files, "/folder/up")
        assert entry.size == len("../file")
        assert digest(files.content(entry)) == hashlib.sha256(b"../file").hexdigest()
        assert find_path(files, "/folder/up", follow=True).path == "/file"


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_links_of_windows_lead_where_they_say(tmp_path: Path) -> None:
    """Fails if a link within the volume is not followed, or the letter of another is lost."""
    absolute = {
        "junction": junction("\\??\\C:\\Users\\", "C:\\Users"),
        "volume": junction("\\??\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\"),
        "drive": symlink("\\??\\D:\\data\\file", "D:\\data\\file", 0),
        "share": symlink("\\??\\UNC\\server\\share", "\\\\server\\share", 0),
    }
    relative = {
        "beside": symlink("folder\\file", "folder\\file", RELATIVE),
        "folder/up": symlink("..\\top", "..\\top", RELATIVE),
    }
    path = ntfs_volume.make(tmp_path / "volume", size=ntfs_volume.SMALL_BYTES)
    with ntfs_volume.ntfs_mounted(path) as folder:
        (folder / "folder").mkdir()
        (folder / "folder/file").write_bytes(b"below")
        (folder / "top").write_bytes(b"above")
        for name, data in {**absolute, **relative}.items():
            where = folder / name
            where.mkdir() if data in (absolute["junction"], absolute["volume"]) else where.touch()
            os.setxattr(where, POINT, data, follow_symlinks=False)
        rooted = folder / "folder/rooted"
        rooted.touch()
        os.setxattr(rooted, POINT, symlink("\\top", "\\top", RELATIVE))
        program = folder / "program.exe"
        program.touch()
        os.setxattr(program, POINT, point(APPEXECLINK, bytes(20)))
    with ntfs_volume.ntfs_mounted(path) as folder:  # again: what it was is remembered for a while
        seen = bare(of_folder(folder))
        expected = {f"/{name}": seen[f"/{name}"] for name in relative}
        assert {type_ for type_, _ in expected.values()} == {Type.LINK}
    with opened(path) as files:
        found = bare(of_tree(files))
        assert files.notes == []
        assert {name: found[name] for name in expected} == expected
        targets = {name: found[f"/{name}"] for name in absolute}
        assert targets == {
            "junction": (Type.LINK, "\\??\\C:\\Users\\"),
            "volume": (Type.LINK, "\\??\\Volume{01234567-89ab-cdef-0123-456789abcdef}\\"),
            "drive": (Type.LINK, "\\??\\D:\\data\\file"),
            "share": (Type.LINK, "\\??\\UNC\\server\\share"),
        }
        assert found["/folder/rooted"] == (Type.LINK, "/top")
        assert found["/program.exe"][0] is Type.FILE, "what nobody follows is not a link"
        for name, leads in (("beside", "folder/file"), ("folder/up", "top")):
            assert find_path(files, name, follow=True).path == f"/{leads}"
        assert find_path(files, "/folder/rooted", follow=True).path == "/top"
        with pytest.raises(NotFoundError, match="C:"):
            find_path(files, "/junction/file", follow=True)
    target = tmp_path / "out"
    assert main(["cp", "-r", f"{path}:/", str(target)]) == 0
    assert (target / "folder/up").read_bytes() == b"above"
    link = target / "junction"
    assert str(link.readlink()) == "\\??\\C:\\Users\\"


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_a_link_does_not_hide_what_it_holds(tmp_path: Path) -> None:
    """Fails if a content, or files in a folder, are not seen since there is a link before them."""
    path = ntfs_volume.make(tmp_path / "volume", size=ntfs_volume.SMALL_BYTES)
    with ntfs_volume.ntfs_mounted(path) as folder:
        (folder / "both").write_bytes(b"hidden")
        os.setxattr(folder / "both", POINT, symlink("elsewhere", "elsewhere", RELATIVE))
        (folder / "folder").mkdir()
        (folder / "folder/file").touch()
        os.setxattr(folder / "folder", POINT, junction("\\??\\C:\\x"))
    with opened(path) as files:
        found = bare(of_tree(files))
        content = hashlib.sha256(b"hidden").hexdigest()
        assert found == {
            "/$Extend": (Type.DIRECTORY, ""),
            "/both": (Type.FILE, content),
            "/folder": (Type.DIRECTORY, ""),
            "/folder/file": (Type.FILE, hashlib.sha256(b"").hexdigest()),
        }
        assert sorted(files.notes) == [
            "/both: it is a link to elsewhere as well, and told by what it holds",
            "/folder: it is a link to \\??\\C:\\x as well, and told by what it holds",
        ]


@pytest.mark.parametrize(
    ("data", "type_", "target"),
    [
        (point(NFS, b"LNK\0\0\0\0\0" + "a/b".encode("utf-16-le")), Type.LINK, "a/b"),
        (point(NFS, b"CHR\0\0\0\0\0" + bytes(8)), Type.CHARACTER, None),
        (point(NFS, b"BLK\0\0\0\0\0" + bytes(8)), Type.BLOCK, None),
        (point(NFS, b"FIFO\0\0\0\0"), Type.FIFO, None),
        (point(NFS, b"SOCK\0\0\0\0"), Type.SOCKET, None),
        (point(LX_SYMLINK, b"\2\0\0\0" + b"\xff/x"), Type.LINK, "\udcff/x"),
    ],
)
def test_what_a_server_of_nfs_and_linux_keep(data: bytes, type_: Type, target: str | None) -> None:
    """Fails if 2.1.2.6 or 2.1.2.7 are read in another way."""
    found = of_point(data)
    assert found is not None
    assert (found.type, found.target) == (type_, target)


@pytest.mark.parametrize(
    "data",
    [
        point(SYMLINK, b""),
        point(SYMLINK, struct.pack("<4HI", 0, 100, 0, 0, 0) + b"short"),
        point(MOUNT_POINT, struct.pack("<4H", 0, 0, 0, 0)),
        point(LX_SYMLINK, b"\1\0\0\0x"),
        point(LX_SYMLINK, b"\2\0\0\0"),
        point(NFS, b"ABC"),
        junction("\\??\\C:\\x")[:-1],
    ],
)
def test_a_link_that_leads_nowhere_is_said_to_be_damaged(data: bytes) -> None:
    """Fails if a damaged one is something else than one error."""
    with pytest.raises(CorruptImageError):
        of_point(data)


def test_noise_is_no_link_or_one_error() -> None:
    """Fails if any bytes give another exception."""
    chance = random.Random(5)
    for _ in range(2000):
        tag = chance.choice([MOUNT_POINT, SYMLINK, NFS, LX_SYMLINK, chance.getrandbits(32)])
        data = point(tag, chance.randbytes(chance.randrange(40)))[: chance.randrange(60)]
        with suppress(CorruptImageError):
            of_point(data)
        of_interix(chance.choice([b"IntxLNK\1", b"IntxCHR\0"]) + chance.randbytes(17))


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_a_damaged_volume_of_links_gives_entries_notes_or_one_error(tmp_path: Path) -> None:
    """Fails if flipped bytes of records with links end it in another way."""
    path = ntfs_volume.make(tmp_path / "volume", size=ntfs_volume.SMALL_BYTES)
    with ntfs_volume.ntfs_mounted(path) as folder:
        for number in range(10):
            (folder / f"junction{number}").mkdir()
            os.setxattr(folder / f"junction{number}", POINT, junction(f"\\??\\C:\\{number}"))
    content = path.read_bytes()
    first = content.index(junction("\\??\\C:\\0")[:8])
    chance = random.Random(7)
    for _ in range(6):
        volume = bytearray(content)
        for _ in range(60):
            volume[first - 1024 + chance.randrange(12 * 1024)] ^= 1 << chance.randrange(8)
        with (
            suppress(FormatError, ReadError),
            closing(tree("ntfs", MemoryStorage(bytes(volume)))) as files,
        ):
            assert len(list(walk(files, deleted=True))) < 100
