"""The directory of persistent dirty bitmaps.

imprint does not track changes in them. A bitmap that had to (``auto``) is marked *in use*
before the first change, which tells its readers that it missed something; bitmaps that were
switched off stay as valid as they are. All of them keep their place in the image.

Source: QEMU ``docs/interop/qcow2.txt``, *Bitmaps*.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from imprint.core.errors import CorruptImageError
from imprint.core.info import BitmapInfo
from imprint.core.units import align_up
from imprint.formats.qcow2 import layout
from imprint.formats.qcow2.layout import BitmapEntry, BitmapsExtension

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.formats.qcow2.header import HeaderArea


class Bitmap(NamedTuple):
    """An entry of the directory.

    Attributes:
        offset: of the entry in the file.
        entry: its fixed part.
        name: of the bitmap, as written.
    """

    offset: int
    entry: BitmapEntry
    name: bytes


def directory(area: HeaderArea, storage: Storage) -> Iterator[Bitmap]:
    """All bitmaps of the image; none if the extension is missing or no longer consistent.

    Raises:
        CorruptImageError: if the directory is damaged.
    """
    data = area.extension(layout.EXTENSION_BITMAPS)
    if data is None or not area.header.autoclear_features & layout.AUTOCLEAR_BITMAPS:
        return
    extension = BitmapsExtension.unpack(data, where=storage.name)
    start, size = extension.directory_offset, extension.directory_size
    extension.require(
        "directory_offset",
        start % area.cluster_size == 0 and start + size <= storage.size,
        "an aligned offset, and the directory inside the file",
        where=storage.name,
    )
    extension.require(
        "nb_bitmaps",
        extension.nb_bitmaps <= layout.BITMAP_COUNT_MAX
        and extension.nb_bitmaps * BitmapEntry.SIZE <= size <= layout.BITMAP_DIRECTORY_BYTES_MAX,
        "a number that fits the directory's size",
        where=storage.name,
    )
    table = bytearray(size)
    storage.readinto(memoryview(table), start)
    position = 0
    for _ in range(extension.nb_bitmaps):
        entry = BitmapEntry.unpack(table[position : position + BitmapEntry.SIZE])
        name = position + BitmapEntry.SIZE + entry.extra_data_size
        end = name + entry.name_size
        if end > size:
            raise CorruptImageError(
                f"bitmap directory entry at 0x{start + position:x}: expected it to end inside "
                f"the directory's 0x{size:x} bytes, found 0x{end:x}",
                name=storage.name,
                offset=start + position,
            )
        yield Bitmap(start + position, entry, bytes(table[name:end]))
        position = align_up(end, 8)


def describe(bitmap: Bitmap) -> BitmapInfo:
    """For people."""
    names = {
        layout.BITMAP_IN_USE: "in-use",
        layout.BITMAP_AUTO: "auto",
        layout.BITMAP_EXTRA_COMPATIBLE: "extra-data-compatible",
    }
    return BitmapInfo(
        name=bitmap.name.decode("utf-8", "surrogateescape"),
        granularity=1 << min(bitmap.entry.granularity_bits, 63),
        flags=tuple(name for bit, name in names.items() if bitmap.entry.flags & bit),
    )


def mark_in_use(area: HeaderArea, storage: Storage, *, is_resized: bool = False) -> None:
    """Say of the bitmaps that changes will be missing in them, durable when this returns.

    Args:
        area: of the image.
        storage: the image file.
        is_resized: of all bitmaps, since their length will be wrong; otherwise only of
            those that had to track changes.
    """
    was_changed = False
    for bitmap in directory(area, storage):
        entry = bitmap.entry
        concerned = is_resized or entry.flags & layout.BITMAP_AUTO
        if concerned and not entry.flags & layout.BITMAP_IN_USE:
            marked = entry.replace(flags=entry.flags | layout.BITMAP_IN_USE)
            storage.write(memoryview(marked.pack()), bitmap.offset)
            was_changed = True
    if was_changed:
        storage.flush()
