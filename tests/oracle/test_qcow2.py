"""QCOW2 against qemu-img: both must see the same disk, and the same map of it."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.contracts import Reference
from imprint.core.extent import Kind
from imprint.core.formats import CreateSpec, parse_options
from imprint.formats.qcow2 import FORMAT
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.storage.pending import PendingFile
from imprint.testing import oracles
from imprint.testing.disks import SECTOR_BYTES, Write, writes
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imprint.core.contracts import Source, Storage
    from imprint.core.image import Image, WritableImage

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

MIB = 1 << 20
DISK = 3 * MIB + 7 * SECTOR_BYTES

Shape = dict[str, str]


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Options of an image, as qemu-img and imprint both know them."""
    bits = draw(st.integers(9, 21))
    if bits > 9 and draw(st.integers(0, 4)) == 0:
        return {"compat": "0.10", "cluster_size": str(1 << bits)}
    return {
        "compat": "1.1",
        "cluster_size": str(1 << bits),
        "refcount_bits": str(1 << draw(st.integers(0, 6))),
        "extended_l2": "on" if bits >= 14 and draw(st.booleans()) else "off",
        "compression_type": draw(st.sampled_from(("zlib", "zstd"))),
        "lazy_refcounts": draw(st.sampled_from(("on", "off"))),
    }


def qemu_commands(data: st.DataObject, shape: Shape, disk: bytearray) -> list[str]:
    """Writes for qemu-io, done to ``disk`` as well: compressed ones, then plain and zero ones."""
    draw = data.draw
    commands = []
    cluster = int(shape["cluster_size"])
    # qemu 7.2 itself damages images with smaller clusters, and when it compresses a cluster
    # after another compressed one has been overwritten.
    if 4096 <= cluster <= len(disk):
        numbers = st.integers(0, len(disk) // cluster - 1)
        for number in draw(st.sets(numbers, max_size=5)):
            byte, start = draw(st.integers(0, 255)), number * cluster
            commands.append(f"write -c -P {byte} {start} {cluster}")
            disk[start : start + cluster] = bytes([byte]) * cluster
    for offset, length, value in draw(writes(len(disk), grain=SECTOR_BYTES, with_zeros=True)):
        flag = draw(st.sampled_from(("", "", "-z", "-zu")))
        byte = 0 if flag else value
        commands.append(f"write {flag or f'-P {byte}'} {offset} {length}")
        disk[offset : offset + length] = bytes([byte]) * length
    return commands


def opener(folder: Path) -> DictOpener:
    """All files of a folder, by name and by path."""
    files = {path.name: FileStorage.open(path) for path in folder.iterdir() if path.is_file()}
    return DictOpener(files={**files, **{str(folder / name): files[name] for name in files}})


def open_image(path: Path) -> Image:
    return FORMAT.open(FileStorage.open(path), opener(path.parent))


def read_all(source: Source) -> bytes:
    buffer = bytearray(source.size)
    source.readinto(memoryview(buffer), 0)
    return bytes(buffer)


Runs = list[tuple[int, int, str, int | None]]


def our_runs(image: Image) -> Runs:
    """What the image itself says, as :func:`qemu_runs`."""
    names = {Kind.DATA: "data", Kind.ENCODED: "encoded", Kind.ZERO: "zero", Kind.HOLE: "hole"}
    return joined(
        (
            extent.offset,
            extent.length,
            names[extent.kind],
            extent.storage_offset if extent.kind is Kind.DATA else None,
        )
        for extent in image.own_extents(0, image.size)
    )


def qemu_runs(path: Path) -> Runs:
    """``qemu-img map`` of an image without a backing file."""
    found = []
    for run in oracles.image_map(path, "qcow2"):
        kind = "zero" if run.is_present else "hole"
        offset = None
        if run.is_data:
            kind = "encoded" if run.storage_offset is None else "data"
            offset = run.storage_offset
        found.append((run.offset, run.length, kind, offset))
    return joined(found)


def joined(runs: Any) -> Runs:  # noqa: ANN401 - any iterable of runs
    result: Runs = []
    for offset, length, kind, place in runs:
        if result:
            start, before, last, old = result[-1]
            follows = place is None or (old is not None and old + before == place)
            if last == kind and follows:
                result[-1] = (start, before + length, kind, old)
                continue
        result.append((offset, length, kind, place))
    return result


def make(storage: Storage, size: int, options: Mapping[str, str], **more: Any) -> Any:  # noqa: ANN401
    """A new image of ours; returns what ``create`` gives."""
    values = parse_options("qcow2", FORMAT.options, options)
    spec = CreateSpec(size, more.pop("opener", DictOpener()), values, **more)
    return FORMAT.create(storage, spec)


def pending(path: Path) -> Any:  # noqa: ANN401 - a storage
    """A file that appears when the image is committed."""
    return PendingFile.create(path, may_replace=False)


@contextlib.contextmanager
def edit(path: Path, gate: DictOpener | None = None) -> Iterator[WritableImage]:
    """Change an image in memory, and put it back: waiting for the disk proves nothing here."""
    storage = MemoryStorage(path.read_bytes(), name=str(path))
    with FORMAT.edit(storage, gate or DictOpener()) as image:
        yield image
        image.flush()
    path.write_bytes(storage.content)


@given(data=st.data())
def test_we_read_what_qemu_wrote(data: st.DataObject) -> None:
    """Fails if any cluster lands at the wrong offset, or our map is not qemu's."""
    shape = data.draw(shapes())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "disk.qcow2")
        oracles.create(path, DISK, "qcow2", options=shape)
        disk = bytearray(DISK)
        commands = qemu_commands(data, shape, disk)
        oracles.qemu_io(path, "qcow2", *commands)
        with open_image(path) as image:
            assert read_all(image) == disk
            assert our_runs(image) == qemu_runs(path)


