"""Encrypted QCOW2 images against qemu-img: each reads what the other made."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from imprint.core.contracts import Offloading, Reference, Resumable
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    PassphraseError,
    RefusedError,
    TruncatedImageError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.units import KIB, MIB
from imprint.formats.qcow2 import FORMAT
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener
from imprint.testing.oracles import qemu_img

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
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


def qemu_create(*arguments: str | Path) -> None:
    """Repeat what makes a LUKS header until QEMU has measured its own speed.

    It gives up when its first rounds took less than a tick of the kernel's accounting, which
    is rare with SHA-512. The measurement takes it seconds, whatever ``iter-time`` is.
    """
    for _ in range(10):
        result = qemu_img(*arguments, accept=(0, 1))
        if result.exit_code == 0:
            return
        assert "Unable to get accurate CPU usage" in result.stderr, result.stderr
    pytest.skip("qemu-img cannot measure CPU time here")


def qemu_make(path: Path, options: str, content: bytes = DISK) -> None:
    plain = path.with_suffix(".plain")
    plain.write_bytes(content)
    qemu_create(
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
    FORMAT.create_snapshot(FileStorage.open(path, writable=True), opener(), "before")
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
    FORMAT.apply_snapshot(FileStorage.open(path, writable=True), opener(), "before")
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


def test_an_image_without_its_passphrase_shows_facts_and_no_data(tmp_path: Path) -> None:
    """Fails if encrypted bytes or zeros are given out, or facts need the passphrase."""
    path = tmp_path / "image"
    our_make(path, FAST)
    with our_image(path, None) as image:
        info = image.info()
        assert info.encryption == "luks"
        assert info.options["encrypt.cipher-alg"] == "aes-256"
        assert info.options["encrypt.cipher-mode"] == "xts"
        extents = list(image.extents(0, SIZE))
        assert sum(extent.length for extent in extents) == SIZE
        for extent in extents:
            if extent.kind is Kind.DATA:
                with pytest.raises(PassphraseError, match="expected a passphrase"):
                    image.read_at(extent.offset, 512)
    with pytest.raises(PassphraseError):
        FORMAT.edit(FileStorage.open(path, writable=True), opener(None))


@pytest.mark.oracle("qemu-img")
def test_an_aes_image_is_not_written_and_not_read_without_a_passphrase(tmp_path: Path) -> None:
    """Fails if the weak cipher is written, or its images are given out encrypted."""
    path = tmp_path / "image"
    qemu_make(path, "encrypt.format=aes")
    with pytest.raises(UnsupportedFeatureError, match="AES"):
        FORMAT.edit(FileStorage.open(path, writable=True), opener())
    with our_image(path, None) as image, pytest.raises(PassphraseError):
        image.read_at(0, 512)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"encrypt.cipher-mode": "cbc"}, "needs encrypt.format=luks"),
        (FAST | {"encrypt.cipher-alg": "aes-192"}, "aes-192 needs"),
        (FAST | {"encrypt.ivgen-hash-alg": "sha256"}, "needs encrypt.ivgen-alg=essiv"),
        (FAST | {"encrypt.iter-time": "-1"}, "iter-time"),
        (FAST | {"compression": "zlib"}, "compress"),
        (FAST | {"preallocation": "metadata"}, "preallocation"),
        (FAST | {"compat": "0.10"}, "compat=1.1"),
        (FAST | {"data_file": "data"}, "data file"),
    ],
)
def test_contradicting_options_are_refused(given: dict[str, str], said: str) -> None:
    """Fails if what was asked for is silently not done."""
    options = parse_options("qcow2", FORMAT.options, given)
    with pytest.raises(UsageError, match=said):
        FORMAT.create(MemoryStorage(), CreateSpec(SIZE, opener(), options))


def test_creating_needs_a_passphrase() -> None:
    """Fails if an image is encrypted with nothing."""
    options = parse_options("qcow2", FORMAT.options, FAST)
    with pytest.raises(PassphraseError):
        FORMAT.create(MemoryStorage(), CreateSpec(SIZE, opener(None), options))


def test_an_unfinished_image_is_taken_up_with_its_passphrase() -> None:
    """Fails if a resumed copy goes on plain, or with another key."""
    storage = MemoryStorage()
    options = parse_options("qcow2", FORMAT.options, FAST)
    half = SIZE // 2
    begun = FORMAT.create(storage, CreateSpec(SIZE, opener(), options))
    assert isinstance(begun, Resumable)
    begun.write(memoryview(DISK)[:half], 0)
    begun.checkpoint()

    with pytest.raises(PassphraseError, match="wrong"):
        FORMAT.resume(storage, CreateSpec(SIZE, opener(b"no"), options))
    plain = parse_options("qcow2", FORMAT.options, {})
    with pytest.raises(RefusedError, match="encrypted"):
        FORMAT.resume(storage, CreateSpec(SIZE, opener(), plain))
    resumed = FORMAT.resume(storage, CreateSpec(SIZE, opener(), options))
    resumed.write(memoryview(DISK)[half:], half)
    resumed.commit()

    with FORMAT.open(storage, opener()) as image:
        assert image.read_at(0, SIZE) == DISK


@pytest.mark.parametrize("cluster_size", ["512", "64K", "2M"])
def test_an_image_is_as_large_as_was_measured(cluster_size: str) -> None:
    """Fails if the room of the LUKS header is forgotten."""
    storage = MemoryStorage()
    given = FAST | {"cluster_size": cluster_size}
    spec = CreateSpec(SIZE, opener(), parse_options("qcow2", FORMAT.options, given))
    target = FORMAT.create(storage, spec)
    content = random.Random(1).randbytes(SIZE)
    target.write(memoryview(content), 0)
    target.commit()
    assert storage.size == pytest.approx(
        FORMAT.measure(MemoryStorage(content), spec).required, rel=0.02
    )


def test_an_encrypted_image_is_not_streamed() -> None:
    """Fails if a stream is written plain although encryption was asked for."""
    options = parse_options("qcow2", FORMAT.options, FAST)
    with pytest.raises(UsageError, match="stream"):
        FORMAT.survey(CreateSpec(SIZE, opener(), options))


def test_nobody_is_offered_to_copy_past_the_cipher() -> None:
    """Fails if the system may copy plain bytes into an encrypted image."""
    options = parse_options("qcow2", FORMAT.options, FAST)
    storage = MemoryStorage()
    target = FORMAT.create(storage, CreateSpec(SIZE, opener(), options))
    edited = FORMAT.edit(storage, opener())
    extent = Extent(0, 64 * KIB, Kind.DATA, MemoryStorage(bytes(64 * KIB)), 0)
    for image in (target, edited):
        assert isinstance(image, Offloading)
        assert not image.can_offload(extent)


@pytest.fixture(scope="module")
def made() -> bytes:
    """A small image of our own, to be damaged."""
    storage = MemoryStorage()
    options = parse_options("qcow2", FORMAT.options, FAST | {"cluster_size": "4096"})
    target = FORMAT.create(storage, CreateSpec(64 * KIB, opener(), options))
    target.write(memoryview(DISK[: 16 * KIB]), 0)
    target.commit()
    return bytes(storage.content)


def extension_at(image: bytes) -> int:
    return image.index(b"\x05\x37\xbe\x77\0\0\0\x10")


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        (8, 0, CorruptImageError),
        (8, 1, CorruptImageError),
        (8, 1 << 40, TruncatedImageError),
        (8, 0xFFFFFFFFFFFFF000, TruncatedImageError),
        (16, 0xFFFFFFFFFFFFFFFF, TruncatedImageError),
        (16, 0, TruncatedImageError),
        (16, 100_000, TruncatedImageError),
    ],
)
def test_a_hostile_place_of_the_luks_header_is_refused(
    made: bytes, field: int, value: int, error: type[ImagingError]
) -> None:
    """Fails if a header is read from outside the file, or key material from outside of it."""
    damaged = bytearray(made)
    at = extension_at(made) + field
    damaged[at : at + 8] = value.to_bytes(8, "big")
    with pytest.raises(error):
        FORMAT.open(MemoryStorage(damaged), opener())


def test_an_encrypted_image_without_a_luks_header_is_refused(made: bytes) -> None:
    """Fails if the missing header is taken for no encryption."""
    damaged = bytearray(made)
    at = extension_at(made)
    damaged[at : at + 4] = b"\x12\x34\x56\x78"
    with pytest.raises(CorruptImageError, match="encryption header"):
        FORMAT.open(MemoryStorage(damaged), opener())


def test_data_that_is_cut_off_is_not_zeros(made: bytes) -> None:
    """Fails if the missing end of an encrypted cluster reads as zeros."""
    with FORMAT.open(MemoryStorage(made), opener()) as image:
        (data,) = [e for e in image.extents(0, 64 * KIB) if e.kind is Kind.DATA]
        last = data.storage_offset + data.length
    with (
        FORMAT.open(MemoryStorage(made[: last - 1024]), opener()) as image,
        pytest.raises(ImagingError),
    ):
        image.read_at(0, 16 * KIB)


def changed_bits(made: bytes) -> Iterator[bytes]:
    randomness = random.Random(9)
    start = made.index(b"LUKS\xba\xbe")
    for _ in range(30):
        damaged = bytearray(made)
        damaged[start + randomness.randrange(592)] ^= 1 << randomness.randrange(8)
        # Rounds are left alone: they may cost seconds, which another test is about.
        for at in (164, *range(208 + 4, 592, 48)):
            damaged[start + at : start + at + 4] = made[start + at : start + at + 4]
        yield bytes(damaged)


def test_a_damaged_luks_header_gives_the_disk_or_an_error(made: bytes) -> None:
    """Fails if damage leads to other bytes, or to anything but an imaging error."""
    for damaged in changed_bits(made):
        try:
            with FORMAT.open(MemoryStorage(damaged), opener()) as image:
                assert image.read_at(0, 16 * KIB) == DISK[: 16 * KIB]
        except ImagingError:
            continue


def test_editing_goes_on_after_the_image_was_opened_again() -> None:
    """Fails if an image that was edited once cannot be unlocked any more."""
    storage = MemoryStorage()
    options = parse_options("qcow2", FORMAT.options, FAST)
    FORMAT.create(storage, CreateSpec(SIZE, opener(), options)).commit()
    for index in range(3):
        image = FORMAT.edit(storage, opener())
        image.write(memoryview(bytes([index + 1]) * 700), index * 700)
        image.commit()
    with FORMAT.open(storage, opener()) as found:
        assert found.read_at(0, 2100) == b"\1" * 700 + b"\2" * 700 + b"\3" * 700
