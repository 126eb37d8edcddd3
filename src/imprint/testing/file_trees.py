"""What a file system holds, told by a reader of ours and by the kernel, in the same words."""

from __future__ import annotations

import hashlib
import os
import stat
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from imprint.core.units import MIB
from imprint.filesystems import identify
from imprint.filesystems.tree import TYPES_BY_MODE, Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import walk
from imprint.storage.file import FileStorage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import Entry, FileTree


class Told(NamedTuple):
    """What two readers have to agree upon.

    Attributes:
        type: what it is.
        content: SHA-256 of a file, the target of a symbolic link; else nothing.
        size: of files and links.
        modified: in ns since 1970, of all but links.
        mode: permissions, owner and group, of all but links.
        links: how many names it has, of files.
    """

    type: Type
    content: str
    size: int
    modified: int | None = None
    mode: tuple[int, int, int] | None = None
    links: int | None = None


def digest(source: Source) -> str:
    """SHA-256 of all of a source, read in pieces that fit no block."""
    found = hashlib.sha256()
    step = MIB - 123
    for start in range(0, source.size, step):
        buffer = bytearray(min(step, source.size - start))
        source.readinto(memoryview(buffer), start)
        found.update(buffer)
    return found.hexdigest()


def of_folder(folder: Path, *, left_out: Iterable[str] = ()) -> dict[str, Told]:
    """What the kernel says of all that is below a folder, by path from there."""
    found = {}
    skipped = set(left_out)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            place = f"/{path.relative_to(folder)}"
            if place not in skipped:
                found[place] = _of_path(path)
    return found


def _of_path(path: Path) -> Told:
    facts = path.lstat()
    type_ = TYPES_BY_MODE[stat.S_IFMT(facts.st_mode)]
    if type_ is Type.LINK:
        return Told(type_, os.readlink(path), facts.st_size)  # noqa: PTH115 - as it stands
    mode = (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid)
    if type_ is Type.FILE:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        return Told(type_, content, facts.st_size, facts.st_mtime_ns, mode, facts.st_nlink)
    return Told(type_, "", 0, facts.st_mtime_ns, mode)


def of_tree(tree: FileTree, *, left_out: Iterable[str] = ()) -> dict[str, Told]:
    """What a reader of ours says of all but the root and what is the file system's own."""
    skipped = set(left_out)
    return {
        entry.path: _of_entry(tree, entry)
        for entry in walk(tree)
        if entry.path not in skipped and entry.path != "/" and entry.type is not Type.SYSTEM
    }


def _of_entry(tree: FileTree, entry: Entry) -> Told:
    if entry.type is Type.LINK:
        return Told(entry.type, entry.target or "", entry.size)
    mode = (entry.mode, entry.owner, entry.group)
    modified = entry.times.modified
    if entry.type is Type.FILE:
        content = tree.content(entry)
        assert content.size == entry.size
        return Told(entry.type, digest(content), entry.size, modified, mode, entry.links)
    return Told(entry.type, "", 0, modified, mode)


@contextmanager
def opened(path: Path) -> Iterator[FileTree]:
    """The files of a volume in a file, of whatever kind it is."""
    with closing(FileStorage.open(path)) as volume:
        found = identify(volume)
        assert found is not None
        with closing(tree(found.kind, volume)) as files:
            yield files


def told(path: Path) -> dict[str, Told]:
    """What we say, which has to be without notes."""
    with opened(path) as files:
        found = of_tree(files)
        assert files.notes == []
    return found


def bare(told: dict[str, Told]) -> dict[str, tuple[Type, str]]:
    """Type and content only, where a file system keeps no more, or others do not tell it."""
    return {path: (item.type, item.content) for path, item in told.items()}
