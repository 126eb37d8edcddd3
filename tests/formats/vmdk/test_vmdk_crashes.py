"""VMDKs of several files, and descriptors, under programs that are killed and power that fails."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.events import Severity
from imprint.core.formats import Checkable, CreateSpec, Rebasable, parse_options
from imprint.core.units import GIB, KIB, MIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import RecordingStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

VMDK = formats.get("vmdk")
SECTOR = 512

# Each attempt is a process that ends without a word before its call number N of those that
# change files. They are forked from one process: starting Python for each would take long.
SCRIPT = """
import hashlib, json, os, re, subprocess, sys
from pathlib import Path
from imprint.core.extent import Kind
from imprint.endpoints import chains, copying, images
from imprint.endpoints.open import Access, open_image
from imprint.endpoints.target import TargetRequest

folder, scenario, *rest = sys.argv[1:]
os.chdir(folder)

def state():
    if not os.path.exists("disk.vmdk"):
        return None
    digest = hashlib.sha256()
    with open_image("disk.vmdk", Access()) as image:
        for extent in image.extents(0, image.size):
            if extent.kind is Kind.DATA:
                for at in range(extent.offset, extent.end, 65536):
                    piece = image.read_at(at, min(65536, extent.end - at)).rstrip(bytes(1))
                    if piece:
                        digest.update(at.to_bytes(8, "little") + piece)
        return [image.size, digest.hexdigest()]

def work(last):
    if scenario == "copy":
        options = {"subformat": rest[0]}
        target = TargetRequest("disk.vmdk", "vmdk", options, force=last or rest[1] == "force")
        copying.run(copying.CopyRequest("source.raw", target, workers=1, resume=False))
    elif scenario == "resize":
        images.resize("disk.vmdk", int(rest[0]), Access(), shrink=True)
    elif scenario == "commit":
        chains.commit("disk.vmdk", Access(), workers=1)
    else:
        chains.rebase("disk.vmdk", Access(), parent=rest[0])

def files():
    return sorted(os.listdir("."))

def mortal(call, counter):
    def attempt(*arguments, **options):
        counter[0] -= 1
        if counter[0] < 0:
            os._exit(9)
        return call(*arguments, **options)
    return attempt

def restore():
    subprocess.run("rm -rf ./*; cp -a --sparse=always ../kept/. .", shell=True, check=True)

CALLS = "pwrite pwritev rename replace link unlink ftruncate fdatasync fsync"
subprocess.run("rm -rf ../kept; cp -a --sparse=always . ../kept", shell=True, check=True)
before, after, deaths, code = state(), [], 0, 9
while code == 9:
    restore()
    child = os.fork()
    if child == 0:
        counter = [deaths]
        for call in CALLS.split():
            setattr(os, call, mortal(getattr(os, call), counter))
        work(False)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found = state()
    work(True)  # once more
    after.append([found, state(), files()])
    deaths += 1
restore()
work(False)
print(json.dumps({"before": before, "wanted": state(), "files": files(), "code": code,
                  "after": after}))
"""


def killed(folder: Path, *arguments: str) -> dict[str, Any]:
    """What was found after each death, and after the command was given again."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["code"] == 0
    assert len(result["after"]) > 3
    for found, again, _ in result["after"]:
        assert found in (result["before"], result["wanted"])
        assert again == result["wanted"]
    return result


def sparse(path: Path, size: int, *pieces: tuple[int, bytes]) -> None:
    """A raw disk with holes."""
    with path.open("wb") as file:
        for offset, data in pieces:
            file.seek(offset)
            file.write(data)
        file.truncate(size)


def imprint(folder: Path, *arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "imprint", *arguments], cwd=folder, check=True, capture_output=True
    )


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("subformat", ["twoGbMaxExtentSparse", "monolithicFlat"])
def test_a_copy_that_is_killed_shows_nothing(place: Path, subformat: str) -> None:
    """Fails if a descriptor is there before its files, or the same command cannot be completed."""
    sparse(place / "source.raw", 3 * GIB, (0, b"\x01" * MIB), (3 * GIB - 700, b"\x02" * 700))
    result = killed(place, "copy", subformat, "no")
    assert result["before"] is None
    for _, _, files in result["after"]:
        # Where the descriptor was there already, the second image had to take other names.
        assert [name.replace("-2.", ".") for name in files] == result["files"]


