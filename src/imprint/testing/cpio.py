"""Archives that the Linux kernel unpacks into its first file system.

Source: Linux, ``Documentation/driver-api/early-userspace/buffer-format.rst``, "newc".
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Final

_MAGIC: Final = b"070701"
_END: Final = "TRAILER!!!"
_FOLDER: Final = 0o040755
_PROGRAM: Final = 0o100755


class Archive:
    """Folders and files that may be run; what is there already is not put in again."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._names: set[str] = set()

    def add_folder(self, name: str) -> None:
        """Put a folder in."""
        self._add(name, _FOLDER, b"")

    def add(self, name: str, data: bytes) -> None:
        """Put a file in, and the folders on the way to it."""
        path = PurePosixPath(name.lstrip("/"))
        for folder in reversed(path.parents[:-1]):
            self.add_folder(str(folder))
        self._add(str(path), _PROGRAM, data)

    def end(self) -> bytes:
        """The archive."""
        self._add(_END, 0, b"")
        return bytes(self._data)

    def _add(self, name: str, mode: int, data: bytes) -> None:
        if name in self._names:
            return
        self._names.add(name)
        text = name.encode() + b"\0"
        # Number, mode, owner, group, links, time, size, device, special device, name, sum.
        fields = (len(self._names), mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(text), 0)
        self._data += _MAGIC + b"".join(b"%08X" % field for field in fields) + text
        self._pad()
        self._data += data
        self._pad()

    def _pad(self) -> None:
        self._data += bytes(-len(self._data) % 4)