@given(data=st.data())
def test_qemu_reads_what_we_wrote(data: st.DataObject) -> None:
    """Fails if our tables are inconsistent, or if the bytes differ."""
    shape = data.draw(shapes())
    codec = shape.get("compression_type", "zlib")
    shape["compression"] = data.draw(st.sampled_from(("none", codec)))
    if shape["compression"] == "none":
        choices = ("off", "off", "metadata", "falloc", "full")
        shape["preallocation"] = data.draw(st.sampled_from(choices))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "disk.qcow2")
        storage = MemoryStorage()
        target = make(storage, DISK, shape)
        disk = bytearray(DISK)
        for write in data.draw(writes(DISK, with_zeros=True)):
            apply(target, disk, write)
        target.commit()
        path.write_bytes(storage.content)
        assert_qemu_agrees(path, disk)


@given(data=st.data())
def test_qemu_reads_what_we_changed_in_its_image(data: st.DataObject) -> None:
    """Fails if an edit in place breaks a table, a neighbour or an internal snapshot."""
    shape = data.draw(shapes())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "disk.qcow2")
        oracles.create(path, DISK, "qcow2", options=shape)
        disk = bytearray(DISK)
        oracles.qemu_io(path, "qcow2", *qemu_commands(data, shape, disk))
        kept = bytes(disk)
        has_snapshot = shape.get("refcount_bits") not in ("1", "2") and data.draw(st.booleans())
        if has_snapshot:
            oracles.qemu_img("snapshot", "-c", "before", path)
        with edit(path) as image:
            for write in data.draw(writes(DISK, with_zeros=True)):
                apply(image, disk, write)
                if data.draw(st.integers(0, 3)) == 0:
                    image.flush()
            assert read_all(image) == disk
        assert_qemu_agrees(path, disk)
        if has_snapshot:
            oracles.qemu_img("snapshot", "-a", "before", path)
            assert_qemu_agrees(path, kept)


