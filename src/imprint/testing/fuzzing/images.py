"""Targets: the formats of disk images, each opened, read, checked, changed and repaired."""

from __future__ import annotations

import itertools
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint import formats
from imprint.core.contracts import Reference, Traits
from imprint.core.errors import ImagingError, TruncatedImageError
from imprint.core.extent import Kind
from imprint.core.formats import Checkable, CreateSpec, SnapshotKeeping, parse_options
from imprint.core.units import KIB, MIB, align_up
from imprint.filters.readonly import ReadOnlyStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.disks import fill
from imprint.testing.faults import FaultyStorage
from imprint.testing.opener import DictOpener
from imprint.testing.oracles import paint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from imprint.core.contracts import Source, Storage
    from imprint.core.formats import Format
    from imprint.core.image import Image
    from imprint.testing.fuzzing.target import Place, Target

EXTENTS_MAX: Final = 400
FINDINGS_MAX: Final = 400
PIECE_BYTES: Final = 64 * KIB
GROWTH_MAX: Final = 16 * MIB
"""What a change may add to a hostile image; more is a full disk."""

BASE: Final = "base.img"
"""What images with a parent call it; its content is what the target says."""


@dataclass(frozen=True)
class Steps:
    """What is done with an image of a format.

    Attributes:
        name: of the format.
        files: what the opener finds, by name, besides the image.
        passphrase: what the opener answers.
    """

    name: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    passphrase: bytes | None = None

    @property
    def all(self) -> tuple[Callable[[bytes], None], ...]:
        """For a target."""
        return (self.look, self.look_through_faults, self.check, self.change, self.repair)

    @property
    def format(self) -> Format:
        """The format itself."""
        return formats.get(self.name)

    def look(self, content: bytes) -> None:
        """Probe, open, describe, map, and read here and there; snapshots as well."""
        storage = ReadBytes(content)
        self.format.probe(storage)
        with self.format.open(storage, self.opener()) as image:
            look_around(image)
            snapshots = image.info().snapshots
        format_ = self.format
        for snapshot in snapshots[:3] if isinstance(format_, SnapshotKeeping) else ():
            assert isinstance(format_, SnapshotKeeping)
            look_around(format_.open_snapshot(storage, self.opener(), snapshot.id))

    def look_through_faults(self, content: bytes) -> None:
        """The same on a disk that fails at the n-th read."""
        number = zlib.crc32(content[: PIECE_BYTES * 2])
        storage = FaultyStorage(
            ReadBytes(content), fail_at=number % 24, lasting=number // 24 % 2 == 0
        )
        with self.format.open(storage, self.opener()) as image:
            look_around(image)

    def check(self, content: bytes) -> None:
        """Compare its tables."""
        format_ = self.format
        if isinstance(format_, Checkable):
            findings = format_.check(ReadBytes(content), self.opener(), repair=False)
            for _ in itertools.islice(findings, FINDINGS_MAX):
                pass

    def change(self, content: bytes) -> None:
        """Write, zero and grow."""
        if not self.format.support.edit:
            return
        with self.format.edit(_growing(content), self.opener(writable=True)) as image:
            if image.size >= KIB:
                image.write(memoryview(b"x" * KIB), 0)
                image.write(memoryview(b"x" * KIB), image.size - KIB)
                image.zero(0, min(image.size, PIECE_BYTES))
            image.flush()
            image.resize(align_up(image.size + 3 * image.traits.grain, 4 * KIB))
            image.commit()

    def repair(self, content: bytes) -> None:
        """Check with repair, to the end."""
        format_ = self.format
        if isinstance(format_, Checkable) and format_.support.repair:
            opener = self.opener(writable=True)
            for _ in format_.check(_growing(content), opener, repair=True):
                pass

    def opener(self, *, writable: bool = False) -> DictOpener:
        """With the other files as they were at first."""
        wrap = _growing if writable else ReadBytes
        files: dict[str, Storage] = {name: wrap(each, name) for name, each in self.files.items()}
        return DictOpener(files=files, passphrase=self.passphrase)


