"""Real images that other tools made, read to the hashes that independent readers agree on."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

import imprint
from imprint import formats
from imprint.core.extent import Kind

ROOT = Path(__file__).resolve().parents[2].parent / "shared" / "corpus" / "formats"
BLOCK = 64 << 10

# The index names versions and flavours; these are the ones that imprint has a driver for.
DRIVERS: dict[str, str] = {
    "qcow2-v2": "qcow2",
    "qcow2-v3": "qcow2",
    **{
        name: name
        for name in ("raw", "vdi", "vhd", "vhdx", "vmdk", "parallels", "bochs", "cloop")
        if name in formats.names()
    },
}


def _rows(*, negative: bool) -> list[dict[str, str]]:
    index = ROOT / "INDEX.tsv"
    if not index.exists():
        return []
    with index.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [
        row
        for row in rows
        if (row["status"] == "negative") == negative
        and "#" not in row["path"]
        and (negative or row["format"] in DRIVERS)
        and (negative or row["guest_sha256"] not in ("", "-"))
        and row["status"] != "policy-size"  # readers differ: the format's own tests say why
    ]


def _unpacked(path: Path, folder: Path) -> Path:
    unpack = {".bz2": bz2.decompress, ".gz": gzip.decompress}.get(path.suffix)
    if unpack is None:
        return path
    target = folder / path.stem
    target.write_bytes(unpack(path.read_bytes()))
    return target


def _nonzero_digest(disk: imprint.Image) -> str:
    """Offset and bytes of every 64 KiB block that is not all zeros; then the disk's size."""
    digest = hashlib.sha256()
    blocks: set[int] = set()
    for extent in disk.extents(0, disk.size):
        if extent.kind in (Kind.DATA, Kind.ENCODED):
            blocks.update(range(extent.offset // BLOCK, (extent.end - 1) // BLOCK + 1))
    for number in sorted(blocks):
        data = disk.read_at(number * BLOCK, BLOCK)
        if any(data):
            digest.update((number * BLOCK).to_bytes(8, "big") + data)
    digest.update(disk.size.to_bytes(8, "big"))
    return digest.hexdigest()


@pytest.mark.parametrize("row", _rows(negative=False), ids=lambda row: row["path"])
def test_a_real_image_reads_to_its_hash(tmp_path: Path, row: dict[str, str]) -> None:
    """Fails if we read other bytes than the independent readers that the index names."""
    path = _unpacked(ROOT / row["path"], tmp_path)
    with imprint.open(path) as disk:
        assert disk.info().format == DRIVERS[row["format"]]
        assert disk.size == int(row["guest_size"])
        assert _nonzero_digest(disk) == row["guest_nzdigest"]
        if row["guest_sha256"] != "nz-only":
            digest = hashlib.sha256()
            for start in range(0, disk.size, 1 << 20):
                digest.update(disk.read_at(start, 1 << 20))
            assert digest.hexdigest() == row["guest_sha256"]


@pytest.mark.parametrize("row", _rows(negative=True), ids=lambda row: row["path"])
@pytest.mark.parametrize("name", formats.names())
def test_a_hostile_image_is_one_line_in_bounded_time_and_memory(
    tmp_path: Path, row: dict[str, str], name: str
) -> None:
    """Fails if any driver that is pointed at a fuzzed image crashes, hangs or eats memory."""
    path = _unpacked(ROOT / row["path"], tmp_path)
    if name == "raw":
        pytest.skip("any bytes are a raw image")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "imprint", "hash", "-f", name, path, "--progress", "none"],
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)),
    )
    assert done.returncode in (3, 4), done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert time.monotonic() - began < 10  # far above the second that it takes: a hang


def test_the_corpus_is_here(corpus: Path) -> None:
    """Skips visibly where the corpus is absent; fails if its index has lost our formats."""
    assert (corpus / "formats" / "INDEX.tsv").exists()
    assert len(_rows(negative=False)) >= 10
