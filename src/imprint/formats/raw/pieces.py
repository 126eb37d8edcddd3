"""Raw images in pieces: ``disk.001``, ``disk.002`` …, all but the last of one size.

Imagers of evidence write them; the disk is the pieces one after the other. dcfldd and split(1)
call them ``disk.aa``, ``disk.ab`` … as well. What is counted from ``disk.000`` on is read file by
file, as such names mean other things, too; but it is told.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from pathlib import PurePath
from string import ascii_lowercase
from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Traits
from imprint.core.errors import CorruptImageError, UsageError
from imprint.core.filesets import FileSet
from imprint.core.info import ImageInfo
from imprint.core.units import div_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.extent import Extent
    from imprint.core.formats import CreateSpec

PIECES_MAX: Final = 4096
"""Each is an open file."""

_FIRST: Final = re.compile(r"(.+\.)(0{1,4}1|a{2,4})", re.DOTALL)
_ZEROTH: Final = re.compile(r"(.+\.)(0{2,5})", re.DOTALL)
_FIRST_NEW: Final = re.compile(r"(.+\.)(0{1,4}1)", re.DOTALL)
_PIECE_BYTES_MIN: Final = 4096


class PiecesLayer:
    """Pieces as one disk; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, pieces: list[Storage]) -> None:
        """Takes over all pieces."""
        self._pieces = pieces
        self._ends = list(accumulate(piece.size for piece in pieces))

    @property
    def size(self) -> int:
        """Of all pieces."""
        return self._ends[-1]

    @property
    def traits(self) -> Traits:
        """Of the first piece."""
        return self._pieces[0].traits

    def map(self, offset: int, length: int) -> Extent:
        """What the piece says."""
        index = bisect_right(self._ends, offset)
        piece = self._pieces[index]
        start = self._ends[index] - piece.size
        found = next(iter(piece.extents(offset - start, min(length, self._ends[index] - offset))))
        return found._replace(offset=offset)

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def info(self) -> ImageInfo:
        """How many pieces there are: who has several images with such names has to know."""
        names = [PurePath(piece.name).name for piece in self._pieces]
        return ImageInfo(
            "raw",
            self.size,
            options={"pieces": len(names), "split": self._pieces[0].size},
            files=tuple(piece.name for piece in self._pieces[1:]),
            warnings=(f"is read as one disk together with {names[1]} to {names[-1]}",),
        )

    def close(self) -> None:
        """All pieces."""
        for piece in self._pieces:
            piece.close()


def others(storage: Storage, opener: Opener) -> list[Storage]:
    """The pieces after the first, if ``storage`` is the first of several.

    Raises:
        CorruptImageError: if one is missing, or has another size than it must.
    """
    match = _FIRST.fullmatch(PurePath(storage.name).name)
    if match is None or not storage.size or _earlier(storage, opener, match):
        return []
    found: list[Storage] = []
    try:
        while len(found) < PIECES_MAX - 1:
            piece = _sibling(storage, opener, _name(match, len(found) + 1))
            if piece is None:
                break
            found.append(piece)
        _check(storage, found, opener, match)
    except BaseException:
        for piece in found:
            piece.close()
        raise
    return found


def warnings(storage: Storage, opener: Opener) -> tuple[str, ...]:
    """What to say of a file that is read alone, and may be a piece of a disk."""
    file_name = PurePath(storage.name).name
    zeroth = _ZEROTH.fullmatch(file_name)
    if zeroth is not None and _exists(storage, opener, following := _name(zeroth, 1)):
        return (f"is read alone; {following} beside it may be the next piece of the same disk",)
    match = _FIRST.fullmatch(file_name)
    earlier = None if match is None else _earlier(storage, opener, match)
    return () if earlier is None else (f"is read alone; the disk may begin with {earlier}",)


def _exists(storage: Storage, opener: Opener, name: str) -> bool:
    found = _sibling(storage, opener, name)
    if found is not None:
        found.close()
    return found is not None


def _earlier(storage: Storage, opener: Opener, match: re.Match[str]) -> str | None:
    """The piece before, if there is one: whose pieces are counted from 0 on has a 1 as well."""
    if not match.group(2).endswith("1"):
        return None
    name = _name(match, -1)
    return name if _exists(storage, opener, name) else None


