"""Writing to a block device: only the right one, and only if the user is sure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from imprint.core.errors import RefusedError, TargetTooSmallError, UnsupportedFeatureError
from imprint.core.extent import Extent, Kind
from imprint.core.units import format_size
from imprint.endpoints.location import Where
from imprint.storage.device import confirm_text, describe
from imprint.storage.device_target import HELD_BYTES, DeviceTarget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.endpoints.location import Location
    from imprint.endpoints.target import TargetRequest
    from imprint.storage.nbd import NbdStorage


class _SparingTarget(DeviceTarget):
    """A device of which a part may keep what it holds, since nobody gave it a meaning.

    Zeroing all that a grown partition gets would take as long as writing a disk.
    """

    untouched: tuple[int, int] = (0, 0)

    def extents(self, offset: int, length: int) -> Iterator[Extent]:
        """All data, but for the part that is of no interest."""
        for start, stop, is_spared in self._cut(offset, length):
            kind = Kind.HOLE if is_spared else Kind.DATA
            yield Extent(start, stop - start, kind, None if is_spared else self, start)

    def zero(self, offset: int, length: int) -> None:
        """Make zeros where they are needed."""
        for start, stop, is_spared in self._cut(offset, length):
            if not is_spared:
                super().zero(start, stop - start)

    def _cut(self, offset: int, length: int) -> Iterator[tuple[int, int, bool]]:
        """A range in pieces: start, end, and whether it may be left alone."""
        first, last = self.untouched
        borders = sorted({offset, offset + length, *self.untouched})
        for start, stop in itertools.pairwise(borders):
            if offset <= start and stop <= offset + length:
                yield start, stop, first <= start and stop <= last


def open_device_target(
    request: TargetRequest, size: int, *, untouched: tuple[int, int] = (0, 0)
) -> DeviceTarget:
    """Claim the device of ``request`` for a disk of ``size`` bytes.

    Nothing on it is changed yet. The bytes from ``untouched[0]`` to ``untouched[1]`` may be left
    as they are where the disk is said to be zero.

    Raises:
        TargetBusyError: if it, or a part of it, is mounted or in use.
        TargetTooSmallError: if the disk does not fit.
        RefusedError: if nobody said yes.
    """
    location = request.location
    if request.chosen_format().name != "raw":
        raise UnsupportedFeatureError(
            "a device is written as a raw disk", name=request.address, advice="leave -O away"
        )
    if location.where is Where.NBD:
        target = _SparingTarget(_open_export(location, size), size)
    else:
        target = _SparingTarget.open(location.path, size=size)
    # The last MiB are held back and written in any case: no old table may survive there.
    target.untouched = untouched[0], max(untouched[0], min(untouched[1], size - HELD_BYTES))
    try:
        _confirm(request, target.device_size)
    except BaseException:
        target.abort()
        raise
    return target


def _open_export(location: Location, size: int) -> NbdStorage:
    """An export of an NBD server, for a disk of ``size`` bytes."""
    from imprint.storage.nbd import NbdStorage  # only for exports

    export = NbdStorage.open(location.base, writable=True)
    if size > export.size:
        export.close()
        raise TargetTooSmallError(
            f"has {export.size} bytes, {size} are needed", name=export.name, length=size
        )
    return export


def _confirm(request: TargetRequest, size: int) -> None:
    if request.force:
        return
    location = request.location
    if location.where is Where.NBD:
        word, description = location.own_name, f"{location.base}: {format_size(size)}"
    else:
        facts = describe(location.path)
        identity = " ".join(part for part in (facts.model, facts.serial) if part)
        description = f"{location.path}: {format_size(facts.size)}"
        description += f", {identity}" if identity else ""
        word = confirm_text(location.path)
    if request.confirm is None:
        raise RefusedError(
            f"would be erased ({description})",
            name=location.base,
            advice="--force says that this is meant",
        )
    if not request.confirm(word, description):
        raise RefusedError("was not confirmed: nothing was changed", name=location.base)
