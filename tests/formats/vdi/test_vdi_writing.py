"""What creating, zeroing and resizing leave in the file, byte by byte."""

from __future__ import annotations

import contextlib
import struct
import uuid
from typing import TYPE_CHECKING

import pytest

from imprint import formats
from imprint.core.errors import CorruptImageError, TargetError, UsageError
from imprint.core.extent import Kind
from imprint.core.formats import CreateSpec, Resuming, parse_options
from imprint.core.image import WritableImage
from imprint.core.units import KIB, MIB, TIB
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import PendingFile
from imprint.testing.faults import CHANGES, CountingStorage, FaultyStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

VDI = formats.get("vdi")
OPENER = DictOpener()
UUID = "01234567-89ab-cdef-0123-456789abcdef"
ABSENT = 0xFFFFFFFF


def spec(size: int, **options: str) -> CreateSpec:
    return CreateSpec(size, OPENER, parse_options("vdi", VDI.options, options))


def create(size: int, **options: str) -> tuple[MemoryStorage, WritableImage]:
    storage = MemoryStorage()
    image = VDI.create(storage, spec(size, **options))
    assert isinstance(image, WritableImage)
    return storage, image


def entries(storage: MemoryStorage) -> list[int]:
    at, count = struct.unpack_from("<I", storage.content, 0x154)[0], field(storage, 0x180)
    return list(struct.unpack_from(f"<{count}I", storage.content, at))


def field(storage: MemoryStorage, at: int) -> int:
    value: int = struct.unpack_from("<I", storage.content, at)[0]
    return value


def test_a_new_image_has_the_fields_that_virtualbox_demands() -> None:
    """Fails if a field is at the wrong place; offsets are those of VDICore.h."""
    storage, image = create(5 * MIB + 512, uuid=UUID)
    image.commit()
    head = bytes(storage.content[:512])
    assert struct.unpack_from("<5I", head, 0x40) == (0xBEDA107F, 0x00010001, 0x190, 1, 0)
    assert struct.unpack_from("<2I", head, 0x154) == (512, MIB)
    assert struct.unpack_from("<5I", head, 0x15C) == (0, 0, 0, 512, 0)
    assert struct.unpack_from("<Q4I", head, 0x170) == (5 * MIB + 512, MIB, 0, 6, 0)
    assert struct.unpack_from("<4I", head, 0x1C8) == (0, 0, 0, 512)
    # Microsoft byte order: the first three groups are little-endian.
    assert head[0x188:0x198].hex() == "67452301ab89efcd0123456789abcdef"
    assert any(head[0x198:0x1A8])
    assert not any(head[0x1A8:0x1C8])
    assert entries(storage) == [ABSENT] * 6
    assert len(storage.content) == MIB


def test_the_same_uuid_gives_the_same_file() -> None:
    """Fails if something random gets into an image whose identity was given."""
    contents = []
    for _ in range(2):
        storage, image = create(3 * MIB, uuid=UUID)
        image.write(memoryview(b"abc"), MIB)
        image.commit()
        contents.append(bytes(storage.content))
    assert contents[0] == contents[1]


def test_two_images_have_different_uuids() -> None:
    """Fails if VirtualBox would refuse the second one."""
    first, second = create(MIB)[0], create(MIB)[0]
    assert first.content[0x188:0x198] != second.content[0x188:0x198]


def test_a_fixed_image_has_all_its_blocks() -> None:
    """Fails if a fixed image has to grow while it is used."""
    for options in ({"subformat": "fixed"}, {"static": "on"}):
        storage, image = create(64 * KIB, block_size="16K", **options)
        assert field(storage, 0x4C) == 2
        assert field(storage, 0x184) == 4
        assert entries(storage) == [0, 1, 2, 3]
        assert len(storage.content) == MIB + 64 * KIB
        image.write(memoryview(b"\x01" * 64 * KIB), 0)
        image.commit()
        assert len(storage.content) == MIB + 64 * KIB


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (MIB, {"block_size": "3M"}),
        (MIB, {"block_size": "256"}),
        (MIB, {"block_size": "512M"}),
        (MIB, {"subformat": "fixed", "static": "off"}),
        (MIB, {"subformat": "dynamic", "static": "on"}),
        (MIB, {"subformat": "stream"}),
        (MIB, {"uuid": "x"}),
        (MIB, {"uuid": str(uuid.UUID(int=0))}),
        (MIB, {"compression": "zlib"}),
        (33 * TIB, {}),
    ],
)
def test_what_cannot_be_made_is_refused(size: int, options: dict[str, str]) -> None:
    """Fails if a nonsensical request leaves a file that nothing reads."""
    storage = MemoryStorage()
    with pytest.raises(UsageError):
        VDI.create(storage, spec(size, **options))
    assert storage.content == b""


