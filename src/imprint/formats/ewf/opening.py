"""Finding the segments of a set and reading their structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from imprint.core.contracts import Reference
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    ReferenceRefusedError,
    UnsupportedFeatureError,
)
from imprint.formats.ewf import second
from imprint.formats.ewf.evidence import guid
from imprint.formats.ewf.layout import MAGIC_E01, MAGIC_ENCRYPTED, FileHeader
from imprint.formats.ewf.layout2 import MAGIC_EX01, FileHeader2
from imprint.formats.ewf.naming import Names
from imprint.formats.ewf.reading import SetReader
from imprint.formats.ewf.second import SetReader2
from imprint.formats.ewf.sections import Segment, read_bytes, walk

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Storage
    from imprint.formats.ewf.evidence import Evidence

GAP_MAX: Final = 100
"""Segments that are looked for behind a missing one."""

_ADVICE: Final = "--incomplete reads what there is; imprint verify says what is missing"


def gather(
    storage: Storage, opener: Opener, *, is_incomplete: bool = False, magic: bytes = MAGIC_E01
) -> Evidence:
    """Read the structure of a set.

    Args:
        storage: its first segment; stays the caller's if this fails.
        opener: for the others.
        is_incomplete: go on without segments that are missing.
        magic: that all segments begin with; says also which version it is.

    Raises:
        ReferenceRefusedError: if a segment is missing.
        CorruptImageError: if it is no image that can be made sense of.
        UnsupportedFeatureError: if it is encrypted.
    """
    finder = _Finder(storage, opener, magic, is_incomplete=is_incomplete)
    try:
        return finder.gather()
    except BaseException:
        for other in finder.others:
            other.close()
        raise


class _Finder:
    """Opens segment after segment."""

    def __init__(
        self, storage: Storage, opener: Opener, magic: bytes, *, is_incomplete: bool
    ) -> None:
        self._first = storage
        self._opener = opener
        self._magic = magic
        self._tolerates = is_incomplete
        self._names = Names(storage.name)
        self.others: list[Storage] = []

    def gather(self) -> Evidence:
        segment = self._read(self._first, 1)
        reader: Reader = SetReader(self._first.name)
        if self._magic == MAGIC_EX01:
            reader = SetReader2(self._first.name, FileHeader2.unpack(self._head(self._first)))
        reader.add(segment)
        while not segment.is_last:
            found = self._next(segment, reader)
            if found is None:
                break
            segment = found
            reader.add(segment)
        evidence = reader.finish()
        evidence.shows_missing = self._tolerates
        return evidence

    def _next(self, before: Segment, reader: Reader) -> Segment | None:
        """The next segment that is there; those between are told to ``reader``."""
        if not self._names.is_first:
            if before.is_whole:
                self._miss(before.number + 1, f"{self._names.first} is no name of a first segment")
                reader.add_missing(before.number + 1)
            return None
        last = min(before.number + GAP_MAX, self._names.count_max)
        for number in range(before.number + 1, last + 1):
            try:
                segment = self._open(number)
            except ImagingError as error:
                # Behind a segment that breaks off, nobody knows whether there were more.
                if before.is_whole:
                    self._miss(number, str(error.args[0]))
                continue
            for missing in range(before.number + 1, number):
                reader.add_missing(missing)
            return segment
        if before.is_whole:
            reader.add_missing(before.number + 1)
        return None

    def _open(self, number: int) -> Segment:
        name = self._names.name(number)
        storage = self._opener.data_file(Reference(name, format="raw"), self._first)
        try:
            size = storage.size
        except ImagingError:
            self._tolerates = True  # the gate stands in for it: somebody only looks
            raise
        try:
            assert size >= 0
            segment = self._read(storage, number)
        except BaseException:
            storage.close()
            raise
        self.others.append(storage)
        return segment

    def _miss(self, number: int, why: str) -> None:
        if not self._tolerates:
            name = self._names.name(number) if self._names.is_first else "?"
            raise ReferenceRefusedError(
                f"expected segment {number}, {name}: {why}",
                name=self._first.name,
                advice=_ADVICE,
            )

    def _read(self, storage: Storage, number: int) -> Segment:
        data = self._head(storage)
        if data.startswith(MAGIC_ENCRYPTED):
            raise UnsupportedFeatureError("is encrypted by AD encryption", name=storage.name)
        is_second = self._magic == MAGIC_EX01
        header = (FileHeader2 if is_second else FileHeader).unpack(data, where=storage.name)
        if header.signature != self._magic:
            raise CorruptImageError("expected the mark of an EWF segment", name=storage.name)
        if header.segment != number:
            raise CorruptImageError(
                f"expected segment {number} of a set, found segment {header.segment}",
                name=storage.name,
                advice="name the first segment" if number == 1 else None,
            )
        segment = Segment(storage, number)
        if is_second:
            self._check_set(storage, FileHeader2.unpack(data))
            second.walk(segment)
        else:
            walk(segment, FileHeader.SIZE)
        return segment

    def _check_set(self, storage: Storage, header: FileHeader2) -> None:
        """Whether a segment is of the same set as the first one."""
        first = FileHeader2.unpack(self._head(self._first))
        if (header.set_id, header.compression) != (first.set_id, first.compression):
            raise CorruptImageError(
                f"expected a segment of the set {guid(first.set_id)}, found one of the set "
                f"{guid(header.set_id)}",
                name=storage.name,
            )

    @staticmethod
    def _head(storage: Storage) -> bytes:
        return read_bytes(storage, 0, FileHeader2.SIZE)


class Reader(Protocol):
    """Takes in segments in order."""

    def add(self, segment: Segment) -> None:
        """A segment that is there."""

    def add_missing(self, number: int) -> None:
        """One that is not."""

    def finish(self) -> Evidence:
        """What they hold."""
