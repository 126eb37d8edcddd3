"""Every kind of extent, made by hand: what QEMU leaves out, or cannot write."""

from __future__ import annotations

import struct

import pytest

from imprint import formats
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    ReadError,
    ReferenceRefusedError,
    TruncatedImageError,
    UnsupportedFeatureError,
)
from imprint.core.extent import Kind
from imprint.core.formats import Match
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

VMDK = formats.get("vmdk")
SECTOR = 512
HEAD = "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"


def text(*lines: str, head: str = HEAD, kind: str = "custom") -> MemoryStorage:
    """A descriptor with extent lines, as a file."""
    content = head + f'createType="{kind}"\n\n' + "\n".join(lines) + "\n\n#DDB\n"
    return MemoryStorage(content.encode(), name="disk.vmdk")


def pattern(byte: int, sectors: int) -> bytes:
    return bytes([byte]) * sectors * SECTOR


def cowd(grains: dict[int, bytes], sectors: int, grain: int = 16) -> bytes:
    """A COWD file: header of four sectors, a directory, one table of 4096 entries, grains."""
    data_at = 4 + 1 + 32
    header = struct.pack("<4s7I", b"COWD", 1, 3, sectors, grain, 4, 1, data_at)
    table = [0] * 4096
    stored = b""
    for at, (index, content) in enumerate(grains.items()):
        table[index] = data_at + at * grain
        stored += content
    directory = struct.pack("<I", 5).ljust(SECTOR, b"\0")
    return header.ljust(2048, b"\0") + directory + struct.pack("<4096I", *table) + stored


def sesparse(entries: dict[int, int], sectors: int, stored: bytes, replay: int = 0) -> bytes:
    """A SESparse file: headers, a directory at 8, one table at 16, grains at 80."""
    fields = [0xCAFEBABE, 0x200000001, sectors, 8, 64, 0, 0, 0, 0, 0]
    fields += [1, 1, 0, 0, 0, 0, 8, 8, 16, 64, 0, 0, 0, 0, 80, len(stored) // SECTOR]
    constant = struct.pack("<26Q", *fields).ljust(SECTOR, b"\0")
    volatile = struct.pack("<4Q", 0xCAFECAFE, 0, 0, replay).ljust(SECTOR, b"\0")
    directory = struct.pack("<Q", 0x10000000 << 32).ljust(8 * SECTOR, b"\0")
    table = [entries.get(index, 0) for index in range(4096)]
    head = (constant + volatile).ljust(8 * SECTOR, b"\0")
    return head + directory + struct.pack("<4096Q", *table) + stored


def test_every_line_counts_toward_the_address_space() -> None:
    """Fails if a line that is read-only, or zeros, is left out and later data moves."""
    files = {
        "a.img": MemoryStorage(pattern(1, 4) + pattern(2, 4)),
        "b.img": MemoryStorage(pattern(9, 2) + pattern(3, 4)),
        "c.vmdk": MemoryStorage(cowd({0: pattern(4, 16)}, 16)),
    }
    disk = text(
        'RW 4 FLAT "a.img" 0',
        "RW 3 ZERO",
        'RDONLY 4 FLAT "a.img" 4',
        "RDONLY 5 ZERO",
        'RW 4 VMFS "b.img" 2',
        'RW 16 VMFSSPARSE "c.vmdk"',
        'RW 2 VMFS "b.img"',
    )
    image = VMDK.open(disk, DictOpener(files=files))
    expected = pattern(1, 4) + bytes(3 * SECTOR) + pattern(2, 4) + bytes(5 * SECTOR)
    expected += pattern(3, 4) + pattern(4, 16) + pattern(9, 2)
    assert image.size == 38 * SECTOR
    assert image.read_at(0, image.size) == expected
    assert image.info().options["extents"] == 7


def test_what_may_not_be_accessed_is_an_error_and_not_zeros() -> None:
    """Fails if NOACCESS reads as zeros, or makes its neighbours unreadable."""
    files = {"a.img": MemoryStorage(pattern(1, 8))}
    disk = text('RW 4 FLAT "a.img" 0', 'NOACCESS 4 FLAT "b.img" 0', 'RW 4 FLAT "a.img" 4')
    image = VMDK.open(disk, DictOpener(files=files))
    assert image.read_at(0, 4 * SECTOR) == pattern(1, 4)
    assert image.read_at(8 * SECTOR, 4 * SECTOR) == pattern(1, 4)
    for offset, length in ((4 * SECTOR, 1), (0, image.size), (8 * SECTOR - 1, 2)):
        with pytest.raises(ReadError, match="NOACCESS"):
            image.read_at(offset, length)
    kinds = [extent.kind for extent in image.extents(0, image.size)]
    assert kinds == [Kind.DATA, Kind.ENCODED, Kind.DATA]


def test_a_zero_extent_hides_the_parent() -> None:
    """Fails if ZERO is taken for a hole that a parent fills."""
    parent = text('RW 8 FLAT "p.img" 0')
    files = {
        "p.img": MemoryStorage(pattern(7, 40)),
        "parent.vmdk": parent,
        "d.vmdk": MemoryStorage(cowd({}, 16)),
    }
    head = HEAD.replace("parentCID=ffffffff", "parentCID=12345678")
    head += 'parentFileNameHint="parent.vmdk"\n'
    child = text("RW 4 ZERO", 'RW 16 VMFSSPARSE "d.vmdk"', head=head)
    image = VMDK.open(child, DictOpener(files=files))
    assert image.read_at(0, 20 * SECTOR) == bytes(4 * SECTOR) + pattern(7, 4) + bytes(12 * SECTOR)
    assert image.info().notes == ()


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("RW x FLAT 0", CorruptImageError),
        ("RW 4 FLAT", CorruptImageError),
        ('RW 4 VMFSRDM "a.img"', UnsupportedFeatureError),
        ('RW 4 VMFSRAW "a.img"', UnsupportedFeatureError),
        ('RW 99999999999999999999 FLAT "a.img" 0', CorruptImageError),
        ('RW 4 FLAT "a.img" 99999999999999999999', CorruptImageError),
        ('RW 4 SPARSE "a.img"', CorruptImageError),
        ('RW 4 FLAT "../etc/passwd" 0', ReferenceRefusedError),
        ("", CorruptImageError),
    ],
)
def test_a_line_that_makes_no_sense_is_one_error(line: str, error: type[ImagingError]) -> None:
    """Fails if a line is skipped, or the error is not ours."""
    with pytest.raises(error):
        VMDK.open(text(line), DictOpener(files={"a.img": MemoryStorage(pattern(1, 4))}))