def test_blocks_are_stored_in_the_order_of_their_writing() -> None:
    """Fails if a block is stored before it is needed, or a hole takes room."""
    storage, image = create(10 * 4096, block_size="4K")
    for index in (7, 2, 3):
        image.write(memoryview(bytes([index]) * 4096), index * 4096)
    image.commit()
    wanted = [ABSENT] * 10
    wanted[7], wanted[2], wanted[3] = 0, 1, 2
    assert entries(storage) == wanted
    assert field(storage, 0x184) == 3
    assert [storage.content[MIB + at * 4096] for at in range(3)] == [7, 2, 3]
    assert len(storage.content) == MIB + 3 * 4096


def test_freed_slots_are_filled_by_the_last_blocks() -> None:
    """Fails if a gap stays: other programs take slot ``blocks_allocated`` for a new block."""
    storage, image = create(10 * 4096, block_size="4K")
    for index in range(6):
        image.write(memoryview(bytes([index + 1]) * 4096), index * 4096)
    image.flush()
    image.zero(4096, 2 * 4096)
    image.flush()
    slots = [slot for slot in entries(storage) if slot != ABSENT]
    assert sorted(slots) == [0, 1, 2, 3]
    assert field(storage, 0x184) == 4
    assert len(storage.content) == MIB + 4 * 4096
    assert image.read_at(0, 6 * 4096)[::4096] == bytes([1, 0, 0, 4, 5, 6])


def test_a_freed_slot_is_not_used_before_that_is_durable() -> None:
    """Fails if a crash could show one block's new bytes in another, old block."""
    storage, image = create(4 * 4096, block_size="4K")
    image.write(memoryview(b"\x01" * 4096), 0)
    image.flush()
    image.zero(0, 4096)
    image.write(memoryview(b"\x02" * 4096), 4096)
    assert storage.content[MIB : MIB + 4096] == b"\x01" * 4096
    image.flush()
    assert storage.content[MIB:] == b"\x02" * 4096


def test_zeroing_a_fixed_image_keeps_its_slots() -> None:
    """Fails if a fixed image loses a block that it has promised to have."""
    storage, image = create(4 * 4096, block_size="4K", subformat="fixed")
    image.write(memoryview(b"\x01" * 4 * 4096), 0)
    image.zero(4096, 4096)
    image.commit()
    assert entries(storage) == [0, 1, 2, 3]
    assert storage.content[MIB:][::4096] == bytes([1, 0, 1, 1])


def test_an_edit_changes_the_modification_uuid_once() -> None:
    """Fails if a child cannot tell that its parent has changed, or reading changes it."""
    storage, image = create(4 * 4096, block_size="4K")
    image.write(memoryview(b"\x01" * 4096), 0)
    image.commit()
    before = bytes(storage.content)
    untouched = VDI.edit(storage, OPENER)
    untouched.commit()
    assert storage.content == before
    edited = VDI.edit(storage, OPENER)
    edited.write(memoryview(b"\x02"), 0)
    edited.flush()
    first = bytes(storage.content[0x198:0x1A8])
    assert first != before[0x198:0x1A8]
    edited.write(memoryview(b"\x03"), 0)
    edited.commit()
    assert storage.content[0x198:0x1A8] == first
    assert storage.content[0x188:0x198] == before[0x188:0x198]


def test_a_map_without_room_moves_and_evicts_the_first_blocks() -> None:
    """Fails if the map grows over data, or any block is lost on the way."""
    storage, image = create(128 * 512, block_size="512")
    disk = bytes(index + 1 for index in range(128) for _ in range(512))
    image.write(memoryview(disk), 0)
    image.commit()
    content = storage.content  # by hand: no room behind the map
    content[1024:] = content[MIB:]
    struct.pack_into("<I", content, 0x158, 1024)
    image = VDI.edit(storage, OPENER)
    image.resize(200 * 512)
    assert field(storage, 0x154) == 1024
    assert field(storage, 0x158) == 2048
    slots = entries(storage)
    assert sorted(slots[:128]) == list(range(128))
    assert set(slots[128:]) == {ABSENT}
    image.resize(129 * 512)
    image.resize(201 * 512)
    assert field(storage, 0x154) == 1024
    image.resize(500 * 512)  # it fits into its old place, before where it is now, no more
    assert image.read_at(0, image.size) == disk + bytes(372 * 512)
    image.commit()
    reopened = VDI.open(MemoryStorage(content), OPENER)
    assert reopened.read_at(0, reopened.size) == disk + bytes(372 * 512)


