"""QCOW version 1 against qemu-img, which wrote the images."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings

import imprint
from imprint import formats
from imprint.core.errors import PassphraseError
from imprint.core.formats import Checkable
from imprint.core.units import KIB, MIB
from imprint.storage.file import FileStorage
from imprint.testing import old_formats, oracles
from imprint.testing.disks import Write, writes
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.events import Finding

pytestmark = pytest.mark.oracle("qemu-img", "qemu-io")

QCOW = formats.get("qcow")
SIZE = 5 * MIB + 4 * KIB
FEW = settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def findings(path: Path) -> list[Finding]:
    assert isinstance(QCOW, Checkable)
    with closing(FileStorage.open(path)) as storage:
        return list(QCOW.check(storage, DictOpener(), repair=False))


@FEW
@given(drawn=writes(SIZE, length_max=1 * MIB))
def test_we_read_what_qemu_wrote(tmp_path: Path, drawn: list[Write]) -> None:
    """Fails if a cluster is read from the wrong place, or a hole is data."""
    raw, path = tmp_path / "disk.raw", tmp_path / "disk.qcow"
    disk = oracles.paint(SIZE, drawn)
    raw.write_bytes(disk)
    oracles.convert(raw, path, "qcow")
    with imprint.open(path) as image:
        assert image.info().format == "qcow"
        assert image.read_at(0, image.size) == disk
        assert oracles.our_data(image) == oracles.qemu_data(path, "qcow")
    assert findings(path) == []


def test_we_read_what_qemu_compressed(tmp_path: Path) -> None:
    """Fails if a compressed cluster is taken for a plain one, or the reverse.

    By qemu-io, since ``qemu-img convert -c`` does not make QCOW in this version.
    """
    path = tmp_path / "disk.qcow"
    oracles.create(path, MIB, "qcow")
    packed = [f"write -c -P {number} {number * 8}k 4k" for number in range(1, 40)]
    oracles.qemu_io(path, "qcow", *packed, "write -P 77 500k 50k", "write -P 78 16k 100")
    expected = oracles.content(path, "qcow")
    with imprint.open(path) as image:
        assert image.read_at(0, MIB) == expected
        assert oracles.our_data(image) == oracles.qemu_data(path, "qcow")
    assert findings(path) == []


@pytest.mark.parametrize(("cluster_bits", "l2_bits"), [(9, 6), (12, 9), (16, 13)])
def test_qemu_reads_the_same_compressed_disk(
    tmp_path: Path, cluster_bits: int, l2_bits: int
) -> None:
    """Fails if offset and length of a compressed cluster are split in another place."""
    randomness = random.Random(cluster_bits)
    disk = b"".join(
        randomness.randbytes(4096) if step % 3 else b"text " * 819 + b"." for step in range(256)
    )
    path = tmp_path / "disk.qcow"
    path.write_bytes(
        old_formats.qcow(disk, cluster_bits=cluster_bits, l2_bits=l2_bits, compress=True)
    )
    assert oracles.content(path, "qcow") == disk
    with imprint.open(path) as image:
        assert image.read_at(0, image.size) == disk
        for _ in range(50):
            start = randomness.randrange(len(disk))
            assert image.read_at(start, 5000) == disk[start : start + 5000]


@pytest.mark.parametrize("backing_format", ["raw", "qcow2"])
def test_what_is_absent_is_read_from_the_backing_file(tmp_path: Path, backing_format: str) -> None:
    """Fails if the chain is not followed, or an overlay's own bytes are not on top."""
    base, path = tmp_path / "base.img", tmp_path / "disk.qcow"
    oracles.create(base, 2 * MIB, backing_format)
    oracles.qemu_io(base, backing_format, "write -P 1 0 2M")
    oracles.create(path, 3 * MIB, "qcow", backing=base, backing_format=backing_format)
    oracles.qemu_io(path, "qcow", "write -P 2 512k 100k", "write -P 3 2500k 512")
    expected = oracles.content(path, "qcow")
    assert expected[: 512 * KIB] == b"\x01" * 512 * KIB
    with imprint.open(path) as image:
        assert image.info().parent == str(base)
        assert image.read_at(0, image.size) == expected


def test_an_encrypted_image_needs_its_passphrase(tmp_path: Path) -> None:
    """Fails if ciphertext passes for data, or sectors are numbered by their place in the file."""
    path = tmp_path / "disk.qcow"
    secret = ("--object", "secret,id=s,data=hunter2")
    options = "encrypt.format=aes,encrypt.key-secret=s"
    oracles.qemu_img("create", "-q", *secret, "-f", "qcow", "-o", options, path, "1M")
    target = f"driver=qcow,file.filename={path},encrypt.format=aes,encrypt.key-secret=s"
    commands = ("-c", "write -P 7 300k 9k", "-c", "write -P 9 4k 512")
    oracles.run("qemu-io", *secret, "--image-opts", *commands, target)
    expected = oracles.paint(MIB, [(300 * KIB, 9 * KIB, 7), (4 * KIB, 512, 9)])
    with QCOW.open(FileStorage.open(path), DictOpener(passphrase=b"hunter2")) as image:
        assert image.info().encryption == "aes"
        assert image.read_at(0, MIB) == expected
        assert image.read_at(300 * KIB + 7, 600) == b"\x07" * 600
    with QCOW.open(FileStorage.open(path), DictOpener()) as image:
        assert image.info().size == MIB
        with pytest.raises(PassphraseError):
            image.read_at(300 * KIB, 512)