@given(data=st.data())
def test_an_overlay_reads_through_to_its_backing_file(data: st.DataObject) -> None:
    """Fails if an overlay shows the wrong bytes, larger or smaller than what is below it."""
    shape = data.draw(shapes())
    size = data.draw(st.sampled_from((DISK, DISK // 2 // 512 * 512, 2 * DISK)))
    with tempfile.TemporaryDirectory() as folder:
        base, path = Path(folder, "base.raw"), Path(folder, "disk.qcow2")
        base_disk = oracles.paint(DISK, data.draw(writes(DISK, length_max=DISK)))
        base.write_bytes(base_disk)
        oracles.create(path, size, "qcow2", options=shape, backing=base)
        disk = bytearray(base_disk[:size].ljust(size, b"\0"))
        oracles.qemu_io(path, "qcow2", *qemu_commands(data, shape, disk))
        with open_image(path) as image:
            assert read_all(image) == disk
        with edit(path, opener(Path(folder))) as image:
            for write in data.draw(writes(size, with_zeros=True)):
                apply(image, disk, write)
            assert read_all(image) == disk
        assert_qemu_agrees(path, disk)


def apply(target: Any, disk: bytearray, write: Write) -> None:  # noqa: ANN401 - Target or image
    """A write of byte 0 is a zeroing."""
    offset, length, byte = write
    if byte:
        target.write(memoryview(bytes([byte]) * length), offset)
    else:
        target.zero(offset, length)
    disk[offset : offset + length] = bytes([byte]) * length


def assert_qemu_agrees(path: Path, disk: bytes | bytearray) -> None:
    """The tables are sound, nothing is leaked, and the disk is this one."""
    oracles.check(path, "qcow2")
    assert oracles.content(path, "qcow2") == disk


@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_a_new_overlay_of_ours_is_one_for_qemu(tmp_path: Path, compression: str) -> None:
    """Fails if the backing file's name or format is not where qemu looks for them."""
    base, path = tmp_path / "base.raw", tmp_path / "disk.qcow2"
    base_disk = random.Random(1).randbytes(1 * MIB)
    base.write_bytes(base_disk)
    disk = bytearray(base_disk.ljust(2 * MIB, b"\0"))
    gate = opener(tmp_path)
    parent = Reference(str(base), "raw")
    target = make(
        pending(path),
        2 * MIB,
        {"compression": compression, "cluster_size": "4096"},
        opener=gate,
        parent=parent,
        parent_source=gate.parent(parent, FileStorage.open(base)),
    )
    assert not target.traits.reads_zero
    for write in (Write(5000, 9000, 7), Write(900_000, 300_000, 8), Write(70_000, 20_000, 0)):
        apply(target, disk, write)
    target.commit()
    assert_qemu_agrees(path, disk)
    found = oracles.info(path)
    assert (found["backing-filename"], found["backing-filename-format"]) == (str(base), "raw")


@pytest.mark.parametrize("raw", ["off", "on"])
@pytest.mark.parametrize("extended", ["off", "on"])
def test_an_external_data_file_is_read_and_written(tmp_path: Path, raw: str, extended: str) -> None:
    """Fails if data goes into the image, to another offset, or stays out of a raw data file."""
    path, data_file = tmp_path / "disk.qcow2", tmp_path / "disk.data"
    options = {"data_file": data_file.name, "data_file_raw": raw, "extended_l2": extended}
    oracles.create(path, DISK, "qcow2", options={**options, "data_file": data_file})
    oracles.qemu_io(path, "qcow2", "write -P 3 100k 500k", "write -z 200k 80k")
    disk = bytearray(oracles.paint(DISK, [(100 << 10, 500 << 10, 3), (200 << 10, 80 << 10, 0)]))
    with open_image(path) as image:
        assert read_all(image) == disk
        assert image.info().data_file == str(data_file)
    files: dict[str, Any] = {str(data_file): FileStorage.open(data_file, writable=True)}
    with FORMAT.edit(FileStorage.open(path, writable=True), DictOpener(files=files)) as image:
        for write in (Write(120_000, 300_000, 9), Write(250_000, 100_000, 0), Write(3, 5, 1)):
            apply(image, disk, write)
        image.flush()
    assert_qemu_agrees(path, disk)
    if raw == "on":
        assert data_file.read_bytes()[:DISK] == disk


@pytest.mark.parametrize("raw", ["off", "on"])
def test_a_new_image_with_an_external_data_file_is_one_for_qemu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw: str
) -> None:
    """Fails if the data file is not committed, or the image does not name it."""
    monkeypatch.chdir(tmp_path)  # where qemu looks for a data file with a relative name
    path, data_file = tmp_path / "disk.qcow2", tmp_path / "disk.data"
    gate = DictOpener(files={"disk.data": pending(data_file)})
    target = make(
        pending(path), DISK, {"data_file": "disk.data", "data_file_raw": raw}, opener=gate
    )
    disk = bytearray(DISK)
    for write in (Write(70_000, 900_000, 5), Write(300_000, 100_000, 0)):
        apply(target, disk, write)
    target.commit()
    assert_qemu_agrees(path, disk)
    assert oracles.info(path)["format-specific"]["data"]["data-file-raw"] == (raw == "on")
    if raw == "on":
        assert data_file.read_bytes() == disk


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (3 * MIB, 40 * MIB),
        (100_000 // 512 * 512, 5 * MIB),
        (5 * MIB, 100_000 // 512 * 512),
        (5 * MIB, 512),
        (512, 9 * MIB),
    ],
)
@pytest.mark.parametrize(
    "shape",
    [
        {"cluster_size": "512"},
        {"cluster_size": "512", "compat": "0.10"},
        {"cluster_size": "65536"},
        {"cluster_size": "16384", "extended_l2": "on"},
    ],
    ids=str,
)
def test_a_resized_image_is_what_qemu_resizes_it_to(
    tmp_path: Path, shape: Shape, before: int, after: int
) -> None:
    """Fails if the L1 table moves wrongly, clusters leak, or old bytes come back."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, before, "qcow2", options=shape)
    oracles.qemu_io(path, "qcow2", f"write -P 7 0 {before}")
    with edit(path) as image:
        image.resize(after)
        assert image.size == after
    disk = bytes([7]) * min(before, after)
    assert_qemu_agrees(path, disk.ljust(after, b"\0"))
    with edit(path) as image:
        image.resize(before)
    assert_qemu_agrees(path, disk[:before].ljust(before, b"\0"))


@pytest.mark.parametrize("after", [512, 70 * 1024, 9 * MIB])
@pytest.mark.parametrize("shape", [{"cluster_size": "512"}, {"extended_l2": "on"}], ids=str)
def test_resizing_leaves_snapshots_alone(tmp_path: Path, shape: Shape, after: int) -> None:
    """Fails if a cluster or table that a snapshot shares is freed with the disk's end."""
    path = tmp_path / "disk.qcow2"
    oracles.create(path, 2 * MIB, "qcow2", options=shape)
    oracles.qemu_io(path, "qcow2", "write -P 7 0 2M")
    oracles.qemu_img("snapshot", "-c", "before", path)
    oracles.qemu_io(path, "qcow2", "write -P 8 50k 300k")
    disk = oracles.content(path, "qcow2")
    with edit(path) as image:
        image.resize(after)
    assert_qemu_agrees(path, disk[:after].ljust(after, b"\0"))
    oracles.qemu_img("snapshot", "-a", "before", path)
    assert_qemu_agrees(path, b"\x07" * (2 * MIB))


def test_a_growing_overlay_does_not_show_more_of_its_backing_file(tmp_path: Path) -> None:
    """Fails if growing uncovers bytes of a backing file that is longer than the disk was."""
    base, path = tmp_path / "base.raw", tmp_path / "disk.qcow2"
    base.write_bytes(b"\x55" * (2 * MIB))
    for shape in ({"compat": "1.1"}, {"compat": "0.10"}, {"extended_l2": "on"}):
        oracles.create(path, 100_352, "qcow2", options=shape, backing=base)
        with edit(path, opener(tmp_path)) as image:
            image.resize(4 * MIB)
        assert_qemu_agrees(path, (b"\x55" * 100_352).ljust(4 * MIB, b"\0"))
        path.unlink()


@pytest.mark.parametrize("size", [0, 1, 511, 100_001])
def test_a_size_is_rounded_up_to_sectors(tmp_path: Path, size: int) -> None:
    """Fails if qemu, which knows whole sectors only, would not see the disk's end."""
    path = tmp_path / "disk.qcow2"
    target = make(pending(path), size, {})
    assert target.size == -(-size // 512) * 512
    target.write(memoryview(b"x" * size), 0)
    target.commit()
    assert_qemu_agrees(path, (b"x" * size).ljust(target.size, b"\0"))


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"cluster_size": "512", "refcount_bits": "64"},
        {"cluster_size": "2M", "refcount_bits": "1"},
        {"extended_l2": "on"},
    ],
    ids=str,
)
def test_it_measures_as_qemu_does(tmp_path: Path, shape: Shape) -> None:
    """Fails if a prediction is not that of qemu-img measure."""
    raw = tmp_path / "disk.raw"
    with raw.open("wb") as file:
        file.truncate(50 * MIB + 4096)
        for start in (0, 1_000_000, 7 * MIB, 50 * MIB):
            file.seek(start)
            file.write(b"x" * 4096)
    values = parse_options("qcow2", FORMAT.options, shape)
    source = FileStorage.open(raw)
    predicted = FORMAT.measure(source, CreateSpec(source.size, DictOpener(), values))
    options = ",".join(f"{name}={value}" for name, value in shape.items())
    given_options = ("-o", options) if options else ()
    result = oracles.qemu_img(
        *("measure", "--output=json", "-f", "raw", "-O", "qcow2"), *given_options, raw
    )
    said = json.loads(result.stdout)
    assert (predicted.required, predicted.fully_allocated) == (
        said["required"],
        said["fully-allocated"],
    )
