"""Looking inside, against tools that read the same file systems by themselves."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import struct
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import pytest

from imprint.testing.containers import linear, lvm_member, lvm_text, lvm_volume
from imprint.testing.oracles import run
from imprint.testing.volumes import mounted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.testing.program import Program

MIB: Final = 1 << 20
TIME: Final = 1_600_000_001


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of all sizes, in folders; every time is the same even second."""
    noise = random.Random(7)
    top = tmp_path / "tree"
    for path, size in (
        ("empty", 0),
        ("one", 1),
        ("etc/hostname", 7),
        ("etc/deep/er/est/data.bin", 5000),
        ("home/large.jpg", 3 * MIB + 17),
        ("home/Grüße.txt", 300),
        ("home/with space", 100),
    ):
        file = top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(noise.randbytes(size))
    for item in (*top.rglob("*"), top):
        os.utime(item, (TIME, TIME))
    return top


def hashes(folder: Path) -> dict[str, str]:
    """All files below a folder, by their paths."""
    return {
        f"/{path.relative_to(folder)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def ext4(tree: Path, image: Path) -> None:
    run("mkfs.ext4", "-q", "-F", "-d", tree, image, "24M")


def fat(tree: Path, image: Path) -> None:
    run("mkfs.vfat", "-C", image, "16384")
    run("mcopy", "-s", "-m", "-i", image, *sorted(tree.iterdir()), "::")


def iso(tree: Path, image: Path) -> None:
    run("genisoimage", "-quiet", "-R", "-o", image, tree)


MADE: Final = [
    pytest.param(ext4, marks=pytest.mark.oracle("mkfs.ext4"), id="ext4"),
    pytest.param(fat, marks=pytest.mark.oracle("mkfs.vfat", "mcopy"), id="vfat"),
    pytest.param(iso, marks=pytest.mark.oracle("genisoimage"), id="iso9660"),
]


@pytest.mark.parametrize("make", MADE)
@pytest.mark.oracle("7z")
def test_what_is_extracted_is_what_another_tool_extracts(
    program: Program, tree: Path, tmp_path: Path, make: Callable[[Path, Path], None]
) -> None:
    """Fails if a listing, a content, a time or a size is another one."""
    image = tmp_path / "disk.img"
    make(tree, image)
    run("7z", "x", "-y", f"-o{tmp_path / 'other'}", image)
    shutil.rmtree(tmp_path / "other" / "[SYS]", ignore_errors=True)
    wanted = hashes(tmp_path / "other")
    assert wanted == hashes(tree)
    before = hashlib.sha256(image.read_bytes()).digest()
    report = program.ok("cp", "-r", f"{image}:/", "out", "--json").json
    assert hashes(tmp_path / "out") == wanted
    assert report["files"] == len(wanted)
    assert report["failed"] == report["bad"] == report["renamed"] == []
    lines = program.ok("ls", "-R", "--json", f"{image}:/").json_lines
    sizes = {line["path"]: line["size"] for line in lines if line["type"] == "file"}
    assert sizes == {path: (tree / path[1:]).stat().st_size for path in wanted}
    assert {line["path"] for line in lines if line["type"] == "directory"} - {"/lost+found"} == {
        f"/{path.relative_to(tree)}" for path in tree.rglob("*") if path.is_dir()
    }
    assert {line["mtime"] for line in lines if line["type"] == "file"} == {
        "2020-09-13T12:26:41.000000000Z" if make is not fat else _fat_time(tree)
    }
    for path in ("/etc/hostname", "/home/large.jpg"):
        assert program.ok("cat", f"{image}:{path}").out == (tree / path[1:]).read_bytes()
    assert hashlib.sha256(image.read_bytes()).digest() == before


def _fat_time(tree: Path) -> str:
    """FAT keeps even seconds of a local time, of which nobody knows the zone."""
    del tree
    return "2020-09-13T12:26:40.000000000Z"


def _fill(folder: Path) -> None:
    """What is hard to copy, with facts of all kinds."""
    (folder / "dir").mkdir()
    (folder / "dir" / "file").write_bytes(b"content")
    (folder / "dir" / "file").chmod(0o4751)
    os.chown(folder / "dir" / "file", 1234, 567)
    os.link(folder / "dir" / "file", folder / "other")
    (folder / "absolute").symlink_to("/etc/passwd")
    (folder / "relative").symlink_to("dir/file")
    with (folder / "sparse").open("wb") as file:
        file.seek(5 * MIB)
        file.write(b"end")
    (folder / os.fsdecode(b"not utf-8 \xff")).write_bytes(b"x")
    (folder / "evil\n\x1b[31m").write_bytes(b"y")
    os.mknod(folder / "null", 0o020644, os.makedev(1, 3))
    os.utime(folder / "dir" / "file", ns=(10**18 + 1, 981173106_123456789))
    os.utime(folder / "dir", ns=(10**18 + 1, 981173106_123456780))


@pytest.mark.root
@pytest.mark.parametrize(
    ("command", "size", "options"),
    [
        pytest.param(
            ("mkfs.ext4", "-q", "-F"),
            "32M",
            ("ro", "noload"),
            marks=pytest.mark.oracle("mkfs.ext4"),
            id="ext4",
        ),
        pytest.param(
            ("mkfs.xfs", "-q"),
            "320M",
            ("ro", "norecovery"),
            marks=pytest.mark.oracle("mkfs.xfs"),
            id="xfs",
        ),
        pytest.param(
            ("mkfs.btrfs", "-q"),
            "128M",
            ("ro",),
            marks=pytest.mark.oracle("mkfs.btrfs"),
            id="btrfs",
        ),
    ],
)
def test_an_extracted_tree_is_what_the_kernel_shows(
    program: Program, tmp_path: Path, command: tuple[str, ...], size: str, options: tuple[str, ...]
) -> None:
    """Fails if modes, owners, times, links or holes are others than in a mounted image."""
    image = tmp_path / "disk.img"
    run("truncate", "-s", size, image)
    run(*command, image)
    with mounted(image) as folder:
        _fill(folder)
    result = program.ok("cp", "-r", f"{image}:/", "out", "--owner", "--json").json
    with mounted(image, *options) as folder:
        out = tmp_path / "out"
        for path in sorted(folder.rglob("*")):
            name = path.name.replace("\n", "%0A").replace("\x1b", "%1B")
            made = out / path.relative_to(folder).with_name(name)
            if path.name == "null":
                assert not made.exists()
                continue
            ours, theirs = made.lstat(), path.lstat()
            assert (ours.st_mode, ours.st_uid, ours.st_gid) == (
                theirs.st_mode,
                theirs.st_uid,
                theirs.st_gid,
            ), path
            assert ours.st_mtime_ns == theirs.st_mtime_ns, path
            if path.is_symlink():
                assert made.readlink() == path.readlink()
            elif path.is_file():
                assert made.read_bytes() == path.read_bytes()
                assert ours.st_nlink == theirs.st_nlink
        lines = {
            line["path"]: line for line in program.ok("ls", "-R", "--json", f"{image}:/").json_lines
        }
        facts = (folder / "dir" / "file").stat()
        assert lines["/dir/file"]["inode"] == facts.st_ino
        assert lines["/dir/file"]["mtime"] == "2001-02-03T04:05:06.123456789Z"
    assert (tmp_path / "out" / "sparse").stat().st_blocks * 512 < MIB
    assert [item["path"] for item in result["skipped"]] == ["/null"]
    assert [item["name"] for item in result["renamed"]] == ["evil%0A%1B[31m"]
    assert "\x1b" not in program.ok("ls", f"{image}:/").text
    assert "\x1b" not in program.ok("tree", f"{image}:/").text


@pytest.mark.oracle("mkfs.vfat", "mcopy", "mdel")
def test_deleted_files_are_listed_found_and_recovered(program: Program, tmp_path: Path) -> None:
    """Fails if what a file system still knows of a deleted file is not told, or not given back."""
    image = tmp_path / "stick.img"
    noise = random.Random(3)
    (tmp_path / "photo.jpg").write_bytes(noise.randbytes(50_000))
    (tmp_path / "kept.jpg").write_bytes(noise.randbytes(50_000))
    run("mkfs.vfat", "-C", image, "4096")
    run("mcopy", "-i", image, tmp_path / "photo.jpg", tmp_path / "kept.jpg", "::")
    run("mdel", "-i", image, "::photo.jpg")
    assert [line["path"] for line in program.ok("ls", "--json", f"{image}:/").json_lines] == [
        "/kept.jpg"
    ]
    lines = program.ok("ls", "-l", "--deleted", "--json", f"{image}:/").json_lines
    (deleted,) = [line for line in lines if line["deleted"] and line["type"] == "file"]
    assert deleted["size"] == 50_000
    found = program.ok("find", f"{image}:/", "--deleted", "--size", "50000", "--json").json_lines
    assert deleted in found
    path = deleted["path"]
    content = (tmp_path / "photo.jpg").read_bytes()
    assert program.ok("cat", "--deleted", f"{image}:{path}").out == content
    report = program.ok("cp", "-r", "--deleted", f"{image}:/", "out", "--json").json
    assert [item["path"] for item in report["recovered"]] == [path]
    assert (tmp_path / "out" / "%~deleted" / path[1:]).read_bytes() == content
    assert (tmp_path / "out" / "kept.jpg").read_bytes() == (tmp_path / "kept.jpg").read_bytes()
    program.ok("cp", f"{image}:/kept.jpg", "again", "--unallocated", "free.bin", "--slack")
    assert content in (tmp_path / "free.bin").read_bytes()
    assert (tmp_path / "kept.jpg").read_bytes() not in (tmp_path / "free.bin").read_bytes()
    # What cannot be is refused before anything is extracted.
    program.refuses(5, "cp", f"{image}:/kept.jpg", "none", "--unallocated", "free.bin")
    (tmp_path / "other.img").write_bytes(image.read_bytes())
    sources = (f"{image}:/kept.jpg", "other.img:/kept.jpg")
    program.refuses(2, "cp", *sources, "none", "--unallocated", "new.bin")
    assert not (tmp_path / "none").exists()


@pytest.mark.oracle("mkfs.vfat", "mcopy")
def test_slack_is_what_lies_behind_the_end(program: Program, tmp_path: Path) -> None:
    """Fails if the wrong bytes are given for the slack of a file."""
    image = tmp_path / "stick.img"
    run("mkfs.vfat", "-s", "8", "-C", image, "8192")  # clusters of 4 KiB
    (tmp_path / "a.txt").write_bytes(b"short")
    run("mcopy", "-i", image, tmp_path / "a.txt", "::")
    place = program.ok("stat", f"{image}:/a.txt", "--json").json["extents"][0]
    assert place["length"] == 4096
    with image.open("r+b") as file:
        file.seek(place["offset"] + 1000)
        file.write(b"secret of an older file")
        file.seek(place["offset"])
        cluster = file.read(4096)
    assert program.ok("cat", "--slack", f"{image}:/a.txt").out == cluster[5:]
    assert cluster[:5] == b"short"


@pytest.mark.oracle("mkfs.ext4", "qemu-img")
def test_nothing_that_is_read_is_written_over(program: Program, tmp_path: Path) -> None:
    """Fails if --force lets a report, or a file of an image, take the place of the image."""
    files, image, overlay = tmp_path / "files", tmp_path / "disk.img", tmp_path / "top.qcow2"
    files.mkdir()
    for name in (image.name, overlay.name):
        (files / name).write_bytes(b"named as what it came in")
    ext4(files, image)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", image, "-F", "raw", overlay)
    (tmp_path / "other name").hardlink_to(image)
    before = {path: path.read_bytes() for path in (image, overlay)}
    for target in (image, overlay, tmp_path / "other name"):
        for option in ("-o", "--timeline", "--html"):
            program.refuses(5, "report", overlay, option, target, "--force")
        program.refuses(5, "cp", f"{overlay}:/disk.img", "out", "--unallocated", target, "--force")
    for name in (image.name, overlay.name):
        program.refuses(5, "cp", f"{overlay}:/{name}", tmp_path, "--force")
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_alternate_data_streams_are_read_by_name(program: Program, tmp_path: Path) -> None:
    """Fails if a stream of NTFS is not listed, not read or not extracted."""
    image, point = tmp_path / "ntfs.img", tmp_path / "mounted"
    run("truncate", "-s", "16M", image)
    run("mkfs.ntfs", "-q", "-F", "-f", image)
    point.mkdir()
    run("ntfs-3g", "-o", "streams_interface=windows", image, point)
    try:
        (point / "doc.txt").write_bytes(b"text")
        (point / "doc.txt:Zone.Identifier").write_bytes(b"[ZoneTransfer]")
    finally:
        run("umount", point)
    facts = program.ok("stat", f"{image}:/doc.txt", "--json").json
    assert facts["streams"] == [{"name": "Zone.Identifier", "size": 14}]
    address = f"{image}:/doc.txt"
    assert program.ok("cat", address, "--stream", "Zone.Identifier").out == b"[ZoneTransfer]"
    program.refuses(3, "cat", address, "--stream", "other")
    program.ok("cp", address, "out", "--streams", "files")
    assert (tmp_path / "out" / "doc.txt:Zone.Identifier").read_bytes() == b"[ZoneTransfer]"
    names = {line["path"] for line in program.ok("ls", f"{image}:/", "--json").json_lines}
    assert names - {"/$Extend"} == {"/doc.txt"}
    assert "/$MFT" in {
        line["path"] for line in program.ok("ls", "-a", f"{image}:/", "--json").json_lines
    }


@pytest.mark.oracle("mkfs.ext4", "sfdisk")
def test_a_disk_shows_its_volumes_and_their_addresses(
    program: Program, tree: Path, tmp_path: Path
) -> None:
    """Fails if nobody learns how a file on a partitioned disk is named."""
    volume, disk = tmp_path / "volume.img", tmp_path / "disk.img"
    ext4(tree, volume)
    run("truncate", "-s", "40M", disk)
    run("sfdisk", "-q", disk, stdin=b"label: gpt\n2048,49152\n51200,8192\n")
    run("dd", f"if={volume}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc", "status=none")
    lines = program.ok("ls", disk, "--json").json_lines
    assert [(line["path"], line["type"], line["filesystem"]) for line in lines] == [
        (f"{disk}#p1:/", "volume", "ext4"),
        (f"{disk}#p2:/", "volume", None),
    ]
    assert f"{disk}#p1:/" in program.ok("ls", disk).text
    found = program.ok("ls", f"{disk}#p1:/etc").text.split()
    assert found == ["deep", "hostname"]
    assert program.ok("ls", f"{disk}#p1").text == program.ok("ls", f"{disk}#p1:/").text
    program.refuses(2, "cat", f"{disk}:/etc/hostname")
    program.refuses(4, "ls", f"{disk}#p2:/")
    program.refuses(2, "ls", f"{disk}#p3:/")
    for verb in ("ls", "stat", "cat", "tree", "find"):
        program.refuses(3, verb, f"{disk}#p1:/nope")
    program.refuses(3, "cat", f"{disk}#p1:/etc")
    program.refuses(2, "cp", f"{disk}#p1:/etc", "out")
    program.ok("convert", disk, "disk.qcow2")
    assert (
        program.ok("cat", "disk.qcow2#p1:/etc/hostname").out == (tree / "etc/hostname").read_bytes()
    )


@pytest.mark.oracle("mkfs.ext4")
def test_files_are_found_by_what_is_known_of_them(
    program: Program, tree: Path, tmp_path: Path
) -> None:
    """Fails if a test of ``find`` lets another file pass."""
    image = tmp_path / "disk.img"
    ext4(tree, image)

    def find(*words: str) -> list[str]:
        lines = program.ok("find", f"{image}:/", *words, "--json").json_lines
        return sorted(line["path"] for line in lines)

    assert find("--name", "*.JPG") == []
    assert find("--iname", "*.JPG") == ["/home/large.jpg"]
    assert find("--size", "+1M") == ["/home/large.jpg"]
    assert find("--type", "f", "--size", "-2") == ["/empty", "/one"]
    assert find("--size", "7") == ["/etc/hostname"]
    assert find("--type", "d", "--name", "e*") == ["/etc", "/etc/deep/er", "/etc/deep/er/est"]
    assert find("--type", "f", "--newer", "2020-09-13T12:26:41") == []
    assert len(find("--type", "f", "--newer", "2020-09-13T12:26:40")) == 7
    assert len(find("--type", "f", "--mtime", "+30")) == 7
    assert find("--type", "f", "--mtime", "-30") == []
    for wrong in (("--size", "x"), ("--type", "q"), ("--newer", "soon"), ("--mtime", "1d")):
        program.refuses(2, "find", f"{image}:/", *wrong)


@pytest.mark.oracle("mkfs.ext4", "qemu-img")
def test_a_file_inside_of_a_disk_is_a_disk(program: Program, tmp_path: Path) -> None:
    """Fails if an image in an image cannot be used as a source, or is written to."""
    (tmp_path / "tree").mkdir()
    inner = tmp_path / "tree" / "disk.vmdk"
    raw = tmp_path / "raw.img"
    raw.write_bytes(random.Random(1).randbytes(MIB) + bytes(MIB))
    run("qemu-img", "convert", "-O", "vmdk", raw, inner)
    ext4(tmp_path / "tree", tmp_path / "outer.img")
    address = f"{tmp_path}/outer.img:/disk.vmdk"
    result = program.ok("hash", address, "--hash", "sha256", "--json").json
    assert result["hashes"]["sha256"] == hashlib.sha256(raw.read_bytes()).hexdigest()
    assert program.ok("info", address, "--json").json["format"] == "vmdk"
    assert program.ok("map", address, "--json").json_lines[-1]["offset"] > 0
    program.ok("convert", address, "copy.raw")
    assert (tmp_path / "copy.raw").read_bytes() == raw.read_bytes()
    program.ok("compare", address, raw)
    for verb in (("resize", address, "1G"), ("create", address, "1M"), ("commit", address)):
        program.refuses(2, *verb)
    program.refuses(2, "convert", raw, f"{tmp_path}/outer.img:/new.raw")
    program.refuses(5, "convert", address, tmp_path / "outer.img", "--force")
    program.refuses(3, "hash", f"{tmp_path}/outer.img:/nope")


@pytest.mark.oracle("mkfs.ext4")
def test_a_damaged_medium_is_told_and_ends_with_6(
    program: Program, tree: Path, tmp_path: Path
) -> None:
    """Fails if a file with bad areas passes for whole, or costs all others."""
    image = tmp_path / "disk.img"
    ext4(tree, image)
    place = program.ok("stat", f"{image}:/home/large.jpg", "--json").json["extents"][0]
    bad = place["offset"] + MIB
    size = image.stat().st_size
    (tmp_path / "disk.map").write_text(
        f"# Mapfile. Created by hand\n0x0 + 1\n0x0 {bad:#x} +\n{bad:#x} 0x2000 -\n"
        f"{bad + 0x2000:#x} {size - bad - 0x2000:#x} +\n"
    )
    assert program("convert", image, "disk.e01", "--map", "disk.map").exit_code == 6
    result = program("cp", "-r", "disk.e01:/", "out", "--json")
    assert result.exit_code == 6
    assert result.json["bad"] == [{"path": "/home/large.jpg", "offset": MIB, "length": 0x2000}]
    found, wanted = hashes(tmp_path / "out"), hashes(tree)
    assert found.pop("/home/large.jpg") != wanted.pop("/home/large.jpg")
    assert found == wanted
    content = bytearray((tree / "home/large.jpg").read_bytes())
    content[MIB : MIB + 0x2000] = bytes(0x2000)
    assert (tmp_path / "out" / "home/large.jpg").read_bytes() == content


def test_text_of_json_lines_is_one_object_each(program: Program, tmp_path: Path) -> None:
    """Fails if a listing of a folder without files is no valid JSON."""
    image = tmp_path / "disk.img"
    (tmp_path / "none").mkdir()
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("no mkfs.ext4")
    ext4(tmp_path / "none", image)
    out = program.ok("ls", "--json", f"{image}:/").out
    assert [json.loads(line)["path"] for line in out.splitlines()] == ["/lost+found"]


@pytest.mark.oracle("mkfs.ext4")
def test_disks_in_repositories_and_on_servers_are_looked_into(
    program: Program, tree: Path, tmp_path: Path
) -> None:
    """Fails if a path behind an address of another kind is not understood."""
    image = tmp_path / "disk.img"
    ext4(tree, image)
    program.ok("repo", "init", "images")
    program.ok("capture", image, "repo:images::disk")
    wanted = (tree / "home/large.jpg").read_bytes()
    assert program.ok("cat", "repo:images::disk:/home/large.jpg").out == wanted
    assert program.ok("ls", "repo:images::disk").text == program.ok("ls", f"{image}:/").text
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, image.read_bytes()))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}/disk.img"
        assert program.ok("cat", f"{address}:/home/large.jpg").out == wanted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert (
        program.ok("cat", "--", "-:/etc/hostname", stdin=image.read_bytes()).out
        == (tree / "etc/hostname").read_bytes()
    )


