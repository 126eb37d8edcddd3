"""File systems that their own makers made, and real ones, against blkid."""

from __future__ import annotations

import lzma
import re
import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from imprint.core.units import KIB, MIB
from imprint.endpoints.survey import describe
from imprint.filesystems import FileSystem, identify
from imprint.filesystems.identify import IDENTIFY_BYTES_MAX
from imprint.filters.window import Window
from imprint.storage.file import FileStorage
from imprint.storage.memory import MemoryStorage
from imprint.testing.faults import CountingStorage
from imprint.testing.oracles import run

if TYPE_CHECKING:
    from collections.abc import Iterator

UUID: Final = "0d7e8b1c-95f3-4c1f-8f64-f2f0a5b3c3a1"
KEYS: Final = ("TYPE", "LABEL_ENC", "UUID_ENC", "VERSION")

KNOWN: Final = frozenset(
    {
        *("ext2", "ext3", "ext4", "jbd", "xfs", "btrfs", "f2fs", "squashfs", "squashfs3", "ufs"),
        *("swap", "swsuspend", "vfat", "exfat", "ntfs", "hfs", "hfsplus", "apfs", "iso9660", "udf"),
        *("BitLocker", "crypto_LUKS", "LVM2_member", "linux_raid_member"),
    }
)


def told_by_blkid(path: Path) -> dict[str, str]:
    """TYPE, LABEL, UUID and VERSION, with all characters that they have."""
    lines = run("blkid", "-p", "-o", "udev", path, accept=(0, 2, 8)).stdout.splitlines()
    found = dict(line.partition("=")[::2] for line in lines)
    values = {key: found.get(f"ID_FS_{key}", "") for key in KEYS}
    return {key.removesuffix("_ENC"): decode(value) for key, value in values.items()}


def decode(value: str) -> str:
    """Undo udev's escapes, which are those of bytes."""
    plain = re.sub(rb"\\x(..)", lambda match: bytes.fromhex(match[1].decode()), value.encode())
    return plain.decode(errors="replace")


def same_as_blkid(found: FileSystem | None, told: dict[str, str]) -> None:
    assert (found.kind if found is not None else "") == told["TYPE"]
    if found is not None:
        assert (found.label or "") == told["LABEL"]
        if told["TYPE"] != "BitLocker" or told["UUID"]:  # older ones do not tell it
            assert (found.uuid or "") == told["UUID"]
        assert found.version in (None, told["VERSION"])


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def maker(command: str, size: int = 64 * MIB) -> object:
    tool = command.split(maxsplit=1)[0]
    return pytest.param(command, size, marks=pytest.mark.oracle(tool, "blkid"), id=command)


@pytest.mark.parametrize(
    ("command", "size"),
    [
        maker("mkfs.ext2 -q -L two"),
        maker(f"mkfs.ext3 -q -L three -U {UUID}"),
        maker(f"mkfs.ext4 -q -L sixteen-letters! -U {UUID}"),
        maker("mkfs.ext4 -q -O ^has_journal -b 1024"),
        maker("mkfs.ext4 -q -O ^metadata_csum,^64bit -b 4096"),
        maker("mke2fs -q -O journal_dev -L journal"),
        maker("mkfs.vfat -F 12 -n TWELVE", 4 * MIB),
        maker("mkfs.vfat -F 12 -f 1", 1440 * KIB),
        maker("mkfs.vfat -F 16 -n SIXTEEN -i 00112233"),
        maker("mkfs.vfat -F 32 -n THIRTYTWO -i fedcba98"),
        maker("mkfs.vfat -F 32 -S 4096 -s 1", 300 * MIB),
        maker("mkfs.vfat -F 32 -a -R 8 -f 1"),
        maker("mkfs.ntfs -F -Q -q -L Fenster"),
        maker("mkfs.ntfs -F -Q -q -L Größe -s 4096 -c 65536"),
        maker("mkfs.ntfs -F -Q -q"),
        maker("mkfs.exfat -L Kärtchen"),
        maker("mkfs.exfat -c 4096"),
        maker("mkfs.xfs -q -L dozen -f", 320 * MIB),
        maker(f"mkfs.xfs -q -m crc=0,uuid={UUID} -f", 320 * MIB),
        maker(f"mkfs.btrfs -q -L butter -U {UUID}", 128 * MIB),
        maker("mkfs.f2fs -q -l flashy", 128 * MIB),
        maker(f"mkswap -L tausch -U {UUID}"),
        maker("mkswap -p 65536"),
        maker("hformat -l Scheibe", 4 * MIB),
        maker("mkudffs -l Scheibe -b 2048"),
        maker("mkudffs -l Größe -b 512 -m hd"),
        maker("mkudffs -l 世界 -b 4096 -m hd"),
        maker("mkudffs --vid=volume --vsid=only-text"),
    ],
)
def test_what_a_tool_made_is_what_blkid_says(command: str, size: int, folder: Path) -> None:
    """Fails if a file system that exists everywhere has another name or label here."""
    path = folder / "disk"
    with path.open("wb") as file:
        file.truncate(size)
    run(*command.split(), path)

    with closing(FileStorage.open(path)) as storage:
        counting = CountingStorage(storage)
        found = identify(counting)
        told = told_by_blkid(path)

    same_as_blkid(found, told)
    assert told["TYPE"]
    assert counting.bytes_read <= IDENTIFY_BYTES_MAX


