"""Arrays of Linux RAID against ``mdadm``: what it says of members, and real ones of others."""

from __future__ import annotations

import lzma
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.units import KIB
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.containers import old_raid_member, raid_member
from imprint.testing.oracles import run
from imprint.volumes import md_superblock

if TYPE_CHECKING:
    from imprint.volumes.md_superblock import Member

DATA: Final = bytes(range(256)) * KIB
CORPUS: Final = Path(__file__).resolve().parents[3] / "shared/corpus/forensics"
IMAGES: Final = CORPUS / "util-linux+util-linux/tests/ts/blkid/images-fs"

pytestmark = pytest.mark.oracle("mdadm")


def examined(path: Path) -> dict[str, str]:
    lines = re.findall(
        r"^ *([A-Z][\w ]*?) : (.*)$", run("mdadm", "--examine", path).stdout, re.MULTILINE
    )
    return {key: value.strip() for key, value in lines}


def agrees(member: Member, found: dict[str, str]) -> None:
    levels = {"raid1": 1, "raid0": 0, "linear": -1}
    assert "correct" in found["Checksum"]
    assert levels[found["Raid Level"]] == member.level
    assert int(found["Raid Devices"]) == member.count
    assert int(found["Events"]) == member.events
    assert (found["State"] == "clean") == member.is_clean
    if "Data Offset" in found:
        assert int(found["Data Offset"].split()[0]) * 512 == member.offset
    if "Device Role" in found:
        role = None if member.role is None else f"Active device {member.role}"
        assert found["Device Role"] == (role or "spare")
    if "Avail Dev Size" in found:
        assert member.length <= int(found["Avail Dev Size"].split()[0]) * 512


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
@pytest.mark.parametrize(("level", "role"), [(1, 0), (1, 1), (1, 0xFFFF), (0, 1), (-1, 0)])
def test_members_mean_what_mdadm_says(tmp_path: Path, version: str, level: int, role: int) -> None:
    """Fails if a superblock of the tests is none, or is read another way."""
    content = raid_member(DATA, level=level, role=role, version=version, chunk=64 * KIB)
    path = tmp_path / "member"
    path.write_bytes(content)
    agrees(md_superblock.read(MemoryStorage(bytes(content), name="member")), examined(path))


@pytest.mark.parametrize("level", [1, 0])
def test_old_members_mean_what_mdadm_says(tmp_path: Path, level: int) -> None:
    """Fails if a superblock of version 0.90 is read another way."""
    content = old_raid_member(DATA, level=level, role=1, chunk=64 * KIB)
    path = tmp_path / "member"
    path.write_bytes(content)
    found = examined(path)
    member = md_superblock.read(MemoryStorage(bytes(content), name="member"))
    agrees(member, found)
    assert found["Preferred Minor"] == member.name.removeprefix("md")


@pytest.mark.parametrize("name", ["mdraid.img.xz", "mdraid-1.img.xz"])
def test_real_members_mean_what_mdadm_says(tmp_path: Path, name: str) -> None:
    """Fails if a member that the kernel made is read another way."""
    if not IMAGES.joinpath(name).exists():
        pytest.skip("no corpus")
    path = tmp_path / "member"
    path.write_bytes(lzma.decompress(IMAGES.joinpath(name).read_bytes()))
    storage = FileStorage.open(path)
    agrees(md_superblock.read(storage), examined(path))
    storage.close()
