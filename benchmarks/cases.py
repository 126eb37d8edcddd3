"""What is compared: the commands of imprint and of its peers that do the same work."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
IMPRINT: Final = str(ROOT / "imprint")

SAME_SPEED: Final = 1.0
COMPRESSED_WRITING: Final = 1 / 1.8
START_UP_S: Final = 0.150

PEER_FORMATS: Final = {"vhd": "vpc"}
"""What qemu-img calls a format, where that is not the name it has here."""


@dataclass(frozen=True)
class Tool:
    """One way to do a case's work.

    Attributes:
        name: of the program.
        command: to run. ``{disk}``, ``{out}`` and the like stand for files.
    """

    name: str
    command: tuple[str, ...]

    def resolve(self, files: dict[str, Path]) -> list[str]:
        """The command with its files put in."""
        return [
            word.format(**{name: str(path) for name, path in files.items()})
            for word in self.command
        ]


@dataclass(frozen=True)
class Image:
    """An input that qemu-img writes.

    Attributes:
        format: of the file, as imprint calls it.
        options: of ``qemu-img convert``.
    """

    format: str
    options: tuple[str, ...] = ()


IMAGES: Final = {
    "plain": Image("qcow2"),
    "zstd": Image("qcow2", ("-c", "-o", "compression_type=zstd")),
    "vmdk": Image("vmdk"),
    "stream": Image("vmdk", ("-o", "subformat=streamOptimized")),
    "vhdx": Image("vhdx"),
    # Without force_size, qemu-img makes the disk larger, up to the next geometry.
    "vhd": Image("vhd", ("-o", "force_size=on")),
    "fixed": Image("vhd", ("-o", "force_size=on,subformat=fixed")),
    "vdi": Image("vdi"),
}
"""The disk of programs and texts as images, by the names that cases call them."""


@dataclass(frozen=True)
class Case:
    """What is compared.

    Attributes:
        name: for ``--only``.
        ours: what the user of imprint types.
        peers: others that do the same.
        needs: inputs: a name in :data:`IMAGES`, ``disk`` or ``fragmented``.
        output: format of the file that is written, or ``None``.
        bar: imprint's time divided by the peer's must not be above it; ``None``: no bar.
        seconds_max: bar for imprint's time alone.
        stored_bar: imprint's output divided by the peer's must not be above it, in bytes.
    """

    name: str
    ours: Tool
    peers: tuple[Tool, ...]
    needs: tuple[str, ...]
    output: str | None = None
    bar: float | None = SAME_SPEED
    seconds_max: float | None = None
    stored_bar: float | None = None


def imprint(*words: str) -> Tool:
    """The program as its user runs it."""
    return Tool("imprint", (IMPRINT, *words))


def qemu_img(*words: str) -> Tool:
    """qemu-img."""
    return Tool("qemu-img", ("qemu-img", *words))


def format_of(needed: str) -> str:
    """The format of an input of ``convert``, as imprint calls it."""
    return "raw" if needed == "disk" else IMAGES[needed].format


def peer_format(name: str) -> str:
    """What qemu-img calls a format."""
    return PEER_FORMATS.get(name, name)


def conversion(
    name: str,
    needed: str,
    target_format: str,
    *,
    ours: tuple[str, ...] = (),
    theirs: tuple[str, ...] = (),
    others: tuple[Tool, ...] = (),
    bar: float = SAME_SPEED,
) -> Case:
    """A case of ``convert`` from an input.

    qemu-img is told ``-t writeback``: by default it ignores flushes of its target and would
    leave the result in memory only, where imprint waits for the disk.
    """
    source_format = format_of(needed)
    files = (f"{{{needed}}}", "{out}")
    quiet = ("--progress", "none")
    names = ("-f", source_format, "-O", target_format)
    peer_names = ("-f", peer_format(source_format), "-O", peer_format(target_format))
    return Case(
        name,
        imprint("convert", *quiet, *names, *ours, *files),
        (qemu_img("convert", "-t", "writeback", *peer_names, *theirs, *files), *others),
        (needed,),
        target_format,
        bar,
    )


def _options(*words: str) -> tuple[str, ...]:
    return tuple(part for word in words for part in ("-o", word))


QCOW2_CASES: Final = (
    conversion(
        "raw-raw",
        "disk",
        "raw",
        others=(Tool("cp", ("cp", "--sparse=always", "--reflink=never", "{disk}", "{out}")),),
    ),
    conversion("raw-qcow2", "disk", "qcow2"),
    conversion("qcow2-raw", "plain", "raw"),
    conversion(
        "raw-qcow2-zlib",
        "disk",
        "qcow2",
        ours=_options("compression=zlib"),
        theirs=("-c", *_options("compression_type=zlib")),
        bar=COMPRESSED_WRITING,
    ),
    conversion(
        "raw-qcow2-zstd",
        "disk",
        "qcow2",
        ours=_options("compression=zstd"),
        theirs=("-c", *_options("compression_type=zstd")),
        bar=COMPRESSED_WRITING,
    ),
    conversion("qcow2-zstd-raw", "zstd", "raw"),
)

VIRTUAL_CASES: Final = (
    conversion("raw-vmdk", "disk", "vmdk"),
    conversion("vmdk-raw", "vmdk", "raw"),
    conversion(
        "raw-stream",
        "disk",
        "vmdk",
        ours=_options("subformat=streamOptimized"),
        theirs=_options("subformat=streamOptimized"),
        bar=COMPRESSED_WRITING,
    ),
    conversion("stream-raw", "stream", "raw"),
    conversion("raw-vhdx", "disk", "vhdx"),
    conversion("vhdx-raw", "vhdx", "raw"),
    conversion("raw-vhd", "disk", "vhd", theirs=_options("force_size=on")),
    conversion("vhd-raw", "vhd", "raw"),
    conversion(
        "raw-fixed",
        "disk",
        "vhd",
        ours=_options("subformat=fixed"),
        theirs=_options("force_size=on,subformat=fixed"),
    ),
    conversion("fixed-raw", "fixed", "raw"),
    conversion("raw-vdi", "disk", "vdi"),
    conversion("vdi-raw", "vdi", "raw"),
    conversion("qcow2-vmdk", "plain", "vmdk"),
    conversion("vmdk-vhdx", "vmdk", "vhdx"),
)

LOOKING_CASES: Final = (
    Case(
        "map-fragmented",
        imprint("map", "--json", "{fragmented}"),
        (qemu_img("map", "--output=json", "{fragmented}"),),
        ("fragmented",),
    ),
    Case(
        "compare-equal",
        imprint("compare", "--progress", "none", "{disk}", "{plain}"),
        (qemu_img("compare", "-f", "raw", "-F", "qcow2", "{disk}", "{plain}"),),
        ("disk", "plain"),
    ),
    Case(
        "info",
        imprint("info", "{plain}"),
        (qemu_img("info", "{plain}"),),
        ("plain",),
        bar=None,
        seconds_max=START_UP_S,
    ),
)

CASES: Final = (*QCOW2_CASES, *VIRTUAL_CASES, *LOOKING_CASES)
