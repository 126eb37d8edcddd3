"""Putting right what a check has found: from parity, from what is whole, or by leaving it out.

Nothing of a snapshot is ever deleted here. What is lost is dropped from the index, so that the next
capture of a disk that still has it adds it again, and older snapshots are whole once more.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError, RepositoryError
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.objects.contract import MissingObjectError
from imprint.repository.chunks import ChunkReader
from imprint.repository.damage import DamageSearch, SnapshotDamage
from imprint.repository.index_rewriting import replace_index
from imprint.repository.keyring import FOLDER as KEYS
from imprint.repository.nodes import NAME_BYTES, Branch, Leaf, Piece, TreeBuilder
from imprint.repository.pack import Group, PackKind, encode_group, pack_object
from imprint.repository.pack_contents import PackOpener, groups_of, indexed_groups, read_pack
from imprint.repository.pack_reading import directory_of
from imprint.repository.parity import Mended, encode_parity, mend, parity_object
from imprint.repository.rebuild import rebuild_in, refuse_beside_others
from imprint.repository.repository import SIGNATURES, SNAPSHOTS, TAGS
from imprint.repository.sessions import remover
from imprint.repository.snapshots import time_text
from imprint.repository.walking import Fold
from imprint.transfer.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from imprint.core.cancel import CancelToken
    from imprint.repository.check_report import CheckReport
    from imprint.repository.pack_contents import GroupAt
    from imprint.repository.repository import Repository
    from imprint.repository.sessions import Session
    from imprint.repository.snapshots import Manifest, Snapshot
    from imprint.repository.writing import ChunkWriter

_NEVER_REPAIRED: Final = (KEYS, SIGNATURES, SNAPSHOTS, TAGS)

_Stretches = tuple[tuple[int, int, bytes], ...]
"""Start, end and name of leaves."""


@dataclass(frozen=True)
class RepairOptions:
    """How a repository is repaired.

    Attributes:
        write_repaired: of each snapshot that cannot be whole, make one in which what is lost
            counts as not read; the old one stays.
        on_event: told of progress.
        cancel: stops it, between two packs.
    """

    write_repaired: bool = False
    on_event: OnEvent = ignore
    cancel: CancelToken | None = None


@dataclass
class RepairReport:
    """What was done.

    Attributes:
        mended: packs that parity has made whole.
        removed: packs that were dropped, after what was whole of them was kept.
        rescued: chunks of these that were kept.
        lost: chunks of these that are lost, unless another pack has them; of packs that are
            missing, they are not counted.
        index_rebuilt: whether the index was made again.
        parity: packs whose parity was made again, or removed if there has to be none.
        damage: what of which snapshots is lost now.
        written: damaged snapshots, each with the one that was made of it.
        unrepaired: what is wrong with keys, signatures, tags and snapshots themselves: nothing
            says what was in them.
    """

    mended: list[bytes] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)
    rescued: int = 0
    lost: int = 0
    index_rebuilt: bool = False
    parity: list[bytes] = field(default_factory=list)
    damage: list[SnapshotDamage] = field(default_factory=list)
    written: list[tuple[Snapshot, Snapshot]] = field(default_factory=list)
    unrepaired: list[Finding] = field(default_factory=list)


def repair(repository: Repository, found: CheckReport, options: RepairOptions) -> RepairReport:
    """Repair what a check has found; killed at any moment, it can be done again.

    Args:
        repository: to repair.
        found: by a check that has read the data, if data is to be repaired.
        options: how.

    Raises:
        RepositoryBusyError: if somebody else is at work in the repository.
        TargetError: if there is no room.
        Cancelled: if that was asked for.
    """
    # With damaged objects that condemn, no session can begin that has to know what they say.
    with remover(
        repository.store, repository.protection, "repair", is_blind=bool(found.broken_condemned)
    ) as session:
        refuse_beside_others(repository, session.name)
        for name in found.broken_condemned:
            # What it condemned is found again by the next prune.
            repository.store.delete(name)
        session.look()
        return _Repair(repository, session, options).run(found)


class _Repair:
    def __init__(self, repository: Repository, session: Session, options: RepairOptions) -> None:
        self._repository = repository
        self._store = repository.store
        self._protection = repository.protection
        self._session = session
        self._options = options
        self.report = RepairReport()

    def run(self, found: CheckReport) -> RepairReport:
        if found.broken_index or found.is_index_wrong:
            rebuild_in(self._repository, self._session, on_event=self._options.on_event)
            self.report.index_rebuilt = True
        broken = self._mend({pack: item.size for pack, item in found.broken_packs.items()})
        self._rescue(broken)
        if broken:
            replace_index(self._store, self._protection, broken.keys())
            for pack in broken:
                self._store.delete(pack_object(pack))
                self._store.delete(parity_object(pack))
            self.report.removed = sorted(broken)
        self._repository.index.reload()
        for pack in found.broken_parity:
            if pack not in found.broken_packs:
                self._renew_parity(pack)
        self._look_at_snapshots()
        damaged = {SNAPSHOTS + damage.snapshot.name for damage in found.damage}
        self.report.unrepaired = [
            finding
            for finding in found.findings
            if finding.severity is Severity.ERROR
            and finding.where.startswith(_NEVER_REPAIRED)
            and finding.where not in damaged
        ]
        return self.report

    def _renew_parity(self, pack: bytes) -> None:
        """Of a pack that is whole."""
        data = self._get(pack)
        if not self._with_parity(pack, data).is_whole:
            return
        name = parity_object(pack)
        if self._repository.format.parity:
            self._store.put(name, encode_parity(data, pack, self._repository.format.parity))
        else:
            self._store.delete(name)
        self.report.parity.append(pack)

    def _mend(self, packs: Mapping[bytes, int]) -> dict[bytes, bytes]:
        """Use parity; what there is of packs, whose sizes are given, that are not whole then."""
        left = {}
        pace, done = Pace(sum(packs.values()), "repair", self._options.on_event), 0
        for pack in sorted(packs):
            if self._options.cancel is not None:
                self._options.cancel.check()
            data = self._get(pack)
            mended = self._with_parity(pack, data)
            if mended.is_whole:
                self._store.put(pack_object(pack), (mended.data,))
                self.report.mended.append(pack)
            else:
                left[pack] = mended.data
            done += packs[pack]
            pace.tell(done, done)
        pace.tell(done, done, force=True)
        return left

    def _get(self, pack: bytes) -> bytes:
        """What can be read of a pack."""
        try:
            return read_pack(self._store, pack)
        except MissingObjectError:
            return b""

    def _with_parity(self, pack: bytes, data: bytes) -> Mended:
        from blake3 import blake3

        if blake3(data).digest() == pack:
            return Mended(data, True, 0)  # noqa: FBT003 - fields have names
        try:
            return mend(data, self._store.get(parity_object(pack)), pack)
        except (MissingObjectError, ReadError, RepositoryError):
            return Mended(data, False, 0)  # noqa: FBT003

    def _rescue(self, broken: dict[bytes, bytes]) -> None:
        """Keep what is whole of packs in new ones."""
        if not broken:
            return
        there = {pack for pack, data in broken.items() if data}
        known = indexed_groups(self._repository.index, there)
        kinds = self._repository.index.packs()
        writer = self._repository.writer(self._session, without=broken)
        try:
            for pack, data in broken.items():
                kind = kinds.get(pack, PackKind.DATA)
                groups: Sequence[GroupAt] = known.get(pack, [])
                try:
                    directory = directory_of(data, self._protection)
                    groups, kind = groups_of(directory), directory.kind
                except RepositoryError:
                    pass  # what the index says has to do
                self._rescue_pack(writer, data, groups, kind)
            writer.finish()
        finally:
            writer.close()

    def _rescue_pack(
        self, writer: ChunkWriter, data: bytes, groups: Sequence[GroupAt], kind: PackKind
    ) -> None:
        opener = PackOpener(data, self._protection)
        for group in groups:
            found = opener.open(group)
            sound = [chunk for chunk, fits in zip(group.chunks, found.sound, strict=True) if fits]
            self.report.lost += len(group.chunks) - len(sound)
            is_new = writer.claim([chunk.name for chunk in sound])
            new = [chunk for chunk, fits in zip(sound, is_new, strict=True) if fits]
            if not new:
                continue
            self.report.rescued += len(new)
            names = [chunk.name for chunk in new]
            if len(new) == len(group.chunks) and group.is_full:
                lengths = tuple(chunk.length for chunk in new)
                kept = Group(bytes(found.stored), group.raw, group.codec, lengths)
            else:
                content = found.content
                pieces = [content[chunk.offset : chunk.offset + chunk.length] for chunk in new]
                kept = encode_group(pieces, self._repository.format.level)
            writer.add(kept, names, kind)

    def _look_at_snapshots(self) -> None:
        index = self._repository.index
        chunks = ChunkReader(self._store, index, self._protection)
        search = DamageSearch(chunks, index, frozenset())
        for snapshot in self._snapshots():
            damage = search.of(snapshot)
            if damage is not None:
                self.report.damage.append(damage)
        if self._options.write_repaired and self.report.damage:
            self._write_repaired(chunks)

    def _snapshots(self) -> Iterator[Snapshot]:
        """Those that can be read."""
        for info in list(self._store.list(SNAPSHOTS)):
            try:
                yield self._repository.snapshot(info.name.removeprefix(SNAPSHOTS))
            except (RepositoryError, ReadError, MissingObjectError):
                continue  # a check tells of it

    def _write_repaired(self, chunks: ChunkReader) -> None:
        writer = self._repository.writer(self._session)
        index = self._repository.index

        def of_leaf(name: bytes, leaf: Leaf) -> _Stretches:
            left = without_lost(leaf, lambda chunk: index.locate(chunk) is None)
            kept = name if left is None else writer.add_node(left.encode())
            return ((leaf.start, leaf.end, kept),)

        def broken(start: int, end: int, _: RepositoryError) -> _Stretches:
            return ((start, end, writer.add_node(_bad(start, end).encode())),)

        try:
            fold = Fold(chunks.read, of_leaf, _joined, broken)
            manifests = []
            for damage in self.report.damage:
                tree = TreeBuilder(writer.add_node)
                for start, end, name in fold.of(damage.snapshot):
                    tree.add(start, end, name)
                manifests.append((damage.snapshot, _repaired_manifest(damage, tree.finish())))
            writer.finish()
            for old, manifest in manifests:
                new = self._repository.commit(manifest, self._session, writer)
                self.report.written.append((old, new))
        finally:
            writer.close()


def without_lost(leaf: Leaf, is_lost: Callable[[bytes], bool]) -> Leaf | None:
    """A leaf in which chunks that are lost count as not read; ``None`` if none is lost."""
    names = [leaf.names[at : at + NAME_BYTES] for at in range(0, len(leaf.names), NAME_BYTES)]
    lost = list(map(is_lost, names))
    if not any(lost):
        return None
    kinds = bytearray(leaf.kinds)
    entries = (entry for entry, kind in enumerate(leaf.kinds) if kind == Piece.DATA)
    for entry, is_gone in zip(entries, lost, strict=True):
        if is_gone:
            kinds[entry] = Piece.BAD
    kept = b"".join(name for name, is_gone in zip(names, lost, strict=True) if not is_gone)
    return Leaf(leaf.start, bytes(kinds), leaf.lengths, kept)


def _bad(start: int, end: int) -> Leaf:
    """The leaf of a stretch of which nothing is known."""
    if start == end:
        return Leaf(start, b"", array("Q"), b"")
    return Leaf(start, bytes([Piece.BAD]), array("Q", [end - start]), b"")


def _joined(_: bytes, branch: Branch, below: list[_Stretches]) -> _Stretches:
    del branch
    return tuple(chain.from_iterable(below))


def _repaired_manifest(damage: SnapshotDamage, root: bytes) -> Manifest:
    old = damage.snapshot
    what = f"made by a repair of {old.short}: {damage.ranges.total} bytes were lost"
    return replace(
        old.manifest,
        # Of two of the same time, this one has to be the newer.
        time=time_text(old.manifest.taken + timedelta(microseconds=1)),
        root=root.hex(),
        stored=0,
        hashes={},
        notes=(*old.manifest.notes, what),
    )
