"""A disk as a folder, through the kernel: what others read there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.server
import os
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from imprint.testing.file_trees import bare, of_folder
from imprint.testing.oracles import convert, run
from imprint.testing.volumes import attached, fill, make_disk, mounted, tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.testing.program import Program

MIB: Final = 1 << 20
EXT4: Final = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
FAT: Final = "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"

pytestmark = [
    pytest.mark.oracle("fusermount3", "mkfs.ext4", "sfdisk"),
    pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse"),
]


@contextlib.contextmanager
def shown(program: Program, image: str, *options: str) -> Iterator[Path]:
    """An image while it is mounted."""
    point = program.folder / "mounted"
    point.mkdir(exist_ok=True)
    program.ok("mount", image, point, *options)
    try:
        yield point
    finally:
        program.ok("unmount", point)


def same(first: Path, second: Path) -> bool:
    """Whether two files have the same bytes; holes cost nothing."""
    return subprocess.run(["cmp", "-s", first, second], check=False).returncode == 0


def make_files(folder: Path) -> None:
    """Files of many sizes, with links, times and names that are not plain."""
    folder.mkdir()
    fill(folder, size=3 * MIB)
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "sub" / "deep" / "ä ö.txt").write_text("text")
    (folder / "sub" / "empty").touch()
    with (folder / "sub" / "sparse").open("wb") as file:
        file.truncate(2 * MIB)
        file.seek(MIB)
        file.write(b"in the middle")
    (folder / "sub" / "link").symlink_to("deep/ä ö.txt")
    (folder / "sub" / "nowhere").symlink_to("/nowhere/at/all")
    os.link(folder / "sub" / "sparse", folder / "hard")
    os.utime(folder / "hard", ns=(1_500_000_000_123_456_789, 1_600_000_000_987_654_321))


@pytest.fixture
def ext4(tmp_path: Path) -> Path:
    """A volume of ext4 with :func:`make_files`."""
    make_files(tmp_path / "files")
    path = tmp_path / "ext4.volume"
    with path.open("wb") as file:
        file.truncate(24 * MIB)
    run("mkfs.ext4", "-q", "-d", tmp_path / "files", path)
    return path


@pytest.fixture
def disk(tmp_path: Path, ext4: Path) -> Path:
    """A disk with a partition of ext4 and one of FAT, which has the same names where it can."""
    fat = tmp_path / "fat.volume"
    with fat.open("wb") as file:
        file.truncate(16 * MIB)
    run("mkfs.vfat", "-n", "STICK", fat)
    run("mcopy", "-s", "-i", fat, *sorted((tmp_path / "files").glob("folder*")), "::")
    path = tmp_path / "disk.raw"
    make_disk(path, [(EXT4, ext4), (FAT, fat)], size=48 * MIB)
    return path


@pytest.mark.oracle("qemu-img", "mcopy")
@pytest.mark.parametrize("subformat", ["raw", "qcow2"])
def test_disks_are_the_bytes_that_they_are(
    program: Program, disk: Path, ext4: Path, subformat: str
) -> None:
    """Fails if a disk or a partition reads otherwise through the kernel."""
    image = disk
    if subformat != "raw":
        image = program.folder / "disk.qcow2"
        convert(disk, image, "qcow2", arguments=("-c",))
    with shown(program, image.name) as point:
        assert sorted(item.name for item in point.iterdir()) == [
            *("disk.raw", "p1", "p1.raw", "p2", "p2.raw")
        ]
        assert same(point / "disk.raw", disk)
        assert same(point / "p1.raw", ext4)
        assert same(point / "p2.raw", program.folder / "fat.volume")
        with pytest.raises(OSError, match="Read-only") as caught:
            (point / "p1" / "new").touch()
        assert caught.value.errno == errno.EROFS


@pytest.mark.root
def test_files_of_ext4_are_those_that_the_kernel_sees(program: Program, disk: Path) -> None:
    """Fails if a name, content, size, time, mode, owner or link differs from the kernel's."""
    volume = program.folder / "ext4.volume"
    with mounted(volume, "ro") as kernels:
        expected = of_folder(kernels)
    assert "/sub/deep/ä ö.txt" in expected
    with shown(program, disk.name) as point:
        assert of_folder(point / "p1") == expected
        for name in ("hard", "sub/sparse"):
            assert (point / "p1" / name).stat().st_ino == (point / "p1" / "hard").stat().st_ino
            assert (point / "p1" / name).stat().st_blocks * 512 < MIB


