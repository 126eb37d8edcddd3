"""Which file systems can tell what they use: one literal table, so that listing imports nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from imprint.filesystems.allocation import Allocating

MODULES: Final = {
    "apfs": "apfs",
    "btrfs": "btrfs",
    "exfat": "exfat",
    "vfat": "fat",
    "ext2": "ext",
    "ext3": "ext",
    "ext4": "ext",
    "f2fs": "f2fs",
    "hfs": "hfs",
    "hfsplus": "hfsplus",
    "iso9660": "whole",
    "ntfs": "ntfs",
    "squashfs": "whole",
    "squashfs3": "whole",
    "swap": "swap",
    "udf": "whole",
    "ufs": "ufs",
    "xfs": "xfs",
}
"""Module below ``imprint.filesystems`` by the kind that ``identify`` tells. Each has a
module-level ``FILE_SYSTEM``, which is :class:`~imprint.filesystems.allocation.Allocating`."""


def allocator(kind: str) -> Allocating | None:
    """What can tell what a file system of this kind uses; ``None`` if nothing can."""
    name = MODULES.get(kind)
    if name is None:
        return None
    module = importlib.import_module(f"imprint.filesystems.{name}")
    file_system: Allocating = module.FILE_SYSTEM
    return file_system
