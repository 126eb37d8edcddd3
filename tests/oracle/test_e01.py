"""EWF against libewf's tools and The Sleuth Kit: both ways, every flavour, level and size."""

from __future__ import annotations

import hashlib
import random
import re
import subprocess
import zipfile
from functools import cache
from pathlib import Path

import pytest

from imprint import formats
from imprint.core.contracts import Documenting
from imprint.core.extent import Extent, Kind
from imprint.core.formats import CreateSpec, parse_options
from imprint.core.units import KIB, MIB
from imprint.endpoints import copying
from imprint.endpoints.hashing import stored_hashes, verify_disk
from imprint.endpoints.open import open_image
from imprint.endpoints.target import TargetRequest
from imprint.storage.pending import PendingFile
from imprint.testing.opener import DictOpener

CORPUS = Path(__file__).resolve().parents[2].parent / "shared" / "corpus" / "forensics"
IN_CORPUS = CORPUS / "log2timeline+dfvfs" / "test_data"


@cache
def disk() -> bytes:
    """Noise, words, zeros, and an end that is no whole chunk."""
    randomness = random.Random(8)
    words = [randomness.randbytes(4) for _ in range(200)]
    text = b"".join(randomness.choices(words, k=400_000))
    return randomness.randbytes(900 * KIB) + bytes(700 * KIB) + text + bytes(77 * 512)


MD5 = hashlib.md5(disk(), usedforsecurity=False).hexdigest()
SHA1 = hashlib.sha1(disk(), usedforsecurity=False).hexdigest()


def run(*command: str | Path) -> str:
    """Run a tool to its end; it has to succeed."""
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, errors="replace", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.oracle("ewfverify")
@pytest.mark.parametrize("flavour", ["encase5", "encase6", "encase7", "ftk"])
@pytest.mark.parametrize(
    ("compression", "segment", "chunk"),
    [
        ("none", "1M", 64),
        ("empty-block", "1400M", 64),
        ("fast", "1M", 64),
        ("best", "1200K", 128),
        ("fast", "2000M", 1024),
    ],
)
def test_libewf_reads_what_is_written(
    tmp_path: Path, flavour: str, compression: str, segment: str, chunk: int
) -> None:
    """Fails if libewf finds another disk, another hash or damage."""
    (tmp_path / "disk.raw").write_bytes(disk())
    options = {
        "flavour": flavour,
        "compression": compression,
        "segment_size": segment,
        "chunk_sectors": str(chunk),
        "examiner": "m.e.",
        "description": "Grüße",
    }
    first = tmp_path / "disk.E01"
    target = TargetRequest(str(first), options=options)
    copying.run(copying.CopyRequest(str(tmp_path / "disk.raw"), target))
    if len(list(tmp_path.glob("disk.E*"))) == 1:
        assert segment.endswith("00M") or compression != "none"
    said = run("ewfverify", "-q", "-d", "sha1", first)
    assert "SUCCESS" in said
    assert SHA1 in said
    about = run("ewfinfo", first)
    assert "m.e." in about
    assert MD5 in about
    if flavour in ("encase6", "encase7"):
        assert "Grüße" in about
        assert SHA1 in about
    export = ["ewfexport", "-q", "-u", "-f", "raw", "-S", "0", "-t"]
    run(*export, tmp_path / "back", first)
    assert (tmp_path / "back.raw").read_bytes() == disk()


@pytest.mark.oracle("ewfacquire")
@pytest.mark.parametrize(
    ("flavour", "segment"),
    [
        *((f"encase{version}", "1.4MiB") for version in range(1, 8)),
        *((name, "1.4MiB") for name in ("ftk", "smart", "ewf", "linen5", "linen6", "ewfx")),
        ("encase6", "2GiB"),
    ],
)
@pytest.mark.parametrize("level", ["none", "fast", "empty-block"])
def test_what_libewf_writes_is_read(tmp_path: Path, flavour: str, segment: str, level: str) -> None:
    """Fails if a dialect is not understood, or its hashes or case data are not."""
    source = tmp_path / "disk.raw"
    source.write_bytes(disk())
    run(
        *("ewfacquire", "-u", "-q", "-t", tmp_path / "disk", "-f", flavour, "-c", level),
        *("-C", "case 1", "-E", "ev 2", "-e", "m.e.", "-D", "d", "-N", "n", "-d", "sha1"),
        *("-S", segment, "-b", "64", source),
    )
    first = next(path for path in tmp_path.iterdir() if path.suffix.lower() in (".e01", ".s01"))
    with open_image(str(first)) as image:
        info = image.info()
        assert info.format == ("s01" if flavour in ("smart", "ewf") else "e01")
        assert info.warnings == ()
        assert info.case["case_number"] == "case 1"
        assert info.case["evidence_number"] == "ev 2"
        assert info.hashes["md5"] == MD5
        if flavour in ("encase6", "encase7", "linen6", "ewfx"):
            assert info.hashes["sha1"] == SHA1
        assert verify_disk(image, ("sha1",), stored_hashes(image)).ok


