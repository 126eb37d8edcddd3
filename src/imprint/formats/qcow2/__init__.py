"""QCOW2: the format of QEMU, versions 2 and 3.

Read and written: cluster sizes from 512 bytes to 2 MiB, refcounts of 1 to 64 bits, zlib and
Zstandard compression, extended L2 entries (subclusters), backing files, external data files,
also raw ones, LUKS encryption (QEMU's older AES is only read). Listed and kept: internal
snapshots, persistent dirty bitmaps, unknown header extensions. Refused: unknown incompatible
features; changing an image that is marked dirty or corrupt; encryption together with
compression.

Source: QEMU ``docs/interop/qcow2.txt``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.formats import Match, Measure, Option, OptionKind, Support
from imprint.core.image import Image, WritableImage
from imprint.formats.qcow2 import crypto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Opener, Reference, Source, Storage, Target
    from imprint.core.events import Finding
    from imprint.core.formats import CreateSpec, SurveyTarget
    from imprint.core.info import SnapshotInfo
    from imprint.core.runs import Runs
    from imprint.formats.qcow2.stream import Survey

_MAGIC: Final = b"QFI\xfb"
_VERSION_QCOW1: Final = 1
"""Has the same magic and is another format."""

OPTIONS: Final = (
    Option(
        "compat",
        "version: 1.1 (v3), or 0.10 (v2) for programs from before 2012",
        default="1.1",
        choices=("0.10", "1.1", "v2", "v3"),
    ),
    Option(
        "cluster_size",
        "unit of allocation, 512 to 2M; 2M where --used and compression make an archive",
        kind=OptionKind.SIZE,
        default=65536,
        archive=2 << 20,
    ),
    Option(
        "refcount_bits",
        "width of a reference count",
        kind=OptionKind.NUMBER,
        default=16,
        choices=(1, 2, 4, 8, 16, 32, 64),
    ),
    Option(
        "lazy_refcounts",
        "let QEMU postpone updates of reference counts",
        kind=OptionKind.SWITCH,
        default=False,
    ),
    Option(
        "compression",
        "store clusters compressed",
        default="none",
        choices=("none", "zlib", "zstd"),
    ),
    Option(
        "level",
        "of the compression: zlib 0 to 9 (default 2), zstd 1 to 19 (default 3)",
        kind=OptionKind.NUMBER,
    ),
    Option(
        "compression_type",
        "codec that the image is prepared for, also if nothing is compressed now",
        choices=("zlib", "zstd"),
    ),
    Option(
        "extended_l2",
        "allocate by subclusters, a 32nd of a cluster; clusters of 16K and more",
        kind=OptionKind.SWITCH,
        default=False,
    ),
    Option("data_file", "name of a file that holds the data instead of the image"),
    Option(
        "data_file_raw",
        "keep the data file readable as a raw image",
        kind=OptionKind.SWITCH,
        default=False,
    ),
    Option("backing_fmt", "format of the backing file, as written into the image"),
    Option(
        "preallocation",
        "off; metadata: a place for every cluster; falloc, full: and room for it",
        default="off",
        choices=("off", "metadata", "falloc", "full"),
    ),
    *crypto.OPTIONS,
)


class Qcow2Format:
    """QEMU's native format."""

    name = "qcow2"
    title = "QEMU copy-on-write, version 2 and 3"
    support = Support(
        write=True,
        stream=True,
        edit=True,
        check=True,
        repair=True,
        parent=True,
        snapshots=True,
    )
    options = OPTIONS

    def probe(self, storage: Storage) -> Match:
        """By the magic; any version but QCOW's, so that a newer one is named and refused."""
        head = bytearray(min(8, storage.size))
        storage.readinto(memoryview(head), 0)
        version = int.from_bytes(head[4:8], "big")
        is_ours = head.startswith(_MAGIC) and version > _VERSION_QCOW1
        return Match.STRONG if is_ours else Match.NO

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading, backing files included; see ``Qcow2Layer.open``."""
        from imprint.formats.qcow2.layer import Qcow2Layer

        layer = Qcow2Layer.open(storage, opener)
        return Image(layer, name=storage.name, parent=layer.parent)

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Open for writing in place; see ``Qcow2Layer.open``."""
        from imprint.formats.qcow2.layer import Qcow2Layer

        layer = Qcow2Layer.open(storage, opener, writable=True)
        # An encrypted image is copied to through what encrypts, never by the system.
        target = layer.data if layer.is_encrypted else storage
        return WritableImage(layer, target, name=storage.name, parent=layer.parent)

    def create(self, storage: Storage, spec: CreateSpec) -> Target:
        """Lay out a new image; a compressing target if ``compression`` is asked for."""
        from imprint.formats.qcow2 import create

        return create.create(storage, spec)

    def resume(self, storage: Storage, spec: CreateSpec) -> Target:
        """Take up an unfinished image."""
        from imprint.formats.qcow2 import create

        return create.resume(storage, spec)

    def survey(self, spec: CreateSpec) -> Survey:
        """The first pass of a stream."""
        from imprint.formats.qcow2 import create, stream

        return stream.Survey(create.plan(spec))

    def stream(self, storage: Storage, spec: CreateSpec, survey: SurveyTarget) -> Target:
        """The second pass of a stream."""
        from imprint.formats.qcow2 import stream

        assert isinstance(survey, stream.Survey), "a survey of another format"
        return stream.StreamTarget(storage, survey)

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare refcounts with references; repair puts refcounts and flags right."""
        from imprint.formats.qcow2 import check

        return check.check(storage, repair=repair)

    def set_parent(self, storage: Storage, opener: Opener, parent: Reference | None) -> None:
        """Name another backing file, or none."""
        from imprint.formats.qcow2 import rebase

        rebase.set_parent(storage, parent)

    def open_snapshot(self, storage: Storage, opener: Opener, key: str) -> Image:
        """The disk as it was when the snapshot was taken."""
        from imprint.formats.qcow2 import header, snapshot_table, snapshots
        from imprint.formats.qcow2.layer import Qcow2Layer

        area = header.read(storage)
        found, _ = snapshot_table.read(area, storage)
        view = snapshots.find(found, key, storage.name).view(area)
        layer = Qcow2Layer.open(storage, opener, view=view)
        return Image(layer, name=storage.name, parent=layer.parent)

    def written(self, storage: Storage, name: str) -> Runs:
        """What a persistent dirty bitmap says."""
        from imprint.formats.qcow2 import dirty

        return dirty.written(storage, name)

    def create_snapshot(self, storage: Storage, opener: Opener, name: str) -> SnapshotInfo:
        """Keep the disk as it is now."""
        from imprint.formats.qcow2 import snapshots
        from imprint.formats.qcow2.layer import Qcow2Layer

        layer = Qcow2Layer.open(storage, opener, writable=True)
        return snapshots.create(layer, name).info(layer.area)

    def apply_snapshot(self, storage: Storage, opener: Opener, key: str) -> None:
        """Go back to a snapshot."""
        from imprint.formats.qcow2 import snapshots
        from imprint.formats.qcow2.layer import Qcow2Layer

        snapshots.apply(Qcow2Layer.open(storage, opener, writable=True), key)

    def delete_snapshot(self, storage: Storage, opener: Opener, key: str) -> None:
        """Forget a snapshot."""
        from imprint.formats.qcow2 import snapshots
        from imprint.formats.qcow2.layer import Qcow2Layer

        snapshots.delete(Qcow2Layer.open(storage, opener, writable=True), key)

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """As ``qemu-img measure`` does."""
        from imprint.formats.qcow2 import measure

        return measure.measure(source, spec)


FORMAT: Final = Qcow2Format()
