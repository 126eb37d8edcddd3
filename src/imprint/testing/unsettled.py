"""Volumes that were not unmounted: changes that only a journal has, and who tells of them."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.units import KIB
from imprint.endpoints.browsing import BrowsedVolume, opened_tree
from imprint.filesystems import identify
from imprint.filesystems.tree import Type
from imprint.filesystems.walking import walk
from imprint.storage.file import FileStorage
from imprint.testing.file_trees import of_folder, of_tree
from imprint.testing.oracles import run
from imprint.testing.volumes import mounted

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.testing.file_trees import Told

LOST: Final = "/lost+found"
_WITH_ATTRIBUTES: Final = (Type.FILE, Type.DIRECTORY)


class State(NamedTuple):
    """What is on a volume.

    Attributes:
        told: facts and contents, by path.
        attributes: of files and folders, by path; those that have none are left out.
        notes: what our reader said.
    """

    told: dict[str, Told]
    attributes: dict[str, dict[str, bytes]]
    notes: tuple[str, ...] = ()


def prepare(folder: Path) -> None:
    """Files that are on the disk, to be changed later."""
    dice = random.Random(11)
    for name in ("kept", "deleted", "renamed", "replaced", "cut", "grown", "patched", "dressed"):
        (folder / name).write_bytes(dice.randbytes(60_000))
    for name in ("gone", "moved"):
        (folder / name).mkdir()
        for number in range(150):
            (folder / name / f"a name of some length {number}").write_bytes(b"x" * number)
    os.setxattr(folder / "dressed", "user.old", b"old")
    run("sync", "-f", folder)


def unsettle(folder: Path) -> None:
    """Change them in all ways, and more, so that the journal has it and the disk need not."""
    dice = random.Random(12)
    (folder / "deleted").unlink()
    (folder / "renamed").rename(folder / "moved" / "renamed")
    (folder / "kept").rename(folder / "replaced")
    os.truncate(folder / "cut", 5000)
    with (folder / "grown").open("ab") as file:
        file.write(dice.randbytes(100_000))
    with (folder / "patched").open("r+b") as file:
        for place in range(0, 60 * 80 * KIB, 80 * KIB):  # a tree of extents
            file.seek(place)
            file.write(dice.randbytes(700))
    dressed = folder / "dressed"
    dressed.chmod(0o4751)
    os.chown(dressed, 1234, 70_000)
    os.removexattr(dressed, "user.old")
    for number in range(6):
        os.setxattr(dressed, f"user.small{number}", dice.randbytes(70))
    os.utime(dressed, ns=(1_234_567_890_123_456_789, 987_654_321_000_000_001))
    shutil.rmtree(folder / "gone")
    (folder / "moved").rename(folder / "over there")
    names = folder / "many names"
    names.mkdir()
    for number in range(1500):
        (names / f"a name of some length {number}").touch()
    for number in range(0, 1500, 3):
        (names / f"a name of some length {number}").unlink()
    for number in range(40):  # where the removed folder had its blocks
        (folder / f"new{number}").write_bytes(dice.randbytes(dice.choice((0, 3000, 9000))))
    (folder / "short").symlink_to("kept")
    (folder / "long").symlink_to("x" * 700)
    os.link(folder / "grown", folder / "over there" / "grown, too")
    os.mkfifo(folder / "pipe")
    for path in (*(folder.glob("new*")), folder / "patched", folder / "grown", folder):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)


def of_kernel(path: Path, *options: str) -> State:
    """What a mount of a copy shows, which replays unless the options say otherwise."""
    copy = path.with_name(f"{path.name}.copy")
    run("cp", "--sparse=always", path, copy)
    attributes = {}
    with mounted(copy, *options) as folder:
        told = of_folder(folder, left_out=[LOST])
        for name, item in told.items():
            if item.type in _WITH_ATTRIBUTES:
                found = folder / name[1:]
                attributes[name] = {key: os.getxattr(found, key) for key in os.listxattr(found)}
    copy.unlink()
    return State(told, {name: values for name, values in attributes.items() if values})


def ours(path: Path, *, replays: bool) -> State:
    """What our reader says."""
    with closing(FileStorage.open(path)) as volume:
        return of_volume(volume, replays=replays)


def of_volume(volume: Source, *, replays: bool) -> State:
    """The same of any source."""
    found = identify(volume)
    assert found is not None
    browsed = BrowsedVolume("", found.kind, None, volume, "disk")
    _, files = opened_tree(browsed, replays=replays)
    with closing(files):
        told = of_tree(files, left_out=[LOST])
        attributes = {
            entry.path: files.attributes(entry)
            for entry in walk(files)
            if entry.path in told and entry.type in _WITH_ATTRIBUTES
        }
        notes = tuple(dict.fromkeys(files.notes))
    return State(told, {name: values for name, values in attributes.items() if values}, notes)
