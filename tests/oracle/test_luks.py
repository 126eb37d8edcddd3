"""LUKS1 volumes against cryptsetup and qemu-img: each opens what the other made."""

from __future__ import annotations

import lzma
import random
from typing import TYPE_CHECKING

import pytest

from imprint.codecs.ciphers import sector_cipher
from imprint.codecs.luks import LuksHeader, Parameters, ReadAt, create, parse_header, unlock
from imprint.codecs.luks.create import header_size
from imprint.core.errors import PassphraseError, UnsupportedFeatureError
from imprint.core.units import KIB, MIB
from imprint.filters.cipher import CipherStorage
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.oracles import qemu_img, qemu_img_with_luks, run

if TYPE_CHECKING:
    from pathlib import Path

DISK = random.Random(5).randbytes(300 * KIB) + bytes(100 * KIB)

SPECS = [
    ("aes-xts-plain64", 512, "sha256", Parameters()),
    ("aes-xts-plain64", 256, "sha1", Parameters(key_size=32, hash_name="sha1")),
    (
        "aes-cbc-essiv:sha256",
        256,
        "sha512",
        Parameters(cipher_mode="cbc-essiv:sha256", key_size=32, hash_name="sha512"),
    ),
    (
        "aes-cbc-plain",
        128,
        "sha224",
        Parameters(cipher_mode="cbc-plain", key_size=16, hash_name="sha224"),
    ),
    (
        "aes-cbc-plain64",
        256,
        "ripemd160",
        Parameters(cipher_mode="cbc-plain64", key_size=32, hash_name="ripemd160"),
    ),
]


def key_file(folder: Path, passphrase: str) -> Path:
    path = folder / f"{passphrase}.key"
    path.write_text(passphrase)
    return path


def cryptsetup_format(
    path: Path, cipher: str, key_bits: int, hash_name: str, *further: str | Path
) -> None:
    """A volume with the passphrase ``pw`` and no content yet."""
    path.touch()
    with path.open("r+b") as file:
        file.truncate(2 * MIB + len(DISK))
    run(
        *("cryptsetup", "luksFormat", "-q", "--type", "luks1"),
        *("--pbkdf-force-iterations", "1000", "--cipher", cipher),
        *("--key-size", str(key_bits), "--hash", hash_name),
        *("--key-file", key_file(path.parent, "pw"), *further, path),
    )


def secret(passphrase: str) -> tuple[str, str]:
    return ("--object", f"secret,id=s,data={passphrase}")


def image(path: Path) -> str:
    return f"driver=luks,key-secret=s,file.filename={path}"


def qemu_fill(path: Path, passphrase: str) -> None:
    """Write ``DISK`` into a volume that exists."""
    plain = path.parent / "plain"
    plain.write_bytes(DISK)
    qemu_img(
        *("convert", *secret(passphrase), "-f", "raw", "-n"),
        *("--target-image-opts", plain, image(path)),
    )


def qemu_content(path: Path, passphrase: str) -> bytes:
    plain = path.parent / "read"
    qemu_img(
        *("convert", *secret(passphrase), "-O", "raw"),
        *("--image-opts", image(path), plain),
    )
    return plain.read_bytes()


def our_header(storage: FileStorage) -> LuksHeader:
    return parse_header(reader(storage), size=storage.size, name=storage.name)


