"""Repositories that were encrypted when they were last opened here, and shall stay it.

Nothing in a store can prove that it was encrypted before: whoever can change it could put a
``format`` there which says that nothing is, and be told all that is added from then on.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

from imprint.core.errors import RepositoryError
from imprint.endpoints.places import without_secrets

if TYPE_CHECKING:
    from pathlib import Path


class Pin:
    """A small file for a place in which an encrypted repository is: its address, and its id."""

    def __init__(self, folder: Path, place: str) -> None:
        """``folder`` holds all of them; it is made when there is something to keep."""
        shown = without_secrets(place)
        self._place = shown if "://" in shown else os.path.realpath(shown)
        self._path = folder / hashlib.sha256(os.fsencode(self._place)).hexdigest()

    def check(self, identity: str, *, is_encrypted: bool) -> None:
        """Keep that the repository in the place is encrypted, or find that it was.

        Args:
            identity: its id.
            is_encrypted: whether it is now.

        Raises:
            RepositoryError: if one that is not encrypted stands where one was that is.
        """
        if not is_encrypted:
            if self._path.exists():
                raise RepositoryError(
                    "is not encrypted: expected an encrypted repository, as there was before",
                    name=self._place,
                    advice=f"if you have replaced it yourself, remove {self._path}",
                )
        elif not self._path.exists():
            with contextlib.suppress(OSError):  # a home that cannot be written to
                self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self._path.write_bytes(os.fsencode(f"{self._place}\n{identity}\n"))

    def remove(self) -> None:
        """Another repository is made in the place."""
        with contextlib.suppress(OSError):
            self._path.unlink()
