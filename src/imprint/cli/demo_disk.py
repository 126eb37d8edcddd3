"""The disk of ``imprint demo``: a partition table and two file systems with real files.

The machine's own tools make it, in a plain file: they write into a partition at its offset, so
neither root nor a loop device is needed. Where there are no such tools, the disk comes from a
sample in the package, which ``scripts/make_demo_sample.sh`` has made with the same tools.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sysconfig
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli.demo_table import SECTOR_BYTES, write_table
from imprint.core.errors import TargetError
from imprint.core.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DISK_BYTES: Final = 320 * MIB
FILE_BYTES_MAX: Final = 64 * MIB
"""Of one partition's files; what a demonstration under a minute can afford everywhere."""

SAMPLE_BYTES: Final = 256 * MIB
SAMPLE_SHA256: Final = "b86b87ccdaaa5d8b61ca92dd5319407f4d605ccf9d43ba05a84047f6cde64111"
"""Of the sample's content, as ``sha256sum`` gave it before ``qemu-img`` packed it."""

_DOCUMENT_BYTES_MAX: Final = 512 * KIB
_DOCUMENTS_MAX: Final = 400
_TOOL_TIMEOUT_S: Final = 60

_BASIC_DATA: Final = "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"
_LINUX: Final = "0fc63daf-8483-4772-8e79-3d69d8477de4"

# Names that every file system takes, and every locale.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*")
_TEXT_SUFFIXES: Final = (".txt", ".md", ".rst", ".html")
# What would fill the disk with little to see: caches, packages, tests, static libraries.
_DULL: Final = re.compile(r"__pycache__|(site|dist)-packages|tests?|config-.*")


@dataclass(frozen=True)
class Part:
    """A partition of the disk.

    Attributes:
        start: first byte.
        length: in bytes.
        type_guid: what the table calls its type.
        name: what the table calls it.
        kind: of its file system, as ``blkid`` says.
        label: of its file system.
    """

    start: int
    length: int
    type_guid: str
    name: str
    kind: str
    label: str


_DOCUMENTS: Final = Part(1 * MIB, 64 * MIB, _BASIC_DATA, "documents", "vfat", "DOCUMENTS")
_SOURCES: Final = Part(65 * MIB, 192 * MIB, _LINUX, "sources", "ext4", "SOURCES")
_SAMPLE_PARTS: Final = (
    replace(_DOCUMENTS, length=32 * MIB),
    replace(_SOURCES, start=33 * MIB, length=176 * MIB),
)


@dataclass(frozen=True)
class DemoDisk:
    """The disk, and what is known of it because we made it.

    Attributes:
        path: a raw image.
        size: in bytes.
        parts: what has to be found in it.
        files: how many were put in; 0 for the sample.
        file_bytes: their sizes together.
        made_by: the tools; empty for the sample.
        no_tools: for the sample, why it had to be.
        sha256: that the content must have, where that is known beforehand.
    """

    path: Path
    size: int
    parts: tuple[Part, ...]
    files: int = 0
    file_bytes: int = 0
    made_by: tuple[str, ...] = ()
    no_tools: str = ""
    sha256: str | None = None


class ToolError(Exception):
    """A tool is missing or failed; the text says which and why."""


def build(path: Path, unpack: Callable[[Path, Path], object]) -> DemoDisk:
    """Make the disk as a new raw image.

    Args:
        path: where to.
        unpack: converts an image, the first argument, to a raw one, the second.

    Raises:
        TargetError: if there is no room for it.
    """
    staging = path.with_name("staging")
    try:
        return _built(path, staging)
    except ToolError as error:
        path.unlink(missing_ok=True)
        sample = resources.files("imprint.cli") / "data" / "demo-sample.qcow2"
        with resources.as_file(sample) as image:
            unpack(image, path)
        return DemoDisk(
            path, SAMPLE_BYTES, _SAMPLE_PARTS, no_tools=str(error), sha256=SAMPLE_SHA256
        )
    except OSError as error:
        name = str(error.filename or path)
        raise TargetError((error.strerror or str(error)).lower(), name=name) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _built(path: Path, staging: Path) -> DemoDisk:
    """Make it with the machine's own tools."""
    tools = _Tools()
    parts = tools.choose((_DOCUMENTS, _SOURCES))
    files = [
        _gather(_documents(), staging / "documents", _DOCUMENTS_MAX),
        _gather(_sources(), staging / "sources"),
    ]
    with path.open("xb") as disk:
        disk.truncate(DISK_BYTES)
    tools.write_table(path, parts)
    for part, folder in zip(parts, ("documents", "sources"), strict=True):
        tools.write_filesystem(path, part, staging / folder)
    return DemoDisk(
        path,
        DISK_BYTES,
        parts,
        sum(count for count, _ in files),
        sum(size for _, size in files),
        tuple(tools.used),
    )


