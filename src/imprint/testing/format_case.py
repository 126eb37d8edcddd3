"""What the parts of the format contract share: how images are made and opened."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from imprint import formats
from imprint.core.contracts import Order, Reference
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.image import Image, WritableImage
from imprint.core.units import KIB
from imprint.storage.memory import MemoryStorage
from imprint.testing.disks import fill
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.core.contracts import Opener, Source, Storage, Target
    from imprint.core.formats import Format


class FormatCase:
    """A format under test.

    Attributes:
        format_name: as in the table of formats.
        options: of ``create``, as the user would type them. Small units make tests quick
            and borders frequent.
        disk_size: of the disks that are made: at least seven units, and not a multiple of one.
        grows: whether an image that can be edited can also be enlarged.
        shrinks: whether it can be made smaller.
        frees_zeros: whether zeroing a whole unit takes it out of the image's data.
        has_parents: whether images with these options can have a parent.
        is_found: whether its images are recognised by their content.
    """

    format_name: ClassVar[str]
    options: ClassVar[Mapping[str, str]] = {}
    disk_size: ClassVar[int] = 200 * KIB + 3 * 512
    grows: ClassVar[bool] = True
    shrinks: ClassVar[bool] = True
    frees_zeros: ClassVar[bool] = True
    has_parents: ClassVar[bool] = True
    is_found: ClassVar[bool] = True

    @property
    def format(self) -> Format:
        """The format itself."""
        return formats.get(self.format_name)

    @property
    def suffix(self) -> str:
        """Of its files."""
        return next(e.suffixes[0] for e in formats.TABLE if e.name == self.format.name)

    def build(self, disk: bytes) -> bytes:
        """An image of ``disk``. Override this for a format that cannot be written."""
        storage = MemoryStorage(name="image" + self.suffix)
        target = self.create(storage, len(disk))
        fill(target, disk, step=max(64 * KIB, target.traits.grain))
        target.commit()
        return bytes(storage.content)

    def spec(
        self, size: int, *, parent: Reference | None = None, source: Source | None = None
    ) -> CreateSpec:
        """What a new image shall be."""
        options = parse_options(self.format.name, self.format.options, self.options)
        return CreateSpec(size, self.opener(), options, parent=parent, parent_source=source)

    def create(self, storage: Storage, size: int) -> Target:
        """A new, empty image."""
        self.need(self.format.support.write, "cannot be written")
        return self.format.create(storage, self.spec(size))

    def open(self, content: bytes | Storage) -> Image:
        """An image that was built, for reading."""
        return self.format.open(as_storage(content), self.opener())

    def edit(self, content: bytes | Storage) -> WritableImage:
        """The same for writing."""
        self.need(self.format.support.edit, "cannot be changed in place")
        return self.format.edit(as_storage(content), self.opener())

    def opener(self) -> Opener:
        """For images that stand alone."""
        return DictOpener()

    def writable(self, storage: Storage, size: int) -> WritableImage:
        """A new image that takes writes in any order, and can be read back."""
        target = self.create(storage, size)
        self.need(target.traits.order is Order.ANY, "takes ascending writes only")
        self.need(isinstance(target, WritableImage), "cannot be read while it is written")
        assert isinstance(target, WritableImage)
        return target

    def need(self, condition: object, why_not: str) -> None:
        """Skip the test unless the format can do what it is about."""
        if not condition:
            pytest.skip(f"{self.format.name} {why_not}")


def as_storage(content: bytes | Storage) -> Storage:
    """Bytes as a storage; a storage as it is."""
    if isinstance(content, bytes):
        return MemoryStorage(content, name="image")
    return content


def read_all(source: Source) -> bytes:
    """The whole disk."""
    buffer = bytearray(source.size)
    source.readinto(memoryview(buffer), 0)
    return bytes(buffer)


def write(target: Target, disk: bytearray, offset: int, length: int, byte: int) -> None:
    """Write, or zero for byte 0, in an image and in the model of its disk."""
    if byte:
        target.write(memoryview(bytes([byte]) * length), offset)
    else:
        target.zero(offset, length)
    disk[offset : offset + length] = bytes([byte]) * length
