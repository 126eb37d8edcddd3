"""LUKS1 headers without a tool: what is refused, and how keys are split."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.codecs.luks import Parameters, create, keys, parse_header, unlock
from imprint.codecs.luks.create import header_size
from imprint.codecs.luks.layout import SLOT_ACTIVE, Header, KeySlot
from imprint.core.errors import (
    CorruptImageError,
    ImagingError,
    PassphraseError,
    TruncatedImageError,
    UnsupportedFeatureError,
)

PLAIN = bytes(range(256)) * 4


class Volume:
    """A volume in memory, and how it is read."""

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def read(self, offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(self.data), "a read outside the volume"
        return bytes(self.data[offset : offset + length])

    def set(self, field: str, value: int | bytes) -> None:
        place = Header.FIELDS[field]
        raw = value.to_bytes(place.size, "big") if isinstance(value, int) else value
        self.data[place.at : place.at + place.size] = raw.ljust(place.size, b"\0")

    def set_slot(self, index: int, field: str, value: int) -> None:
        place = KeySlot.FIELDS[field]
        at = Header.FIELDS["slots"].at + index * KeySlot.SIZE + place.at
        self.data[at : at + place.size] = value.to_bytes(place.size, "big")

    def open(self, passphrase: bytes = b"pw") -> bytes:
        """Parse, unlock, and encrypt something, so that two keys can be compared."""
        header = parse_header(self.read, size=len(self.data), name="disk")
        cipher = unlock(header, self.read, passphrase)
        buffer = bytearray(PLAIN)
        cipher.encrypt(memoryview(buffer), 3)
        return bytes(buffer)


@pytest.fixture(scope="module")
def made() -> bytes:
    """A header with few rounds, so that every test can unlock it."""
    return create(b"pw", name="disk", iter_time_ms=0)[0]


@pytest.fixture
def volume(made: bytes) -> Volume:
    return Volume(made)


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters(),
        Parameters(cipher_mode="cbc-essiv:sha256", key_size=32, hash_name="sha1"),
        Parameters(cipher_mode="cbc-plain64", key_size=16, hash_name="sha512"),
        Parameters(cipher_mode="xts-plain64", key_size=32, hash_name="sha512"),
        Parameters(cipher_mode="cbc-plain", key_size=24, hash_name="sha384"),
        Parameters(cipher_mode="ecb", key_size=32, hash_name="sha224"),
    ],
)
def test_what_was_created_unlocks_to_the_same_key(parameters: Parameters) -> None:
    """Fails if a key is lost between splitting, encrypting and joining it."""
    data, cipher = create(b"pw", name="disk", parameters=parameters, iter_time_ms=0)
    expected = bytearray(PLAIN)
    cipher.encrypt(memoryview(expected), 3)
    assert len(data) == header_size(parameters)
    assert Volume(data).open() == expected


def test_two_headers_have_nothing_secret_in_common(made: bytes) -> None:
    """Fails if a salt or a key is not random."""
    other = create(b"pw", name="disk", iter_time_ms=0)[0]
    first, second = Header.unpack(made), Header.unpack(other)
    assert first.digest_salt != second.digest_salt
    assert first.slots[8:40] != second.slots[8:40]
    assert Volume(made).open() != Volume(other).open()


def test_more_time_means_more_rounds() -> None:
    """Fails if the calibration does not look at the time that was asked for."""
    short, long = (
        KeySlot.unpack(Header.unpack(create(b"", name="disk", iter_time_ms=time)[0]).slots)
        for time in (0, 200)
    )
    assert short.iterations == 1000
    assert long.iterations > 1000


@pytest.mark.parametrize("passphrase", [b"", b"PW", b"pw\n", b"x" * 10_000])
def test_a_wrong_passphrase_is_named_as_such(volume: Volume, passphrase: bytes) -> None:
    """Fails if a wrong key is used, which would read as random bytes."""
    with pytest.raises(PassphraseError, match="disk: the passphrase is wrong"):
        volume.open(passphrase)


def test_damaged_key_material_does_not_unlock(volume: Volume) -> None:
    """Fails if the digest is not checked; every bit of the material counts."""
    volume.data[4096 + 100_000] ^= 1
    with pytest.raises(PassphraseError):
        volume.open()


def test_a_volume_without_slots_says_so(volume: Volume) -> None:
    """Fails if an erased volume looks like a wrong passphrase."""
    volume.set_slot(0, "state", 0xDEAD)
    with pytest.raises(PassphraseError, match="no active key slot"):
        volume.open()


def test_the_last_slot_unlocks_as_well_as_the_first(volume: Volume) -> None:
    """Fails if only some slots are tried."""
    expected = volume.open()
    start = Header.FIELDS["slots"].at
    slot = bytes(volume.data[start : start + KeySlot.SIZE])
    volume.data[start + 7 * KeySlot.SIZE : start + 8 * KeySlot.SIZE] = slot
    volume.set_slot(0, "state", 0xDEAD)
    assert volume.open() == expected


@pytest.mark.parametrize(
    ("field", "value", "error", "said"),
    [
        ("magic", b"LUKS\xba\xbf", CorruptImageError, "Header.magic at 0x0"),
        ("version", 0, CorruptImageError, "Header.version at 0x6"),
        ("version", 2, UnsupportedFeatureError, "LUKS2"),
        ("version", 3, CorruptImageError, "Header.version at 0x6"),
        ("key_bytes", 0, CorruptImageError, "Header.key_bytes at 0x6c"),
        ("key_bytes", 513, CorruptImageError, "Header.key_bytes at 0x6c"),
        ("key_bytes", 0xFFFFFFFF, CorruptImageError, "Header.key_bytes at 0x6c"),
        ("key_bytes", 48, UnsupportedFeatureError, "found 48"),
        ("digest_iterations", 0, CorruptImageError, "digest_iterations"),
        ("digest_iterations", 0xFFFFFFFF, UnsupportedFeatureError, "rounds of key derivation"),
        ("payload_offset", 1, CorruptImageError, "Header.payload_offset at 0x68"),
        ("payload_offset", 0xFFFFFFFF, CorruptImageError, "Header.payload_offset at 0x68"),
        ("cipher_name", b"serpent", UnsupportedFeatureError, "serpent"),
        ("cipher_name", b"a" * 32, CorruptImageError, "Header.cipher_name at 0x8"),
        ("cipher_name", b"\xff", CorruptImageError, "Header.cipher_name at 0x8"),
        ("cipher_mode", b"xts-lmk", UnsupportedFeatureError, "lmk"),
        ("cipher_mode", b"", UnsupportedFeatureError, "mode"),
        ("hash_spec", b"whirlpool", UnsupportedFeatureError, "whirlpool"),
        ("hash_spec", b"", UnsupportedFeatureError, "hash"),
        ("hash_spec", b"shake_128", UnsupportedFeatureError, "shake_128"),
    ],
)
def test_a_hostile_header_is_refused_by_its_field(
    volume: Volume, field: str, value: int | bytes, error: type[ImagingError], said: str
) -> None:
    """Fails if a value leads to a crash, a huge allocation or hours of key derivation."""
    volume.set(field, value)
    with pytest.raises(error) as caught:
        volume.open()
    assert caught.value.name == "disk"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "error", "said"),
    [
        ("state", 1, CorruptImageError, "KeySlot.state at 0x130"),
        ("iterations", 0, CorruptImageError, "KeySlot.iterations at 0x134"),
        ("iterations", 25_000_001, UnsupportedFeatureError, "key slot 2"),
        ("iterations", 0xFFFFFFFF, UnsupportedFeatureError, "key slot 2"),
        ("stripes", 0, CorruptImageError, "KeySlot.stripes at 0x15c"),
        ("stripes", 4001, CorruptImageError, "KeySlot.stripes at 0x15c"),
        ("stripes", 0xFFFFFFFF, CorruptImageError, "KeySlot.stripes at 0x15c"),
        ("material_offset", 1, CorruptImageError, "KeySlot.material_offset at 0x158"),
        ("material_offset", 0xFFFFFFFF, CorruptImageError, "KeySlot.material_offset"),
        ("material_offset", 2068480 // 512 - 499, CorruptImageError, "KeySlot.material_offset"),
    ],
)
def test_a_hostile_key_slot_is_refused_by_its_field(
    volume: Volume, field: str, value: int, error: type[ImagingError], said: str
) -> None:
    """Fails if key material outside the volume is read, or a slot costs hours."""
    volume.set_slot(2, "state", SLOT_ACTIVE)
    volume.set_slot(2, "iterations", 1000)
    volume.set_slot(2, field, value)
    with pytest.raises(error) as caught:
        volume.open(b"wrong")
    assert said in str(caught.value)


@pytest.mark.parametrize("size", [0, 1, 8, 591])
def test_a_short_volume_is_truncated(made: bytes, size: int) -> None:
    """Fails if a header is read beyond the end."""
    with pytest.raises(TruncatedImageError):
        Volume(made[:size]).open()


def test_a_volume_cut_off_in_its_key_material_is_refused(made: bytes) -> None:
    """Fails if key material is read beyond the end."""
    volume = Volume(made[:100_000])
    volume.set("payload_offset", 0)
    with pytest.raises(CorruptImageError, match="material_offset"):
        volume.open()


@given(position=st.integers(0, Header.SIZE - 1), value=st.integers(0, 255), size=st.integers(0, 9))
def test_any_damage_gives_a_key_or_one_imaging_error(
    made: bytes, position: int, value: int, size: int
) -> None:
    """Fails if damaged bytes get anything else out of the parser."""
    volume = Volume(made)
    volume.data[position : position + size] = bytes([value]) * size
    try:
        header = parse_header(volume.read, size=len(volume.data), name="disk")
        if all(slot.iterations < 100_000 for _, slot in header.slots) and (
            header.digest_iterations < 100_000
        ):
            unlock(header, volume.read, b"pw")
    except ImagingError as error:
        assert error.name == "disk"  # noqa: PT017 - both outcomes are right


def test_a_split_key_is_joined_again() -> None:
    """Fails if stripes are lost or counted wrongly, for keys longer and shorter than a digest."""
    for size in (16, 20, 32, 64, 65):
        for stripes in (1, 2, 7):
            key = random.Random(size).randbytes(size)
            material = keys.split_stripes(key, stripes, "sha1")
            assert len(material) == size * stripes
            assert keys.join_stripes(material, stripes, "sha1") == key


def test_two_stripes_are_joined_as_the_specification_says() -> None:
    """Fails if the diffusion is not "hash of the piece's number and the piece"."""
    first, second = bytes(range(25)), bytes(range(100, 125))
    spread = (
        hashlib.sha1(b"\0\0\0\0" + first[:20]).digest()
        + hashlib.sha1(b"\0\0\0\1" + first[20:]).digest()[:5]
    )
    expected = bytes(a ^ b for a, b in zip(spread, second, strict=True))
    assert keys.join_stripes(first + second, 2, "sha1") == expected
