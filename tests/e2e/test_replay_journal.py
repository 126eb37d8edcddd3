"""``--replay-journal``: what a disk of a machine that was not shut down shows, verb by verb."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import fsspec  # type: ignore[import-untyped]
import pytest

import imprint
from imprint.core.units import MIB
from imprint.endpoints.fsspec_files import ImprintFileSystem, ReadWarning
from imprint.testing import xfs_volume
from imprint.testing.ext_volume import crash, make
from imprint.testing.unsettled import of_kernel, prepare, unsettle
from imprint.testing.volumes import make_disk, mounted, shut_down

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.testing.program import Program

pytestmark = [pytest.mark.root, pytest.mark.oracle("mke2fs", "mkfs.xfs", "sfdisk")]

LINUX: Final = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
NEW: Final = "/over there/renamed"
OLD: Final = "/deleted"
SAID: Final = "was replayed in memory"
ADVICE: Final = "--replay-journal tells it"


class _Disk:
    """A disk with an ext4 and an XFS that have changes in their journals only."""

    def __init__(self, folder: Path) -> None:
        ext = make(folder / "ext", "-t ext4 -b 4096")
        self.ext = crash(ext, "data=journal", rounds=3, before=prepare, more=unsettle)
        self.xfs = xfs_volume.make(folder / "xfs")
        with mounted(self.xfs) as inside:
            prepare(inside)
        with mounted(self.xfs) as inside:
            unsettle(inside)
            shut_down(inside, flush_log=True)
        self.path = folder / "disk.raw"
        make_disk(self.path, [(LINUX, self.ext), (LINUX, self.xfs)], size=200 * MIB)
        self.digest = hashlib.sha256(self.path.read_bytes()).digest()
        self.expected = {1: of_kernel(self.ext).told, 2: of_kernel(self.xfs).told}

    def volume(self, number: int) -> str:
        return f"{self.path}#p{number}"


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Disk]:
    """Whatever the tests do, the image has to be what it was."""
    pytest.importorskip("pytsk3")
    found = _Disk(tmp_path_factory.mktemp("unsettled"))
    yield found
    assert hashlib.sha256(found.path.read_bytes()).digest() == found.digest


@pytest.fixture(autouse=True)
def unchanged(disk: _Disk) -> Iterator[None]:
    """Which of them it was that wrote to it."""
    before = disk.path.stat().st_mtime_ns
    yield
    assert disk.path.stat().st_mtime_ns == before


@pytest.mark.parametrize("number", [1, 2])
def test_each_verb_shows_what_a_mount_would(program: Program, disk: _Disk, number: int) -> None:
    """Fails if a verb does not have the option, or reads content from where it lay before."""
    volume = disk.volume(number)
    before = program("ls", "-R", "--json", f"{volume}:/")
    assert before.exit_code in (0, 6)  # the disk alone need not make sense
    assert ADVICE in before.err
    assert NEW not in {line["path"] for line in before.json_lines}
    expected = disk.expected[number]
    after = program.ok("ls", "-R", "--json", "--replay-journal", f"{volume}:/")
    assert ADVICE not in after.err
    assert SAID in after.err
    paths = {line["path"] for line in after.json_lines} - {"/lost+found"}
    assert paths == set(expected)
    for call in (("tree", "--json", volume), ("find", volume, "--json")):
        lines = program.ok(*call, "--replay-journal").json_lines
        assert {line["path"] for line in lines} - {"/", "/lost+found"} == set(expected), call
    cut = program.ok("cat", "--replay-journal", f"{volume}:/cut").out
    assert (len(cut), hashlib.sha256(cut).hexdigest()) == (5000, expected["/cut"].content)
    assert len(program.ok("cat", f"{volume}:/cut").out) == 60_000
    facts = program.ok("stat", "--json", "--replay-journal", f"{volume}:/dressed").json
    assert facts["mtime"] == "2001-04-19T04:25:21.000000001Z"
    assert {item["name"] for item in facts["xattrs"]} == {f"user.small{at}" for at in range(6)}
    target = program.folder / f"out{number}"
    program.ok("cp", "-r", "--replay-journal", f"{volume}:/", target)
    for name, item in expected.items():
        if item.type.value == "file":
            content = (target / name[1:]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == item.content, name


def test_a_report_says_that_it_was_made_so(program: Program, disk: _Disk) -> None:
    """Fails if hashes are those of other bytes, or nobody sees where the files are from."""
    result = program.ok(
        "report", disk.path, "-o", "with.dfxml", "--hash", "sha256", "--replay-journal"
    )
    assert result.err.count(SAID) == 2
    text = (program.folder / "with.dfxml").read_text()
    assert text.count(SAID) == 2
    assert ADVICE not in text
    for found in disk.expected.values():
        assert found["/patched"].content in text
        assert found["/over there/renamed"].content in text
    program("report", disk.path, "-o", "without.dfxml", "--hash", "none")
    text = (program.folder / "without.dfxml").read_text()
    assert text.count(ADVICE) == 2
    assert "over there" not in text


@pytest.mark.oracle("fusermount3")
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse")
def test_a_mount_has_the_folders_so_and_the_disk_as_it_is(program: Program, disk: _Disk) -> None:
    """Fails if the raw disk is another one, or the folders are not those of a mount."""
    point = program.folder / "point"
    point.mkdir()
    program.ok("mount", "--replay-journal", disk.path, point)
    try:
        assert hashlib.sha256((point / "disk.raw").read_bytes()).digest() == disk.digest
        for number, path in ((1, disk.ext), (2, disk.xfs)):
            expected = disk.expected[number]
            assert (point / f"p{number}.raw").read_bytes() == path.read_bytes()
            names = {
                f"/{item.relative_to(point / f'p{number}')}"
                for item in (point / f"p{number}").rglob("*")
            }
            assert names - {"/lost+found"} == set(expected)
            content = (point / f"p{number}" / "patched").read_bytes()
            assert hashlib.sha256(content).hexdigest() == expected["/patched"].content
    finally:
        program.ok("unmount", point)


def test_programs_get_the_same_by_a_keyword(disk: _Disk) -> None:
    """Fails if Python or fsspec cannot ask for it, or get it without asking."""
    with imprint.open(disk.path, replay_journal=True) as image:
        assert image.filesystem("p2").stat(NEW).size == 60_000
        assert any(SAID in note for note in image.filesystem("p1").notes)
        assert image.read_at(0, 512) == disk.path.read_bytes()[:512]
    with imprint.open(disk.path) as image, pytest.raises(imprint.ImagingError):
        image.filesystem("p2").stat(NEW)
    fsspec.register_implementation("imprint", ImprintFileSystem, clobber=True)
    with pytest.warns(ReadWarning, match=SAID):
        system = fsspec.filesystem("imprint", disk=disk.volume(1), replay_journal=True)
    assert system.info(NEW)["size"] == 60_000
    whole = fsspec.filesystem("imprint", fo=str(disk.path), replay_journal=True)
    with pytest.warns(ReadWarning, match=SAID):
        found = whole.info(f"/p2{NEW}")
    assert found["size"] == 60_000
    system.close()
    whole.close()


def test_an_image_in_such_a_file_system_is_read_as_well(disk: _Disk) -> None:
    """Fails if a file is read as it lay on the disk where its content was asked for so."""
    with imprint.open(f"{disk.volume(2)}:/patched", format="raw", replay_journal=True) as image:
        content = image.read_at(0, image.size)
    expected = disk.expected[2]["/patched"]
    assert hashlib.sha256(content).hexdigest() == expected.content


def test_what_is_free_is_what_is_free_after_replaying(program: Program, disk: _Disk) -> None:
    """Fails if blocks of new files are given out as free ones."""
    program.ok(
        "cp", "--replay-journal", f"{disk.volume(1)}:/patched", "out", "--unallocated", "free"
    )
    free = (program.folder / "free").read_bytes()
    assert free
    assert (program.folder / "out" / "patched").read_bytes()[-700:] not in free
    text = subprocess.run(
        ["dumpe2fs", "-h", disk.ext], check=True, capture_output=True, text=True
    ).stdout
    assert "needs_recovery" in text  # nobody has replayed it on the disk