class _Ranges(BaseHTTPRequestHandler):
    """Serves one file by ranges."""

    protocol_version = "HTTP/1.1"

    def __init__(self, content: bytes, *args: object) -> None:
        self._content = content
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        part = self._content[first : last + 1]
        self.send_response(206)
        size = len(self._content)
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{size}")
        self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.mark.oracle("mkfs.ext4")
def test_an_interrupted_extraction_goes_on(program: Program, tree: Path, tmp_path: Path) -> None:
    """Fails if what is there is written again, or overwritten without being asked."""
    image = tmp_path / "disk.img"
    ext4(tree, image)
    program.ok("cp", "-r", f"{image}:/home", "out")
    (tmp_path / "out" / "home" / "large.jpg").unlink()
    program.refuses(5, "cp", "-r", f"{image}:/home", "out", "--progress", "none")
    report = program.ok("cp", "-r", f"{image}:/home", "out", "--resume", "--json").json
    assert (report["files"], report["kept"]) == (1, 2)
    (tmp_path / "out" / "home" / "large.jpg").write_bytes(b"mine")
    program.ok("cp", "-r", f"{image}:/home", "out", "--force")
    assert hashes(tmp_path / "out" / "home") == hashes(tree / "home")


@pytest.mark.oracle("mkfs.ext4")
def test_every_key_of_a_result_is_explained(
    program: Program,
    tree: Path,
    tmp_path: Path,
    documented: Callable[[str, dict[str, Any]], None],
) -> None:
    """Fails if a script finds a key of which no page speaks."""
    image = tmp_path / "disk.img"
    ext4(tree, image)
    documented("ls", program.ok("ls", f"{image}:/", "--json").json_lines[0])
    documented("stat", program.ok("stat", f"{image}:/one", "--json").json)
    documented("cp", program.ok("cp", f"{image}:/one", "out", "--json").json)
    plain = tmp_path / "plain.img"
    entry = bytes(4) + b"\x83" + bytes(3) + struct.pack("<II", 64, 1000)
    plain.write_bytes(bytes(446) + entry + bytes(48) + b"\x55\xaa" + bytes(MIB))
    documented("ls", program.ok("ls", plain, "--json").json_lines[0])


