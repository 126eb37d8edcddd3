"""The same disk gives the same file twice, if its UUID and its time are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from imprint import formats

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.testing.program import Program

UUID = "6a1f2f6e-3d0c-4e5b-9a55-0f3f7a8f0c11"
WRITABLE = [name for name in formats.names() if formats.get(name).support.write]


@pytest.mark.parametrize("name", WRITABLE)
@pytest.mark.parametrize("options", [[], ["-o", "compression=zstd"]], ids=["plain", "zstd"])
def test_an_image_can_be_made_again(
    program: Program, disk: Path, tmp_path: Path, name: str, options: list[str]
) -> None:
    """Fails if two builds of one image differ, so that nobody can check one by the other."""
    known = {option.name: option.choices for option in formats.get(name).options}
    if options and "zstd" not in known.get("compression", ()):
        pytest.skip(f"{name} has no Zstandard compression")
    for folder in ("one", "two"):  # not two names: some formats write their own into the file
        (tmp_path / folder).mkdir()
        result = program(
            *("convert", disk.name, f"{folder}/disk", "-O", name, "--uuid", UUID, *options),
            environment={"SOURCE_DATE_EPOCH": "1700000000"},
        )
        assert result.exit_code == 0, result.err
    assert (tmp_path / "one/disk").read_bytes() == (tmp_path / "two/disk").read_bytes()


def test_a_time_that_is_none_is_a_usage_error(program: Program, disk: Path) -> None:
    """Fails if a wrong variable is ignored, and the image differs for no visible reason."""
    result = program("convert", disk.name, "t.vdi", environment={"SOURCE_DATE_EPOCH": "yesterday"})
    assert result.exit_code == 2
    assert "SOURCE_DATE_EPOCH" in result.err