def test_few_blocks_are_evicted_behind_all_that_the_map_needs() -> None:
    """Fails if a block is moved to a slot that the map is about to take."""
    storage, image = create(128 * 512, block_size="512")
    image.write(memoryview(b"\x09" * 512), 5 * 512)
    image.commit()
    storage.content[1024:] = storage.content[MIB:]
    struct.pack_into("<I", storage.content, 0x158, 1024)
    image = VDI.edit(storage, OPENER)
    image.resize(600 * 512)  # a map of 2400 bytes: five slots
    assert field(storage, 0x158) == 1024 + 5 * 512
    assert image.read_at(5 * 512, 512) == b"\x09" * 512
    assert entries(storage)[5] == 0


def test_a_map_that_has_moved_goes_back_to_the_front() -> None:
    """Fails if each growth wastes the room of the last map."""
    storage, image = create(128 * 512, block_size="512")
    image.write(memoryview(b"\x07" * 128 * 512), 0)
    image.commit()
    content = storage.content
    content[8192:] = content[MIB:]
    content[4096 : 4096 + 512] = content[512:1024]
    struct.pack_into("<2I", content, 0x154, 4096 + 3584, 8192)
    content[4096 + 3584 : 8192] = content[512:1024]
    image = VDI.edit(storage, OPENER)
    image.resize(129 * 512)
    assert field(storage, 0x154) == 512
    assert field(storage, 0x158) == 8192
    assert image.read_at(0, image.size) == b"\x07" * 128 * 512 + bytes(512)


def test_a_fixed_image_stays_fixed_when_it_grows() -> None:
    """Fails if new blocks have no slot, or show what lay behind the last one."""
    storage, image = create(4 * 4096, block_size="4K", subformat="fixed")
    image.write(memoryview(b"\x01" * 4 * 4096), 0)
    image.commit()
    storage.content += b"\xee" * 9000
    image = VDI.edit(storage, OPENER)
    image.resize(6 * 4096 + 512)
    assert entries(storage) == [0, 1, 2, 3, 4, 5, 6]
    assert image.read_at(0, image.size) == b"\x01" * 4 * 4096 + bytes(2 * 4096 + 512)
    assert len(storage.content) == MIB + 7 * 4096
    image.resize(4096)
    assert entries(storage) == [0]
    assert len(storage.content) == MIB + 4096


def test_an_odd_new_size_is_refused() -> None:
    """Fails if a disk would end inside a sector, which VirtualBox cuts off."""
    _, image = create(MIB)
    with pytest.raises(UsageError, match="512"):
        image.resize(MIB + 1)


def test_an_odd_size_from_elsewhere_is_kept() -> None:
    """Fails if bytes of a disk that another tool made are cut off or invented."""
    storage, image = create(2 * 4096, block_size="4K")
    image.write(memoryview(b"\x05" * 2 * 4096), 0)
    image.commit()
    struct.pack_into("<Q", storage.content, 0x170, 4096 + 1000)
    odd = VDI.open(storage, OPENER)
    assert odd.size == 5096
    assert odd.read_at(0, 9999) == b"\x05" * 5096
    assert any("sector" in note for note in odd.info().notes)


def test_a_longer_header_keeps_what_we_do_not_know() -> None:
    """Fails if an edit wipes fields behind those of version 1.1."""
    storage, image = create(4 * 4096, block_size="4K")
    image.commit()
    storage.content[0x1D8:0x200] = b"\xab" * 40
    struct.pack_into("<4I", storage.content, 0x1C8, 1, 2, 3, 512)
    edited = VDI.edit(storage, OPENER)
    edited.write(memoryview(b"\x01"), 0)
    edited.commit()
    assert storage.content[0x1D8:0x200] == b"\xab" * 40
    assert struct.unpack_from("<4I", storage.content, 0x1C8) == (1, 2, 3, 512)


