"""Areas of a drive that the system does not see, from what ``hdparm`` and ``smartctl`` say.

An ATA drive may show fewer sectors than it has: by a host protected area (HPA), by the accessible
maximum address of ACS-3 (AMA), and below either by a device configuration overlay (DCO). An NVMe
drive may have capacity that belongs to no namespace, or to another one.

Source: ATA/ATAPI-6, READ NATIVE MAX ADDRESS EXT and DEVICE CONFIGURATION IDENTIFY; ACS-3, GET
NATIVE MAX ADDRESS EXT; NVMe 1.4, figure 247, TNVMCAP and UNVMCAP; the texts of hdparm 9.65.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imprint.storage.medium import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MAX_SECTORS = re.compile(r"max sectors\s*=\s*(\d{1,20})/(\d{1,20})(?:\([^)]*\))?,?\s*([^\n]*)")
_REAL_SECTORS = re.compile(r"Real max sectors:\s*(\d{1,20})")


@dataclass(frozen=True)
class Hidden:
    """Hidden areas; ``None``: cannot be told.

    Attributes:
        visible_sectors: that the drive shows, of its logical size.
        native_sectors: that it has without HPA or AMA.
        limited_by: ``HPA`` or ``AMA``, as far as the drive has one of them.
        real_sectors: that it has without DCO.
        capacity: of an NVMe drive, in bytes.
        unallocated: bytes of that which no namespace has.
        namespace_size: bytes of the namespace.
    """

    visible_sectors: int | None = None
    native_sectors: int | None = None
    limited_by: str | None = None
    real_sectors: int | None = None
    capacity: int | None = None
    unallocated: int | None = None
    namespace_size: int | None = None

    @property
    def protected_sectors(self) -> int | None:
        """Hidden by HPA or AMA."""
        if self.visible_sectors is None or self.native_sectors is None:
            return None
        return self.native_sectors - self.visible_sectors

    @property
    def overlaid_sectors(self) -> int | None:
        """Hidden by DCO."""
        if self.native_sectors is None or self.real_sectors is None:
            return None
        return self.real_sectors - self.native_sectors

    def findings(self, *, is_unlocked: bool = False) -> Iterator[str]:
        """What is hidden, a sentence for each area; ``is_unlocked``: but for HPA or AMA."""
        if self.protected_sectors and not is_unlocked:
            yield (
                f"{self.protected_sectors} sectors are hidden by {self.limited_by or 'the drive'}: "
                f"{self.visible_sectors} of {self.native_sectors} can be read, the rest is not in "
                "the image"
            )
        if self.overlaid_sectors:
            yield (
                f"{self.overlaid_sectors} sectors are hidden by DCO: the drive has "
                f"{self.real_sectors}, the rest is not in the image"
            )
        if self.unallocated:
            yield f"{self.unallocated} bytes of the drive belong to no namespace"
        if self._elsewhere:
            yield f"{self._elsewhere} bytes of the drive are not in this namespace"

    @property
    def _elsewhere(self) -> int:
        if self.capacity is None or self.namespace_size is None:
            return 0
        return max(0, self.capacity - self.namespace_size - (self.unallocated or 0))

    def to_json(self) -> dict[str, Any]:
        """All of it, with ``unknown`` for what cannot be told."""
        facts = {**vars(self), "protected_sectors": self.protected_sectors}
        facts["overlaid_sectors"] = self.overlaid_sectors
        return {name: UNKNOWN if value is None else value for name, value in facts.items()}


def parse_hidden(native: str, overlay: str, smart: Mapping[str, Any] | None) -> Hidden:
    """Make sense of what the tools said.

    Args:
        native: by ``hdparm -N``; empty: it was not asked, or failed.
        overlay: by ``hdparm --dco-identify``, likewise.
        smart: by ``smartctl -x -j``.
    """
    visible, most, limited_by = _native(native)
    real = _REAL_SECTORS.search(overlay)
    smart = {} if smart is None else smart
    return Hidden(
        visible_sectors=visible,
        native_sectors=most,
        limited_by=limited_by,
        # A drive that refuses to say it may answer with zeros.
        real_sectors=int(real[1]) or None if real else None,
        capacity=_bytes(smart.get("nvme_total_capacity")),
        unallocated=_bytes(smart.get("nvme_unallocated_capacity")),
        namespace_size=_namespace(smart),
    )


def _native(text: str) -> tuple[int | None, int | None, str | None]:
    found = _MAX_SECTORS.search(text)
    if found is None:
        return None, None, None
    visible, most, comment = int(found[1]), int(found[2]), found[3]
    # hdparm says "invalid" of answers that bridges and old drives make up.
    if "invalid" in comment or not 0 < visible <= most:
        return None, None, None
    return visible, most, "AMA" if "ACCESSIBLE MAX ADDRESS" in comment else "HPA"


def _namespace(smart: Mapping[str, Any]) -> int | None:
    spaces = smart.get("nvme_namespaces")
    if not isinstance(spaces, list) or len(spaces) != 1 or not isinstance(spaces[0], dict):
        return None
    return _bytes(spaces[0].get("capacity")) or _bytes(spaces[0].get("size"))


def _bytes(value: object) -> int | None:
    if isinstance(value, dict):
        value = value.get("bytes")
    return value if isinstance(value, int) and not isinstance(value, bool) else None
