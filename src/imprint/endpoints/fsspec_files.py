"""Files of images for whatever reads by fsspec: ``imprint:///srv/disk.qcow2#p1:/etc/hostname``.

Behind ``imprint://`` stands an address as everywhere else. fsspec keeps ``::`` for chains of its
own: a disk in a repository is named by the option ``disk``.
"""

from __future__ import annotations

import io
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import fsspec  # type: ignore[import-untyped]

from imprint.core.errors import ImagingError, NotFoundError, UsageError
from imprint.endpoints.browsing import resolve
from imprint.endpoints.location import parse
from imprint.endpoints.open import Access
from imprint.endpoints.opened import Files
from imprint.filesystems.tree import Type

if TYPE_CHECKING:
    from imprint.filesystems.tree import Entry

_READ_ONLY: Final = "images are only read"
_SCHEME: Final = "imprint://"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES: Final = {Type.FILE: "file", Type.SYSTEM: "file", Type.DIRECTORY: "directory"}


class ImprintFileSystem(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """A file system of a disk, for reading."""

    protocol = "imprint"
    root_marker = "/"

    def __init__(self, disk: str, passphrase: bytes | None = None, **options: Any) -> None:  # noqa: ANN401 - fsspec's own
        """Open it.

        Args:
            disk: its address, up to the path: ``/srv/disk.qcow2#p1``.
            passphrase: of an encrypted image, volume or repository.
            options: of fsspec.

        Raises:
            ImagingError: of the kind that says what is wrong.
        """
        super().__init__(disk=disk, passphrase=passphrase, **options)

        def answer(name: str) -> bytes:
            del name
            assert passphrase is not None
            return passphrase

        access = Access(passphrase=None if passphrase is None else answer)
        self._browser, volume, _ = resolve(disk, access)
        try:
            self._files = Files(self._browser, volume)
        except BaseException:
            self._browser.close()
            raise

    def close(self) -> None:
        """Close the disk; nothing can be read any more."""
        self._browser.close()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # noqa: ANN401 - the base's
        """The path in the file system."""
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]
        text = str(path)
        if text.startswith(_SCHEME):
            text = parse(text.removeprefix(_SCHEME)).inside or "/"
        return f"/{text.strip('/')}"

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        if not path.startswith(_SCHEME):
            return {}
        location = parse(path.removeprefix(_SCHEME))
        return {"disk": location.text if location.inside is None else location.base}

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:  # noqa: ANN401, FBT001, FBT002
        """What is in a folder; of a file, itself."""
        del options
        with _translated(path):
            entry = self._files.stat(self._strip_protocol(path))
            found = [entry]
            if entry.type is Type.DIRECTORY:
                found = self._files.listdir(entry.path)
        facts = [self._facts(item) for item in found]
        return facts if detail else [item["name"] for item in facts]

    def info(self, path: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        """Facts about a file or folder."""
        del options
        with _translated(path):
            return self._facts(self._files.stat(self._strip_protocol(path), follow=False))

    def modified(self, path: str) -> datetime:
        """When the content was changed."""
        return _when(self.info(path)["mtime"])

    def created(self, path: str) -> datetime:
        """When the file was made."""
        return _when(self.info(path)["created"])

    def cat_file(
        self,
        path: str,
        start: int | None = None,
        end: int | None = None,
        **options: Any,  # noqa: ANN401
    ) -> bytes:
        """A range of a file; negative places count from its end."""
        del options
        with _translated(path), closing(self._files.content(self._strip_protocol(path))) as source:
            first, last, _ = slice(start, end).indices(source.size)
            data = bytearray(max(0, last - first))
            source.readinto(memoryview(data), first)
            return bytes(data)

    def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:  # noqa: ANN401, FBT001, FBT002
        """Refused."""
        raise io.UnsupportedOperation(_READ_ONLY)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:  # noqa: FBT001, FBT002
        """Refused."""
        raise io.UnsupportedOperation(_READ_ONLY)

    def rmdir(self, path: str) -> None:
        """Refused."""
        raise io.UnsupportedOperation(_READ_ONLY)

    def _rm(self, path: str) -> None:
        raise io.UnsupportedOperation(_READ_ONLY)

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,  # noqa: FBT001, FBT002
        cache_options: dict[str, Any] | None = None,
        **options: Any,  # noqa: ANN401
    ) -> io.BufferedReader:
        del block_size, autocommit, cache_options, options
        if mode != "rb":
            raise io.UnsupportedOperation(_READ_ONLY)
        with _translated(path):
            return self._files.open(self._strip_protocol(path))

    def _facts(self, entry: Entry) -> dict[str, Any]:
        """As fsspec has them, and some more; of a link, where it leads."""
        target = entry
        if entry.type is Type.LINK:
            try:
                target = self._files.stat(entry.path)
            except ImagingError:
                target = entry
        return {
            "name": entry.path,
            "size": target.size,
            "type": _TYPES.get(target.type, "other"),
            "islink": entry.type is Type.LINK,
            "destination": entry.target,
            "mtime": entry.times.modified,
            "created": entry.times.created,
            "mode": entry.mode,
            "uid": entry.owner,
            "gid": entry.group,
            "ino": entry.inode,
            "nlink": entry.links,
        }


class _translated:  # noqa: N801 - used as a function
    """What callers of fsspec expect where nothing is found, or something else."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, failure: BaseException | None, trace: object) -> None:
        if isinstance(failure, NotFoundError):
            raise FileNotFoundError(str(failure)) from failure
        if isinstance(failure, ImagingError) and not isinstance(failure, UsageError):
            raise OSError(str(failure)) from failure


def _when(time_ns: int | None) -> datetime:
    if time_ns is None:
        raise NotImplementedError("this file system does not keep that time")
    return _EPOCH + timedelta(microseconds=time_ns // 1000)
