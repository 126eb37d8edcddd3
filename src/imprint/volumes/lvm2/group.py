"""A volume group as its text describes it, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.limits import DISK_SIZE_MAX, NAME_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.volumes.lvm2.text import Section

SECTOR_BYTES: Final = 512
FORMATS: Final = ("lvm2",)

_EXTENTS_MAX: Final = DISK_SIZE_MAX // SECTOR_BYTES


@dataclass(frozen=True)
class Physical:
    """A physical volume as the group knows it.

    Attributes:
        uuid: 32 characters, as its label has it.
        start: of the first extent, in bytes of it.
        count: of extents.
        is_lost: whether the group has given it up: what is on it is old.
    """

    uuid: str
    start: int
    count: int
    is_lost: bool = False


@dataclass(frozen=True)
class Segment:
    """A run of extents of a logical volume.

    Attributes:
        start: first extent of the volume.
        count: of extents.
        kind: as the text calls it: ``striped``, ``raid1``, ``thin-pool`` …
        section: everything else that the text says of it.
    """

    start: int
    count: int
    kind: str
    section: Section = field(repr=False)

    def areas(self, key: str) -> list[tuple[str, int]]:
        """A list of names, each with the extent where it begins."""
        items = self.section.get(key, ())
        found = []
        if isinstance(items, tuple) and len(items) % 2 == 0:
            for name, extent in zip(items[::2], items[1::2], strict=True):
                if not isinstance(name, str) or not isinstance(extent, int):
                    return []
                if not 0 <= extent <= _EXTENTS_MAX:
                    return []
                found.append((name, extent))
        return found

    def names(self) -> Iterator[str]:
        """All strings in it: whatever it refers to is one of them."""
        for value in self.section.values():
            if isinstance(value, str):
                yield value
            elif isinstance(value, tuple):
                yield from (item for item in value if isinstance(item, str))


@dataclass(frozen=True)
class Logical:
    """A logical volume.

    Attributes:
        name: of it.
        is_visible: whether users may use it; others are parts of some.
        is_moving: whether its extents are on their way to another physical volume.
        segments: ascending, without room between.
    """

    name: str
    is_visible: bool
    is_moving: bool
    segments: tuple[Segment, ...]

    @property
    def count(self) -> int:
        """Of extents."""
        return sum(item.count for item in self.segments)


@dataclass(frozen=True)
class Group:
    """A volume group.

    Attributes:
        name: of it.
        uuid: of it.
        sequence: counts its changes.
        extent_bytes: of one extent.
        physical: by the name that segments have for them.
        logical: by name.
    """

    name: str
    uuid: str
    sequence: int
    extent_bytes: int
    physical: dict[str, Physical]
    logical: dict[str, Logical]

    def find(self, uuid: str) -> Physical | None:
        """The physical volume with that identity."""
        return next((item for item in self.physical.values() if item.uuid == uuid), None)


def group_of(root: Section, *, where: str) -> Group:
    """The group that a parsed text is about.

    Raises:
        CorruptImageError: if the text lacks something, or contradicts itself.
    """
    sections = [(key, value) for key, value in root.items() if isinstance(value, dict)]
    if len(sections) != 1 or len(sections[0][0]) > NAME_BYTES_MAX:
        raise _wrong(where, f"one volume group, found {len(sections)}")
    name, section = sections[0]
    reader = _Reader(section, f"{where}: volume group {name}")
    if reader.text("format", "lvm2") not in FORMATS:
        raise _wrong(where, "the format lvm2, found another")
    extent_bytes = reader.number("extent_size", 1, _EXTENTS_MAX) * SECTOR_BYTES
    physical = {
        key: Physical(
            item.text("id").replace("-", ""),
            item.number("pe_start", 0, _EXTENTS_MAX) * SECTOR_BYTES,
            item.number("pe_count", 0, _EXTENTS_MAX),
            "MISSING" in item.flags("flags") | item.flags("status"),
        )
        for key, item in reader.sections("physical_volumes")
    }
    logical = {key: _logical(key, item) for key, item in reader.sections("logical_volumes")}
    ends = [item.start + item.count * extent_bytes for item in physical.values()]
    ends += [item.count * extent_bytes for item in logical.values()]
    if max(ends, default=0) > DISK_SIZE_MAX:
        raise _wrong(where, f"volumes of at most {DISK_SIZE_MAX} bytes, found a larger one")
    return Group(
        name,
        reader.text("id"),
        reader.number("seqno", 0, 1 << 64),
        extent_bytes,
        physical,
        logical,
    )


def _logical(name: str, reader: _Reader) -> Logical:
    flags = reader.flags("status")
    segments = []
    position = 0
    numbers = range(1, reader.number("segment_count", 0, len(reader.section)) + 1)
    for item in (reader.section_at(f"segment{number}") for number in numbers):
        start = item.number("start_extent", 0, _EXTENTS_MAX)
        count = item.number("extent_count", 1, _EXTENTS_MAX)
        if start != position:
            raise _wrong(item.where, f"a segment that begins at extent {position}, found {start}")
        position += count
        segments.append(Segment(start, count, item.text("type"), item.section))
    is_moving = bool(flags & {"PVMOVE", "LOCKED"})
    return Logical(name, "VISIBLE" in flags, is_moving, tuple(segments))


@dataclass(frozen=True)
class _Reader:
    """Takes what a section has to have."""

    section: Section
    where: str

    def number(self, key: str, low: int, high: int) -> int:
        value = self.section.get(key)
        if not isinstance(value, int) or not low <= value <= high:
            raise _wrong(self.where, f"{key} from {low} to {high}, found {value!r:.40}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self.section.get(key, default)
        if not isinstance(value, str):
            raise _wrong(self.where, f"{key} as text, found {value!r:.40}")
        return value

    def flags(self, key: str) -> frozenset[str]:
        value = self.section.get(key, ())
        items = value if isinstance(value, tuple) else (value,)
        return frozenset(item for item in items if isinstance(item, str))

    def section_at(self, key: str) -> _Reader:
        value = self.section.get(key)
        if not isinstance(value, dict):
            raise _wrong(self.where, f"the section {key}, found none")
        return _Reader(value, self.where)

    def sections(self, key: str) -> Iterator[tuple[str, _Reader]]:
        """Those in a section; none if that is not there."""
        outer = self.section.get(key, {})
        if isinstance(outer, dict):
            for name, value in outer.items():
                if isinstance(value, dict):
                    yield name, _Reader(value, f"{self.where}: {name}")


def _wrong(where: str, expected: str) -> CorruptImageError:
    return CorruptImageError(f"LVM2 metadata: expected {expected}", name=where)
