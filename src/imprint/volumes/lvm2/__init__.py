"""LVM2: volume groups over the physical volumes that are at hand.

Read: linear and striped volumes, mirrors (``raid1`` by a leg that is in sync, old ones by their
first leg), thin volumes, volumes on volumes, groups of which physical volumes are missing. Told
of, and counted as used: caches, snapshots, RAID with parity, VDO. Thin volumes share blocks, so
that all of their pool counts too.

Of a snapshot's origin nothing is left out: the snapshot needs blocks that the origin's file
system has freed.

Source: LVM2 ``lib/format_text``; lvmsystemid(7), lvmraid(7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import FormatError, ReadError
from imprint.core.runs import Runs
from imprint.volumes.assembly import Assembly, Inner, few
from imprint.volumes.lvm2 import physical
from imprint.volumes.lvm2.group import Group, group_of
from imprint.volumes.lvm2.mapping import Mapper
from imprint.volumes.lvm2.text import parse
from imprint.volumes.parts import NO_PIECES, Builder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imprint.core.contracts import Source
    from imprint.volumes.lvm2.physical import PhysicalVolume

__all__ = ["CONTAINER"]

_NOTHING: Final = Runs.of([])


class _Lvm2:
    """See :class:`imprint.volumes.containers.Container`."""

    def assemble(
        self, members: Sequence[Source], passphrase: Callable[[str], bytes]
    ) -> list[Assembly]:
        """One assembly for each volume group; physical volumes of none are left alone."""
        budget = physical.Budget()
        volumes = [physical.read(member, budget) for member in members]
        texts = {text: None for volume in volumes for text in volume.texts}
        found: dict[str, list[Group]] = {}
        for text in texts:
            plain = text.rstrip(b"\0").decode("utf-8", "replace")
            group = group_of(parse(plain, where=members[0].name), where=members[0].name)
            found.setdefault(group.uuid, []).append(group)
        return [_assembled(groups, members, volumes) for groups in found.values()]


CONTAINER: Final = _Lvm2()


def _assembled(
    groups: Sequence[Group], members: Sequence[Source], volumes: Sequence[PhysicalVolume]
) -> Assembly:
    """A group, of which ``groups`` are all the descriptions that were found."""
    group = max(groups, key=lambda item: item.sequence)
    name = f"volume group {group.name}"
    notes: list[str] = []
    at_hand: dict[str, int] = {}
    for key, item in group.physical.items():
        where = [index for index, volume in enumerate(volumes) if volume.uuid == item.uuid]
        if len(where) > 1:
            note = f"the physical volume {key} is there {len(where)} times"
            return Assembly(name, (), (_NOTHING,) * len(members), (note,))
        if where:
            at_hand[key] = where[0]
        else:
            notes.append(f"the physical volume {key} is not at hand")
    builder = Builder(f"{members[0].name}, {name}", members)
    mapper = Mapper(group, members, at_hand, builder)
    inner, more = _volumes(group, mapper, builder)
    notes += more
    doubts = [problem for index in at_hand.values() for problem in volumes[index].problems]
    if len({item.sequence for item in groups}) > 1:
        doubts.append("the physical volumes know different states of the group")
    free = [_NOTHING] * len(members)
    if doubts:
        notes += doubts
    else:
        for key, runs in mapper.free().items():
            if key in at_hand:
                volume = volumes[at_hand[key]]
                free[at_hand[key]] = runs.clip(0, volume.size) - volume.kept
    return Assembly(name, tuple(inner), tuple(free), few(notes))


def _volumes(group: Group, mapper: Mapper, builder: Builder) -> tuple[list[Inner], list[str]]:
    """Those that can be read, and why others cannot."""
    inner, notes = [], []
    stores, shared = _snapshots(group)
    for volume in group.logical.values():
        name = f"lvm/{group.name}/{volume.name}"
        if not volume.is_visible:
            continue
        if volume.name in stores:
            notes.append(f"{name} is a snapshot, which cannot be read: all of it counts")
            continue
        try:
            part = mapper.part(volume)
        except (FormatError, ReadError) as error:
            notes.append(f"{name}: {error.args[0]}")
            continue
        pieces = part.pieces or ()
        if part.pieces is None:
            notes.append(f"{name}: {NO_PIECES}")
        elif volume.name in shared:
            notes.append(f"{name} has snapshots, which may need what is free in it: all counts")
            pieces = ()
        inner.append(Inner(name, builder.reader(part), pieces))
    return inner, notes


def _snapshots(group: Group) -> tuple[set[str], set[str]]:
    """What holds the difference of a snapshot, and all volumes that others refer to."""
    stores: set[str] = set()
    shared: set[str] = set()
    for volume in group.logical.values():
        for segment in volume.segments:
            shared.update(segment.names())
            store = segment.section.get("cow_store")
            if isinstance(store, str):
                stores.add(store)
    return stores, shared
