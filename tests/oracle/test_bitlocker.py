"""BitLocker volumes, read by libbde, against dislocker and what was encrypted."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import CorruptImageError, PassphraseError, UnsupportedFeatureError
from imprint.core.units import MIB
from imprint.filesystems import identify
from imprint.storage.file import FileStorage
from imprint.testing.bitlocker_volume import bitlocker_volume, expected_plain
from imprint.testing.oracles import run
from imprint.volumes.bitlocker import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from imprint.volumes.assembly import Inner

PASSWORD: Final = "pässword"
RECOVERY: Final = "-".join(f"{number * 11 * 101:06d}" for number in range(1, 9))


class Volume:
    """A volume and what is in it."""

    def __init__(self, folder: Path) -> None:
        self.path: Final = folder / "volume"
        plain = folder / "plain"
        plain.write_bytes(random.Random(4).randbytes(2 * MIB))
        run("mkfs.ntfs", "-F", "-q", "-f", plain)
        self.plain: Final = plain.read_bytes()
        self.stored: Final = bitlocker_volume(self.plain, password=PASSWORD, recovery=RECOVERY)
        self.path.write_bytes(self.stored)


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Volume:
    return Volume(tmp_path_factory.mktemp("bitlocker"))


def opened(path: Path, secret: bytes) -> Inner:
    (found,) = CONTAINER.assemble([FileStorage.open(path)], lambda _: secret)
    assert [len(free) for free in found.free] == [0]
    return found.volumes[0]


@pytest.mark.oracle("mkfs.ntfs", "dislocker-file")
def test_the_volume_of_these_tests_is_one(volume: Volume, tmp_path: Path) -> None:
    """Fails if the tests read what nobody else takes for BitLocker."""
    target = tmp_path / "plain"
    run("dislocker-file", "-V", volume.path, f"-p{RECOVERY}", "--", target)
    assert target.read_bytes() == expected_plain(volume.plain)
    found = identify(FileStorage.open(volume.path))
    assert found is not None
    assert found.kind == "BitLocker"


@pytest.mark.oracle("mkfs.ntfs")
@pytest.mark.parametrize("secret", [PASSWORD, RECOVERY])
def test_password_and_recovery_key_open_it(volume: Volume, secret: str) -> None:
    """Fails if plain bytes are other ones, or a place is given for what is stored elsewhere."""
    pytest.importorskip("pybde")
    inner = opened(volume.path, secret.encode())
    buffer = bytearray(inner.source.size)
    inner.source.readinto(memoryview(buffer), 0)
    expected = expected_plain(volume.plain)
    assert bytes(buffer) == expected
    dice = random.Random(8)
    for _ in range(40):
        length = dice.choice((1, 512, 5000, 70_000))
        offset = dice.randrange(len(expected) - length)
        part = bytearray(length)
        inner.source.readinto(memoryview(part), offset)
        assert part == expected[offset : offset + length]
    assert sum(piece.length for piece in inner.pieces) > MIB
    for piece in inner.pieces:
        assert piece.offset == piece.member_offset
        own = slice(piece.offset, piece.end)
        assert expected[own] == volume.plain[own]
        assert volume.stored[own] != volume.plain[own]


@pytest.mark.oracle("mkfs.ntfs")
@pytest.mark.parametrize("secret", [b"other", b"\xff\xfe"])
def test_another_secret_does_not(volume: Volume, secret: bytes) -> None:
    """Fails if garbage is shown for plain bytes."""
    pytest.importorskip("pybde")
    with pytest.raises((PassphraseError, CorruptImageError)):
        opened(volume.path, secret)


@pytest.mark.oracle("mkfs.ntfs")
@pytest.mark.parametrize(
    "damage", [lambda data: data[: 300 << 10], lambda data: data[:8192] + bytes(2 * MIB)]
)
def test_damage_is_one_error(
    volume: Volume, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    """Fails if the library's own error reaches the user."""
    pytest.importorskip("pybde")
    path = tmp_path / "damaged"
    path.write_bytes(damage(volume.stored))
    with pytest.raises(CorruptImageError):
        opened(path, PASSWORD.encode())


@pytest.mark.oracle("mkfs.ntfs")
def test_without_the_library_its_name_is_told(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if the user is left without the command that helps."""
    monkeypatch.setitem(sys.modules, "pybde", None)
    with pytest.raises(UnsupportedFeatureError, match="libbde-python") as caught:
        opened(volume.path, PASSWORD.encode())
    assert caught.value.advice == "pip install libbde-python"
