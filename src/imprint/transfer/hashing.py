"""Hashes of a disk's content and of its pieces, any number of them in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, Self

from imprint.core.errors import UsageError
from imprint.transfer.lanes import Hasher, Lanes, take_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cryptography.hazmat.primitives.hashes import Hash

NAMES: Final = ("md5", "sha1", "sha256", "sha512", "blake3")
DEFAULT_NAMES: Final = ("sha256", "blake3")
READ_BACK: Final = ("blake3",)
"""Taken only so that everything is read."""

NO_NAMES: Final = "none"
"""What is said where no hashes shall be taken."""

PIECE_UNIT: Final = 512
"""Pieces are whole sectors, but for the last one."""

_PIECES_MAX: Final = 1 << 20
_APART_FROM_BYTES: Final = 8 << 20
"""Threads for less than this would cost more than they spare."""


@dataclass(frozen=True)
class Piece:
    """A piece of a disk.

    Attributes:
        offset: in bytes.
        length: in bytes.
        hashes: hexadecimal, by name.
    """

    offset: int
    length: int
    hashes: dict[str, str]

    def to_json(self) -> dict[str, object]:
        """As results list it."""
        return {"offset": self.offset, "length": self.length, "hashes": self.hashes}


def parse_names(text: str, *, may_be_none: bool = False) -> tuple[str, ...]:
    """The names in ``md5,sha256``, each once; with ``may_be_none``, none of them for ``none``.

    Raises:
        UsageError: for a hash that is not known.
    """
    if may_be_none and text.strip().lower() == NO_NAMES:
        return ()
    names = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in NAMES]
    if unknown or not names:
        found = unknown[0] if unknown else text
        expected = ", ".join(NAMES) + (f", or {NO_NAMES}" if may_be_none else "")
        raise UsageError(f"expected hashes out of {expected}, found {found!r}")
    return names


def check_pieces(piece: int, size: int) -> None:
    """Refuse pieces that are no sectors, or too many of them.

    Raises:
        UsageError: if so; both are in bytes.
    """
    if piece < PIECE_UNIT or piece % PIECE_UNIT:
        raise UsageError(f"--piecewise: expected a multiple of {PIECE_UNIT} bytes, found {piece}")
    if size > piece * _PIECES_MAX:
        raise UsageError(
            f"--piecewise: expected at most {_PIECES_MAX} pieces, found {-(-size // piece)}"
        )


class HashSet:
    """Several hashes, fed with the disk in ascending order.

    Attributes:
        is_apart: whether :meth:`feed` may give each hash a thread of its own.
    """

    def __init__(self, names: Iterable[str], *, piece: int | None = None) -> None:
        """Args as follows.

        Args:
            names: of the hashes.
            piece: take the same hashes of each piece of so many bytes too.
        """
        self._hashers = {name: _new(name) for name in names}
        self._piece = piece
        self._by_piece = {} if piece is None else {n: _Pieces(n, piece) for n in self._hashers}
        self._lanes: Lanes | None = None
        self._fed = 0
        self.is_apart = False

    def add(self, names: Iterable[str]) -> None:
        """Take further hashes; nothing was taken in before.

        Raises:
            UsageError: for a hash that is not known.
        """
        for name in names:
            if name not in self._hashers:
                self._hashers[name] = _new(name)

    def check(self, size: int) -> None:
        """Refuse a disk of ``size`` bytes that has too many pieces.

        Raises:
            UsageError: if so.
        """
        if self._piece is not None:
            check_pieces(self._piece, size)

    def feed(
        self, data: memoryview | None, length: int, release: Callable[[], None] | None = None
    ) -> None:
        """Take in the next bytes, at once or soon.

        Args:
            data: the bytes; ``None``: zeros. Not to be changed until ``release`` is called.
            length: how many.
            release: called by this thread, now or in a later call, when ``data`` is done with.

        Raises:
            Exception: what a hasher has raised, now or before.
        """
        self._fed += length
        each = self._each()
        pays = self.is_apart and len(each) > 1 and self._fed > _APART_FROM_BYTES
        if self._lanes is None and pays:
            self._lanes = Lanes(each)
        if self._lanes is not None:
            self._lanes.feed(data, length, release)
            return
        for hasher in each:
            take_in(hasher, data, length)
        if release is not None:
            release()

    def update(self, data: memoryview) -> None:
        """Take in the next bytes at once."""
        for hasher in self._each():
            hasher.update(data)

    def update_zeros(self, length: int) -> None:
        """Take in a run of zeros at once."""
        for hasher in self._each():
            take_in(hasher, None, length)

    def digests(self) -> dict[str, str]:
        """Hexadecimal, by name; waits for what was fed."""
        self._drain()
        return {name: hasher.hexdigest() for name, hasher in self._hashers.items()}

    def pieces(self) -> list[Piece]:
        """Of each piece, in order; none if they were not asked for."""
        self._drain()
        found: dict[int, Piece] = {}
        for name, pieces in self._by_piece.items():
            for offset, length, digest in pieces.all():
                piece = found.setdefault(offset, Piece(offset, length, {}))
                piece.hashes[name] = digest
        return [found[offset] for offset in sorted(found)]

    def close(self) -> None:
        """End the threads, if there are any. Calling again changes nothing."""
        if self._lanes is not None:
            self._lanes.close()

    def _each(self) -> list[Hasher]:
        return [*self._hashers.values(), *self._by_piece.values()]

    def _drain(self) -> None:
        if self._lanes is not None:
            self._lanes.drain()


class _Pieces:
    """One hash of each piece of what is taken in."""

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._done: list[str] = []
        self._hasher = _new(name)
        self._filled = 0

    def update(self, data: memoryview, /) -> None:
        """Take in more bytes, of one piece or several."""
        while len(data):
            part = data[: self._size - self._filled]
            self._hasher.update(part)
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == self._size:
                self._done.append(self._hasher.hexdigest())
                self._hasher = _new(self._name)
                self._filled = 0

    def hexdigest(self) -> str:
        """Of the piece that is not whole yet."""
        return self._hasher.hexdigest()

    def all(self) -> list[tuple[int, int, str]]:
        """Offset, length and digest of each piece; the last one may be shorter."""
        found = [(i * self._size, self._size, digest) for i, digest in enumerate(self._done)]
        if self._filled:
            found.append((len(self._done) * self._size, self._filled, self.hexdigest()))
        return found


class Digest(Hasher, Protocol):
    """A hasher whose result can be had as bytes, too, and that can be taken further twice."""

    def digest(self) -> bytes:
        """The digest of all bytes so far."""

    def copy(self) -> Self:
        """Another one that has taken in the same bytes."""


def maker(name: str) -> Callable[..., Digest]:
    """Makes hashers of that name, of nothing or of the bytes that it is given."""
    if name == "blake3":
        from blake3 import blake3  # a compiled module that most runs do not need

        return blake3
    import hashlib  # OpenSSL costs 3 ms, and most copies do not hash

    found: Callable[..., Digest] = getattr(hashlib, name)
    return partial(found, usedforsecurity=False)


def _new(name: str) -> Hasher:
    """A hasher of much."""
    return _openssl_md5() if name == "md5" else maker(name)()


def _openssl_md5() -> Hasher:
    """MD5 by the OpenSSL that ``cryptography`` brings along.

    No hash of the usual ones takes longer, so all others wait for it; OpenSSL 4 takes 6 % less
    time than the OpenSSL 3.0 that ``hashlib`` often has. Small pieces are better off there.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.hashes import MD5, Hash

    try:
        return _Hexadecimal(Hash(MD5()))  # noqa: S303 - a checksum that others have to compare
    except UnsupportedAlgorithm:  # OpenSSL is told to keep to FIPS 140
        return maker("md5")()


class _Hexadecimal:
    """A hash context of ``cryptography`` that can be asked for its digest any number of times."""

    def __init__(self, context: Hash) -> None:
        self._context = context
        self.update = context.update

    def hexdigest(self) -> str:
        """The digest of all bytes so far."""
        return self._context.copy().finalize().hex()
