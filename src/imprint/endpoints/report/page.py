"""A page that holds all names, sizes and times, and what is needed to look through them.

It is one file, and asks for nothing from any network. Names are data in it, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from imprint.endpoints.report.records import code_of
from imprint.filesystems.tree import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from imprint.filesystems.tree import Entry

FILES_MAX: Final = 1_000_000
"""On a page: a browser needs some 300 bytes for each."""

_GONE: Final = 1
_BAD: Final = 2
_NS: Final = 1_000_000_000
_ERROR_CHARS: Final = 200
_ERRORS_MAX: Final = 1000
_WORDS: Final = ("modified", "accessed", "changed", "created")


class Page:
    """Takes files as they come; each column is text of JSON from the first."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._columns: dict[str, list[str]] = {"names": [], "parents": [], "sizes": []}
        self._times: list[list[str]] = [[] for _ in _WORDS]
        self._kinds: list[str] = []
        self._flags = bytearray()
        self._errors: dict[int, str] = {}
        self._label = ""
        self._kind = ""
        self.left_out = 0

    def begin(self, name: str, kind: str) -> None:
        """A volume, by its name in addresses, and the kind of its file system."""
        self._label = f"{name or 'disk'} ({kind})"
        self._kind = kind

    def add(self, entries: Sequence[Entry], parents: Sequence[int]) -> None:
        """Files, and the number of the folder of each in the report; -1 for roots."""
        room = FILES_MAX - len(self._flags)
        if len(entries) > room:
            self.left_out += len(entries) - room
            entries, parents = entries[:room], parents[:room]
        if not entries:
            return
        names = [shown(entry.name) or self._label for entry in entries]
        self._columns["names"].append(json.dumps(names)[1:-1])
        self._columns["parents"].append(_numbers(parents))
        self._columns["sizes"].append(_numbers([entry.size for entry in entries]))
        self._kinds.append("".join([code_of(entry, self._kind)[0] for entry in entries]))
        self._flags += bytes([_GONE if entry.is_deleted else 0 for entry in entries])
        base = [_seconds(entry.times.modified) for entry in entries]
        self._times[0].append(_numbers(base))
        for column, which in zip(self._times[1:], (1, 2, 3), strict=True):
            found = [_seconds(entry.times[which]) for entry in entries]
            column.append(
                _numbers(
                    [
                        None if when is None else when - (modified or 0)
                        for when, modified in zip(found, base, strict=True)
                    ]
                )
            )

    def fail(self, number: int, why: str) -> None:
        """A file that could not be read, by its number in the report, from 0 on."""
        if number < len(self._flags):
            self._flags[number] |= _BAD
            if len(self._errors) < _ERRORS_MAX:
                self._errors[number] = why[:_ERROR_CHARS]

    def end(self, image: str, about: str, notes: Iterable[str]) -> None:
        """Write the page."""
        here = resources.files("imprint.endpoints.report")
        script = here.joinpath("page.js").read_text(encoding="utf-8")
        page = here.joinpath("page.html").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        before, _, rest = page.partition("@@DATA@@")
        middle, _, after = rest.partition("@@SCRIPT@@")
        before = before.replace("@@POLICY@@", html.escape(policy))
        self._write(before.replace("@@TITLE@@", html.escape(shown(image))))
        notes = list(notes)
        if self.left_out:
            notes.append(f"{self.left_out} more files are left out here")
        self._data({"image": shown(image), "about": about, "notes": notes, "words": _WORDS})
        self._write(f"{middle}{script}{after}")

    def _data(self, facts: Mapping[str, Any]) -> None:
        errors = {str(number): why for number, why in self._errors.items()}
        self._safe(json.dumps({**facts, "errors": errors})[:-1])
        for name, blocks in self._columns.items():
            self._array(f',"{name}":[', blocks)
        self._write(f',"kinds":"{"".join(self._kinds)}","flags":"')
        self._write(self._flags.translate(_DIGITS).decode())
        self._write('","times":[')
        for number, blocks in enumerate(self._times):
            self._array(",[" if number else "[", blocks)
        self._write("]}")

    def _array(self, before: str, blocks: Sequence[str]) -> None:
        self._write(before)
        for number, block in enumerate(blocks):
            self._safe(f",{block}" if number else block)
        self._write("]")

    def _safe(self, text: str) -> None:
        """JSON in which nothing can end the element that it is in; it is ASCII already."""
        self._write(text.replace("<", "\\u003c"))


_DIGITS: Final = bytes(ord("0") + value % 10 for value in range(256))


def _seconds(when: int | None) -> int | None:
    return None if when is None else when // _NS


def _numbers(values: Sequence[int | None]) -> str:
    return ",".join(["null" if value is None else str(value) for value in values])
