"""Reading a bundle: sections of a disk, each with a chain of files. Only read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.contracts import Reference, Traits
from imprint.core.errors import CorruptImageError
from imprint.core.extent import Extent, Kind
from imprint.core.image import Image
from imprint.core.info import ImageInfo, SnapshotInfo
from imprint.formats.parallels.descriptor import ROOT, Descriptor, Section, read_descriptor
from imprint.formats.parallels.layer import ParallelsLayer, read_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Source, Storage

PROBE_BYTES: Final = 1024


class PlainLayer:
    """A file of the type "Plain": the section's bytes and nothing else."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def size(self) -> int:
        """Of the storage."""
        return self._storage.size

    @property
    def traits(self) -> Traits:
        """Of the storage."""
        return self._storage.traits

    def map(self, offset: int, length: int) -> Extent:
        """What the storage itself says; its holes are zeros, whatever lies below."""
        found = next(iter(self._storage.extents(offset, length)))
        return found._replace(kind=Kind.ZERO) if found.kind is Kind.HOLE else found

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def info(self) -> ImageInfo:
        """Only the size."""
        return ImageInfo("raw", self.size)

    def close(self) -> None:
        """Close the storage."""
        self._storage.close()


class BundleLayer:
    """The disk of a bundle; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(self, storage: Storage, descriptor: Descriptor, images: tuple[Image, ...]) -> None:
        """``images`` are those of the descriptor's sections."""
        self._storage = storage
        self._descriptor = descriptor
        self._images = images

    @property
    def size(self) -> int:
        """As the descriptor says."""
        return self._descriptor.size

    @property
    def traits(self) -> Traits:
        """Of the first section."""
        return self._images[0].traits

    def map(self, offset: int, length: int) -> Extent:
        """What the files of the section at ``offset`` say."""
        for section, image in zip(self._descriptor.sections, self._images, strict=True):
            if offset < section.end:
                within = offset - section.start
                length = min(length, section.end - offset)
                found = next(iter(image.extents(within, length)))
                return found._replace(offset=offset)
        raise AssertionError("sections cover the disk")

    def unit(self, offset: int) -> Extent:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Never asked: nothing is encoded."""
        raise NotImplementedError

    def info(self) -> ImageInfo:
        """What the descriptor says."""
        sections, chain = self._descriptor.sections, self._descriptor.chain
        snapshots = tuple(
            SnapshotInfo(id=guid, name=guid, size=self.size, time_s=0.0)
            for guid in reversed(chain[1:])
        )
        return ImageInfo(
            "parallels",
            self.size,
            options={
                "subformat": "bundle",
                "files": ", ".join(file.name for part in sections for file in part.files),
            },
            snapshots=snapshots,
            files=tuple(name for image in self._images for name in _names(image)),
        )

    def close(self) -> None:
        """Close the descriptor and all files."""
        for image in self._images:
            image.close()
        self._storage.close()


def _names(image: Source | None) -> Iterator[str]:
    """Of the files of a section, the topmost first."""
    while isinstance(image, Image):
        yield image.name
        image = image.parent


def is_descriptor(storage: Storage) -> bool:
    """Whether the storage begins like a bundle's descriptor."""
    head = bytearray(min(PROBE_BYTES, storage.size))
    storage.readinto(memoryview(head), 0)
    text = bytes(head).removeprefix(b"\xef\xbb\xbf").lstrip()
    return text.startswith(b"<") and f"<{ROOT}".encode() in text


def open_bundle(storage: Storage, opener: Opener) -> BundleLayer:
    """Read a descriptor and open the files that it names, all through the opener.

    Raises:
        CorruptImageError: if descriptor or files contradict each other.
        ReferenceRefusedError: if a file may not be opened, or is not there.
    """
    descriptor = read_descriptor(storage)
    images: list[Image] = []
    try:
        images.extend(_open_section(storage, each, opener) for each in descriptor.sections)
    except BaseException:
        for image in images:
            image.close()
        raise
    return BundleLayer(storage, descriptor, tuple(images))


def _open_section(storage: Storage, section: Section, opener: Opener) -> Image:
    """The chain of a section's files, the lowest one first."""
    parent: Image | None = None
    try:
        for file in reversed(section.files):
            reference = Reference(file.name, "raw" if file.is_plain else "parallels")
            data = opener.data_file(reference, storage)
            try:
                image = _open_file(data, is_plain=file.is_plain, parent=parent)
            except BaseException:
                data.close()
                raise
            parent = image
            if image.size < section.end - section.start:
                raise CorruptImageError(
                    f"expected {section.end - section.start} bytes of the disk in {file.name}, "
                    f"found {image.size}",
                    name=storage.name,
                )
    except BaseException:
        if parent is not None:
            parent.close()
        raise
    assert parent is not None
    return parent


def _open_file(data: Storage, *, is_plain: bool, parent: Image | None) -> Image:
    if is_plain:
        return Image(PlainLayer(data), name=data.name, parent=parent)
    return Image(ParallelsLayer(data, *read_image(data)), name=data.name, parent=parent)
