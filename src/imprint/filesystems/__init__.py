"""File systems: which one is in a disk or partition, and what it is called.

Recognised: ext2, ext3, ext4, XFS, Btrfs, F2FS, squashfs, Linux swap; FAT12, FAT16, FAT32,
exFAT, NTFS, BitLocker; HFS+, classic HFS, MFS, APFS; UFS; ISO 9660, UDF; LUKS 1 and 2, and members
of LVM2 and Linux RAID. Nothing is written.
"""

from __future__ import annotations

from imprint.filesystems.facts import FileSystem
from imprint.filesystems.identify import identify

__all__ = ["FileSystem", "identify"]
