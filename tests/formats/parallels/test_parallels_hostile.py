"""Parallels headers and tables that lie: refused by name, before anything is allocated."""

from __future__ import annotations

import struct

import pytest

from imprint import formats
from imprint.core.errors import (
    CorruptImageError,
    FormatError,
    TruncatedImageError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import Severity
from imprint.core.formats import Checkable, CreateSpec, Resuming
from imprint.core.units import MIB, TIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.format_faults import bounded_memory
from imprint.testing.opener import DictOpener

PARALLELS = formats.get("parallels")
OPENER = DictOpener()
CLUSTER = 4096


def image() -> bytes:
    """Eight clusters, of which the first three are written."""
    storage = MemoryStorage()
    spec = CreateSpec(8 * CLUSTER, OPENER, {"cluster_size": CLUSTER})
    target = PARALLELS.create(storage, spec)
    target.write(memoryview(b"\x01" * 3 * CLUSTER), 0)
    target.commit()
    return bytes(storage.content)


def patched(at: int, code: str, value: int) -> MemoryStorage:
    content = bytearray(image())
    struct.pack_into(f"<{code}", content, at, value)
    return MemoryStorage(bytes(content), name="disk.hds")


@pytest.mark.parametrize(
    ("at", "code", "value", "error", "message"),
    [
        (0x00, "I", 0, CorruptImageError, "magic at 0x0"),
        (0x10, "I", 3, UnsupportedFeatureError, "version at 0x10"),
        (0x1C, "I", 0, CorruptImageError, "cluster_sectors at 0x1c"),
        (0x1C, "I", 0xFFFFFFFF, UnsupportedFeatureError, "cluster_sectors at 0x1c"),
        (0x1C, "I", 1, CorruptImageError, "bat_entries at 0x20"),
        (0x20, "I", 7, CorruptImageError, "bat_entries at 0x20"),
        (0x20, "I", 0xFFFFFFFF, UnsupportedFeatureError, "bat_entries at 0x20"),
        (0x20, "I", 1 << 25, TruncatedImageError, "bat_entries at 0x20"),
        (0x24, "Q", 1 << 60, CorruptImageError, "bat_entries at 0x20"),
    ],
)
def test_a_header_that_lies_is_refused_by_field(
    at: int, code: str, value: int, error: type[FormatError], message: str
) -> None:
    """Fails if a field is believed, or the message does not lead to it."""
    storage = patched(at, code, value)
    for open_ in (PARALLELS.open, PARALLELS.edit):
        with bounded_memory(64 * MIB), pytest.raises(FormatError, match=message) as caught:
            open_(storage, OPENER)
        assert type(caught.value) is error
        assert str(caught.value).startswith("disk.hds: ")


@pytest.mark.parametrize("value", [5, 1 << 20, 0xFFFFFFFF])
def test_a_cluster_behind_the_end_is_an_error(value: int) -> None:
    """Fails if it reads as zeros, or the image can be written all the same."""
    storage = patched(0x40, "I", value)
    with pytest.raises(TruncatedImageError):
        PARALLELS.open(storage, OPENER).read_at(0, CLUSTER)
    with pytest.raises(CorruptImageError, match="inside the file"):
        PARALLELS.edit(storage, OPENER)


def test_two_clusters_in_one_place_are_not_written() -> None:
    """Fails if one would overwrite the other; both can be read, and the check tells."""
    storage = patched(0x44, "I", 1)
    assert PARALLELS.open(storage, OPENER).read_at(0, 2 * CLUSTER) == b"\x01" * 2 * CLUSTER
    with pytest.raises(CorruptImageError, match="a place of its own"):
        PARALLELS.edit(storage, OPENER)
    assert isinstance(PARALLELS, Checkable)
    findings = list(PARALLELS.check(storage, OPENER, repair=False))
    assert [found.severity for found in findings] == [Severity.ERROR, Severity.INFO]
    assert "0x44" in findings[0].where


def test_a_cluster_in_the_table_is_an_error() -> None:
    """Fails if the header can be read, or overwritten, as a part of the disk."""
    content = bytearray(image())
    struct.pack_into("<16s", content, 0, b"WithoutFreeSpace")  # entries count sectors now
    entries = struct.unpack_from("<8I", content, 0x40)
    struct.pack_into("<8I", content, 0x40, *(entry * 8 for entry in entries))
    assert PARALLELS.open(MemoryStorage(bytes(content)), OPENER).read_at(0, 1) == b"\x01"
    struct.pack_into("<I", content, 0x20, 128)  # a table beyond the first sector
    struct.pack_into("<I", content, 0x40, 1)
    storage = MemoryStorage(bytes(content))
    with pytest.raises(CorruptImageError, match="behind the table"):
        PARALLELS.open(storage, OPENER).read_at(0, 512)
    with pytest.raises(CorruptImageError):
        PARALLELS.edit(storage, OPENER)


def test_an_image_with_an_extension_is_only_read() -> None:
    """Fails if dirty bitmaps would be left behind that no longer tell the truth."""
    storage = patched(0x38, "Q", 8)
    disk = PARALLELS.open(storage, OPENER)
    assert disk.read_at(0, 3 * CLUSTER) == b"\x01" * 3 * CLUSTER
    assert any("extension" in note for note in disk.info().notes)
    with pytest.raises(UnsupportedFeatureError, match="extension"):
        PARALLELS.edit(storage, OPENER)


def test_clusters_off_the_grid_are_only_read() -> None:
    """Fails if a version 1 image with odd places is written by guessing its slots."""
    content = bytearray(image())
    struct.pack_into("<16s", content, 0, b"WithoutFreeSpace")
    struct.pack_into("<8I", content, 0x40, 9, 0, 0, 0, 0, 0, 0, 0)
    storage = MemoryStorage(bytes(content), name="disk.hds")
    assert PARALLELS.open(storage, OPENER).read_at(0, CLUSTER) == b"\x01" * CLUSTER
    with pytest.raises(CorruptImageError, match="whole clusters"):
        PARALLELS.edit(storage, OPENER)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (MIB, {"cluster_size": 0}),
        (MIB, {"cluster_size": 1000}),
        (MIB, {"cluster_size": 512 * MIB}),
        (64 * TIB, {"cluster_size": MIB}),
    ],
)
def test_requests_without_sense_are_refused(size: int, options: dict[str, int]) -> None:
    """Fails if an image is begun that nobody can read."""
    with pytest.raises(UsageError):
        PARALLELS.create(MemoryStorage(), CreateSpec(size, OPENER, options))


def test_a_disk_of_an_odd_size_is_padded_to_whole_sectors() -> None:
    """Fails if its last bytes are lost, or an unfinished copy of it cannot be taken up."""
    storage = MemoryStorage(name="disk.hds")
    spec = CreateSpec(1000, OPENER, {"cluster_size": CLUSTER})
    target = PARALLELS.create(storage, spec)
    target.write(memoryview(b"\x05" * 1000), 0)
    target.commit()
    assert PARALLELS.open(storage, OPENER).read_at(0, 2000) == b"\x05" * 1000 + bytes(24)
    assert isinstance(PARALLELS, Resuming)
    assert PARALLELS.resume(storage, spec).size == 1024
    with pytest.raises(CorruptImageError, match="unfinished"):
        PARALLELS.resume(storage, CreateSpec(5000, OPENER))
