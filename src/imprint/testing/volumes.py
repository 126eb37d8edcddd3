"""Volumes for tests of allocation maps: made by ``mkfs``, filled, aged, frozen, emptied.

The test of a map is always the same: whatever it leaves out is overwritten with garbage, and
then nothing may be missing. The file system's own checker is content, and every file has
the content that it had. Mounting needs root and loop devices: mark such tests ``root``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.units import KIB, MIB
from imprint.storage.file import FileStorage
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from imprint.core.runs import Runs
    from imprint.filesystems.allocation import Allocation

GARBAGE: Final = random.Random(3).randbytes(MIB)
"""What stale blocks hold: nothing that looks like zeros, or like the data of a test."""


@contextlib.contextmanager
def mounted(path: Path, *options: str, kind: str | None = None) -> Iterator[Path]:
    """Mount a volume by a loop device, writable unless the options say otherwise."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = ["-t", kind] if kind else []
        run("mount", *chosen, "-o", ",".join(("loop", *options)), path, folder)
        try:
            yield Path(folder)
        finally:
            run("umount", folder)


@contextlib.contextmanager
def small_disk(kind: str, folder: Path, size: int) -> Iterator[Path]:
    """An empty ``tmpfs`` or ``ext4`` with room for less than ``size`` bytes, to be filled up."""
    point = folder / "small"
    point.mkdir()
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", point)
    else:
        image = folder / "small.img"
        image.touch()
        os.truncate(image, size)
        run("mkfs.ext4", "-q", "-m", "0", image)
        run("mount", "-o", "loop", image, point)
    try:
        yield point
    finally:
        run("umount", point)


@contextlib.contextmanager
def attached(path: Path) -> Iterator[str]:
    """A loop device over a file, for programs that want a block device."""
    device = run("losetup", "--find", "--show", path).stdout.strip()
    try:
        yield device
    finally:
        run("losetup", "--detach", device)


def make_disk(path: Path, volumes: Sequence[tuple[str, Path]], *, size: int) -> list[int]:
    """Make a disk with a GPT whose partitions hold the volumes; gives where they begin.

    Args:
        path: of the new raw disk.
        volumes: the type as ``sfdisk`` calls it, and the file with the content.
        size: of the disk, in bytes.
    """
    with path.open("wb") as disk:
        disk.truncate(size)
    starts, lines, position = [], ["label: gpt"], MIB
    for kind, volume in volumes:
        length = volume.stat().st_size
        starts.append(position)
        lines.append(f"start={position // 512},size={length // 512},type={kind}")
        position += length
    run("sfdisk", "-q", path, stdin="\n".join(lines).encode())
    for start, (_, volume) in zip(starts, volumes, strict=True):
        run(
            "dd",
            f"if={volume}",
            f"of={path}",
            "bs=1M",
            f"seek={start // MIB}",
            "conv=notrunc,sparse",
        )
    return starts


def cut_out(disk: Path, start: int, volume: Path, *, size: int) -> None:
    """Copy a partition of ``size`` bytes, whole MiB, out of a raw disk."""
    place = [f"skip={start // MIB}", f"count={size // MIB}"]
    run("dd", f"if={disk}", f"of={volume}", "bs=1M", *place, "conv=sparse")


def fill(folder: Path, *, seed: int = 0, size: int = 8 * MIB) -> None:
    """Write files of many sizes and some folders, delete a third, and write into the gaps.

    What is left is fragmented, and free blocks hold what was deleted. Deterministic.
    """
    dice = random.Random(seed)
    written = 0
    names: list[Path] = []
    while written < size:
        place = folder / f"folder{dice.randrange(6)}"
        place.mkdir(exist_ok=True)
        length = dice.choice((0, 100, 4 * KIB, 5000, 64 * KIB, 300_000, MIB))
        name = place / f"file{len(names)}"
        name.write_bytes(dice.randbytes(length))
        written += length + KIB
        names.append(name)
    os.sync()
    for name in dice.sample(names, len(names) // 3):
        name.unlink()
    os.sync()
    (folder / "into the gaps").write_bytes(dice.randbytes(size // 4))
    with (folder / "sparse").open("wb") as file:
        for place_at in (0, 3 * MIB, 7 * MIB):
            file.seek(place_at)
            file.write(dice.randbytes(9000))
    (folder / "a link").symlink_to("x" * 200)


def age(folder: Path) -> None:
    """Fill it, and make a folder of several blocks, with gaps, and a file in many pieces."""
    fill(folder, size=6 * MIB)
    names = folder / "names"
    names.mkdir()
    for number in range(600):
        (names / f"a name of some length {number}").touch()
    for number in range(0, 600, 3):
        (names / f"a name of some length {number}").unlink()
    with (folder / "many pieces").open("wb") as file:
        for number in range(150):
            file.seek(number * 128 * KIB)
            file.write(b"piece")


def work(folder: Path, *, files: int) -> None:
    """Fill it, then make and remove files, some of them synchronised: to be stopped in this."""
    fill(folder, size=4 * MIB)
    os.sync()
    for number in range(files):
        name = folder / f"new{number}"
        name.write_bytes(random.Random(number).randbytes(number * 97 + 5000))
        if number % 3 == 0:
            with name.open("rb") as file:
                os.fsync(file.fileno())
        if number % 7 == 6:
            (folder / f"new{number - 1}").unlink()


def tree(folder: Path) -> dict[str, str]:
    """Every file by its path: the hash of its content, or what else it is."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[name] = "folder"
    return found


def allocation_of(path: Path, read: Callable[[FileStorage], Allocation]) -> Allocation:
    """The map of a volume in a file, read as users read it."""
    storage = FileStorage.open(path)
    try:
        return read(storage)
    finally:
        storage.close()


def spoil_unused(path: Path, used: Runs) -> int:
    """Overwrite with garbage what a map leaves out; gives how many bytes that were."""
    size = path.stat().st_size
    assert used.end <= size
    unused = used.complement(size)
    with path.open("r+b") as file:
        for start, length in unused:
            file.seek(start)
            for position in range(0, length, len(GARBAGE)):
                file.write(GARBAGE[: min(len(GARBAGE), length - position)])
    return unused.total


def shut_down(folder: Path, *, flush_log: bool) -> None:
    """Stop a mounted ext4, XFS or F2FS at once, as a power cut does; it can be unmounted only.

    Args:
        folder: where it is mounted.
        flush_log: write what is in the log's memory first, so that there is something to replay.

    Source: Linux ``XFS_IOC_GOINGDOWN``, which ``EXT4_IOC_SHUTDOWN`` and F2FS share.
    """
    import fcntl  # not on every system that tests other things

    going_down = 0x8004587D
    log_flush, no_flush = 1, 2
    fd = os.open(folder, os.O_RDONLY)
    try:
        how = log_flush if flush_log else no_flush
        fcntl.ioctl(fd, going_down, how.to_bytes(4, "little"))
    finally:
        os.close(fd)
