"""The contracts that hold imprint together; each has a test suite in ``imprint.testing``.

Drivers *map*, the core *moves*: a format driver (:class:`Layer`) answers where bytes are
and where new ones may go; :mod:`imprint.core.image` does all I/O of all formats; and
:mod:`imprint.transfer` copies any :class:`Source` to any :class:`Target`.

All offsets and lengths are bytes. Whatever raises :class:`~imprint.core.errors.ReadError`
or :class:`~imprint.core.errors.TargetError` does so with the name, offset and length.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from imprint.core.extent import Extent
    from imprint.core.info import ImageInfo


class Order(enum.Enum):
    """In which order a target takes its bytes."""

    ANY = "any"
    ASCENDING = "ascending"


@dataclass(frozen=True)
class Traits:
    """What a caller may want to know before it reads or writes.

    Attributes:
        grain: what the disk is allocated in: a cluster of an image, a block of a file
            system. Data is worth cutting at its multiples and not finer.
        logical_sector: the smallest unit that the disk's user can address.
        physical_sector: the smallest unit that is written without reading first.
        order: of a target: what it demands of its writer.
        reads_zero: of a target: whether what is never written reads as zeros.
    """

    grain: int = 4096
    logical_sector: int = 512
    physical_sector: int = 512
    order: Order = Order.ANY
    reads_zero: bool = False


class Source(Protocol):
    """Anything that can be read as a disk. Safe to use from many threads at once."""

    @property
    def name(self) -> str:
        """What errors call it: a path or an address."""

    @property
    def size(self) -> int:
        """In bytes; does not change while a copy reads."""

    @property
    def traits(self) -> Traits:
        """What a reader may want to know."""

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` with the bytes at ``offset``: all of it, or raise.

        The range has to lie inside the disk.

        Raises:
            ReadError: if any of the range cannot be read; ``buffer`` is then undefined.
            FormatError: if what the image says of the range makes no sense.
        """

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What ``[offset, offset + length)`` is made of: ascending, contiguous, exact cover.

        Lazy: a consumer that stops early has not paid for the rest. Nothing for length 0.
        """

    def close(self) -> None:
        """Give back files and tables. Calling again changes nothing."""


@runtime_checkable
class Salvage(Protocol):
    """A source that reads on where others fail, and says what it could not get."""

    def bad_extents(self) -> list[Extent]:
        """``BAD`` extents of what could not be read so far, ascending."""


class Target(Protocol):
    """Anything a disk can be written to. One thread writes; nothing shows before ``commit``."""

    @property
    def name(self) -> str:
        """What errors call it: a path or an address."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def traits(self) -> Traits:
        """What a writer has to know."""

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``; it may be reused when this returns."""

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros, using as little room as the target can."""

    def commit(self) -> None:
        """Make the disk visible under its name, whole and durable when this returns."""

    def abort(self) -> None:
        """Forget it all; leaves nothing under the final name. Calling again changes nothing."""


@runtime_checkable
class Resumable(Protocol):
    """A target whose unfinished state can be kept and taken up again later."""

    def checkpoint(self) -> None:
        """Make all that was written survive a crash, without making it visible."""

    def suspend(self) -> None:
        """Close it for now, keeping what the last checkpoint made durable."""


@runtime_checkable
class Encoding(Protocol):
    """A target that compresses: the costly half of a write may run in any thread.

    ``write(data, offset)`` is the same as ``write_encoded(encode(data, offset), offset)``.
    """

    def encode(self, data: memoryview, offset: int) -> list[bytes]:
        """Compress units of the disk. ``data`` is whole grains, but for the disk's last one.

        Thread-safe; touches no state. ``data`` may be reused when this returns. Each
        item is the stored form of one grain: empty if it is all zeros.
        """

    def write_encoded(self, units: list[bytes], offset: int) -> None:
        """Store what :meth:`encode` made of the range that starts at ``offset``."""


@runtime_checkable
class Documenting(Protocol):
    """A target that keeps what came of a copy: hashes of the disk, and its bad areas."""

    @property
    def wanted_hashes(self) -> tuple[str, ...]:
        """Names of hashes that whoever writes it should take on the way."""

    def document(self, hashes: Mapping[str, str], bad: Iterable[Extent]) -> None:
        """Keep digests (hexadecimal, by name) and what is ``BAD``; told before ``commit``.

        ``hashes`` may have more, or fewer, than were wanted; extents come in any order.
        """


@runtime_checkable
class Offloading(Protocol):
    """A target that can take bytes from a storage without them passing through Python."""

    def can_offload(self, extent: Extent) -> bool:
        """Whether :meth:`copy_from` would spare work for this ``DATA`` extent."""

    def copy_from(self, extent: Extent) -> None:
        """The same as writing the extent's bytes at its offset."""


class Storage(Source, Protocol):
    """Where bytes live: a file, a device, memory, an HTTP object. Writable ones are targets too.

    Its own ``extents`` are ``DATA`` (with itself as their storage) and ``HOLE``.
    """

    @property
    def is_writable(self) -> bool:
        """Whether ``write`` and its like may be called."""

    @property
    def stored_size(self) -> int:
        """Bytes that it takes up where it lives: less than ``size`` if it is sparse."""

    def write(self, data: memoryview, offset: int) -> None:
        """Store all of ``data``, growing the storage if it ends behind it."""

    def zero(self, offset: int, length: int) -> None:
        """Make the range read as zeros, as a hole where the storage can; grows like ``write``."""

    def resize(self, size: int) -> None:
        """Cut it off, or let it grow by zeros."""

    def can_offload(self, source: Storage) -> bool:
        """Whether the system can copy from ``source`` to here by itself."""

    def copy_range(self, source: Storage, source_offset: int, offset: int, length: int) -> None:
        """Copy bytes from another storage, by the system if it can."""

    def flush(self) -> None:
        """Wait until all that was written is durable."""

    def commit(self) -> None:
        """Flush; a storage that was created under a temporary name takes its own now."""

    def abort(self) -> None:
        """Remove it if it was created and not committed."""


