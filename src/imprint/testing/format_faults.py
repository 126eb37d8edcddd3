"""The part of the format contract about power cuts, I/O errors and hostile content."""

from __future__ import annotations

import itertools
import random
import resource
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from imprint.core.errors import ImagingError
from imprint.core.events import Severity
from imprint.core.formats import Checkable
from imprint.core.units import KIB, MIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.disks import random_writes
from imprint.testing.faults import SECTOR_BYTES, FaultyStorage, RecordingStorage
from imprint.testing.format_case import FormatCase, read_all
from imprint.testing.oracles import paint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.core.image import WritableImage

HOSTILE_BYTES_MAX: Final = 200 * MIB
"""What a small hostile image may make us allocate."""

FIELD_VALUES: Final = (
    *(bytes(4), b"\xff" * 4, b"\x00\x00\x00\x01", b"\x01\x00\x00\x00"),
    *(b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x10\x00\x00", b"\xff\xff\xff\xfe"),
)
"""What is most often wrong: nothing, everything, one, the largest; in both byte orders."""


class Edit(NamedTuple):
    """A change of the disk: ``length`` times ``byte`` at ``offset``.

    Attributes:
        at: operations of the storage that were done before it began.
        offset: of the disk, in bytes.
        length: in bytes.
        byte: what was written; 0 also for zeroing, and for what a resize cuts off.
        size: of the disk afterwards.
    """

    at: int
    offset: int
    length: int
    byte: int
    size: int

    def apply(self, disk: bytearray, start: int = 0) -> None:
        """Do it to the bytes of a disk from ``start`` on."""
        first = max(self.offset - start, 0)
        last = min(self.offset + self.length - start, len(disk))
        if first < last:
            disk[first:last] = bytes([self.byte]) * (last - first)


class History:
    """Every content that a power cut may legally leave behind.

    Until a flush has returned, each edit since the last one may have reached a sector or
    not, whatever became of the others.
    """

    def __init__(self, storage: RecordingStorage, disk: bytes) -> None:
        self._storage = storage
        self._durable: list[tuple[int, bytes]] = [(0, disk)]
        self._edits: list[Edit] = []
        self.disk = bytearray(disk)

    def write(self, offset: int, length: int, byte: int) -> None:
        """From now on, a write may show. Call it before writing."""
        self._begin(offset, length, byte, len(self.disk))

    def change(self, image: WritableImage, offset: int, length: int, byte: int) -> None:
        """Write ``length`` times ``byte`` to the image, or zero the range for 0."""
        self.write(offset, length, byte)
        if byte:
            image.write(memoryview(bytes([byte]) * length), offset)
        else:
            image.zero(offset, length)

    def flush(self, image: WritableImage) -> None:
        """Make it all durable."""
        image.flush()
        self.flushed()

    def resize(self, size: int) -> None:
        """From now on, the disk may have that size."""
        self._begin(size, max(0, len(self.disk) - size), 0, size)
        del self.disk[size:]
        self.disk.extend(bytes(size - len(self.disk)))

    def flushed(self) -> None:
        """What was begun so far must survive from now on."""
        self._durable.append((len(self._storage.operations), bytes(self.disk)))

    def check(self, count: int, disk: bytes) -> None:
        """Assert that ``disk`` is legal after ``count`` operations of the storage."""
        since, old = [(at, old) for at, old in self._durable if at <= count][-1]
        edits = [edit for edit in self._edits if since <= edit.at <= count]
        assert len(disk) in {len(old), *(edit.size for edit in edits)}
        length = max(len(disk), len(old))
        new = bytearray(old.ljust(length, b"\0"))
        for edit in edits:
            edit.apply(new)
        for start in range(0, len(disk), 64 * KIB):
            piece = disk[start : start + 64 * KIB]
            if piece not in (old[start : start + len(piece)], new[start : start + len(piece)]):
                self._check_sectors(start, piece, old.ljust(length, b"\0"), edits)

    def _begin(self, offset: int, length: int, byte: int, size: int) -> None:
        edit = Edit(len(self._storage.operations), offset, length, byte, size)
        self._edits.append(edit)
        edit.apply(self.disk)

    @staticmethod
    def _check_sectors(offset: int, piece: bytes, old: bytes, edits: list[Edit]) -> None:
        for start in range(offset, offset + len(piece), SECTOR_BYTES):
            sector = piece[start - offset : start - offset + SECTOR_BYTES]
            end = start + len(sector)
            possible = {old[start:end]}
            for edit in edits:
                if edit.offset < end and start < edit.offset + edit.length:
                    for before in tuple(possible):
                        after = bytearray(before)
                        edit.apply(after, start)
                        possible.add(bytes(after))
            assert sector in possible, f"sector at {start} is neither old nor new"


class FaultContract(FormatCase):
    """A writer that is killed, or whose disk fails, leaves the old state or the new one."""

    def test_a_power_cut_leaves_old_or_new(self) -> None:
        """Fails if any order of un-flushed writes loses a sector that had been flushed."""
        disk, content = self._image()
        storage = RecordingStorage(content)
        history = History(storage, disk)
        self._change(self.edit(storage), history)
        for count, survived in storage.crashes(random.Random(11)):
            history.check(count, self._reopened(survived))

    def test_an_error_at_any_operation_leaves_old_or_new(self) -> None:
        """Fails if giving up at an I/O error leaves an image that does not open."""
        disk, content = self._image()
        for fail_at in range(5000):
            storage = RecordingStorage(content)
            history = History(storage, disk)
            try:
                faulty = FaultyStorage(storage, fail_at=fail_at)
                self._change(self.edit(faulty), history)
                break
            except ImagingError:
                pass
            count = len(storage.operations)
            history.check(count, self._reopened(storage.replay(count)))
            loose = storage.unflushed(count)
            history.check(count, self._reopened(storage.replay(count, dropped=loose)))
        assert faulty.count <= fail_at  # nothing failed in silence

    @pytest.mark.parametrize("late", [False, True])
    def test_an_error_that_passes_does_no_harm(self, late: bool) -> None:  # noqa: FBT001
        """Fails if the tables in memory are wrong after one operation has failed.

        ``late``: it was done all the same, so that what the storage holds is not known.
        """
        disk, content = self._image()
        for fail_at in range(5000):
            storage = RecordingStorage(content)
            history = History(storage, disk)
            faulty = FaultyStorage(storage, fail_at=fail_at, lasting=False, late=late)
            try:
                image = self.edit(faulty)
            except ImagingError:
                continue
            try:
                self._change(image, history)
                break
            except ImagingError:
                image.flush()
            history.check(len(storage.operations), self._reopened(storage))

    def _image(self) -> tuple[bytes, bytes]:
        """An image whose first half is written, every third unit left out."""
        self.need(self.format.support.edit, "cannot be changed in place")
        unit = self._unit()
        starts = [at for at in range(0, self.disk_size // 2, unit) if at // unit % 3 != 1]
        disk = paint(self.disk_size, [(at, unit, 1 + at // unit % 200) for at in starts])
        return disk, self.build(disk)

    def _unit(self) -> int:
        with self.open(self.build(bytes(self.disk_size))) as image:
            return max(SECTOR_BYTES, image.traits.grain)

    def _change(self, image: WritableImage, history: History) -> None:
        """Overwrite, allocate, zero, use again, resize: with a flush now and then."""
        unit = max(SECTOR_BYTES, image.traits.grain)
        far = self.disk_size // 2 // unit * unit + unit
        rounds: tuple[tuple[tuple[int, int, int], ...], ...] = (
            ((unit + 100, 50, 0xA1), (700, 1000, 0xA2)),
            ((0, unit, 0), (far, unit + 9, 0xB1)),
            ((2 * unit, unit, 0), (far + 2 * unit, 60, 0xB2), (2 * unit + 5, 600, 0xB3)),
            ((0, self.disk_size // 3, 0), (10, 10, 0xB4)),
            ((self.disk_size - 600, 600, 0xB5),),
        )
        for operations in rounds:
            for offset, length, byte in operations:
                history.change(image, offset, min(length, image.size - offset), byte)
            history.flush(image)
        for size in self._sizes(unit):
            history.resize(size)
            image.resize(size)
            history.flushed()
        image.commit()
        history.flushed()

    def _sizes(self, unit: int) -> Iterator[int]:
        if self.grows:
            yield self.disk_size + 3 * unit + SECTOR_BYTES
            if self.shrinks:
                yield self.disk_size // 2 // SECTOR_BYTES * SECTOR_BYTES

    def _reopened(self, storage: Storage) -> bytes:
        """The disk; nothing worse than wasted room may be found in its image."""
        format_ = self.format
        if isinstance(format_, Checkable):
            findings = list(format_.check(storage, self.opener(), repair=False))
            assert [found for found in findings if found.severity is Severity.ERROR] == []
        return read_all(self.open(storage))


class HostileContract(FormatCase):
    """Any bytes give a disk or an :class:`ImagingError`, in bounded memory."""

    def test_every_truncation_is_a_disk_or_an_error(self) -> None:
        """Fails if a short file raises anything else, or makes us allocate without bound."""
        content = self._content()
        randomness = random.Random(12)
        lengths = set(range(min(len(content), 1100)))
        lengths.update(range(0, len(content), max(SECTOR_BYTES, len(content) // 200)))
        lengths.update(randomness.randrange(len(content)) for _ in range(200))
        for length in sorted(lengths):
            self._survive(content[:length], f"cut off at {length}")

    def test_every_flipped_byte_is_a_disk_or_an_error(self) -> None:
        """Fails if one wrong byte or field raises anything else."""
        content = self._content()
        randomness = random.Random(13)
        written = [at for at, byte in enumerate(content) if byte]
        for _ in range(250):
            at = randomness.choice(written[: randomness.choice((100, 600, len(written)))])
            changed = bytearray(content)
            changed[at] = randomness.choice((0, 0xFF, changed[at] ^ 1 << randomness.randrange(8)))
            self._survive(bytes(changed), f"byte {at} is 0x{changed[at]:x}")
        for at in self._fields(content, randomness):
            for field in randomness.sample(FIELD_VALUES, 2):
                changed = bytearray(content)
                changed[at : at + 4] = field
                self._survive(bytes(changed), f"field at {at} is {field.hex()}")

    @staticmethod
    def _fields(content: bytes, randomness: random.Random) -> list[int]:
        """Places of 32-bit fields near the start: those that hold something, and some more."""
        places = range(0, min(len(content) - 4, 4096), 4)
        written = [at for at in places if any(content[at : at + 4])]
        return written[:100] + randomness.sample(places, min(50, len(places)))

    def _content(self) -> bytes:
        return self.build(paint(self.disk_size, random_writes(random.Random(14), self.disk_size)))

    def _survive(self, content: bytes, what: str) -> None:
        """Open, look around, check and change; anything but an imaging error is a failure."""
        try:
            with bounded_memory(HOSTILE_BYTES_MAX):
                self._look(content)
                self._check(content)
                self._write(content)
        except Exception as failure:
            raise AssertionError(f"{self.format.name}: {what}") from failure

    def _look(self, content: bytes) -> None:
        try:
            with self.open(content) as image:
                image.info()
                image.read_at(0, 64 * KIB)
                image.read_at(max(0, image.size - 64 * KIB), 64 * KIB)
                for _ in itertools.islice(image.extents(0, image.size), 200):
                    pass
        except ImagingError:
            pass

    def _check(self, content: bytes) -> None:
        format_ = self.format
        if isinstance(format_, Checkable):
            try:
                findings = format_.check(MemoryStorage(content), self.opener(), repair=False)
                for _ in itertools.islice(findings, 200):
                    pass
            except ImagingError:
                pass

    def _write(self, content: bytes) -> None:
        if not self.format.support.edit:
            return
        storage = FaultyStorage(MemoryStorage(content), size_max=len(content) + 16 * MIB)
        try:
            with self.edit(storage) as image:
                if image.size >= KIB:
                    image.write(memoryview(b"x" * KIB), 0)
                    image.write(memoryview(b"x" * KIB), image.size - KIB)
                    image.zero(0, min(image.size, 64 * KIB))
                image.commit()
        except ImagingError:
            pass


@contextmanager
def bounded_memory(more_bytes: int) -> Iterator[None]:
    """Let every allocation fail that would take the process beyond ``more_bytes`` from now.

    By the address space, so that what is asked for counts even if it is never touched. Does
    nothing where the system does not say how large the process is.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
