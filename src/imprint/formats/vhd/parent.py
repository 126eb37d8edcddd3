"""Finding the parent of a differencing VHD: by its names, and sure of it by its UUID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.contracts import Reference
from imprint.core.errors import ImagingError, ReferenceRefusedError
from imprint.core.image import Image
from imprint.formats.vhd.layout import read_footers
from imprint.formats.vhd.locators import uuid_text

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source, Storage
    from imprint.formats.vhd.layer import State


class _LostParentError(ReferenceRefusedError):
    """A parent was not found under any name.

    A class of its own, so that the image's child does not look for the image again under other
    names: in a loop, each level would double the work.
    """


def open_parent(storage: Storage, state: State, opener: Opener) -> Source:
    """Open the parent: under one of its names, or another one beside with its UUID.

    A parent without a UUID is a raw disk, which is how XenServer says it.

    Raises:
        ReferenceRefusedError: if there is none, or it may not be opened.
    """
    header = state.header
    assert header is not None
    wanted = uuid_text(header.parent_uuid) if any(header.parent_uuid) else None
    format_name = "raw" if wanted is None else "vhd"
    if wanted is not None and header.parent_uuid == state.footers.active.uuid:
        raise ReferenceRefusedError(
            "expected another image as parent than itself", name=storage.name
        )
    unavailable: Source | None = None
    first_error: ReferenceRefusedError | None = None
    for name in state.names:
        try:
            parent = opener.parent(Reference(name, format=format_name, uuid=wanted), storage)
        except _LostParentError:
            raise  # it is there, and its own parent is not
        except ReferenceRefusedError as error:
            first_error = first_error or error
            continue
        if not isinstance(parent, Image):  # a lenient opener's stand-in
            unavailable = unavailable or parent
            continue
        found = parent.info().uuid
        if wanted is None or found == wanted:
            return parent
        parent.close()
        first_error = first_error or ReferenceRefusedError(
            f"expected a parent with the UUID {wanted}, found {found} in {name}",
            name=storage.name,
        )
    other = _find(storage, header.parent_uuid, opener) if wanted is not None else None
    if other is None and unavailable is not None:
        return unavailable
    if other is None and first_error is not None:
        raise _lost(first_error)
    try:
        return opener.parent(Reference(other, format=format_name, uuid=wanted), storage)
    except ReferenceRefusedError as error:
        raise _lost(error) from error


def _lost(error: ReferenceRefusedError) -> _LostParentError:
    return _LostParentError(str(error.args[0]), name=error.name, advice=error.advice)


def _find(storage: Storage, wanted: bytes, opener: Opener) -> str | None:
    """The name of the sibling with that UUID: the parent was renamed, or moved with its child."""
    for sibling in opener.siblings(storage, ".vhd"):
        try:
            found = read_footers(sibling).active.uuid
        except ImagingError:
            continue  # no VHD, whatever its name says, or not to be read
        finally:
            name = sibling.name
            sibling.close()
        if found == wanted:
            return name
    return None
