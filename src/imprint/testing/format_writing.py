"""The part of the format contract about creating, writing, resizing and overlays."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from imprint.core.contracts import Encoding, Reference, Resumable
from imprint.core.errors import ImagingError
from imprint.core.events import Severity
from imprint.core.extent import Kind
from imprint.core.formats import Checkable, Resuming
from imprint.core.image import Image, WritableImage
from imprint.core.units import align_down, align_up
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import PendingFile
from imprint.testing.disks import Write, fill, random_writes, writes
from imprint.testing.faults import FaultyStorage, RecordingStorage
from imprint.testing.format_case import FormatCase, read_all, write
from imprint.testing.format_reading import PER_FORMAT, STORED
from imprint.testing.opener import DictOpener
from imprint.testing.oracles import paint

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Storage


class WritingContract(FormatCase):
    """Whatever is written, in whatever order, is what is read."""

    @PER_FORMAT
    @given(data=st.data())
    def test_writes_in_any_order_keep_their_neighbours(self, data: st.DataObject) -> None:
        """Fails if a partial write loses the rest of its unit, or crosses a border wrongly."""
        storage = MemoryStorage()
        image = self.writable(storage, self.disk_size)
        self._write_and_compare(image, storage, bytes(self.disk_size), data)

    @PER_FORMAT
    @given(data=st.data())
    def test_editing_keeps_what_it_does_not_touch(self, data: st.DataObject) -> None:
        """Fails if opening for writing takes a unit that is in use for a free one."""
        self.need(self.format.support.edit, "cannot be changed in place")
        disk = paint(self.disk_size, data.draw(writes(self.disk_size)))
        storage = MemoryStorage(self.build(disk))
        self._write_and_compare(self.edit(storage), storage, disk, data)

    def test_a_write_over_every_border_is_whole(self) -> None:
        """Fails if a write that ends, begins or passes at a unit's border is off by one."""
        storage = MemoryStorage()
        image = self.writable(storage, self.disk_size)
        disk = bytearray(self.disk_size)
        grain = max(512, image.traits.grain)
        for step, border in enumerate(range(grain, self.disk_size, grain)):
            length = min(2 + step % 3, self.disk_size - border + 1)
            write(image, disk, border - 1, length, 1 + step % 255)
        image.commit()
        assert read_all(self.open(bytes(storage.content))) == disk

    def test_zero_reads_as_zeros_and_gives_room_back(self) -> None:
        """Fails if zeroed units keep their place, or a partial one loses its neighbours."""
        storage = MemoryStorage()
        image = self.writable(storage, self.disk_size)
        disk = bytearray(self.disk_size)
        write(image, disk, 0, self.disk_size, 0x77)
        grain = image.traits.grain
        start, end = self.disk_size // 5, self.disk_size * 4 // 5
        write(image, disk, start, end - start, 0)
        image.commit()
        reopened = self.open(bytes(storage.content))
        assert read_all(reopened) == disk
        first, last = align_up(start, grain), align_down(end, grain)
        if self.frees_zeros and last > first:
            inside = list(reopened.extents(first, last - first))
            assert not [extent for extent in inside if extent.kind in STORED]

    def test_a_commit_is_durable(self) -> None:
        """Fails if something was written and not flushed when ``commit`` returned."""
        disk = paint(self.disk_size, random_writes(random.Random(3), self.disk_size))
        storage = RecordingStorage()
        target = self.create(storage, len(disk))
        fill(target, disk, step=max(1 << 16, target.traits.grain))
        target.commit()
        count = len(storage.operations)
        survived = storage.replay(count, dropped=storage.unflushed(count))
        assert read_all(self.open(survived)) == disk

    def test_abort_leaves_nothing(self, tmp_path: Path) -> None:
        """Fails if an image that was given up stays behind, under any name."""
        storage = PendingFile.create(tmp_path / "image", may_replace=False)
        target = self.create(storage, self.disk_size)
        target.write(memoryview(b"x" * 512), 0)
        target.abort()
        target.abort()
        assert list(tmp_path.iterdir()) == []

    def test_a_failing_target_is_reported(self) -> None:
        """Fails if a full or broken disk is not noticed, whichever operation meets it."""
        disk = paint(self.disk_size, random_writes(random.Random(4), self.disk_size))
        for fail_at in range(5000):
            storage = FaultyStorage(fail_at=fail_at)
            try:
                target = self.create(storage, len(disk))
                fill(target, disk, step=max(1 << 16, target.traits.grain))
                target.commit()
                break
            except ImagingError:
                continue
        assert storage.count <= fail_at  # nothing failed in silence

    def test_what_is_encoded_elsewhere_is_the_same(self) -> None:
        """Fails if compressing in another thread gives another image than writing."""
        disk = paint(self.disk_size, random_writes(random.Random(5), self.disk_size))
        storage = MemoryStorage()
        target = self.create(storage, len(disk))
        self.need(isinstance(target, Encoding), "does not encode")
        assert isinstance(target, Encoding)
        step = align_up(1 << 16, target.traits.grain)
        for start in range(0, len(disk), step):
            piece = memoryview(disk)[start : start + step]
            target.write_encoded(target.encode(piece, start), start)
        target.commit()
        assert read_all(self.open(bytes(storage.content))) == disk

    def test_a_prediction_is_an_upper_bound(self) -> None:
        """Fails if an image gets larger than ``measure`` said it can."""
        self.need(self.format.support.write, "cannot be written")
        for disk in (bytes(self.disk_size), random.Random(6).randbytes(self.disk_size)):
            source = MemoryStorage(disk)
            predicted = self.format.measure(source, self.spec(len(disk)))
            assert len(self.build(disk)) <= predicted.fully_allocated
            # A file system's block more, for those that count in these.
            assert predicted.required <= predicted.fully_allocated + 4096

    def test_it_finds_nothing_wrong_with_its_own_images(self) -> None:
        """Fails if the check or the tables are wrong."""
        self.need(isinstance(self.format, Checkable), "has no check")
        disk = paint(self.disk_size, random_writes(random.Random(7), self.disk_size))
        storage = MemoryStorage(self.build(disk))
        before = bytes(storage.content)
        self._assert_clean(storage)
        assert storage.content == before

    def test_it_can_be_resumed_at_a_checkpoint(self) -> None:
        """Fails if what was durable is lost, or what came later shows through."""
        format_ = self.format
        self.need(isinstance(format_, Resuming), "cannot be resumed")
        assert isinstance(format_, Resuming)
        disk = random.Random(8).randbytes(self.disk_size)
        half = align_up(self.disk_size // 2, 512)
        storage = RecordingStorage()
        target = self.create(storage, len(disk))
        assert isinstance(target, Resumable)
        target.write(memoryview(disk)[:half], 0)
        target.checkpoint()
        kept = len(storage.operations)
        target.write(memoryview(b"\xee" * (self.disk_size - half)), half)
        loose = storage.unflushed(len(storage.operations))
        for dropped in ((), loose, loose[::2]):
            survived = storage.replay(len(storage.operations), dropped=dropped)
            again = format_.resume(survived, self.spec(len(disk)))
            assert not again.traits.reads_zero
            again.write(memoryview(disk)[half:-1024], half)
            again.zero(len(disk) - 1024, 1024)
            again.commit()
            expected = disk[:-1024] + bytes(1024)
            assert read_all(self.open(bytes(survived.content))) == expected
        assert kept

    def test_growing_and_shrinking_keep_the_rest(self) -> None:
        """Fails if bytes move, are lost, or come back after they were cut off."""
        self.need(self.grows, "cannot be resized")
        disk = bytearray(random.Random(9).randbytes(self.disk_size))
        storage = MemoryStorage(self.build(bytes(disk)))
        image = self.edit(storage)
        grain = max(512, image.traits.grain)
        sizes = [self.disk_size + 512, self.disk_size + 5 * grain + 1024]
        if self.shrinks:
            sizes += [2 * grain + 512, grain * 2, self.disk_size, 512]
        sizes.append(self.disk_size + 9 * grain)
        for size in sizes:
            image.resize(size)
            del disk[size:]
            disk.extend(bytes(size - len(disk)))
            assert image.size == size
            assert read_all(image) == disk
            assert read_all(self.open(bytes(storage.content))) == disk
            write(image, disk, size - 300, 300, 0x42)
            image.flush()
            assert read_all(self.open(bytes(storage.content))) == disk
            self._assert_clean(storage)
        image.close()

    def _write_and_compare(
        self, image: WritableImage, storage: MemoryStorage, disk: bytes, data: st.DataObject
    ) -> None:
        model = bytearray(disk)
        drawn: list[Write] = data.draw(writes(self.disk_size, with_zeros=True))
        for step, (offset, length, byte) in enumerate(drawn):
            write(image, model, offset, length, byte)
            assert read_all(image) == model
            if step % 3 == 2:
                image.flush()
        image.commit()
        assert read_all(self.open(bytes(storage.content))) == model
        self._assert_clean(storage)

    def _assert_clean(self, storage: MemoryStorage) -> None:
        """Not even room may be wasted, once all is committed."""
        format_ = self.format
        if isinstance(format_, Checkable):
            findings = list(format_.check(storage, self.opener(), repair=False))
            assert [found for found in findings if found.severity is not Severity.INFO] == []


class OverlayContract(FormatCase):
    """An image with a parent shows its own bytes, and the parent's where it has none."""

    def test_what_is_not_written_shows_the_parent(self) -> None:
        """Fails if a copied-up unit loses the parent's bytes, or the parent is changed."""
        disk, parent = self._parent()
        storage = MemoryStorage(name="child" + self.suffix)
        image = self._overlay(storage, parent, len(disk))
        model = bytearray(disk)
        assert read_all(image) == disk
        assert {extent.kind for extent in image.own_extents(0, image.size)} == {Kind.HOLE}
        grain = image.traits.grain
        write(image, model, grain // 2 + 1, 3, 0xC1)
        write(image, model, len(disk) // 2, grain + 7, 0xC2)
        write(image, model, len(disk) - 5, 5, 0xC3)
        image.commit()
        reopened = self._open_overlay(storage, parent)
        assert read_all(reopened) == model
        assert read_all(self.open(bytes(parent.content))) == disk

    def test_zeros_hide_the_parent(self) -> None:
        """Fails if zeroing an overlay gives back the parent's bytes."""
        disk, parent = self._parent()
        storage = MemoryStorage(name="child" + self.suffix)
        image = self._overlay(storage, parent, len(disk))
        model = bytearray(disk)
        write(image, model, 100, len(disk) // 2, 0)
        write(image, model, len(disk) * 3 // 4, 1000, 0x11)
        write(image, model, len(disk) * 5 // 8, len(disk) // 4, 0)
        image.commit()
        assert read_all(self._open_overlay(storage, parent)) == model

    def test_a_larger_overlay_is_zero_behind_its_parent(self) -> None:
        """Fails if reading behind a shorter parent is an error, or not zero."""
        disk, parent = self._parent()
        storage = MemoryStorage(name="child" + self.suffix)
        size = len(disk) + self.disk_size // 2 // 512 * 512
        image = self._overlay(storage, parent, size)
        model = bytearray(disk + bytes(size - len(disk)))
        write(image, model, len(disk) - 1, 2, 0xD1)
        image.commit()
        assert read_all(self._open_overlay(storage, parent)) == model

    def test_a_smaller_overlay_grows_by_zeros(self) -> None:
        """Fails if bytes of a longer parent show through when the overlay is enlarged."""
        self.need(self.grows, "cannot be resized")
        disk, parent = self._parent()
        storage = MemoryStorage(name="child" + self.suffix)
        size = self.disk_size // 2 // 512 * 512 + 512
        image = self._overlay(storage, parent, size)
        assert read_all(image) == disk[:size]
        image.resize(len(disk))
        expected = disk[:size] + bytes(len(disk) - size)
        assert read_all(image) == expected
        image.commit()
        assert read_all(self._open_overlay(storage, parent)) == expected

    def test_the_parent_is_named(self) -> None:
        """Fails if an overlay does not tell that it is one."""
        disk, parent = self._parent()
        storage = MemoryStorage(name="child" + self.suffix)
        self._overlay(storage, parent, len(disk)).commit()
        reopened = self._open_overlay(storage, parent)
        assert reopened.info().parent
        assert reopened.parent is not None

    def _parent(self) -> tuple[bytes, MemoryStorage]:
        self.need(self.format.support.parent and self.has_parents, "has no parents")
        disk = random.Random(10).randbytes(self.disk_size)
        return disk, MemoryStorage(self.build(disk), name="parent" + self.suffix)

    def _overlay(self, storage: Storage, parent: MemoryStorage, size: int) -> WritableImage:
        source = self.open(parent)
        reference = Reference(parent.name, format=self.format.name, uuid=source.info().uuid)
        target = self.format.create(storage, self.spec(size, parent=reference, source=source))
        assert isinstance(target, WritableImage)
        assert not target.traits.reads_zero
        return target

    def _open_overlay(self, storage: MemoryStorage, parent: MemoryStorage) -> Image:
        opener = DictOpener(files={parent.name: parent})
        return self.format.open(MemoryStorage(storage.content, name=storage.name), opener)
