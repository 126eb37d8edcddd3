"""Writing to a block device: only the right one, and only if the user is sure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import RefusedError, UnsupportedFeatureError
from imprint.core.units import format_size
from imprint.storage.device import confirm_text, describe
from imprint.storage.device_target import DeviceTarget

if TYPE_CHECKING:
    from imprint.endpoints.target import TargetRequest


def open_device_target(request: TargetRequest, size: int) -> DeviceTarget:
    """Claim the device of ``request`` for a disk of ``size`` bytes.

    Nothing on it is changed yet.

    Raises:
        TargetBusyError: if it, or a part of it, is mounted or in use.
        TargetTooSmallError: if the disk does not fit.
        RefusedError: if nobody said yes.
    """
    path = request.location.path
    if request.chosen_format().name != "raw":
        raise UnsupportedFeatureError(
            "a device is written as a raw disk", name=request.address, advice="leave -O away"
        )
    target = DeviceTarget.open(path, size=size)
    try:
        _confirm(request)
    except BaseException:
        target.abort()
        raise
    return target


def _confirm(request: TargetRequest) -> None:
    if request.force:
        return
    path = request.location.path
    facts = describe(path)
    identity = " ".join(part for part in (facts.model, facts.serial) if part)
    description = f"{path}: {format_size(facts.size)}" + (f", {identity}" if identity else "")
    if request.confirm is None:
        raise RefusedError(
            f"would be erased ({description})",
            name=str(path),
            advice="--force says that this is meant",
        )
    if not request.confirm(confirm_text(path), description):
        raise RefusedError("was not confirmed: nothing was changed", name=str(path))
