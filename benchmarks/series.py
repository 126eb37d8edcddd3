"""Three disks of 4 GiB as a repository meets them, to measure with.

A is half full of files of this machine; what is free holds bytes of deleted files. B is the same
disk after an upgrade that replaced a twentieth of it. C is a sibling: four fifths of the same
files in another order at other places, under other identities, with other stale bytes.

    python benchmarks/series.py ext4 FOLDER 4G

Kinds: ``ext4``, ``ntfs``, and ``opaque``: the ext4 disks with a root file system that nobody knows.
Needs root. Changes come in whole files, as upgrades bring them; databases change otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.aged import KINDS as FILE_SYSTEMS
from benchmarks.content import BLOCK_BYTES, files_below
from imprint.core.units import KIB, MIB, align_up, parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAMES: Final = ("A", "B", "C")
KINDS: Final = ("ext4", "ntfs", "opaque")
SOURCE: Final = "/usr"

LIVE: Final = 0.5
"""Share of the disk that files take up in the end."""

SHARED: Final = 0.8
"""Share of C's files that A has too."""

CHANGED: Final = 0.05
"""Share of the files, and of their bytes, that an upgrade replaces."""

_ROOM_LEFT: Final = 40 * MIB
_FILE_BYTES_MAX: Final = 64 * MIB
_GROUP_BYTES: Final = 8 * MIB
_GROUP_FILES: Final = 300
_GROUP_DEPTH: Final = 4
_SYNC_EVERY: Final = 32
_ESP_MIB: Final = 64
_ROOT_MIB: Final = 66
_TYPES: Final = {"ext4": "L", "ntfs": "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7"}
_KINDS_OF_CHANGE: Final = (4, 4, 2)
_PACKAGES: Final = 20
_PACKAGE_BYTES: Final = 3 * MIB
_EDIT_BYTES: Final = 64 * KIB
_MAGIC_OFFSET: Final = 1024 + 56
_MAGIC: Final = b"\x53\xef"
_NO_MAGIC: Final = b"\x54\xef"


class Group(NamedTuple):
    """Files that come and go together, as those of a package do; their names and the room."""

    name: str
    files: tuple[Path, ...]
    room: int


@dataclass(frozen=True)
class Choice:
    """Which files are on the disks.

    Attributes:
        live: on A.
        stale: were on A.
        sibling: on C.
        sibling_stale: were on C.
    """

    live: list[Group]
    stale: list[Group]
    sibling: list[Group]
    sibling_stale: list[Group]


