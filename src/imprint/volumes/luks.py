"""LUKS volumes, versions 1 and 2: the disk inside, once its passphrase is known.

Header and key slots are in front of it, and always count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.codecs import luks
from imprint.core.errors import UnsupportedFeatureError
from imprint.core.units import align_down
from imprint.filters.borrowed import BorrowedStorage
from imprint.filters.cipher import CipherStorage
from imprint.filters.pieces import Piece
from imprint.filters.window import Window
from imprint.volumes.assembly import Assembly, Inner
from imprint.volumes.locked import unlocked
from imprint.volumes.members import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imprint.codecs.ciphers import SectorCipher
    from imprint.core.contracts import Source

__all__ = ["CONTAINER"]

_HEAD_BYTES: Final = 8


class _Luks:
    """See :class:`imprint.volumes.containers.Container`."""

    def assemble(
        self, members: Sequence[Source], passphrase: Callable[[str], bytes]
    ) -> list[Assembly]:
        """One assembly for each member."""

        def unlock(index: int, member: Source) -> Inner:
            offset, length, cipher, first_sector = _open(member, passphrase)
            length = align_down(length, cipher.sector_size)
            window = Window(member, offset, length)
            source = CipherStorage(BorrowedStorage(window), cipher, first_sector=first_sector)
            pieces = (Piece(0, length, index, offset),) if length else ()
            return Inner("luks", source, pieces)

        return unlocked(members, unlock, "LUKS")


CONTAINER: Final = _Luks()


def _open(member: Source, passphrase: Callable[[str], bytes]) -> tuple[int, int, SectorCipher, int]:
    """Where the disk is, how long, its cipher, and the number of its first sector."""

    def read(offset: int, length: int) -> bytes:
        return read_bytes(member, offset, length)

    name = member.name
    if luks.is_luks2(read(0, _HEAD_BYTES)):
        header2 = luks.parse_header2(read, size=member.size, name=name)
        cipher = luks.unlock2(header2, read, passphrase(name))
        length = member.size - header2.offset if header2.size is None else header2.size
        return header2.offset, length, cipher, header2.first_sector
    header = luks.parse_header(read, size=member.size, name=name)
    if header.payload_offset == 0:
        raise UnsupportedFeatureError("LUKS: its disk is somewhere else", name=name)
    cipher = luks.unlock(header, read, passphrase(name))
    return header.payload_offset, member.size - header.payload_offset, cipher, 0
