"""BitLocker volumes, by libbde: the volume inside, once its password or recovery key is known.

Only what is stored at its own place may be left out: the first sectors are stored elsewhere,
and where the metadata is, the volume reads as zeros.

Source: libyal, "BitLocker Drive Encryption (BDE) format specification".
"""

from __future__ import annotations

import importlib
import re
import threading
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    PassphraseError,
    UnsupportedFeatureError,
)
from imprint.core.limits import SPAN_BYTES
from imprint.core.runs import Runs
from imprint.core.units import KIB, align_down, align_up
from imprint.filters.pieces import Piece
from imprint.filters.readonly import ReadOnlyStorage
from imprint.volumes.assembly import Assembly, Inner
from imprint.volumes.locked import unlocked
from imprint.volumes.members import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imprint.core.contracts import Source, Traits

__all__ = ["CONTAINER"]

AREA_BYTES: Final = 64 * KIB
"""Kept around each place that the structures name: none of them is larger."""

_READ_UNIT: Final = 4 * KIB
_RECOVERY_KEY: Final = re.compile(r"\d{6}(?:-\d{6}){7}", re.ASCII)
_OFFSETS_AT: Final = (176, 440)  # in the boot sector: on fixed disks, on removable ones
_OFFSET_COUNT: Final = 3
_BLOCK_BYTES: Final = 64
_BLOCK_MARK: Final = b"-FVE-FS-"
_HEADER_AT: Final = 56  # in a metadata block: where the first sectors are


class _Bitlocker:
    """See :class:`imprint.volumes.containers.Container`."""

    def assemble(
        self, members: Sequence[Source], passphrase: Callable[[str], bytes]
    ) -> list[Assembly]:
        """One assembly for each member."""
        library = _library(members[0].name)

        def unlock(index: int, member: Source) -> Inner:
            source = _Volume(library, member, passphrase)
            own = _kept(member).complement(min(source.size, member.size))
            pieces = tuple(Piece(start, length, index, start) for start, length in own)
            return Inner("bitlocker", source, pieces)

        return unlocked(members, unlock, "BitLocker")


CONTAINER: Final = _Bitlocker()


def _library(name: str) -> Any:  # noqa: ANN401 - the module has no types
    try:
        return importlib.import_module("pybde")
    except ImportError:
        raise UnsupportedFeatureError(
            "BitLocker volumes need the module libbde-python, which is not installed",
            name=name,
            advice="pip install libbde-python",
        ) from None


def _kept(member: Source) -> Runs:
    """What is not stored at its own place, and more."""
    head = read_bytes(member, 0, min(512, member.size))
    kept = [(0, AREA_BYTES)]
    for at in _OFFSETS_AT:
        for number in range(_OFFSET_COUNT):
            place = at + 8 * number
            offset = int.from_bytes(head[place : place + 8], "little")
            if not 0 < offset <= member.size - _BLOCK_BYTES:
                continue
            block = read_bytes(member, offset, _BLOCK_BYTES)
            if block.startswith(_BLOCK_MARK):
                kept.append((offset, AREA_BYTES))
                header = int.from_bytes(block[_HEADER_AT : _HEADER_AT + 8], "little")
                kept.append((min(header, member.size), AREA_BYTES))
    return Runs.of(kept)


class _Member:
    """A source as the library wants a file; remembers what went wrong."""

    def __init__(self, member: Source) -> None:
        self._member = member
        self._position = 0
        self.failure: ImagingError | None = None

    def read(self, size: int) -> bytes:
        length = max(0, min(size, self._member.size - self._position, SPAN_BYTES))
        try:
            data = read_bytes(self._member, self._position, length)
        except ImagingError as error:
            self.failure = error
            raise OSError(str(error)) from error
        self._position += length
        return data

    def seek(self, offset: int, whence: int = 0) -> None:
        base = (0, self._position, self._member.size)[whence]
        self._position = max(0, base + offset)

    def tell(self) -> int:
        return self._position

    def get_size(self) -> int:
        return self._member.size


class _Volume(ReadOnlyStorage):
    """The plain volume. One thread reads at a time: the library keeps a position."""

    def __init__(
        self,
        library: Any,  # noqa: ANN401 - the module has no types
        member: Source,
        passphrase: Callable[[str], bytes],
    ) -> None:
        self._member = member
        self._file = _Member(member)
        self._lock = threading.Lock()
        self._volume = library.volume()
        secret = passphrase(member.name)
        try:
            text = secret.decode()
        except UnicodeDecodeError:
            raise PassphraseError("the passphrase is no text", name=member.name) from None
        try:
            if _RECOVERY_KEY.fullmatch(text):
                self._volume.set_recovery_password(text)
            else:
                self._volume.set_password(text)
            self._volume.open_file_object(self._file)
            is_locked = self._volume.is_locked()
            self._size = 0 if is_locked else int(self._volume.get_size())
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            raise self._failure(error) from error
        if is_locked:
            raise PassphraseError("the passphrase is wrong", name=member.name)

    @property
    def name(self) -> str:
        """Of the member."""
        return self._member.name

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    @property
    def traits(self) -> Traits:
        """Of the member."""
        return self._member.traits

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        # What begins inside of a sector, libbde deciphers wrongly behind that sector.
        position, end = offset, offset + len(buffer)
        while position < end:
            start = align_down(position, _READ_UNIT)
            stop = min(start + SPAN_BYTES, self._size)
            data = self._read(start, min(stop, align_up(end, _READ_UNIT)) - start)
            last = min(end, start + len(data))
            buffer[position - offset : last - offset] = data[position - start : last - start]
            position = last

    def _read(self, offset: int, length: int) -> bytes:
        """Whole units, or up to the end."""
        try:
            with self._lock:
                data: bytes = self._volume.read_buffer_at_offset(length, offset)
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            raise self._failure(error) from error
        if len(data) != length:
            raise CorruptImageError(
                f"BitLocker: expected {length} bytes, found {len(data)}",
                name=self.name,
                offset=offset,
            )
        return data

    def close(self) -> None:
        """The member belongs to somebody else."""

    def _failure(self, error: Exception) -> ImagingError:
        if self._file.failure is not None:
            return self._file.failure
        text = str(error).partition("\n")[0][:200]
        return CorruptImageError(f"BitLocker: {text}", name=self._member.name)
