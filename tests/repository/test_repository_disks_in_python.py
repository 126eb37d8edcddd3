"""A disk in a repository, through the Python API."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

import imprint
from imprint.core.errors import PassphraseError, ReadError, UsageError
from imprint.core.units import MIB
from imprint.endpoints import capturing
from imprint.endpoints.copying import CopyRequest
from imprint.endpoints.open import Access
from imprint.endpoints.repository import make_repository
from imprint.endpoints.target import TargetRequest

if TYPE_CHECKING:
    from pathlib import Path

SECRET = b"correct horse"


def captured(folder: Path, content: bytes, secret: bytes | None = None) -> str:
    """The name of a snapshot ``disk`` of some bytes; the repository is made if it is missing."""
    access = Access(passphrase=None if secret is None else lambda _: SECRET)
    place = folder / "images"
    if not place.exists():
        encrypted = secret is not None
        make_repository(str(place), access, is_encrypted=encrypted, level=3, parity=0).close()
    disk = folder / "disk.raw"
    disk.write_bytes(content)
    target = TargetRequest(f"repo:{place}::disk")
    made = capturing.run(CopyRequest(str(disk), target, access=access)).snapshot
    assert made is not None
    return made.name


def test_a_disk_in_a_repository_is_read_like_an_image(tmp_path: Path) -> None:
    """Fails if its bytes, its map or what is known of it are others than those of the disk."""
    content = random.Random(1).randbytes(MIB) + bytes(3 * MIB) + b"end" * 512
    name = captured(tmp_path, content)
    with imprint.open(f"repo:{tmp_path}/images::disk") as disk:
        assert disk.size == len(content)
        assert disk.read_at(MIB - 5, 10) == content[MIB - 5 : MIB + 5]
        assert disk.read_at(len(content) - 3, 100) == b"end"
        assert disk.read_at(0, disk.size) == content
        extents = list(disk.extents(0, disk.size))
        assert sum(item.length for item in extents) == disk.size
        assert extents[0].kind is imprint.Kind.ENCODED
        zeros = [item for item in extents if item.kind in (imprint.Kind.ZERO, imprint.Kind.HOLE)]
        assert sum(item.length for item in zeros) >= 2 * MIB
        assert (disk.info().format, disk.info().size) == ("repository", disk.size)
        assert name[:8] in disk.name
        with pytest.raises(ReadError):
            disk.readinto(memoryview(bytearray(2)), disk.size - 1)
    disk.close()


def test_an_older_snapshot_can_be_chosen(tmp_path: Path) -> None:
    """Fails if ``snapshot`` is ignored, or a part of a disk is taken for the disk."""
    first = captured(tmp_path, b"1" * 4096)
    captured(tmp_path, b"2" * 4096)
    address = f"repo:{tmp_path}/images::disk"
    for where, snapshot in ((f"{address}@{first}", None), (address, first)):
        with imprint.open(where, snapshot=snapshot) as disk:
            assert disk.read_at(0, 9) == b"1" * 9
    with imprint.open(address) as disk:
        assert disk.read_at(0, 9) == b"2" * 9
    with pytest.raises(UsageError):
        imprint.open(f"{address}#p1")
    with pytest.raises(UsageError):
        imprint.open(f"repo:{tmp_path}/images::other")


def test_an_encrypted_repository_is_unlocked(tmp_path: Path) -> None:
    """Fails if the passphrase does not reach the repository."""
    captured(tmp_path, b"secret" * 1000, SECRET)
    address = f"repo:{tmp_path}/images::disk"
    with imprint.open(address, passphrase=SECRET) as disk:
        assert disk.read_at(0, 6) == b"secret"
    with pytest.raises(PassphraseError):
        imprint.open(address, passphrase=b"wrong")
    with pytest.raises(PassphraseError):
        imprint.open(address)
