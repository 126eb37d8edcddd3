"""Targets: listings of files, and their contents, of file systems that are read by ourselves."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError
from imprint.filesystems.f2fs import layout as f2fs
from imprint.filesystems.squashfs import layout as squashfs
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.fuzzing.endless import EndlessVolume
from imprint.testing.fuzzing.images import read_some
from imprint.testing.fuzzing.target import Place, Target
from imprint.testing.small_f2fs import seal_f2fs
from imprint.testing.small_f2fs_files import PLACES, small_f2fs_files
from imprint.testing.small_squashfs import small_squashfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.core.contracts import Source

_LOOKED_AT_MAX: Final = 2000
_READ_MAX: Final = 20
_COMPRESSORS: Final = (1, 2, 4, 5, 6)


def targets() -> Iterator[Target]:
    """One for each file system."""
    first = len(PLACES) - 15
    yield Target(
        "f2fs_files",
        lambda: [small_f2fs_files()],
        (listing("f2fs", lambda content: EndlessVolume(content, PLACES)),),
        places=(
            Place(f2fs.Superblock, f2fs.SUPER_OFFSETS[0]),
            Place(f2fs.Inode, PLACES.index(4096) * f2fs.BLOCK),
            *(Place(f2fs.Inode, (first + at) * f2fs.BLOCK) for at in (0, 7, 8)),
            *(
                Place(f2fs.NodeFooter, (first + at + 1) * f2fs.BLOCK - f2fs.NodeFooter.SIZE)
                for at in range(9)
            ),
        ),
        words=tuple(number.to_bytes(4, "little") for number in (3, 5, 7, 8, 4096, 4112, 2**32 - 2)),
        seal=seal_f2fs,
    )
    yield Target(
        "squashfs",
        lambda: [small_squashfs(is_plain=True), *map(small_squashfs, _COMPRESSORS)],
        (listing("squashfs", MemoryStorage),),
        places=(Place(squashfs.Superblock),),
        words=(b"hsqs", b"\xff\xff\x80", b"\0\x80", b"\x08\0", b"\x09\0"),
    )


def listing(kind: str, opened: Callable[[bytes], Source]) -> Callable[[bytes], None]:
    """A step: all files are told, what is told is inside of the volume, and some are read."""

    def list_files(content: bytes) -> None:
        volume = opened(content)
        files = tree(kind, volume)
        left = _READ_MAX
        for entry in islice(walk(files), _LOOKED_AT_MAX):
            for offset, length in entry.extents:
                assert 0 <= offset < offset + length <= volume.size
            if entry.type in (Type.FILE, Type.LINK) and left:
                left -= 1
                try:
                    read_some(files.content(entry))
                except ImagingError:
                    continue
        files.close()

    return list_files
