"""QCOW version 1, the format that QEMU had before QCOW2. Only read.

Read: plain and compressed clusters, backing files, encryption with AES. See
:mod:`imprint.formats.qcow.layout` for where the format is described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from imprint.core.contracts import Reference
from imprint.core.formats import Match, Support
from imprint.core.image import Image
from imprint.core.readonly import ReadOnlyFormat
from imprint.formats.qcow.layer import QcowLayer, decrypted
from imprint.formats.qcow.layout import CRYPT_AES, MAGIC, VERSION, backing_name, read_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Storage
    from imprint.core.events import Finding

_MARK: Final = MAGIC.to_bytes(4, "big") + VERSION.to_bytes(4, "big")


class QcowFormat(ReadOnlyFormat):
    """The format's line in the table; see :class:`~imprint.core.formats.Format`."""

    name = "qcow"
    title = "QEMU copy-on-write image, version 1"
    support: ClassVar = Support(check=True)

    def probe(self, storage: Storage) -> Match:
        """Magic and version: QCOW2 has the same magic."""
        head = bytearray(min(len(_MARK), storage.size))
        storage.readinto(memoryview(head), 0)
        return Match.STRONG if head == _MARK else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, with the backing file."""
        header = read_header(storage)
        backing = backing_name(storage, header)
        plain = decrypted(storage, opener) if header.crypt_method == CRYPT_AES else None
        layer = QcowLayer(storage, header, backing=backing, plain=plain)
        parent = None if backing is None else opener.parent(Reference(backing), storage)
        return Image(layer, name=storage.name, parent=parent)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare the tables with the file; nothing is repaired."""
        from imprint.formats.qcow.check import check  # not needed for anything else

        del opener, repair
        return check(storage)


FORMAT: Final = QcowFormat()
