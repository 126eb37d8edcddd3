"""Sector ciphers against the standard's vectors, and against their definitions."""

from __future__ import annotations

import hashlib
import random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from hypothesis import given
from hypothesis import strategies as st

from imprint.codecs.ciphers import sector_cipher
from imprint.core.errors import UnsupportedFeatureError

ALL_MODES = [
    ("xts-plain64", 32),
    ("xts-plain", 64),
    ("xts-essiv:sha256", 64),
    ("cbc-plain", 16),
    ("cbc-plain64", 24),
    ("cbc-plain64be", 32),
    ("cbc-essiv:sha256", 32),
    ("cbc-essiv:md5", 16),
    ("cbc", 16),
    ("ecb", 32),
]

# IEEE 1619-2007, annex B: key, data unit number, plaintext, ciphertext. The data unit is as
# long as the text. (Vector 1 has two equal key halves, which the standard now forbids.)
XTS_VECTORS = {
    2: (
        "1111111111111111111111111111111122222222222222222222222222222222",
        0x3333333333,
        "44" * 32,
        "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0",
    ),
    3: (
        "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f022222222222222222222222222222222",
        0x3333333333,
        "44" * 32,
        "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89",
    ),
    4: (
        "2718281828459045235360287471352631415926535897932384626433832795",
        0,
        bytes(range(256)).hex() * 2,
        (
            "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
            "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"
            "328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
            "93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad0265"
            "5ea92dc4c4e41a8952c651d33174be51a10c421110e6d81588ede82103a252d8"
            "a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
            "1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c"
            "5ccf2a55d705ddcd86d449511ceb7ec30bf12b1fa35b913f9f747a8afd1b130e"
            "94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
            "1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3"
            "e7ff72b1e99785ca0a7e7720c5b36dc6d72cac9574c8cbbc2f801e23e56fd344"
            "b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
            "74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752"
            "afe656bb3c17256a9f6e9bf19fdd5a38fc82bbe872c5539edb609ef4f79c203e"
            "bb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
            "eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568"
        ),
    ),
    10: (
        (
            "2718281828459045235360287471352662497757247093699959574966967627"
            "3141592653589793238462643383279502884197169399375105820974944592"
        ),
        0xFF,
        bytes(range(256)).hex() * 2,
        (
            "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
            "5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd"
            "5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
            "c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca"
            "2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0"
            "b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
            "93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec"
            "583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a"
            "84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
            "505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae"
            "9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29"
            "a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
            "6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f"
            "645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385"
            "1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
            "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151"
        ),
    ),
}


def key_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def encrypted(mode: str, key: bytes, plain: bytes, sector: int) -> bytes:
    view = memoryview(bytearray(plain))
    sector_cipher(key, algorithm="aes", mode=mode, name="test").encrypt(view, sector)
    return bytes(view)


@pytest.mark.parametrize("number", XTS_VECTORS)
def test_xts_gives_the_vectors_of_ieee_1619(number: int) -> None:
    """Fails if the tweak, the order of the key halves or the byte order is wrong."""
    key, sector, plain, stored = XTS_VECTORS[number]
    text = bytes.fromhex(plain)
    cipher = sector_cipher(
        bytes.fromhex(key),
        algorithm="aes",
        mode="xts-plain64",
        name="test",
        sector_size=len(text),
    )
    buffer = bytearray(text)

    cipher.encrypt(memoryview(buffer), sector)
    assert buffer.hex() == stored
    cipher.decrypt(memoryview(buffer), sector)
    assert buffer == text


@pytest.mark.parametrize("number", XTS_VECTORS)
def test_each_sector_of_a_run_is_encrypted_under_its_own_number(number: int) -> None:
    """Fails if a run of several sectors differs from its sectors one by one."""
    key, sector, plain, stored = XTS_VECTORS[number]
    size = len(plain) // 2
    cipher = sector_cipher(
        bytes.fromhex(key), algorithm="aes", mode="xts-plain64", name="test", sector_size=size
    )
    before = min(sector, 2)
    run = bytearray(bytes.fromhex("00" * size * before + plain + "00" * size))

    cipher.encrypt(memoryview(run), sector - before)

    assert run[size * before : size * (before + 1)].hex() == stored