def test_a_flat_file_that_is_too_short_is_an_error() -> None:
    """Fails if what is missing reads as zeros."""
    files = {"a.img": MemoryStorage(pattern(1, 4))}
    image = VMDK.open(text('RW 8 FLAT "a.img" 0'), DictOpener(files=files))
    assert image.read_at(0, 4 * SECTOR) == pattern(1, 4)
    with pytest.raises(TruncatedImageError):
        image.read_at(4 * SECTOR, 1)


def test_cowd_is_read_alone_and_through_its_descriptor() -> None:
    """Fails if a table of 4096 entries, or a disk's cut-off last grain, is read wrongly."""
    content = cowd({0: pattern(1, 16), 2: pattern(2, 16), 1: pattern(3, 16)}, 100)
    expected = pattern(1, 16) + pattern(3, 16) + pattern(2, 16) + bytes(52 * SECTOR)
    alone = VMDK.open(MemoryStorage(content), DictOpener())
    assert alone.read_at(0, alone.size) == expected
    assert alone.info().notes
    files = {"d.vmdk": MemoryStorage(content)}
    whole = VMDK.open(text('RW 90 VMFSSPARSE "d.vmdk"'), DictOpener(files=files))
    assert whole.read_at(0, whole.size) == expected[: 90 * SECTOR]
    with pytest.raises(CorruptImageError):
        VMDK.open(text('RW 101 VMFSSPARSE "d.vmdk"'), DictOpener(files=files))


