"""LUKS1 and LUKS2 volumes that ``cryptsetup`` and QEMU made, and filled by themselves."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError, PassphraseError, UnsupportedFeatureError
from imprint.core.units import KIB, MIB
from imprint.storage.file import FileStorage
from imprint.testing.oracles import run
from imprint.volumes.luks import CONTAINER

if TYPE_CHECKING:
    from pathlib import Path

PLAIN: Final = random.Random(9).randbytes(2 * MIB)
PBKDF2: Final = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000")

pytestmark = pytest.mark.oracle("cryptsetup")


def key(folder: Path, secret: bytes = b"secret") -> Path:
    path = folder / f"key-{secret.hex()}"
    path.write_bytes(secret)
    return path


def encrypted(folder: Path, *options: str) -> Path:
    """Encrypt a volume in place, as cryptsetup does it without the kernel."""
    path = folder / "volume"
    path.write_bytes(PLAIN + bytes(32 * MIB))
    how = ("--encrypt", "--type", "luks2", "-q", "--force-offline-reencrypt")
    shift = ("--reduce-device-size", "32M")
    run("cryptsetup", "reencrypt", *how, *shift, *options, "--key-file", key(folder), path)
    return path


def content(path: Path, secret: bytes = b"secret") -> bytes:
    storage = FileStorage.open(path)
    try:
        (found,) = CONTAINER.assemble([storage], lambda _: secret)
        (inner,) = found.volumes
        (piece,) = inner.pieces
        assert (piece.offset, piece.length, piece.member) == (0, inner.source.size, 0)
        assert piece.member_offset + piece.length <= path.stat().st_size
        buffer = bytearray(inner.source.size)
        inner.source.readinto(memoryview(buffer), 0)
        return bytes(buffer)
    finally:
        storage.close()


@pytest.mark.parametrize(
    "options",
    [
        ("--cipher", "aes-xts-plain64", "--sector-size", "512"),
        ("--cipher", "aes-xts-plain64", "--sector-size", "4096"),
        ("--cipher", "aes-xts-plain64", "--key-size", "256", "--sector-size", "2048"),
        ("--cipher", "aes-cbc-essiv:sha256", "--key-size", "256", "--hash", "sha512"),
        ("--cipher", "aes-cbc-plain64", "--key-size", "128", "--sector-size", "1024"),
    ],
)
def test_what_cryptsetup_encrypted_is_read(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Fails if sectors of a size are deciphered by wrong numbers."""
    path = encrypted(tmp_path, *PBKDF2, *options)
    assert content(path)[: len(PLAIN)] == PLAIN
    with pytest.raises(PassphraseError, match="wrong"):
        content(path, b"other")


@pytest.mark.parametrize("kind", ["argon2i", "argon2id"])
def test_keys_are_derived_by_argon2(tmp_path: Path, kind: str) -> None:
    """Fails if memory, passes or threads are mistaken."""
    cost = ("--pbkdf-force-iterations", "4", "--pbkdf-memory", "4096", "--pbkdf-parallel", "3")
    path = encrypted(tmp_path, "--pbkdf", kind, *cost)
    assert content(path)[: len(PLAIN)] == PLAIN


def test_every_slot_opens_and_the_second_header_stands_in(tmp_path: Path) -> None:
    """Fails if only the first slot or the first header is looked at."""
    path = encrypted(tmp_path, *PBKDF2)
    run(
        *("cryptsetup", "luksAddKey", "-q", *PBKDF2, "--key-slot", "5"),
        *("--key-file", key(tmp_path), path, key(tmp_path, b"second")),
    )
    assert content(path, b"second")[: len(PLAIN)] == PLAIN
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    assert content(path, b"second")[: len(PLAIN)] == PLAIN
    with path.open("r+b") as file:
        file.seek(16 * KIB + 5000)
        file.write(b"damage")
    with pytest.raises(CorruptImageError, match="no whole copy"):
        content(path)


def test_the_header_with_the_higher_sequence_counts(tmp_path: Path) -> None:
    """Fails if an old header opens a volume with a passphrase that was taken away."""
    path = encrypted(tmp_path, *PBKDF2)
    before = path.read_bytes()[: 16 * KIB]
    run(
        *("cryptsetup", "luksChangeKey", "-q", *PBKDF2, "--key-file", key(tmp_path)),
        *(path, key(tmp_path, b"second")),
    )
    with path.open("r+b") as file:
        file.write(before)
    with pytest.raises(PassphraseError):
        content(path)
    assert content(path, b"second")[: len(PLAIN)] == PLAIN


def test_encryption_on_its_way_is_refused(tmp_path: Path) -> None:
    """Fails if a disk that is half encrypted is read as if it were done."""
    path = tmp_path / "volume"
    path.write_bytes(PLAIN + bytes(32 * MIB))
    run(
        *("cryptsetup", "reencrypt", "--encrypt", "--type", "luks2", "-q", "--init-only"),
        *("--reduce-device-size", "32M", "--key-file", key(tmp_path), *PBKDF2, path),
    )
    with pytest.raises(UnsupportedFeatureError):
        content(path)


@pytest.mark.parametrize("cipher", ["aes-xts-plain64", "aes-cbc-essiv:sha256"])
def test_luks1_volumes_are_read(tmp_path: Path, cipher: str) -> None:
    """Fails if the disk is looked for elsewhere, or deciphered by wrong numbers."""
    path = encrypted(tmp_path, *PBKDF2, "--cipher", cipher, "--key-size", "256")
    run("cryptsetup", "convert", "-q", "--type", "luks1", path)
    assert path.read_bytes().startswith(b"LUKS\xba\xbe\0\1")
    assert content(path)[: len(PLAIN)] == PLAIN
