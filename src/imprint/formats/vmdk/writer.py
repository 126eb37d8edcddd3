"""Writing a VMDK: its parts, and the descriptor that tells children that it has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import UnsupportedFeatureError
from imprint.formats.vmdk import split
from imprint.formats.vmdk.descriptor import FLAT_KINDS, check_size, new_cid
from imprint.formats.vmdk.layer import VmdkLayer
from imprint.formats.vmdk.layout import SECTOR, VERSION_STREAM
from imprint.formats.vmdk.parts import FlatPart
from imprint.formats.vmdk.sparse_writer import WritableSparsePart
from imprint.formats.vmdk.storing import store

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from imprint.core.contracts import Opener, Storage
    from imprint.core.extent import Extent
    from imprint.core.info import Value
    from imprint.formats.vmdk.descriptor import Descriptor, ExtentLine
    from imprint.formats.vmdk.opening import Found
    from imprint.formats.vmdk.parts import WritablePart


class WritableVmdkLayer(VmdkLayer):
    """A VMDK opened for writing; see :class:`~imprint.core.contracts.WritableLayer`."""

    def __init__(
        self,
        storage: Storage,
        descriptor: Descriptor,
        parts: Sequence[WritablePart],
        *,
        facts: Mapping[str, Value] | None = None,
        notes: tuple[str, ...] = (),
        is_embedded: bool = False,
        opener: Opener,
        is_fresh: bool = False,
    ) -> None:
        """``is_fresh``: it was just created, so that its CID is new already."""
        self._opener = opener
        super().__init__(
            storage, descriptor, parts, facts=facts, notes=notes, is_embedded=is_embedded
        )
        self._writable = list(parts)
        self._new_cid: str | None = None if is_fresh else new_cid()
        self._is_changed = False

    def place(self, offset: int, length: int) -> Extent | None:
        """Where bytes may be overwritten, inside one part."""
        part, start, inside = self._at(offset, length)
        found = part.place(offset - start, inside)
        return None if found is None else found._replace(offset=found.offset + start)

    def allocate(self, offset: int, length: int) -> Extent:
        """Room in one part."""
        part, start, inside = self._at(offset, length)
        found = part.allocate(offset - start, inside)
        return found._replace(offset=found.offset + start)

    def link(self, extent: Extent) -> None:
        """Hand it to its part."""
        part, start, _ = self._at(extent.offset, extent.length)
        part.link(extent._replace(offset=extent.offset - start))

    def zero(self, offset: int, length: int) -> None:
        """Part by part."""
        end = offset + length
        while offset < end:
            part, start, inside = self._at(offset, end - offset)
            part.zero(offset - start, inside)
            offset += inside

    def resize(self, size: int) -> None:
        """Change the disk's size; what is new reads as zeros.

        Raises:
            UnsupportedFeatureError: if the disk is in several files of other sizes than 2 GiB.
            UsageError: if a VMDK cannot have that size.
        """
        check_size(size)
        self.flush()
        if split.is_split(self._descriptor) and self._descriptor.text:
            if size < self.size:
                split.shrink(self, self._opener, split.base_of(self._storage), size)
            elif size > self.size:
                split.grow(self, self._opener, size)
            return
        if len(self._writable) != 1:
            raise UnsupportedFeatureError(
                "a disk in several extents cannot be resized", name=self._storage.name
            )
        part = self._writable[0]
        if isinstance(part, FlatPart) and size < self.size:
            # The descriptor first: it must never promise more than the file has.
            self._describe(size)
        if isinstance(part, FlatPart) and size > self.size:
            split.claim(part, next(line for line in self._descriptor.extents if line.sectors))
        part.resize(size)
        if isinstance(part, FlatPart):
            self._describe(size)
            part.trim()
        else:
            self.measure()
            self._describe(size)

    def flush(self) -> None:
        """Write back what has changed: a new CID, then each part in its order."""
        if self._is_changed and self._new_cid is not None:
            if self._descriptor.text:
                changed = self._descriptor.with_setting("CID", self._new_cid)
                self._store(changed)
            self._new_cid = None
        for part in self._writable:
            part.flush()
        if all(self._storage not in part.storages for part in self._writable):
            self._storage.flush()

    @property
    def storage(self) -> Storage:
        """The descriptor's, for :mod:`~imprint.formats.vmdk.split`, as all that follows."""
        return self._storage

    @property
    def parts(self) -> Sequence[WritablePart]:
        """Of the disk, in order."""
        return self._writable

    def describe(self, lines: Sequence[ExtentLine], parts: Sequence[WritablePart]) -> None:
        """From now on, durably, the disk is made of these."""
        self._store(self._descriptor.with_extents(lines))
        self._storage.flush()
        self._writable[:] = parts
        self._parts[:] = parts

    def _describe(self, size: int) -> None:
        """Write the size into the descriptor, durably."""
        self.measure()
        lines = self._descriptor.extents
        index = next((at for at, line in enumerate(lines) if line.sectors), 0)
        if not lines or lines[index].sectors * SECTOR == size or not self._descriptor.text:
            return
        self._store(self._descriptor.with_sectors(index, size // SECTOR))
        self._storage.flush()

    def _store(self, descriptor: Descriptor) -> None:
        owners = (part for part in self._writable if self._storage in part.storages)
        owner = next(owners, None)
        if isinstance(owner, WritableSparsePart):
            store(self._storage, descriptor, owner, used=owner.slots.end)
        else:
            store(self._storage, descriptor)
        self._descriptor = descriptor

    def _at(self, offset: int, length: int) -> tuple[WritablePart, int, int]:
        """The part at ``offset``, where it begins, and how much of the range is in it."""
        self._is_changed = True
        index = self._index(offset)
        part, start = self._writable[index], self._starts[index]
        return part, start, min(length, start + part.size - offset)


def edit_layer(found: Found, opener: Opener, *, is_fresh: bool = False) -> WritableVmdkLayer:
    """Make what was found writable.

    Raises:
        CorruptImageError: if grains share a place, or are not in their file.
        UnsupportedFeatureError: for compressed extents, and those that may only be read.
    """
    has_parent = found.descriptor.has_parent
    parts: list[WritablePart] = []
    for number, (line, storage, sparse) in enumerate(found.lines):
        why = ""
        if line.access != "RW":
            why = f"may not be written ({line.access})"
        elif line.kind in FLAT_KINDS and storage is not None:
            parts.append(FlatPart(storage, line.sectors * SECTOR, line.offset * SECTOR))
            continue
        elif sparse is None or sparse.header is None or storage is None:
            why = f"of the kind {line.kind} can only be read"
        elif sparse.geometry.is_compressed or sparse.header.version == VERSION_STREAM:
            why = "is compressed, and can only be read"
        if why:
            raise UnsupportedFeatureError(
                f"extent {number} {why}",
                name=found.storage.name,
                advice="convert it into a new image",
            )
        assert sparse is not None
        assert storage is not None
        size = line.sectors * SECTOR
        parts.append(
            WritableSparsePart(storage, sparse, size, has_parent=has_parent, is_fresh=is_fresh)
        )
    grain = max((part.grain for part in parts), default=SECTOR)
    if any(part.size % grain for part in parts[:-1]):
        raise UnsupportedFeatureError(
            f"expected extents of whole grains of {grain} bytes", name=found.storage.name
        )
    return WritableVmdkLayer(
        found.storage,
        found.descriptor,
        parts,
        facts=found.facts,
        notes=found.notes,
        is_embedded=found.own is not None,
        opener=opener,
        is_fresh=is_fresh,
    )
