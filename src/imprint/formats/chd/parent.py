"""Finding the parent of a CHD, of which the image knows nothing but its SHA-1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.contracts import Reference
from imprint.core.errors import ImagingError, ReferenceRefusedError
from imprint.core.image import Image
from imprint.formats.chd.layout import read_header

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source, Storage
    from imprint.formats.chd.layout import Header


def open_parent(storage: Storage, header: Header, opener: Opener) -> Source:
    """Open the parent: one of the ``.chd`` files that the opener permits.

    Raises:
        ReferenceRefusedError: if there is none, or it may not be opened.
    """
    wanted = header.parent_ids[0]
    name = _find(storage, header, opener) or f"{wanted}.chd"
    parent = opener.parent(Reference(name, format="chd", uuid=wanted), storage)
    if isinstance(parent, Image):
        found = parent.info().options.get("id")
        if found not in header.parent_ids:
            parent.close()
            raise ReferenceRefusedError(
                f"expected a parent with the digest {wanted}, found {found} in {name}",
                name=storage.name,
            )
    return parent


def _find(storage: Storage, child: Header, opener: Opener) -> str | None:
    """The name of the sibling that is the parent."""
    for sibling in opener.siblings(storage, ".chd"):
        try:
            ids = read_header(sibling).ids
        except ImagingError:
            continue  # no CHD, whatever its name says, or not to be read
        finally:
            name = sibling.name
            sibling.close()
        if set(ids) & set(child.parent_ids):
            return name
    return None
