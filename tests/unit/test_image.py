"""The one class that does the I/O of all formats, over a layer of thirty lines."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.buffers import ZEROS, fill_zero, is_zero
from imprint.core.contracts import Traits
from imprint.core.errors import ReadError
from imprint.core.extent import Extent, Kind, coalesce
from imprint.core.image import Image, WritableImage
from imprint.core.info import ImageInfo
from imprint.core.limits import SPAN_BYTES
from imprint.storage.memory import MemoryStorage
from imprint.testing.disks import Write, writes
from imprint.testing.faults import CountingStorage

UNIT = 8


class ToyLayer:
    """Units of 8 bytes. Encoded ones are stored with every bit flipped."""

    def __init__(self, size: int, storage: MemoryStorage | None = None) -> None:
        self.storage = storage or MemoryStorage()
        self.units: dict[int, tuple[Kind, int]] = {}
        self.decoded = 0
        self.is_closed = False
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    @property
    def traits(self) -> Traits:
        return Traits(grain=UNIT)

    def put(self, index: int, kind: Kind, content: bytes = b"") -> None:
        """Let a unit be something; behind the layer's back, as another tool would."""
        where = self.storage.size
        if kind is Kind.ENCODED:
            content = bytes(byte ^ 0xFF for byte in content)
        self.storage.write(memoryview(content), where)
        self.units[index] = (kind, where)

    def map(self, offset: int, length: int) -> Extent:
        index, within = divmod(offset, UNIT)
        kind, where = self.units.get(index, (Kind.HOLE, 0))
        length = min(length, UNIT - within)
        if kind is Kind.DATA:
            return Extent(offset, length, kind, self.storage, where + within)
        if kind is Kind.ENCODED:
            return Extent(offset, length, kind, self.storage, where)
        return Extent(offset, length, kind)

    def unit(self, offset: int) -> Extent:
        index = offset // UNIT
        where = self.units[index][1]
        length = min(UNIT, self.size - index * UNIT)
        return Extent(index * UNIT, length, Kind.ENCODED, self.storage, where)

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        self.decoded += 1
        self.storage.readinto(buffer, unit.storage_offset)
        for at in range(len(buffer)):
            buffer[at] ^= 0xFF

    def info(self) -> ImageInfo:
        return ImageInfo("toy", self.size)

    def close(self) -> None:
        self.is_closed = True

    def place(self, offset: int, length: int) -> Extent | None:
        extent = self.map(offset, length)
        return extent if extent.kind is Kind.DATA else None

    def allocate(self, offset: int, length: int) -> Extent:
        assert offset % UNIT == 0
        where = self.storage.size
        count = -(-length // UNIT)
        self.storage.resize(where + count * UNIT)
        return Extent(offset, length, Kind.DATA, self.storage, where)

    def link(self, extent: Extent) -> None:
        for step in range(0, extent.length, UNIT):
            place = (Kind.DATA, extent.storage_offset + step)
            self.units[(extent.offset + step) // UNIT] = place

    def zero(self, offset: int, length: int) -> None:
        assert offset % UNIT == 0
        assert length % UNIT == 0 or offset + length == self.size
        for step in range(0, length, UNIT):
            self.units[(offset + step) // UNIT] = (Kind.ZERO, 0)

    def resize(self, size: int) -> None:
        for index in range(-(-self.size // UNIT), -(-size // UNIT)):
            self.units[index] = (Kind.ZERO, 0)
        self._size = size

    def flush(self) -> None:
        self.storage.flush()


def all_kinds() -> ToyLayer:
    """DATA, ENCODED, ZERO, HOLE, BAD, and an ENCODED one that the disk cuts off."""
    layer = ToyLayer(5 * UNIT + 3)
    layer.put(0, Kind.DATA, b"abcdefgh")
    layer.put(1, Kind.ENCODED, b"ijklmnop")
    layer.put(2, Kind.ZERO)
    layer.put(4, Kind.BAD)
    layer.put(5, Kind.ENCODED, b"xyz")
    return layer


EXPECTED = b"abcdefghijklmnop" + bytes(24) + b"xyz"


@given(st.integers(0, len(EXPECTED)), st.integers(0, len(EXPECTED)))
def test_every_range_reads_right(offset: int, length: int) -> None:
    """Fails if a partial unit of any kind is off by a byte."""
    image = Image(all_kinds(), name="toy")
    assert image.read_at(offset, length) == EXPECTED[offset : offset + length]


def test_a_hole_shows_the_parent_and_other_kinds_hide_it() -> None:
    """Fails if ZERO or BAD lets the parent through, or a hole does not."""
    parent = Image(ToyLayer(0), name="empty")
    assert Image(all_kinds(), name="toy", parent=parent).read_at(0, 99) == EXPECTED
    below = MemoryStorage(bytes(range(100, 100 + len(EXPECTED))))
    expected = bytearray(EXPECTED)
    expected[24:32] = below.content[24:32]
    image = Image(all_kinds(), name="toy", parent=below)
    assert image.read_at(0, 99) == expected


@pytest.mark.parametrize("size", [0, 5, 8, 12, 24])
def test_a_shorter_parent_is_zero_behind_its_end(size: int) -> None:
    """Fails if an overlay that is larger than its parent is an error, or garbage."""
    image = Image(ToyLayer(3 * UNIT), name="toy", parent=MemoryStorage(b"\x99" * size))
    assert image.read_at(0, 24) == b"\x99" * size + bytes(24 - size)
    kinds = [(extent.offset, extent.kind) for extent in image.extents(0, 24)]
    expected = [(0, Kind.DATA)] if size else []
    assert kinds == expected + ([(size, Kind.HOLE)] if size < 24 else [])


def test_extents_see_through_a_chain_of_three() -> None:
    """Fails if a middle image hides what it does not hold, or shows what it zeroes."""
    top, middle = ToyLayer(4 * UNIT), ToyLayer(4 * UNIT)
    top.put(0, Kind.DATA, b"T" * 8)
    middle.put(1, Kind.DATA, b"M" * 8)
    middle.put(2, Kind.ZERO)
    base = MemoryStorage(b"B" * 32)
    image = Image(top, name="top", parent=Image(middle, name="middle", parent=base))
    assert image.read_at(0, 32) == b"T" * 8 + b"M" * 8 + bytes(8) + b"B" * 8
    found = [(extent.length, extent.kind, extent.storage) for extent in image.extents(0, 32)]
    assert found == [
        (8, Kind.DATA, top.storage),
        (8, Kind.DATA, middle.storage),
        (8, Kind.ZERO, None),
        (8, Kind.DATA, base),
    ]
    own = [extent.kind for extent in coalesce(image.own_extents(0, 32))]
    assert own == [Kind.DATA, Kind.HOLE]


def test_extents_are_lazy() -> None:
    """Fails if a consumer that stops early has paid for the whole map."""
    image = Image(ToyLayer(1 << 60), name="toy", parent=MemoryStorage())
    assert next(image.own_extents(0, image.size)).length == UNIT


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 44), (43, 1), (44, 0), (5, -1)])
def test_a_range_outside_the_disk_is_an_error(offset: int, length: int) -> None:
    """Fails if a range that is not in the disk reaches the layer."""
    image = WritableImage(all_kinds(), MemoryStorage(), name="toy")
    with pytest.raises(ReadError, match="toy: expected a range inside"):
        list(image.extents(offset, length))
    with pytest.raises(ReadError):
        image.zero(offset, length)


def test_a_unit_is_decoded_once_for_small_reads() -> None:
    """Fails if reading a compressed cluster sector by sector decodes it each time."""
    layer = all_kinds()
    image = Image(layer, name="toy")
    assert [image.read_at(at, 1) for at in range(8, 16)] == [b"%c" % c for c in b"ijklmnop"]
    assert layer.decoded == 1


def test_writing_forgets_what_was_decoded() -> None:
    """Fails if a read after a write shows the old bytes."""
    layer = all_kinds()
    image = WritableImage(layer, layer.storage, name="toy")
    assert image.read_at(9, 3) == b"jkl"
    image.write(memoryview(b"JK"), 9)
    assert image.read_at(8, 8) == b"iJKlmnop"


@given(
    drawn=writes(5 * UNIT + 3, with_zeros=True, count_max=12),
    parent=st.sampled_from([None, 0, 20, 43, 60]),
)
def test_any_writes_and_zeros_give_the_model(drawn: list[Write], parent: int | None) -> None:
    """Fails if a write or zero, aligned or not, over any kind, touches a wrong byte."""
    below = None if parent is None else MemoryStorage(b"\x77" * parent)
    layer = all_kinds()
    image = WritableImage(layer, layer.storage, name="toy", parent=below)
    model = bytearray(image.read_at(0, image.size))
    for offset, length, byte in drawn:
        if byte:
            image.write(memoryview(bytes([byte]) * length), offset)
        else:
            image.zero(offset, length)
        model[offset : offset + length] = bytes([byte]) * length
        assert image.read_at(0, image.size) == model


def test_whole_units_are_zeroed_by_the_layer() -> None:
    """Fails if zeroing writes zeros where the layer could free the room."""
    layer = ToyLayer(4 * UNIT)
    image = WritableImage(layer, layer.storage, name="toy")
    image.write(memoryview(b"x" * 32), 0)
    image.zero(4, 24)
    assert [layer.units[index][0] for index in range(4)] == [
        Kind.DATA,
        Kind.ZERO,
        Kind.ZERO,
        Kind.DATA,
    ]


def test_zeroing_what_is_zero_takes_no_room() -> None:
    """Fails if a hole is filled only to hold zeros."""
    layer = ToyLayer(4 * UNIT)
    image = WritableImage(layer, layer.storage, name="toy")
    image.zero(3, 2)
    assert layer.units == {}
    assert layer.storage.size == 0


def test_offloading_is_the_same_as_writing() -> None:
    """Fails if bytes that the system moves land elsewhere."""
    source = MemoryStorage(bytes(range(64)))
    layer = ToyLayer(4 * UNIT)
    image = WritableImage(layer, layer.storage, name="toy")
    image.write(memoryview(b"\xff"), UNIT)
    extent = Extent(0, 4 * UNIT, Kind.DATA, source, 10)
    assert not image.can_offload(extent)
    image.copy_from(extent)
    assert image.read_at(0, 32) == bytes(range(10, 42))


def test_growing_hides_a_longer_parent() -> None:
    """Fails if bytes of the parent behind the old end show up in the enlarged disk."""
    layer = ToyLayer(UNIT + 3)
    image = WritableImage(layer, layer.storage, name="toy", parent=MemoryStorage(b"p" * 99))
    image.resize(3 * UNIT)
    assert image.read_at(0, 24) == b"p" * 11 + bytes(13)


def test_closing_closes_the_chain() -> None:
    """Fails if a parent's file stays open."""
    top, base = ToyLayer(8), ToyLayer(8)
    with Image(top, name="top", parent=Image(base, name="base")):
        pass
    assert top.is_closed
    assert base.is_closed


def test_many_threads_share_the_decode_cache() -> None:
    """Fails if two threads that decode one unit get each other's half-filled buffer."""
    layer = ToyLayer(64 * UNIT)
    disk = random.Random(1).randbytes(64 * UNIT)
    for index in range(64):
        layer.put(index, Kind.ENCODED, disk[index * UNIT : index * UNIT + UNIT])
    image = Image(layer, name="toy")

    def is_right(seed: int) -> bool:
        offset = seed * 31 % (63 * UNIT)
        return image.read_at(offset, 11) == disk[offset : offset + 11]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(is_right, range(300)))


def test_data_is_read_once_and_in_place() -> None:
    """Fails if a read of stored bytes costs more than one read of the storage."""
    storage = CountingStorage(MemoryStorage(bytes(range(32))))

    class Flat(ToyLayer):
        def map(self, offset: int, length: int) -> Extent:
            return Extent(offset, length, Kind.DATA, storage, offset)

    assert Image(Flat(32), name="flat").read_at(3, 20) == bytes(range(3, 23))
    assert storage.ranges == [(3, 20)]


@pytest.mark.parametrize("length", [0, 1, 511, SPAN_BYTES, SPAN_BYTES + 1, 3 * SPAN_BYTES + 7])
def test_zeros_are_told_from_other_bytes(length: int) -> None:
    """Fails if a byte at the end of a long run is overlooked."""
    buffer = bytearray(length)
    assert is_zero(memoryview(buffer))
    for at in {0, length // 2, length - 1} if length else set():
        buffer[at] = 1
        assert not is_zero(memoryview(buffer))
        buffer[at] = 0
    buffer[:] = b"\x01" * length
    fill_zero(memoryview(buffer))
    assert buffer == bytes(length)
    assert len(ZEROS) == SPAN_BYTES
