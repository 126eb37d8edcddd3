"""What the file systems on a disk use of it, so that the rest can be left out.

The disk is looked at as a tree: partitions, in them file systems or containers (volume groups,
arrays, encrypted volumes), in these volumes with file systems again. Only what a file system
or a container says to be free is left out, and only if no other volume uses it. Everything that
is not understood is used: gaps, boot code, tables, unknown file systems, doubtful maps.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import FormatError, PassphraseError, ReadError
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.core.runs import Runs
from imprint.endpoints.location import Where
from imprint.endpoints.survey import describe
from imprint.filesystems import identify
from imprint.filesystems.table import allocator
from imprint.filters.used import UsedOnly
from imprint.filters.window import Window
from imprint.volumes.containers import container

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Passphrase, Source
    from imprint.endpoints.location import Location
    from imprint.endpoints.open import Access
    from imprint.endpoints.survey import Survey
    from imprint.filesystems.allocation import Allocation
    from imprint.filters.pieces import Piece
    from imprint.volumes.assembly import Assembly

DEPTH_MAX: Final = 4
"""Containers in containers: an array, encrypted, with a volume group, is three."""

_SWAP: Final = "swap"
_NOTHING: Final = Runs.of([])


@dataclass(frozen=True)
class Policy:
    """What may be left out.

    Attributes:
        force: rely on maps of which there are doubts.
        drop_swap: leave out the content of swap areas.
    """

    force: bool = False
    drop_swap: bool = False


class Span(NamedTuple):
    """A part of a volume that is in one piece on the disk. All in bytes.

    Attributes:
        start: of the volume.
        end: of the volume; the first byte behind it.
        disk: where it begins on the disk.
    """

    start: int
    end: int
    disk: int


@dataclass(frozen=True)
class Volume:
    """A volume that is no container, and where its bytes are.

    Attributes:
        where: it is: ``partition 2``, ``disk``, ``partition 3, lvm/group/root``.
        kind: of its file system, or what else it is; ``None``: not known.
        source: its content.
        spans: where its bytes are on the disk, ascending by ``start``; those of a mirrored one
            are there several times.
    """

    where: str
    kind: str | None
    source: Source
    spans: Sequence[Span]

    def to_disk(self, runs: Runs) -> Runs:
        """Which bytes of the disk hold some of its bytes."""
        return Runs.union(
            runs.clip(span.start, span.end).shifted(span.disk - span.start) for span in self.spans
        )


def disk_use(
    source: Source,
    policy: Policy,
    *,
    passphrase: Passphrase,
    in_use: str | None = None,
    on_event: OnEvent = ignore,
) -> Runs:
    """What counts of a disk, in its bytes. What is not left out, and why, is told as findings.

    Args:
        source: the disk, or a partition of it.
        policy: what may be left out.
        passphrase: asks for the secrets of encrypted volumes; without one, they count.
        in_use: who may change the disk while it is read: every map is doubtful then.
        on_event: gets the findings.
    """
    survey = describe(source)
    tree = VolumeTree(source, survey, passphrase, on_event)
    free, used = tree.free, []
    doubt = _doubt_of_all(survey, in_use)
    for volume in tree.volumes():
        part = _used_part(volume, policy, doubt, on_event)
        used.append(volume.to_disk(part))
        free.append(volume.to_disk(part.complement(volume.source.size)))
    unused = Runs.union(free) - Runs.union(used)
    if doubt is not None and not policy.force:
        unused = _NOTHING
    return unused.complement(source.size)


def used_only(source: Source, location: Location, access: Access, policy: Policy) -> UsedOnly:
    """What counts of a disk as a disk, which owns the source.

    Args:
        source: the disk, or a partition of it, at ``location``.
        location: tells whether somebody else uses it.
        access: for passphrases, and whom to tell.
        policy: what may be left out.
    """
    in_use = users_of(location)
    used = disk_use(
        source,
        policy,
        passphrase=access.gate().passphrase,
        in_use=in_use,
        on_event=access.on_event,
    )
    return UsedOnly(source, used)


def users_of(location: Location) -> str | None:
    """Who may change a disk while it is read: whoever mounts it, also if it is a file."""
    from imprint.storage.device_facts import System  # only where it is asked for

    location = location.outermost
    if location.where is Where.DEVICE:
        return "; ".join(System().used_by(location.path)) or None
    if location.where is Where.FILE:
        return "; ".join(System().file_used_by(location.path)) or None
    return None


def _doubt_of_all(survey: Survey, in_use: str | None) -> str | None:
    """Why no map of this disk should be relied upon."""
    if in_use is not None:
        return f"the disk may change while it is read: {in_use}"
    for item in survey.findings:
        if item.severity is Severity.ERROR:
            return f"the partition table is damaged: {item.where}: {item.what}"
    return None


def _used_part(volume: Volume, policy: Policy, doubt: str | None, on_event: OnEvent) -> Runs:
    """What counts of a volume, in its own bytes."""
    whole = Runs.whole(volume.source.size)
    file_system = None if volume.kind is None else allocator(volume.kind)
    if file_system is None:
        return whole
    if volume.kind == _SWAP and not policy.drop_swap:
        return whole
    allocation: Allocation | None = None
    try:
        allocation = file_system.allocation(volume.source)
        for note in allocation.notes:
            on_event(Finding(Severity.INFO, volume.where, note))
        doubts = [*allocation.doubts, *([doubt] if doubt else [])]
    except (FormatError, ReadError) as error:
        doubts = [str(error.args[0])]
    if not doubts:
        assert allocation is not None
        return allocation.used
    why = "; ".join(doubts)
    if allocation is not None and policy.force:
        what = f"only what is used is copied, as demanded, although {why}"
        on_event(Finding(Severity.WARNING, volume.where, what))
        return allocation.used
    what = f"the whole {volume.kind} volume is copied, used or not: {why}"
    on_event(Finding(Severity.WARNING, volume.where, what))
    return whole


class VolumeTree:
    """The volumes of a disk, containers opened.

    Attributes:
        free: what containers say to be free, in bytes of the disk; whole when all volumes
            have been taken.
    """

    def __init__(
        self, source: Source, survey: Survey, passphrase: Passphrase, on_event: OnEvent
    ) -> None:
        self._source = source
        self._survey = survey
        self._passphrase = passphrase
        self._on_event = on_event
        self.free: list[Runs] = []

    def volumes(self) -> Iterator[Volume]:
        """All that are no containers, or could not be opened."""
        yield from self._opened(list(self._outermost()), 0)

    def _outermost(self) -> Iterator[Volume]:
        whole = self._survey.filesystem
        if whole is not None or not self._survey.volumes:
            kind = None if whole is None else whole.kind
            yield Volume("disk", kind, self._source, [Span(0, self._source.size, 0)])
        for item in self._survey.volumes:
            part = item.partition
            if part.is_container or part.is_free or part.end > self._source.size:
                continue  # all of it counts, as everything else that is in no volume
            kind = None if item.filesystem is None else item.filesystem.kind
            name = f"partition {part.index}"
            source = Window(self._source, part.start, part.length, name=name)
            yield Volume(name, kind, source, [Span(0, part.length, part.start)])

    def _opened(self, siblings: Sequence[Volume], depth: int) -> Iterator[Volume]:
        """The volumes; in place of containers, what is in them."""
        members: dict[str, list[Volume]] = {}
        for volume in siblings:
            kind = volume.kind
            if kind is None or depth == DEPTH_MAX or container(kind) is None:
                yield volume
            else:
                members.setdefault(kind, []).append(volume)
        for kind, group in members.items():
            yield from self._inside(kind, group, depth)

    def _inside(self, kind: str, group: Sequence[Volume], depth: int) -> Iterator[Volume]:
        opener = container(kind)
        assert opener is not None
        try:
            assemblies = opener.assemble([item.source for item in group], self._passphrase)
        except (FormatError, ReadError, PassphraseError) as error:
            for item in group:
                what = f"the whole {kind} is copied, used or not: {error.args[0]}"
                self._on_event(Finding(Severity.WARNING, item.where, what))
            yield from (replace(item, kind=None) for item in group)
            return
        for assembly in assemblies:
            yield from self._assembled(assembly, group, depth)

    def _assembled(
        self, assembly: Assembly, group: Sequence[Volume], depth: int
    ) -> Iterator[Volume]:
        for note in assembly.notes:
            self._on_event(Finding(Severity.INFO, assembly.name, note))
        for member, free in zip(group, assembly.free, strict=True):
            self.free.append(member.to_disk(free))
        inner = []
        for volume in assembly.volumes:
            try:
                found = identify(volume.source)
            except (FormatError, ReadError):
                found = None
            # Without pieces nothing of it may be left out, whatever its file system says.
            kind = None if found is None or not volume.pieces else found.kind
            where = f"{group[0].where}, {volume.name}"
            inner.append(Volume(where, kind, volume.source, _through(volume.pieces, group)))
        yield from self._opened(inner, depth + 1)


def _through(pieces: Sequence[Piece], members: Sequence[Volume]) -> list[Span]:
    """From the bytes of an inner volume to those of the disk."""
    ends = [list(accumulate((span.end for span in item.spans), max)) for item in members]
    spans = []
    for piece in pieces:
        if piece.member is None:
            continue
        there = members[piece.member].spans
        start, end = piece.member_offset, piece.member_offset + piece.length
        for index in range(bisect_right(ends[piece.member], start), len(there)):
            span = there[index]
            if span.start >= end:
                break
            low, high = max(start, span.start), min(end, span.end)
            if low < high:
                shift = piece.offset - start
                spans.append(Span(low + shift, high + shift, span.disk + low - span.start))
    return sorted(spans)
