"""Images that lie in a file system of fsspec's: read by ranges, wherever that is."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec  # type: ignore[import-untyped]
from fsspec.core import OpenFile  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from imprint.core.contracts import Traits
from imprint.core.errors import ImagingError, ReadError, UnsupportedFeatureError, UsageError
from imprint.core.extent import check_range
from imprint.core.system import exists
from imprint.endpoints.open import open_source, open_stored
from imprint.endpoints.packaged import inside_package
from imprint.endpoints.places import without_secrets
from imprint.filters.block_cache import BlockCache
from imprint.filters.readonly import ReadOnlyStorage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from imprint.core.contracts import Source
    from imprint.endpoints.open import Access


def open_outer(
    fo: object,
    access: Access,
    *,
    target_protocol: str | None = None,
    target_options: Mapping[str, Any] | None = None,
) -> Source:
    """The disk of an image that fsspec can open.

    A local file is opened as such, with whatever it needs beside it. Of others nothing but the
    file itself is opened.

    Args:
        fo: URL or path of the image, or a file that is open, and stays its owner's.
        access: how the image may be opened.
        target_protocol: of fsspec, instead of the one in the URL.
        target_options: of that file system.

    Raises:
        OSError: whatever the outer file system raises if there is no such file.
        UnsupportedFeatureError: if it can only be read from front to back.
        ImagingError: of the kind that says what is wrong with the image.
    """
    if isinstance(fo, str | os.PathLike):
        fo = fsspec.open(fo, "rb", protocol=target_protocol, **(target_options or {}))
    if not isinstance(fo, OpenFile):
        name = str(getattr(fo, "name", None) or getattr(fo, "path", None) or "a file")
        return _image_in(OuterFile(fo, name=without_secrets(name)), access)  # type: ignore[arg-type]
    if isinstance(fo.fs, LocalFileSystem) and fo.compression is None:
        if not exists(Path(fo.path)):
            raise FileNotFoundError(fo.path)
        return open_source(fo.path, access)
    name = without_secrets(fo.fs.unstrip_protocol(fo.path))
    if fo.compression is not None:
        raise UnsupportedFeatureError(
            f"is compressed with {fo.compression}: its parts cannot be asked for", name=name
        )
    # What is read at once is decided here: readers of tables leap.
    file = fo.fs.open(fo.path, "rb", cache_type="none")
    try:
        storage = OuterFile(file, name=name, is_owner=True, of=fo.fs)
    except BaseException:
        file.close()
        raise
    return _image_in(storage, access)


def _image_in(storage: OuterFile, access: Access) -> Source:
    try:
        inside = inside_package(storage, format_name=access.format, name=storage.name)
    except BaseException:
        storage.close()
        raise
    return open_stored(inside, access, name=storage.name)


class OuterFile(ReadOnlyStorage):
    """A file that something else has open, by ranges; for many threads, one after the other."""

    def __init__(
        self, file: BinaryIO, *, name: str, is_owner: bool = False, of: object = None
    ) -> None:
        """Look how long it is.

        Args:
            file: as it is open.
            name: what errors call it.
            is_owner: closing this closes the file.
            of: what has to live for as long as this: archives are closed with the last who wants
                them.

        Raises:
            UsageError: if it is no file.
            UnsupportedFeatureError: if it can only be read from front to back.
            ReadError: if its end cannot be read: many servers only then say the same.
            OSError: if it cannot be read at all.
        """
        self._file = file
        self._name = name
        self._is_owner = is_owner
        self._of = of
        self._turn = threading.Lock()
        if not hasattr(file, "read"):
            what = f"expected a URL, a path or an open file, found {type(file).__name__}"
            raise UsageError(what)
        try:
            file.seek(0, io.SEEK_END)
            self._size = file.tell()  # not all say it where they seek
        except (io.UnsupportedOperation, ValueError, AttributeError) as failure:
            raise UnsupportedFeatureError(
                "can only be read from front to back: its parts cannot be asked for", name=name
            ) from failure
        self._cache = BlockCache(self._fetch, self._size)
        if self._size:
            self._cache.readinto(memoryview(bytearray(1)), self._size - 1)

    @property
    def name(self) -> str:
        """As given."""
        return self._name

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    @property
    def traits(self) -> Traits:
        """Nobody tells of blocks."""
        return Traits(grain=4096)

    def readinto(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer``; see :class:`~imprint.core.contracts.Source`.

        Raises:
            ReadError: if the file cannot be read there.
        """
        check_range(offset, len(buffer), size=self._size, name=self._name)
        self._cache.readinto(buffer, offset)

    def close(self) -> None:
        """Close the file, if it is its own."""
        if self._is_owner:
            self._file.close()

    def _fetch(self, buffer: memoryview, offset: int) -> None:
        done = 0
        try:
            with self._turn:
                self._file.seek(offset)
                while done < len(buffer):
                    part = self._file.read(len(buffer) - done)
                    if not part:
                        break
                    buffer[done : done + len(part)] = part
                    done += len(part)
        except ImagingError:
            raise
        except Exception as failure:  # each file system has errors of its own
            raise self._error(str(failure) or type(failure).__name__, offset, buffer) from failure
        if done < len(buffer):
            raise self._error(f"expected {len(buffer)} bytes, found {done}", offset, buffer)

    def _error(self, what: str, offset: int, buffer: memoryview) -> ReadError:
        return ReadError(
            f"cannot be read: {what}", name=self._name, offset=offset, length=len(buffer)
        )