@pytest.mark.oracle("mkfs.vfat", "mlabel", "mcopy", "blkid")
@pytest.mark.parametrize("bits", ["12", "16", "32"])
def test_the_label_of_a_fat_is_found_behind_other_entries(bits: str, folder: Path) -> None:
    """Fails if a label that was given later is not seen, or a file's name is taken for it."""
    path = folder / "disk"
    with path.open("wb") as file:
        file.truncate(4 * MIB if bits == "12" else 64 * MIB)
    run("mkfs.vfat", "-F", bits, *(("-s", "1") if bits == "32" else ()), path)
    for number in range(30):  # in a FAT32 more than the first cluster of its directory
        name = f"a rather long name, no. {number}"
        run("mcopy", "-i", path, "-", f"::{name}", stdin=b"x")
    with closing(FileStorage.open(path)) as storage:
        found = identify(storage)
        assert found is not None
        assert found.label is None
    run("mlabel", "-i", path, "::LATE COMER")

    with closing(FileStorage.open(path)) as storage:
        found = identify(storage)

    assert found is not None
    assert found.label == "LATE COMER"


@pytest.mark.oracle("cryptsetup", "blkid")
@pytest.mark.parametrize("type_", ["luks1", "luks2"])
def test_luks_is_what_blkid_says(type_: str, folder: Path) -> None:
    """Fails if an encrypted partition is called something else, or by the wrong identity."""
    path = folder / "disk"
    with path.open("wb") as file:
        file.truncate(32 * MIB)
    fast = ("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--batch-mode")
    label = ("--label", "geheim") if type_ == "luks2" else ()
    command = ("cryptsetup", "luksFormat", "--type", type_, "--uuid", UUID, *label, *fast)
    run(*command, path, "-", stdin=b"secret")

    with closing(FileStorage.open(path)) as storage:
        found = identify(storage)

    same_as_blkid(found, told_by_blkid(path))
    assert found == FileSystem(
        "crypto_LUKS", "geheim" if label else None, UUID, type_.removeprefix("luks")
    )


@pytest.mark.parametrize(
    "options",
    [
        "-V CAPITALS",
        "-V lower -J -r",
        "-V A_very_long_label_of_32_letters_ -J",
        "-V Größe_und_Länge -input-charset utf-8 -J",
        "-V both -J -udf",
    ],
)
@pytest.mark.oracle("genisoimage", "blkid")
def test_a_disc_image_is_what_blkid_says(options: str, folder: Path) -> None:
    """Fails if a disc is called by half of its label, or by none."""
    tree, path = folder / "tree", folder / "disc"
    tree.mkdir()
    (tree / "file").write_bytes(b"content" * 1000)
    run("genisoimage", "-quiet", *options.split(), "-o", path, tree)

    with closing(FileStorage.open(path)) as storage:
        found = identify(storage)

    same_as_blkid(found, told_by_blkid(path))


