"""What is wanted of an extraction, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from imprint.filesystems.tree import has_failures

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTED_MAX: Final = 10_000
"""Entries of a list in the report; more of them are only counted."""

Streams = Literal["files", "xattrs"]
Xattrs = Literal["user", "all", "none"]


@dataclass(frozen=True)
class Wishes:
    """How files are extracted.

    Attributes:
        recursive: folders too, with all that is in them.
        system: also what the file system keeps for itself.
        deleted: recover deleted files, into a folder of their own.
        force: replace files that are there.
        resume: leave out what an earlier extraction has made, and is whole.
        owner: give files the owner, the group and the special bits that they have there.
        streams: what becomes of further contents: files beside the file, or extended attributes;
            ``None``: nothing, they are only counted.
        xattrs: which extended attributes files get: those of ``user.``, which nothing depends on;
            all, access control lists, labels and capabilities among them; or none.
        slack: write what lies behind the end of each file into a file beside it.
    """

    recursive: bool = False
    system: bool = False
    deleted: bool = False
    force: bool = False
    resume: bool = False
    owner: bool = False
    streams: Streams | None = None
    xattrs: Xattrs = "user"
    slack: bool = False


class Listed:
    """A list that stops growing, and still counts."""

    def __init__(self) -> None:
        self.count = 0
        self.items: list[dict[str, object]] = []

    def add(self, **facts: object) -> None:
        """One more."""
        self.count += 1
        if len(self.items) < LISTED_MAX:
            self.items.append(facts)

    def __iter__(self) -> Iterator[dict[str, object]]:
        return iter(self.items)


@dataclass
class Extraction:
    """What was extracted.

    Attributes:
        files: that were written, or given a further name.
        folders: that were made.
        links: symbolic ones.
        kept: files that were there already, and whole.
        size: bytes of the files that were written, holes included.
        streams_left: further contents that were not asked for.
        xattrs: extended attributes that files, folders and links have got.
        xattrs_left: those that were not asked for.
        xattrs_failed: ``path``, ``name`` and ``why``: those that the target does not take.
        skipped: ``path`` and ``why``: what no file can be made of, as devices.
        failed: ``path`` and ``why``: what should be there, and is not.
        bad: ``path``, ``offset``, ``length``: bytes that could not be read, and are zeros.
        renamed: ``path`` and ``name``: what has another name than it had.
        recovered: ``path`` and ``folder``: deleted files of which no block is in use again.
        notes: of the file system: what could not be followed.
    """

    files: int = 0
    folders: int = 0
    links: int = 0
    kept: int = 0
    size: int = 0
    streams_left: int = 0
    xattrs: int = 0
    xattrs_left: int = 0
    xattrs_failed: Listed = field(default_factory=Listed)
    skipped: Listed = field(default_factory=Listed)
    failed: Listed = field(default_factory=Listed)
    bad: Listed = field(default_factory=Listed)
    renamed: Listed = field(default_factory=Listed)
    recovered: Listed = field(default_factory=Listed)
    notes: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether all that was asked for is there."""
        return not (self.failed.count or self.bad.count or has_failures(self.notes))