class _Tools:
    """The programs that make tables and file systems, as far as they are here."""

    def __init__(self) -> None:
        names = ("sfdisk", "sgdisk", "mkfs.ext4", "mkfs.vfat", "mcopy")
        self._found = {name: found for name in names if (found := _which(name)) is not None}
        self.used: list[str] = []

    def choose(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """The partitions, with file systems that can be made here.

        Raises:
            ToolError: if there are none.
        """
        kinds = [kind for kind in ("vfat", "ext4") if self._makes(kind)]
        if not kinds:
            raise ToolError("neither mkfs.ext4 nor mkfs.vfat with mcopy is installed")
        return tuple(part if part.kind in kinds else replace(part, kind=kinds[0]) for part in parts)

    def write_table(self, path: Path, parts: Sequence[Part]) -> None:
        """Divide the disk."""
        if "sfdisk" in self._found:
            lines = ["label: gpt"]
            for part in parts:
                start, length = part.start // SECTOR_BYTES, part.length // SECTOR_BYTES
                facts = f"start={start}, size={length}, type={part.type_guid}, name={part.name}"
                lines.append(facts)
            quiet = ("--quiet", "--no-reread", "--no-tell-kernel")
            self._run("sfdisk", *quiet, str(path), stdin="\n".join(lines) + "\n")
        elif "sgdisk" in self._found:
            words = []
            for index, part in enumerate(parts, 1):
                first = part.start // SECTOR_BYTES
                last = (part.start + part.length) // SECTOR_BYTES - 1
                words += [f"--new={index}:{first}:{last}", f"--typecode={index}:{part.type_guid}"]
                words.append(f"--change-name={index}:{part.name}")
            self._run("sgdisk", *words, str(path))
        else:
            with path.open("r+b") as disk:
                write_table(disk, DISK_BYTES, parts)

    def write_filesystem(self, path: Path, part: Part, folder: Path) -> None:
        """Make a partition's file system, with the files of a folder in it."""
        blocks = part.length // KIB
        if part.kind == "ext4":
            # Without nodiscard it would give back the whole image, other partitions and all.
            extended = f"offset={part.start},nodiscard"
            words = ["-q", "-F", "-L", part.label, "-d", str(folder), "-E", extended]
            self._run("mkfs.ext4", *words, str(path), f"{blocks}k")
            return
        start = part.start // SECTOR_BYTES
        words = ["-n", part.label, "-h", str(start), f"--offset={start}"]
        self._run("mkfs.vfat", *words, str(path), str(blocks))
        content = [str(item) for item in sorted(folder.iterdir())]
        self._run("mcopy", "-s", "-m", "-i", f"{path}@@{part.start}", *content, "::/")

    def _makes(self, kind: str) -> bool:
        needed = ("mkfs.ext4",) if kind == "ext4" else ("mkfs.vfat", "mcopy")
        return all(name in self._found for name in needed)

    def _run(self, name: str, *arguments: str, stdin: str = "") -> None:
        """Run a tool; its words are of interest only if it fails.

        Raises:
            ToolError: if it fails.
        """
        # mtools checks for geometries that no system looks at any more.
        environment = {**os.environ, "LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1"}
        try:
            subprocess.run(  # noqa: S603 - a program found on the user's own PATH
                [self._found[name], *arguments],
                input=stdin.encode(),
                capture_output=True,
                check=True,
                env=environment,
                timeout=_TOOL_TIMEOUT_S,
            )
        except subprocess.CalledProcessError as error:
            said = error.stderr.decode(errors="replace").strip().splitlines()
            raise ToolError(f"{name} failed: {said[-1] if said else error.returncode}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ToolError(f"{name} failed: {error}") from error
        if name not in self.used:
            self.used.append(name)


def _which(name: str) -> str | None:
    """A program on the PATH, or in the ``sbin`` beside a ``bin`` on it.

    Some systems keep these tools from the PATH of ordinary users, who may run them all the same.
    """
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    beside = [str(Path(folder).with_name("sbin")) for folder in folders if folder.endswith("/bin")]
    return shutil.which(name, path=os.pathsep.join(folders + beside))


def _documents() -> Iterator[tuple[Path, Path]]:
    """Texts of the system's packages, else of Python's own library: file and place on the disk."""
    packages = Path("/usr/share/doc")
    found = False
    for path in _walk(packages):
        if path.parent.parent == packages and path.stat().st_size <= _DOCUMENT_BYTES_MAX:
            found = True
            yield path, Path("documents", path.parent.name, path.name)
    if not found:
        library = Path(sysconfig.get_path("stdlib"))
        for path in _walk(library):
            if path.suffix in _TEXT_SUFFIXES:
                yield path, Path("documents", path.relative_to(library))


def _sources() -> Iterator[tuple[Path, Path]]:
    """Python's standard library: sources and compiled modules. File and place on the disk."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in _walk(library):
        yield path, Path(f"python{sysconfig.get_python_version()}", path.relative_to(library))


def _walk(folder: Path) -> Iterator[Path]:
    """Regular files below a folder, in order of their names."""
    for base, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not _DULL.fullmatch(name))
        for name in sorted(names):
            path = Path(base, name)
            if _PLAIN_NAME.fullmatch(name) and stat.S_ISREG(path.lstat().st_mode):
                yield path


def _gather(
    found: Iterator[tuple[Path, Path]], folder: Path, count_max: int | None = None
) -> tuple[int, int]:
    """Copy files into a folder; how many, and their sizes together.

    Raises:
        ToolError: if there is not a single file.
    """
    seen: set[str] = set()
    total = 0
    for path, place in found:
        size = path.stat().st_size
        # FAT takes names that differ only in case for the same.
        key = str(place).lower()
        if key in seen or total + size > FILE_BYTES_MAX or not os.access(path, os.R_OK):
            continue
        if len(seen) == count_max:
            break
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        seen.add(key)
        total += size
    if not seen:
        raise ToolError("found no files to put on it")
    return len(seen), total
