"""Naming another parent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import UnsupportedFeatureError, UsageError
from imprint.formats.vmdk.create import parent_cid, parent_name
from imprint.formats.vmdk.descriptor import FLAT_KINDS, NO_PARENT
from imprint.formats.vmdk.opening import find
from imprint.formats.vmdk.storing import store

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Reference, Storage


def set_parent(storage: Storage, opener: Opener, parent: Reference | None) -> None:
    """Change the descriptor only; the caller has seen to the content.

    Raises:
        UnsupportedFeatureError: if the image has no descriptor, or is flat.
        UsageError: if the parent is no VMDK.
    """
    found = find(storage, opener)
    try:
        descriptor = found.descriptor
        if not descriptor.text:
            raise UnsupportedFeatureError("has no descriptor", name=storage.name)
        if found.own is not None and found.own.geometry.is_compressed:
            raise UnsupportedFeatureError(
                "is compressed, and can only be read",
                name=storage.name,
                advice="convert it into a new image",
            )
        if parent is None:
            changed = descriptor.with_setting("parentFileNameHint", None)
            changed = changed.with_setting("parentCID", NO_PARENT)
        else:
            if all(line.kind in FLAT_KINDS for line in descriptor.extents):
                raise UnsupportedFeatureError("a flat vmdk cannot have a parent", name=storage.name)
            source = opener.parent(parent, storage)
            try:
                cid = parent_cid(source)
                if source.name == storage.name:
                    raise UsageError("an image cannot be its own parent", name=storage.name)
            finally:
                source.close()
            changed = descriptor.with_setting("parentFileNameHint", f'"{parent_name(parent)}"')
            changed = changed.with_setting("parentCID", cid)
        store(storage, changed)
        storage.flush()
    finally:
        found.close_others()