@pytest.mark.parametrize(
    ("mode", "iv_of"),
    [
        ("cbc-plain", lambda n, _: (n % 2**32).to_bytes(16, "little")),
        ("cbc-plain64", lambda n, _: n.to_bytes(16, "little")),
        ("cbc-plain64be", lambda n, _: n.to_bytes(16, "big")),
        (
            "cbc-essiv:sha256",
            lambda n, key: (
                Cipher(AES(hashlib.sha256(key).digest()), modes.ECB())
                .encryptor()
                .update(n.to_bytes(16, "little"))
            ),
        ),
    ],
)
@pytest.mark.parametrize("first", [0, 1, 2**32 - 2, 2**40 + 5])
def test_cbc_is_the_textbooks_cbc_under_each_sectors_iv(
    mode: str, iv_of: object, first: int
) -> None:
    """Fails if an IV is wrong, also where 32 bits of a sector number overflow."""
    assert callable(iv_of)
    key = key_of(32)
    stored = random.Random(first).randbytes(4 * 512)
    expected = b"".join(
        Cipher(AES(key), modes.CBC(iv_of(first + index, key)))
        .decryptor()
        .update(stored[index * 512 : index * 512 + 512])
        for index in range(4)
    )
    buffer = bytearray(stored)
    cipher = sector_cipher(key, algorithm="aes", mode=mode, name="test")

    cipher.decrypt(memoryview(buffer), first)
    assert buffer == expected
    cipher.encrypt(memoryview(buffer), first)
    assert buffer == stored


@pytest.mark.parametrize(("mode", "key_size"), ALL_MODES)
@given(
    data=st.data(),
    first=st.integers(0, 2**52),
    count=st.integers(1, 9),
    sector_size=st.sampled_from([512, 4096]),
)
def test_decrypting_undoes_encrypting_of_any_part(
    *, data: st.DataObject, mode: str, key_size: int, first: int, count: int, sector_size: int
) -> None:
    """Fails if a part of a run decrypts to something else than the same part of the whole."""
    plain = random.Random(first).randbytes(count * sector_size)
    cipher = sector_cipher(
        key_of(key_size), algorithm="aes", mode=mode, name="test", sector_size=sector_size
    )
    run = bytearray(plain)
    cipher.encrypt(memoryview(run), first)
    assert run != plain

    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start, count))
    part = memoryview(run)[start * sector_size : stop * sector_size]
    cipher.decrypt(part, first + start)

    assert part == plain[start * sector_size : stop * sector_size]


def test_a_mode_without_an_iv_generator_is_plain() -> None:
    """Fails if old dm-crypt volumes (``aes-cbc``) get other IVs than dm-crypt's."""
    plain = bytes(1024)
    assert encrypted("cbc", key_of(16), plain, 7) == encrypted("cbc-plain", key_of(16), plain, 7)


def test_ecb_encrypts_equal_blocks_equally() -> None:
    """Fails if ECB depends on the sector number."""
    block = Cipher(AES(key_of(32)), modes.ECB()).encryptor().update(bytes(16))
    assert encrypted("ecb", key_of(32), bytes(1024), 99) == block * 64


@pytest.mark.parametrize(
    ("algorithm", "mode", "key_size", "named"),
    [
        ("serpent", "xts-plain64", 64, "serpent"),
        ("twofish", "cbc-plain", 32, "twofish"),
        ("cast5", "cbc-plain", 16, "cast5"),
        ("", "", 16, "''"),
        ("aes", "lrw-benbi", 32, "lrw-benbi"),
        ("aes", "ctr-plain64", 32, "ctr-plain64"),
        ("aes", "cbc-random", 32, "random"),
        ("aes", "cbc-essiv", 32, "essiv"),
        ("aes", "cbc-essiv:", 32, "essiv:"),
        ("aes", "cbc-essiv:sha1", 32, "sha1"),
        ("aes", "cbc-essiv:nothing", 32, "nothing"),
        ("aes", "xts-plain64", 48, "48"),
        ("aes", "xts-plain64", 16, "16"),
        ("aes", "cbc-plain64", 64, "64"),
        ("aes", "ecb", 0, "found 0"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    algorithm: str, mode: str, key_size: int, named: str
) -> None:
    """Fails if an unknown cipher, mode or key is used as another one, or is a crash."""
    with pytest.raises(UnsupportedFeatureError, match=r"^disk: ") as caught:
        sector_cipher(key_of(key_size), algorithm=algorithm, mode=mode, name="disk")
    assert named in str(caught.value)


def test_an_xts_key_of_two_equal_halves_is_refused() -> None:
    """Fails if OpenSSL's own complaint gets out while a disk is read."""
    with pytest.raises(UnsupportedFeatureError, match="different halves"):
        sector_cipher(key_of(16) * 2, algorithm="aes", mode="xts-plain64", name="disk")
