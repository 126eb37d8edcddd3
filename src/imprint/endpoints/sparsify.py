"""Giving back the room that an image keeps for what no file system on its disk uses."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import RefusedError
from imprint.core.events import Progress
from imprint.core.runs import Runs
from imprint.core.units import MIB
from imprint.endpoints.location import parse
from imprint.endpoints.open import Access, open_editable
from imprint.endpoints.proof import check_proof
from imprint.endpoints.target import stored_size
from imprint.endpoints.used import Policy, disk_use, users_of
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from imprint.core.image import WritableImage

_STEP_BYTES: Final = 64 * MIB
"""What is given back between two looks at whether the user wants to stop."""


@dataclass(frozen=True)
class Sparsified:
    """What came of it. All in bytes.

    Attributes:
        size: of the disk.
        unused: of the disk: what no file system uses.
        freed: data of the disk that was stored for nothing, and is gone.
        stored_before: what the file took up.
        stored_size: what it takes up now.
    """

    size: int
    unused: int
    freed: int
    stored_before: int
    stored_size: int


def sparsify(
    address: str, access: Access, policy: Policy, *, prove: bool = True, dry_run: bool = False
) -> Sparsified:
    """Make an image's unused parts read as zeros, in place, and give back their room.

    Stopped at any moment, the image is whole: what is given back is not used in any case.

    Args:
        address: of the image file.
        access: how it may be opened.
        policy: what counts as unused.
        prove: walk all file systems first, and change nothing if they reach an unused block.
        dry_run: change nothing, say what would come of it.

    Raises:
        CorruptImageError: if the proof fails: the file system contradicts itself.
        RefusedError: if it is mounted: what was free a moment ago may be in use now.
        UnsupportedFeatureError: if the image cannot be changed.
    """
    location = parse(address)
    path = location.path
    in_use = users_of(location)
    if in_use is not None:
        raise RefusedError(f"is in use: {in_use}", name=address, advice="unmount it first")
    with closing(open_editable(address, access)) as image:
        before = stored_size(path)
        passphrase = access.gate().passphrase
        used = disk_use(image, policy, passphrase=passphrase, on_event=access.on_event)
        if prove:
            check_proof(image, used, access)
        unused = used.complement(image.size)
        stored = _stored(image, unused.narrowed(image.traits.grain))
        if not dry_run:
            _give_back(image, stored, access)
        size = image.size
    return Sparsified(size, unused.total, stored.total, before, stored_size(path))


def _stored(image: WritableImage, unused: Runs) -> Runs:
    """What of it the image stores, by itself: a parent's data stays where it is."""
    return Runs.of(
        (extent.offset, extent.length)
        for start, length in unused
        for extent in image.own_extents(start, length)
        if extent.kind in HAS_BYTES
    )


def _give_back(image: WritableImage, stored: Runs, access: Access) -> None:
    done = 0
    for start, length in stored:
        for position in range(start, start + length, _STEP_BYTES):
            if access.cancel is not None:
                access.cancel.check()
            step = min(_STEP_BYTES, start + length - position)
            image.zero(position, step)
            done += step
            access.on_event(Progress("sparsify", done, stored.total, 0))
    image.flush()
