"""The gate: no image opens what the user has not allowed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from imprint.core.contracts import Reference
from imprint.core.errors import PassphraseError, ReferenceRefusedError
from imprint.endpoints.gate import FolderGate
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def image(tmp_path: Path) -> FileStorage:
    """An image in a folder of its own, with a parent beside it."""
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "child.raw").write_bytes(bytes(512))
    (folder / "parent.raw").write_bytes(b"p" * 512)
    (folder / "sub" / "deep.raw").write_bytes(b"d" * 512)
    (tmp_path / "secret.raw").write_bytes(b"s" * 512)
    return FileStorage.open(folder / "child.raw")


def _read(gate: FolderGate, image: FileStorage, name: str) -> bytes:
    source = gate.parent(Reference(name, "raw"), image)
    buffer = bytearray(source.size)
    source.readinto(memoryview(buffer), 0)
    return bytes(buffer)


def test_a_parent_beside_the_image_is_opened(image: FileStorage) -> None:
    """Fails if ordinary overlays do not work."""
    assert _read(FolderGate(), image, "parent.raw") == b"p" * 512
    assert _read(FolderGate(), image, str(image.path.parent / "parent.raw")) == b"p" * 512


@pytest.mark.parametrize(
    "name",
    [
        "../secret.raw",
        "sub/deep.raw",
        "/etc/hostname",
        "/dev/zero",
        "/proc/self/environ",
        "json:{}",
        "nbd://localhost/x",
        "file:parent.raw",
        "https://example.org/x",
        "",
        ".",
        "parent\0.raw",
        "missing.raw",
        "link.raw",
        "pipe",
        "loop.raw",
        "a" * 300,
        "a/" * 3000,
        "\ud800",
    ],
)
def test_everything_else_is_refused(image: FileStorage, name: str) -> None:
    """Fails if an image can make us read a file of its choice."""
    (image.path.parent / "link.raw").symlink_to("../secret.raw")
    (image.path.parent / "loop.raw").symlink_to("loop.raw")
    os.mkfifo(image.path.parent / "pipe")
    with pytest.raises(ReferenceRefusedError) as caught:
        FolderGate().parent(Reference(name, "raw"), image)
    assert caught.value.exit_code == 3


def test_a_folder_that_the_user_names_is_permitted(image: FileStorage, tmp_path: Path) -> None:
    """Fails if --allow-parent does not permit what the refusal says that it would."""
    with pytest.raises(ReferenceRefusedError, match="names") as caught:
        FolderGate().parent(Reference("../secret.raw", "raw"), image)
    assert f"--allow-parent {tmp_path}" in (caught.value.advice or "")
    assert _read(FolderGate(allowed=[tmp_path]), image, "../secret.raw") == b"s" * 512
    assert _read(FolderGate(allowed=[tmp_path]), image, "/gone/secret.raw") == b"s" * 512


def test_a_file_that_comes_twice_is_a_loop(image: FileStorage) -> None:
    """Fails if a chain that leads back to itself is followed for ever."""
    gate = FolderGate()
    with pytest.raises(ReferenceRefusedError, match="loop"):
        gate.parent(Reference("child.raw", "raw"), image)
    os.link(image.path, image.path.with_name("alias.raw"))
    with pytest.raises(ReferenceRefusedError, match="loop"):
        FolderGate().parent(Reference("alias.raw", "raw"), image)


def test_a_lenient_gate_fails_when_the_parent_is_read(image: FileStorage) -> None:
    """Fails if `info` of a lonely image dies, or its holes read as zeros."""
    parent = FolderGate(lenient=True).parent(Reference("missing.raw", "raw"), image)
    with pytest.raises(ReferenceRefusedError):
        parent.readinto(memoryview(bytearray(1)), 0)


def test_an_image_that_is_no_file_has_no_neighbours() -> None:
    """Fails if an image from the network can name local files."""
    with pytest.raises(ReferenceRefusedError):
        FolderGate().parent(Reference("/etc/hostname", "raw"), MemoryStorage(bytes(512)))


def test_without_a_passphrase_the_advice_says_where_to_put_it() -> None:
    """Fails if an encrypted image fails without saying why."""
    with pytest.raises(PassphraseError, match="expected a passphrase"):
        FolderGate().passphrase("disk.qcow2")
