"""The gate to other images, for tests: everything is given beforehand, nothing is looked up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint import formats
from imprint.core.errors import PassphraseError, ReferenceRefusedError
from imprint.core.limits import CHAIN_DEPTH_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from imprint.core.contracts import Reference, Source, Storage


class DictOpener:
    """An opener whose world is two dictionaries.

    A parent is looked for by its name, then by its UUID, first in ``parents``, then in
    ``files``, where it is opened in the format that the reference or its content says.
    """

    def __init__(
        self,
        parents: Mapping[str, Source] | None = None,
        *,
        files: Mapping[str, Storage] | None = None,
        passphrase: bytes | None = None,
    ) -> None:
        """Set the world.

        Args:
            parents: opened images by the name or UUID that refers to them.
            files: storages by name: parents that are still to be opened, data files, and
                what :meth:`siblings` yields.
            passphrase: for every image that asks.
        """
        self._parents: Final = dict(parents or {})
        self._files: Final = dict(files or {})
        self._passphrase = passphrase
        self._depth = 0

    def parent(self, reference: Reference, beside: Storage) -> Source:
        """The parent; see :class:`~imprint.core.contracts.Opener`."""
        for key in (reference.name, reference.uuid):
            if key in self._parents:
                return self._parents[key]
        storage = self._files.get(reference.name or "")
        if storage is None or storage is beside:
            raise ReferenceRefusedError(
                f"expected the parent {reference.name or reference.uuid}, found nothing",
                name=beside.name,
            )
        if self._depth == CHAIN_DEPTH_MAX:
            raise ReferenceRefusedError("expected an end of the chain", name=beside.name)
        self._depth += 1
        try:
            name = reference.format or formats.detect(storage)
            return formats.get(name).open(storage, self)
        finally:
            self._depth -= 1

    def data_file(self, reference: Reference, beside: Storage) -> Storage:
        """The storage of that name; see :class:`~imprint.core.contracts.Opener`."""
        storage = self._files.get(reference.name or "")
        if storage is None:
            raise ReferenceRefusedError(
                f"expected the data file {reference.name}, found nothing", name=beside.name
            )
        return storage

    def siblings(self, beside: Storage, suffix: str) -> Iterator[Storage]:
        """All files with that suffix but the image itself."""
        for name, storage in self._files.items():
            if name.endswith(suffix) and storage is not beside:
                yield storage

    def passphrase(self, name: str) -> bytes:
        """What was given; see :class:`~imprint.core.contracts.Opener`."""
        if self._passphrase is None:
            raise PassphraseError("expected a passphrase, found none", name=name)
        return self._passphrase