@pytest.mark.parametrize("old", ["twoGbMaxExtentSparse", "monolithicFlat"])
def test_an_image_that_is_replaced_is_whole_all_the_time(place: Path, old: str) -> None:
    """Fails if replacing an image of several files loses the old one before the new is there."""
    sparse(place / "source.raw", 3 * GIB, (0, b"\x01" * MIB), (2 * GIB, b"\x02" * 700))
    imprint(place, "convert", "-O", "vmdk", "-o", f"subformat={old}", "source.raw", "disk.vmdk")
    sparse(place / "source.raw", 4 * GIB, (MIB, b"\x03" * MIB), (4 * GIB - 700, b"\x04" * 700))
    result = killed(place, "copy", "twoGbMaxExtentSparse", "force")
    assert result["before"][0] == 3 * GIB
    assert len(result["files"]) == 5  # descriptor, three files, and the source
    wasted = sum(len(files) > 5 for _, _, files in result["after"])
    # Only where death came between the first file's name and the last old one's end.
    assert wasted <= 12 < len(result["after"]) // 2


@pytest.mark.parametrize("size", [2 * GIB - 512, 4 * GIB])
def test_a_flat_disk_that_is_resized_has_the_old_size_or_the_new(place: Path, size: int) -> None:
    """Fails if an interrupted change cannot be completed, or what was cut off comes back."""
    sparse(place / "s.raw", 3 * GIB, (0, b"\x01" * MIB), (2 * GIB + 9, b"\x02" * 9))
    subformat = "subformat=monolithicFlat"
    imprint(place, "convert", "-O", "vmdk", "-o", subformat, "s.raw", "disk.vmdk")
    (place / "s.raw").unlink()
    result = killed(place, "resize", str(size))
    assert [result["before"][0], result["wanted"][0]] == [3 * GIB, size]
    assert result["files"] == ["disk-flat.vmdk", "disk.vmdk"]


