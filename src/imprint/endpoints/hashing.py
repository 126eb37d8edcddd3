"""Reading all of a disk: for its hashes, and to find what cannot be read."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.buffers import fill_zero
from imprint.core.contracts import Traits
from imprint.core.errors import FormatError, ReadError, RepositoryError
from imprint.core.events import OnEvent, ignore
from imprint.core.extent import Extent, Kind, coalesce
from imprint.core.image import Image
from imprint.endpoints.location import Where, parse
from imprint.endpoints.open import Access, open_source
from imprint.filters.over import OverSource
from imprint.filters.window import Window
from imprint.transfer.copy import copy
from imprint.transfer.hashing import NAMES, HashSet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from imprint.core.cancel import CancelToken
    from imprint.core.contracts import Source
    from imprint.core.errors import ImagingError
    from imprint.transfer.report import Report

_DAMAGE_UNIT: Final = 4096
"""Nothing smaller is tried on its own: what is broken is a cluster, or a block of a disk."""

_DAMAGED: Final = (ReadError, FormatError, RepositoryError)
"""What is said of a part that cannot be had."""


@dataclass(frozen=True)
class Damage:
    """A part of a disk that cannot be read. All in bytes of the disk.

    Attributes:
        offset: its first byte.
        length: in bytes.
        what: what went wrong at its beginning.
    """

    offset: int
    length: int
    what: str


@dataclass(frozen=True)
class Verification:
    """What came of reading a whole disk.

    Attributes:
        size: of the disk, in bytes.
        hashes: of its content, by name; none if a part of it could not be read.
        damage: what could not be read, in order.
        wrong: what was expected instead of ``hashes``, where that is something else.
    """

    size: int
    hashes: dict[str, str] = field(default_factory=dict)
    damage: tuple[Damage, ...] = ()
    wrong: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether all could be read and every hash is the expected one."""
        return not self.damage and not self.wrong


def hash_disk(
    source: Source,
    names: tuple[str, ...],
    *,
    piece: int | None = None,
    workers: int = 2,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
    phase: str = "hash",
) -> Report:
    """Hash the whole content of a disk, and pieces of ``piece`` bytes, as its user sees it.

    Raises:
        UsageError: for a hash that is not known.
        Cancelled: if ``cancel`` was set.
        ImagingError: whatever reading raises.
    """
    return copy(
        source,
        _Nowhere(source.size),
        workers=workers,
        hashes=HashSet(names, piece=piece) if names else None,
        detect_zeros=False,
        on_event=on_event,
        cancel=cancel,
        phase=phase,
    )


def stored_hashes(source: Source) -> dict[str, str]:
    """Digests that a whole image keeps of its disk, those that can be taken here, by name."""
    if not isinstance(source, Image):
        return {}
    return {name: digest for name, digest in source.info().hashes.items() if name in NAMES}


def verify_disk(
    source: Source,
    names: tuple[str, ...],
    expected: Mapping[str, str],
    *,
    workers: int = 2,
    on_event: OnEvent = ignore,
    cancel: CancelToken | None = None,
) -> Verification:
    """Read all of a disk, past what cannot be read, and compare its hashes.

    Args:
        source: the disk.
        names: hashes to take, besides those in ``expected``.
        expected: hexadecimal digests by name of the hash.
        workers: threads that read ahead.
        on_event: told about progress.
        cancel: stops it.

    Raises:
        UsageError: for a hash that is not known.
        Cancelled: if ``cancel`` was set.
    """
    tolerant = _Tolerant(source)
    wanted = tuple(dict.fromkeys((*names, *expected)))
    report = hash_disk(
        tolerant, wanted, workers=workers, on_event=on_event, cancel=cancel, phase="verify"
    )
    if isinstance(source, Image):
        tolerant.remember_missing(source.info().missing)
    damage = tolerant.damage()
    if damage:
        return Verification(source.size, damage=damage, wrong=dict(expected))
    wrong = {
        name: digest for name, digest in expected.items() if digest.lower() != report.hashes[name]
    }
    return Verification(source.size, report.hashes, wrong=wrong)


def open_written(address: str, size: int, access: Access) -> Source:
    """Open what was just written, to be read from the disk and not from the system's memory.

    Args:
        address: of the target.
        size: of the disk that was written; a device may be larger.
        access: how it may be opened; with its format.

    Raises:
        ImagingError: of the kind that says what is wrong.
    """
    location = parse(address)
    if location.where is Where.FILE:
        _forget_cached(location.path)
    disk = open_source(address, access)
    return disk if disk.size <= size else Window(disk, 0, size)


def _forget_cached(path: Path) -> None:
    """Ask the system to read a file from its disk again. What is durable can be forgotten."""
    if sys.platform == "linux":
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


class _Nowhere:
    """A target that keeps nothing."""

    def __init__(self, size: int) -> None:
        self.name = "nowhere"
        self.size = size
        self.traits = Traits(reads_zero=True)

    def write(self, data: memoryview, offset: int) -> None:
        """Forget it."""

    def zero(self, offset: int, length: int) -> None:
        """Forget it."""

    def commit(self) -> None:
        """Nothing shows."""

    def abort(self) -> None:
        """Nothing is left."""


class _Tolerant(OverSource):
    """Goes on past what cannot be read or decoded, and remembers it."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)
        self._unit = max(_DAMAGE_UNIT, source.traits.grain)
        self._found: dict[int, Damage] = {}
        self._lock = threading.Lock()

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``, with zeros where nothing can be had."""
        try:
            self._source.readinto(buffer, offset)
        except _DAMAGED as error:
            border = offset - offset % self._unit + self._unit
            if offset + len(buffer) <= border:
                fill_zero(buffer)
                self._remember(offset, len(buffer), error)
                return
            self.readinto(buffer[: border - offset], offset)
            self._each_unit(buffer[border - offset :], border)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """Those of the source, to be read from here; where they cannot be told, that is damage."""
        position, end = offset, offset + length
        try:
            for extent in self._source.extents(offset, length):
                kind = Kind.ENCODED if extent.kind is Kind.DATA else extent.kind
                yield extent._replace(kind=kind)
                position = extent.end
        except _DAMAGED as error:
            self._remember(position, end - position, error)
            yield Extent(position, end - position, Kind.BAD)

    def remember_missing(self, missing: Iterable[tuple[int, int]]) -> None:
        """Parts that the image lacks, and that were not even tried."""
        for offset, length in missing:
            self._found.setdefault(
                offset, Damage(offset, length, "is in a file that is missing, or that breaks off")
            )

    def damage(self) -> tuple[Damage, ...]:
        """What could not be read, neighbours joined."""
        with self._lock:
            found = sorted(self._found.values(), key=lambda damage: damage.offset)
        runs = coalesce(Extent(item.offset, item.length, Kind.BAD) for item in found)
        return tuple(Damage(run.offset, run.length, self._found[run.offset].what) for run in runs)

    def close(self) -> None:
        """The source belongs to somebody else."""

    def _each_unit(self, buffer: memoryview, offset: int) -> None:
        for start in range(0, len(buffer), self._unit):
            self.readinto(buffer[start : start + self._unit], offset + start)

    def _remember(self, offset: int, length: int, error: ImagingError) -> None:
        with self._lock:
            self._found[offset] = Damage(offset, length, str(error.args[0]))
