"""Arrays of Linux RAID: mirrors by any member that is in sync, stripes and rows if all are there.

Read: levels 1, 0 and linear, superblocks 0.90, 1.0, 1.1 and 1.2. Told of, and counted as used:
other levels, arrays that are being reshaped, of which a member that is needed is not at hand,
or of which members have bad blocks. Superblocks, bitmaps and logs always count.

Source: md(4); Linux ``drivers/md``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, UnsupportedFeatureError
from imprint.core.runs import Runs
from imprint.core.units import align_down
from imprint.volumes import md_superblock
from imprint.volumes.assembly import Assembly, Inner, few
from imprint.volumes.md_superblock import SECTOR_BYTES
from imprint.volumes.parts import NO_PIECES, Builder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imprint.core.contracts import Source
    from imprint.volumes.md_superblock import Member
    from imprint.volumes.parts import Part

__all__ = ["CONTAINER"]

LINEAR: Final = -1
STRIPED: Final = 0
MIRRORED: Final = 1


class _MdRaid:
    """See :class:`imprint.volumes.containers.Container`."""

    def assemble(
        self, members: Sequence[Source], passphrase: Callable[[str], bytes]
    ) -> list[Assembly]:
        """One assembly for each array."""
        arrays: dict[bytes, list[tuple[int, Member]]] = {}
        for index, source in enumerate(members):
            member = md_superblock.read(source)
            arrays.setdefault(member.array, []).append((index, member))
        return [_assembled(found, members) for found in arrays.values()]


CONTAINER: Final = _MdRaid()


def _assembled(found: Sequence[tuple[int, Member]], members: Sequence[Source]) -> Assembly:
    newest = max(member.events for _, member in found)
    name = next(member.name for _, member in found if member.events == newest)
    title = f"array {name}"
    builder = Builder(f"{members[found[0][0]].name}, {title}", members)
    notes = []
    volumes: tuple[Inner, ...] = ()
    current = {}
    for index, member in found:
        if member.events != newest or member.role is None:
            notes.append(f"{members[index].name} is not in sync, and is not read")
        elif member.role in current:
            notes.append(f"{members[index].name} is there twice, and is not read")
        else:
            current[member.role] = (index, member)
    try:
        part, more = _part(current, builder)
    except FormatError as error:
        notes.append(f"cannot be read, so that all of it counts: {error.args[0]}")
    else:
        notes += more
        if part.pieces is None:
            notes.append(NO_PIECES)
        volumes = (Inner(name, builder.reader(part), part.pieces or ()),)
    return Assembly(title, volumes, (Runs.of([]),) * len(members), few(notes))


def _part(current: dict[int, tuple[int, Member]], builder: Builder) -> tuple[Part, list[str]]:
    """The array, and what a user should know of it."""
    if not current:
        raise UnsupportedFeatureError("no member is in sync")
    _, first = current[min(current)]
    problems = [member.problem for _, member in current.values() if member.problem]
    if problems:
        raise UnsupportedFeatureError(problems[0])
    if len({_shape(member) for _, member in current.values()}) > 1:
        raise UnsupportedFeatureError("its members disagree about it")
    if first.level not in (LINEAR, STRIPED, MIRRORED):
        raise UnsupportedFeatureError(f"level {first.level}")
    if any(member.length <= 0 for _, member in current.values()):
        raise UnsupportedFeatureError("a member has no data")
    if first.level != MIRRORED and len(current) < first.count:
        raise UnsupportedFeatureError(f"{len(current)} of {first.count} members are at hand")
    parts = [
        builder.run(index, member.offset, member.length)
        for _, (index, member) in sorted(current.items())
    ]
    if first.level == MIRRORED:
        is_clean = all(member.is_clean for _, member in current.values())
        return _mirror(parts, first.count, builder, is_clean=is_clean)
    return _row(parts, first, builder), []


def _mirror(
    parts: Sequence[Part], count: int, builder: Builder, *, is_clean: bool
) -> tuple[Part, list[str]]:
    notes = []
    if len(parts) < count:
        notes.append(f"{len(parts)} of {count} members are at hand and in sync")
    part = builder.mirrored(parts[0], parts[1:])
    if is_clean:
        return part, notes
    # Blocks may differ that were being written: what is free in one may not be in the other.
    notes.append("it is not clean")
    return builder.whole(part), notes


def _row(parts: Sequence[Part], first: Member, builder: Builder) -> Part:
    """Members behind each other or in stripes; of each, whole chunks are used."""
    chunk = first.chunk or (SECTOR_BYTES if first.level == LINEAR else 0)
    if chunk <= 0 or any(part.size < chunk for part in parts):
        raise UnsupportedFeatureError(f"chunks of {chunk} bytes")
    cut = [builder.clipped(part, 0, align_down(part.size, chunk)) for part in parts]
    if first.level == LINEAR:
        return builder.joined(cut)
    if len({part.size for part in cut}) > 1:
        raise UnsupportedFeatureError("striped members of different size")
    return builder.striped(cut, chunk)


def _shape(member: Member) -> tuple[int, int, int, int]:
    """What all members have to say alike."""
    length = member.length if member.level == MIRRORED else 0
    return member.level, member.count, member.chunk, length
