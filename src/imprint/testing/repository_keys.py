"""Keys for tests: the same kind that repositories have, but cheap to try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.units import MIB
from imprint.repository.key_objects import Cost, KeyObject, Origin, Rights
from imprint.repository.keys import Secrets, new_secrets, unlock, wrap_key

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY_ID: Final = "0123456789abcdef" * 2
SECRETS: Final = new_secrets()
ENCRYPTION: Final = SECRETS.encryption(REPOSITORY_ID)

CHEAP: Final = Cost(memory_kib=8, passes=1, lanes=1)
"""10 µs."""

WORK_BYTES_MAX: Final = 8 * MIB
"""What tests do not try: objects may demand 40 s, which is their good right."""


def key_of(secret: bytes, rights: Rights = Rights.FULL, *, label: str = "") -> KeyObject:
    """A key to ``SECRETS``."""
    return wrap_key(
        SECRETS,
        ENCRYPTION,
        secret,
        rights=rights,
        origin=Origin.PASSPHRASE,
        label=label,
        cost=CHEAP,
    )


def unlocked(keys: Sequence[KeyObject], secret: bytes) -> Secrets:
    """What ``secret`` gives."""
    return unlock(keys, secret, ENCRYPTION, where="repository")


def is_cheap(key: KeyObject) -> bool:
    """Whether a test may try it."""
    return key.cost.memory_kib * 1024 * key.cost.passes <= WORK_BYTES_MAX
