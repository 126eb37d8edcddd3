"""The object ``format``: what kind of repository it is.

Source: ``docs/repository-format.md``, ``format``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.codecs.zstd import LEVEL_DEFAULT, LEVEL_MAX
from imprint.core.errors import RepositoryError, UnsupportedFeatureError
from imprint.repository.keys import Encryption
from imprint.repository.pack import CHUNK_BYTES, GROUP_BYTES
from imprint.repository.snapshots import canonical

if TYPE_CHECKING:
    from imprint.objects.contract import ObjectStore

NAME: Final = "format"
VERSION: Final = 1
PARITY_MAX: Final = 100
_MARK: Final = "imprint-repository"
_BYTES_MAX: Final = 64 << 10
_ID = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True)
class RepositoryFormat:
    """What kind of repository it is.

    Attributes:
        id: of the repository, 32 hexadecimal digits.
        created: when, as text.
        encryption: ``None``: anybody who reaches it can read it.
        level: of Zstandard, unless a capture says otherwise.
        parity: percentage of redundancy that new packs get.
    """

    id: str
    created: str
    encryption: Encryption | None = None
    level: int = LEVEL_DEFAULT
    parity: int = 0

    def encode(self) -> bytes:
        """The object's content."""
        encryption = None if self.encryption is None else self.encryption.encode()
        return canonical(
            {
                "chunks": {"group": GROUP_BYTES, "maximum": CHUNK_BYTES},
                "created": self.created,
                "encryption": encryption,
                "id": self.id,
                _MARK: VERSION,
                "level": self.level,
                "parity": self.parity,
            }
        )

    @classmethod
    def parse(cls, content: bytes, where: str) -> RepositoryFormat:
        """Of the object's content; ``where`` is for errors.

        Raises:
            RepositoryError: if it is none.
            UnsupportedFeatureError: if a newer version made the repository.
        """
        try:
            value = json.loads(content[:_BYTES_MAX])
        except (ValueError, RecursionError) as failure:
            raise RepositoryError(f"expected JSON in `format`: {failure}", name=where) from failure
        if not isinstance(value, dict) or type(value.get(_MARK)) is not int:
            raise RepositoryError(f"expected `{_MARK}` in `format`, found none", name=where)
        if value[_MARK] != VERSION:
            raise UnsupportedFeatureError(
                f"is a repository of version {value[_MARK]}; version {VERSION} is known", name=where
            )
        level, parity = value.get("level", LEVEL_DEFAULT), value.get("parity", 0)
        identity, created = value.get("id"), value.get("created", "")
        sound = (
            isinstance(identity, str)
            and _ID.match(identity) is not None
            and isinstance(created, str)
            and type(level) is int
            and 1 <= level <= LEVEL_MAX
            and type(parity) is int
            and 0 <= parity <= PARITY_MAX
        )
        if not sound or not isinstance(identity, str):
            raise RepositoryError("expected other values in `format`", name=where)
        encryption = None
        if value.get("encryption") is not None:
            encryption = Encryption.parse(value["encryption"], repository=identity, where=where)
        return cls(identity, created, encryption, level, parity)


def read_format(store: ObjectStore) -> RepositoryFormat:
    """What kind of repository is in a place.

    Raises:
        RepositoryError: if there is none.
        UnsupportedFeatureError: if a newer version made it.
    """
    from imprint.objects.contract import MissingObjectError

    try:
        content = store.get(NAME)
    except MissingObjectError as failure:
        raise RepositoryError(
            "expected a repository, found none",
            name=store.name,
            advice="imprint repo init makes one",
        ) from failure
    return RepositoryFormat.parse(content, store.name)