def test_files_of_fat_are_those_that_were_put_there(program: Program, disk: Path) -> None:
    """Fails if FAT, which has neither owners nor modes, cannot be read."""
    given = tree(program.folder / "files")
    with shown(program, disk.name) as point:
        found = tree(point / "p2")
    assert len(found) > 10
    assert found == {name: item for name, item in given.items() if name.startswith("folder")}


@pytest.mark.root
@pytest.mark.oracle("mkfs.ntfs", "ntfs-3g")
def test_files_of_ntfs_are_those_that_another_driver_sees(program: Program) -> None:
    """Fails if NTFS, with its streams, reads otherwise than by ntfs-3g."""
    volume = program.folder / "ntfs.volume"
    with volume.open("wb") as file:
        file.truncate(24 * MIB)
    run("mkfs.ntfs", "-q", "-F", "-f", volume)
    with mounted(volume, "streams_interface=xattr", kind="ntfs-3g") as point:
        fill(point, size=2 * MIB)
        (point / "marked").write_bytes(b"from far away")
        os.setxattr(point / "marked", "user.Zone.Identifier", b"[ZoneTransfer]\r\nZoneId=3\r\n")
        # ntfs-3g has links of its own kind, which others see as files; and hides that folder.
        own = ("/a link", "/$Extend")
        expected = bare(of_folder(point, left_out=own))
    with shown(program, volume.name) as point:
        assert bare(of_folder(point / "files", left_out=own)) == expected
        marked = point / "files" / "marked"
        assert os.listxattr(marked) == ["user.Zone.Identifier"]
        assert b"ZoneId=3" in os.getxattr(marked, "user.Zone.Identifier")


@pytest.mark.root
def test_a_partition_can_be_mounted_by_the_kernel(program: Program, disk: Path) -> None:
    """Fails if a loop device over a file of ours does not work."""
    with shown(program, disk.name) as point, mounted(point / "p1.raw", "ro,noload") as kernels:
        assert bare(of_folder(kernels)) == bare(of_folder(point / "p1"))


def test_an_address_leads_to_a_part(program: Program, disk: Path, ext4: Path) -> None:
    """Fails if a partition, or a folder in it, is not what is shown."""
    with shown(program, f"{disk.name}#p1") as point:
        assert sorted(item.name for item in point.iterdir()) == ["disk.raw", "files"]
        assert same(point / "disk.raw", ext4)
    with shown(program, f"{disk.name}#p1:/sub") as point:
        assert (point / "deep" / "ä ö.txt").read_text() == "text"
        assert str((point / "link").readlink()) == "deep/ä ö.txt"
        assert (point / "link").read_text() == "text"
    with shown(program, f"{disk.name}#p1:/sub", "--links", "text", "--owner", "12:13") as point:
        assert (point / "nowhere").read_text() == "/nowhere/at/all"
        facts = (point / "deep").stat()
        assert (facts.st_uid, facts.st_gid) == (12, 13)
    assert "a file" in program.refuses(2, "mount", f"{disk.name}#p1:/hard", "mounted")[0]


def test_a_snapshot_in_a_repository_is_shown(program: Program, disk: Path) -> None:
    """Fails if a backup cannot be looked into in place."""
    program.ok("repo", "init", "store")
    program.ok("capture", disk, "repo:store::laptop")
    with shown(program, "repo:store::laptop") as point:
        assert same(point / "disk.raw", disk)
        assert (point / "p1" / "sub" / "deep" / "ä ö.txt").read_text() == "text"


class Ranges(http.server.BaseHTTPRequestHandler):
    """Serves one file by ranges."""

    path_of: Path
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        size = self.path_of.stat().st_size
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or size - 1) + 1, size)
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("Content-Length", str(end - start))
        self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"same"')
        self.end_headers()
        if with_body:
            with self.path_of.open("rb") as file:
                self.wfile.write(os.pread(file.fileno(), end - start, start))

    def log_message(self, *_: object) -> None:
        pass


