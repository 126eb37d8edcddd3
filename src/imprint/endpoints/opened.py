"""A disk for Python programs: its bytes, its volumes, and the files in them."""

from __future__ import annotations

import io
from contextlib import closing
from typing import TYPE_CHECKING, Final

from imprint.core.errors import NotFoundError
from imprint.core.image import Image
from imprint.endpoints.browsing import Browser, file_content, look_up
from imprint.filesystems.tree import Type, shown
from imprint.filesystems.trees import READERS
from imprint.filesystems.walking import in_turns, walk

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from imprint.core.contracts import Passphrase, Source, Traits
    from imprint.core.events import OnEvent
    from imprint.core.extent import Extent
    from imprint.core.info import ImageInfo
    from imprint.endpoints.browsing import BrowsedVolume
    from imprint.filesystems.tree import Entry

BUFFER_BYTES: Final = 128 << 10
"""Of an open file: what is read at once."""


class ContentFile(io.RawIOBase):
    """The content of a file of an image as a file of Python, for reading; closes the content.

    Attributes:
        size: in bytes.
    """

    def __init__(self, source: Source) -> None:
        """``source`` is the content."""
        super().__init__()
        self._source = source
        self._position = 0
        self.size = source.size

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, as :meth:`io.IOBase.seek`."""
        bases = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}
        base = bases.get(whence)
        if base is None:
            raise ValueError(f"expected whence 0, 1 or 2, found {whence}")
        if base + offset < 0:
            raise ValueError(f"expected a place in the file, found {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        """Fill ``buffer`` as far as the file reaches, and say how far."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = max(0, min(len(view), self.size - self._position))
        if count:
            self._source.readinto(view[:count], self._position)
            self._position += count
        return count

    def close(self) -> None:
        """Close the content."""
        if not self.closed:
            self._source.close()
        super().close()


class Files:
    """The files of one volume of a disk. Safe to use from many threads."""

    def __init__(self, browser: Browser, volume: BrowsedVolume) -> None:
        """Both stay the caller's."""
        self._browser = browser
        self.volume = volume
        self._tree = browser.tree(volume)
        self._lock: threading.RLock = browser.lock(volume)

    @property
    def notes(self) -> list[str]:
        """What could not be followed so far."""
        return list(self._tree.notes)

    def stat(self, path: str, *, follow: bool = True, deleted: bool = False) -> Entry:
        """What is at a path.

        Raises:
            NotFoundError: if nothing is.
        """
        with self._lock:
            return look_up(self._tree, path, follow=follow, deleted=deleted)

    def listdir(self, path: str = "/", *, deleted: bool = False) -> list[Entry]:
        """What is in a folder, by name.

        Raises:
            NotFoundError: if there is no such folder.
        """
        with self._lock:
            folder = look_up(self._tree, path, deleted=deleted)
            if folder.type is not Type.DIRECTORY:
                what = f"expected a folder, found a {folder.type.value}"
                raise NotFoundError(what, name=shown(path))
            # Damaged folders, and those with deleted names, have one name several times.
            return sorted(self._tree.children(folder, deleted=deleted), key=_path)

    def walk(self, path: str = "/", *, deleted: bool = False) -> Iterator[Entry]:
        """A folder, and all that is below it; other threads may ask meanwhile.

        Raises:
            NotFoundError: if there is no such folder.
        """
        with self._lock:
            top = look_up(self._tree, path)
        yield from in_turns(walk(self._tree, top, deleted=deleted), self._lock)

    def content(self, path: str | Entry, *, stream: str | None = None) -> Source:
        """The bytes of a file; close them before the disk.

        Raises:
            NotFoundError: if there is no such file, or stream of it.
            ImagingError: of the kind that says why it cannot be read.
        """
        with self._lock:
            entry = look_up(self._tree, path) if isinstance(path, str) else path
            return file_content(self._tree, entry, stream)

    def open(self, path: str | Entry, *, stream: str | None = None) -> io.BufferedReader:
        """A file for reading, as Python's own; as :meth:`content` otherwise."""
        return io.BufferedReader(ContentFile(self.content(path, stream=stream)), BUFFER_BYTES)

    def read(self, path: str | Entry, *, stream: str | None = None) -> bytes:
        """All of a file; as :meth:`content` otherwise."""
        with closing(self.content(path, stream=stream)) as source:
            data = bytearray(source.size)
            source.readinto(memoryview(data), 0)
            return bytes(data)


class Disk(Image):
    """An image that was opened, and a look at the files on it; it owns the image."""

    def __init__(
        self, image: Image, passphrase: Passphrase, on_event: OnEvent, *, replays: bool = False
    ) -> None:
        """``passphrase``, ``on_event`` and ``replays`` are as :class:`Browser` has them."""
        super().__init__(_Through(image), name=image.name, parent=None)
        self._image = image
        self._browser = Browser(image, passphrase, on_event, replays=replays)
        self._files: dict[str, Files] = {}

    @property
    def parent(self) -> Source | None:
        """What holes of the image read from."""
        return self._image.parent

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`."""
        self._image.readinto(buffer, offset)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """What the range is made of, seen through all parents."""
        return self._image.extents(offset, length)

    def volumes(self) -> list[BrowsedVolume]:
        """The volumes of the disk, containers opened: ``name`` is as in addresses.

        Raises:
            ImagingError: of the kind that says what is wrong.
        """
        return self._browser.volumes()

    def filesystem(self, volume: str | None = None) -> Files:
        """The files of a volume, by its name; of the only one with files, if none is named.

        Raises:
            UsageError: if there is no such volume, or several.
            UnsupportedFeatureError: if nothing knows its file system, or a module is missing.
            CorruptImageError: if nothing can be made of it.
        """
        if volume is None:
            known = [item.name for item in self.volumes() if item.kind in READERS]
            volume = known[0] if len(known) == 1 else ""
        if volume not in self._files:
            self._files[volume] = Files(self._browser, self._browser.volume(volume))
        return self._files[volume]

    def close(self) -> None:
        """Close the trees, the image and its parents."""
        self._browser.close()


def _path(entry: Entry) -> str:
    return entry.path


class _Through:
    """The layer of an image that has one: whatever it says is said again."""

    def __init__(self, image: Image) -> None:
        self._image = image

    @property
    def size(self) -> int:
        return self._image.size

    @property
    def traits(self) -> Traits:
        return self._image.traits

    def map(self, offset: int, length: int) -> Extent:
        return next(iter(self._image.own_extents(offset, length)))

    def unit(self, offset: int) -> Extent:
        return next(iter(self._image.own_extents(offset, 1)))

    def decode(self, unit: Extent, buffer: memoryview) -> None:
        self._image.readinto(buffer, unit.offset)

    def info(self) -> ImageInfo:
        return self._image.info()

    def close(self) -> None:
        self._image.close()