def _check(storage: Storage, found: list[Storage], opener: Opener, match: re.Match[str]) -> None:
    for piece in found[:-1]:
        if piece.size != storage.size:
            raise CorruptImageError(
                f"expected a piece of {storage.size} bytes, found {piece.size}", name=piece.name
            )
    if found and not 0 < found[-1].size <= storage.size:
        raise CorruptImageError(
            f"expected a last piece of 1 to {storage.size} bytes, found {found[-1].size}",
            name=found[-1].name,
        )
    behind = _sibling(storage, opener, _name(match, len(found) + 2))
    if behind is not None:
        behind.close()
        missing = _name(match, len(found) + 1)
        raise CorruptImageError(
            f"expected the piece {missing}, found only later ones", name=storage.name
        )


def _sibling(storage: Storage, opener: Opener, name: str) -> Storage | None:
    """The file of that name beside the first piece."""
    found: Storage | None = None
    for sibling in opener.siblings(storage, PurePath(name).suffix):
        if found is None and PurePath(sibling.name).name == name:
            found = sibling
        else:
            sibling.close()
    return found


def _name(match: re.Match[str], number: int) -> str:
    """Of the piece that comes ``number`` after the first."""
    stem, first = match.groups()
    if first.isdecimal():
        return f"{stem}{int(first) + number:0{len(first)}d}"
    letters = ""
    while number or len(letters) < len(first):
        number, letter = divmod(number, len(ascii_lowercase))
        letters = ascii_lowercase[letter] + letters
    return stem + letters


class PiecesTarget:
    """A new image in pieces. It cannot be resumed, so it does not offer checkpoints."""

    def __init__(self, storage: Storage, spec: CreateSpec, piece_size: int) -> None:
        """Begin all pieces; the first, which ``storage`` is, shows last.

        Raises:
            UsageError: if the name or the size makes no sense.
            RefusedError: if a piece exists and may not be replaced.
        """
        # A file that is being made has another name than it will have.
        name = PurePath(storage.name).name.removesuffix(".partial")
        match = _FIRST_NEW.fullmatch(name)
        if match is None:
            raise UsageError(f"option split: expected a name like disk.001, found {name!r}")
        if piece_size < _PIECE_BYTES_MIN:
            raise UsageError(f"option split: expected at least {_PIECE_BYTES_MIN} bytes")
        count = max(1, div_up(spec.size, piece_size))
        if count > min(PIECES_MAX, 10 ** len(match.group(2)) - 1):
            raise UsageError(
                f"option split: {count} pieces are too many for names like {name}",
                advice="take a larger size",
            )
        self._size = spec.size
        self._piece_size = piece_size
        self._set = FileSet(
            storage,
            spec.opener,
            lambda number: _name(match, number - 1),
            count_max=min(PIECES_MAX, 10 ** len(match.group(2)) - 1),
            at_least=count,
        )
        self._pieces = self._set.files
        try:
            while len(self._pieces) < count:
                self._set.add()
            for index, piece in enumerate(self._pieces):
                piece.resize(min(piece_size, spec.size - index * piece_size))
        except BaseException:
            for piece in reversed(self._pieces[1:]):
                piece.abort()
            raise

    @property
    def name(self) -> str:
        """Of the first piece."""
        return self._pieces[0].name

    @property
    def size(self) -> int:
        """Of the disk."""
        return self._size

    @property
    def traits(self) -> Traits:
        """What is never written reads as zeros."""
        return Traits(reads_zero=True)

    def write(self, data: memoryview, offset: int) -> None:
        """Into as many pieces as it touches."""
        for piece, at, start, length in self._parts(offset, len(data)):
            piece.write(data[start : start + length], at)

    def zero(self, offset: int, length: int) -> None:
        """Likewise."""
        for piece, at, _, size in self._parts(offset, length):
            piece.zero(at, size)

    def commit(self) -> None:
        """All pieces but the first, then that; what there is of an older image goes."""
        self._set.commit()

    def abort(self) -> None:
        """Forget it all."""
        self._set.abort()

    def _parts(self, offset: int, length: int) -> Iterator[tuple[Storage, int, int, int]]:
        """Pieces of a range: the file, where in it, where in the range, and how much."""
        done = 0
        while done < length:
            index, within = divmod(offset + done, self._piece_size)
            size = min(length - done, self._piece_size - within)
            yield self._pieces[index], within, done, size
            done += size