@pytest.mark.oracle("mkfs.ext4", "debugfs")
def test_a_hostile_file_system_writes_nothing_outside(program: Program, tmp_path: Path) -> None:
    """Fails if names or loops in a real image lead out of the folder, or never end."""
    image, source = tmp_path / "disk.img", tmp_path / "source"
    source.mkdir()
    for name in ("..XXevil", "..XXXXXX", "NUL_name"):
        (source / name).write_text(name)
    (source / "link").symlink_to(tmp_path / "outside")
    (source / "lonk").mkdir()
    (source / "lonk" / "evil").write_text("evil")
    run("mkfs.ext4", "-q", "-F", "-O", "^metadata_csum,^dir_index", "-d", source, image, "4M")
    run("debugfs", "-w", "-R", "link <2> /lonk/root", image)
    content = image.read_bytes()
    for old, new in (
        (b"..XXevil", b"../evil\n"),
        (b"..XXXXXX", b"../../x\x1b"),
        (b"NUL_name", b"a\0bc\xe2\x80\xaex"),
        (b"lonk", b"link"),
    ):
        assert content.count(old) >= 1
        assert len(old) == len(new)
        content = content.replace(old, new)
    image.write_bytes(content)
    work = tmp_path / "work" / "out"
    work.parent.mkdir()
    before = set(tmp_path.rglob("*"))
    result = program("cp", "-r", f"{image}:/", work, "--json")
    assert result.exit_code in (0, 6)
    assert all(path.is_relative_to(work) for path in set(tmp_path.rglob("*")) - before)
    assert result.json["files"] == 4, result.err + result.text
    assert (work / "link").is_symlink() != (work / "link%~2").is_symlink()
    for verb in ("ls", "tree", "find"):
        text = program(verb, *(["-R"] if verb == "ls" else []), f"{image}:/").text
        assert "\x1b" not in text
        assert "\u202e" not in text


