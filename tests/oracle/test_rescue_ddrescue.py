"""GNU ddrescue as the yardstick, on the same faults; and media that the kernel says are bad.

NIST CFTT, Digital Data Acquisition Tool Specification 4.0: AM-06 (all visible sectors), AM-08
(accurately), AM-09 (unresolved errors are reported), AM-10 (benign fill).
"""

from __future__ import annotations

import json
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from imprint.core.runs import Runs
from imprint.endpoints import copying
from imprint.endpoints.copying import CopyRequest
from imprint.endpoints.target import TargetRequest
from imprint.storage.memory import MemoryStorage
from imprint.testing.bad_device import TOOLS, bad_device
from imprint.testing.bad_medium import SECTOR, BadMedium, Faults, bad_map
from imprint.testing.program import Program
from imprint.transfer.rescue import mapfile
from imprint.transfer.rescue.engine import Engine
from imprint.transfer.rescue.sink import TargetSink
from imprint.transfer.rescue.states import Areas, State

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20
SIZE = 4 * MIB
CONTENT = random.Random(6).randbytes(SIZE)
LIMIT_S = 60


def _random_sectors(seed: int, count: int, longest: int) -> list[tuple[int, int]]:
    noise = random.Random(seed)
    last = SIZE // SECTOR - longest - 1
    return list(
        Runs.of(
            (noise.randrange(last) * SECTOR, noise.randint(1, longest) * SECTOR)
            for _ in range(count)
        )
    )


