"""Files of images for whatever reads by fsspec.

Behind ``imprint://`` stands an address as everywhere else, ``/srv/disk.qcow2#p1:/etc/hostname``;
or, in a chain, the folder of a volume and a path: ``imprint://p1/etc/hostname::s3://bucket/disk``.
fsspec keeps ``::`` for chains: a disk in a repository is named by the option ``disk``.
"""

from __future__ import annotations

import errno
import io
import os
import re
import warnings
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import fsspec  # type: ignore[import-untyped]

from imprint.core.errors import ImagingError, NotFoundError, UsageError
from imprint.endpoints.browsing import Browser, resolve
from imprint.endpoints.fsspec_reading import Reader, translated
from imprint.endpoints.fsspec_storage import open_outer
from imprint.endpoints.location import parse
from imprint.endpoints.open import Access
from imprint.endpoints.opened import Files
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import READERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.core.contracts import Source
    from imprint.endpoints.location import Location
    from imprint.filesystems.tree import Entry

_READ_ONLY: Final = "images are only read"
_SCHEME: Final = "imprint://"
# What a path in a chain begins with: it has to be told from an address by itself.
_FOLDER: Final = re.compile(r"(?:p\d+(?:-[^/]*)?|files|(?:lvm|md|luks|bitlocker)[^/]*)(?:/|\Z)")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TYPES: Final = {Type.FILE: "file", Type.SYSTEM: "file", Type.DIRECTORY: "directory"}
_WARNED_MAX: Final = 100
_FO: Final = 2  # which argument it is, where it has no name


class ReadWarning(UserWarning):
    """What is listed may not be all, or not the newest."""


