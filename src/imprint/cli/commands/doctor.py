"""doctor: which optional outside parts are here, and how to get the rest."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from imprint import __version__
from imprint.cli.options import add_json

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

EXAMPLES = """\
  imprint doctor
  imprint doctor --json
"""

_ZSTD_IN_STDLIB: Final = (3, 14)

# Module, distribution, what it is for.
_MODULES: Final = (
    ("isal", "isal", "fast zlib: compressed qcow2 images"),
    ("backports.zstd", "backports.zstd", "zstd: compressed qcow2 images"),
    ("blake3", "blake3", "BLAKE3 hashes"),
    ("cryptography", "cryptography", "encrypted images and repositories"),
    ("google_crc32c", "google-crc32c", "CRC-32C checksums of structures"),
    ("obstore", "obstore", "repositories in S3 object stores"),
    ("paramiko", "paramiko", "repositories over SFTP"),
    ("pytsk3", "pytsk3", "names of files in images"),
    ("pyfsapfs", "libfsapfs-python", "names of files in APFS"),
    ("pybde", "libbde-python", "BitLocker volumes"),
    ("fsspec", "fsspec", "imprint:// for whatever reads by fsspec"),
    ("mfusepy", "mfusepy", "mount: images as folders"),
)

# Program, Debian's package, what it is for. Only ``capture``, ``demo`` and ``restore --grow``
# run some.
_PROGRAMS: Final = (
    ("resize2fs", "e2fsprogs", "restore --grow: ext2, ext3, ext4"),
    ("ntfsresize", "ntfs-3g", "restore --grow: NTFS"),
    ("xfs_growfs", "xfsprogs", "restore --grow: XFS"),
    ("losetup", "mount", "restore --grow, run by root; tests"),
    ("fusermount3", "fuse3", "mount: images as folders, and libfuse"),
    ("smartctl", "smartmontools", "capture --log: what a drive says of itself"),
    ("hdparm", "hdparm", "capture --log: areas that a drive hides"),
    ("qemu-system-x86_64", "qemu-system-x86", "run: the emulator"),
    ("qemu-img", "qemu-utils", "tests: the judge of images"),
    ("qemu-io", "qemu-utils", "tests: writes into images"),
    ("nbdkit", "nbdkit", "tests: servers that fail on request"),
    ("sfdisk", "fdisk", "demo and tests: makes partition tables"),
    ("sgdisk", "gdisk", "demo and tests: makes partition tables"),
    ("blkid", "util-linux", "tests: the judge of file systems"),
    ("mkfs.ext4", "e2fsprogs", "demo and tests: makes file systems"),
    ("mkfs.vfat", "dosfstools", "demo and tests: makes file systems"),
    ("mkfs.ntfs", "ntfs-3g", "tests: makes file systems"),
    ("mkfs.xfs", "xfsprogs", "tests: makes file systems"),
    ("mcopy", "mtools", "demo and tests: fills file systems"),
    ("cryptsetup", "cryptsetup-bin", "tests: the judge of LUKS"),
    ("lvm", "lvm2", "tests: makes volume groups"),
    ("thin_restore", "thin-provisioning-tools", "tests: makes thin pools"),
    ("mdadm", "mdadm", "tests: the judge of RAID"),
    ("dislocker-file", "dislocker", "tests: the judge of BitLocker"),
)


@dataclass(frozen=True)
class Part:
    """Something outside imprint.

    Attributes:
        name: of the module or program.
        kind: ``python`` or ``program``.
        present: whether it is there.
        version: of a module, if it says so.
        purpose: what it is for.
        remedy: the command that brings it.
    """

    name: str
    kind: str
    present: bool
    version: str | None
    purpose: str
    remedy: str


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/doctor.md`` lists them too."""
    add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Look for all parts; that one is missing is no error."""
    del args
    parts = [*_modules(), *_programs()]
    system = f"{platform.system()} {platform.release()}"
    console.print(f"imprint {__version__}, Python {platform.python_version()}, {system}")
    console.table(
        [
            (part.name, (part.version or "there") if part.present else "missing", part.purpose)
            for part in parts
        ]
    )
    missing = [part for part in parts if not part.present]
    for part in missing:
        console.print(f"{part.name}: {part.remedy}")
    if not missing:
        console.print("nothing is missing")
    console.result(
        imprint=__version__,
        python=platform.python_version(),
        system=system,
        parts=[asdict(part) for part in parts],
    )
    return 0


def _modules() -> list[Part]:
    parts = []
    for module, distribution, purpose in _MODULES:
        if module == "backports.zstd" and sys.version_info >= _ZSTD_IN_STDLIB:
            continue
        present = _is_importable(module)
        version = _version(distribution) if present else None
        remedy = f"{sys.executable} -m pip install {distribution}"
        parts.append(Part(module, "python", present, version, purpose, remedy))
    return parts


def _programs() -> list[Part]:
    return [
        Part(
            program,
            "program",
            shutil.which(program, path=_search_path()) is not None,
            None,
            purpose,
            f"apt-get install {package}",
        )
        for program, package, purpose in _PROGRAMS
    ]


def _search_path() -> str:
    """Some programs live where only root looks by default."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def _is_importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def _version(distribution: str) -> str | None:
    from importlib import metadata  # costs 20 ms

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