def reader(storage: FileStorage) -> ReadAt:
    def read(offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        storage.readinto(memoryview(buffer), offset)
        return bytes(buffer)

    return read


def our_content(path: Path, passphrase: bytes) -> bytes:
    storage = FileStorage.open(path)
    try:
        header = our_header(storage)
        cipher = unlock(header, reader(storage), passphrase)
        payload = path.read_bytes()[header.payload_offset :]
        plain = bytearray(len(payload))
        CipherStorage(MemoryStorage(payload), cipher).readinto(memoryview(plain), 0)
        return bytes(plain)
    finally:
        storage.close()


@pytest.mark.oracle("cryptsetup", "qemu-img")
@pytest.mark.parametrize(("cipher", "key_bits", "hash_name", "parameters"), SPECS)
def test_we_read_what_cryptsetup_made_and_qemu_filled(
    tmp_path: Path, cipher: str, key_bits: int, hash_name: str, parameters: Parameters
) -> None:
    """Fails if the header, the key or the sectors' numbers are understood otherwise."""
    path = tmp_path / "volume"
    cryptsetup_format(path, cipher, key_bits, hash_name)
    qemu_fill(path, "pw")

    assert our_content(path, b"pw")[: len(DISK)] == DISK
    storage = FileStorage.open(path)
    header = our_header(storage)
    storage.close()
    assert (header.cipher_name, header.cipher_mode, header.key_size, header.hash_name) == parameters


@pytest.mark.oracle("cryptsetup", "qemu-img")
def test_every_key_slot_opens_and_a_removed_one_does_not(tmp_path: Path) -> None:
    """Fails if only the first slot is tried, or a revoked passphrase still works."""
    path = tmp_path / "volume"
    cryptsetup_format(path, "aes-xts-plain64", 256, "sha256")
    first, second = key_file(tmp_path, "pw"), key_file(tmp_path, "second")
    run(
        *("cryptsetup", "luksAddKey", "-q", "--pbkdf-force-iterations", "1000"),
        *("--key-slot", "6", "--key-file", first, path, second),
    )
    qemu_fill(path, "pw")
    assert our_content(path, b"second") == DISK
    assert our_content(path, b"pw") == DISK

    run("cryptsetup", "luksKillSlot", "-q", "--key-file", second, path, "0")
    assert our_content(path, b"second") == DISK
    with pytest.raises(PassphraseError, match="wrong"):
        our_content(path, b"pw")


@pytest.mark.slow
@pytest.mark.oracle("qemu-img")
def test_we_read_what_qemu_made(tmp_path: Path) -> None:
    """Fails if QEMU's own layout of header and key material is refused or misread."""
    plain, path = tmp_path / "plain", tmp_path / "volume"
    plain.write_bytes(DISK)
    options = (
        "key-secret=s,iter-time=10,hash-alg=sha512,"
        "cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256"
    )
    qemu_img_with_luks(
        "convert", *secret("pw"), "-f", "raw", "-O", "luks", "-o", options, plain, path
    )
    assert our_content(path, b"pw") == DISK
    with pytest.raises(PassphraseError, match="wrong"):
        our_content(path, b"not pw")


@pytest.mark.oracle("cryptsetup", "qemu-img")
@pytest.mark.parametrize(("cipher", "key_bits", "hash_name", "parameters"), SPECS)
def test_cryptsetup_and_qemu_open_what_we_made(
    tmp_path: Path, cipher: str, key_bits: int, hash_name: str, parameters: Parameters
) -> None:
    """Fails if our header is not LUKS1 to others, or our sectors read otherwise."""
    path = tmp_path / "volume"
    header, sectors = create(b"pw", name="volume", parameters=parameters, iter_time_ms=0)
    payload = MemoryStorage()
    CipherStorage(payload, sectors).write(memoryview(DISK), 0)
    path.write_bytes(header + payload.content)

    assert qemu_content(path, "pw") == DISK
    run("cryptsetup", "open", "--test-passphrase", "--key-file", key_file(tmp_path, "pw"), path)
    wrong = key_file(tmp_path, "wrong")
    run("cryptsetup", "open", "--test-passphrase", "--key-file", wrong, path, accept=[2])
    dump = run("cryptsetup", "luksDump", path).stdout
    algorithm, _, mode = cipher.partition("-")
    for line in (
        f"Cipher name:   \t{algorithm}",
        f"Cipher mode:   \t{mode}",
        f"Hash spec:     \t{hash_name}",
        f"Payload offset:\t{header_size(parameters) // 512}",
        f"MK bits:       \t{key_bits}",
    ):
        assert line in dump


@pytest.mark.oracle("cryptsetup")
def test_cryptsetup_can_add_a_passphrase_to_what_we_made(tmp_path: Path) -> None:
    """Fails if the unused slots do not say where their key material goes."""
    path = tmp_path / "volume"
    header, sectors = create(b"pw", name="volume", iter_time_ms=0)
    payload = MemoryStorage()
    CipherStorage(payload, sectors).write(memoryview(DISK), 0)
    path.write_bytes(header + payload.content)

    for index in range(1, 8):
        run(
            *("cryptsetup", "luksAddKey", "-q", "--pbkdf-force-iterations", "1000"),
            *("--key-slot", str(index), "--key-file", key_file(tmp_path, "pw")),
            *(path, key_file(tmp_path, f"pw{index}")),
        )

    assert our_content(path, b"pw7") == DISK
    assert our_content(path, b"pw") == DISK


@pytest.mark.oracle("cryptsetup")
def test_a_key_that_does_not_fill_its_last_sector_is_understood(tmp_path: Path) -> None:
    """Fails if AES-192, whose split key ends inside a sector (QEMU aborts), is cut or padded."""
    path, key = tmp_path / "volume", tmp_path / "key"
    key.write_bytes(random.Random(6).randbytes(24))
    cryptsetup_format(path, "aes-cbc-plain64", 192, "sha256", "--volume-key-file", key)
    storage = FileStorage.open(path)
    cipher = unlock(our_header(storage), reader(storage), b"pw")
    storage.close()
    found, expected = bytearray(DISK), bytearray(DISK)
    cipher.encrypt(memoryview(found), 0)
    sector_cipher(key.read_bytes(), algorithm="aes", mode="cbc-plain64", name="expected").encrypt(
        memoryview(expected), 0
    )
    assert found == expected

    parameters = Parameters(cipher_mode="cbc-plain64", key_size=24)
    path.write_bytes(create(b"pw", name="volume", parameters=parameters, iter_time_ms=0)[0])
    run("cryptsetup", "open", "--test-passphrase", "--key-file", key_file(tmp_path, "pw"), path)


@pytest.mark.parametrize("version", [1, 2])
def test_a_header_of_util_linux_says_what_blkid_said(corpus: Path, version: int) -> None:
    """Fails if a real header is refused, or is misread. The expectation is util-linux's own."""
    tests = corpus / "forensics" / "util-linux+util-linux" / "tests"
    data = lzma.decompress(
        (tests / "ts" / "blkid" / "images-fs" / f"luks{version}.img.xz").read_bytes()
    )

    # Only the header was kept, so that it is told of a larger volume than there is.
    def parse() -> LuksHeader:
        return parse_header(lambda at, size: data[at : at + size], size=8 * MIB, name="luks")

    if version == 2:
        with pytest.raises(UnsupportedFeatureError, match="LUKS2"):
            parse()
        return
    expected = (tests / "expected" / "blkid" / "low-probe-luks1").read_text()
    header = parse()
    assert f"ID_FS_UUID={header.uuid}\n" in expected
    assert (header.cipher_name, header.cipher_mode) == ("aes", "cbc-essiv:sha256")


@pytest.mark.oracle("cryptsetup")
def test_luks2_is_refused_by_name(tmp_path: Path) -> None:
    """Fails if LUKS2 is called damaged, or is read as LUKS1."""
    path = tmp_path / "volume"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(20 * MIB)
    run(
        *("cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2"),
        *("--pbkdf-force-iterations", "1000", "--key-file", key_file(tmp_path, "pw"), path),
    )
    with pytest.raises(UnsupportedFeatureError, match="LUKS2"):
        our_content(path, b"pw")
