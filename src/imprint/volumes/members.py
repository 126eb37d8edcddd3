"""Reading the members of containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import TruncatedImageError

if TYPE_CHECKING:
    from imprint.core.contracts import Source


def read_bytes(member: Source, offset: int, length: int) -> bytes:
    """Bytes of a member; the caller bounds ``length``.

    Raises:
        TruncatedImageError: if the member ends before.
        ReadError: if they cannot be read.
        FormatError: if what the image says of the range makes no sense.
    """
    if offset < 0 or offset + length > member.size:
        raise TruncatedImageError(
            f"expected {length} bytes at 0x{offset:x}, found the end at 0x{member.size:x}",
            name=member.name,
            offset=offset,
        )
    buffer = bytearray(length)
    member.readinto(memoryview(buffer), offset)
    return bytes(buffer)
