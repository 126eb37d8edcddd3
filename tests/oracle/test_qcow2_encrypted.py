"""Encrypted QCOW2 images against qemu-img: each reads what the other made."""

from __future__ import annotations

import random
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.contracts import Reference
from imprint.core.errors import (
    PassphraseError,
    UnsupportedFeatureError,
)
from imprint.core.extent import Kind
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.units import KIB, MIB
from imprint.formats.qcow2 import FORMAT
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener
from imprint.testing.oracles import qemu_img, qemu_img_with_luks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from imprint.core.image import Image

SIZE = 2 * MIB
FAST = {"encrypt.format": "luks", "encrypt.iter-time": "0"}
SECRET = ("--object", "secret,id=s,data=pw")


def painted() -> bytes:
    """Random runs, zeros and clusters in part."""
    randomness = random.Random(11)
    disk = bytearray(SIZE)
    for offset, length in ((0, 70_000), (300 * KIB, 1), (MIB - 700, 9000), (SIZE - 513, 513)):
        disk[offset : offset + length] = randomness.randbytes(length)
    return bytes(disk)


DISK = painted()


def opener(
    passphrase: bytes | None = b"pw", files: Mapping[str, FileStorage] | None = None
) -> DictOpener:
    return DictOpener(passphrase=passphrase, files=files)


def qemu_make(path: Path, options: str, content: bytes = DISK) -> None:
    plain = path.with_suffix(".plain")
    plain.write_bytes(content)
    qemu_img_with_luks(
        *("convert", *SECRET, "-f", "raw", "-O", "qcow2"),
        *("-o", f"encrypt.key-secret=s,{options}", plain, path),
    )


def qemu_args(path: Path) -> str:
    return f"driver=qcow2,encrypt.key-secret=s,file.filename={path}"


def qemu_content(path: Path) -> bytes:
    plain = path.with_suffix(".read")
    qemu_img("convert", *SECRET, "-O", "raw", "--image-opts", qemu_args(path), plain)
    return plain.read_bytes()


def qemu_check(path: Path) -> None:
    qemu_img("check", *SECRET, "--image-opts", qemu_args(path))


def our_image(path: Path, passphrase: bytes | None = b"pw") -> Image:
    return FORMAT.open(FileStorage.open(path), opener(passphrase))


def our_content(path: Path) -> bytes:
    with our_image(path) as image:
        return image.read_at(0, image.size)


def our_make(path: Path, given: Mapping[str, str], content: bytes = DISK) -> None:
    """Write ``content``, leaving out what is zero, in pieces that fit no cluster."""
    path.touch()
    spec = CreateSpec(len(content), opener(), parse_options("qcow2", FORMAT.options, given))
    target = FORMAT.create(FileStorage.open(path, writable=True), spec)
    step = 70_001
    for start in range(0, len(content), step):
        piece = content[start : start + step]
        if any(piece):
            target.write(memoryview(piece), start)
    target.commit()


@pytest.mark.slow
@pytest.mark.oracle("qemu-img")
def test_we_read_the_luks_images_of_qemu(tmp_path: Path) -> None:
    """Fails if sectors are numbered by anything but their place in the file."""
    path = tmp_path / "image"
    qemu_make(
        path,
        "encrypt.format=luks,encrypt.iter-time=10,encrypt.cipher-alg=aes-128,"
        "encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha256,"
        "encrypt.hash-alg=sha512,cluster_size=512",
    )
    assert our_content(path) == DISK
    with pytest.raises(PassphraseError, match="wrong"):
        our_image(path, b"not pw")


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"extended_l2": "on", "cluster_size": "16k"},
        {"encrypt.ivgen-alg": "essiv", "cluster_size": "2M"},
    ],
)
def test_we_read_what_qemu_wrote_into_our_images(tmp_path: Path, given: dict[str, str]) -> None:
    """Fails if QEMU, with our LUKS header, places or encrypts clusters otherwise."""
    path, plain = tmp_path / "image", tmp_path / "plain"
    our_make(path, FAST | given, bytes(SIZE))
    plain.write_bytes(DISK)
    qemu_img(
        *("convert", *SECRET, "-f", "raw", "-n", "--target-image-opts"),
        *(plain, qemu_args(path)),
    )
    assert our_content(path) == DISK


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize("options", ["", ",cluster_size=512", ",compat=0.10", ",extended_l2=on"])
def test_we_read_the_aes_images_of_qemu(tmp_path: Path, options: str) -> None:
    """Fails if sectors are numbered by anything but their place on the disk."""
    path = tmp_path / "image"
    qemu_make(path, f"encrypt.format=aes{options}")
    assert our_content(path) == DISK
    with our_image(path) as image:
        for offset, length in ((0, 1), (511, 2), (69_000, 2000), (SIZE - 3, 3)):
            assert image.read_at(offset, length) == DISK[offset : offset + length]
        for extent in image.extents(0, SIZE):
            if extent.kind is Kind.DATA:
                assert extent.storage is not None
                buffer = bytearray(extent.length)
                extent.storage.readinto(memoryview(buffer), extent.storage_offset)
                assert buffer == DISK[extent.offset : extent.end]


