"""Images that end before what is on them does: what is there is told, the rest is said to lack."""

from __future__ import annotations

import hashlib
import random
from typing import TYPE_CHECKING, Final

import pytest

from imprint.testing.oracles import run
from imprint.testing.volumes import make_disk

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

CLUSTER: Final = 4096
VOLUME_BYTES: Final = 8 << 20
LARGE: Final = 1_000_000
TO_GO: Final = bytes.fromhex("3bd66749292ed84a8399f6a339e3d001")


@pytest.fixture
def files() -> dict[str, bytes]:
    """By name, in the order in which ``mcopy`` puts them one behind the other."""
    noise = random.Random(11)
    return {"first": noise.randbytes(5000), "large": noise.randbytes(LARGE), "last": b"end" * 9}


@pytest.fixture
def volume(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """FAT12, with clusters of 4 KiB."""
    path = tmp_path / "volume"
    run("mkfs.vfat", "-s", "8", "-C", path, str(VOLUME_BYTES >> 10))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        run("mcopy", "-i", path, tmp_path / name, "::")
    return path


@pytest.mark.oracle("mkfs.vfat", "mcopy", "sfdisk")
@pytest.mark.parametrize("is_partition", [False, True], ids=["disk", "partition"])
def test_files_are_read_as_far_as_the_image_reaches(
    program: Program,
    tmp_path: Path,
    volume: Path,
    files: dict[str, bytes],
    is_partition: bool,
) -> None:
    """Fails if a file of which half is there is refused, or its other half taken for zeros."""
    content = volume.read_bytes()
    begin = content.index(files["large"][:64])
    there = begin + 100 * CLUSTER
    image, address, ahead = tmp_path / "image", "image:/", 0
    if is_partition:
        (ahead,) = make_disk(image, [("L", volume)], size=16 << 20)
        address = "image#p1:/"
        image.write_bytes(image.read_bytes()[: ahead + there])
    else:
        image.write_bytes(content[:there])

    listed = program.ok("ls", "--json", address)
    assert [(item["path"], item["size"]) for item in listed.json_lines] == [
        (f"/{name}", len(content)) for name, content in files.items()
    ]
    assert f"is cut off: expected {VOLUME_BYTES} bytes, found {there}" in listed.err
    assert "is cut off" in program.ok("info", "image").text
    copied = program("cp", "-r", address, "out", "--json")
    assert copied.exit_code == 6
    (bad, *others) = copied.json["bad"]
    assert bad == {"path": "/large", "offset": 100 * CLUSTER, "length": LARGE - 100 * CLUSTER}
    lost = [item["path"] for item in (*others, *copied.json["failed"])]
    assert lost == ["/last"]  # nothing of it is there
    assert (tmp_path / "out/first").read_bytes() == files["first"]
    found = (tmp_path / "out/large").read_bytes()
    assert found == files["large"][: 100 * CLUSTER].ljust(LARGE, b"\0")
    digests = program("report", "image", "--hash", "sha256").text
    assert hashlib.sha256(files["first"]).hexdigest() in digests
    assert hashlib.sha256(found).hexdigest() not in digests
    cat = program("cat", f"{address}large")
    assert cat.exit_code == 3
    assert files["large"][: 100 * CLUSTER] == cat.out


@pytest.mark.oracle("mkfs.vfat", "mcopy", "sfdisk")
def test_a_partition_that_is_cut_off_is_not_hashed_unasked(
    program: Program, tmp_path: Path, volume: Path
) -> None:
    """Fails if zeros that nobody has written get into a hash without a word."""
    image = tmp_path / "image"
    (start,) = make_disk(image, [("L", volume)], size=16 << 20)
    there = image.read_bytes()[start : start + 1_000_000]
    image.write_bytes(image.read_bytes()[: start + 1_000_000])
    assert "--incomplete" in " ".join(program.refuses(3, "hash", "image#p1"))
    found = program.ok("hash", "image#p1", "--incomplete", "--json").json["hashes"]["sha256"]
    assert found == hashlib.sha256(there.ljust(VOLUME_BYTES, b"\0")).hexdigest()
    assert program("convert", "image#p1", "part.raw", "--incomplete").exit_code == 6
    assert (tmp_path / "part.raw").read_bytes() == there.ljust(VOLUME_BYTES, b"\0")


@pytest.mark.oracle("mkfs.vfat")
def test_the_front_of_bitlocker_to_go_is_said_to_be_one(program: Program, tmp_path: Path) -> None:
    """Fails if the few files that it shows to others are taken for all that there is."""
    image = tmp_path / "image"
    run("mkfs.vfat", "-F", "32", "-C", image, str(64 << 10))
    with image.open("r+b") as file:
        file.seek(3)
        file.write(b"MSWIN4.1")
        file.seek(424)  # where libyal's description of the format has its identifier
        file.write(TO_GO)
    assert "BitLocker To Go" in program.ok("info", "image").text
    assert "BitLocker To Go" in program.ok("ls", "image:/").err
