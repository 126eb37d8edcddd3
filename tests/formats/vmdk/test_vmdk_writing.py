"""What is written: the layout to the sector, several files at once, and edits in place."""

from __future__ import annotations

import random
import struct
import zlib
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    RefusedError,
    TargetError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import Severity
from imprint.core.extent import Kind
from imprint.core.formats import Checkable, CreateSpec, Rebasable, parse_options
from imprint.core.image import WritableImage
from imprint.core.units import GIB, KIB, MIB, TIB
from imprint.endpoints.gate import FolderGate
from imprint.endpoints.location import parse
from imprint.endpoints.open import Access
from imprint.endpoints.target import TargetGate
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import PendingFile
from imprint.storage.stream import StreamStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Target
    from imprint.core.events import Finding

VMDK = formats.get("vmdk")
OPENER = DictOpener()
SECTOR = 512
UUID = "3f2504e0-4f89-11d3-9a0c-0305e82c3301"


def spec(size: int, **options: str) -> CreateSpec:
    return CreateSpec(size, OPENER, parse_options("vmdk", VMDK.options, options))


def create(size: int, **options: str) -> tuple[MemoryStorage, WritableImage]:
    storage = MemoryStorage(name="disk.vmdk")
    image = VMDK.create(storage, spec(size, **options))
    assert isinstance(image, WritableImage)
    return storage, image


def in_folder(folder: Path, size: int, **options: str) -> Target:
    path = folder / "disk.vmdk"
    gate = TargetGate(Access(), parse(str(path)))
    asked = CreateSpec(size, gate, parse_options("vmdk", VMDK.options, options))
    storage = PendingFile.create(path, may_replace=True)
    try:
        return VMDK.create(storage, asked)
    except BaseException:
        storage.abort()
        raise


def u32(content: bytes | bytearray, at: int) -> int:
    return int(struct.unpack_from("<I", content, at)[0])


def u64(content: bytes | bytearray, at: int) -> int:
    return int(struct.unpack_from("<Q", content, at)[0])


def findings(storage: MemoryStorage, *, repair: bool = False) -> list[Finding]:
    assert isinstance(VMDK, Checkable)
    return list(VMDK.check(storage, OPENER, repair=repair))


def test_the_layout_is_that_of_the_specification() -> None:
    """Fails if a field stands elsewhere, or the compression is aligned, which it is not."""
    storage, image = create(100 * MIB)
    image.write(memoryview(b"\x11" * 64 * KIB), 64 * MIB)
    image.commit()
    content = storage.content
    assert content[:4] == b"KDMV"
    assert (u32(content, 4), u32(content, 8)) == (1, 3)
    assert (u64(content, 12), u64(content, 20)) == (100 * MIB // SECTOR, 128)
    assert (u64(content, 28), u64(content, 36)) == (1, 20)
    assert u32(content, 44) == 512
    assert content[73:77] == b"\n \r\n"
    assert content[77:512] == bytes(435)
    redundant, directory = u64(content, 48) * SECTOR, u64(content, 56) * SECTOR
    assert redundant == 21 * SECTOR
    for place in (redundant, directory):
        tables = [u32(content, place + 4 * number) for number in range(4)]
        assert tables[1] - tables[0] == tables[3] - tables[2] == 4
        assert u32(content, tables[2] * SECTOR) == u64(content, 64)
    first = u64(content, 64) * SECTOR
    assert first % (64 * KIB) == 0
    assert content[first:] == b"\x11" * 64 * KIB


def test_the_descriptor_is_what_other_programs_read() -> None:
    """Fails if a line is missing, or what is needed to open it leaves the first sector."""
    storage, _ = create(5 * MIB, uuid=UUID, adapter_type="lsilogic", hwversion="13")
    text = bytes(storage.content[SECTOR : 21 * SECTOR]).split(b"\0")[0].decode()
    lines = text.splitlines()
    assert lines[0] == "# Disk DescriptorFile"
    assert 'createType="monolithicSparse"' in lines
    assert "parentCID=ffffffff" in lines
    assert 'RW 10240 SPARSE "disk.vmdk"' in lines
    assert 'ddb.adapterType = "lsilogic"' in lines
    assert 'ddb.virtualHWVersion = "13"' in lines
    assert text.index("RW 10240") < 400


def test_a_given_uuid_makes_the_same_bytes_twice() -> None:
    """Fails if anything random is left."""
    for subformat in ("monolithicSparse", "streamOptimized"):
        made = []
        for _ in range(2):
            storage = MemoryStorage(name="x.vmdk")
            image = VMDK.create(storage, spec(MIB, uuid=UUID, subformat=subformat))
            image.write(memoryview(b"\x01" * 512), 0)
            image.commit()
            made.append(bytes(storage.content))
        assert made[0] == made[1]
        assert VMDK.open(MemoryStorage(made[0]), OPENER).info().uuid == UUID
    assert create(MIB)[0].content != create(MIB)[0].content


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (MIB, {"grain_size": "3M"}),
        (MIB, {"grain_size": "2K"}),
        (MIB, {"grain_size": "12K"}),
        (MIB, {"subformat": "vmfs"}),
        (MIB, {"level": "3"}),
        (MIB, {"level": "10", "subformat": "streamOptimized"}),
        (MIB, {"hwversion": "x"}),
        (MIB, {"uuid": "x"}),
        (MIB, {"zeroed_grain": "on", "subformat": "monolithicFlat"}),
        (64 * TIB, {}),
    ],
)
def test_what_cannot_be_made_is_refused(size: int, options: dict[str, str]) -> None:
    """Fails if a nonsensical request leaves a file that nothing reads."""
    storage = MemoryStorage()
    with pytest.raises(UsageError):
        VMDK.create(storage, spec(size, **options))
    assert storage.content == b""


