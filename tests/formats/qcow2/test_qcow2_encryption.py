"""Encrypted QCOW2 images without another tool: refusals, damage, and who gets to see what."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from imprint.core.contracts import Offloading, Resumable
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    PassphraseError,
    RefusedError,
    TruncatedImageError,
    UsageError,
)
from imprint.core.extent import Extent, Kind
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.units import KIB, MIB
from imprint.formats.qcow2 import FORMAT
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 2 * MIB
FAST = {"encrypt.format": "luks", "encrypt.iter-time": "0"}
DISK = random.Random(11).randbytes(SIZE)


def opener(passphrase: bytes | None = b"pw") -> DictOpener:
    return DictOpener(passphrase=passphrase)


@pytest.fixture(scope="module")
def made() -> bytes:
    """A small image of our own, to be damaged."""
    storage = MemoryStorage()
    options = parse_options("qcow2", FORMAT.options, FAST | {"cluster_size": "4096"})
    target = FORMAT.create(storage, CreateSpec(64 * KIB, opener(), options))
    target.write(memoryview(DISK[: 16 * KIB]), 0)
    target.commit()
    return bytes(storage.content)


def test_an_image_without_its_passphrase_shows_facts_and_no_data(made: bytes) -> None:
    """Fails if encrypted bytes or zeros are given out, or facts need the passphrase."""
    with FORMAT.open(MemoryStorage(made), opener(None)) as image:
        info = image.info()
        assert info.encryption == "luks"
        assert info.options["encrypt.cipher-alg"] == "aes-256"
        assert info.options["encrypt.cipher-mode"] == "xts"
        kinds = [(extent.length, extent.kind) for extent in image.extents(0, image.size)]
        assert kinds == [(16 * KIB, Kind.DATA), (48 * KIB, Kind.HOLE)]
        for offset in (0, 1, 16 * KIB - 1):
            with pytest.raises(PassphraseError, match="expected a passphrase"):
                image.read_at(offset, 1)
    with pytest.raises(PassphraseError):
        FORMAT.edit(MemoryStorage(made), opener(None))


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
