"""Files with extended attributes and access control lists, and what the kernel tells of them."""

from __future__ import annotations

import errno
import os
import random
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

Attributes = dict[str, dict[str, bytes]]
"""By path, then by name."""

DICE: Final = random.Random(11)

# Version 2; owner, user 70000, group, mask, others: Linux include/uapi/linux/posix_acl_xattr.h.
ACCESS: Final = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 7, -1 & 0xFFFFFFFF, 2, 4, 70_000, 4, 5, 0xFFFFFFFF, 16, 5, 0xFFFFFFFF,
    32, 0, 0xFFFFFFFF,
)  # fmt: skip
DEFAULT: Final = struct.pack(
    "<I" + "HHI" * 5, 2, 1, 7, 0xFFFFFFFF, 4, 5, 0xFFFFFFFF, 8, 6, 1234, 16, 7, 0xFFFFFFFF,
    32, 1, 0xFFFFFFFF,
)  # fmt: skip
CAPABILITY: Final = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)
"""``cap_net_raw+ep``: Linux include/uapi/linux/capability.h."""

ADDED: Final = frozenset({"trusted.SGI_ACL_FILE", "trusted.SGI_ACL_DEFAULT"})
"""What XFS tells of an access control list once more."""


def dress(folder: Path) -> None:
    """Attributes of all namespaces, on all that may have some; values of all bytes, and of none."""
    (folder / "few").write_bytes(b"few")
    os.setxattr(folder / "few", "user.comment", "größer".encode())
    os.setxattr(folder / "few", "user.empty", b"")
    os.setxattr(folder / "few", b"user.\xff bytes", bytes(range(200)))
    os.setxattr(folder / "few", "trusted.overlay.opaque", b"y")
    os.setxattr(folder / "few", "security.capability", CAPABILITY)
    (folder / "none").touch()
    (folder / "listed").touch()
    os.setxattr(folder / "listed", "system.posix_acl_access", ACCESS)
    (folder / "folder").mkdir()
    os.setxattr(folder / "folder", "system.posix_acl_default", DEFAULT)
    os.setxattr(folder / "folder", "user.of a folder", b"1")
    (folder / "folder" / "heir").touch()
    (folder / "link").symlink_to("few")
    os.setxattr(folder / "link", "trusted.of a link", b"2", follow_symlinks=False)
    os.mkfifo(folder / "pipe")
    os.setxattr(folder / "pipe", "trusted.of a pipe", b"3")
    os.mknod(folder / "null", 0o20666, os.makedev(1, 3))
    os.setxattr(folder / "null", "trusted.of a device", b"4")
    os.setxattr(folder, "user.of the root", b"5")


def _set(path: Path, name: str, value: bytes) -> None:
    """Set one, if the kernel has room: now and then ext4 says that it has none."""
    try:
        os.setxattr(path, name, value)
    except OSError as failure:
        if failure.errno != errno.ENOSPC:
            raise


def many(folder: Path, *, count: int, size: int) -> None:
    """A file with many, some of which go again, and one that has half of them."""
    for name, step in (("many", 1), ("half", 2)):
        (folder / name).touch()
        for number in range(0, count, step):
            value = DICE.randbytes(DICE.randrange(size))
            _set(folder / name, f"user.number {number} of many", value)
    for number in range(0, count, 7):
        name = f"user.number {number} of many"
        if name in os.listxattr(folder / "many"):
            os.removexattr(folder / "many", name)


def by_kernel(folder: Path) -> Attributes:
    """Those of all that is below a folder, and of itself."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        names = set(os.listxattr(path, follow_symlinks=False)) - ADDED
        place = f"/{path.relative_to(folder)}" if path != folder else "/"
        found[place] = {name: os.getxattr(path, name, follow_symlinks=False) for name in names}
    return found