@runtime_checkable
class HasDescriptor(Protocol):
    """A storage whose bytes the kernel can move by itself: those of a file, where they are."""

    def fileno(self) -> int:
        """The descriptor, open for reading; offsets in it are those of the storage."""


@runtime_checkable
class Replaceable(Protocol):
    """A storage whose content can be exchanged as a whole."""

    def replace(self, content: memoryview) -> None:
        """Make ``content`` all that it holds, durably: after a crash it is the old or the new."""


class Layer(Protocol):
    """What a format driver is: two questions about a mapping. Thread-safe for reading."""

    @property
    def size(self) -> int:
        """Of the disk, in bytes."""

    @property
    def traits(self) -> Traits:
        """Of the disk; ``grain`` is what the format allocates in."""

    def map(self, offset: int, length: int) -> Extent:
        """What is at ``offset``, and for how long: ``0 < result.length <= length``.

        Runs are as long as the tables at hand show. May load one table, no more.
        """

    def unit(self, offset: int) -> Extent:
        """The indivisible unit around ``offset``, of which ``map`` said ``ENCODED``."""

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Produce the bytes of a whole unit; ``buffer`` has its length."""

    def info(self) -> ImageInfo:
        """What can be said of the image without reading its data."""

    def close(self) -> None:
        """Close the storages that the layer owns."""


class WritableLayer(Layer, Protocol):
    """A layer that can be written: it only gives places, and never sees the bytes.

    Writing is *allocate*, write the bytes there, *link*: until linked, the disk reads as
    before. ``traits.grain`` is the unit; ranges below are whole units, but for the disk's end.
    """

    def place(self, offset: int, length: int) -> Extent | None:
        """Where bytes at ``offset`` may be overwritten in place, as a ``DATA`` extent.

        May be shorter than ``length``. ``None``: the unit has no place of its own (it is
        absent, zero, compressed or shared) and has to be allocated.
        """

    def allocate(self, offset: int, length: int) -> Extent:
        """Reserve one contiguous run for units that have no place; may be shorter."""

    def link(self, extent: Extent) -> None:
        """Make the disk's range be what :meth:`allocate` gave and the caller has written."""

    def zero(self, offset: int, length: int) -> None:
        """Make units read as zeros, giving back their room."""

    def resize(self, size: int) -> None:
        """Change the disk's size; what is new reads as zeros, over a parent too.

        If a parent reaches behind the old end, the caller has given the last unit a place,
        so that the layer only has to clear its tail, and to mark whole new units as zero.
        """

    def flush(self) -> None:
        """Write back changed tables: data before tables before header, each made durable."""


@runtime_checkable
class Finishing(Protocol):
    """A writable layer whose new images would show how often they were flushed."""

    def finish(self) -> None:
        """Remove such traces if the image is new. It is flushed before, and durable after."""


class Passphrase(Protocol):
    """Asks for a secret when an image turns out to need it."""

    def __call__(self, name: str) -> bytes:
        """The passphrase for the image ``name``.

        Raises:
            PassphraseError: if there is none and nobody to ask.
        """


@dataclass(frozen=True)
class Reference:
    """Another image that this one depends on, as it names it.

    Attributes:
        name: as written in the image; relative to its folder if it is a relative path.
        format: the format's name, or ``None`` where the image does not say.
        uuid: what the other image must have, where chains are linked by UUID.
    """

    name: str | None
    format: str | None = None
    uuid: str | None = None


class Opener(Protocol):
    """The gate: all that an image may have from outside itself passes here."""

    def parent(self, reference: Reference, beside: Storage) -> Source:
        """Open the image that the image in ``beside`` builds upon.

        Raises:
            ReferenceRefusedError: if policy forbids it, or it is missing or a loop.
        """

    def data_file(self, reference: Reference, beside: Storage) -> Storage:
        """Open the file that holds the data of the image in ``beside``.

        It is writable if ``beside`` is.

        Raises:
            ReferenceRefusedError: as for :meth:`parent`.
        """

    def siblings(self, beside: Storage, suffix: str) -> Iterator[Storage]:
        """Other files in the permitted folders, to look for a parent by its UUID."""

    def passphrase(self, name: str) -> bytes:
        """The secret that unlocks the image ``name``.

        Raises:
            PassphraseError: if there is none.
        """


@runtime_checkable
class FileMaking(Protocol):
    """An opener that also makes and removes files, for images of several files."""

    def make_file(self, name: str, beside: Storage, *, is_extra: bool) -> Storage:
        """A new file in the folder of the image in ``beside``; it shows when it is committed.

        Args:
            name: of the file, without a folder.
            beside: the image.
            is_extra: the name is not one that the user could expect: a file that has it
                already is never replaced.

        Raises:
            RefusedError: if it exists and may not be replaced.
            UsageError: if ``name`` is not the name of a file.
        """

    def remove_file(self, name: str, beside: Storage) -> None:
        """Remove a file, or what is left of it, that the image in ``beside`` no longer needs."""

    def replaced(self, beside: Storage) -> Storage | None:
        """The file whose place ``beside`` takes when it is committed, for reading, if any."""
