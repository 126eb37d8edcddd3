"""JSON from elsewhere: every value is checked for its type and range when it is taken."""

from __future__ import annotations

import base64
import binascii
import json
import re
import reprlib
from dataclasses import dataclass, field
from typing import Any

from imprint.core.errors import CorruptImageError, ImagingError

_HEX = re.compile(r"(?:[0-9a-f]{2})*\Z")
_DIGITS_MAX = 20


@dataclass(frozen=True)
class JsonObject:
    """An object; 64-bit numbers may be written as text, as LUKS2 does.

    Attributes:
        values: as ``json`` gives them.
        where: names the image in errors.
        path: of the object in the whole, for errors.
        error: what is raised if a value is not what it has to be.
    """

    values: dict[str, Any] = field(repr=False)
    where: str
    path: str = "JSON"
    error: type[ImagingError] = CorruptImageError

    @classmethod
    def parse(
        cls, text: bytes, *, where: str, error: type[ImagingError] = CorruptImageError
    ) -> JsonObject:
        """Read one, whose length the caller has bounded.

        Raises:
            ImagingError: of the kind ``error``, if it is none.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise error("expected JSON, found something else", name=where) from None
        if not isinstance(values, dict):
            raise error("expected a JSON object, found something else", name=where)
        return cls(values, where, error=error)

    def find(self, *keys: str) -> object:
        """What is at the end of a path of objects; ``None`` if it is not there."""
        value: object = self.values
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def inner(self, key: str) -> JsonObject:
        """An object in it."""
        value = self.values.get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return JsonObject(value, self.where, f"{self.path}.{key:.40}", self.error)

    def section(self, key: str) -> list[tuple[str, JsonObject]]:
        """An object of objects, in its order."""
        outer = self.inner(key)
        return [(name, outer.inner(name)) for name in outer.values]

    def texts(self, key: str) -> list[str]:
        """A list of texts."""
        value = self.values.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, "a list of texts")
        return [str(item) for item in value]

    def text(self, key: str) -> str:
        """A text."""
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a text")
        return value

    def data(self, key: str) -> bytes:
        """Bytes, in base 64."""
        try:
            return base64.b64decode(self.text(key), validate=True)
        except (binascii.Error, ValueError):
            raise self._wrong(key, "base 64") from None

    def digits(self, key: str, low: int, high: int) -> bytes:
        """Bytes, in small hexadecimal digits: as many as a range says, both ends included."""
        value = self.values.get(key)
        fits = isinstance(value, str) and 2 * low <= len(value) <= 2 * high
        if not fits or not _HEX.match(str(value)):
            raise self._wrong(key, f"{low} to {high} bytes in hexadecimal digits")
        return bytes.fromhex(str(value))

    def number(self, key: str, low: int, high: int) -> int:
        """A number in a range, both ends included."""
        value = self.values.get(key)
        if isinstance(value, str) and len(value) <= _DIGITS_MAX and value.isascii():
            value = int(value) if value.isdigit() else None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._wrong(key, f"a number from {low} to {high}")
        return value

    def _wrong(self, key: str, expected: str) -> ImagingError:
        found = reprlib.repr(self.values.get(key))[:40]  # of any depth
        return self.error(
            f"{self.path}.{key:.40}: expected {expected}, found {found}", name=self.where
        )
