"""The formats that imprint knows: one literal table, so that listing imports nothing.

A module is imported when its format is used. Each has a module-level ``FORMAT``.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError, UnsupportedFeatureError, UsageError
from imprint.core.formats import Match, SizeChoosing
from imprint.core.limits import PROBE_BYTES

if TYPE_CHECKING:
    from imprint.core.contracts import Storage
    from imprint.core.formats import Format, SizePolicy


@dataclass(frozen=True)
class Entry:
    """A line of the table.

    Attributes:
        name: as in ``-f`` and ``-O``.
        module: below ``imprint.formats``.
        suffixes: which pick it for a new file.
        magic: offset (negative: from the end) and bytes; one of them is there if the
            content may be this format. Empty: never found by content.
        aliases: other names that are understood.
    """

    name: str
    module: str
    suffixes: tuple[str, ...]
    magic: tuple[tuple[int, bytes], ...]
    aliases: tuple[str, ...] = ()


TABLE: Final = (
    Entry("qcow2", "qcow2", (".qcow2", ".qcow"), ((0, b"QFI\xfb"),)),
    Entry("vdi", "vdi", (".vdi",), ((0x40, b"\x7f\x10\xda\xbe"),)),
    Entry("qcow", "qcow", (), ((0, b"QFI\xfb\0\0\0\x01"),)),
    Entry("qed", "qed", (".qed",), ((0, b"QED\0"),)),
    Entry(
        "parallels",
        "parallels",
        (".hds", ".parallels"),
        # The last one: DiskDescriptor.xml of a bundle, if the probe agrees.
        ((0, b"WithoutFreeSpace"), (0, b"WithouFreSpacExt"), (0, b"<?xml")),
    ),
    Entry("bochs", "bochs", (".bochs",), ((0, b"Bochs Virtual HD Image"),)),
    Entry(
        "cloop",
        "cloop",
        (".cloop",),
        # Version 4 may have its header at the end.
        (
            (0, b"#!/bin/sh\n#V2.0 Format\n"),
            (0, b"#!/bin/sh\n#V4.0 Format\n"),
            (-0x88, b"#!/bin/sh\n#V4.0 Format\n"),
        ),
    ),
    Entry(
        "vhd",
        "vhd",
        (".vhd", ".vpc"),
        # Fixed images have a footer only, which early versions of Virtual PC cut short by a byte.
        ((0, b"conectix"), (-512, b"conectix"), (-511, b"conectix")),
        ("vpc",),
    ),
    Entry("vhdx", "vhdx", (".vhdx", ".avhdx"), ((0, b"vhdxfile"),)),
    Entry(
        "vmdk",
        "vmdk",
        (".vmdk",),
        (
            (0, b"KDMV"),
            (0, b"COWD"),
            (0, b"\xbe\xba\xfe\xca\0\0\0\0"),
            (0, b"# Disk Descriptor"),
            (0, b"# disk descriptor"),
        ),
    ),
    Entry("chd", "chd", (".chd",), ((0, b"MComprHD"),)),
    Entry("asif", "asif", (".asif",), ((0, b"shdw"),)),
    Entry("e01", "ewf.e01", (".e01",), ((0, b"EVF\x09\r\n\xff\0"),)),
    Entry("l01", "ewf.l01", (".l01",), ((0, b"LVF\x09\r\n\xff\0"),)),
    Entry("ex01", "ewf.ex01", (".ex01",), ((0, b"EVF2\r\n\x81\0"),)),
    Entry("s01", "ewf.s01", (".s01",), ((0, b"EVF\x09\r\n\xff\0"),)),
    Entry("aff", "aff", (".aff", ".afm"), ((0, b"AFF10\r\n\0"),)),
    Entry("aff4", "aff4", (".aff4", ".af4"), ((0, b"PK\3\4"),)),
    Entry("raw", "raw", (".raw", ".img", ".dd", ".bin", ".ima", ".001"), ()),
)

# Containers that are known by their marks and not read. Taken for raw, they would be copied
# and hashed as if their tables were a disk: nobody asks for that without saying so.
FOREIGN: Final = (
    ("Apple UDIF (DMG)", ((-512, b"koly"),)),
    ("encrypted DMG", ((0, b"encrcdsa"),)),
    ("EnCase Lx01", ((0, b"LEF2\r\n\x81\0"),)),
    ("WIM", ((0, b"MSWIM\0\0\0"),)),
)


def names() -> tuple[str, ...]:
    """Of all formats, in the table's order."""
    return tuple(entry.name for entry in TABLE)


