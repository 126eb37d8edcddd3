"""imprint's mount beside reading the same bytes without it; stats and parallel readers.

    .venv/bin/python benchmarks/mount.py [--size 1G] [--files 100000] [--runs 3] [--dir DIR]

Needs ``fuse3``, ``qemu-utils``, ``e2fsprogs``, and root, which alone may drop caches. Prints wall
seconds and processor seconds, those of the process that serves included, of each run's median;
and the ratio that counts: reading ``disk.raw`` of a raw image, cold, has to be at least half as
fast as reading that. Warm, the plain file is a copy of memory, and the ratio only tells of CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.core.units import MIB, parse_size

# Started as a program, Python looks for modules in this folder, not in the one around it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases import IMPRINT
from benchmarks.inputs import Inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_FILES_EACH: Final = 1000
_TICKS: Final = os.sysconf("SC_CLK_TCK")

Sample = tuple[float, float]
"""Wall and processor seconds."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=parse_size, default=parse_size("1G"))
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", type=Path)
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = args.dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        disk = Inputs(folder, args.size, lambda text: print(text, file=sys.stderr)).get("disk")
        point = folder / "mounted"
        point.mkdir(exist_ok=True)
        _read_disks(disk, folder, point, args.runs)
        _stat_files(folder, point, args.files, args.runs)


def _read_disks(disk: Path, folder: Path, point: Path, runs: int) -> None:
    """The same disk from several formats, cold and warm, in turns with the plain file."""
    qcow2, ewf, store = folder / "disk.qcow2", folder / "disk.E01", folder / "store"
    if not qcow2.exists():
        _quietly("qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, qcow2)
    if not ewf.exists():
        _quietly(IMPRINT, "convert", disk, ewf)
    if not store.exists():
        _quietly(IMPRINT, "repo", "init", store)
        _quietly(IMPRINT, "capture", disk, f"repo:{store}::disk")
    shown = point / "disk.raw"
    for kind in ("cold", "warm"):
        plain = [_timed(lambda: _read(disk), disk, cold=kind == "cold") for _ in range(runs)]
        _show(f"read the raw file, {kind}", plain)
        for name, image in (
            ("raw", str(disk)),
            ("QCOW2", str(qcow2)),
            ("E01", str(ewf)),
            ("repository", f"repo:{store}::disk"),
        ):
            found = []
            for _ in range(runs):
                with _mounted(image, point) as pid:
                    found.append(_timed(lambda: _read(shown), disk, pid, cold=kind == "cold"))
            ratio = statistics.median(wall for wall, _ in plain) / statistics.median(
                wall for wall, _ in found
            )
            _show(
                f"read disk.raw of {name}, {kind}", found, f", {ratio:.2f} of the raw file's rate"
            )


def _stat_files(folder: Path, point: Path, count: int, runs: int) -> None:
    """All names, and what ``stat`` says of each; then a copy of all by ``cp -a``."""
    image = _many_files(folder, count)
    with _mounted(str(image), point) as pid:
        files = point / "files"
        words = ["find", str(files), "-size", "+1"]
        _show(f"stat {count} files, first", [_timed(lambda: _quietly(*words), None, pid)])
        again = [_timed(lambda: _quietly(*words), None, pid) for _ in range(runs)]
        _show(f"stat {count} files, again", again)
        target = folder / "copy"
        copy = ["cp", "-a", str(files / "000"), str(target)]
        _show(f"cp -a {_FILES_EACH} files", [_timed(lambda: _quietly(*copy), None, pid)])
        _quietly("rm", "-r", target)
    with _mounted(str(image), point) as pid:
        _show("all at once", [_timed(lambda: _together(point), None, pid)])


def _many_files(folder: Path, count: int) -> Path:
    image = folder / f"files-{count}.img"
    if not image.exists():
        with tempfile.TemporaryDirectory(dir=folder) as given:
            for number in range(count):
                place = Path(given, f"{number // _FILES_EACH:03}")
                place.mkdir(exist_ok=True)
                (place / f"file-{number:06}.txt").write_text(f"{number}\n")
            with image.open("wb") as file:
                file.truncate(count * 6 * 1024 + 64 * MIB)
            _quietly("mkfs.ext4", "-q", "-N", str(count + 1000), "-d", given, image)
    return image


def _together(point: Path) -> None:
    """Readers of all kinds at the same time."""
    work = [
        subprocess.Popen(words, stdout=subprocess.DEVNULL)
        for words in (
            ["find", str(point), "-ls"],
            ["dd", f"if={point}/disk.raw", "of=/dev/null", "bs=1M", "status=none"],
            ["dd", f"if={point}/disk.raw", "of=/dev/null", "bs=4k", "status=none"],
            ["tar", "-cf", "-", f"{point}/files/000", f"{point}/files/001"],
        )
    ]
    for item in work:
        item.wait()


@contextmanager
def _mounted(image: str, point: Path) -> Iterator[int]:
    """The process that serves it."""
    done = subprocess.run(
        [IMPRINT, "mount", image, point, "--json"], check=True, stdout=subprocess.PIPE
    )
    try:
        yield int(json.loads(done.stdout)["pid"])
    finally:
        _quietly(IMPRINT, "unmount", point)


def _read(path: Path) -> None:
    _quietly("dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none")


def _timed(
    work: object, warm: Path | None, pid: int | None = None, *, cold: bool = False
) -> Sample:
    """Do something; before, the disk is forgotten by the kernel, or read into its cache."""
    assert callable(work)
    if cold:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3\n", encoding="ascii")
    elif warm is not None:
        _read(warm)
    before, children = _cpu_of(pid), os.times()
    start = time.perf_counter()
    work()
    wall = time.perf_counter() - start
    now = os.times()
    own = (
        now.children_user + now.children_system - children.children_user - children.children_system
    )
    return wall, own + _cpu_of(pid) - before


def _cpu_of(pid: int | None) -> float:
    """User and system seconds of a process so far."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _show(what: str, samples: Sequence[Sample], more: str = "") -> None:
    wall, cpu = (statistics.median(column) for column in zip(*samples, strict=True))
    print(f"{what}: {wall:.3f} s, {cpu:.3f} s of processor{more}", flush=True)


def _quietly(*words: str | Path) -> None:
    subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
