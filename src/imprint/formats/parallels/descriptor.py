"""``DiskDescriptor.xml``, which says what files of a bundle make up a disk.

Source: QEMU ``docs/interop/prl-xml.txt``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn
from xml.parsers import expat

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.limits import CHAIN_DEPTH_MAX, DISK_SIZE_MAX, NAME_BYTES_MAX
from imprint.core.units import MIB
from imprint.formats.parallels.layout import SECTOR_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage

ROOT: Final = "Parallels_disk_image"
TOP_GUID: Final = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"
"""Of the image that is written to, where the descriptor does not name another one."""
NO_GUID: Final = "{00000000-0000-0000-0000-000000000000}"

TYPE_COMPRESSED: Final = "Compressed"
TYPE_PLAIN: Final = "Plain"

DESCRIPTOR_BYTES_MAX: Final = 1 * MIB
"""Real ones have some KiB."""
STORAGE_COUNT_MAX: Final = 64
FILE_COUNT_MAX: Final = 256
"""All of them are opened: fewer than a process may have."""
_DEPTH_MAX: Final = 16


@dataclass
class Node:
    """An element."""

    tag: str
    text: str = ""
    children: list[Node] = field(default_factory=list)

    def all(self, *path: str) -> Iterator[Node]:
        """Elements with these tags, one below the other."""
        if not path:
            yield self
            return
        for child in self.children:
            if child.tag == path[0]:
                yield from child.all(*path[1:])

    def value(self, *path: str) -> str:
        """The text of the first of them, or nothing."""
        return next((node.text.strip() for node in self.all(*path)), "")


@dataclass(frozen=True)
class ImageFile:
    """A file of the bundle.

    Attributes:
        guid: of the snapshot that it belongs to.
        name: in the bundle's folder.
        is_plain: whether it is raw; else it is a Parallels image.
    """

    guid: str
    name: str
    is_plain: bool


@dataclass(frozen=True)
class Section:
    """A part of the disk, and its files from the top one down, in bytes."""

    start: int
    end: int
    files: tuple[ImageFile, ...]


@dataclass(frozen=True)
class Descriptor:
    """What a bundle's disk is made of.

    Attributes:
        size: of the disk, in bytes.
        sections: that cover it, in order.
        chain: GUIDs of snapshots, from the one that is written to down.
    """

    size: int
    sections: tuple[Section, ...]
    chain: tuple[str, ...]


def read_descriptor(storage: Storage) -> Descriptor:
    """Read and check a descriptor.

    Raises:
        CorruptImageError: if it makes no sense.
        UnsupportedFeatureError: if the disk is encrypted.
    """
    if storage.size > DESCRIPTOR_BYTES_MAX:
        _fail(storage, f"a descriptor of at most {DESCRIPTOR_BYTES_MAX} bytes", storage.size)
    data = bytearray(storage.size)
    storage.readinto(memoryview(data), 0)
    root = _parse(bytes(data), storage)
    if root.tag != ROOT:
        _fail(storage, f"an element {ROOT}", root.tag)
    engine = root.value("Disk_Parameters", "Encryption", "Engine")
    if engine and engine.lower() != NO_GUID:
        raise UnsupportedFeatureError("is encrypted, which cannot be read", name=storage.name)
    chain = _chain(root, storage)
    size = _number(root.value("Disk_Parameters", "Disk_size"), storage) * SECTOR_BYTES
    found = [_section(node, chain, storage) for node in root.all("StorageData", "Storage")]
    sections = tuple(sorted(found, key=lambda section: section.start))
    if not 0 < len(sections) <= STORAGE_COUNT_MAX:
        _fail(storage, f"1 to {STORAGE_COUNT_MAX} storages", len(sections))
    if len(sections) * len(chain) > FILE_COUNT_MAX:
        _fail(storage, f"at most {FILE_COUNT_MAX} files", len(sections) * len(chain))
    position = 0
    for section in sections:
        if section.start != position:
            _fail(storage, f"a storage that starts at {position}", section.start)
        position = section.end
    if not 0 < size <= position:
        _fail(storage, f"storages for a disk of {size} bytes", position)
    return Descriptor(size, sections, chain)


def _section(node: Node, chain: tuple[str, ...], storage: Storage) -> Section:
    start, end = (_number(node.value(tag), storage) * SECTOR_BYTES for tag in ("Start", "End"))
    if start >= end:
        _fail(storage, f"a storage that ends behind {start}", end)
    files: dict[str, ImageFile] = {}
    for image in node.all("Image"):
        guid, kind = image.value("GUID").lower(), image.value("Type")
        if kind not in (TYPE_COMPRESSED, TYPE_PLAIN):
            _fail(storage, "an image of the type Compressed or Plain", repr(kind))
        # A bundle that was moved may have the whole path; what it means lies beside.
        name = image.value("File").replace("\\", "/")
        name = name.rsplit("/", 1)[-1] if name.startswith("/") or ":" in name[:2] else name
        if not 0 < len(name.encode()) <= NAME_BYTES_MAX:
            _fail(storage, f"a file name of 1 to {NAME_BYTES_MAX} bytes", len(name))
        files[guid] = ImageFile(guid, name, kind == TYPE_PLAIN)
    missing = [guid for guid in chain if guid not in files]
    if missing:
        _fail(storage, f"an image for each snapshot from {start} on", f"none for {missing[0]}")
    return Section(start, end, tuple(files[guid] for guid in chain))


def _chain(root: Node, storage: Storage) -> tuple[str, ...]:
    """GUIDs from the top image down."""
    parents = {
        shot.value("GUID").lower(): shot.value("ParentGUID").lower()
        for shot in root.all("Snapshots", "Shot")
    }
    guid = root.value("Snapshots", "TopGUID").lower() or TOP_GUID
    if guid not in parents and len(parents) <= 1:  # without snapshots, any GUID will do
        guids = [node.value("GUID").lower() for node in root.all("StorageData", "Storage", "Image")]
        if len(set(guids)) == 1:
            return (guids[0],)
    chain: list[str] = []
    while guid and guid != NO_GUID:
        if guid in chain or len(chain) == CHAIN_DEPTH_MAX:
            _fail(storage, "snapshots with an end", f"a loop, or more than {CHAIN_DEPTH_MAX}")
        if guid not in parents:
            _fail(storage, "a snapshot for each GUID", f"none for {guid}")
        chain.append(guid)
        guid = parents[guid]
    if not chain:
        _fail(storage, "a snapshot that is written to", "none")
    return tuple(chain)


def _number(text: str, storage: Storage) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 20:
        _fail(storage, "a number", repr(text[:40]))
    number = int(text)
    if number > DISK_SIZE_MAX // SECTOR_BYTES:
        _fail(storage, "a number of sectors", number)
    return number


def _parse(data: bytes, storage: Storage) -> Node:
    """The root element. Entities of its own are refused: they can grow without bound."""
    root = Node("")
    stack = [root]

    def start(tag: str, attributes: dict[str, str]) -> None:
        del attributes
        if len(stack) > _DEPTH_MAX:
            _fail(storage, f"at most {_DEPTH_MAX} levels", "more")
        node = Node(tag)
        stack[-1].children.append(node)
        stack.append(node)

    def end(tag: str) -> None:
        del tag
        stack.pop()

    def text(data: str) -> None:
        stack[-1].text += data

    def doctype(*declaration: object) -> None:
        del declaration
        _fail(storage, "no document type", "one")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat's signature
    except (expat.ExpatError, LookupError, ValueError) as failure:
        raise CorruptImageError(f"expected XML: {failure}", name=storage.name) from failure
    return root.children[0]


def _fail(storage: Storage, expected: str, found: object) -> NoReturn:
    raise CorruptImageError(
        f"DiskDescriptor: expected {expected}, found {found}", name=storage.name
    )
