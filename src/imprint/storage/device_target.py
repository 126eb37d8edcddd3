"""Overwriting a block device as a whole.

A device cannot be written under another name first, as a file is. So its target holds back
what makes a disk look like one: partition tables and boot sectors, in the first and the last
MiB. A disk that was half written when the power failed never looks whole.

::

    first change    old head and tail are read, and zeroed on the device; flush
    write, zero     to the device; head and tail only in memory
    commit          flush, tail, flush, head, flush, its first 4 KiB, flush
    abort           head and tail stay zeros, if anything was changed at all
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from imprint.core.buffers import copy_by_hand, fill_zero
from imprint.core.errors import (
    ImagingError,
    ReadError,
    RefusedError,
    TargetError,
    TargetTooSmallError,
    TruncatedImageError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.units import MIB
from imprint.storage.device import DeviceStorage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from imprint.core.contracts import Storage, Traits

HELD_BYTES: Final = 1 * MIB
"""Held back at each end: partition tables (GPT: 17 KiB), boot loaders, LUKS and RAID headers."""

_SIGNATURE_BYTES: Final = 4096  # MBR, GPT header, boot sector or superblock: what is looked at

_log = logging.getLogger(__name__)


class DeviceTarget:
    """A device that gets a new disk; also a :class:`~imprint.core.contracts.Storage`.

    What is never written keeps what it held, but for the last MiB of a device that is larger
    than the disk: that reads as zeros afterwards, since an old backup table there would
    belong to a disk that is gone.

    Not resumable: what is held back is lost with the process.
    """

    def __init__(self, device: Storage, size: int) -> None:
        """Takes over ``device``, a storage of fixed size; use :meth:`open`."""
        self._device = device
        self._size = size
        self._head_end = min(HELD_BYTES, device.size)
        self._tail_start = max(self._head_end, device.size - HELD_BYTES)
        self._head = memoryview(bytearray(self._head_end))
        self._tail = memoryview(bytearray(device.size - self._tail_start))
        self._is_changed = False
        self._is_done = False

    @classmethod
    def open(cls, path: Path, *, size: int | None = None) -> Self:
        """Claim a device for a disk of ``size`` bytes, or as large as it is itself.

        Changes nothing yet.

        Raises:
            TargetTooSmallError: if the device is smaller.
            TargetBusyError: if it is mounted or otherwise in use.
            TargetError: if it cannot be opened, or is no block device.
        """
        device = DeviceStorage.open(path, writable=True)
        if size is None:
            size = device.size
        if size > device.size:
            device.close()
            raise TargetTooSmallError(
                f"has {device.size} bytes, {size} are needed", name=str(path), length=size
            )
        return cls(device, size)

    @property
    def name(self) -> str:
        """The path."""
        return self._device.name

    @property
    def size(self) -> int:
        """Of the disk that is written, in bytes; the device may be larger."""
        return self._size

    @property
    def device_size(self) -> int:
        """Of the device, in bytes."""
        return self._device.size

    @property
    def traits(self) -> Traits:
        """Of the device."""
        return self._device.traits

    @property
    def is_writable(self) -> bool:
        """It is."""
        return True

    @property
    def stored_size(self) -> int:
        """All of the device."""
        return self._device.size

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` with what was written, held back or not."""
        self._check_range(offset, len(buffer), TruncatedImageError)
        if not self._is_changed:
            self._device.readinto(buffer, offset)
            return
        for part in self._parts(offset, len(buffer)):
            view = buffer[part.start - offset : part.stop - offset]
            if part.held is None:
                self._device.readinto(view, part.start)
            else:
                view[:] = part.held

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data."""
        if length:
            yield Extent(offset, length, Kind.DATA, self, offset)

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``: on the device, or for commit.

        Raises:
            TargetTooSmallError: if it does not fit.
            TargetError: if the device fails.
        """
        self._check_range(offset, len(data), TargetTooSmallError)
        if len(data):
            self._begin()
        for part in self._parts(offset, len(data)):
            view = data[part.start - offset : part.stop - offset]
            if part.held is None:
                self._device.write(view, part.start)
            else:
                part.held[:] = view

    def zero(self, offset: int, length: int) -> None:
        """Make zeros: on the device, or for commit."""
        self._check_range(offset, length, TargetTooSmallError)
        if length:
            self._begin()
        for part in self._parts(offset, length):
            if part.held is None:
                self._device.zero(part.start, part.stop - part.start)
            else:
                fill_zero(part.held)

    def resize(self, size: int) -> None:
        """Nothing, if it is the size that the disk has.

        Raises:
            RefusedError: if it is another one.
        """
        if size != self._size:
            raise RefusedError(
                f"expected a disk of {self._size} bytes, found {size}", name=self.name
            )

    def can_offload(self, source: Storage) -> bool:
        """The kernel copies only from file to file."""
        del source
        return False

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Read and write."""
        copy_by_hand(source, source_offset, self, offset, length)

    def flush(self) -> None:
        """Wait until all but what is held back is on the medium."""
        self._device.flush()

    def commit(self) -> None:
        """Make the disk whole: its tables are written when all else is durable."""
        if self._is_done:
            return
        if self._is_changed:
            split = min(_SIGNATURE_BYTES, self._head_end)
            for held, start in (
                (self._tail, self._tail_start),
                (self._head[split:], split),
                (self._head[:split], 0),
            ):
                self._device.flush()
                self._device.write(held, start)
            self._device.flush()
        self._is_done = True
        self._device.commit()

    def abort(self) -> None:
        """Leave the device without partition tables if it was changed, else as it was."""
        if self._is_done:
            return
        self._is_done = True
        try:
            if self._is_changed:
                # A commit that failed may have written some of it.
                self._invalidate()
                _log.warning(
                    "%s: was written in part: its first and last MiB are zeros now", self.name
                )
        except TargetError as error:
            # The caller is handling the error that led here, which says more.
            _log.warning("%s", error)
        finally:
            self._device.abort()

    def close(self) -> None:
        """Close the device as it is: the same as :meth:`abort` before a commit."""
        self.abort()

    def _begin(self) -> None:
        """Make the old disk unrecognisable, before the first byte of the new one."""
        if self._is_changed:
            return
        for held, start in ((self._head, 0), (self._tail, self._tail_start)):
            inside = held[: max(0, self._size - start)]
            try:
                self._device.readinto(inside, start)
            except ReadError as error:  # being overwritten is what it needs
                _log.debug("%s", error)
                fill_zero(inside)
        self._is_changed = True
        self._invalidate()

    def _invalidate(self) -> None:
        self._device.zero(0, self._head_end)
        self._device.zero(self._tail_start, len(self._tail))
        self._device.flush()

    def _parts(self, offset: int, length: int) -> Iterator[_Part]:
        """The range, cut where what is held back begins and ends."""
        end = offset + length
        start, stop = offset, min(end, self._head_end)
        if start < stop:
            yield _Part(start, stop, self._head[start:stop])
        start, stop = max(offset, self._head_end), min(end, self._tail_start)
        if start < stop:
            yield _Part(start, stop, None)
        start = max(offset, self._tail_start)
        if start < end:
            yield _Part(start, end, self._tail[start - self._tail_start : end - self._tail_start])

    def _check_range(self, offset: int, length: int, error: type[ImagingError]) -> None:
        if offset + length > self._size:
            raise error(
                f"expected a range inside the disk's {self._size} bytes, found {offset} + {length}",
                name=self.name,
                offset=offset,
                length=length,
            )


class _Part(NamedTuple):
    """A piece of a range; ``held`` is where its bytes are kept, if they are held back."""

    start: int
    stop: int
    held: memoryview | None