@pytest.mark.oracle("mkfs.ext4", "sfdisk")
def test_a_partition_table_in_a_volume_is_gone_on_with(
    program: Program, tree: Path, tmp_path: Path
) -> None:
    """Fails if the disk of a virtual machine in a logical volume cannot be looked into."""
    volume, disk = tmp_path / "volume.img", tmp_path / "disk.img"
    ext4(tree, volume)
    run("truncate", "-s", "32M", disk)
    run("sfdisk", "-q", disk, stdin=b"label: dos\n2048,49152\n")
    run("dd", f"if={volume}", f"of={disk}", "bs=1M", "seek=1", "conv=notrunc", "status=none")
    extent = 64 << 10
    count = disk.stat().st_size // extent
    text = lvm_text(
        lvm_volume("machine", linear(count, "pv0", 0)), uuids=("a" * 32,), extents=count
    )
    group = lvm_member("a" * 32, text, (count + 1) * extent)
    group[extent:] = disk.read_bytes()
    image = tmp_path / "group.img"
    image.write_bytes(group)
    lines = program.ok("ls", image, "--json").json_lines
    assert [line["path"] for line in lines] == [f"{image}#lvm/vg/machine#p1:/"]
    found = program.ok("cat", f"{image}#lvm/vg/machine#p1:/etc/hostname").out
    assert found == (tree / "etc/hostname").read_bytes()