@pytest.mark.parametrize("level", ["0", "2", "9"])
def test_a_stream_has_every_marker_where_vmware_wants_it(level: str) -> None:
    """Fails if grains do not ascend, a table is elsewhere than said, or an end is missing."""
    size = 70 * MIB + 512
    storage = MemoryStorage(name="disk.vmdk")
    target = VMDK.create(storage, spec(size, subformat="streamOptimized", level=level))
    randomness = random.Random(3)
    disk = bytearray(size)
    for at in (0, 128 * KIB, 31 * MIB, 33 * MIB + 100, 70 * MIB):
        piece = randomness.randbytes(min(90_000, size - at))
        disk[at : at + len(piece)] = piece
        target.write(memoryview(piece), at)
    target.commit()
    content = bytes(storage.content)
    assert (u32(content, 4), u32(content, 8)) == (3, 0x30001)
    assert u64(content, 48) == 0
    assert u64(content, 56) == 0xFFFFFFFFFFFFFFFF
    assert struct.unpack_from("<H", content, 77)[0] == 1
    _walk(content, bytes(disk))


def _walk(content: bytes, disk: bytes) -> None:
    """Read a stream front to back as a device would that cannot seek."""
    position = u64(content, 64) * SECTOR
    grains: dict[int, int] = {}
    tables: dict[int, int] = {}
    directory, ended, last = 0, False, -1
    seen = bytearray(len(disk))
    while not ended:
        value, length, kind = struct.unpack_from("<QII", content, position)
        body = position + SECTOR
        if length:
            assert value > last
            last = value
            grains[value // 128] = position // SECTOR
            plain = zlib.decompress(content[position + 12 : position + 12 + length])
            assert len(plain) == 64 * KIB
            at = value * SECTOR
            seen[at : at + 64 * KIB] = plain[: len(disk) - at]
            position += -(-(12 + length) // SECTOR) * SECTOR
            continue
        if kind == 1:
            assert value == 4
            number = max(grains) // 512
            entries = struct.unpack_from("<512I", content, body)
            expected = [grains.get(number * 512 + index, 0) for index in range(512)]
            assert list(entries) == expected
            tables[number] = body // SECTOR
        elif kind == 2:
            directory = body // SECTOR
            count = -(-len(disk) // (32 * MIB))
            entries = struct.unpack_from(f"<{count}I", content, body)
            assert list(entries) == [tables.get(index, 0) for index in range(count)]
            assert value == -(-4 * count // SECTOR)
        elif kind == 3:
            assert value == 1
            assert content[body : body + 56] == content[:56]
            assert u64(content, body + 56) == directory
            assert content[body + 64 : body + SECTOR] == content[64:SECTOR]
        else:
            assert (value, kind) == (0, 0)
            ended = True
        position = body + value * SECTOR
    assert position == len(content)
    assert seen == disk


def test_a_stream_is_what_vmwares_own_reader_demands() -> None:
    """Fails if VMware refuses it: what its reader (open-vmdk, ``vmdk/sparse.c``) asks for."""
    size = 65 * MIB + 3 * 512
    storage = MemoryStorage(name="disk.vmdk")
    target = VMDK.create(storage, spec(size, subformat="streamOptimized"))
    target.write(memoryview(random.Random(8).randbytes(300_000)), 40 * MIB)
    target.write(memoryview(b"\x01" * 512), size - 512)
    target.commit()
    content = bytes(storage.content)
    # The footer is taken only from here, and only behind this marker; it counts, not the header.
    marker, footer = len(content) - 3 * SECTOR, len(content) - 2 * SECTOR
    assert struct.unpack_from("<QII", content, marker) == (1, 0, 3)
    assert content[-SECTOR:] == bytes(SECTOR)
    assert content[footer : footer + 4] == b"KDMV"
    assert u32(content, footer + 4) <= 3
    flags = u32(content, footer + 8)
    assert flags & 0xFFFF0000 & ~0x30000 == 0
    assert flags & 0x10000
    assert content[footer + 73 : footer + 77] == b"\n \r\n"
    grain, per_table = u64(content, footer + 20), u32(content, footer + 44)
    assert (grain, per_table) == (128, 512)  # a power of two up to 128; at least 128
    count = -(-u64(content, footer + 12) // grain)
    directory = u64(content, footer + 56) * SECTOR
    sectors = []
    for index in range(count):
        table = u32(content, directory + 4 * (index // per_table)) * SECTOR
        entry = u32(content, table + 4 * (index % per_table)) if table else 0
        if entry <= 1:
            continue
        sectors.append(entry)
        sector, length = struct.unpack_from("<QI", content, entry * SECTOR)
        assert sector == index * grain
        assert length <= (grain + 1) * SECTOR - 12
        start = entry * SECTOR + 12
        assert len(zlib.decompress(content[start : start + length])) == grain * SECTOR
    assert sectors == sorted(sectors)
    assert len(sectors) == 6  # 300 000 bytes from 40 MiB on, and the last grain
    assert 'createType="streamOptimized"' in content[SECTOR : 21 * SECTOR].decode()


def test_a_stream_goes_to_a_pipe_in_one_pass(tmp_path: Path) -> None:
    """Fails if anything is written twice, or a pipe gets another subformat by default."""
    path = tmp_path / "out"
    with path.open("wb") as file:
        target = VMDK.create(StreamStorage(file.fileno()), spec(3 * MIB))
        target.write(memoryview(b"\x05" * MIB), MIB)
        target.commit()
        with pytest.raises(UsageError):
            VMDK.create(StreamStorage(file.fileno()), spec(MIB, subformat="monolithicSparse"))
    with VMDK.open(FileStorage.open(path), FolderGate()) as image:
        assert image.read_at(0, image.size) == bytes(MIB) + b"\x05" * MIB + bytes(MIB)


def test_a_stream_that_goes_back_is_an_error() -> None:
    """Fails if a grain is stored twice, of which VMware reads either."""
    target = VMDK.create(MemoryStorage(), spec(MIB, subformat="streamOptimized"))
    target.write(memoryview(b"\x05" * 64 * KIB), 128 * KIB)
    with pytest.raises(TargetError):
        target.write(memoryview(b"\x05" * 64 * KIB), 0)
    with pytest.raises(TargetError):
        target.zero(0, 64 * KIB)
    with pytest.raises(TargetError):
        target.write(memoryview(b"\x05"), 5)


def test_a_stream_that_was_cut_off_is_an_error() -> None:
    """Fails if a partial download reads as a disk with zeros at its end."""
    storage = MemoryStorage()
    target = VMDK.create(storage, spec(MIB, subformat="streamOptimized"))
    target.write(memoryview(random.Random(1).randbytes(300 * KIB)), 0)
    target.commit()
    for cut in (1024, 1100, 2048, 100_000):
        with pytest.raises(ImagingError):
            VMDK.open(MemoryStorage(storage.content[:-cut]), OPENER)
    padded = VMDK.open(MemoryStorage(storage.content + bytes(4096)), OPENER)
    assert padded.size == MIB


def test_a_damaged_grain_of_a_stream_is_an_error() -> None:
    """Fails if wrong bytes are read although the stream has a checksum of them."""
    storage = MemoryStorage()
    target = VMDK.create(storage, spec(MIB, subformat="streamOptimized", level="0"))
    target.write(memoryview(random.Random(1).randbytes(64 * KIB)), 0)
    target.commit()
    storage.content[64 * KIB + 5000] ^= 1
    with pytest.raises(CorruptImageError):
        VMDK.open(storage, OPENER).read_at(0, 10)
    assert [item.severity for item in findings(storage)] == [Severity.ERROR]


@pytest.mark.parametrize("kind", ["Sparse", "Flat"])
def test_files_of_one_image_appear_together(tmp_path: Path, kind: str) -> None:
    """Fails if a file has its name before all are whole, or stays when it is given up."""
    target = in_folder(tmp_path, 5 * GIB, subformat=f"twoGbMaxExtent{kind}")
    letter = kind[0].lower()
    names = ["disk.vmdk", *(f"disk-{letter}{number:03}.vmdk" for number in (1, 2, 3))]
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted(f"{n}.partial" for n in names)
    target.write(memoryview(b"\x07" * 1000), 3 * GIB)
    target.commit()
    assert sorted(item.name for item in tmp_path.iterdir()) == sorted(names)
    with VMDK.open(FileStorage.open(tmp_path / "disk.vmdk"), FolderGate()) as image:
        assert image.size == 5 * GIB
        assert image.read_at(3 * GIB, 1000) == b"\x07" * 1000
    again = tmp_path / "again"
    again.mkdir()
    target = in_folder(again, 5 * GIB, subformat=f"twoGbMaxExtent{kind}")
    target.abort()
    target.abort()
    assert list(again.iterdir()) == []


def test_the_descriptor_comes_last(tmp_path: Path) -> None:
    """Fails if an image is there whose files are not: one of them is refused in the end."""
    target = in_folder(tmp_path, 5 * GIB, subformat="twoGbMaxExtentFlat")
    (tmp_path / "disk-f002.vmdk").write_bytes(b"somebody else's")
    with pytest.raises(RefusedError):
        target.commit()
    assert not (tmp_path / "disk.vmdk").exists()
    assert (tmp_path / "disk-f002.vmdk").read_bytes() == b"somebody else's"


def test_a_file_that_exists_is_not_replaced(tmp_path: Path) -> None:
    """Fails if another image's content is overwritten, or anything is left behind."""
    (tmp_path / "disk-flat.vmdk").write_bytes(b"precious")
    with pytest.raises(RefusedError):
        in_folder(tmp_path, MIB, subformat="monolithicFlat")
    assert [item.name for item in tmp_path.iterdir()] == ["disk-flat.vmdk"]


def test_a_renamed_image_opens() -> None:
    """Fails if the name in the descriptor is looked for instead of the file itself."""
    storage, image = create(MIB)
    image.write(memoryview(b"\x09" * 512), 0)
    image.commit()
    renamed = MemoryStorage(storage.content, name="/elsewhere/other.vmdk")
    assert VMDK.open(renamed, OPENER).read_at(0, 512) == b"\x09" * 512


def test_a_table_that_is_missing_is_made() -> None:
    """Fails if an image without a table for all of the disk cannot be written."""
    storage, image = create(5 * MIB, grain_size="4K")
    image.commit()
    for place in (48, 56):
        at = u64(storage.content, place) * SECTOR + 4
        storage.content[at : at + 4] = bytes(4)
    image = VMDK.edit(storage, OPENER)
    assert image.read_at(2 * MIB, MIB) == bytes(MIB)
    image.write(memoryview(b"\x03" * 5000), 3 * MIB - 100)
    image.zero(4 * MIB, 100)
    image.commit()
    reopened = VMDK.open(MemoryStorage(storage.content), OPENER)
    assert reopened.read_at(3 * MIB - 200, 5200) == bytes(100) + b"\x03" * 5000 + bytes(100)
    assert findings(storage) == []


def test_zeroed_grains_are_zero_only_where_the_header_says_so() -> None:
    """Fails if entry 1 is taken for the sector of some data, or for zeros that it is not."""
    storage, image = create(MIB, zeroed_grain="on")
    image.write(memoryview(b"\x03" * 64 * KIB), 0)
    image.commit()
    table = u32(storage.content, u64(storage.content, 56) * SECTOR) * SECTOR
    storage.content[table + 4 : table + 8] = b"\1\0\0\0"
    image = VMDK.edit(MemoryStorage(storage.content), OPENER)
    kinds = [extent.kind for extent in image.own_extents(0, 192 * KIB)]
    assert kinds == [Kind.DATA, Kind.ZERO, Kind.HOLE]
    storage.content[8] &= ~4
    with pytest.raises(CorruptImageError):
        VMDK.open(storage, OPENER).read_at(64 * KIB, 1)


def test_two_grains_in_one_place_are_not_written() -> None:
    """Fails if writing one block of the disk would change another."""
    storage, image = create(MIB)
    image.write(memoryview(b"\x03" * 128 * KIB), 0)
    image.commit()
    table = u32(storage.content, u64(storage.content, 56) * SECTOR) * SECTOR
    storage.content[table + 4 : table + 8] = storage.content[table : table + 4]
    assert VMDK.open(storage, OPENER).read_at(64 * KIB, 1) == b"\x03"
    with pytest.raises(CorruptImageError):
        VMDK.edit(storage, OPENER)
    assert Severity.ERROR in [item.severity for item in findings(storage)]


def test_redundant_tables_are_repaired() -> None:
    """Fails if a check does not compare them, or a repair changes the primary ones."""
    storage, image = create(MIB)
    image.write(memoryview(b"\x03" * 128 * KIB), 0)
    image.commit()
    good = bytes(storage.content)
    table = u32(good, u64(good, 48) * SECTOR) * SECTOR
    storage.content[table : table + 4] = b"\x80\1\0\0"
    assert [item.severity for item in findings(storage)] == [Severity.WARNING]
    assert [item.repaired for item in findings(storage, repair=True)] == [True]
    assert storage.content == good


def test_the_header_counts_where_the_descriptor_says_another_size() -> None:
    """Fails if a crash between the two makes an image of another size for us."""
    storage, _ = create(MIB)
    at = storage.content.index(b"RW 2048 SPARSE")
    storage.content[at : at + 7] = b"RW 4096"
    image = VMDK.open(MemoryStorage(storage.content), OPENER)
    assert image.size == MIB
    assert "header" in image.info().notes[0]
    assert [item.repaired for item in findings(storage, repair=True)] == [True]
    assert b"RW 2048 SPARSE" in storage.content
    assert findings(storage) == []


def test_the_parent_is_named_and_taken_away() -> None:
    """Fails if a rebase loses the content, or leaves a hint without a CID."""
    below, image = create(MIB)
    image.write(memoryview(b"\x03" * MIB), 0)
    image.commit()
    storage, image = create(MIB, zeroed_grain="on")
    image.write(memoryview(b"\x04" * 512), 64 * KIB)
    image.commit()
    assert isinstance(VMDK, Rebasable)
    opener = DictOpener(files={"below.vmdk": MemoryStorage(below.content, name="below.vmdk")})
    VMDK.set_parent(storage, opener, Reference("below.vmdk", "vmdk"))
    over = VMDK.open(storage, opener)
    assert over.read_at(0, 512) == b"\x03" * 512
    assert over.read_at(64 * KIB, 512) == b"\x04" * 512
    assert over.info().parent == "below.vmdk"
    assert over.info().notes == ()
    VMDK.set_parent(storage, opener, None)
    alone = VMDK.open(storage, OPENER)
    assert alone.info().parent is None
    assert alone.read_at(0, 512) == bytes(512)
    raw = DictOpener(parents={"x.raw": MemoryStorage(bytes(MIB))})
    with pytest.raises(UsageError):
        VMDK.set_parent(storage, raw, Reference("x.raw", "raw"))


def test_the_content_id_changes_once_with_the_first_write() -> None:
    """Fails if a child cannot tell that its parent has changed, or reading changes it."""
    storage, image = create(MIB)
    image.commit()
    before = bytes(storage.content)
    VMDK.edit(storage, OPENER).commit()
    assert storage.content == before
    image = VMDK.edit(storage, OPENER)
    image.write(memoryview(b"\x02"), 0)
    image.flush()
    first = VMDK.open(MemoryStorage(storage.content), OPENER).info().options["cid"]
    assert first != VMDK.open(MemoryStorage(before), OPENER).info().options["cid"]
    image.write(memoryview(b"\x03"), 0)
    image.commit()
    assert VMDK.open(storage, OPENER).info().options["cid"] == first


def test_a_file_that_was_transferred_as_text_is_refused() -> None:
    """Fails if line ends that a transfer has changed are taken for data."""
    storage, _ = create(MIB)
    storage.content[73:77] = b"\n \n\n"
    with pytest.raises(CorruptImageError):
        VMDK.open(storage, OPENER)


def test_a_disk_of_uneven_files_keeps_its_size() -> None:
    """Fails if a disk whose files are none of those of 2 GiB is resized in part."""
    text = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n"
    disk = MemoryStorage((text + 'RW 8 FLAT "a" 0\nRW 8 FLAT "b" 0\n').encode())
    files = {name: MemoryStorage(bytes(4096)) for name in ("a", "b")}
    image = VMDK.edit(disk, DictOpener(files=files))
    for size in (512, 1 * MIB):
        with pytest.raises(UnsupportedFeatureError):
            image.resize(size)


def test_a_split_disk_grows_only_by_files_that_can_be_made(tmp_path: Path) -> None:
    """Fails if the last file has grown although the disk could not."""
    in_folder(tmp_path, 3 * GIB, subformat="twoGbMaxExtentFlat").commit()
    storage = MemoryStorage((tmp_path / "disk.vmdk").read_bytes())
    names = ("disk-f001.vmdk", "disk-f002.vmdk")
    files = {name: FileStorage.open(tmp_path / name, writable=True) for name in names}
    sizes = [file.size for file in files.values()]
    image = VMDK.edit(storage, DictOpener(files=files))
    with pytest.raises(UnsupportedFeatureError):
        image.resize(20 * GIB)
    assert [file.size for file in files.values()] == sizes
    image.close()


def test_what_is_not_the_disks_is_never_cut_off() -> None:
    """Fails if resizing a flat extent loses what else its file holds."""
    text = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\n"
    disk = MemoryStorage((text + 'RW 4 FLAT "a.img" 2\n').encode())
    file = MemoryStorage(b"\x01" * 1024 + b"\x02" * 2048 + b"\x03" * 512)
    image = VMDK.edit(disk, DictOpener(files={"a.img": file}))
    with pytest.raises(UnsupportedFeatureError):
        image.resize(3072)
    image.resize(512)
    assert len(file.content) == 3584
    file.resize(1536)
    image = VMDK.edit(disk, DictOpener(files={"a.img": file}))
    image.resize(10240)
    image.write(memoryview(b"\x04" * 512), 9728)
    image.commit()
    assert b'RW 20 FLAT "a.img" 2\n' in disk.content
    expected = b"\x01" * 1024 + b"\x02" * 512 + bytes(9216) + b"\x04" * 512
    assert file.content == expected


def test_a_descriptor_inside_an_extent_may_name_others() -> None:
    """Fails if further extents are ignored, or the image's own is looked for by its name."""
    storage, image = create(MIB)
    image.write(memoryview(b"\x09" * MIB), 0)
    image.commit()
    at = storage.content.index(b"\n", storage.content.index(b"RW 2048 SPARSE")) + 1
    line = b'RW 2 ZERO\nRW 1 FLAT "a.img" 0\n'
    storage.content[at : at + len(line)] = line
    renamed = MemoryStorage(storage.content, name="other.vmdk")
    files = {"a.img": MemoryStorage(b"\x05" * 512)}
    with VMDK.open(renamed, DictOpener(files=files)) as disk:
        assert disk.read_at(0, disk.size) == b"\x09" * MIB + bytes(1024) + b"\x05" * 512
    with pytest.raises(UnsupportedFeatureError):
        VMDK.edit(renamed, DictOpener(files=files))


def test_an_empty_extent_may_be_the_descriptors_container() -> None:
    """Fails if a header without capacity hides the extents that the text names."""
    storage, _ = create(MIB)
    content = storage.content[: 21 * SECTOR]
    content[12:20] = bytes(8)
    at = content.index(b"RW 2048 SPARSE")
    line = b'RW 1 FLAT "a.img" 0\n#'
    content[at : at + len(line)] = line
    files = {"a.img": MemoryStorage(b"\x05" * 512)}
    with VMDK.open(MemoryStorage(content), DictOpener(files=files)) as disk:
        assert disk.read_at(0, disk.size) == b"\x05" * 512
