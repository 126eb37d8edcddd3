"""The disk: its parts one behind the other."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

from imprint.core.contracts import Traits
from imprint.core.info import ImageInfo
from imprint.formats.vmdk.layout import SECTOR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imprint.core.contracts import Storage
    from imprint.core.extent import Extent
    from imprint.core.info import Value
    from imprint.formats.vmdk.descriptor import Descriptor
    from imprint.formats.vmdk.parts import Part


class VmdkLayer:
    """A VMDK opened for reading; see :class:`~imprint.core.contracts.Layer`."""

    def __init__(
        self,
        storage: Storage,
        descriptor: Descriptor,
        parts: Sequence[Part],
        *,
        facts: Mapping[str, Value] | None = None,
        notes: tuple[str, ...] = (),
        is_embedded: bool = False,
    ) -> None:
        """Take over ``storage`` and those of the parts.

        Args:
            storage: of the descriptor.
            descriptor: what it says.
            parts: of the disk, in order; none is empty.
            facts: for :meth:`info`, behind those of the descriptor.
            notes: likewise.
            is_embedded: whether ``storage`` holds the disk's content too.
        """
        self._storage = storage
        self._descriptor = descriptor
        self._parts = list(parts)
        self._starts: list[int] = []
        self._size = 0
        self._facts = dict(facts or {})
        self._notes = notes
        self._is_embedded = is_embedded
        self.measure()

    @property
    def size(self) -> int:
        """Of all parts."""
        return self._size

    @property
    def traits(self) -> Traits:
        """The grain is the largest of all parts."""
        return Traits(grain=max((part.grain for part in self._parts), default=SECTOR))

    @property
    def descriptor(self) -> Descriptor:
        """As it is in the file, or will be after the next flush."""
        return self._descriptor

    def map(self, offset: int, length: int) -> Extent:
        """Where ``offset`` is, inside one part."""
        part, start = self._part(offset)
        inside = min(length, start + part.size - offset)
        return _moved(part.map(offset - start, inside), start)

    def unit(self, offset: int) -> Extent:
        """The encoded unit around ``offset``."""
        part, start = self._part(offset)
        return _moved(part.unit(offset - start), start)

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Produce the bytes of a unit."""
        part, start = self._part(unit.offset)
        part.decode(_moved(unit, -start), buffer)

    def info(self) -> ImageInfo:
        """What the descriptor says."""
        descriptor = self._descriptor
        settings = descriptor.settings
        options: dict[str, Value] = {"subformat": descriptor.create_type, "cid": descriptor.cid}
        for option, setting in (
            ("adapter_type", "ddb.adaptertype"),
            ("hwversion", "ddb.virtualhwversion"),
            ("toolsversion", "ddb.toolsversion"),
        ):
            if setting in settings:
                options[option] = settings[setting]
        options.update(self._facts)
        parent = settings.get("parentfilenamehint") if descriptor.has_parent else None
        if descriptor.has_parent:
            options["parent_cid"] = descriptor.parent_cid
        outside = [line.file for line in descriptor.extents if line.file]
        storages = (storage for part in self._parts for storage in part.storages)
        files = (storage.name for storage in storages if storage is not self._storage)
        return ImageInfo(
            "vmdk",
            self.size,
            options=options,
            parent=parent,
            parent_format="vmdk" if parent else None,
            data_file=None if self._is_embedded or not outside else outside[0],
            uuid=settings.get("ddb.uuid.image"),
            files=tuple(dict.fromkeys(files)),
            notes=self._notes,
        )

    def close(self) -> None:
        """Close all files."""
        for part in self._parts:
            for storage in part.storages:
                storage.close()
        self._storage.close()

    def _index(self, offset: int) -> int:
        """Of the part that ``offset`` is in."""
        return bisect_right(self._starts, offset) - 1

    def _part(self, offset: int) -> tuple[Part, int]:
        """That part, and where it begins."""
        index = self._index(offset)
        return self._parts[index], self._starts[index]

    def measure(self) -> None:
        """Note where the parts begin, after one of them has changed its size."""
        ends = list(accumulate(part.size for part in self._parts))
        self._starts = [0, *ends[:-1]]
        self._size = ends[-1] if ends else 0


def _moved(extent: Extent, by: int) -> Extent:
    return extent._replace(offset=extent.offset + by) if by else extent