@pytest.mark.oracle("qemu-img")
def test_a_long_aes_passphrase_is_cut_as_qemu_cuts_it(tmp_path: Path) -> None:
    """Fails if anything but the first 16 bytes counts."""
    path, plain = tmp_path / "image", tmp_path / "plain"
    plain.write_bytes(DISK)
    qemu_img(
        *("convert", "--object", "secret,id=s,data=0123456789abcdefgh", "-O", "qcow2"),
        *("-o", "encrypt.format=aes,encrypt.key-secret=s", "-f", "raw", plain, path),
    )
    with our_image(path, b"0123456789abcdefXX") as image:
        assert image.read_at(0, SIZE) == DISK


@pytest.mark.slow
@pytest.mark.oracle("qemu-img")
def test_the_data_file_of_a_luks_image_is_decrypted(tmp_path: Path) -> None:
    """Fails if an external data file is returned as it is, encrypted."""
    path, data = tmp_path / "image", tmp_path / "data"
    qemu_make(
        path, f"encrypt.format=luks,encrypt.iter-time=10,encrypt.hash-alg=sha512,data_file={data}"
    )
    assert data.read_bytes()[:512] != DISK[:512]
    files = {str(data): FileStorage.open(data)}
    with FORMAT.open(FileStorage.open(path), opener(files=files)) as image:
        assert image.read_at(0, SIZE) == DISK


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"cluster_size": "512", "encrypt.cipher-mode": "cbc", "encrypt.cipher-alg": "aes-128"},
        {"encrypt.cipher-mode": "cbc", "encrypt.ivgen-alg": "essiv", "encrypt.hash-alg": "sha512"},
        {"encrypt.cipher-alg": "aes-128", "encrypt.ivgen-alg": "plain", "extended_l2": "on"},
        {"cluster_size": "2M", "refcount_bits": "1"},
        {"preallocation": "full"},
    ],
)
def test_qemu_reads_the_luks_images_we_make(tmp_path: Path, given: dict[str, str]) -> None:
    """Fails if our image is not what QEMU takes for a sound, encrypted one."""
    path = tmp_path / "image"
    our_make(path, FAST | given)
    qemu_check(path)
    assert qemu_content(path) == DISK
    assert our_content(path) == DISK
    assert DISK[:512] not in path.read_bytes()


@pytest.mark.oracle("qemu-img")
@pytest.mark.parametrize("given", [{}, {"extended_l2": "on"}, {"cluster_size": "512"}])
def test_changes_are_encrypted_and_snapshots_keep_what_was(
    tmp_path: Path, given: dict[str, str]
) -> None:
    """Fails if a changed, copied or new cluster is stored plain, or under a wrong number."""
    path = tmp_path / "image"
    our_make(path, FAST | given)
    with closing(FileStorage.open(path, writable=True)) as storage:
        FORMAT.create_snapshot(storage, opener(), "before")
    expected = bytearray(DISK)
    image = FORMAT.edit(FileStorage.open(path, writable=True), opener())
    for offset, length in ((100, 300), (65_000, 2000), (MIB, 5), (1_500_001, 100_000)):
        data = random.Random(offset).randbytes(length)
        image.write(memoryview(data), offset)
        expected[offset : offset + length] = data
    image.zero(1000, 5000)
    expected[1000:6000] = bytes(5000)
    image.commit()

    qemu_check(path)
    assert qemu_content(path) == expected
    assert our_content(path) == expected
    with FORMAT.open_snapshot(FileStorage.open(path), opener(), "before") as before:
        assert before.read_at(0, SIZE) == DISK
    with closing(FileStorage.open(path, writable=True)) as storage:
        FORMAT.apply_snapshot(storage, opener(), "before")
    qemu_check(path)
    assert qemu_content(path) == DISK


@pytest.mark.oracle("qemu-img")
def test_an_encrypted_overlay_shows_its_plain_parent(tmp_path: Path) -> None:
    """Fails if a cluster in part is not completed from the parent before it is encrypted."""
    base, path = tmp_path / "base.raw", tmp_path / "image"
    base.write_bytes(DISK)
    path.touch()
    options = parse_options("qcow2", FORMAT.options, FAST)
    parent = MemoryStorage(DISK)
    spec = CreateSpec(SIZE, opener(), options, Reference("base.raw", "raw"), parent)
    target = FORMAT.create(FileStorage.open(path, writable=True), spec)
    target.write(memoryview(b"changed"), 4000)
    target.commit()
    assert qemu_content(path) == DISK[:4000] + b"changed" + DISK[4007:]


@pytest.mark.oracle("qemu-img")
def test_an_aes_image_is_not_written_and_not_read_without_a_passphrase(tmp_path: Path) -> None:
    """Fails if the weak cipher is written, or its images are given out encrypted."""
    path = tmp_path / "image"
    qemu_make(path, "encrypt.format=aes")
    with (
        closing(FileStorage.open(path, writable=True)) as storage,
        pytest.raises(UnsupportedFeatureError, match="AES"),
    ):
        FORMAT.edit(storage, opener())
    with our_image(path, None) as image, pytest.raises(PassphraseError):
        image.read_at(0, 512)
