"""imprint beside fiwalk: a report of many files with the same hashes, in turns.

    .venv/bin/python benchmarks/report.py [ext4|ntfs|vfat] [--files 100000] [--runs 3] [--dir DIR]

Needs ``sleuthkit``, and ``e2fsprogs``, or ``ntfs-3g`` and to be root, or ``dosfstools`` and
``mtools``. Prints wall and processor seconds and memory of each run's
median, and the ratios that count. Files are of 1 byte to 90 KiB, on average 8 KiB, in folders
of a hundred; the page cache is warm for both.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

# Started as a program, Python looks for modules in this folder, not in the one around it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.cases import IMPRINT
from benchmarks.measuring import Run, must_succeed, run_measured

HASHES: Final = "md5,sha1"
"""What fiwalk takes always."""

_IN_FOLDER: Final = 100
_NOISE_BYTES: Final = 4 << 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("filesystem", nargs="?", choices=MAKERS, default="ext4")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--dir", type=Path)
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = args.dir or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        image = folder / f"{args.filesystem}-{args.files}.raw"
        if not image.exists():
            make_image(image, args.filesystem, args.files)
        compare(image, folder, args.runs)


def make_image(image: Path, filesystem: str, files: int) -> None:
    """A file system of so many files."""
    dice = random.Random(7)
    noise = dice.randbytes(_NOISE_BYTES)
    tree = image.with_suffix(".tree")
    total = 0
    for number in range(files):
        folder = tree / f"{number // _IN_FOLDER // _IN_FOLDER:03}" / f"{number // _IN_FOLDER:05}"
        if number % _IN_FOLDER == 0:
            folder.mkdir(parents=True)
        size = int(2 ** dice.uniform(0, 16.5))
        start = dice.randrange(_NOISE_BYTES - size)
        (folder / f"file{number:07}").write_bytes(noise[start : start + size])
        total += size + 4096
    partial = image.with_suffix(".partial")
    partial.touch()
    os.truncate(partial, (total * 5 // 4 + files * 1024 + (64 << 20)) >> 20 << 20)
    MAKERS[filesystem](partial, tree, files)
    shutil.rmtree(tree)
    partial.rename(image)


def _ext4(image: Path, tree: Path, files: int) -> None:
    inodes = files + files // 10 + 1000
    must_succeed("mkfs.ext4", "-q", "-F", "-N", str(inodes), "-d", str(tree), str(image))


def _ntfs(image: Path, tree: Path, files: int) -> None:
    del files
    must_succeed("mkntfs", "-q", "-F", "-f", str(image))
    with tempfile.TemporaryDirectory() as point:
        must_succeed("ntfs-3g", str(image), point)
        try:
            must_succeed("cp", "-r", str(tree), f"{point}/tree")
        finally:
            must_succeed("umount", point)


def _vfat(image: Path, tree: Path, files: int) -> None:
    del files
    must_succeed("mkfs.vfat", str(image))
    # Without the check, any number of sectors is a disk.
    check = "MTOOLS_SKIP_CHECK=1"
    must_succeed("env", check, "mcopy", "-s", "-Q", "-i", str(image), str(tree), "::")


MAKERS: Final = {"ext4": _ext4, "ntfs": _ntfs, "vfat": _vfat}


def compare(image: Path, folder: Path, runs: int) -> None:
    """Both, in turns, and how they compare."""
    found: dict[str, list[Run]] = {"imprint": [], "fiwalk": []}
    for _ in range(runs):
        for name, samples in found.items():
            target = folder / f"{name}.xml"
            target.unlink(missing_ok=True)
            options = ["--progress", "none", "--hash", HASHES, "-o", str(target)]
            command = {
                "imprint": [IMPRINT, "report", *options, str(image)],
                "fiwalk": ["fiwalk", "-X", str(target), str(image)],
            }[name]
            samples.append(run_measured(command, os.sync, watch=name == "imprint"))
            target.unlink()
    medians = {}
    for name, samples in found.items():
        wall = statistics.median(run.wall_s for run in samples)
        cpu = statistics.median(run.cpu_s for run in samples)
        peak = max(max(run.peak, run.tree_peak) for run in samples)
        medians[name] = wall, cpu
        print(f"{name}: {wall:.2f} s, {cpu:.2f} s of processor, {peak >> 20} MiB at most")
    ours, theirs = medians["imprint"], medians["fiwalk"]
    print(
        f"imprint takes {ours[0] / theirs[0]:.2f} of the time of fiwalk, "
        f"{ours[1] / theirs[1]:.2f} of its processor time"
    )


if __name__ == "__main__":
    main()
