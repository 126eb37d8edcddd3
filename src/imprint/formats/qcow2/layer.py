"""Where the bytes of a QCOW2 disk are, and where new ones go."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from imprint.core.contracts import Reference, Traits
from imprint.core.errors import (
    CorruptImageError,
    RefusedError,
    TruncatedImageError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.units import div_up
from imprint.formats.qcow2 import compressed, crypto, entries, header, layout
from imprint.formats.qcow2.mapping import L1View, Mapping

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source, Storage
    from imprint.core.info import ImageInfo
    from imprint.formats.qcow2.header import HeaderArea
    from imprint.formats.qcow2.writer import Writer


class Qcow2Layer:
    """A QCOW2 image, its active disk or that of a snapshot.

    Thread-safe: one lock guards the tables; data is read and decoded outside of it.

    Attributes:
        area: cluster 0 as it is in the file.
        storage: the image file.
        data: where guest clusters are: the image file, a view that decrypts it, or the
            external data file.
        parent: what unallocated clusters read from.
        is_encrypted: whether ``data`` is such a view.
        mapping: the L1 and L2 tables. Hold ``lock`` while using it.
        lock: guards the tables.
    """

    def __init__(
        self,
        storage: Storage,
        area: HeaderArea,
        *,
        data: Storage,
        parent: Source | None = None,
        view: L1View | None = None,
    ) -> None:
        """Use :meth:`open`."""
        view = L1View.active(area) if view is None else view
        self.storage = storage
        self.data = data
        self.area = area
        self.parent = parent
        self.lock = threading.RLock()
        self.mapping = Mapping(storage, area, view)
        self.disk_size = view.disk_size
        self._cluster_bits = area.header.cluster_bits
        self._cluster_size = area.cluster_size
        self._grain = area.grain
        self._is_extended = area.is_extended
        self._has_data_file = area.has_data_file
        self._is_aes = area.header.crypt_method == layout.CRYPT_AES
        self.is_encrypted = area.header.crypt_method != layout.CRYPT_NONE
        self._writer: Writer | None = None

    @classmethod
    def open(
        cls,
        storage: Storage,
        opener: Opener,
        *,
        writable: bool = False,
        view: L1View | None = None,
        parent: Source | None = None,
    ) -> Self:
        """Open the image, its data file and its backing file.

        Args:
            storage: the image; the layer owns it from now on, but not if this fails.
            opener: the gate to the other files.
            writable: prepare for changes.
            view: which L1 table to look through; ``None`` is the active one.
            parent: the backing file, if it is open already.

        Raises:
            FormatError: if the image is damaged.
            UnsupportedFeatureError: if it needs what imprint cannot do.
            RefusedError: if ``writable``, and it must not be changed as it is.
        """
        area = header.read(storage)
        if writable:
            _check_writable(area, storage.name)
        view = L1View.active(area) if view is None else view
        _check_view(area, view, storage)
        data = storage
        if area.has_data_file:
            if area.data_file_name is None:
                raise CorruptImageError(
                    "expected the name of the external data file, found none",
                    name=storage.name,
                )
            data = opener.data_file(Reference(area.data_file_name, "raw"), storage)
        try:
            data = crypto.open_data(area, storage, data, opener, writable=writable)
            layer = cls(storage, area, data=data, view=view)
            if writable:
                layer.make_writable()
            layer.parent = open_parent(area, storage, opener) if parent is None else parent
        except BaseException:
            if area.has_data_file:
                data.close()
            raise
        return layer

    @property
    def size(self) -> int:
        """Of the disk."""
        return self.disk_size

    @property
    def traits(self) -> Traits:
        """The grain is a cluster, or a subcluster where entries are extended."""
        return Traits(grain=self._grain)

    def map(self, offset: int, length: int) -> Extent:
        """What is at ``offset``; runs end with the slice of the L2 table that was looked at."""
        cluster, within = divmod(offset, self._cluster_size)
        with self.lock:
            found = self.mapping.find(cluster)
            if found is None:
                count = self.mapping.hole(cluster, div_up(within + length, self._cluster_size))
                size = min(length, count * self._cluster_size - within)
                return Extent(offset, size, Kind.HOLE)
            try:
                if self._is_extended:
                    sub, inner = divmod(within, self._grain)
                    limit = min(
                        div_up(inner + length, self._grain),
                        found.left * layout.SUBCLUSTERS - sub,
                    )
                    run = entries.extended_run(
                        found.table, found.at, sub, limit, self._cluster_size
                    )
                else:
                    inner = within
                    limit = min(div_up(within + length, self._cluster_size), found.left)
                    run = entries.standard_run(found.table, found.at, limit, self._cluster_size)
            except CorruptImageError as failure:
                raise self._located(failure, offset) from failure
        size = min(length, run.grains * self._grain - inner)
        if run.kind is Kind.DATA:
            return self._data_extent(offset, size, run.host + inner)
        if run.kind is Kind.ENCODED:
            return self._encoded_extent(offset, size, found.table[found.at * self.mapping.words])
        self._check_zero(run.kind, offset)
        return Extent(offset, size, run.kind)

    def unit(self, offset: int) -> Extent:
        """The compressed cluster around ``offset``."""
        start = offset - offset % self._cluster_size
        size = min(self._cluster_size, self.disk_size - start)
        return self._encoded_extent(start, size, self._entry(start))

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        """Decompress a cluster."""
        compression_type = self.area.header.compression_type
        entry = self._entry(unit.offset)
        compressed.decode(self.storage, entry, self._cluster_bits, compression_type, buffer)

    def info(self) -> ImageInfo:
        """Facts from the header, the snapshot table and the bitmap directory."""
        from imprint.formats.qcow2 import info

        found = info.describe(self.area, self.storage)
        return replace(found, files=(self.data.name,)) if self._has_data_file else found

    def close(self) -> None:
        """Close the image file and the external data file."""
        self.data.close()
        self.storage.close()

    def make_writable(self) -> Writer:
        """Read what is needed for changes, once; changes nothing yet."""
        if self._writer is None:
            from imprint.formats.qcow2.refcounts import Refcounts
            from imprint.formats.qcow2.writer import Writer

            self._writer = Writer(self, Refcounts.open(self.storage, self.area))
        return self._writer

    def use_writer(self, writer: Writer) -> None:
        """Write through ``writer``, which knows the refcounts of a new image."""
        self._writer = writer

    @property
    def writer(self) -> Writer:
        """What changes the tables; only of a layer that was opened for writing."""
        assert self._writer is not None, "the layer was opened for reading only"
        return self._writer

    def place(self, offset: int, length: int) -> Extent | None:
        """Where ``offset`` may be overwritten in place."""
        with self.lock:
            return self.writer.place(offset, length)

    def allocate(self, offset: int, length: int) -> Extent:
        """Reserve clusters, or those that were reserved when the image was made."""
        with self.lock:
            return self.writer.allocate(offset, length)

    def link(self, extent: Extent) -> None:
        """Enter what was allocated into the L2 tables."""
        with self.lock:
            self.writer.link(extent)

    def zero(self, offset: int, length: int) -> None:
        """Give up clusters."""
        with self.lock:
            self.writer.zero(offset, length)

    def resize(self, size: int) -> None:
        """Change the disk's size, and flush."""
        from imprint.formats.qcow2 import resize

        with self.lock:
            resize.resize(self, size)

    def flush(self) -> None:
        """Write back tables, in an order that any crash leaves a sound image."""
        with self.lock:
            self.writer.flush()

    def _entry(self, offset: int) -> int:
        with self.lock:
            found = self.mapping.find(offset // self._cluster_size)
            entry = found.table[found.at * self.mapping.words] if found else 0
        if not entry & layout.COMPRESSED:
            raise self._located(CorruptImageError("expected a compressed cluster"), offset)
        return entry

    def _encoded_extent(self, offset: int, length: int, entry: int) -> Extent:
        if self._has_data_file:
            raise self._located(
                CorruptImageError("expected no compressed cluster beside a data file"), offset
            )
        position, _ = compressed.unpack_descriptor(entry, self._cluster_bits)
        return Extent(offset, length, Kind.ENCODED, self.storage, position)

    def _data_extent(self, offset: int, length: int, host: int) -> Extent:
        within = offset % self._cluster_size
        if self._has_data_file and host != offset:
            raise self._located(
                CorruptImageError(
                    f"data cluster: expected it at the same offset, found 0x{host:x}"
                ),
                offset,
            )
        if host == within and not self._has_data_file:
            raise self._located(CorruptImageError("data cluster: found it on the header"), offset)
        end = self.data.size
        if host + length > end:
            if host - within >= end:
                raise TruncatedImageError(
                    f"cluster at 0x{host - within:x}: expected it inside the file's 0x{end:x}",
                    name=self.data.name,
                    offset=host,
                    length=length,
                )
            # Some writers do not fill up the last cluster of the file; QEMU reads zeros there.
            # Encrypted clusters are always whole: their end is not zeros, but gone.
            if not self.is_encrypted:
                if host >= end:
                    return Extent(offset, min(length, self._cluster_size - within), Kind.ZERO)
                length = end - host
        data = crypto.at_guest_offset(self.data, offset, host) if self._is_aes else self.data
        return Extent(offset, length, Kind.DATA, data, host)

    def _check_zero(self, kind: Kind, offset: int) -> None:
        if kind is Kind.ZERO and self.area.header.version == 2:
            raise self._located(
                CorruptImageError("L2 entry: expected bit 0 to be clear in version 2"), offset
            )

    def _located(self, failure: CorruptImageError, offset: int) -> CorruptImageError:
        """The same, with the image's name and the place on the disk."""
        return CorruptImageError(
            f"disk offset 0x{offset:x}: {failure}", name=self.storage.name, offset=offset
        )


def open_parent(area: HeaderArea, storage: Storage, opener: Opener) -> Source | None:
    """The backing file, if there is one.

    Raises:
        ReferenceRefusedError: if it may not be opened, or is not there.
    """
    if area.backing_name is None:
        return None
    name = area.backing_name.decode("utf-8", "surrogateescape")
    return opener.parent(Reference(name, area.backing_format), storage)


def _check_writable(area: HeaderArea, name: str) -> None:
    """Refuse to change what would be damaged further, or what only a repair can handle."""
    features = area.header.incompatible_features
    if features & layout.INCOMPATIBLE_CORRUPT:
        raise RefusedError(
            "is marked corrupt and must not be written to",
            name=name,
            advice="imprint check --repair may restore it",
        )
    if features & layout.INCOMPATIBLE_DIRTY:
        raise RefusedError(
            "was not closed properly, so that its refcounts may be wrong",
            name=name,
            advice="imprint check --repair rebuilds them",
        )


def _check_view(area: HeaderArea, view: L1View, storage: Storage) -> None:
    """Refuse an L1 table that is out of bounds; of the header's this is known."""
    length = view.entries * 8
    if not (
        area.l1_entries_for(view.disk_size) <= view.entries
        and length <= layout.L1_BYTES_MAX
        and view.offset % area.cluster_size == 0
        and view.offset + length <= storage.size
    ):
        raise CorruptImageError(
            f"L1 table at 0x{view.offset:x}: expected room for a disk of {view.disk_size} bytes "
            f"inside the file, found {view.entries} entries",
            name=storage.name,
            offset=view.offset,
            length=length,
        )
