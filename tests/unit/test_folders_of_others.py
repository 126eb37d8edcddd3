"""Files in folders that may not be searched."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import ReadError, TargetError
from imprint.core.system import exists, is_file, is_folder
from imprint.endpoints.images import create
from imprint.endpoints.open import Access, open_source
from imprint.endpoints.target import TargetRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534


@contextmanager
def without_rights(folder: Path) -> Iterator[None]:
    """A folder that may not be searched, and nobody who may do so all the same."""
    user = os.geteuid()
    folder.chmod(0)
    if not user:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(0o755)


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file in it, both out of reach."""
    folder = tmp_path / "closed"
    folder.mkdir()
    (folder / "disk.raw").write_bytes(bytes(1024))
    with without_rights(folder):
        yield folder


@pytest.mark.parametrize("name", ["", "/disk.raw", "/disk.raw#p1", "/none.E01", "/none.001"])
def test_reading_there_is_refused_and_no_fault_of_the_program(closed: Path, name: str) -> None:
    """Fails if the system's refusal comes through as an exception of Python's own."""
    with pytest.raises(ReadError, match="permission denied"):
        open_source(f"{closed}{name}")


@pytest.mark.parametrize("name", ["/new.qcow2", "/new.vmdk", "/new.001"])
def test_writing_there_is_refused_and_no_fault_of_the_program(closed: Path, name: str) -> None:
    """Fails if the system's refusal comes through as an exception of Python's own."""
    with pytest.raises(TargetError, match="permission denied"):
        create(TargetRequest(f"{closed}{name}"), 1024, Access())


def test_a_path_inside_of_an_image_there_is_refused_too(closed: Path) -> None:
    """Fails if looking for the colon of a path stumbles."""
    with pytest.raises(ReadError):
        open_source(f"{closed}/disk.raw:/etc/hostname")


def test_what_cannot_be_looked_at_counts_as_absent(closed: Path) -> None:
    """Fails if a question has an exception for an answer."""
    for path in (closed / "disk.raw", closed / ("long" * 100)):
        assert not any(asked(path) for asked in (exists, is_file, is_folder))
