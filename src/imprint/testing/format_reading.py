"""The part of the format contract about reading."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imprint.core.errors import ImagingError, ReadError
from imprint.core.extent import Kind
from imprint.core.formats import Match
from imprint.storage.memory import MemoryStorage
from imprint.testing.disks import random_writes, writes
from imprint.testing.faults import CountingStorage, FaultyStorage
from imprint.testing.format_case import FormatCase, read_all
from imprint.testing.oracles import paint

if TYPE_CHECKING:
    from imprint.core.image import Image

PER_FORMAT = settings(
    max_examples=20,
    deadline=None,
    # The contract is inherited, so that each format runs the same function.
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.too_slow],
)
STORED = (Kind.DATA, Kind.ENCODED)


class ReadingContract(FormatCase):
    """Whatever made the image: its disk is what was put in."""

    @PER_FORMAT
    @given(data=st.data())
    def test_a_disk_comes_back_as_it_was_written(self, data: st.DataObject) -> None:
        """Fails if any byte is lost, moved or invented."""
        disk = paint(self.disk_size, data.draw(writes(self.disk_size)))
        with self.open(self.build(disk)) as image:
            assert image.size == len(disk)
            assert read_all(image) == disk
            for offset, length, _ in data.draw(writes(self.disk_size, count_max=4)):
                assert image.read_at(offset, length) == disk[offset : offset + length]

    @PER_FORMAT
    @given(data=st.data())
    def test_extents_cover_the_disk_and_agree_with_its_bytes(self, data: st.DataObject) -> None:
        """Fails if a map has a gap, an overlap, or calls bytes zero that are not."""
        disk = paint(self.disk_size, data.draw(writes(self.disk_size)))
        image = self.open(self.build(disk))
        ranges = [(0, len(disk)), *[item[:2] for item in data.draw(writes(self.disk_size))]]
        for offset, length in ranges:
            check_extents(image, disk, offset, length)
        assert list(image.extents(0, 0)) == []
        assert list(image.extents(image.size, 0)) == []
        image.close()

    def test_an_empty_disk_has_no_data(self) -> None:
        """Fails if holes are stored, where the format can do without."""
        with self.open(self.build(bytes(self.disk_size))) as image:
            assert read_all(image) == bytes(self.disk_size)
            if self.frees_zeros:
                kinds = {extent.kind for extent in image.extents(0, image.size)}
                assert not kinds & set(STORED)

    def test_many_threads_read_the_same(self) -> None:
        """Fails if a table cache or a position is shared without a guard."""
        disk = paint(self.disk_size, random_writes(random.Random(1), self.disk_size, count=20))
        with self.open(self.build(disk)) as image, ThreadPoolExecutor(4) as pool:

            def is_right(seed: int) -> bool:
                randomness = random.Random(seed)
                offset = randomness.randrange(len(disk))
                length = randomness.randint(1, len(disk) - offset)
                return image.read_at(offset, length) == disk[offset : offset + length]

            assert all(pool.map(is_right, range(100)))

    @pytest.mark.parametrize("offset", [-1, 0, 1, 1 << 62])
    def test_reading_outside_the_disk_is_an_error(self, offset: int) -> None:
        """Fails if a range that is not in the disk gives bytes, or another exception."""
        with self.open(self.build(bytes(self.disk_size))) as image:
            buffer = memoryview(bytearray(self.disk_size if offset == 1 else 1))
            where = self.disk_size if offset == 0 else offset
            with pytest.raises(ImagingError):
                image.readinto(buffer, where)

    def test_it_says_what_it_is(self) -> None:
        """Fails if info or probe disagree with what was made."""
        content = self.build(bytes(self.disk_size))
        with self.open(content) as image:
            info = image.info()
            assert info.format == self.format.name
            assert info.size == self.disk_size
            assert image.traits.grain >= 1
        expected = Match.STRONG if self.is_found else Match.WEAK
        assert self.format.probe(MemoryStorage(content)) is expected

    @pytest.mark.parametrize("size", [0, 1, 511, 512, 70_000])
    def test_zeros_are_not_taken_for_it(self, size: int) -> None:
        """Fails if an empty or blank file is found to be this format, or breaks the probe."""
        match = self.format.probe(MemoryStorage(bytes(size)))
        assert match is (Match.NO if self.is_found else Match.WEAK)

    def test_a_probe_reads_little(self) -> None:
        """Fails if probing reads more than 64 KiB at either end."""
        storage = CountingStorage(MemoryStorage(self.build(bytes(self.disk_size))))
        self.format.probe(storage)
        for offset, length in storage.ranges:
            is_head = offset + length <= 64 * 1024
            assert is_head or offset >= storage.size - 64 * 1024

    def test_a_read_that_fails_is_reported(self) -> None:
        """Fails if an I/O error turns into zeros or another exception, at any read."""
        disk = paint(self.disk_size, random_writes(random.Random(2), self.disk_size))
        content = self.build(disk)
        failed = 0
        for fail_at in range(2000):
            storage = FaultyStorage(MemoryStorage(content), fail_at=fail_at, verbs={"read"})
            try:
                with self.open(storage) as image:
                    assert read_all(image) == disk
                break
            except ReadError:
                failed += 1
        assert failed == fail_at  # the loop ended because nothing failed any more

    def test_closing_twice_is_allowed(self) -> None:
        """Fails if the second close is an error."""
        image = self.open(self.build(bytes(self.disk_size)))
        image.close()
        image.close()


def check_extents(image: Image, disk: bytes, offset: int, length: int) -> None:
    """Assert that the extents of a range are contiguous, and each is what it says."""
    position = offset
    for extent in image.extents(offset, length):
        assert extent.offset == position
        assert extent.length > 0
        assert (extent.storage is not None) == (extent.kind in STORED)
        expected = disk[extent.offset : extent.end]
        if extent.kind is Kind.DATA:
            assert extent.storage is not None
            buffer = bytearray(extent.length)
            extent.storage.readinto(memoryview(buffer), extent.storage_offset)
            assert buffer == expected
        elif extent.kind is not Kind.ENCODED:
            assert not any(expected)
        position = extent.end
    assert position == offset + length
