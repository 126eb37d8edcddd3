"""What of a disk may have changed since a snapshot of it, found without reading the disk.

Image files tell it themselves: a file that has the same inode, size and times as then holds the
same bytes, and an overlay over such a file holds all that is new. What nothing is known of is
read. Times can lie, so a sample of what is taken for unchanged is read all the same.
"""

from __future__ import annotations

import os
import random
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint import formats
from imprint.core.errors import UnsupportedFeatureError
from imprint.core.extent import Kind
from imprint.core.formats import ChangeKeeping
from imprint.core.image import Image
from imprint.core.runs import Runs
from imprint.filters.used import UsedOnly

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.contracts import Source, Storage
    from imprint.endpoints.open import Access

_YOUNG_S: Final = 2.0
"""A file that was changed so shortly ago may change again without its times showing it."""

_SAMPLES: Final = 16
_SAMPLE_BYTES: Final = 256 << 10
"""Read of what is taken for unchanged: 4 MiB in all, in a few milliseconds."""

_NOTHING: Final = Runs.of([])


def chain_of(source: Source) -> tuple[str, ...]:
    """The state of each image that a disk is read from, the disk's own first.

    Two equal texts mean equal content. Empty if that cannot be told: of devices, of what comes
    over a network, and of files that were changed just now.
    """
    states: list[str] = []
    current: Source | None = source.source if isinstance(source, UsedOnly) else source
    while current is not None:
        if not isinstance(current, Image):
            return ()
        files = [Path(current.name)]
        data_file = current.info().data_file
        if data_file is not None:
            files.append(files[0].parent / data_file)
        found = [_state(path) for path in files]
        if None in found:
            return ()
        states.append(";".join(str(item) for item in found))
        current = current.parent
    return tuple(states)


def changed_since(source: Source, now: Sequence[str], then: Sequence[str]) -> Runs | None:
    """What may differ between a disk and a snapshot of it; ``None``: anything.

    Args:
        source: the disk as it is now.
        now: its :func:`chain_of`.
        then: that of the disk of the snapshot.
    """
    above = len(now) - len(then)
    if not then or above < 0 or tuple(now[above:]) != tuple(then):
        return None
    changed: list[Runs] = []
    current: Source | None = source.source if isinstance(source, UsedOnly) else source
    for _ in range(above):
        assert isinstance(current, Image)
        own = current.own_extents(0, current.size)
        changed.append(
            Runs.of((item.offset, item.length) for item in own if item.kind is not Kind.HOLE)
        )
        current = current.parent
        if current is None or current.size != source.size:
            return None  # what lies behind the end of the one below was never in the snapshot
    return Runs.union(changed)


def written_to(storage: Storage, access: Access, bitmap: str) -> Runs:
    """What a dirty bitmap in an image says to have been written.

    Raises:
        UnsupportedFeatureError: if images of this format have no bitmaps, or it is not reliable.
        UsageError: if there is no bitmap of that name.
    """
    format_ = access.driver(access.image_format or formats.detect(storage))
    if not isinstance(format_, ChangeKeeping):
        raise UnsupportedFeatureError(
            f"{format_.name} images have no bitmaps of what was written", name=storage.name
        )
    return format_.written(storage, bitmap)


def is_sound(source: Source, older: Source, changed: Runs) -> bool:
    """Whether samples of what has not changed are the same in both disks.

    Args:
        source: the disk as it is now.
        older: the snapshot's.
        changed: what is not compared.
    """
    unchanged = changed.complement(source.size)
    if not unchanged.total:
        return True
    choice = random.Random()  # noqa: S311 - no secret: other places each time
    starts = choice.sample(range(len(unchanged)), min(_SAMPLES, len(unchanged)))
    places = list(unchanged)
    for start, length in (places[number] for number in starts):
        size = min(_SAMPLE_BYTES, length)
        offset = start + choice.randrange(length - size + 1)
        now, then = bytearray(size), bytearray(size)
        source.readinto(memoryview(now), offset)
        older.readinto(memoryview(then), offset)
        if now != then:
            return False
    return True


def _state(path: Path) -> str | None:
    """Of a file; ``None`` if its times cannot tell when it changes."""
    try:
        facts = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(facts.st_mode) or time.time() - facts.st_mtime < _YOUNG_S:
        return None
    numbers = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    return " ".join((os.fspath(path.absolute()), *map(str, numbers)))
