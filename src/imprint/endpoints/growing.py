"""File systems that are made to fill their partition, each by its own tool.

Whatever can be refused is refused by :func:`grower` before anything is written; after a tool has
worked, the file system's checker has the last word.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from imprint.core.errors import FormatError, UnsupportedFeatureError
from imprint.endpoints import attached, tools
from imprint.filesystems.ext.layout import Superblock
from imprint.filesystems.table import allocator

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Source

PROGRAMS: Final = {
    "ext2": ("e2fsck", "resize2fs"),
    "ext3": ("e2fsck", "resize2fs"),
    "ext4": ("e2fsck", "resize2fs"),
    "ntfs": ("ntfsresize",),
    "xfs": ("xfs_growfs", "xfs_repair", "mount", "umount"),
}
"""What growing a file system needs, by its kind."""

STAYS: Final = {
    "btrfs": "once it is mounted, btrfs filesystem resize max enlarges it",
    "crypto_LUKS": "once it is unlocked it is as large as the partition, what is inside is not",
    "LVM2_member": "pvresize gives the room to the volume group",
}
"""What can have a larger partition and stay as it is, and how it is enlarged later."""

_SUPERBLOCK_AT: Final = 1024
_IS_64BIT: Final = 0x80
_IS_BIGALLOC: Final = 0x200
_CORRECTED: Final = 1  # e2fsck: errors were corrected
_NO_SUCH_THING: Final = {
    "swap": "mkswap makes it anew",
    "swsuspend": "it holds a sleeping system",
    "vfat": "no tool grows FAT dependably: make it anew, and copy the files",
    "exfat": "no tool grows exFAT: make it anew, and copy the files",
    "linux_raid_member": "some arrays have their description at the partition's end",
    "BitLocker": "Windows can extend it",
}


@dataclass(frozen=True)
class Place:
    """Where on the restored disk a file system is.

    Attributes:
        path: of the disk: a device or a raw file.
        start: of the partition, in bytes.
        length: of the partition, in bytes.
    """

    path: Path
    start: int
    length: int


class Grower(Protocol):
    """A way to make a kind of file system fill its partition."""

    def grow(self, place: Place) -> None:
        """Do it, and have it checked.

        Raises:
            TargetError: if a tool fails, or its result is not sound.
        """


def grower(kind: str | None, volume: Source, length: int, *, on_device: bool) -> Grower | None:
    """How the content of a partition is grown; ``None``: it stays as it is.

    Args:
        kind: of the file system, or what else it is.
        volume: the partition as it is in the image.
        length: that it shall have, in bytes.
        on_device: the target is a device, not a file.

    Raises:
        UnsupportedFeatureError: if it cannot be, or a program for it is missing.
    """
    if kind in STAYS:
        return None
    if kind not in PROGRAMS:
        why = _NO_SUCH_THING.get(kind or "", "what is in it has to know of its new end")
        raise UnsupportedFeatureError(
            f"the last partition holds {kind or 'something unknown'}, which cannot be grown",
            advice=f"{why}; without --grow it is restored as it is",
        )
    is_root = os.geteuid() == 0
    if not is_root and (kind == "xfs" or on_device):
        raise UnsupportedFeatureError(
            f"growing {kind} needs a loop device, which only root can have",
            advice="run it as root, or restore without --grow",
        )
    programs = (*PROGRAMS[kind], *(("losetup",) if is_root else ()))
    missing = [program for program in programs if tools.find(program) is None]
    if missing:
        raise UnsupportedFeatureError(
            f"growing {kind} needs {', '.join(missing)}, which is not here",
            advice="imprint doctor says how to get it",
        )
    _check_sound(kind, volume)
    if kind == "ntfs":
        return _Ntfs()
    if kind == "xfs":
        return _Xfs()
    _check_ext_room(volume, length)
    return _Ext()


def _check_sound(kind: str, volume: Source) -> None:
    """Refuse what its tool would refuse, or make worse."""
    file_system = allocator(kind)
    assert file_system is not None
    try:
        doubts = file_system.allocation(volume).doubts
    except FormatError as error:
        doubts = (str(error.args[0]),)
    else:
        if kind == "xfs":
            doubts = ()  # of its log, which is replayed when it is mounted
    if doubts:
        raise UnsupportedFeatureError(
            f"the {kind} in the last partition is not sound enough to be grown: {doubts[0]}",
            advice="have it checked by its own system first, or restore without --grow",
        )


def _ext_superblock(volume: Source) -> Superblock:
    buffer = bytearray(Superblock.SIZE)
    volume.readinto(memoryview(buffer), _SUPERBLOCK_AT)
    return Superblock.unpack(buffer)


def _check_ext_room(volume: Source, length: int) -> None:
    block = _ext_superblock(volume)
    if block.ro_compat & _IS_BIGALLOC:
        raise UnsupportedFeatureError(
            "the ext4 in the last partition has clusters (bigalloc), which resize2fs does not "
            "grow dependably",
            advice="without --grow it is restored as it is",
        )
    largest = (1 << 32) * (1024 << block.log_block_size)
    if length >= largest and not block.incompat & _IS_64BIT:
        raise UnsupportedFeatureError(
            f"expected less than {largest} bytes, which the file system can count, found {length}",
            advice="resize2fs -b makes it count further; it has to be done before",
        )


def _on(volume: Path, program: str, *arguments: str, accept: tuple[int, ...] = (0,)) -> None:
    """Run a program on a volume. Its folder is left out: a question mark there has a meaning."""
    limit = tools.WORK_TIMEOUT_S
    words = (*arguments, volume.name)
    tools.run(program, *words, timeout_s=limit, folder=volume.parent, stdin=b"y\n", accept=accept)


class _Ext:
    """By ``resize2fs``.

    It could be told where in a file the file system begins, but cuts the file off afterwards
    as if it began at 0.
    """

    def grow(self, place: Place) -> None:
        with attached.volume(place.path, place.start, place.length) as volume:
            _on(volume, "e2fsck", "-f", "-p", accept=(0, _CORRECTED))
            _on(volume, "resize2fs")
            _on(volume, "e2fsck", "-f", "-n")


class _Ntfs:
    """By ``ntfsresize``, which checks the file system before it tells anything about it."""

    def grow(self, place: Place) -> None:
        with attached.volume(place.path, place.start, place.length) as volume:
            _on(volume, "ntfsresize", "--force", "--no-progress-bar")
            _on(volume, "ntfsresize", "--info", "--force", "--no-progress-bar")


class _Xfs:
    """By ``xfs_growfs``, for which it has to be mounted."""

    def grow(self, place: Place) -> None:
        with attached.loop_device(place.path, place.start, place.length) as volume:
            # The disk that the image was taken of may be in this machine too: the same UUID.
            with attached.mounted(volume, "xfs", "nouuid,nodev,nosuid,noexec") as point:
                _on(point, "xfs_growfs", "-d")
            _on(volume, "xfs_repair", "-n")
