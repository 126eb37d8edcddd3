"""The parent of a differencing VHDX: named by paths, and by which state of its content.

``parent_linkage`` is the parent's DataWriteGuid at the time of the child's creation. It
changes when the parent is written to; then the child's blocks belong to a disk that is no
more, and the image is refused. Naming the parent anew (``rebase``) accepts it as it is.

Source: [MS-VHDX] section 2.6.2.6.3.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from imprint.core.contracts import Reference
from imprint.core.errors import ImagingError, ReferenceRefusedError, UsageError
from imprint.core.image import Image

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source, Storage

_PATHS = ("relative_path", "volume_path", "absolute_win32_path")
_LINKAGES = ("parent_linkage", "parent_linkage2")


def parent_name(locator: dict[str, str]) -> str | None:
    """How the image calls its parent: relative if it says so, with slashes."""
    return next(iter(_names(locator)), None)


def open_parent(storage: Storage, locator: dict[str, str], opener: Opener) -> Source:
    """Open the parent: by its relative path, else by its name in the image's own folder.

    Raises:
        ReferenceRefusedError: if it is missing, may not be opened, or has been written to
            since the child was made.
    """
    failure: ImagingError | None = None
    standin: Source | None = None
    for name in _names(locator):
        try:
            source = opener.parent(Reference(name, format="vhdx"), storage)
        except ReferenceRefusedError as error:
            failure = failure or error
            continue
        if isinstance(source, Image):
            try:
                _check_linkage(storage, locator, source, name)
            except BaseException:
                source.close()
                raise
            return source
        standin = standin or source  # a lenient opener's, for looking at an image alone
    if standin is not None:
        return standin
    raise failure or ReferenceRefusedError(
        "the parent locator: expected a path, found none", name=storage.name
    )


def locator_for(reference: Reference, parent: Source | None) -> dict[str, str]:
    """What a child has to keep of ``parent``, which ``reference`` names.

    Raises:
        UsageError: if it is no VHDX, or its name cannot be written down.
    """
    if not isinstance(parent, Image) or (info := parent.info()).format != "vhdx":
        raise UsageError(
            "vhdx: expected a parent that is a vhdx too, since it is known by its GUID",
            advice="convert the parent first",
        )
    name = reference.name or ""
    if not name or "\\" in name:
        raise UsageError(f"vhdx: expected a path without a backslash, found {name!r}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"vhdx: expected a name in Unicode for the parent, found {name!r}"
        ) from None
    path = PurePosixPath(name)
    windows = "\\".join(path.parts)
    values = {"parent_linkage": "{" + str(info.options["data_write_guid"]) + "}"}
    if path.is_absolute():
        values["absolute_win32_path"] = str(path)
    else:
        values["relative_path"] = windows if path.parts[0] == ".." else ".\\" + windows
    return values


def _names(locator: dict[str, str]) -> list[str]:
    """Paths to try, the best one first.

    Of a path of Windows only the file's name means anything here.
    """
    found = []
    for key in _PATHS:
        value = locator.get(key, "")
        if not value:
            continue
        name = value.replace("\\", "/")
        if key == "relative_path":
            found.append(str(PurePosixPath(name)))
        elif value.startswith("/"):
            found.append(value)
        found.append(PurePosixPath(name).name)
    return [name for name in dict.fromkeys(found) if name]


def _check_linkage(storage: Storage, locator: dict[str, str], parent: Image, name: str) -> None:
    info = parent.info()
    found = str(info.options.get("data_write_guid", "nothing"))
    wanted = [locator[key].strip("{}").lower() for key in _LINKAGES if locator.get(key)]
    if found not in wanted:
        expected = " or ".join(wanted) or "a parent_linkage"
        raise ReferenceRefusedError(
            f"expected the parent {name} with the DataWriteGuid {expected}, found {found}: "
            "it was written to after this image was made",
            name=storage.name,
            advice="if its content is right all the same, rebase --unsafe names it anew",
        )