@pytest.mark.oracle("mksquashfs", "blkid")
def test_a_squashfs_is_what_blkid_says(folder: Path) -> None:
    """Fails if the root of a live system is not recognised."""
    tree, path = folder / "tree", folder / "image"
    tree.mkdir()
    (tree / "file").write_bytes(b"content" * 1000)
    run("mksquashfs", tree, path, "-quiet", "-no-progress")

    with closing(FileStorage.open(path)) as storage:
        found = identify(storage)

    same_as_blkid(found, told_by_blkid(path))


@pytest.mark.oracle("mkfs.ext4", "blkid")
def test_a_file_system_is_recognised_inside_a_window(folder: Path) -> None:
    """Fails if signatures are looked for on the disk instead of in the partition."""
    path, offset = folder / "disk", 3 * MIB + 512
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    run("mkfs.ext4", "-q", "-L", "inside", "-E", f"offset={offset}", path, "16M")

    with closing(FileStorage.open(path)) as storage:
        assert identify(storage) is None
        found = identify(Window(storage, offset, 16 * MIB))

    assert found is not None
    assert (found.kind, found.label) == ("ext4", "inside")


def unpack(packed: Path, folder: Path) -> Path:
    path = folder / packed.stem
    with lzma.open(packed) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, MIB)
    return path


@pytest.mark.oracle("blkid")
def test_real_file_systems_are_what_blkid_says(corpus: Path, folder: Path) -> None:
    """Fails if a file system of another tool, age or country is not recognised, or invented."""
    images = sorted(corpus.glob("forensics/util-linux+util-linux/tests/ts/blkid/images-fs/*.xz"))
    assert images
    kinds = set()
    for packed in images:
        path = unpack(packed, folder)
        told = told_by_blkid(path)
        with closing(FileStorage.open(path)) as storage:
            found = identify(storage)
        path.unlink()
        kinds.add(told["TYPE"])
        if told["TYPE"] not in KNOWN:
            assert found is None, packed.name
        elif packed.name == "swap-luks.img.xz":
            # A swap area over the remains of LUKS2, of which newer versions of blkid say so too.
            assert found is not None
            assert found.kind == "swap"
        elif packed.name == "fat32_cp850_O_tilde.img.xz":
            # blkid gives the bytes of the code page; the name of the image says what they are.
            assert found is not None
            assert (found.kind, found.label) == ("vfat", "ÕÕÕ")
        else:
            same_as_blkid(found, told)
    assert kinds >= KNOWN


@pytest.mark.parametrize("index", ["formats", "forensics"])
def test_real_disk_images_are_what_the_index_says(corpus: Path, index: str) -> None:
    """Fails if a disk image that others have described is described otherwise."""
    facts = {}
    for line in (corpus / "forensics/INDEX.tsv").read_text().splitlines()[1:]:
        path, _, _, _, _, truth = (line + "\t" * 5).split("\t")[:6]
        match = re.search(r"blkid\[([^]]*)\]", truth)
        if match is not None and path.endswith((".raw", ".dd", ".001", ".000")):
            words = (word.partition("=") for word in match[1].split() if "=" in word)
            facts[path] = {key: value for key, _, value in words}
    assert facts
    for path, told in facts.items():
        file = corpus / index / path
        if not file.is_file():
            continue
        with closing(FileStorage.open(file)) as storage:
            found = describe(storage).filesystem
        assert (found.kind if found is not None else None) == told.get("TYPE"), path
        assert (found.label if found is not None else None) == told.get("LABEL"), path
        assert (found.uuid if found is not None else None) == told.get("UUID"), path


def test_a_disk_of_the_corpus_with_a_table_is_described(corpus: Path) -> None:
    """Fails if the parts of a real disk are not found; its facts are from mmls and fsstat."""
    with closing(FileStorage.open(corpus / "formats/log2timeline+dfvfs/history/mbr.raw")) as disk:
        found = describe(disk)
    assert found.table is not None
    assert found.table.kind == "mbr"


@pytest.mark.parametrize("size", [0, 1, 512, 4096, 73 * KIB])
def test_nothing_is_nothing(size: int) -> None:
    """Fails if an empty disk has a file system."""
    assert identify(MemoryStorage(bytes(size))) is None
    assert identify(MemoryStorage(b"\xff" * size)) is None