def test_sesparse_entries_are_unswizzled() -> None:
    """Fails if the type or the two halves of a grain's number are read wrongly."""
    entries = {
        0: 0x3 << 60 | 1 << 48,  # grain 1: the low twelve bits stand above
        1: 0x3 << 60,
        3: 0x1 << 60 | 5,
        4: 0x2 << 60,
    }
    content = sesparse(entries, 60, pattern(1, 8) + pattern(2, 8))
    expected = pattern(2, 8) + pattern(1, 8) + bytes(44 * SECTOR)
    image = VMDK.open(MemoryStorage(content), DictOpener())
    assert image.read_at(0, image.size) == expected
    kinds = [(extent.kind, extent.length // SECTOR) for extent in image.extents(0, image.size)]
    assert kinds[-3:] == [(Kind.HOLE, 8), (Kind.ZERO, 16), (Kind.HOLE, 20)]
    far = MemoryStorage(sesparse({0: 0x3 << 60 | 1}, 60, b""))  # grain 4096: not in the file
    with pytest.raises(TruncatedImageError):
        VMDK.open(far, DictOpener()).read_at(0, 1)
    wrong = MemoryStorage(sesparse({0: 0x5 << 60}, 60, b""))
    with pytest.raises(CorruptImageError):
        VMDK.open(wrong, DictOpener()).read_at(0, 1)


def test_a_sesparse_journal_is_not_ignored() -> None:
    """Fails if a disk that a host was still writing is read as if it were whole."""
    with pytest.raises(UnsupportedFeatureError, match="journal"):
        VMDK.open(MemoryStorage(sesparse({}, 60, b"", replay=1)), DictOpener())


def test_all_kinds_of_file_are_found() -> None:
    """Fails if a probe misses one, or takes something else for it."""
    for content in (
        cowd({}, 16),
        sesparse({}, 8, b""),
        b"# Disk DescriptorFile\n",
        b"# disk descriptorfile\r\n",
        b"KDMV" + bytes(600),
    ):
        assert VMDK.probe(MemoryStorage(content)) is Match.STRONG
        assert formats.detect(MemoryStorage(content)) == "vmdk"
    assert VMDK.probe(MemoryStorage(b"\xbe\xba\xfe\xca" + b"\1" * 60)) is Match.NO


def test_a_file_in_another_encoding_is_found() -> None:
    """Fails if a name is taken for UTF-8 although the descriptor says that it is not."""
    head = HEAD.replace("version=1\n", 'version=1\nencoding="windows-1252"\n')
    content = (head + 'RW 4 FLAT "äöü.img" 0\n').encode("windows-1252")
    files = {"äöü.img": MemoryStorage(pattern(6, 4))}
    image = VMDK.open(MemoryStorage(content), DictOpener(files=files))
    assert image.read_at(0, 1) == b"\x06"


def test_descriptors_of_other_programs_are_read() -> None:
    """Fails on Windows line ends, odd spaces, or an extent with further words."""
    lines = (
        "# Disk DescriptorFile",
        "version = 1",
        'CID = "0000AbCd"',
        "parentCID=FFFFFFFF",
        'createType="monolithicFlat"',
        '  RW   4  FLAT  "a b.img"  0 partitionUUID 12 device',
        'ddb.adapterType = "lsilogic"',
    )
    disk = MemoryStorage("\r\n".join(lines).encode())
    image = VMDK.open(disk, DictOpener(files={"a b.img": MemoryStorage(pattern(5, 4))}))
    info = image.info()
    assert image.read_at(0, 4 * SECTOR) == pattern(5, 4)
    assert info.options["cid"] == "0000abcd"
    assert info.options["adapter_type"] == "lsilogic"
    assert info.parent is None
    assert info.data_file == "a b.img"


def test_a_parent_that_moved_is_found_by_its_name() -> None:
    """Fails if a path of the machine where it was made is needed for ever."""
    files = {
        "p.img": MemoryStorage(pattern(7, 16)),
        "parent.vmdk": text('RW 16 FLAT "p.img" 0'),
        "d.vmdk": MemoryStorage(cowd({}, 16)),
    }
    head = HEAD.replace("parentCID=ffffffff", "parentCID=deadbeef")
    for hint in ("parent.vmdk", r"C:\VMs\old\parent.vmdk", "/vmfs/volumes/1/parent.vmdk"):
        child = text('RW 16 VMFSSPARSE "d.vmdk"', head=head + f'parentFileNameHint="{hint}"\n')
        image = VMDK.open(child, DictOpener(files=files))
        assert image.read_at(0, 512) == pattern(7, 1)
        assert "deadbeef" in image.info().notes[0]
    missing = text('RW 16 VMFSSPARSE "d.vmdk"', head=head + 'parentFileNameHint="x.vmdk"\n')
    with pytest.raises(ReferenceRefusedError):
        VMDK.open(missing, DictOpener(files=files))
    with pytest.raises(ReferenceRefusedError, match="parentFileNameHint"):
        VMDK.open(text('RW 16 VMFSSPARSE "d.vmdk"', head=head), DictOpener(files=files))
