"""QED that we wrote, against qemu-img: the same disk, and nothing wrong with the tables."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imprint import formats
from imprint.core.contracts import Reference
from imprint.core.errors import CorruptImageError, RefusedError, UsageError
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.image import WritableImage
from imprint.core.units import GIB, KIB, MIB, TIB
from imprint.endpoints.gate import FolderGate
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import PendingFile
from imprint.testing import old_formats, oracles
from imprint.testing.disks import Write, random_writes, writes
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Storage

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

QED = formats.get("qed")
OPENER = DictOpener()
SIZE = 5 * MIB + 3 * 512
FEW = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def created(
    storage: Storage,
    size: int,
    options: dict[str, str] | None = None,
    *,
    parent: Path | None = None,
) -> WritableImage:
    """A new image of ours, not committed yet."""
    reference = source = None
    if parent is not None:
        reference = Reference(parent.name, "raw")
        source = formats.get("raw").open(FileStorage.open(parent), OPENER)
    values = parse_options("qed", QED.options, options or {})
    spec = CreateSpec(size, OPENER, values, parent=reference, parent_source=source)
    image = QED.create(storage, spec)
    assert isinstance(image, WritableImage)
    return image


def assert_equal(path: Path, disk: bytes) -> None:
    """qemu-img reads ``disk`` from the image, and finds nothing worse than free clusters.

    It calls them leaks: it never uses them again, as we do.
    """
    oracles.qemu_img("check", "-f", "qed", path, accept=(0, 3))
    assert oracles.content(path, "qed") == disk
    with QED.open(FileStorage.open(path), FolderGate()) as image:
        assert image.read_at(0, image.size) == disk


@FEW
@given(
    drawn=writes(SIZE, length_max=1 * MIB, with_zeros=True),
    cluster_size=st.sampled_from(["4K", "64K"]),
    table_size=st.sampled_from(["2", "4", "16"]),  # QEMU does not open images with 1
)
def test_qemu_reads_what_we_wrote(
    tmp_path: Path, drawn: list[Write], cluster_size: str, table_size: str
) -> None:
    """Fails if our tables are inconsistent, or the bytes differ."""
    path = tmp_path / "disk.qed"
    storage = PendingFile.create(path, may_replace=True)
    image = created(storage, SIZE, {"cluster_size": cluster_size, "table_size": table_size})
    oracles.write_all(image, drawn)
    image.commit()
    assert_equal(path, oracles.paint(SIZE, drawn))


def test_an_overlay_that_qemu_made_is_changed_and_resized(tmp_path: Path) -> None:
    """Fails if zeros show the backing file, or what QEMU wrote is lost."""
    base, path = tmp_path / "base.raw", tmp_path / "disk.qed"
    base.write_bytes(random.Random(1).randbytes(3 * MIB))
    oracles.create(path, 2 * MIB, "qed", backing=base, backing_format="raw")
    oracles.qemu_io(path, "qed", "write -P 2 512k 100k", "write -z 1M 128k")
    model = bytearray(oracles.content(path, "qed"))
    for seed in range(3):
        with QED.edit(FileStorage.open(path, writable=True), FolderGate()) as image:
            changes = random_writes(random.Random(seed), 2 * MIB, count=8)
            for offset, length, byte in changes:
                value = byte % 5
                if value:
                    image.write(memoryview(bytes([value]) * length), offset)
                else:
                    image.zero(offset, length)
                model[offset : offset + length] = bytes([value]) * length
            image.commit()
        assert_equal(path, bytes(model))
    for size in (4 * MIB, MIB + 512, 3 * MIB):
        with QED.edit(FileStorage.open(path, writable=True), FolderGate()) as image:
            image.resize(size)
            image.commit()
        del model[size:]
        model.extend(bytes(size - len(model)))
        assert_equal(path, bytes(model))


def test_an_overlay_of_ours_names_its_backing_file_to_qemu(tmp_path: Path) -> None:
    """Fails if the name, or that the format shall not be guessed, is not in the image."""
    base, path = tmp_path / "base.raw", tmp_path / "disk.qed"
    base.write_bytes(b"\x07" * MIB)
    image = created(PendingFile.create(path, may_replace=True), 2 * MIB, parent=base)
    image.write(memoryview(b"\x01" * 5000), 70_000)
    image.commit()
    facts = oracles.info(path, "qed")
    assert facts["backing-filename"] == "base.raw"
    assert facts["backing-filename-format"] == "raw"
    disk = b"\x07" * 70_000 + b"\x01" * 5000 + b"\x07" * (MIB - 75_000) + bytes(MIB)
    assert_equal(path, disk)


def test_tables_are_forgotten_when_there_are_many(tmp_path: Path) -> None:
    """Fails if a table is lost, or an old state of it is read, once memory is full."""
    path = tmp_path / "disk.qed"
    storage = PendingFile.create(path, may_replace=True)
    image = created(storage, 200 * GIB, {"table_size": "16"})
    reach = 64 * KIB * 64 * KIB * 16 // 8
    starts = [number * reach + number * 64 * KIB for number in range(200 * GIB // reach)]
    assert len(starts) * MIB > 16 * MIB  # of tables
    for step in range(2):
        for number, start in enumerate(starts):
            image.write(memoryview(bytes([number + 1 + step]) * 512), start)
        for number, start in enumerate(starts):
            assert image.read_at(start, 512) == bytes([number + 1 + step]) * 512
    image.commit()
    oracles.check(path, "qed")
    reads = [f"read -P {number + 2} {start} 512" for number, start in enumerate(starts)]
    assert "failed" not in oracles.qemu_io(path, "qed", *reads, writable=False)


@pytest.mark.parametrize(
    ("size", "options"),
    [
        (MIB, {"cluster_size": "5000"}),
        (MIB, {"cluster_size": "2K"}),
        (MIB, {"cluster_size": "128M"}),
        (MIB, {"cluster_size": "4M", "table_size": "8"}),
        (MIB, {"table_size": "3"}),
        (2 * GIB, {"cluster_size": "4K", "table_size": "1"}),
        (1 << 61, {}),
        (65 * TIB, {}),
    ],
)
def test_what_the_format_cannot_hold_is_refused(size: int, options: dict[str, str]) -> None:
    """Fails if an image is begun that QED's tables cannot name."""
    with pytest.raises(UsageError):
        created(MemoryStorage(), size, options)


def test_an_image_that_is_not_sound_is_not_written() -> None:
    """Fails if writing makes damage worse: a shared cluster, a mark of another program."""
    content = bytearray(old_formats.qed(b"\x01" * 12288))
    content[8192:8200] = content[8200:8208]
    with pytest.raises(CorruptImageError, match="cluster 1 of the disk"):
        QED.edit(MemoryStorage(bytes(content)), OPENER)
    content = bytearray(old_formats.qed(b"\x01" * 12288))
    content[16] |= 2
    with pytest.raises(RefusedError, match="not closed properly"):
        QED.edit(MemoryStorage(bytes(content)), OPENER)
    content[16] ^= 2
    content[0x20] = 1  # autoclear: whoever writes takes it away
    storage = MemoryStorage(bytes(content))
    QED.edit(storage, OPENER).close()
    assert storage.content[0x20] == 0
