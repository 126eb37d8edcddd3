"""QCOW2 in a pipe, and images that are given another parent: judged by qemu-img."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from imprint.core.contracts import Reference
from imprint.core.errors import ReadError, UnsupportedFeatureError
from imprint.core.formats import CreateSpec
from imprint.formats.qcow2 import FORMAT, header
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing import oracles
from imprint.testing.faults import RecordingStorage
from imprint.testing.opener import DictOpener
from imprint.transfer.copy import copy

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("qemu-img")

MIB = 1 << 20


def _disk(seed: int, size: int) -> bytes:
    noise = random.Random(seed)
    disk = bytearray(size)
    for _ in range(12):
        start = noise.randrange(size)
        length = min(noise.randrange(1, 600_000), size - start)
        kind = noise.randrange(3)
        content = (
            noise.randbytes(length) if kind == 0 else b"the same text again. " * (length // 21 + 1)
        )
        disk[start : start + length] = content[:length] if kind != 2 else bytes(length)
    return bytes(disk)


class PipeStorage(MemoryStorage):
    """Memory that takes bytes in one order only, as a pipe does."""

    def write(self, data: memoryview, offset: int) -> None:
        assert offset == len(self.content), "a pipe cannot go back, and has no holes"
        super().write(data, offset)

    def zero(self, offset: int, length: int) -> None:
        self.write(memoryview(bytes(length)), offset)


def _stream(disk: bytes, options: dict[str, str | int | bool]) -> bytes:
    spec = CreateSpec(len(disk), DictOpener(), options)
    source, pipe = MemoryStorage(disk), PipeStorage()
    survey = FORMAT.survey(spec)
    copy(source, survey)
    copy(source, FORMAT.stream(pipe, spec, survey))
    return bytes(pipe.content)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zstd", "level": 9},
        {"compression": "zlib", "cluster_size": 4096},
        {"compression": "zstd", "cluster_size": 2 * MIB},
        {"cluster_size": 512, "refcount_bits": 1},
        {"compat": "0.10", "compression": "zlib", "level": 0},
        {"compression": "zlib", "refcount_bits": 64},
    ],
    ids=str,
)
def test_qemu_reads_what_came_through_a_pipe(
    tmp_path: Path, options: dict[str, str | int | bool]
) -> None:
    """Fails if a table that left before its data does not fit it."""
    disk = _disk(len(options), 5 * MIB + 512)
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    raw.write_bytes(disk)
    path.write_bytes(_stream(disk, options))
    oracles.check(path, "qcow2")
    assert oracles.is_equal(raw, path, first_format="raw", second_format="qcow2")
    assert oracles.info(path)["virtual-size"] == len(disk)


@pytest.mark.parametrize("disk", [b"", bytes(3 * MIB), b"\x01" * 512])
def test_small_and_empty_disks_can_be_streamed(tmp_path: Path, disk: bytes) -> None:
    """Fails at the edges: no data at all, or no disk at all."""
    path = tmp_path / "disk.qcow2"
    path.write_bytes(_stream(disk, {"compression": "zlib"}))
    oracles.check(path, "qcow2")
    assert oracles.content(path, "qcow2") == disk


def test_a_source_that_changes_between_the_passes_is_an_error() -> None:
    """Fails if the image's tables could belong to other data than the one that follows."""
    disk = _disk(1, 2 * MIB)
    for changed in (disk[:MIB] + bytes(MIB), bytes(len(disk)), disk[:MIB] + disk[:MIB]):
        spec = CreateSpec(len(disk), DictOpener(), {"compression": "zlib"})
        survey = FORMAT.survey(spec)
        copy(MemoryStorage(disk), survey)
        with pytest.raises(ReadError, match="changed between"):
            copy(MemoryStorage(changed), FORMAT.stream(PipeStorage(), spec, survey))


def test_refcounts_that_are_too_narrow_are_refused() -> None:
    """Fails if many compressed clusters in one overflow their count."""
    spec = CreateSpec(8 * MIB, DictOpener(), {"compression": "zlib", "refcount_bits": 1})
    survey = FORMAT.survey(spec)
    copy(MemoryStorage(b"\x01" * (8 * MIB)), survey)
    with pytest.raises(UnsupportedFeatureError, match="refcount_bits"):
        FORMAT.stream(PipeStorage(), spec, survey)


@pytest.mark.parametrize("cluster_size", [512, 4096, 65536])
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_another_parent_is_named_whole_or_not_at_all(
    tmp_path: Path, cluster_size: int, compat: str
) -> None:
    """Fails if a crash while the name changes leaves an image with no parent or a torn name."""
    long_name = "p" * 200 + ".raw"
    for name in ("old.raw", "new.raw", long_name):
        (tmp_path / name).write_bytes(b"\x07" * MIB)
    path = tmp_path / "child.qcow2"
    oracles.create(
        path, None, "qcow2", options={"cluster_size": cluster_size, "compat": compat},
        backing=tmp_path / "old.raw",
    )  # fmt: skip
    if compat == "1.1":
        oracles.qemu_img("bitmap", "--add", path, "b")
    before = header.read(FileStorage.open(path))
    names = {before.backing_name}
    content = path.read_bytes()
    steps: tuple[str | None, ...] = ("new.raw", long_name, None)
    for step in steps:
        parent = None if step is None else Reference(step, "raw")
        recording = RecordingStorage(content)
        FORMAT.set_parent(recording, DictOpener(), parent)
        wanted = None if step is None else step.encode()
        for _, state in recording.crashes(random.Random(2), variants=2):
            area = header.read(state)
            assert area.backing_name in (*names, wanted)
            assert area.extension(0x23852875) == before.extension(0x23852875)
        content = bytes(recording.replay(len(recording.operations)).content)
        names = {wanted}
        path.write_bytes(content)
        info = oracles.info(path)
        assert info.get("backing-filename") == step
        if step is not None:
            assert info["backing-filename-format"] == "raw"
            assert oracles.content(path, "qcow2") == b"\x07" * MIB
        oracles.check(path, "qcow2")
