"""Targets: the formats that are only read; seeds are made by their descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint import formats
from imprint.core.units import KIB
from imprint.formats import bochs, cloop
from imprint.formats.asif import layout as asif
from imprint.formats.chd import hunkmap
from imprint.formats.chd import layout as chd
from imprint.formats.qcow import layout as qcow
from imprint.formats.qed import layout as qed
from imprint.storage.memory import MemoryStorage
from imprint.testing import asif_image, old_chd, old_formats
from imprint.testing.fuzzing.images import BASE, image_target, small_disk
from imprint.testing.fuzzing.target import Place, Target

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHD_PLACES: Final = (
    Place(chd.HeaderV5, b"MComprHD\0\0\0\x7c"),
    Place(chd.HeaderV4, b"MComprHD\0\0\0\x6c"),
    Place(chd.HeaderV3, b"MComprHD\0\0\0\x78"),
    Place(chd.HeaderV1, b"MComprHD\0\0\0\x4c"),
    Place(chd.HeaderV1, b"MComprHD\0\0\0\x50"),
    Place(hunkmap.MapHeader, 124),
    Place(chd.MetadataHeader, b"GDDD"),
)
_CODECS: Final = (b"zlib", b"lzma", b"huff", b"flac", b"zstd", b"cdzl", b"GDDD", b"CHT2", bytes(4))


def targets() -> Iterator[Target]:
    """All of them."""
    disk = small_disk(64 * KIB)
    files = {BASE: disk}
    yield Target("detect", _marks, (detect,))
    yield image_target("qcow", _qcow_seeds, (Place(qcow.Header),), files=files)
    yield image_target("qed", _qed_seeds, (Place(qed.Header),), files=files)
    yield image_target("bochs", _bochs_seeds, (Place(bochs.Header),))
    yield image_target("cloop", lambda: [old_formats.cloop(disk)], (Place(cloop.Header),))
    yield image_target(
        "asif", _asif_seeds, (Place(asif.Header), Place(asif.MetadataHeader, b"meta"))
    )
    parent = {"base.chd": old_chd.old_chd(disk[: 32 * KIB], 4)}
    yield image_target("chd", _chd_seeds, _CHD_PLACES, files=parent, words=_CODECS)


def detect(content: bytes) -> None:
    """Ask all formats whether it is theirs."""
    storage = MemoryStorage(content, name="image", writable=False)
    for name in formats.names():
        formats.get(name).probe(storage)
    formats.detect(storage)


def _marks() -> list[bytes]:
    """Files that have no more of each format than what it is known by."""
    found = []
    for entry in formats.TABLE:
        for at, mark in entry.magic:
            content = bytearray(2048)
            content[at : at + len(mark) or None] = mark
            found.append(bytes(content))
    return found


def _qcow_seeds() -> list[bytes]:
    disk = small_disk()
    return [
        old_formats.qcow(disk),
        old_formats.qcow(disk, cluster_bits=12, l2_bits=9, compress=True),
        old_formats.qcow(disk, name=BASE),
    ]


def _qed_seeds() -> list[bytes]:
    disk = small_disk(64 * KIB)
    return [old_formats.qed(disk), old_formats.qed(disk, zeros=True, name=BASE)]


def _bochs_seeds() -> list[bytes]:
    disk = small_disk(64 * KIB)
    return [old_formats.bochs(disk), old_formats.bochs(disk, version=0x10000)]


def _asif_seeds() -> list[bytes]:
    disk = small_disk()
    return [asif_image.asif(disk), asif_image.asif(disk, partly=False)]


def _chd_seeds() -> list[bytes]:
    disk = small_disk(64 * KIB)
    return [
        old_formats.chd(disk),
        old_formats.chd(disk, compress=True),
        *(old_chd.old_chd(disk, version) for version in (1, 2, 3, 4)),
        old_chd.old_chd(disk, 4, parent=disk[: 32 * KIB]),
    ]
