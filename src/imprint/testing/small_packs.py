"""Small repositories: some packs of chunks that are known, and their index."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from imprint.repository.index import build_index
from imprint.repository.pack import PackBuilder, PackKind, encode_group, pack_object
from imprint.repository.protection import CIPHERS, Encrypted, Plain
from imprint.repository.writing import put_index

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.objects.contract import ObjectStore
    from imprint.repository.pack import Directory, FinishedPack
    from imprint.repository.protection import Protection

ID_KEY = bytes(range(32))
INDEX_KEY = bytes(range(32, 64))
PRIVATE_KEY = bytes(range(64, 96))


def protections() -> list[Protection]:
    """None, and every cipher."""
    return [Plain(), *(encrypted(cipher) for cipher in CIPHERS)]


def encrypted(cipher: str = CIPHERS[0], *, can_read: bool = True) -> Encrypted:
    """A repository with the keys that are above."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    public = X25519PrivateKey.from_private_bytes(PRIVATE_KEY).public_key().public_bytes_raw()
    return Encrypted(
        cipher,
        id_key=ID_KEY,
        index_key=INDEX_KEY,
        public=public,
        private=PRIVATE_KEY if can_read else None,
    )


def chunks(count: int, *, seed: int = 0, longest: int = 5000) -> list[bytes]:
    """Chunks of many lengths, some of which compress."""
    made = random.Random(seed)
    return [
        made.randbytes(made.randrange(1, longest)) * made.choice((1, 1, 3)) for _ in range(count)
    ]


def pack_of(
    groups: Sequence[Sequence[bytes]],
    protection: Protection,
    *,
    kind: PackKind = PackKind.DATA,
) -> FinishedPack:
    """A pack of such groups of chunks."""
    builder = PackBuilder(kind, protection)
    for group in groups:
        builder.add(encode_group(group, 3), [protection.name_of(chunk) for chunk in group])
    return builder.finish()


def put_packs(
    store: ObjectStore, protection: Protection, packs: Sequence[FinishedPack]
) -> list[tuple[bytes, Directory]]:
    """Put packs, and one index object that speaks of them."""
    directories = [(pack.name, pack.directory) for pack in packs]
    for pack in packs:
        store.put(pack_object(pack.name), pack.parts)
    put_index(store, protection, build_index(directories))
    return directories
