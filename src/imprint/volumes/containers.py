"""What holds volumes that are no partitions: one literal table, so that listing imports nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imprint.core.contracts import Source
    from imprint.volumes.assembly import Assembly

MODULES: Final[dict[str, str]] = {
    "LVM2_member": "lvm2",
    "linux_raid_member": "mdraid",
    "crypto_LUKS": "luks",
    "BitLocker": "bitlocker",
}
"""Module below ``imprint.volumes`` by the kind that ``identify`` tells of a member. Each has a
module-level ``CONTAINER``, which is :class:`Container`."""


class Container(Protocol):
    """A kind of container. Stateless; nothing is written."""

    def assemble(
        self, members: Sequence[Source], passphrase: Callable[[str], bytes]
    ) -> list[Assembly]:
        """Put together what the members hold: one for each volume group, array, locked volume.

        Args:
            members: all of this kind that are at hand. What lacks a member that it needs
                is left out, with a note in an assembly without volumes.
            passphrase: asks for the secret of the member with that name.

        Raises:
            CorruptImageError: if what they say of themselves makes no sense.
            UnsupportedFeatureError: if they need what imprint cannot do.
            PassphraseError: if a secret is missing or wrong.
            ReadError: if they cannot be read.
        """


def container(kind: str) -> Container | None:
    """What puts members of this kind together; ``None`` if nothing can."""
    name = MODULES.get(kind)
    if name is None:
        return None
    module = importlib.import_module(f"imprint.volumes.{name}")
    found: Container = module.CONTAINER
    return found
