"""Times as text; most files of a disk share theirs with many others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

_NS: Final = 1_000_000_000
_KEPT_MAX: Final = 1 << 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = -62_135_596_800
_LAST: Final = 253_402_300_799
"""Seconds of the years 1 and 9999: text of other years is no time for most readers."""


class Moments(dict[int, str]):
    """By ns since 1970, UTC: ``2026-11-20T10:00:00Z``, with ns behind the second if there are any.

    What is outside of the years 1 to 9999 is as near as these are.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seconds = _Seconds()

    def __missing__(self, when: int) -> str:
        seconds, rest = divmod(when, _NS)
        if not _FIRST <= seconds <= _LAST:
            seconds, rest = (_FIRST if seconds < 0 else _LAST), 0
        text = self._seconds[seconds]
        text = f"{text}.{rest:09}Z" if rest else f"{text}Z"
        if len(self) >= _KEPT_MAX:
            self.clear()
        self[when] = text
        return text


class _Seconds(dict[int, str]):
    """By s since 1970: files that were written one after the other share these."""

    def __missing__(self, seconds: int) -> str:
        moment = _EPOCH + timedelta(seconds=seconds)
        text = f"{moment.year:04}-{moment:%m-%dT%H:%M:%S}"
        if len(self) >= _KEPT_MAX:
            self.clear()
        self[seconds] = text
        return text