@pytest.mark.parametrize(
    ("kind", "size"), [("Sparse", GIB), ("Sparse", 5 * GIB), ("Flat", 2 * GIB), ("Flat", 5 * GIB)]
)
def test_a_split_disk_that_is_resized_has_the_old_size_or_the_new(
    place: Path, kind: str, size: int
) -> None:
    """Fails if the descriptor names a file that is not there, or bytes inside both are lost."""
    sparse(place / "source.raw", 3 * GIB, (0, b"\x01" * MIB), (GIB - 9, b"\x02" * 9))
    subformat = f"subformat=twoGbMaxExtent{kind}"
    imprint(place, "convert", "-O", "vmdk", "-o", subformat, "source.raw", "disk.vmdk")
    (place / "source.raw").unlink()
    result = killed(place, "resize", str(size))
    assert [result["before"][0], result["wanted"][0]] == [3 * GIB, size]
    assert result["before"][1] == result["wanted"][1]
    assert not [name for name in result["files"] if name.endswith(".partial")]
    assert len(result["files"]) == 1 + -(-size // (2047 * MIB))


@pytest.mark.parametrize("scenario", ["commit", "rebase"])
def test_a_delta_reads_as_before_whenever_it_is_killed(place: Path, scenario: str) -> None:
    """Fails if there is a moment at which the disk is another one, or cannot be opened."""
    other = f"{'x' * 180}.vmdk"  # so long that the descriptor's sectors all change
    for name, byte in (("base.vmdk", 1), (other, 2)):
        sparse(place / "s.raw", 3 * MIB, (0, bytes([byte]) * MIB), (2 * MIB, b"\x07" * 5000))
        imprint(place, "convert", "-O", "vmdk", "s.raw", name)
    (place / "s.raw").unlink()
    imprint(place, "create", "middle.vmdk", "--parent", "base.vmdk")
    imprint(place, "create", "disk.vmdk", "--parent", "middle.vmdk")
    image = VMDK.edit(_file(place / "disk.vmdk"), _gate())
    image.write(memoryview(b"\x05" * 100_000), MIB)
    image.commit()
    image.close()
    result = killed(place, scenario, other)
    assert result["before"] == result["wanted"]


def _file(path: Path) -> Any:  # noqa: ANN401
    from imprint.storage.file import FileStorage

    return FileStorage.open(path, writable=True)


def _gate() -> Any:  # noqa: ANN401
    from imprint.endpoints.gate import FolderGate

    return FolderGate()


def delta() -> tuple[bytes, DictOpener, str]:
    """A delta disk, its world, and the long name of another parent."""
    long = "y" * 700 + ".vmdk"
    world: dict[str, MemoryStorage] = {}
    for name in ("base.vmdk", long):
        world[name] = MemoryStorage(name=name)
        spec = CreateSpec(MIB, DictOpener(), parse_options("vmdk", VMDK.options, {}))
        image = VMDK.create(world[name], spec)
        image.write(memoryview(b"\x01" * MIB), 0)
        image.commit()
    opener = DictOpener(files=world)
    reference = Reference("base.vmdk", "vmdk")
    parent = VMDK.open(world["base.vmdk"], opener)
    storage = MemoryStorage(name="disk.vmdk")
    options = parse_options("vmdk", VMDK.options, {})
    image = VMDK.create(storage, CreateSpec(MIB, opener, options, reference, parent))
    image.write(memoryview(b"\x02" * 1000), 64 * KIB)
    image.commit()
    return bytes(storage.content), opener, long


def test_a_rebase_under_a_power_cut_names_the_old_parent_or_the_new() -> None:
    """Fails if a descriptor of more than a sector is torn, or a repair does not put it back."""
    content, opener, long = delta()
    storage = RecordingStorage(content, name="disk.vmdk")
    assert isinstance(VMDK, Rebasable)
    assert isinstance(VMDK, Checkable)
    VMDK.set_parent(storage, opener, Reference(long, "vmdk"))
    expected = b"\x01" * 64 * KIB + b"\x02" * 1000 + b"\x01" * 100
    strays = 0
    for count, survived in storage.crashes(random.Random(5), variants=6):
        image = VMDK.open(survived, opener)
        assert image.info().parent in ("base.vmdk", long), count
        assert image.info().notes == ()
        assert image.read_at(0, len(expected)) == expected
        named = image.info().parent
        findings = list(VMDK.check(survived, opener, repair=True))
        assert all(item.repaired and item.severity is Severity.WARNING for item in findings)
        strays += len(findings)
        assert list(VMDK.check(survived, opener, repair=False)) == []
        assert VMDK.open(survived, opener).info().parent == named
        # Sector 1 is where QEMU looks, whatever the header says.
        assert int.from_bytes(survived.content[28:36], "little") == 1
        assert f'parentFileNameHint="{named}"'.encode() in survived.content[SECTOR : 21 * SECTOR]
    assert strays
    assert storage.size == len(content)


def test_a_stray_descriptor_can_be_written() -> None:
    """Fails if an image whose rebase was interrupted is damaged by the next write."""
    content, opener, long = delta()
    storage = RecordingStorage(content, name="disk.vmdk")
    assert isinstance(VMDK, Rebasable)
    VMDK.set_parent(storage, opener, Reference(long, "vmdk"))
    for count, survived in storage.crashes(random.Random(6)):
        image = VMDK.edit(survived, opener)
        named = image.info().parent
        image.write(memoryview(b"\x09" * 200_000), 300_000)
        image.resize(2 * MIB)
        image.commit()
        again = VMDK.open(survived, opener)
        assert again.read_at(300_000, 200_001) == b"\x09" * 200_000 + b"\x01", count
        assert (again.info().parent, again.size) == (named, 2 * MIB)
