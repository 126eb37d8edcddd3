"""Which features of ext2, ext3 and ext4 leave the meaning of the bitmaps alone.

A feature is known if it was looked up what it does to the allocation of blocks. Everything
else is refused, those that may be ignored by who only reads files as well: the
bits that were given to snapshots are among them.

Source: Linux ``fs/ext4/ext4.h``; e2fsprogs ``ext4(5)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import UnsupportedFeatureError

if TYPE_CHECKING:
    from imprint.filesystems.ext.layout import Superblock

HAS_JOURNAL: Final = 0x0004
RESIZE_INODE: Final = 0x0010
SPARSE_SUPER2: Final = 0x0200

RECOVER: Final = 0x0004
JOURNAL_DEVICE: Final = 0x0008
META_BG: Final = 0x0010
BITS_64: Final = 0x0080
MMP: Final = 0x0100
CSUM_SEED: Final = 0x2000

SPARSE_SUPER: Final = 0x0001
GDT_CSUM: Final = 0x0010
BIGALLOC: Final = 0x0200
METADATA_CSUM: Final = 0x0400
ORPHAN_PRESENT: Final = 0x1_0000

COMPAT: Final = {
    0x0001: "dir_prealloc",
    0x0002: "imagic_inodes",
    HAS_JOURNAL: "has_journal",
    0x0008: "ext_attr",
    RESIZE_INODE: "resize_inode",
    0x0020: "dir_index",
    SPARSE_SUPER2: "sparse_super2",
    0x0400: "fast_commit",
    0x0800: "stable_inodes",
    0x1000: "orphan_file",
}
INCOMPAT: Final = {
    0x0002: "filetype",
    RECOVER: "needs_recovery",
    META_BG: "meta_bg",
    0x0040: "extent",
    BITS_64: "64bit",
    MMP: "mmp",
    0x0200: "flex_bg",
    0x0400: "ea_inode",
    CSUM_SEED: "metadata_csum_seed",
    0x4000: "large_dir",
    0x8000: "inline_data",
    0x1_0000: "encrypt",
    0x2_0000: "casefold",
}
RO_COMPAT: Final = {
    SPARSE_SUPER: "sparse_super",
    0x0002: "large_file",
    0x0004: "btree_dir",
    0x0008: "huge_file",
    GDT_CSUM: "uninit_bg",
    0x0020: "dir_nlink",
    0x0040: "extra_isize",
    0x0100: "quota",
    BIGALLOC: "bigalloc",
    METADATA_CSUM: "metadata_csum",
    0x1000: "read-only",
    0x2000: "project",
    0x4000: "shared_blocks",
    0x8000: "verity",
    ORPHAN_PRESENT: "orphan_present",
}

_REFUSED: Final = {
    ("compat", 0x0040): "lazy_bg",
    ("compat", 0x0080): "exclude_inode",
    ("compat", 0x0100): "snapshot_bitmap",
    ("incompat", 0x0001): "compression",
    ("incompat", 0x1000): "dirdata",
    ("ro_compat", 0x0080): "snapshots",
    ("ro_compat", 0x0800): "replica",
}


def check_features(superblock: Superblock, *, where: str) -> None:
    """Refuse what may keep its blocks elsewhere, or count them otherwise.

    Raises:
        UnsupportedFeatureError: if a feature is not known to be harmless, if the journal is
            on another device, or if this is such a device.
    """
    if superblock.incompat & JOURNAL_DEVICE:
        raise UnsupportedFeatureError(
            "expected a file system, found the journal of one on a device of its own", name=where
        )
    found = (
        ("compat", superblock.compat, COMPAT),
        ("incompat", superblock.incompat, INCOMPAT),
        ("ro_compat", superblock.ro_compat, RO_COMPAT),
    )
    for field, bits, known in found:
        unknown = bits & ~sum(known)
        if unknown:
            lowest = unknown & -unknown
            called = _REFUSED.get((field, lowest), "an unknown one")
            raise UnsupportedFeatureError(
                f"Superblock.{field}: expected features that are known to leave the bitmaps as "
                f"they are, found 0x{lowest:x} ({called})",
                name=where,
            )
    if superblock.compat & HAS_JOURNAL and superblock.journal_inode == 0:
        raise UnsupportedFeatureError(
            "expected the journal in the file system, found it on another device", name=where
        )
