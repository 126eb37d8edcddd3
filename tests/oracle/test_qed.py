"""QED against qemu-img, which wrote the images."""

from __future__ import annotations

import struct
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import imprint
from imprint import formats
from imprint.core.formats import Checkable
from imprint.core.units import KIB, MIB
from imprint.storage.file import FileStorage
from imprint.testing import oracles
from imprint.testing.disks import Write, writes
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

QED = formats.get("qed")
SIZE = 5 * MIB + 3 * 512
FEW = settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FEW
@given(
    drawn=writes(SIZE, length_max=1 * MIB),
    cluster_size=st.sampled_from(["4096", "65536", "1M"]),
    table_size=st.sampled_from(["2", "4", "16"]),  # QEMU does not open its own images with 1
)
def test_we_read_what_qemu_wrote(
    tmp_path: Path, drawn: list[Write], cluster_size: str, table_size: str
) -> None:
    """Fails if a cluster is read from the wrong place, or a hole is called data."""
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.qed"
    disk = oracles.paint(SIZE, drawn)
    raw.write_bytes(disk)
    options = {"cluster_size": cluster_size, "table_size": table_size}
    oracles.convert(raw, path, "qed", options=options)
    with imprint.open(path) as image:
        assert image.info().format == "qed"
        assert image.size == SIZE
        assert image.read_at(0, SIZE) == disk
        assert oracles.our_data(image) == oracles.qemu_data(path, "qed")
    with closing(FileStorage.open(path)) as storage:
        assert isinstance(QED, Checkable)
        assert list(QED.check(storage, DictOpener(), repair=False)) == []


@pytest.mark.parametrize("backing_format", ["raw", "qcow2"])
def test_zeros_hide_the_backing_file(tmp_path: Path, backing_format: str) -> None:
    """Fails if zero clusters show what is below, or absent ones do not."""
    base, path = tmp_path / "base.img", tmp_path / "disk.qed"
    oracles.create(base, 2 * MIB, backing_format)
    oracles.qemu_io(base, backing_format, "write -P 1 0 2M")
    oracles.create(path, 3 * MIB, "qed", backing=base, backing_format=backing_format)
    oracles.qemu_io(path, "qed", "write -P 2 512k 100k", "write -z 1M 128k", "write -P 3 2500k 1k")
    expected = oracles.content(path, "qed")
    assert expected[MIB : MIB + 128 * KIB] == bytes(128 * KIB)
    with imprint.open(path) as image:
        assert image.info().parent == str(base)
        assert image.info().parent_format == ("raw" if backing_format == "raw" else None)
        assert image.read_at(0, image.size) == expected


def test_an_image_that_was_not_closed_is_read_with_a_note(tmp_path: Path) -> None:
    """Fails if the note is missing, or a sound table is not believed."""
    path = tmp_path / "disk.qed"
    oracles.create(path, MIB, "qed")
    oracles.qemu_io(path, "qed", "write -P 5 64k 64k")
    content = bytearray(path.read_bytes())
    content[16] |= 2  # need check
    path.write_bytes(content)
    assert struct.unpack_from("<Q", content, 16)[0] == 2
    with imprint.open(path) as image:
        assert any("not closed" in note for note in image.info().notes)
        assert image.info().features == ("need-check",)
        assert image.read_at(64 * KIB, 64 * KIB) == b"\x05" * 64 * KIB
