"""Steps of targets: what a file system tells of its files: their places, and their states."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from imprint.filesystems.states import is_written_past
from imprint.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from imprint.core.contracts import Source
    from imprint.filesystems.files import Locating
    from imprint.filesystems.states import Dating

_LOOKED_AT_MAX: Final = 20_000


def locating(
    system: Locating, opened: Callable[[bytes], Source] = MemoryStorage
) -> Callable[[bytes], None]:
    """A step: all that is told is inside of the volume, which ``opened`` makes of the input."""

    def locate_files(content: bytes) -> None:
        volume = opened(content)
        runs = system.file_runs(volume)
        for position, offset, length in islice(runs, _LOOKED_AT_MAX):
            assert position >= 0
            assert 0 <= offset <= offset + length <= volume.size
        deque(runs, maxlen=0)

    return locate_files


def dating(
    system: Dating, opened: Callable[[bytes], Source] = MemoryStorage
) -> Callable[[bytes], None]:
    """A step: files come in order, and what they have is inside of the volume."""

    def tell_states(content: bytes) -> None:
        volume = opened(content)
        last = -1
        for file in system.states(volume).files:
            assert last < file.number
            last = file.number
            assert file.runs
            for offset, length in file.runs:
                assert 0 <= offset <= offset + length <= volume.size
            is_written_past(volume, file)

    return tell_states
