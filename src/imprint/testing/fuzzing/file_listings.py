"""Targets: listings of files, and their contents, of file systems that are read by ourselves."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ImagingError
from imprint.filesystems import mfs
from imprint.filesystems.f2fs import layout as f2fs
from imprint.filesystems.probes.apple import HFS_OFFSET, MfsMasterBlock
from imprint.filesystems.probes.bsd import UfsSuperblock
from imprint.filesystems.squashfs import layout as squashfs
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.udf import layout as udf
from imprint.filesystems.walking import walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.fuzzing.endless import EndlessVolume
from imprint.testing.fuzzing.images import read_some
from imprint.testing.fuzzing.target import Place, Target
from imprint.testing.small_f2fs import seal_f2fs
from imprint.testing.small_f2fs_files import PLACES, small_f2fs_files
from imprint.testing.small_hfs import HFS_PLACES, small_hfs, small_mfs
from imprint.testing.small_squashfs import small_squashfs
from imprint.testing.small_udf import BLOCK as UDF_BLOCK
from imprint.testing.small_udf import KINDS, START, seal_udf, small_udf
from imprint.testing.small_ufs import UFS_KINDS, small_ufs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.tree import FileTree

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
    yield from _of_old_macs()
    yield Target(
        "squashfs",
        lambda: [small_squashfs(is_plain=True), *map(small_squashfs, _COMPRESSORS)],
        (listing("squashfs", MemoryStorage),),
        places=(Place(squashfs.Superblock),),
        words=(b"hsqs", b"\xff\xff\x80", b"\0\x80", b"\x08\0", b"\x09\0"),
    )

    yield Target(
        "udf_files",
        lambda: list(map(small_udf, KINDS)),
        (listing("udf", MemoryStorage, deleted=True),),
        places=(
            Place(udf.Anchor, 256 * UDF_BLOCK),
            Place(udf.LogicalVolume, 101 * UDF_BLOCK),
            Place(udf.PartitionMap, 101 * UDF_BLOCK + 440),
            Place(udf.PartitionMap, 101 * UDF_BLOCK + 446),
            Place(udf.MetadataMap, 101 * UDF_BLOCK + 446),
            Place(udf.PartitionDescriptor, 102 * UDF_BLOCK),
            Place(udf.FileSet, START * UDF_BLOCK),
            *(Place(udf.ExtendedFileEntry, (START + at) * UDF_BLOCK) for at in (2, 4, 5, 8, 13)),
            Place(udf.Descriptors, (START + 16) * UDF_BLOCK),
            *(Place(udf.FileEntry, (START + at) * UDF_BLOCK) for at in (61, 62, 63, 95)),
            Place(udf.VatHead, 358 * UDF_BLOCK),
            Place(udf.SparingTable, 350 * UDF_BLOCK),
        ),
        words=tuple(number.to_bytes(4, "little") for number in (512, 2, 3, 264, 1 << 30, 3 << 30)),
        seal=seal_udf,
    )
    yield Target(
        "ufs_files",
        lambda: [small_ufs(*kind) for kind in UFS_KINDS],
        (
            listing("ufs", MemoryStorage, deleted=True),
            listing("ufs", EndlessVolume, deleted=True),
        ),
        places=(Place(UfsSuperblock, 8192),),
        words=tuple(
            number.to_bytes(4, order)
            for number in (0, 1, 2, 3, 7, 24, 44, 128, 512, 1 << 20, (1 << 32) - 1)
            for order in ("little", "big")
        ),
    )


def _of_old_macs() -> Iterator[Target]:
    yield Target(
        "hfs_files",
        lambda: [small_hfs()],
        (listing("hfs", MemoryStorage), listing("hfs", EndlessVolume)),
        places=HFS_PLACES,
        words=(b"\x01\0", b"\x02\0", b"\x25\0", b"\0\0\0\x02", b"\0\0\0\x11"),
    )
    yield Target(
        "mfs_files",
        lambda: [small_mfs()],
        (listing("mfs", MemoryStorage), listing("mfs", EndlessVolume)),
        places=(
            Place(MfsMasterBlock, HFS_OFFSET),
            *(Place(mfs.FileEntry, at) for at in (2048, 2048 + 56, 2048 + 512)),
        ),
    )


def listing(
    kind: str,
    opened: Callable[[bytes], Source],
    *,
    deleted: bool = False,
    reader: Callable[[Source], FileTree] | None = None,
) -> Callable[[bytes], None]:
    """A step: all files are told, what is told is inside of the volume, and some are read.

    Args:
        kind: of the file system.
        opened: gives the volume.
        deleted: tell deleted ones, too.
        reader: of ours, where another one may be chosen as well.
    """

    def list_files(content: bytes) -> None:
        volume = opened(content)
        files = tree(kind, volume) if reader is None else reader(volume)
        left = _READ_MAX
        for entry in islice(walk(files, deleted=deleted), _LOOKED_AT_MAX):
            for offset, length in entry.extents:
                assert 0 <= offset < offset + length <= volume.size
            files.attributes(entry)
            if entry.type in (Type.FILE, Type.LINK) and left:
                left -= 1
                try:
                    read_some(files.content(entry))
                except ImagingError:
                    continue
        files.close()

    return list_files
