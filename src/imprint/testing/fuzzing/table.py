"""All fuzz targets: one for every parser that is given bytes by somebody else.

Every format has one of its name; ``tests/fuzz`` holds us to that.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from imprint.testing.fuzzing import (
    aff_images,
    allocation_maps,
    apfs_volumes,
    btrfs_volumes,
    container_members,
    contents,
    encrypted,
    evidence_images,
    ext_volumes,
    file_listings,
    labels,
    nbd_peers,
    ntfs_volumes,
    others,
    readable_images,
    repository_objects,
    repository_packs,
    writable_images,
    xfs_images,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from imprint.testing.fuzzing.target import Target

_MODULES: Final[tuple[Callable[[], Iterator[Target]], ...]] = (
    aff_images.targets,
    allocation_maps.targets,
    apfs_volumes.targets,
    btrfs_volumes.targets,
    writable_images.targets,
    readable_images.targets,
    container_members.targets,
    contents.targets,
    encrypted.targets,
    evidence_images.targets,
    ext_volumes.targets,
    file_listings.targets,
    labels.targets,
    nbd_peers.targets,
    ntfs_volumes.targets,
    others.targets,
    repository_objects.targets,
    repository_packs.targets,
    xfs_images.targets,
)


@cache
def targets() -> dict[str, Target]:
    """By name. Seeds are made when a target is used."""
    listed = [target for module in _MODULES for target in module()]
    found = {target.name: target for target in listed}
    assert len(found) == len(listed), "two targets have the same name"
    return found
