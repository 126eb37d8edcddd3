"""Finding the parent of a differencing VDI, which knows nothing of it but its UUID."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.contracts import Reference
from imprint.core.errors import ImagingError, ReferenceRefusedError
from imprint.core.image import Image
from imprint.formats.vdi.layout import Header, read_header, uuid_text

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source, Storage


def open_parent(storage: Storage, header: Header, opener: Opener) -> tuple[Source, tuple[str, ...]]:
    """Open the parent; also gives what is to be said about it.

    Looks at all ``.vdi`` files that the opener permits, then for the name that VirtualBox
    gives to snapshots: the UUID in braces.

    Raises:
        ReferenceRefusedError: if there is none, or it may not be opened.
    """
    wanted = uuid_text(header.parent_uuid)
    name = _find(storage, header, opener) or f"{{{wanted}}}.vdi"
    parent = opener.parent(Reference(name, format="vdi", uuid=wanted), storage)
    notes: tuple[str, ...] = ()
    if isinstance(parent, Image):
        info = parent.info()
        if info.uuid != wanted:
            parent.close()
            raise ReferenceRefusedError(
                f"expected a parent with the UUID {wanted}, found {info.uuid} in {name}",
                name=storage.name,
            )
        expected = uuid_text(header.parent_modify_uuid)
        if any(header.parent_modify_uuid) and info.options.get("modify_uuid") != expected:
            notes = (f"The parent {name} has changed since: expected modify_uuid {expected}.",)
    return parent, notes


def _find(storage: Storage, child: Header, opener: Opener) -> str | None:
    """The name of the sibling that is the parent: of several copies, the unchanged one."""
    found: str | None = None
    for sibling in opener.siblings(storage, ".vdi"):
        try:
            header = read_header(sibling)
        except ImagingError:
            continue  # no VDI, whatever its name says, or not to be read
        finally:
            name = sibling.name
            sibling.close()
        if header.image_uuid == child.parent_uuid:
            if header.modify_uuid == child.parent_modify_uuid:
                return name
            found = found or name
    return found
