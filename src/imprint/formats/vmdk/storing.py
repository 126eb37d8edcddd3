"""Changing a descriptor so that it is the old one or the new one, whatever happens.

A change inside one sector is one write. A longer one is

* of a file of its own: a new file that takes its name, where the storage can do that;
* inside an extent: written behind all else first. The header, which is one sector, then says
  that the descriptor is there; it is written again in its own place, and the header says that it
  is there. Programs that do not ask the header look for it in sector 1 (QEMU does).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from imprint.core.contracts import Replaceable
from imprint.core.errors import UnsupportedFeatureError
from imprint.core.units import align_up
from imprint.formats.vmdk.headers import SparseFile, bytes_at, read_header
from imprint.formats.vmdk.layout import SECTOR, TEXT_MAGIC

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.formats.vmdk.descriptor import Descriptor
    from imprint.formats.vmdk.layout import SparseHeader


class HeaderOwner(Protocol):
    """Who writes the header of the extent that the descriptor is in."""

    @property
    def header(self) -> SparseHeader:
        """As it is in the file."""

    def write_header(self, header: SparseHeader) -> None:
        """One sector: old or new."""


class LoneHeader:
    """The header of an extent that nobody else is writing."""

    def __init__(self, storage: Storage) -> None:
        """Reads it."""
        self._storage = storage
        self._header = read_header(storage)

    @property
    def header(self) -> SparseHeader:
        """As it is in the file."""
        return self._header

    def write_header(self, header: SparseHeader) -> None:
        """Not flushed."""
        self._storage.write(memoryview(header.pack()), 0)
        self._header = header


def store(
    storage: Storage,
    descriptor: Descriptor,
    owner: HeaderOwner | None = None,
    *,
    used: int = 0,
) -> None:
    """Put ``descriptor`` in the place of the old one; flushed if it takes more than one write.

    Args:
        storage: that holds it.
        descriptor: the new one.
        owner: of the header, if ``storage`` is an extent that is open for writing.
        used: bytes of ``storage`` that are spoken for, maybe more than it has yet.

    Raises:
        UnsupportedFeatureError: if it does not fit into its extent any more.
    """
    data = descriptor.text.encode(descriptor.encoding, "surrogateescape")
    if not descriptor.room:
        _store_file(storage, data)
        return
    if len(data) > descriptor.room:
        raise UnsupportedFeatureError(
            f"descriptor: expected at most {descriptor.room} bytes, found {len(data)}",
            name=storage.name,
        )
    data = data.ljust(descriptor.room, b"\0")
    owner = owner or LoneHeader(storage)
    if owner.header.descriptor_offset * SECTOR != descriptor.offset:
        # An attempt that failed has left it elsewhere, and what is here may be torn.
        _move_to(storage, data, descriptor.offset, owner)
        return
    old = bytes_at(storage, descriptor.offset, descriptor.room)
    if not _store_sector(storage, old, data, descriptor.offset):
        size = storage.size
        aside = align_up(max(size, used), SECTOR)
        _move_to(storage, data, aside, owner)
        _move_to(storage, data, descriptor.offset, owner)
        storage.resize(size)


def stray(file: SparseFile) -> bool:
    """Whether the descriptor still is where an interrupted change has put it."""
    header = file.header
    if header is None or file.descriptor is None or header.descriptor_offset == 1:
        return False
    end = 1 + header.descriptor_size
    places = [header.directory_offset, header.overhead, *filter(None, file.tables.directory)]
    if header.redundant_offset:
        places.append(header.redundant_offset)
    return not file.geometry.is_compressed and min(places) >= end


def bring_home(storage: Storage, file: SparseFile) -> bool:
    """Put a stray descriptor into its own place; ``False`` if none was ever there."""
    descriptor = file.descriptor
    assert descriptor is not None
    if not bytes_at(storage, SECTOR, SECTOR).startswith(TEXT_MAGIC):
        return False
    data = bytes_at(storage, descriptor.offset, descriptor.room)
    _move_to(storage, data, SECTOR, LoneHeader(storage))
    return True


def _store_file(storage: Storage, data: bytes) -> None:
    old = bytes_at(storage, 0, storage.size)
    if len(old) == len(data) and _store_sector(storage, old, data, 0):
        return
    if isinstance(storage, Replaceable):
        storage.replace(memoryview(data))
        return
    storage.write(memoryview(data), 0)
    if storage.size > len(data):
        storage.resize(len(data))


def _store_sector(storage: Storage, old: bytes, new: bytes, start: int) -> bool:
    """Write the one sector that differs; ``False`` if there are more."""
    at = [at for at in range(0, len(new), SECTOR) if old[at : at + SECTOR] != new[at : at + SECTOR]]
    if len(at) == 1:
        storage.write(memoryview(new)[at[0] : at[0] + SECTOR], start + at[0])
    return len(at) <= 1


def _move_to(storage: Storage, data: bytes, offset: int, owner: HeaderOwner) -> None:
    """Write the descriptor where none counts yet, then let the header name the place."""
    storage.write(memoryview(data), offset)
    storage.flush()
    owner.write_header(owner.header.replace(descriptor_offset=offset // SECTOR))
    storage.flush()
