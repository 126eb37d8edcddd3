"""The tree of files in logical evidence: the text of the section ``ltree``.

Source: libewf's document "Expert Witness Compression Format", 0.0.86, "Ltree section".
"""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.layout import Structure, raw, uint
from imprint.formats.ewf.sections import read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.formats.ewf.evidence import Evidence

TREE_BYTES_MAX: Final = 32 << 20
"""Of the text: some 100,000 files."""

DEPTH_MAX: Final = 256

_SPARSE: Final = 0x0400_0000
_NO_HASH: Final = "0" * 32


class TreeHeader(Structure, size=48, endian="<"):
    """What is before the text."""

    md5: bytes = raw(16, at=0, doc="of the text")
    size: int = uint(8, at=16, doc="of the text, in bytes")
    checksum: int = uint(4, at=24, doc="Adler-32 of this header, with 0 here")


@dataclass(frozen=True)
class Entry:
    """A file or a folder.

    Attributes:
        path: from the root, with slashes.
        is_folder: whether it can hold others.
        size: of the file, in bytes.
        offset: of its bytes in the evidence's data.
        stored: how many bytes are there: one, if the file is a run of it.
        times: seconds since 1970 by name: ``created``, ``accessed``, ``modified`` …
        md5: of the file, hexadecimal, if it was taken.
    """

    path: str
    is_folder: bool
    size: int
    offset: int
    stored: int
    times: dict[str, int]
    md5: str | None


_TIMES: Final = {
    "cr": "created",
    "ac": "accessed",
    "wr": "modified",
    "mo": "changed",
    "dl": "deleted",
}


class Tree:
    """The text of a tree, read when it is asked for."""

    def __init__(self, lines: list[str], name: str) -> None:
        self._lines = lines
        self._name = name

    @classmethod
    def of(cls, evidence: Evidence) -> Tree:
        """The tree of an image.

        Raises:
            CorruptImageError: if there is none, or its MD5 is wrong.
        """
        if evidence.tree is None:
            raise CorruptImageError("expected a tree of files, found none", name=evidence.name)
        storage, start, end = evidence.tree
        header = TreeHeader.unpack(read_bytes(storage, start, TreeHeader.SIZE), where=evidence.name)
        start += TreeHeader.SIZE
        header.require(
            "size",
            header.size <= min(TREE_BYTES_MAX, end - start),
            f"at most {min(TREE_BYTES_MAX, max(0, end - start))} bytes",
            where=evidence.name,
        )
        text = read_bytes(storage, start, header.size)
        if hashlib.md5(text, usedforsecurity=False).digest() != header.md5:
            raise CorruptImageError("tree of files: its MD5 is wrong", name=evidence.name)
        lines = text.decode("utf-16-le", "replace").split("\n")
        return cls([line.rstrip("\r") for line in lines], evidence.name)

    @property
    def data_size(self) -> int:
        """Bytes of all files together; 0 if the tree does not say it."""
        if "rec" not in self._lines:
            return 0
        at = self._lines.index("rec")
        columns, values = self._row(at + 1), self._row(at + 2)
        return _number(dict(zip(columns, values, strict=False)).get("tb", ""))

    def entries(self) -> Iterator[Entry]:
        """All files and folders below the root, each folder before what is in it.

        Raises:
            CorruptImageError: if the text ends early, or folders are too deep.
        """
        if "entry" not in self._lines:
            return
        at = self._lines.index("entry") + 2
        columns = self._row(at)
        at += 1
        waiting: list[tuple[int, str]] = [(1, "")]
        while waiting:
            count, folder = waiting.pop()
            if not count:
                continue
            waiting.append((count - 1, folder))
            counts, values = self._row(at), dict(zip(columns, self._row(at + 1), strict=False))
            at += 2
            children = _number(counts[1]) if len(counts) > 1 else 0
            is_root = len(waiting) == 1
            path = "" if is_root else posixpath.join(folder, _name(values.get("n", "")))
            if not is_root:
                yield _entry(path, values, has_children=children > 0)
            if len(waiting) > DEPTH_MAX:
                raise CorruptImageError("tree of files: too deep", name=self._name)
            waiting.append((children, path))

    def _row(self, at: int) -> list[str]:
        if at >= len(self._lines):
            raise CorruptImageError("tree of files: ends early", name=self._name)
        return self._lines[at].split("\t")


def _entry(path: str, values: dict[str, str], *, has_children: bool) -> Entry:
    size = _number(values.get("ls", ""))
    extents = values.get("be", "").split()
    offset = stored = 0
    if len(extents) >= 3:
        numbers = [item for item in extents[1:] if item != "S"]
        offset, stored = _number(numbers[0], 16), _number(numbers[1] if numbers[1:] else "", 16)
    duplicate = values.get("du", "")
    if _number(values.get("opr", "")) & _SPARSE and duplicate not in ("", "-1"):
        offset, stored = _number(duplicate), size
    times = {title: _number(values[tag]) for tag, title in _TIMES.items() if values.get(tag)}
    md5 = values.get("ha", "").lower()
    return Entry(
        path=path,
        is_folder=values.get("p", "") == "1" or has_children,
        size=size,
        offset=offset,
        stored=stored,
        times=times,
        md5=md5 if md5 and md5 != _NO_HASH else None,
    )


def _name(name: str) -> str:
    """A name that is no path: slashes become what looks like them."""
    name = name.replace("/", "\u2215") or "NoName"
    return name if name not in (".", "..") else f"{name}\u200b"


def _number(text: str, base: int = 10) -> int:
    """A number that fits into 63 bits; 0 if it is none."""
    digits = "0123456789abcdefABCDEF"[: 10 if base == 10 else None]
    if not text or len(text) > 18 or text.strip(digits):
        return 0
    return int(text, base) & ((1 << 63) - 1)