PATTERNS = {
    "single": [(SIZE // 2, 512)],
    "first": [(0, 512)],
    "run": [(MIB, 512 * 1024)],
    "alternating": [(MIB + index * 1024, 512) for index in range(200)],
    "every cluster": [(index * 65536 + 8192, 512) for index in range(0, 64, 2)],
    "scattered": _random_sectors(1, 100, 1),
    "mixed": _random_sectors(2, 20, 40),
    "few": _random_sectors(3, 5, 3),
}


class _NoKeeper:
    def save(self, areas: Areas, progress: mapfile.Progress) -> None:
        """Nobody looks at it."""


def _ddrescue(*words: str | Path) -> None:
    subprocess.run(
        ["ddrescue", "--quiet", *words], check=True, timeout=LIMIT_S, capture_output=True
    )


def _failing_in_ddrescue(folder: Path, bad: list[tuple[int, int]]) -> tuple[Areas, int]:
    """The map that ddrescue comes to, and how many of its reads fail; the copy is ``copy``."""
    image, theirs, log = (folder / part for part in ("medium", "map", "log"))
    image.write_bytes(CONTENT)
    faults = folder / "faults"
    faults.write_text(bad_map(SIZE, bad))
    _ddrescue("-H", faults, f"--log-reads={log}", image, folder / "copy", theirs)
    rows = [line.split() for line in log.read_text().splitlines() if line.startswith("0x")]
    areas, _ = mapfile.parse(theirs.read_text(), name="theirs")
    return areas, sum(1 for row in rows if int(row[-1]))


@pytest.mark.oracle("ddrescue")
@pytest.mark.parametrize("name", PATTERNS)
def test_no_more_reads_fail_than_those_of_ddrescue(name: str, tmp_path: Path) -> None:
    """AM-06, AM-09: fails if a dying disk has to suffer more than ddrescue demands of it.

    Both find the same bad sectors; the reads that fail are counted, as those that cost time.
    """
    bad = PATTERNS[name]
    found, failing = _failing_in_ddrescue(tmp_path, bad)
    medium = BadMedium(MemoryStorage(CONTENT), Faults(bad=tuple(bad)))
    target, areas = MemoryStorage(bytes(SIZE)), Areas(SIZE)
    sink = TargetSink(target, is_clear=True)
    Engine(medium, sink, areas, Runs.whole(SIZE), keeper=_NoKeeper()).run()

    assert found.runs(State.BAD) == areas.runs(State.BAD) == Runs.of(bad)
    assert bytes(target.content) == (tmp_path / "copy").read_bytes()
    assert failing >= len(PATTERNS[name])
    assert len(medium.failing) <= failing


@pytest.mark.oracle("ddrescue")
@pytest.mark.parametrize("name", PATTERNS)
def test_a_whole_capture_makes_no_more_reads_fail(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AM-06, AM-08: fails if reading ahead at full speed costs a dying disk more than ddrescue."""
    bad = PATTERNS[name]
    _, failing = _failing_in_ddrescue(tmp_path, bad)
    medium = BadMedium(MemoryStorage(CONTENT), Faults(bad=tuple(bad)))
    monkeypatch.setattr(copying, "open_source", lambda *_: medium)
    target = TargetRequest(str(tmp_path / "disk.raw"))
    copying.run(CopyRequest(str(tmp_path / "medium"), target, salvage=True))
    assert (tmp_path / "disk.raw").read_bytes() == (tmp_path / "copy").read_bytes()
    assert len(medium.failing) <= failing


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The program, in the test's folder."""
    return Program(tmp_path)


def _expected(bad: list[tuple[int, int]]) -> bytes:
    content = bytearray(CONTENT)
    for start, length in bad:
        content[start : start + length] = bytes(length)
    return bytes(content)


@pytest.mark.root
@pytest.mark.oracle(*TOOLS, "ddrescue", "ddrescuelog")
@pytest.mark.parametrize("suffix", ["raw", "E01"])
def test_a_real_device_loses_exactly_its_bad_sectors(
    program: Program, tmp_path: Path, suffix: str
) -> None:
    """AM-06, AM-08, AM-09, AM-10: fails if the page cache widens an error, or the end gets lost.

    The last sector is bad too: the image has the size of the device nevertheless.
    """
    bad = [(512, 512), (MIB + 512, 7 * 512), (SIZE - 512, 512)]
    with bad_device(tmp_path, CONTENT, bad) as device:
        done = program("capture", device, f"disk.{suffix}", "--json")
        _ddrescue("-d", device, tmp_path / "theirs.img", tmp_path / "theirs.map")
    assert done.exit_code == 6
    result = json.loads(done.out)
    assert [(area["offset"], area["length"]) for area in result["bad"]] == bad
    image = tmp_path / f"disk.{suffix}"
    if suffix != "raw":
        again = program("convert", image.name, "back.raw")
        assert again.exit_code == 6
        image = tmp_path / "back.raw"
    assert image.read_bytes() == _expected(bad)
    ours, _ = mapfile.parse((tmp_path / f"disk.{suffix}.map").read_text(), name="ours")
    theirs, _ = mapfile.parse((tmp_path / "theirs.map").read_text(), name="theirs", size=SIZE)
    assert ours.runs(State.GOOD) == theirs.runs(State.GOOD)
    listed = subprocess.run(
        ["ddrescuelog", "--list-blocks=-", tmp_path / f"disk.{suffix}.map"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert [int(sector) * 512 for sector in listed] == [
        position for start, length in bad for position in range(start, start + length, 512)
    ]


@pytest.mark.oracle("ddrescue", "ddrescuelog")
def test_what_ddrescue_has_begun_is_gone_on_with(program: Program, tmp_path: Path) -> None:
    """Fails if the map of a partial copy is not understood: the good half is not read again."""
    medium = tmp_path / "medium"
    medium.write_bytes(CONTENT)
    faults = tmp_path / "faults"
    faults.write_text(bad_map(SIZE, [(MIB, 65536)]))
    _ddrescue(
        *("-H", faults, f"--size={SIZE // 2}", medium, tmp_path / "copy.img", tmp_path / "copy.map")
    )
    result = json.loads(
        program.ok(
            *("capture", "medium", "copy.img", "--map", "copy.map", "--resume", "--json"),
            *("--retries", "1"),
        ).out
    )
    assert result["resumed_at"] == SIZE // 2 - 65536
    assert result["bytes_read"] == SIZE // 2 + 65536
    assert (tmp_path / "copy.img").read_bytes() == CONTENT
    subprocess.run(["ddrescuelog", "--done-status", tmp_path / "copy.map"], check=True)


@pytest.mark.oracle("ddrescue")
def test_ddrescue_goes_on_with_what_we_have_begun(tmp_path: Path) -> None:
    """Fails if our map is not understood by the tool whose syntax it has."""
    bad = [(MIB, 4096), (3 * MIB, 512)]
    medium = BadMedium(MemoryStorage(CONTENT), Faults(bad=tuple(bad)))
    target, areas = MemoryStorage(bytes(SIZE)), Areas(SIZE)
    sink = TargetSink(target, is_clear=True)
    Engine(medium, sink, areas, Runs.whole(SIZE), keeper=_NoKeeper()).run()
    for name, content in (("medium", CONTENT), ("copy", bytes(target.content))):
        (tmp_path / name).write_bytes(content)
    text = mapfile.render(areas, mapfile.Progress(SIZE, "+", 1))
    (tmp_path / "map").write_text(text)
    log = tmp_path / "log"
    _ddrescue(
        *("-r1", f"--log-reads={log}", tmp_path / "medium", tmp_path / "copy", tmp_path / "map")
    )
    assert (tmp_path / "copy").read_bytes() == CONTENT
    rows = [line for line in log.read_text().splitlines() if line.startswith("0x")]
    assert len(rows) == 9


@pytest.mark.oracle("ddrescue")
def test_a_partial_copy_of_ddrescue_is_converted_with_its_map(
    program: Program, tmp_path: Path
) -> None:
    """AM-09: fails if an image made from a partial copy does not say what it lacks."""
    bad = [(MIB, 512), (2 * MIB, 8192)]
    (tmp_path / "medium").write_bytes(CONTENT)
    (tmp_path / "faults").write_text(bad_map(SIZE, bad))
    _ddrescue(
        *("-H", tmp_path / "faults", tmp_path / "medium"),
        *(tmp_path / "copy.img", tmp_path / "copy.map"),
    )
    done = program("convert", "copy.img", "disk.E01", "--map", "copy.map")
    assert done.exit_code == 6
    lines = [json.loads(line) for line in program.ok("map", "disk.E01", "--json").out.splitlines()]
    found = [(line["offset"], line["length"]) for line in lines if line["kind"] == "bad"]
    assert found == bad


@pytest.mark.oracle("ddrescue")
def test_a_copy_that_ends_before_its_medium_becomes_an_image_of_all_of_it(
    program: Program, tmp_path: Path
) -> None:
    """AM-06, AM-09: fails if a bad end, or one that nobody has tried, shortens the image.

    ddrescue writes nothing behind the last sector that it has read.
    """
    tried = 3 * MIB
    bad = [(MIB, 512), (tried - 512, 512)]
    (tmp_path / "medium").write_bytes(CONTENT)
    (tmp_path / "faults").write_text(bad_map(SIZE, bad))
    _ddrescue(
        *("-H", tmp_path / "faults", f"--size={tried}"),
        *(tmp_path / "medium", tmp_path / "copy.img", tmp_path / "copy.map"),
    )
    assert (tmp_path / "copy.img").stat().st_size == tried - 512
    assert program("convert", "copy.img", "disk.E01", "--map", "copy.map").exit_code == 6
    program("convert", "disk.E01", "disk.raw")
    assert (tmp_path / "disk.raw").read_bytes() == _expected([*bad, (tried, SIZE - tried)])
    lines = [json.loads(line) for line in program.ok("map", "disk.E01", "--json").out.splitlines()]
    lacking = Runs.of((line["offset"], line["length"]) for line in lines if line["kind"] == "bad")
    assert lacking == Runs.of([*bad, (tried, SIZE - tried)])
