"""Extended attributes of extracted files. One that cannot be set never fails the rest."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

from imprint.core.system import reason_of
from imprint.filesystems.attributes import ACCESS_LIST, DEFAULT_LIST, group_rights
from imprint.filesystems.tree import bytes_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from imprint.endpoints.extraction import Extraction, Wishes
    from imprint.filesystems.tree import Entry, FileTree

_HARMLESS: Final = "user."
"""Nothing in the system depends on these; others give rights: to users whose numbers an image
names, to a program by itself."""

_PLAIN: Final = 0o777
_OF_GROUP: Final = 0o070
_GROUP_SHIFT: Final = 3


def restore(
    tree: FileTree, entry: Entry, where: int | str, wishes: Wishes, report: Extraction
) -> int:
    """Give what was made of an entry the extended attributes that are wanted.

    The permissions that it may have then: with an access control list, those of the group in a
    mode are what the list permits others, and without the list they would be the group's.

    Args:
        tree: of the entry.
        entry: what it was made of.
        where: its descriptor; of a symbolic link, a path to itself.
        wishes: which are wanted.
        report: counts them, and gets those that cannot be set.
    """
    found = tree.attributes(entry)
    has_list = _set(found, entry, where, wishes, report)
    if wishes.xattrs == "all" and isinstance(where, int):
        for name in {ACCESS_LIST, DEFAULT_LIST}.difference(found):
            with contextlib.suppress(OSError, AttributeError):  # there mostly is none
                os.removexattr(where, name)  # of the folder that it is in
    return entry.mode if has_list else _without_list(entry.mode, found)


def plain_mode(tree: FileTree, entry: Entry) -> int:
    """What a file may have that has a part of the content of an entry, and no more of it."""
    return _without_list(entry.mode & _PLAIN, tree.attributes(entry))


def _without_list(mode: int, found: Mapping[str, bytes]) -> int:
    access = found.get(ACCESS_LIST)
    if access is None:
        return mode
    return mode & (~_OF_GROUP | group_rights(access) << _GROUP_SHIFT)


def _set(
    found: Mapping[str, bytes], entry: Entry, where: int | str, wishes: Wishes, report: Extraction
) -> bool:
    """Set them; whether there is an access control list among those that are set now."""
    has_list = False
    for name, value in found.items() if wishes.xattrs != "none" else ():
        if wishes.xattrs != "all" and not name.startswith(_HARMLESS):
            report.xattrs_left += 1
            continue
        try:
            if isinstance(where, int):
                os.setxattr(where, bytes_of(name), value)
            else:
                os.setxattr(where, bytes_of(name), value, follow_symlinks=False)
        except OSError as failure:
            report.xattrs_failed.add(path=entry.path, name=name, why=reason_of(failure))
        except AttributeError:
            report.xattrs_failed.add(path=entry.path, name=name, why="no call sets them here")
        else:
            report.xattrs += 1
            has_list = has_list or name == ACCESS_LIST
    return has_list
