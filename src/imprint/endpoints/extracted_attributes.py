"""Extended attributes of extracted files. One that cannot be set never fails the rest."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from imprint.core.system import reason_of
from imprint.filesystems.tree import bytes_of

if TYPE_CHECKING:
    from imprint.endpoints.extraction import Extraction, Wishes
    from imprint.filesystems.tree import Entry, FileTree

_HARMLESS: Final = "user."
"""Nothing in the system depends on these; others give rights: to users whose numbers an image
names, to a program by itself."""


def restore(
    tree: FileTree, entry: Entry, where: int | str, wishes: Wishes, report: Extraction
) -> None:
    """Give what was made of an entry the extended attributes that are wanted.

    Args:
        tree: of the entry.
        entry: what it was made of.
        where: its descriptor; of a symbolic link, a path to itself.
        wishes: which are wanted.
        report: counts them, and gets those that cannot be set.
    """
    if wishes.xattrs == "none":
        return
    for name, value in tree.attributes(entry).items():
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
