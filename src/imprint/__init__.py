"""imprint: disk images, made, kept, opened, compared and put back.

>>> import imprint
>>> with imprint.open("disk.qcow2") as disk:
...     boot_sector = disk.read_at(0, 512)
...     used = sum(e.length for e in disk.extents(0, disk.size) if e.kind is imprint.Kind.DATA)
...     hostname = disk.filesystem("p1").read("/etc/hostname")

Everything below is typed and documented; what is not listed here may change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.version import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.errors import ImagingError as ImagingError
    from imprint.core.extent import Extent as Extent
    from imprint.core.extent import Kind as Kind
    from imprint.core.image import Image as Image
    from imprint.core.info import ImageInfo as ImageInfo
    from imprint.endpoints.opened import Disk as Disk

__version__: Final = VERSION

__all__ = ["Disk", "Extent", "Image", "ImageInfo", "ImagingError", "Kind", "__version__", "open"]

_HOMES: Final = {
    "Disk": "imprint.endpoints.opened",
    "ImagingError": "imprint.core.errors",
    "Extent": "imprint.core.extent",
    "Kind": "imprint.core.extent",
    "Image": "imprint.core.image",
    "ImageInfo": "imprint.core.info",
}


def open(  # noqa: A001 - ``imprint.open`` is what it should be called
    address: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the same word as in the command line
    snapshot: str | None = None,
    allow_parents: tuple[Path, ...] = (),
    passphrase: bytes | None = None,
    replay_journal: bool = False,
) -> Disk:
    """Open a disk image, a device, a URL or a disk in a repository for reading.

    Args:
        address: as on the command line: ``disk.vmdk``, ``/dev/sdb``, ``https://…``,
            ``repo:/srv/images::laptop``, also a file inside of a disk that is an image itself:
            ``disk.iso:/boot.img``.
        format: its format; ``None``: found by content.
        snapshot: name or id of an internal snapshot to read instead of the present state; of a
            disk in a repository, which one, as after ``@``.
        allow_parents: folders where backing files may live, besides the image's own.
        passphrase: unlocks an encrypted image or repository.
        replay_journal: tell the files of a file system that was not unmounted as its own mount
            would show them, with what is only in its journal. The disk's bytes stay as they are.

    Returns:
        The disk: thread-safe ``read_at``, ``readinto``, ``extents`` and ``info``, and its files
        by ``volumes`` and ``filesystem``; close it, or use it in a ``with`` statement.

    Raises:
        ImagingError: of the kind that says what is wrong; see :mod:`imprint.core.errors`.
    """
    from imprint.endpoints.open import Access, open_whole
    from imprint.endpoints.opened import Disk

    def answer(name: str) -> bytes:
        del name
        assert passphrase is not None
        return passphrase

    access = Access(
        format=format,
        snapshot=snapshot,
        allowed=allow_parents,
        passphrase=None if passphrase is None else answer,
        replay_journal=replay_journal,
    )
    image = open_whole(str(address), access)
    try:
        passphrases = access.gate().passphrase
        return Disk(image, passphrases, access.on_event, replays=replay_journal)
    except BaseException:
        image.close()
        raise


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: start-up is part of the product."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
