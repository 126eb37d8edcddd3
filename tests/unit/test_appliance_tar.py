"""Tar archives of packages: our headers against tarfile, and its archives read by us."""

from __future__ import annotations

import contextlib
import io
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.codecs import tar
from imprint.core.errors import CorruptImageError, ImagingError, UsageError
from imprint.core.units import align_up
from imprint.endpoints.appliance import package
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing import oracles

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
DESCRIPTOR = b"""<Envelope xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
<References><File ovf:id="f" ovf:href="a.vmdk" ovf:size="3"/></References>
<DiskSection><Disk ovf:fileRef="f" ovf:capacity="2" ovf:capacityAllocationUnits="byte * 2^30"/>
</DiskSection></Envelope>"""


def _archive(files: dict[str, bytes], **options: Any) -> bytes:  # noqa: ANN401 - tarfile's own
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def _found(data: bytes) -> list[tuple[str, int, int]]:
    return [(one.name, one.offset, one.size) for one in tar.members(MemoryStorage(data))]


@pytest.mark.parametrize("is_gnu", [False, True])
@pytest.mark.parametrize("size", [0, 1, 8 * GIB - 1, 8 * GIB, 1 << 50])
def test_headers_say_what_tarfile_reads(size: int, is_gnu: bool) -> None:
    """Fails if a size from 8 GiB on is cut, or a small one leaves the ustar format."""
    block = tar.header("disk.vmdk", size, 1_700_000_000, is_gnu=is_gnu)
    info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    assert (info.name, info.size, info.mtime, info.mode) == (
        "disk.vmdk",
        size,
        1_700_000_000,
        0o644,
    )
    assert info.isreg()
    assert block[257:265] == (b"ustar  \0" if is_gnu or size >= 8 * GIB else b"ustar\x0000")


def test_small_headers_are_those_of_the_standard_library() -> None:
    """Fails if a field that few programs look at is another one than usual."""
    info = tarfile.TarInfo("a.ovf")
    info.size, info.mtime = 12345, 1_700_000_000
    posix, gnu = info.tobuf(tarfile.USTAR_FORMAT), info.tobuf(tarfile.GNU_FORMAT)
    for is_gnu, block in ((False, posix), (True, gnu)):
        expected = bytearray(block)
        expected[148:156] = b" " * 8  # the checksum; some end it otherwise
        ours = bytearray(tar.header("a.ovf", 12345, 1_700_000_000, is_gnu=is_gnu))
        ours[148:156] = b" " * 8
        assert ours[:329] == expected[:329]


def test_a_time_that_has_no_room_is_refused() -> None:
    """Fails if SOURCE_DATE_EPOCH can end in a traceback."""
    with pytest.raises(UsageError):
        tar.header("a", 0, 10**30)


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_are_found_where_they_are(kind: int) -> None:
    """Fails if an extension for names is not understood, or an offset is wrong."""
    files = {"a.ovf": b"x" * 700, "dir/" + "n" * 90: b"", "b": b"y" * 512}
    if kind != tarfile.USTAR_FORMAT:
        files["ü" * 120] = b"long"
    data = _archive(files, format=kind)
    found = _found(data)
    assert {name: data[start : start + size] for name, start, size in found} == files


def test_sizes_of_other_programs_are_understood() -> None:
    """Fails if a pax header's or GNU's size is not that of the file."""
    big = tar.header("a", 8 * GIB, 0)
    with pytest.raises(CorruptImageError, match="8589934592 bytes"):
        _found(big + bytes(2048))
    pax = _archive({"a": bytes(5)}, format=tarfile.PAX_FORMAT, pax_headers={})
    wide = bytearray(_archive({"x" * 120: bytes(5)}, format=tarfile.PAX_FORMAT))
    assert _found(pax)[0][2] == _found(bytes(wide))[0][2] == 5


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 512,
        _archive({"a.ovf": b"x" * 700})[:100],
        _archive({"a.ovf": b"x" * 700})[:1000],
        _archive({"a.ovf": b""})[:512] * 5000,
        tar.header("a", 1 << 80, 0),
        _archive({"a.ovf": b"x"}).replace(b"a.ovf", b"b.ovf", 1),
    ],
)
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    """Fails if damage is taken for the end of the archive."""
    if data:
        with pytest.raises(CorruptImageError):
            package.read(MemoryStorage(data))
        return
    with pytest.raises(CorruptImageError, match="descriptor"):
        package.read(MemoryStorage(data))


def test_a_capacity_has_its_unit() -> None:
    """Fails if 2 x 2^30 is taken for 2 bytes."""
    data = _archive({"a.ovf": DESCRIPTOR, "a.vmdk": b"abc"})
    found = package.read(MemoryStorage(data))
    assert found.disks[0].capacity == 2 * GIB
    assert found.files[0].size == found.disks[0].member.size == 3


@given(st.data())
def test_any_bytes_give_a_package_or_one_error(data: st.DataObject) -> None:
    """Fails if a damaged package ends in another exception."""
    content = bytearray(_archive({"a.ovf": DESCRIPTOR, "a.mf": b"SHA1(a)= 0", "a.vmdk": b"abc"}))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 2047))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(content), 512, 1024, 3000]))
    with contextlib.suppress(ImagingError):
        package.read(MemoryStorage(content[:cut]))


@pytest.mark.parametrize(
    "descriptor",
    [
        b"<a>" * 300_000,
        b"<a>" * 100_000 + b"</a>" * 100_000,
        DESCRIPTOR.replace(b"<DiskSection>", b"<DiskSection>" + b'<Disk ovf:fileRef="f"/>' * 300),
        b"\xff\xfe" + b"x" * 100,
        b'<?xml version="1.0" encoding="nonsense"?><a/>',
        b" " * (1 << 20) + b"<a/>",
    ],
)
def test_a_descriptor_without_end_or_sense_is_refused(descriptor: bytes) -> None:
    """Fails if a package can take up time or memory, or end in another exception."""
    files = {"a.ovf": descriptor, "a.vmdk": b"abc"}
    try:
        found = package.read(MemoryStorage(_archive(files)))
    except CorruptImageError:
        return
    assert not found.disks


@pytest.mark.oracle("tar")
@pytest.mark.parametrize("size", [8 * GIB - 1, 9 * GIB])
def test_gnu_tar_lists_a_large_file(tmp_path: Path, size: int) -> None:
    """Fails if the size of a disk of 8 GiB or more is not what other programs read."""
    path = tmp_path / "large.ova"
    end = tar.BLOCK + align_up(size, tar.BLOCK)
    with path.open("wb") as file:
        file.write(tar.header("large.vmdk", size, 0))
        file.truncate(tar.end_of(end))
    listed = oracles.run("tar", "--list", "--verbose", "--file", path)
    assert f" {size} " in listed.stdout
    assert listed.stderr == ""
    with closing(FileStorage.open(path)) as storage:
        assert list(tar.members(storage)) == [tar.Member("large.vmdk", tar.BLOCK, size)]
