"""The text in which LVM2 keeps what it knows of a volume group.

``key = value``, and ``name { … }`` around such lines; a value is a number, a string or a list of
them. ``#`` begins a comment.

Source: lvm.conf(5), "SYNTAX"; LVM2 ``lib/config/config.c`` and ``libdm/libdm-config.c``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError

if TYPE_CHECKING:
    from collections.abc import Iterator

Scalar = int | str
Value = Scalar | tuple[Scalar, ...]
Section = dict[str, "Value | Section"]

DEPTH_MAX: Final = 8
"""Sections in sections: LVM2 writes four."""

_DIGITS_MAX: Final = 20
"""Of a number: 64 bits have no more, and int() is slow with thousands."""

_TOKEN: Final = re.compile(
    r"""[\s]*(?:\#[^\n]*\s*)*
    (?: "(?P<string>(?:[^"\\]|\\.)*)"
      | (?P<number>[-+]?\d+(?:\.\d+)?)(?![\w.+-])
      | (?P<word>[\w.+-]+)
      | (?P<mark>[{}\[\]=,])
      | (?P<end>\Z) )""",
    re.VERBOSE | re.ASCII | re.DOTALL,
)


def parse(text: str, *, where: str) -> Section:
    """What a text says, sections as dictionaries.

    Raises:
        CorruptImageError: if it is no such text; ``where`` names what it came from.
    """
    tokens = _Tokens(text, where)
    root: Section = {}
    stack = [root]
    while True:
        kind, name = tokens.take()
        if kind == "end":
            tokens.need(holds=len(stack) == 1, expected="'}'")
            return root
        if (kind, name) == ("mark", "}"):
            tokens.need(holds=len(stack) > 1, expected="a name")
            stack.pop()
            continue
        tokens.need(holds=kind in ("word", "number", "string"), expected="a name")
        kind, mark = tokens.take()
        if (kind, mark) == ("mark", "{"):
            tokens.need(holds=len(stack) <= DEPTH_MAX, expected=f"at most {DEPTH_MAX} levels")
            inner: Section = {}
            stack[-1][name] = inner
            stack.append(inner)
            continue
        tokens.need(holds=(kind, mark) == ("mark", "="), expected="'=' or '{'")
        stack[-1][name] = tokens.value()


class _Tokens:
    """The words, numbers and marks of a text, one by one."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._position = 0
        self._tokens = self._scan()

    def take(self) -> tuple[str, str]:
        """The next one and its kind."""
        return next(self._tokens)

    def value(self) -> Value:
        """A scalar, or a list of them."""
        kind, text = self.take()
        if (kind, text) != ("mark", "["):
            return self._scalar(kind, text)
        items: list[Scalar] = []
        while True:
            kind, text = self.take()
            if (kind, text) == ("mark", "]"):
                return tuple(items)
            if (kind, text) != ("mark", ","):
                items.append(self._scalar(kind, text))

    def need(self, *, holds: bool, expected: str) -> None:
        """Refuse the text unless it goes on as it should."""
        if not holds:
            found = self._text[self._position : self._position + 16]
            raise CorruptImageError(
                f"LVM2 metadata: expected {expected}, found {found!r}", name=self._where
            )

    def _scan(self) -> Iterator[tuple[str, str]]:
        while True:
            match = _TOKEN.match(self._text, self._position)
            if match is None:
                self.need(holds=False, expected="a name, a value or a mark")
                return
            kind = match.lastgroup or "end"
            yield kind, match[kind]
            self._position = match.end()

    def _scalar(self, kind: str, text: str) -> Scalar:
        if kind == "string":
            return re.sub(r"\\(.)", r"\1", text, flags=re.DOTALL)
        self.need(holds=kind == "number" and len(text) <= _DIGITS_MAX, expected="a value")
        return int(text.partition(".")[0])
