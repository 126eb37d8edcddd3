"""Names and places of the files of a volume, told by The Sleuth Kit: nothing is mounted.

It is a library in C that was made for evidence. What it says of a damaged file system is taken as
far as it goes: what cannot be followed is a note, and the rest is told.
"""

from __future__ import annotations

import enum
import importlib
import stat
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imprint.core.errors import CorruptImageError, ImagingError, UnsupportedFeatureError
from imprint.core.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source

KINDS: Final = {
    "exfat": "TSK_FS_TYPE_EXFAT",
    "ext2": "TSK_FS_TYPE_EXT_DETECT",
    "ext3": "TSK_FS_TYPE_EXT_DETECT",
    "ext4": "TSK_FS_TYPE_EXT_DETECT",
    "hfsplus": "TSK_FS_TYPE_HFS_DETECT",
    "iso9660": "TSK_FS_TYPE_ISO9660",
    "ntfs": "TSK_FS_TYPE_NTFS",
    "ufs": "TSK_FS_TYPE_FFS_DETECT",
    "vfat": "TSK_FS_TYPE_FAT_DETECT",
}
"""What the library calls them, by the kind that ``identify`` tells; it knows no others of ours."""

ENTRIES_MAX: Final = 1 << 24
"""Names that are looked at; file systems with more have to be damaged to be walked in a minute."""

PATH_CHARS_MAX: Final = 4096
"""Of a path: Linux's own limit."""

PENDING_CHARS_MAX: Final = 64 * MIB
"""Of all paths of folders that are still to be looked into: some million."""

_NAME_IN_USE: Final = 1
_RUN_WITHOUT_DATA: Final = 0x01 | 0x02
"""``TSK_FS_ATTR_RUN_FLAG_FILLER`` and ``SPARSE``: no place on the volume."""
_SHOWN_CHARS: Final = 200


