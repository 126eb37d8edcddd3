"""AFF4 as users meet it: written, looked at, verified, damaged."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from imprint.core.extent import Extent, Kind
from imprint.core.formats import CreateSpec
from imprint.core.units import KIB
from imprint.formats.aff4 import FORMAT
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener
from imprint.testing.program import Program

if TYPE_CHECKING:
    from pathlib import Path

DISK = random.Random(1).randbytes(200 * KIB) + bytes(300 * KIB)


def test_a_disk_goes_there_and_back(tmp_path: Path) -> None:
    """Fails if the suffix does not pick the format, or the hash that is kept is not the disk's."""
    (tmp_path / "disk.raw").write_bytes(DISK)
    program = Program(tmp_path)
    options = ("-o", "compression=lz4", "-o", "examiner=Ann", "-o", "hash=md5")
    program.ok("capture", "disk.raw", "disk.aff4", *options)
    found = program.ok("info", "disk.aff4", "--json").json
    assert found["format"] == "aff4"
    assert found["size"] == len(DISK)
    verified = program.ok("verify", "disk.aff4", "--json").json
    assert verified["ok"] is True
    assert set(verified["hashes"]) >= {"md5"}
    program.ok("check", "disk.aff4")
    program.ok("convert", "disk.aff4", "back.raw")
    assert (tmp_path / "back.raw").read_bytes() == DISK


def test_a_flipped_bit_is_found_and_placed(tmp_path: Path) -> None:
    """Fails if damage passes, or is not told by its place on the disk."""
    (tmp_path / "disk.raw").write_bytes(DISK)
    program = Program(tmp_path)
    program.ok("convert", "disk.raw", "disk.aff4", "-o", "compression=none")
    image = bytearray((tmp_path / "disk.aff4").read_bytes())
    image[image.index(DISK[70_000:70_032])] ^= 1
    (tmp_path / "disk.aff4").write_bytes(image)
    verified = program("verify", "disk.aff4", "--json")
    assert verified.exit_code == 1
    assert [item["offset"] for item in verified.json["damage"]] == [65536]
    checked = program("check", "disk.aff4")
    assert checked.exit_code == 1
    assert "0x10000" in checked.text


def test_bad_areas_stay_bad_when_an_image_is_converted(tmp_path: Path) -> None:
    """Fails if what a medium did not give becomes zeros on the way to another image."""
    storage = MemoryStorage(name="bad.aff4")
    target = FORMAT.create(storage, CreateSpec(len(DISK), DictOpener()))
    target.write(memoryview(DISK), 0)
    target.document({}, [Extent(5 * 512, 1024, Kind.BAD)])
    target.commit()
    (tmp_path / "bad.aff4").write_bytes(storage.content)
    program = Program(tmp_path)
    assert program("convert", "bad.aff4", "again.aff4", "-o", "compression=zlib").exit_code == 6
    lines = program.ok("map", "again.aff4", "--json").json_lines
    bad = [(line["offset"], line["length"]) for line in lines if line["kind"] == "bad"]
    assert bad == [(5 * 512, 1024)]
