"""Which file systems can list their files: one literal table, so that asking imports nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.filesystems.tree import FileTree

READERS: Final = {
    "apfs": "apfs.tree",
    "btrfs": "btrfs.tree",
    "exfat": "sleuthkit",
    "ext2": "ext.tree",
    "ext3": "ext.tree",
    "ext4": "ext.tree",
    "f2fs": "f2fs.tree",
    "hfs": "hfs.tree",
    "hfsplus": "hfsplus.tree",
    "iso9660": "iso9660.tree",
    "mfs": "mfs",
    "ntfs": "sleuthkit",
    "squashfs": "squashfs.tree",
    "squashfs3": "squashfs.tree",
    "udf": "udf.tree",
    "ufs": "ufs.tree",
    "vfat": "fat.tree",
    "xfs": "xfs.tree",
}
"""Module below ``imprint.filesystems`` by the kind that ``identify`` tells. Each has a
module-level ``open_tree(volume, kind)``."""

WITH_MODES: Final = frozenset(
    {"apfs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "squashfs", "squashfs3", "ufs", "xfs"}
)
"""Kinds of which all files have permissions: where they are 0, nobody has any. HFS+ may have none,
as those of UDF and ISO 9660."""


def tree(kind: str, volume: Source) -> FileTree:
    """The files of a volume, which stays its owner's and has to outlive the tree.

    Args:
        kind: of the file system, as ``identify`` tells it.
        volume: all of it.

    Raises:
        UnsupportedFeatureError: if nothing lists files of this kind, or the module that does is
            missing: then the advice says how to get it.
        CorruptImageError: if it is none of the kind.
        ReadError: if it cannot be read.
    """
    name = READERS.get(kind)
    if name is None:
        raise UnsupportedFeatureError(f"files of {kind} cannot be listed", name=volume.name)
    module = importlib.import_module(f"imprint.filesystems.{name}")
    found: FileTree = module.open_tree(volume, kind)
    return found
