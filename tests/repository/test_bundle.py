"""Snapshots in one file: what tar unpacks is a repository, and what was packed comes back."""

from __future__ import annotations

import io
import subprocess
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from imprint.core.errors import (
    CorruptImageError,
    PassphraseError,
    RefusedError,
    TargetError,
)
from imprint.objects.bundle import BundleStore, BundleWriter
from imprint.objects.contract import MissingObjectError
from imprint.objects.local import LocalStore
from imprint.objects.memory import MemoryStore
from imprint.repository.bundle import export_snapshots, import_snapshots
from imprint.repository.copying import CopyOptions
from imprint.repository.repository import Repository
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.small_repositories import disk_content, put_disk, read_disk, small_repository

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imprint.repository.snapshots import Snapshot

OPTIONS = CopyOptions(workers=1)


class Pipe(io.RawIOBase):
    """Takes bytes, a few at a time, and cannot seek."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(memoryview(data)[:50_000])  # type: ignore[arg-type]
        self.taken += piece
        return len(piece)


def exported(repository: Repository, snapshots: Sequence[Snapshot]) -> bytes:
    """A bundle, through a pipe."""
    pipe = Pipe()
    writer = BundleWriter(pipe, "bundle.tar", time_s=0)  # type: ignore[arg-type]
    export_snapshots(repository, writer, snapshots, OPTIONS)
    writer.finish()
    return bytes(pipe.taken)


def opened(bundle: bytes, secret: bytes = b"") -> Repository:
    store = BundleStore(MemoryStorage(bundle, writable=False))
    return Repository.open(store, lambda _: secret)


@pytest.mark.oracle("tar")
def test_what_tar_unpacks_is_a_repository(tmp_path: Path) -> None:
    """A bundle can be read for as long as there is tar."""
    repository = small_repository()
    content = disk_content(40)
    snapshot = put_disk(repository, content)
    other = put_disk(repository, disk_content(8, seed=1), image="other", minute=1)
    (tmp_path / "bundle.tar").write_bytes(exported(repository, [snapshot]))
    folder = tmp_path / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "bundle.tar", "-C", folder], check=True)
    unpacked = Repository.open(LocalStore(folder), lambda _: b"")
    assert [item.name for item in unpacked.snapshots()] == [snapshot.name]
    assert other.name not in {item.name for item in unpacked.snapshots()}
    assert read_disk(unpacked, snapshot) == content
    assert not (folder / "sessions").exists(), "nobody is adding to a bundle"


def test_the_archive_is_sound_to_the_tar_of_python() -> None:
    """Another reader agrees on names and sizes, and finds the end."""
    repository = small_repository()
    snapshot = put_disk(repository, disk_content(8))
    bundle = exported(repository, [snapshot])
    with tarfile.open(fileobj=io.BytesIO(bundle)) as archive:
        names = archive.getnames()
        assert names[0] == "format"
        assert names[-1] == f"snapshots/{snapshot.name}"
        assert {name.partition("/")[0] for name in names} == {
            "format",
            "packs",
            "index",
            "snapshots",
        }


def test_an_encrypted_repository_gives_an_encrypted_bundle_with_its_keys() -> None:
    """A bundle on a stick must not be readable by who finds it."""
    store = MemoryStore()
    repository = Repository.create(store, secret=b"correct horse")
    content = disk_content(24)
    snapshot = put_disk(repository, content)
    bundle = exported(repository, [snapshot])
    assert content[:64] not in bundle
    with pytest.raises(PassphraseError):
        opened(bundle, b"wrong")
    again = opened(bundle, b"correct horse")
    assert [item.name for item in again.snapshots()] == [snapshot.name]
    assert read_disk(again, snapshot) == content


def test_what_was_exported_comes_back() -> None:
    """Also into a repository that has another encryption, and something else already."""
    repository = small_repository()
    content = disk_content(24)
    snapshot = put_disk(repository, content)
    bundle = exported(repository, [snapshot])
    target = Repository.create(MemoryStore(), secret=b"correct horse")
    put_disk(target, disk_content(8, seed=1), image="other")
    ((_, new),) = import_snapshots(opened(bundle), target, OPTIONS).copied
    assert read_disk(target, new) == content
    assert import_snapshots(opened(bundle), target, OPTIONS).copied == []


def test_a_repository_is_not_exported_over_another() -> None:
    """Two repositories in one place would be none."""
    repository = small_repository()
    with pytest.raises(RefusedError):
        export_snapshots(repository, repository.store, [], OPTIONS)


def test_a_bundle_is_only_read(tmp_path: Path) -> None:
    """Whoever wants to add imports it."""
    repository = small_repository()
    put_disk(repository, disk_content(8))
    path = tmp_path / "bundle.tar"
    path.write_bytes(exported(repository, repository.snapshots()))
    with closing(BundleStore(FileStorage.open(path))) as store:
        with pytest.raises(RefusedError):
            store.put("tags/x", (b"",))
        with pytest.raises(RefusedError):
            store.delete("format")
        with pytest.raises(MissingObjectError):
            store.get("nothing")
        size = store.stat("format")
        assert size is not None
        assert store.get_range("format", 3, 5) == store.get("format")[3:8]
        assert store.get_range("format", size.size - 2, 99) == store.get("format")[-2:]
        assert store.get_range("format", size.size + 2, 99) == b""


def test_a_bundle_that_is_written_changes_nothing_it_has() -> None:
    """What is in the pipe is gone."""
    writer = BundleWriter(io.BytesIO(), "bundle.tar")
    writer.put("tags/x", (b"1", b"2"))
    with pytest.raises(TargetError):
        writer.put("tags/x", (b"1",))
    with pytest.raises(TargetError):
        writer.delete("tags/x")
    writer.put("sessions/x", (b"1",))
    assert [item.name for item in writer.list("sessions/")] == ["sessions/x"]
    writer.delete("sessions/x")
    assert list(writer.list("sessions/")) == []


def test_a_cut_bundle_is_refused() -> None:
    """A copy that ended early must not look like a small repository."""
    repository = small_repository()
    put_disk(repository, disk_content(8))
    bundle = exported(repository, repository.snapshots())
    with pytest.raises(CorruptImageError):
        BundleStore(MemoryStorage(bundle[:5000]))
