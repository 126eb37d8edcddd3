"""Names, times and what the Finder keeps, as classic HFS and MFS before it have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.filesystems.probes.apple import MAC_ROMAN
from imprint.filesystems.tree import Times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.filesystems.tree import Attribute

_FINDER_INFO: Final = "user.com.apple.FinderInfo"
_FINDER_BYTES: Final = 32

_S_TO_1970: Final = 2_082_844_800
"""From 1904."""

_NS: Final = 1_000_000_000
_SEPARATORS: Final = str.maketrans("/:", ":/")
_DOTS: Final = frozenset({".", ".."})


def name_of(raw: bytes) -> str:
    """A name, in which ``/`` is ``:``, as macOS shows it; no name is that of another folder."""
    name = raw.decode(MAC_ROMAN).translate(_SEPARATORS)
    return name.replace(".", "\\x2e") if name in _DOTS else name


def times_of(modified_s: int, created_s: int) -> Times:
    """Times of seconds since 1904, which are 0 where they are not known."""
    modified, created = (
        (seconds - _S_TO_1970) * _NS if seconds else None for seconds in (modified_s, created_s)
    )
    return Times(modified=modified, created=created)


def finder_info(info: bytes) -> Iterator[Attribute]:
    """The attribute that macOS makes of it: type and creator, flags, place in a window."""
    if any(info):
        yield _FINDER_INFO, info.ljust(_FINDER_BYTES, b"\0")
