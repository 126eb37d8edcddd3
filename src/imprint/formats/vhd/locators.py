"""The names of a parent in a differencing VHD: read, and made.

There are up to eight, each for a platform, and the file name in the header itself.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from imprint.core.errors import UsageError
from imprint.core.limits import NAME_BYTES_MAX
from imprint.core.units import align_up
from imprint.formats.vhd.layout import SECTOR_BYTES, Header, Locator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from imprint.core.contracts import Storage

_RELATIVE: Final = b"W2ru"
_URL: Final = b"MacX"

_ENCODINGS: Final = {
    _RELATIVE: "utf-16-le",
    b"W2ku": "utf-16-le",
    _URL: "utf-8",
    # What Virtual PC wrote before 2004, in the system's code page.
    b"Wi2r": "latin-1",
    b"Wi2k": "latin-1",
}
_BY_PREFERENCE: Final = tuple(_ENCODINGS)


def uuid_text(stored: bytes) -> str:
    """A stored UUID as people write it."""
    return str(uuid.UUID(bytes=stored))


def parent_names(storage: Storage, header: Header) -> tuple[str, ...]:
    """All names that the parent has, as paths of this system; relative ones first.

    A Windows path from a drive or a server on means nothing here: its last part is looked for
    beside the image.
    """
    found: list[tuple[int, str]] = []
    for at in range(0, len(header.locators), Locator.SIZE):
        locator = Locator.unpack(header.locators[at : at + Locator.SIZE])
        if locator.platform not in _ENCODINGS:
            continue
        length = locator.length
        if not 0 < length <= 4 * NAME_BYTES_MAX or locator.offset + length > storage.size:
            continue
        data = bytearray(length)
        storage.readinto(memoryview(data), locator.offset)
        text = bytes(data).decode(_ENCODINGS[locator.platform], "replace").split("\0")[0]
        found.append((_BY_PREFERENCE.index(locator.platform), _as_path(text, locator.platform)))
    found.sort(key=lambda item: item[0])
    name = header.parent_name.decode("utf-16-be", "replace").split("\0")[0]
    return _distinct([*(text for _, text in found), _windows_path(name)])


def encode_names(name: str, *, at: int) -> tuple[bytes, bytes, bytes]:
    """The header's name, its locators, and what these point to, which begins at ``at``.

    Args:
        name: path of the parent, relative to the image or absolute.
        at: where in the file the third result will be written.

    Raises:
        UsageError: if VHD cannot hold the name.
    """
    try:
        file_name, length = name.rsplit("/", 1)[-1].encode("utf-16-be"), len(name.encode())
    except UnicodeEncodeError:
        raise UsageError(
            f"vhd: expected a name in Unicode for the parent, found {name!r}"
        ) from None
    if len(file_name) > 510 or length > NAME_BYTES_MAX:
        raise UsageError(f"vhd: expected a parent with a shorter name, found {name!r}")
    if "\\" in name or not file_name:
        raise UsageError(f"vhd: expected a name without a backslash for the parent, found {name!r}")
    if name.startswith("/"):
        entries = [(_URL, ("file://" + quote(name)).encode())]
    else:
        plain = name if name.startswith("../") else "./" + name.removeprefix("./")
        windows = plain.replace("/", "\\").encode("utf-16-le")
        # XenServer knows only the second kind, and everybody else the first.
        entries = [(_RELATIVE, windows), (_URL, ("file://" + quote(plain)).encode())]
    locators, data = b"", b""
    for platform, text in entries:
        space = align_up(len(text), SECTOR_BYTES)
        locators += Locator(
            platform=platform, space=space, length=len(text), offset=at + len(data)
        ).pack()
        data += text.ljust(space, b"\0")
    return file_name.ljust(512, b"\0"), locators.ljust(192, b"\0"), data


def locator_ranges(header: Header, file_size: int) -> list[tuple[int, int]]:
    """Start and end of what the locators point to, inside the file."""
    found = []
    for at in range(0, len(header.locators), Locator.SIZE):
        locator = Locator.unpack(header.locators[at : at + Locator.SIZE])
        if locator.platform in _ENCODINGS and locator.offset < file_size:
            # The room is in sectors or bytes; the name is all that is read.
            length = min(align_up(locator.length, SECTOR_BYTES), file_size - locator.offset)
            found.append((locator.offset, locator.offset + length))
    return found


def _as_path(text: str, platform: bytes) -> str:
    if platform != _URL:
        return _windows_path(text)
    return unquote(text.removeprefix("file://")).removeprefix("./")


def _windows_path(text: str) -> str:
    path = text.replace("\\", "/")
    if path[1:2] == ":" or path.startswith("//"):
        return path.rsplit("/", 1)[-1].rsplit(":", 1)[-1]
    return path.removeprefix("./")


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))