def test_only_changed_pages_of_the_map_are_written() -> None:
    """Fails if distant entries are lost when a few pages of a long map are written back."""
    storage, image = create(8 * MIB, block_size="512")
    places = [0, 1023, 1024, 5000, 9000, 16383]
    for number, index in enumerate(places, 1):
        image.write(memoryview(bytes([number]) * 512), index * 512)
    image.commit()
    found = {index: slot for index, slot in enumerate(entries(storage)) if slot != ABSENT}
    assert found == dict(zip(places, range(6), strict=True))
    reopened = VDI.open(storage, OPENER)
    for number, index in enumerate(places, 1):
        assert reopened.read_at(index * 512, 512) == bytes([number]) * 512


@pytest.mark.parametrize("step", range(4))
def test_a_header_that_arrived_despite_an_error_is_taken_back(step: int) -> None:
    """Fails if the file says one size and the open image another, after a resize that failed."""
    storage, image = create(4 * 4096, block_size="4K")
    image.write(memoryview(b"\x01" * 4 * 4096), 0)
    image.commit()
    faulty = FaultyStorage(storage, lasting=False, late=True, verbs=CHANGES)
    image = VDI.edit(faulty, OPENER)
    image.write(memoryview(b"\x03"), 0)
    image.flush()
    faulty.fail_at = faulty.count + step
    with contextlib.suppress(TargetError):
        image.resize(4 * 4096 - 512)
    image.flush()
    assert VDI.open(storage, OPENER).size == image.size
    image.write(memoryview(b"\x02"), image.size - 1)
    image.flush()
    reopened = VDI.open(storage, OPENER)
    assert reopened.size == image.size
    assert reopened.read_at(image.size - 1, 1) == b"\x02"


def test_a_large_empty_disk_is_one_hole(tmp_path: Path) -> None:
    """Fails if looking at nothing costs a step for each of four million blocks."""
    target = VDI.create(PendingFile.create(tmp_path / "x.vdi", may_replace=False), spec(4 * TIB))
    assert isinstance(target, WritableImage)
    target.write(memoryview(b"\x01" * 512), 3 * TIB)
    kinds = [(extent.offset, extent.kind) for extent in target.extents(0, target.size)]
    expected = [(0, Kind.HOLE), (3 * TIB, Kind.DATA), (3 * TIB + MIB, Kind.HOLE)]
    assert kinds == expected
    target.abort()


def test_reading_looks_at_the_map_once() -> None:
    """Fails if each read costs a lookup in the file."""
    storage, image = create(4 * MIB)
    image.write(memoryview(b"\x01" * MIB), 0)
    image.commit()
    counting = CountingStorage(storage)
    disk = VDI.open(counting, OPENER)
    before = counting.reads
    disk.read_at(0, 512)
    disk.read_at(MIB - 512, 512)
    disk.read_at(2 * MIB, MIB)
    assert counting.reads == before + 2


def test_a_measure_counts_blocks_with_data() -> None:
    """Fails if a block that holds two runs counts twice, or one across a border once."""
    _, source = create(16 * 4096, block_size="512")
    for offset, length in ((0, 512), (2048, 512), (4096 * 3 - 512, 1024)):
        source.write(memoryview(b"\x01" * length), offset)
    measured = VDI.measure(source, spec(16 * 4096, block_size="4K"))
    assert measured.required == MIB + 3 * 4096
    assert measured.fully_allocated == MIB + 16 * 4096
    fixed = VDI.measure(source, spec(16 * 4096, block_size="4K", subformat="fixed"))
    assert fixed.required == fixed.fully_allocated == MIB + 16 * 4096


def test_only_the_same_image_is_resumed() -> None:
    """Fails if what another copy left is taken up for this one."""
    assert isinstance(VDI, Resuming)
    storage, image = create(MIB)
    image.commit()
    with pytest.raises(CorruptImageError):
        VDI.resume(storage, spec(2 * MIB))


def test_a_map_beyond_the_reach_of_the_header_is_refused() -> None:
    """Fails if an offset that needs more than 32 bits is cut off."""
    storage, image = create(128 * 512, block_size="512")
    image.commit()
    struct.pack_into("<I", storage.content, 0x158, 1024)
    struct.pack_into("<I", storage.content, 0x17C, 0xFFFFFE00)
    before = bytes(storage.content)
    with pytest.raises(UsageError, match="4 GiB"):
        VDI.edit(storage, OPENER).resize(129 * 512)
    assert storage.content == before


def test_a_disk_of_an_odd_size_is_padded_to_whole_sectors() -> None:
    """Fails if the end of a disk is cut off: VirtualBox rounds its size down."""
    storage = MemoryStorage()
    target = VDI.create(storage, spec(1_000_003))
    assert target.size == 1_000_448