class _Apart(type(fsspec.AbstractFileSystem)):  # type: ignore[misc]
    """Gives a file system out again only where it is of the same image.

    fsspec tells them apart by the words for what they are made with.
    """

    @property
    def working_folder(cls) -> str:
        """Where relative addresses begin."""
        try:
            return os.getcwd()  # noqa: PTH109 - a part of a key
        except OSError:  # it was removed
            return ""

    def __call__(cls, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - fsspec's own
        """Make one, or give out the one that there is."""
        fo = args[_FO] if len(args) > _FO else options.get("fo")
        if not isinstance(fo, str | os.PathLike | None):
            options["skip_instance_cache"] = True  # two open files may have the same words
        return super().__call__(*args, **options)


class ImprintFileSystem(fsspec.AbstractFileSystem, metaclass=_Apart):  # type: ignore[misc]
    """The files of a volume, or of all volumes of a disk, for reading."""

    protocol = "imprint"
    root_marker = "/"
    _extra_tokenize_attributes = ("working_folder",)

    def __init__(
        self,
        disk: str | None = None,
        passphrase: bytes | None = None,
        fo: object = None,
        target_protocol: str | None = None,
        target_options: Mapping[str, Any] | None = None,
        *,
        replay_journal: bool = False,
        **options: Any,  # noqa: ANN401 - fsspec's own
    ) -> None:
        """Open it.

        Args:
            disk: address of a volume, up to the path: ``/srv/disk.qcow2#p1``. Its files are shown.
            passphrase: of an encrypted image, volume or repository.
            fo: instead of ``disk``: an image in another file system, by its URL or as a file that
                is open. All its volumes are folders: ``p1``, ``p2-luks``; ``files`` of a disk
                that is one file system.
            target_protocol: of that file system.
            target_options: of that file system.
            replay_journal: tell files of what was not unmounted with what is only in its journal.
            options: of fsspec.

        Raises:
            ImagingError: of the kind that says what is wrong.
        """
        super().__init__(disk=disk, passphrase=passphrase, **options)

        def answer(name: str) -> bytes:
            del name
            assert passphrase is not None
            return passphrase

        access = Access(
            passphrase=None if passphrase is None else answer, replay_journal=replay_journal
        )
        self._files: dict[str, Files] = {}
        self._is_whole = fo is not None
        if self._is_whole:
            if disk is not None:
                raise UsageError(
                    "expected the folder of a volume first in a chain, as p1/etc/hosts", name=disk
                )
            source = open_outer(
                fo, access, target_protocol=target_protocol, target_options=target_options
            )
            passphrases = access.gate().passphrase
            self._browser = Browser(source, passphrases, replays=replay_journal)
            return
        if disk is None:
            raise UsageError(
                "expected a disk",
                advice="imprint:///srv/disk.qcow2#p1:/PATH or imprint://p1/PATH::URL; of a relative"
                " address that looks like a volume's folder, ./p1",
            )
        self._browser, volume, _ = resolve(disk, access)
        try:
            self._files[""] = Files(self._browser, volume)
            _warn(self._files[""])
        except BaseException:
            self._browser.close()
            raise

    def close(self) -> None:
        """Close the disk; nothing can be read any more, and who wants this again gets a new one."""
        self._cache.pop(self._fs_token_, None)
        self._browser.close()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:  # noqa: ANN401 - the base's
        """The path in the file system."""
        if isinstance(path, list):
            return [cls._strip_protocol(item) for item in path]
        text = str(path)
        if text.startswith(_SCHEME):
            text = text.removeprefix(_SCHEME)
            location = _address(text)
            text = text if location is None else location.inside or "/"
        return f"/{text.strip('/')}"

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, str]:
        if not path.startswith(_SCHEME):
            return {}
        location = _address(path.removeprefix(_SCHEME))
        if location is None:
            return {}
        return {"disk": location.text if location.inside is None else location.base}

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:  # noqa: ANN401, FBT001, FBT002
        """What is in a folder; of a file, itself."""
        del options
        with translated(path):
            facts = self._listed(*self._split(path))
        return facts if detail else [item["name"] for item in facts]

    def info(self, path: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        """Facts about a file or folder."""
        del options
        with translated(path):
            folder, inner = self._split(path)
            if folder is None:
                return _folder("/")
            files = self._of(folder)
            return _facts(files, files.stat(inner, follow=False), folder)

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
        with translated(path), closing(self._content(path)) as source:
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

    def cp_file(self, path1: str, path2: str, **options: Any) -> None:  # noqa: ANN401
        """Refused."""
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
        with translated(path):
            return Reader(self, path, self._content(path))

    def _split(self, path: str) -> tuple[str | None, str]:
        """The folder of a volume, and the path in it; ``None`` for what is above all volumes."""
        text = self._strip_protocol(path)
        if not self._is_whole:
            return "", text
        folder, _, inner = text[1:].partition("/")
        return folder or None, f"/{inner}"

    def _of(self, folder: str) -> Files:
        """The files of a volume, opened when they are needed.

        Raises:
            NotFoundError: if there is no such volume.
            ImagingError: if it cannot be opened.
        """
        files = self._files.get(folder)
        if files is None:
            volumes = [item for item in self._browser.volumes() if item.folder == folder]
            if not volumes:
                shown = ", ".join(item["name"][1:] for item in self._listed(None, "/")) or "none"
                what = f"has no volume {folder}; those with files: {shown}"
                raise NotFoundError(what, name=self._browser.source.name)
            files = self._files.setdefault(folder, Files(self._browser, volumes[0]))
            _warn(files)
        return files

    def _listed(self, folder: str | None, inner: str) -> list[dict[str, Any]]:
        if folder is None:
            volumes = self._browser.volumes()
            return [_folder(f"/{item.folder}") for item in volumes if item.kind in READERS]
        files = self._of(folder)
        entry = files.stat(inner)
        if entry.type is not Type.DIRECTORY:
            return [_facts(files, entry, folder)]
        told = len(files.notes)
        facts = [_facts(files, item, folder) for item in files.listdir(entry.path)]
        for item in facts:
            if item["islink"] and item["type"] == "directory":
                item["type"] = "other"  # as of local files: fsspec would go round in circles
        _warn(files, told)
        return facts

    def _content(self, path: str) -> Source:
        folder, inner = self._split(path)
        try:
            if folder is not None:
                return self._of(folder).content(inner)
        except NotFoundError:
            if not self.isdir(path):
                raise
        raise IsADirectoryError(errno.EISDIR, "expected a file, found a directory", path)


def _address(text: str) -> Location | None:
    """What stands behind ``imprint://`` as an address; ``None``: it is a path in a chain.

    Raises:
        UsageError: if it is neither.
    """
    if not text:
        return None
    if _FOLDER.match(text) is None:
        return parse(text)
    try:
        location = parse(text)
    except ImagingError:
        return None
    return None if location.inside is None else location


def _warn(files: Files, told: int = 0) -> None:
    """Tell what could not be followed: fsspec has no other place for it."""
    for note in files.notes[told:][:_WARNED_MAX]:
        said = note if note.isprintable() else ascii(note)  # names may be hostile
        warnings.warn(f"{files.volume.source.name}: {said}", ReadWarning, stacklevel=2)


def _folder(name: str) -> dict[str, Any]:
    """Facts about a folder that is in no file system."""
    return {"name": name, "size": 0, "type": "directory", "mtime": None, "created": None}


def _facts(files: Files, entry: Entry, folder: str) -> dict[str, Any]:
    """As fsspec has them, and some more; of a link, where it leads."""
    target = entry
    if entry.type is Type.LINK:
        try:
            target = files.stat(entry.path)
        except ImagingError:
            target = entry
    return {
        "name": f"/{folder}{entry.path}".rstrip("/") if folder else entry.path,
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


def _when(time_ns: int | None) -> datetime:
    if time_ns is None:
        raise NotImplementedError("this file system does not keep that time")
    return _EPOCH + timedelta(microseconds=time_ns // 1000)
