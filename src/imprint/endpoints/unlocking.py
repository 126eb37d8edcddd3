"""Sectors that an ATA drive hides by a host protected area, made visible while it is imaged.

The limit is set by ``hdparm -N SECTORS`` without a ``p`` in front: a SET MAX ADDRESS EXT that lasts
until the drive loses power. In the end it is set back in the same way. An accessible maximum
address of ACS-3 is left alone, since what is set there is permanent. So is a device configuration
overlay.

Source: ATA/ATAPI-6, SET MAX ADDRESS EXT, bit VV; ACS-3, SET ACCESSIBLE MAX ADDRESS EXT; hdparm(8).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import (
    ImagingError,
    TargetBusyError,
    TargetError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.system import reason_of
from imprint.core.units import utc_text
from imprint.endpoints import tools
from imprint.endpoints.location import Where, parse
from imprint.storage.device_facts import System
from imprint.storage.hidden import parse_hidden

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.storage.hidden import Hidden

_WAIT_S: Final = 15.0
_STEP_S: Final = 0.1
_TIMEOUT_S: Final = 60.0
_SURE: Final = "--yes-i-know-what-i-am-doing"
_POWER: Final = "the drive hides them again when it loses power"


def check_unlockable(address: str) -> Path:
    """The drive whose limit shall be raised.

    Raises:
        UsageError: if the source is no whole drive.
        TargetBusyError: if it is in use.
        ReadError: if it is not there.
    """
    location = parse(address)
    if location.where is not Where.DEVICE or location.is_part:
        raise UsageError("--unlock-hpa needs a drive as source", name=address)
    system = System()
    if (system.node(location.path) / "partition").exists():
        raise UsageError(
            "--unlock-hpa needs a whole drive as source, found a partition", name=address
        )
    users = system.used_by(location.path)
    if users:
        raise TargetBusyError(users[0], name=address)
    return location.path


@dataclass
class Unlocking:
    """The limit of one drive, which is raised and set back.

    Attributes:
        device: its node.
        hidden: what it has said before.
        system: the kernel's account of its devices.
        wait_s: how long the kernel may take to see another size.
        unlocked_at: when the limit was raised; UTC.
        hidden_at: when it was set back.
        error: why it was not.
    """

    device: Path
    hidden: Hidden
    system: System
    wait_s: float = _WAIT_S
    unlocked_at: str | None = None
    hidden_at: str | None = None
    error: str | None = None

    @property
    def is_needed(self) -> bool:
        """Whether the drive hides sectors, as far as that can be changed.

        Raises:
            UnsupportedFeatureError: if the drive does not say, or hides them for ever.
        """
        hidden = self.hidden
        if hidden.protected_sectors is None:
            raise UnsupportedFeatureError(
                "the drive, or the bridge before it, does not say what it hides",
                name=str(self.device),
                advice="hdparm -N has to answer: attach the drive by SATA, without a bridge",
            )
        if hidden.protected_sectors and hidden.limited_by == "AMA":
            raise UnsupportedFeatureError(
                "hides sectors by an accessible maximum address, which can be set for ever only",
                name=str(self.device),
            )
        return hidden.protected_sectors > 0

    def unlock(self) -> None:
        """Raise the limit to the drive's native one, and wait until the kernel has seen it.

        Raises:
            UnsupportedFeatureError: if the drive, a bridge or the kernel refuses. The limit is
                as before then, as far as the drive lets it.
        """
        most = self.hidden.native_sectors
        assert most is not None
        try:
            self._set(most)
        except ImagingError as error:
            self._put_back_after(error)
            raise UnsupportedFeatureError(
                f"the hidden sectors cannot be made visible: {error.args[0]}",
                name=str(self.device),
                advice="a write blocker or a bridge may refuse it: attach the drive by SATA",
            ) from error
        except BaseException as error:
            self._put_back_after(error)
            raise
        self.unlocked_at = utc_text()

    def hide(self) -> None:
        """Set the limit back. Calling again changes nothing.

        Raises:
            TargetError: if the drive refuses.
        """
        if self.unlocked_at is None or self.hidden_at is not None:
            return
        least = self.hidden.visible_sectors
        assert least is not None
        try:
            self._set(least)
        except ImagingError as error:
            self.error = str(error)
            raise TargetError(
                f"{self.hidden.protected_sectors} sectors stay visible: {error.args[0]}",
                name=str(self.device),
                advice=_POWER,
            ) from error
        self.hidden_at = utc_text()

    def to_json(self) -> dict[str, Any]:
        """As the evidence log has it."""
        return {
            "from_sectors": self.hidden.visible_sectors,
            "to_sectors": self.hidden.native_sectors,
            "unlocked_at": self.unlocked_at,
            "hidden_at": self.hidden_at,
            "error": self.error,
        }

    def _put_back_after(self, error: BaseException) -> None:
        """It may have been raised nevertheless."""
        self.unlocked_at = utc_text()
        try:
            self.hide()
        except TargetError as second:
            if isinstance(error, ImagingError):
                error.args = (f"{error.args[0]}; and {second.args[0]}", *error.args[1:])
        finally:
            self.unlocked_at = None

    def _set(self, sectors: int) -> None:
        """Have the drive show so many sectors until it loses power, and the kernel see them.

        Raises:
            ImagingError: if one of them does not.
        """
        node = str(self.device.absolute())
        said = tools.run("hdparm", _SURE, f"-N{sectors}", node, timeout_s=_TIMEOUT_S)
        if parse_hidden(said, "", None).visible_sectors != sectors:
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            raise TargetError(f"hdparm has not set {sectors} sectors: {'; '.join(lines[-2:])}")
        self._rescan()
        wanted = sectors * self.system.describe(self.device).logical_sector
        deadline = time.monotonic() + self.wait_s
        while (seen := self.system.describe(self.device).size) != wanted:
            if time.monotonic() > deadline:
                raise TargetError(
                    f"the drive shows {wanted} bytes, and the kernel still {seen}; booted with "
                    "libata.ignore_hpa=1 it shows all sectors of all drives"
                )
            time.sleep(_STEP_S)

    def _rescan(self) -> None:
        """Ask the kernel to look again, where it can be asked: SCSI, which ATA drives are there."""
        switch = self.system.node(self.device) / "device" / "rescan"
        if not switch.exists():
            return
        try:
            switch.write_text("1\n")
        except OSError as failure:
            raise TargetError(reason_of(failure), name=str(switch)) from failure