@pytest.mark.oracle("ewfinfo")
def test_libewf_lists_the_bad_sectors_and_tracks_that_are_kept(tmp_path: Path) -> None:
    """Fails if libewf sees other sectors or sessions than were noted."""
    e01 = formats.get("e01")
    content = bytearray(disk())
    content[10 * 512 : 13 * 512] = bytes(3 * 512)
    options = parse_options(
        "e01", e01.options, {"tracks": "0,2000", "media_type": "optical", "sector_size": "512"}
    )
    storage = PendingFile.create(tmp_path / "disk.E01", may_replace=False)
    target = e01.create(storage, CreateSpec(len(content), DictOpener(), options))
    target.write(memoryview(content), 0)
    assert isinstance(target, Documenting)
    target.document({}, [Extent(10 * 512, 3 * 512, Kind.BAD)])
    target.commit()
    about = run("ewfinfo", tmp_path / "disk.E01")
    assert "at sector(s): 10 - 12 number: 3" in about
    assert "at sector(s): 2000" in about


@pytest.mark.oracle("img_cat", "mkfs.ext4")
def test_the_sleuth_kit_reads_what_is_written(tmp_path: Path) -> None:
    """Fails if The Sleuth Kit finds another disk, or no file system in it."""
    raw = tmp_path / "disk.raw"
    raw.write_bytes(bytes(4 * MIB))
    run("mkfs.ext4", "-q", "-F", raw)
    target = TargetRequest(str(tmp_path / "disk.E01"), options={"segment_size": "1M"})
    copying.run(copying.CopyRequest(str(raw), target))
    found = subprocess.run(
        ["img_cat", tmp_path / "disk.E01"], capture_output=True, check=True
    ).stdout
    assert found == raw.read_bytes()
    assert "lost+found" in run("fls", tmp_path / "disk.E01")


@pytest.mark.root
@pytest.mark.oracle("losetup", "ewfinfo", "img_stat")
def test_a_drive_of_large_sectors_keeps_their_size(tmp_path: Path) -> None:
    """Fails if whoever opens the image looks for its partition table in the wrong place."""
    raw = tmp_path / "disk.raw"
    raw.write_bytes(disk()[: 400 * 4096])
    words = ("--read-only", "--sector-size", "4096", "--direct-io=on", "--find", "--show")
    device = run("losetup", *words, raw).strip()
    try:
        for name in ("disk.E01", "disk.aff4"):
            target = TargetRequest(str(tmp_path / name))
            copying.run(copying.CopyRequest(device, target, salvage=True))
    finally:
        run("losetup", "--detach", device)
    with zipfile.ZipFile(tmp_path / "disk.aff4") as archive:
        said = archive.read("information.turtle").decode()
    assert 'aff4:blockSize "4096"^^xsd:int' in said
    assert 'aff4:sectorCount "400"^^xsd:long' in said
    again = TargetRequest(str(tmp_path / "again.E01"))
    copying.run(copying.CopyRequest(str(tmp_path / "disk.E01"), again))
    for name in ("disk.E01", "again.E01"):
        said = run("ewfinfo", tmp_path / name)
        assert re.search(r"Bytes per sector:\s+4096\n", said)
        assert re.search(r"Number of sectors:\s+400\n", said)
        assert re.search(r"Sector size:\s+4096\n", run("img_stat", tmp_path / name))


@pytest.mark.parametrize("name", ["ext2.E01", "ext2.split.E01"])
def test_images_of_the_corpus_have_the_hashes_that_are_known(name: str) -> None:
    """Fails if a real image reads as something else; what is expected is from the index."""
    path = IN_CORPUS / name
    if not path.exists():
        pytest.skip("the corpus is not here")
    with open_image(str(path)) as image:
        found = verify_disk(image, ("sha256",), stored_hashes(image))
    assert found.ok
    assert found.hashes["md5"] == "196066add11fb71c4c49cf1bb50d6d24"
    assert found.hashes["sha256"] == (
        "a6c2f0e39afe6c6ab432ca5465349fcefe8dc944398e97b2d957d3f89dbb5d80"
    )
