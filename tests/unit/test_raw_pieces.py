"""Raw images in pieces, as imagers of evidence write them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import CorruptImageError
from imprint.core.units import KIB
from imprint.endpoints.open import open_image
from imprint.testing.oracles import run
from imprint.testing.program import Program

if TYPE_CHECKING:
    from pathlib import Path

DISK = random.Random(1).randbytes(300 * KIB) + bytes(200 * KIB) + b"end"


def pieces(tmp_path: Path, size: int = 128 * KIB, first: int = 1) -> Path:
    """As split(1) would cut it."""
    for number, start in enumerate(range(0, len(DISK), size), first):
        (tmp_path / f"disk.{number:03d}").write_bytes(DISK[start : start + size])
    return tmp_path / f"disk.{first:03d}"


def test_pieces_are_one_disk(tmp_path: Path) -> None:
    """Fails if a piece is left out, or a border is off by one."""
    with open_image(str(pieces(tmp_path))) as image:
        assert image.read_at(0, image.size) == DISK
        assert image.read_at(128 * KIB - 3, 7) == DISK[128 * KIB - 3 :][:7]
        assert image.info().options["pieces"] == 4
        assert "as one disk" in image.info().warnings[0]


@pytest.mark.oracle("split")
@pytest.mark.parametrize(
    ("suffixes", "first"),
    [
        (("--numeric-suffixes=1", "-a", "2"), "disk.01"),
        (("-a", "2"), "disk.aa"),
        (("-a", "3"), "disk.aaa"),
    ],
)
def test_pieces_are_found_however_imagers_count_them(
    tmp_path: Path, suffixes: tuple[str, ...], first: str
) -> None:
    """Fails if only the first piece of what dcfldd, dc3dd or split have cut is read.

    There are more pieces than letters.
    """
    run("split", *suffixes, "--bytes=16K", "-", tmp_path / "disk.", stdin=DISK)
    assert len(list(tmp_path.iterdir())) == 32
    with open_image(str(tmp_path / first)) as image:
        assert image.read_at(0, image.size) == DISK


@pytest.mark.parametrize(("number", "other"), [(0, "disk.001"), (1, "disk.000")])
def test_what_is_counted_from_0_is_read_file_by_file(
    tmp_path: Path, number: int, other: str
) -> None:
    """Fails if a file of another meaning is joined with others, or nobody is told of them."""
    pieces(tmp_path, first=0)
    with open_image(str(tmp_path / f"disk.00{number}")) as image:
        assert image.read_at(0, image.size) == DISK[128 * KIB * number :][: 128 * KIB]
        assert other in image.info().warnings[0]


def test_a_single_file_of_that_name_is_a_disk(tmp_path: Path) -> None:
    """Fails if other files in the folder are taken for pieces."""
    first = pieces(tmp_path, size=1 << 20)
    (tmp_path / "other.002").write_bytes(b"x")
    (tmp_path / "xdisk.002").write_bytes(b"x")
    with open_image(str(first)) as image:
        assert image.read_at(0, image.size) == DISK
        assert not image.info().warnings


def test_a_missing_piece_is_an_error(tmp_path: Path) -> None:
    """Fails if a disk with a hole in it is read as a shorter one, or shifted."""
    first = pieces(tmp_path)
    (tmp_path / "disk.003").unlink()
    with pytest.raises(CorruptImageError, match=r"disk\.003"):
        open_image(str(first))


def test_pieces_of_other_sizes_are_refused(tmp_path: Path) -> None:
    """Fails if a piece that was cut off shifts all that follows."""
    first = pieces(tmp_path)
    (tmp_path / "disk.002").write_bytes(DISK[:1000])
    with pytest.raises(CorruptImageError, match="expected a piece"):
        open_image(str(first))


def test_what_is_written_in_pieces_is_the_disk(tmp_path: Path) -> None:
    """Fails if the pieces put together by cat are not the disk, or one has another size."""
    (tmp_path / "disk.raw").write_bytes(DISK)
    program = Program(tmp_path)
    program.ok("convert", "disk.raw", "new.001", "-o", "split=128K")
    made = sorted(tmp_path.glob("new.*"))
    assert [path.name for path in made] == ["new.001", "new.002", "new.003", "new.004"]
    assert [path.stat().st_size for path in made[:3]] == [128 * KIB] * 3
    assert b"".join(path.read_bytes() for path in made) == DISK
    assert program("compare", "disk.raw", "new.001").exit_code == 0


def test_pieces_of_an_older_image_do_not_stay_behind(tmp_path: Path) -> None:
    """Fails if what is left of a longer set is read as the end of a shorter one."""
    (tmp_path / "disk.raw").write_bytes(DISK)
    program = Program(tmp_path)
    program.ok("convert", "disk.raw", "new.001", "-o", "split=64K")
    assert program("convert", "disk.raw", "new.001", "-o", "split=256K").exit_code == 5
    done = program("convert", "disk.raw", "new.001", "-o", "split=256K", "--force")
    assert done.exit_code == 0
    assert len(list(tmp_path.glob("new.*"))) == 2
    (tmp_path / "new.001").unlink()
    (tmp_path / "new.002").rename(tmp_path / "new.003")
    assert program("convert", "disk.raw", "new.001", "-o", "split=256K").exit_code == 5
    assert [path.name for path in tmp_path.glob("new.*")] == ["new.003"]


@pytest.mark.parametrize(
    ("name", "options"),
    [("new.raw", "split=128K"), ("new.001", "split=1"), ("new.01", "split=4K")],
)
def test_splits_that_make_no_sense_are_refused(tmp_path: Path, name: str, options: str) -> None:
    """Fails if files get names that nobody finds again."""
    (tmp_path / "disk.raw").write_bytes(DISK)
    done = Program(tmp_path)("convert", "disk.raw", name, "-O", "raw", "-o", options)
    assert done.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["disk.raw"]


def test_split_is_what_the_format_calls_it(tmp_path: Path) -> None:
    """Fails if a capture ignores the size of files that was asked for."""
    (tmp_path / "disk.raw").write_bytes(DISK)
    program = Program(tmp_path)
    program.ok("capture", "disk.raw", "new.001", "--split", "128K")
    assert len(list(tmp_path.glob("new.00?"))) == 4
    assert program("capture", "disk.raw", "new.vdi", "--split", "128K").exit_code == 2