class ReadBytes(ReadOnlyStorage):
    """A file as it is, not copied; who only reads must not even try to write."""

    def __init__(self, content: bytes, name: str = "image") -> None:
        self._view = memoryview(content)
        self._name = name

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """Of the content."""
        return len(self._view)

    @property
    def traits(self) -> Traits:
        """No unit at all."""
        return Traits(grain=1)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        assert offset >= 0, "a read in front of the start"
        piece = self._view[offset : offset + len(buffer)]
        if len(piece) != len(buffer):
            raise TruncatedImageError("expected more bytes", name=self._name, offset=offset)
        buffer[:] = piece

    def write(self, data: memoryview, offset: int) -> None:
        """Never."""
        raise AssertionError("a reader writes")

    def zero(self, offset: int, length: int) -> None:
        """Never."""
        raise AssertionError("a reader zeroes")

    def resize(self, size: int) -> None:
        """Never."""
        raise AssertionError("a reader resizes")

    def close(self) -> None:
        """Nothing is open."""


def _growing(content: bytes, name: str = "image") -> Storage:
    """A file on a disk that is soon full."""
    return FaultyStorage(MemoryStorage(content, name=name), size_max=len(content) + GROWTH_MAX)


def look_around(image: Image) -> None:
    """Describe, map and read some of a disk of any size."""
    image.info()
    read_some(image)
    for _ in itertools.islice(image.own_extents(0, image.size), EXTENTS_MAX):
        pass


def read_some(source: Source) -> None:
    """Map a disk of any size as far as is reasonable; read its ends, and some of its data."""
    places = [(0, PIECE_BYTES), (source.size - 3 * KIB, 3 * KIB), (source.size // 2, KIB)]
    for extent in itertools.islice(source.extents(0, source.size), EXTENTS_MAX):
        if extent.kind in (Kind.DATA, Kind.ENCODED) and len(places) < 8:
            places.append((extent.offset, min(extent.length, 4 * KIB)))
    failure: ImagingError | None = None
    for start, length in places:
        first = max(0, start)
        buffer = bytearray(max(0, min(length, source.size - first)))
        try:
            source.readinto(memoryview(buffer), first)
        except ImagingError as error:
            failure = error  # the next place may be a good one
    if failure is not None:
        raise failure


def small_disk(size: int = 200 * KIB + 512) -> bytes:
    """A disk with three short runs of data."""
    return paint(size, [(0, 3000, 1), (size // 2, 1500, 2), (size - 700, 700, 3)])


def made(
    name: str,
    disk: bytes | None = None,
    *,
    parent: bytes | None = None,
    files: Mapping[str, bytes] | None = None,
    passphrase: bytes | None = None,
    more: Mapping[str, str] | None = None,
    **options: str,
) -> bytes:
    """An image that our own writer made.

    Args:
        name: of the format.
        disk: its content; by default a small one.
        parent: an image of the same format to build upon, called :data:`BASE`.
        files: empty storages for its data files.
        passphrase: of an encrypted one.
        more: options of ``create`` whose names are none of Python's.
        options: all others.
    """
    format_ = formats.get(name)
    storages = {BASE: MemoryStorage(parent or b"", name=BASE)}
    storages |= {key: MemoryStorage(value, name=key) for key, value in (files or {}).items()}
    opener = DictOpener(files=storages, passphrase=passphrase)
    reference = source = None
    if parent is not None:
        source = format_.open(storages[BASE], opener)
        reference = Reference(BASE, name)
    content = small_disk() if disk is None else disk
    storage = MemoryStorage(name="image")
    target = format_.create(
        storage,
        CreateSpec(
            len(content),
            opener,
            parse_options(name, format_.options, {**options, **(more or {})}),
            parent=reference,
            parent_source=source,
            time_s=1_000_000_000,
        ),
    )
    fill(target, content, step=max(PIECE_BYTES, target.traits.grain))
    target.commit()
    return bytes(storage.content)


def image_target(
    name: str,
    seeds: Callable[[], list[bytes]],
    places: tuple[Place, ...] = (),
    *,
    files: Mapping[str, bytes] | None = None,
    words: tuple[bytes, ...] = (),
    seal: Callable[[bytearray], None] | None = None,
) -> Target:
    """A target for a format of the table."""
    from imprint.testing.fuzzing.target import Target

    steps = Steps(name, files or {}).all
    return Target(name, seeds, steps, places, words, seal)


def put_u32(content: bytearray, at: int, value: int, order: str = "<") -> None:
    """Write a number of 32 bits, if it is inside."""
    if 0 <= at <= len(content) - 4:
        struct.pack_into(f"{order}I", content, at, value & 0xFFFFFFFF)