class Type(enum.Enum):
    """What an entry of a folder is."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


class Entry(NamedTuple):
    """A name in a file system.

    Attributes:
        path: from its root, which is ``/``; bytes that are not UTF-8 are escapes.
        inode: its number, of whatever the file system numbers.
        type: what it is.
        size: of its content, in bytes.
        mtime_ns: when that was changed, in ns since 1970.
        mode: its permissions, with owner and group; ``0`` where there are none.
        owner: its number.
        group: its number.
        extents: where its content lies, ``(offset, length)`` in bytes of the volume, whole blocks;
            those of a file that is stored within its inode are none.
    """

    path: str
    inode: int
    type: Type
    size: int
    mtime_ns: int
    mode: int
    owner: int
    group: int
    extents: tuple[tuple[int, int], ...]


class SleuthKit:
    """A file system, by folders. For one thread.

    Attributes:
        notes: what could not be followed, one sentence each, without a full stop.
    """

    def __init__(self, volume: Source, kind: str) -> None:
        """The file system that is all of ``volume``.

        Raises:
            UnsupportedFeatureError: if the library is missing, or does not know the kind.
            CorruptImageError: if it makes nothing of the volume.
        """
        library = _library(volume.name)
        if kind not in KINDS:
            raise UnsupportedFeatureError(f"files of {kind} cannot be listed", name=volume.name)
        self.notes: list[str] = []
        self._types = {
            int(library.TSK_FS_META_TYPE_REG): Type.FILE,
            int(library.TSK_FS_META_TYPE_DIR): Type.DIRECTORY,
            int(library.TSK_FS_META_TYPE_LNK): Type.LINK,
        }
        self._volume = volume
        self._seen: set[int] = set()
        self._left = ENTRIES_MAX
        self._image = _image(library, volume)
        try:
            self._system = library.FS_Info(
                self._image, offset=0, type=int(getattr(library, KINDS[kind]))
            )
            self._block = int(self._system.info.block_size)
            self._root = int(self._system.info.root_inum)
        except (OSError, RuntimeError) as failure:
            raise CorruptImageError(
                f"its files cannot be listed: {_said(failure)}", name=volume.name
            ) from None

    def root(self) -> Entry:
        """The folder that holds all others."""
        try:
            entry = self._entry("/", self._system.open_meta(inode=self._root))
        except (OSError, RuntimeError) as failure:
            self._note("/", failure)
            entry = None
        if entry is None:
            return Entry("/", self._root, Type.DIRECTORY, 0, 0, 0, 0, 0, ())
        return entry._replace(type=Type.DIRECTORY)

    def children(self, path: str, inode: int) -> list[Entry]:
        """What is in a folder, by name; what was deleted is left out. Once for each folder."""
        if inode in self._seen or len(path) > PATH_CHARS_MAX:
            self.notes.append(f"{path[:_SHOWN_CHARS]}: a folder in itself, or too deep")
            return []
        self._seen.add(inode)
        prefix = path if path == "/" else f"{path}/"
        found: dict[str, Entry] = {}
        try:
            folder = self._system.open_dir(inode=inode)
            for file in folder:
                self._left -= 1
                if self._left < 0:
                    self.notes.append(f"{path[:_SHOWN_CHARS]}: expected an end, found too many files")
                    break
                name = file.info.name
                if name is None or not int(name.flags) & _NAME_IN_USE or file.info.meta is None:
                    continue
                text = _text(name.name)
                if text in ("", ".", ".."):
                    continue
                entry = self._entry(prefix + text, file)
                if entry is not None:
                    found[text] = entry
        except (OSError, RuntimeError) as failure:
            self._note(path, failure)
        return [found[name] for name in sorted(found)]

    def walk(self) -> Iterator[Entry]:
        """All names, and the root."""
        root = self.root()
        yield root
        for _, entry in paired(None, self):
            assert entry is not None
            yield entry

    def _entry(self, path: str, file: Any) -> Entry | None:  # noqa: ANN401 - without types
        meta = file.info.meta
        kind = self._types.get(int(meta.type), Type.OTHER)
        block, size = self._block, self._volume.size
        extents = []
        try:
            for attribute in file:
                for run in attribute:
                    start, length = int(run.addr) * block, int(run.len) * block
                    if int(run.flags) & _RUN_WITHOUT_DATA or not 0 <= start < size or length <= 0:
                        continue
                    extents.append((start, min(length, size - start)))
        except (OSError, RuntimeError) as failure:
            self._note(path, failure)
        return Entry(
            path,
            int(meta.addr),
            kind,
            int(meta.size),
            int(meta.mtime) * 1_000_000_000 + int(meta.mtime_nano),
            stat.S_IMODE(int(meta.mode)),
            int(meta.uid),
            int(meta.gid),
            tuple(extents),
        )

    def _note(self, path: str, failure: Exception) -> None:
        why = self._image.failure or _said(failure)
        self._image.failure = ""
        self.notes.append(f"{path[:_SHOWN_CHARS]}: {why}")


def paired(
    old: SleuthKit | None, new: SleuthKit | None
) -> Iterator[tuple[Entry | None, Entry | None]]:
    """What two file systems have at each path but the root, ``None`` for nothing.

    Both are walked at once, so that only the folders on the way are kept.
    """
    sides = (old, new)
    roots = tuple(None if side is None else ("/", side.root().inode) for side in sides)
    pending: list[tuple[tuple[str, int] | None, ...]] = [roots]
    chars = 0
    while pending:
        folders = pending.pop()
        chars -= max(len(item[0]) for item in folders if item is not None)
        first, second = (
            {}
            if side is None or folder is None
            else {entry.path: entry for entry in side.children(*folder)}
            for side, folder in zip(sides, folders, strict=True)
        )
        below = []
        for path in sorted({*first, *second}):
            pair = (first.get(path), second.get(path))
            yield pair
            inside = tuple(
                (item.path, item.inode)
                if item is not None and item.type is Type.DIRECTORY
                else None
                for item in pair
            )
            if any(inside):
                chars += len(path)
                if chars > PENDING_CHARS_MAX:
                    for side in sides:
                        if side is not None:
                            side.notes.append(f"{path[:_SHOWN_CHARS]}: too many folders")
                    return
                below.append(inside)
        pending += reversed(below)


def _library(name: str) -> Any:  # noqa: ANN401 - the module has no types
    try:
        return importlib.import_module("pytsk3")
    except ImportError:
        raise UnsupportedFeatureError(
            "listing its files needs the Python module pytsk3",
            name=name,
            advice="pip install 'imprint[browse]' brings it",
        ) from None


def _image(library: Any, volume: Source) -> Any:  # noqa: ANN401 - without types
    """The volume as the library's own kind of disk, with a ``failure``: why a read failed."""

    class Image(library.Img_Info):  # type: ignore[misc]  # its base is known when it is loaded
        """Reads from the volume."""

        def __init__(self) -> None:
            self.failure = ""
            super().__init__(url="", type=library.TSK_IMG_TYPE_EXTERNAL)

        def get_size(self) -> int:
            """Of the volume, in bytes."""
            return volume.size

        def read(self, offset: int, length: int) -> bytes:
            """Bytes of the volume, fewer at its end."""
            buffer = bytearray(max(0, min(length, volume.size - offset)))
            try:
                if buffer:
                    volume.readinto(memoryview(buffer), offset)
            except ImagingError as failure:
                self.failure = str(failure.args[0])
                raise OSError(self.failure) from failure
            return bytes(buffer)

        def close(self) -> None:
            """Leave the volume to its owner."""

    return Image()


def _text(name: bytes | None) -> str:
    return (name or b"").decode("utf-8", "backslashreplace").replace("/", "\\x2f")


def _said(failure: Exception) -> str:
    """What the library says, without its own function names."""
    text = str(failure)
    return text.rpartition("error: ")[2].strip() or "it is damaged"
