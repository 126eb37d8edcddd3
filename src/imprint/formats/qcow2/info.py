"""What can be said of an image without reading its data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.info import ImageInfo
from imprint.formats.qcow2 import bitmaps, crypto, layout, snapshot_table

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.core.info import Value
    from imprint.formats.qcow2.header import HeaderArea


def describe(area: HeaderArea, storage: Storage) -> ImageInfo:
    """Facts from the header, the snapshot table and the bitmap directory.

    Raises:
        CorruptImageError: if one of them is damaged.
    """
    header = area.header
    backing = area.backing_name
    snapshots, _ = snapshot_table.read(area, storage)
    encryption = {layout.CRYPT_AES: "aes", layout.CRYPT_LUKS: "luks"}.get(header.crypt_method)
    return ImageInfo(
        format="qcow2",
        size=header.size,
        options=_options(area) | crypto.describe(area, storage),
        parent=None if backing is None else backing.decode("utf-8", "surrogateescape"),
        parent_format=area.backing_format if backing is not None else None,
        data_file=area.data_file_name if area.has_data_file else None,
        encryption=encryption,
        snapshots=tuple(snapshot.info(area) for snapshot in snapshots),
        bitmaps=tuple(bitmaps.describe(found) for found in bitmaps.directory(area, storage)),
        features=tuple(area.feature_names()),
        notes=tuple(_notes(area)),
    )


def _options(area: HeaderArea) -> dict[str, Value]:
    header = area.header
    options: dict[str, Value] = {
        "compat": "0.10" if header.version == 2 else "1.1",
        "cluster_size": area.cluster_size,
        "refcount_bits": area.refcount_bits,
        "compression_type": layout.COMPRESSION_NAMES[header.compression_type],
        "lazy_refcounts": bool(header.compatible_features & layout.COMPATIBLE_LAZY_REFCOUNTS),
        "extended_l2": area.is_extended,
    }
    if area.has_data_file:
        options["data_file_raw"] = area.is_data_file_raw
    return options


def _notes(area: HeaderArea) -> list[str]:
    header, notes = area.header, []
    if header.incompatible_features & layout.INCOMPATIBLE_DIRTY:
        notes.append("The image was not closed properly: its refcounts may be wrong.")
    if header.crypt_method == layout.CRYPT_AES:
        notes.append("Encrypted with QEMU's old AES: a wrong passphrase gives random bytes.")
    if header.incompatible_features & layout.INCOMPATIBLE_CORRUPT:
        notes.append("The image is marked corrupt.")
    if area.backing_name is not None and area.backing_format is None:
        notes.append("The image does not say what format its backing file is in.")
    has_bitmaps = area.extension(layout.EXTENSION_BITMAPS) is not None
    if has_bitmaps and not header.autoclear_features & layout.AUTOCLEAR_BITMAPS:
        notes.append("Dirty bitmaps are there, but a program that does not know them wrote since.")
    return notes