def test_what_is_far_away_is_read_by_several_threads(program: Program, disk: Path) -> None:
    """Fails if readers of a disk on a server get each other's bytes."""
    handler = type("Handler", (Ranges,), {"path_of": disk})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with shown(program, f"http://127.0.0.1:{server.server_port}/disk.raw") as point:
            work = [
                subprocess.Popen(["cmp", point / name, program.folder / other])
                for name, other in (
                    *(("disk.raw", "disk.raw"), ("p1.raw", "ext4.volume")),
                    *(("p2.raw", "fat.volume"), ("p1/into the gaps", "files/into the gaps")),
                )
            ]
            assert [item.wait(60) for item in work] == [0] * 4
            assert tree(point / "p1" / "sub") == tree(program.folder / "files" / "sub")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_many_read_at_once(program: Program, disk: Path) -> None:
    """Fails if readers that come together get in each other's way."""
    copy = program.folder / "copy"
    with shown(program, disk.name) as point:
        work = [
            subprocess.Popen(list(map(str, words)), stdout=subprocess.DEVNULL)
            for words in (
                ["cmp", point / "disk.raw", disk],
                ["cp", "-a", point / "p1", copy],
                ["find", point, "-ls"],
                ["sh", "-c", f"cat {point}/p1/folder*/* {point}/p2/folder*/*"],
                ["dd", f"if={point}/p1.raw", "of=/dev/null", "bs=4k", "status=none"],
                ["ls", "-lR", point],
            )
        ]
        assert [item.wait(60) for item in work] == [0] * 6
        assert bare(of_folder(copy)) == bare(of_folder(point / "p1"))


@pytest.mark.oracle("qemu-img")
def test_what_cannot_be_read_is_an_error_and_the_rest_is_read(program: Program) -> None:
    """Fails if one bad place takes a whole disk away, or passes for data."""
    plain = program.folder / "plain"
    plain.write_bytes(b"".join(hashlib.sha256(bytes([n % 250])).digest() * 2048 for n in range(64)))
    image = program.folder / "bad.qcow2"
    convert(plain, image, "qcow2", arguments=("-c",))
    data = bytearray(image.read_bytes())
    compressed = len(data) - 2000  # well inside the clusters at the end
    data[compressed : compressed + 64] = b"\xff" * 64
    image.write_bytes(data)
    good, failures = 0, set()
    with shown(program, image.name) as point, (point / "disk.raw").open("rb", buffering=0) as file:
        for start in range(0, plain.stat().st_size, 65536):
            try:
                found = os.pread(file.fileno(), 4096, start)
            except OSError as failure:
                failures.add(failure.errno)
                continue
            assert found == plain.read_bytes()[start : start + 4096]
            good += 1
    assert failures == {errno.EIO}
    assert good >= 50


@pytest.mark.root
def test_deleted_files_are_shown_on_demand(program: Program) -> None:
    """Fails if a name that was deleted shows without being asked for, or not at all."""
    volume = program.folder / "fat.volume"
    with volume.open("wb") as file:
        file.truncate(8 * MIB)
    run("mkfs.vfat", volume)
    (program.folder / "gone.txt").write_bytes(b"was deleted" * 100)
    run("mcopy", "-i", volume, program.folder / "gone.txt", "::GONE.TXT")
    run("mdel", "-i", volume, "::GONE.TXT")
    with shown(program, volume.name) as point:
        assert not [item for item in (point / "files").iterdir() if "ONE" in item.name]
    with shown(program, volume.name, "--deleted") as point:
        found = [item for item in (point / "files" / ".deleted").iterdir() if "ONE" in item.name]
        assert [item.read_bytes() for item in found] == [b"was deleted" * 100]


@pytest.mark.root
def test_a_loop_device_is_no_reason_to_hang(program: Program, disk: Path) -> None:
    """Fails if unmounting what is in use does anything but to say so."""
    with shown(program, disk.name) as point:
        with attached(point / "disk.raw"):
            assert "in use" in program.refuses(5, "unmount", point)[0]
        assert same(point / "disk.raw", disk)
