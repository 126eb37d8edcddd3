"""Real images: names, inodes and contents against ``fls`` and ``icat``."""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import re
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.errors import ImagingError
from imprint.core.units import MIB
from imprint.filesystems import identify
from imprint.filesystems.sleuthkit import KINDS
from imprint.filesystems.tree import Type, shown
from imprint.filesystems.trees import READERS, tree
from imprint.filesystems.walking import walk
from imprint.storage.file import FileStorage
from imprint.testing.file_trees import digest
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("pytsk3")

SMALL: Final = 64 * MIB
OF_FLS: Final = frozenset({*KINDS, "iso9660", "ufs"})
REFUSED: Final = frozenset({"squashfs3"})
MADE_UP: Final = re.compile(r"^/(\$OrphanFiles|\$MBR|\$FAT[12])$")


def volumes(corpus: Path, place: Path) -> Iterator[tuple[Path, str]]:
    """Every image that is one file system, raw, with its kind."""
    for path in sorted(corpus.rglob("*")):
        if not path.is_file() or path.stat().st_size > SMALL:
            continue
        volume = path
        if path.suffix == ".xz":
            volume = place / path.stem
            volume.write_bytes(lzma.decompress(path.read_bytes()))
        elif path.suffix == ".qcow2" and path.parent.name == "test_data":
            volume = place / path.stem
            run("qemu-img", "convert", "-O", "raw", path, volume)
        elif path.suffix not in (".raw", ".dd", ".img"):
            continue
        with closing(FileStorage.open(volume)) as disk:
            found = identify(disk)
        if found is not None and found.kind in READERS and found.kind not in REFUSED:
            yield volume, found.kind
        if volume != path:
            volume.unlink()


def printable(path: str) -> str:
    """As ``fls`` shows control characters."""
    return re.sub(r"[\x00-\x1f]", "^", shown(path))


def listed_by_fls(path: Path) -> dict[str, str] | None:
    """Address of each entry by its path, without streams, attributes, and what was deleted."""
    found: dict[str, str] = {}
    command = ["fls", "-r", "-p", "-u"]
    done = subprocess.run([*command, path], capture_output=True, check=False)
    if done.returncode:  # a FAT32 of very few clusters
        done = subprocess.run([*command, "-f", "fat32", path], capture_output=True, check=False)
    if done.returncode:
        return None
    for line in done.stdout.decode("utf-8", "surrogateescape").splitlines():
        kind, _, rest = line.partition(" ")
        address, _, name = rest.partition(":\t")
        if re.fullmatch(r"\d+-(128|144)-\d+", address):
            name = name.partition(":")[0]  # a stream, or an index, has a line of its own
        if kind != "V/V" and not MADE_UP.match(f"/{name}"):
            found.setdefault(f"/{name}", address)
    return found


@pytest.mark.oracle("fls", "icat", "qemu-img")
def test_every_file_system_of_the_corpus_is_told_as_fls_and_icat_tell_it(
    corpus: Path, tmp_path: Path
) -> None:
    """Fails if a name, an inode or a byte of a file in any image differs."""
    kinds: dict[str, int] = {}
    compared = 0
    for path, kind in volumes(corpus, tmp_path):
        kinds[kind] = kinds.get(kind, 0) + 1
        with closing(FileStorage.open(path)) as volume, closing(tree(kind, volume)) as files:
            entries = {
                printable(entry.path): entry
                for entry in walk(files)
                if not MADE_UP.match(entry.path)
            }
            del entries["/"]
            expected = listed_by_fls(path) if kind in OF_FLS else {}
            assert bool(files.notes) == (expected is None), path
            if not expected:
                continue
            named = {printable(name) for name in expected}
            assert named <= set(entries), path
            # Of FAT, fls leaves out what it does not trust, such as names with blanks in them.
            lost = [entries[name] for name in set(entries) - named]
            assert all(kind == "vfat" and not item.extents for item in lost), path
            for name, address in expected.items():
                entry = entries[printable(name)]
                if kind != "iso9660":
                    assert entry.inode == int(address.split("-")[0]), (path, name)
                if entry.type is not Type.FILE or not entry.size:
                    continue
                told = subprocess.run(["icat", path, address], capture_output=True, check=False)
                if told.returncode:  # what cannot be followed there is one error here, or less
                    with contextlib.suppress(ImagingError):
                        digest(files.content(entry))
                    continue
                here = digest(files.content(entry))
                assert here == hashlib.sha256(told.stdout).hexdigest(), (path, name)
                compared += 1
    assert compared > 100
    assert set(kinds) >= OF_FLS | {"apfs", "xfs"}


@pytest.mark.oracle("7z")
def test_the_front_of_bitlocker_to_go_is_told_as_7z_tells_it(corpus: Path) -> None:
    """Fails if a file lacks that has a blank in its name, or lies behind the end of the image."""
    path = corpus / "formats" / "log2timeline+dfvfs" / "history" / "bdetogo.raw"
    done = subprocess.run(["7z", "l", "-slt", path], capture_output=True, check=False)  # it is cut
    listed = done.stdout.decode().partition("----------")[2]
    expected = dict(re.findall(r"^Path = (.+)\n(?:.+\n)*?Size = (\d+)$", listed, re.MULTILINE))
    assert len(expected) == 307
    with closing(FileStorage.open(path)) as volume, closing(tree("vfat", volume)) as files:
        found = {entry.name: str(entry.size) for entry in walk(files) if entry.type is Type.FILE}
    assert found == expected