def entry(name: str) -> Entry:
    """The table's line for a name or an alias.

    Raises:
        UsageError: if there is none.
    """
    for line in TABLE:
        if name.lower() in (line.name, *line.aliases):
            return line
    raise UsageError(f"no format is called {name!r}; known: {', '.join(names())}")


@cache
def get(name: str) -> Format:
    """The format called ``name``, or that has it as an alias.

    Raises:
        UsageError: if there is none.
    """
    module = importlib.import_module(f"imprint.formats.{entry(name).module}")
    format_: Format = module.FORMAT
    return format_


def get_for(name: str, size_policy: SizePolicy | None) -> Format:
    """The same, reading sizes as ``size_policy`` says, if images of the format have two.

    Raises:
        UsageError: as of :func:`get`.
    """
    format_ = get(name)
    if size_policy is not None and isinstance(format_, SizeChoosing):
        return format_.with_size_policy(size_policy)
    return format_


def by_suffix(file_name: str) -> str | None:
    """The name of the format whose suffix ``file_name`` has."""
    lower = file_name.lower()
    for entry in TABLE:
        if lower.endswith(entry.suffixes):
            return entry.name
    return None


def detect(storage: Storage) -> str:
    """The name of the format that the content of ``storage`` is in.

    ``raw`` is what is left when no other format knows it: good enough to read, never to
    write in place.

    Raises:
        FormatError: if more than one format claims it: a wrong guess would read wrong bytes.
        UnsupportedFeatureError: if it is a container that imprint cannot read.
    """
    found = matches(storage)
    if len(found) > 1:
        raise FormatError(
            f"expected one format, found the marks of {' and '.join(found)}",
            name=storage.name,
            advice="name the right one with -f",
        )
    if not found:
        _refuse_foreign(storage)
    return found[0] if found else "raw"


def matches(storage: Storage) -> list[str]:
    """The names of all formats whose marks are in the content; ``raw`` has none."""
    head = _bytes_at(storage, 0, PROBE_BYTES)
    tail = _bytes_at(storage, max(0, storage.size - PROBE_BYTES), PROBE_BYTES)
    return [
        entry.name
        for entry in TABLE
        if any(_has(head, tail, offset, magic) for offset, magic in entry.magic)
        and get(entry.name).probe(storage) is Match.STRONG
    ]


def _refuse_foreign(storage: Storage) -> None:
    head = _bytes_at(storage, 0, PROBE_BYTES)
    tail = _bytes_at(storage, max(0, storage.size - PROBE_BYTES), PROBE_BYTES)
    for title, marks in FOREIGN:
        if any(_has(head, tail, offset, mark) for offset, mark in marks):
            raise UnsupportedFeatureError(
                f"looks like {title}, which cannot be read yet",
                name=storage.name,
                advice="-f raw takes the file itself for the disk",
            )


def _bytes_at(storage: Storage, offset: int, length: int) -> bytes:
    """What there is to be seen: on a failing disk, perhaps nothing, which is no format's mark."""
    buffer = bytearray(min(length, storage.size - offset))
    try:
        storage.readinto(memoryview(buffer), offset)
    except ReadError:
        return b""
    return bytes(buffer)


def _has(head: bytes, tail: bytes, offset: int, magic: bytes) -> bool:
    if offset >= 0:
        return head.startswith(magic, offset)
    return tail[offset:].startswith(magic)