def number_of(*words: object) -> int:
    """The same number for the same words, anywhere; another for others."""
    text = "\0".join(map(str, words)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big")


def ordered(groups: Sequence[Group], purpose: object) -> list[Group]:
    """In an order that looks random, and is another for every purpose."""
    return sorted(groups, key=lambda group: number_of(purpose, group.name))


def choose(groups: Sequence[Group], live: float) -> Choice:
    """Divide the files of this machine among the disks.

    Args:
        groups: all there are.
        live: bytes that A holds.
    """
    chosen = _up_to(ordered(groups, "pick"), live)
    names = {group.name for group in chosen}
    others = [group for group in groups if group.name not in names]
    kept = _up_to(ordered(chosen, "keep"), live * SHARED)
    added = _up_to(ordered(others, "add"), live - live * SHARED)
    names = {group.name for group in added}
    rest = [group for group in others if group.name not in names]
    return Choice(chosen, ordered(others, "stale"), [*kept, *added], ordered(rest, "sibling stale"))


def groups_of(files: Sequence[Path], root: Path) -> list[Group]:
    """Files by folder; large folders in several groups."""
    folders: dict[str, list[tuple[Path, int]]] = {}
    for path in files:
        size = path.stat().st_size
        if size <= _FILE_BYTES_MAX:
            parts = path.relative_to(root).parts[:-1][:_GROUP_DEPTH]
            folders.setdefault("/".join(parts), []).append((path, align_up(size, BLOCK_BYTES)))
    found: list[Group] = []
    for name, members in folders.items():
        some: list[Path] = []
        room = 0
        for path, size in members:
            some.append(path)
            room += size
            if room >= _GROUP_BYTES or len(some) == _GROUP_FILES:
                found.append(Group(f"{name}#{len(found)}", tuple(some), room))
                some, room = [], 0
        if some:
            found.append(Group(f"{name}#{len(found)}", tuple(some), room))
    return found


def rebuilt(path: Path, content: bytes) -> bytes:
    """A file as the next version of its package has it.

    Of ten, four are the same, four have edits in half of their 64 KiB and are shifted by an
    insertion, two have nothing in common with the old one but the frequencies of their bytes.
    """
    dice = random.Random(number_of("change", path))
    kind = dice.choices(("same", "edited", "new"), _KINDS_OF_CHANGE)[0]
    if kind == "same" or not content:
        return content
    if kind == "new":
        table = list(range(256))
        dice.shuffle(table)
        return content.translate(bytes(table))
    edited = bytearray(content)
    for start in range(0, len(edited), _EDIT_BYTES):
        if dice.getrandbits(1):
            for _ in range(8):
                at = start + dice.randrange(_EDIT_BYTES)
                if at + 16 <= len(edited):
                    edited[at : at + 16] = dice.randbytes(16)
    at = dice.randrange(len(edited))
    edited[at:at] = dice.randbytes(dice.randrange(1, 64)) * dice.randrange(1, 64)
    return bytes(edited)


def make_series(folder: Path, kind: str, size: int) -> None:
    """Write the disks that are not there yet, as ``A.raw``, ``B.raw`` and ``C.raw``."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.raw" for name in NAMES}
    if kind == "opaque":
        make_series(folder.parent / "ext4", "ext4", size)
        for path in paths.values():
            if not path.exists():
                _make_opaque(folder.parent / "ext4" / path.name, path)
        return
    if all(path.exists() for path in paths.values()):
        return
    choice = choose(groups_of(files_below((SOURCE,)), Path(SOURCE)), size * LIVE)
    found = sum(group.room for group in choice.live)
    if found < 0.9 * size * LIVE:
        raise SystemExit(f"series.py: expected {int(size * LIVE)} bytes in {SOURCE}, found {found}")
    partial = folder / "disk.partial"
    _make_empty(partial, kind, size)
    with _mounted(partial, kind) as root:
        _fill(root, choice.live, choice.stale, seed=1)
    partial.rename(paths["A"])
    _copy(paths["A"], partial)
    with _mounted(partial, kind) as root:
        _upgrade(root, choice.live)
    partial.rename(paths["B"])
    _make_empty(partial, kind, size)
    with _mounted(partial, kind) as root:
        _fill(root, choice.sibling, choice.sibling_stale, seed=2)
    partial.rename(paths["C"])


def root_of(disk: Path) -> tuple[int, int]:
    """Where the last partition of a disk begins, and its length, in bytes."""
    text = _run("sfdisk", "--dump", str(disk)).decode()
    fields = text.strip().splitlines()[-1].partition(" : ")[2].split(",")
    numbers = {name.strip(): value for name, _, value in (field.partition("=") for field in fields)}
    return int(numbers["start"]) * 512, int(numbers["size"]) * 512


@contextlib.contextmanager
def attached(disk: Path, *, writable: bool = False) -> Iterator[str]:
    """The disk's last partition as a device."""
    start, length = root_of(disk)
    words = ["losetup", "--find", "--show", f"--offset={start}", f"--sizelimit={length}"]
    device = _run(*words, *([] if writable else ["--read-only"]), str(disk)).decode().strip()
    try:
        yield device
    finally:
        _run("losetup", "--detach", device)


def _make_empty(path: Path, kind: str, size: int) -> None:
    """A disk with an EFI system partition and an empty root file system."""
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    table = (
        "label: gpt\n"
        f"start=2MiB, size={_ESP_MIB}MiB, type=U\n"
        f"start={_ROOT_MIB}MiB, type={_TYPES[kind]}\n"
    )
    _run("sfdisk", "--quiet", str(path), text=table)
    loader = path.with_suffix(".esp")
    with loader.open("wb") as file:
        file.truncate(_ESP_MIB * MIB)
    _run("mkfs.vfat", "-F", "32", "-s", "1", str(loader))
    with tempfile.NamedTemporaryFile(dir=path.parent) as program:
        program.write(random.Random(9).randbytes(900_000) * 2)
        program.flush()
        _run("mcopy", "-i", str(loader), program.name, "::BOOTX64.EFI")
    _run("dd", f"if={loader}", f"of={path}", "bs=1M", "seek=2", "conv=notrunc,sparse")
    loader.unlink()
    with attached(path, writable=True) as device:
        _run(*FILE_SYSTEMS[kind].make, device)


@contextlib.contextmanager
def _mounted(disk: Path, kind: str) -> Iterator[Path]:
    options = [word for word in FILE_SYSTEMS[kind].mount or () if word not in ("-o", "loop")]
    with attached(disk, writable=True) as device, tempfile.TemporaryDirectory() as root:
        _run("mount", *options, device, root)
        try:
            yield Path(root)
        finally:
            _run("umount", root)


def _fill(root: Path, live: list[Group], stale: list[Group], seed: int) -> None:
    """Write files, others between them until the disk is full, and delete these others."""
    deleted: list[Path] = []
    room = sum(group.room for group in live)
    leaving = max(0, shutil.disk_usage(root).free - room - _ROOM_LEFT)
    written = wasted = 0
    waiting = iter(stale)
    for number, group in enumerate(ordered(live, seed)):
        for path in group.files:
            _put(root / path.relative_to("/"), path.read_bytes())
        written += group.room
        # Both grow together, so that what is deleted lies between what stays.
        while wasted < leaving * written / room and (extra := next(waiting, None)):
            for path in extra.files:
                place = root / "old" / f"{number_of(path) % 256:02x}" / f"{number_of(path):x}"
                _put(place, path.read_bytes())
                deleted.append(place)
            wasted += extra.room
        if number % _SYNC_EVERY == 0:
            _run("sync", "-f", str(root))  # or all would get its place at the end
    dice = random.Random(seed)
    while shutil.disk_usage(root).free > _ROOM_LEFT:
        place = root / "old" / f"fill{len(deleted)}"
        line = b"%016x line of the log of a service\n" % dice.getrandbits(64)
        _put(place, dice.randbytes(4 * MIB) if len(deleted) % 2 else line * 100_000)
        deleted.append(place)
    _run("sync", "-f", str(root))
    for place in deleted:
        place.unlink()
    _put(root / "etc" / "machine-id", b"%032x\n" % number_of("machine", seed))
    _put(root / "var" / "lib" / "packages", _database(live, 4))
    _put(root / "var" / "log" / "syslog", _log(200_000, seed))
    _run("sync", "-f", str(root))


def _upgrade(root: Path, live: list[Group]) -> None:
    """Download packages, replace files by new ones, remove the packages, write logs."""
    total_files = sum(len(group.files) for group in live)
    total_room = sum(group.room for group in live)
    packages = [root / "var" / "cache" / f"p{number}.deb" for number in range(_PACKAGES)]
    for number, package in enumerate(packages):
        _put(package, random.Random(number).randbytes(_PACKAGE_BYTES))
    _run("sync", "-f", str(root))
    files = room = 0
    for group in ordered(live, "upgrade"):
        if files >= CHANGED * total_files and room >= CHANGED * total_room:
            break
        for path in group.files:
            _put(root / path.relative_to("/"), rebuilt(path, path.read_bytes()))
        files += len(group.files)
        room += group.room
    for package in packages:
        package.unlink()
    _put(root / "var" / "lib" / "packages", _database(live, 5))
    with (root / "var" / "log" / "syslog").open("ab") as log:
        log.write(_log(20_000, "upgrade"))
    _run("sync", "-f", str(root))


def _put(path: Path, content: bytes) -> None:
    """Write a file as package managers do: under another name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def _database(live: list[Group], version: int) -> bytes:
    return b"".join(
        b"Package: %s\nVersion: 1.%d\n\n" % (group.name.encode(), version) for group in live
    )


def _log(lines: int, seed: object) -> bytes:
    return b"".join(
        b"%d daemon: event %d\n" % (1_700_000_000 + 7 * line, number_of(seed, line) % 999)
        for line in range(lines)
    )


def _up_to(groups: Sequence[Group], room: float) -> list[Group]:
    """Groups in their order, leaving out those that no longer fit."""
    taken, total = [], 0
    for group in groups:
        if total + group.room <= room:
            taken.append(group)
            total += group.room
    return taken


def _make_opaque(disk: Path, path: Path) -> None:
    """The same bytes, but for the two by which everybody knows the file system."""
    partial = path.with_suffix(".partial")
    _copy(disk, partial)
    with partial.open("r+b") as file:
        file.seek(root_of(disk)[0] + _MAGIC_OFFSET)
        found = file.read(2)
        if found != _MAGIC:
            raise SystemExit(f"series.py: expected an ext4 file system in {disk}")
        file.seek(-2, 1)
        file.write(_NO_MAGIC)
    partial.rename(path)


def _copy(source: Path, target: Path) -> None:
    _run("cp", "--sparse=always", "--reflink=auto", str(source), str(target))


def _run(*command: str, text: str | None = None) -> bytes:
    given = None if text is None else text.encode()
    done = subprocess.run(command, check=False, input=given, capture_output=True)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise SystemExit(f"series.py: {command[0]}: {lines[-1] if lines else done.returncode}")
    return done.stdout


def main() -> int:
    """Make the disks that the arguments name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("size", type=parse_size)
    args = parser.parse_args()
    make_series(args.folder, args.kind, args.size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
