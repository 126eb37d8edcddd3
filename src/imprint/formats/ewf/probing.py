"""Which kind of evidence file it is, from its first bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.limits import PROBE_BYTES
from imprint.formats.ewf.layout import Descriptor, FileHeader, SmartVolume
from imprint.formats.ewf.sections import read_bytes

if TYPE_CHECKING:
    from imprint.core.contracts import Storage

_PROBED_SECTIONS_MAX = 8


def has_mark(storage: Storage, magic: bytes) -> bool:
    """Whether a segment of that kind begins here."""
    return read_bytes(storage, 0, len(magic)) == magic


def is_smart(storage: Storage) -> bool:
    """Whether the volume section is the short one of the original specification."""
    head = read_bytes(storage, 0, PROBE_BYTES)
    position = FileHeader.SIZE
    for _ in range(_PROBED_SECTIONS_MAX):
        if position + Descriptor.SIZE > len(head):
            return False
        descriptor = Descriptor.unpack(head[position:])
        if descriptor.type.startswith((b"volume\0", b"disk\0")):
            return descriptor.next - position == Descriptor.SIZE + SmartVolume.SIZE
        if descriptor.next <= position:
            return False
        position = descriptor.next
    return False
