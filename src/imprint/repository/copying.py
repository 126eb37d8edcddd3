"""Copying snapshots from one repository to another: only what is missing there.

::

    trees ─► which groups are needed ─► windowed(read, prove, rename) ─► packs ─► trees ─► snapshots

A group of which every chunk is needed and new is passed on as it was compressed; only its names and
its encryption are made anew. Whatever is passed on was decoded before, and each chunk proven.
"""

from __future__ import annotations

import os
import struct
from array import array
from bisect import bisect_left
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import RepositoryError
from imprint.core.events import OnEvent, ignore
from imprint.objects.contract import MissingObjectError
from imprint.repository.envelope import What, unwrap, wrap
from imprint.repository.group_reading import GroupFetcher
from imprint.repository.nodes import NAME_BYTES, Branch, Leaf
from imprint.repository.pack import Group, encode_group, pack_object
from imprint.repository.pack_contents import groups_of, opened
from imprint.repository.pack_reading import read_directory
from imprint.repository.repository import SIGNATURES, TAGS
from imprint.repository.walking import Fold
from imprint.transfer.pace import Pace
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.cancel import CancelToken
    from imprint.repository.pack_contents import ChunkAt, GroupAt
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Manifest, Snapshot
    from imprint.repository.writing import ChunkWriter

_NAME: Final = struct.Struct(f"{NAME_BYTES}s")
_NONE: Final = array("I")
_PROBE: Final = b"imprint: do two repositories name chunks alike?"


_SLOW_S: Final = 0.002
_READERS: Final = 8


@dataclass(frozen=True)
class CopyOptions:
    """How snapshots are copied.

    Attributes:
        workers: threads that read, prove and compress; ``None``: one for each processor.
        on_event: told of progress.
        cancel: stops it; nothing of what was copied becomes visible then.
    """

    workers: int | None = None
    on_event: OnEvent = ignore
    cancel: CancelToken | None = None


@dataclass
class CopyReport:
    """What was done.

    Attributes:
        copied: snapshots, each with the one that it has become.
        present: snapshots that were there already, each with the one that it is there.
        stored: bytes that the target has taken.
        read: bytes of groups that were read, decoded.
        chunks: how many were added.
        passed: how many groups were passed on as they were compressed.
        packed: how many groups were compressed again, since not all of them was needed.
        unsigned: names of snapshots whose signatures do not hold in the target, where names
            are others.
    """

    copied: list[tuple[Snapshot, Snapshot]] = field(default_factory=list)
    present: list[tuple[Snapshot, Snapshot]] = field(default_factory=list)
    stored: int = 0
    read: int = 0
    chunks: int = 0
    passed: int = 0
    packed: int = 0
    unsigned: list[str] = field(default_factory=list)


class _Work(NamedTuple):
    """A group, some or all of whose chunks are needed."""

    number: int
    pack: bytes
    group: GroupAt
    chunks: list[ChunkAt]


class _Done(NamedTuple):
    """A group that was read: its chunks that are needed, proven, with their names in the target."""

    work: _Work
    names: list[bytes]
    content: memoryview
    stored: bytes


def copy_snapshots(
    source: Repository, target: Repository, snapshots: Sequence[Snapshot], options: CopyOptions
) -> CopyReport:
    """Copy snapshots, with their tags, and with their signatures if names stay the same.

    Args:
        source: where they are.
        target: where they are put. The encryption of both may be any.
        snapshots: of ``source``.
        options: how.

    Raises:
        RepositoryError: if something is damaged; nothing is visible in the target then.
        TargetError: if there is no room.
        Cancelled: if that was asked for.
    """
    copier = _Copier(source, target, options)
    ordered = sorted(snapshots, key=lambda item: (item.manifest.time, item.name))
    with target.session("copy") as session:
        wanted = copier.leave_out_present(ordered)
        writer = target.writer(session)
        try:
            manifests = copier.run(wanted, writer)
            for old, manifest in zip(wanted, manifests, strict=True):
                copier.copy_signature(old, target.protection.name_of(manifest.encode()).hex())
                new = target.commit(manifest, session, writer)
                copier.copy_tags(old, new)
                copier.report.copied.append((old, new))
        finally:
            writer.close()
    return copier.report


class _Copier:
    def __init__(self, source: Repository, target: Repository, options: CopyOptions) -> None:
        self._source = source
        self._target = target
        self._options = options
        own = os.cpu_count() or 1
        if source.store.latency_s >= _SLOW_S:
            own = max(own, _READERS)  # which wait most of the time
        self._workers = options.workers or own
        names = (item.protection.name_of(_PROBE) for item in (source, target))
        self.is_same = len(set(names)) == 1
        self._fetcher = GroupFetcher(source.store, source.protection)
        self.report = CopyReport()
        self._nodes: dict[bytes, bytes] = {}
        """What leaves and branches of snapshots that are there already are called there."""
        self._needed: defaultdict[int, array[int]] = defaultdict(lambda: array("I"))
        self._renamed: dict[int, bytes] = {}
        self._missing: set[bytes] = set()

    def leave_out_present(self, snapshots: Sequence[Snapshot]) -> list[Snapshot]:
        """Those that are not there yet. Snapshots are the same if all but their names is."""
        if not self._target.protection.can_read:
            return list(snapshots)
        there = {_identity(item.manifest): item for item in self._target.snapshots()}
        pairs = [(item, there.get(_identity(item.manifest))) for item in snapshots]
        wanted = [snapshot for snapshot, found in pairs if found is None]
        self.report.present = [(snapshot, found) for snapshot, found in pairs if found is not None]
        if not self.is_same:
            # The newest of each disk: what older ones have beside it is not much.
            images = {snapshot.manifest.image for snapshot in wanted}
            newest = {item[0].manifest.image: item for item in self.report.present}
            for image in images & newest.keys():
                self._learn(*newest[image])
        return wanted

    def _learn(self, snapshot: Snapshot, there: Snapshot) -> None:
        """The trees of both are alike, so what a node is called there need not be computed."""
        trees = (self._source.source(snapshot).tree, self._target.source(there).tree)
        try:
            pairs = zip(*(tree.names() for tree in trees), strict=True)
            self._nodes.update({old: new for (old, _), (new, _) in pairs})
        except (RepositoryError, ValueError):
            return  # then all of it is read

    def run(self, snapshots: Sequence[Snapshot], writer: ChunkWriter) -> Iterator[Manifest]:
        """Copy chunks and trees; the manifests that belong to the snapshots there."""
        load = self._source.chunks.read
        search = Fold(load, lambda name, leaf: self._need(name, leaf, writer), lambda *_: None)
        for snapshot in snapshots:
            self._step()
            search.of(snapshot)
        self._copy_groups(writer)
        rename = Fold(
            load,
            lambda name, leaf: self._copy_leaf(name, leaf, writer),
            lambda name, branch, below: self._copy_branch(name, branch, below, writer),
        )
        roots = [rename.of(snapshot) for snapshot in snapshots]
        writer.finish()
        self.report.stored = writer.stored
        known = {old.name: new.name for old, new in self.report.present}
        return (
            self._manifest(snapshot, root, known)
            for snapshot, root in zip(snapshots, roots, strict=True)
        )

    def _step(self) -> None:
        if self._options.cancel is not None:
            self._options.cancel.check()

    def _need(self, leaf_name: bytes, leaf: Leaf, writer: ChunkWriter) -> None:
        """Note where the chunks of a leaf are that have to be read."""
        if self._known_name(leaf_name, writer) is not None:
            return
        locate = self._source.index.locate
        for (name,) in _NAME.iter_unpack(leaf.names):
            if self.is_same and writer.has_all((name,)):
                continue
            found = locate(name)
            if found is None:
                raise RepositoryError(
                    f"chunk {name.hex()} is in no index",
                    name=self._source.name,
                    advice="rebuild the index, and check the repository",
                )
            self._needed[found[0]].append(found[1])

    def _known_name(self, leaf_name: bytes, writer: ChunkWriter) -> bytes | None:
        """What a leaf is called that was copied with a snapshot that is there."""
        name = self._nodes.get(leaf_name)
        return name if name is not None and writer.has_all((name,)) else None

    def _copy_groups(self, writer: ChunkWriter) -> None:
        total = sum(map(self._source.index.groups.raw.__getitem__, self._needed))
        pace = Pace(total, "copy", self._options.on_event)
        work = windowed(self._read, self._work(), workers=self._workers, window=self._workers + 1)
        with closing(work) as found:
            for done in found:
                self._step()
                self._keep(done, writer)
                self.report.read += done.work.group.raw
                pace.tell(self.report.read, self.report.read)
        pace.tell(total, self.report.read, force=True)

    def _work(self) -> Iterator[_Work]:
        """The groups that are needed, in the order in which they lie in packs."""
        groups = self._source.index.groups
        pack = b""
        directory: list[GroupAt] = []
        for number in sorted(self._needed):
            place = groups.place((number, 0, 0))
            if place.pack != pack:
                pack = place.pack
                directory = groups_of(
                    read_directory(self._source.store, pack, self._source.protection)
                )
            offsets = array("I", sorted(set(self._needed[number])))
            self._needed[number] = offsets
            group = directory[place.group_number]
            wanted = set(offsets)
            chunks = [chunk for chunk in group.chunks if chunk.offset in wanted]
            if len(chunks) != len(offsets):
                raise RepositoryError(
                    f"group {group.number}: the index says something else of it",
                    name=pack_object(pack),
                    advice="rebuild the index, and check the repository",
                )
            yield _Work(number, pack, group, chunks)

    def _read(self, work: _Work) -> _Done:
        """Read, decode and prove a group; runs in a worker."""
        store, protection = self._source.store, self._source.protection
        name, group = pack_object(work.pack), work.group
        place = self._source.index.groups.place((work.number, 0, 0))
        found = opened(group, self._fetcher.fetch(place, None), protection)
        sound = {chunk for chunk, fits in zip(group.chunks, found.sound, strict=True) if fits}
        if not sound.issuperset(work.chunks):
            raise RepositoryError(
                f"group {group.number}: {found.reason}",
                name=f"{store.name}/{name}",
                advice="check the repository",
            )
        content = found.content
        names = [chunk.name for chunk in work.chunks]
        if not self.is_same:
            name_of = self._target.protection.name_of
            names = [
                name_of(content[chunk.offset : chunk.offset + chunk.length])
                for chunk in work.chunks
            ]
        return _Done(work, names, content, bytes(found.stored))

    def _keep(self, done: _Done, writer: ChunkWriter) -> None:
        group = done.work.group
        if not self.is_same:
            self._renamed[done.work.number] = b"".join(done.names)
        is_new = writer.claim(done.names)
        if not any(is_new):
            return
        rows = zip(done.work.chunks, done.names, is_new, strict=True)
        new = [(chunk, name) for chunk, name, fits in rows if fits]
        names = [name for _, name in new]
        self.report.chunks += len(new)
        if len(new) == len(group.chunks) and done.stored:
            lengths = tuple(chunk.length for chunk, _ in new)
            writer.add(Group(done.stored, group.raw, group.codec, lengths), names)
            self.report.passed += 1
            return
        pieces = [done.content[chunk.offset : chunk.offset + chunk.length] for chunk, _ in new]
        writer.add(encode_group(pieces, self._target.format.level), names)
        self.report.packed += 1

    def _copy_leaf(self, name: bytes, leaf: Leaf, writer: ChunkWriter) -> bytes:
        if self.is_same:
            return writer.add_node(leaf.encode())
        known = self._known_name(name, writer)
        if known is not None:
            return known
        names = b"".join(self._new_name(chunk) for (chunk,) in _NAME.iter_unpack(leaf.names))
        return writer.add_node(replace(leaf, names=names).encode())

    def _new_name(self, name: bytes) -> bytes:
        """What a chunk is called in the target."""
        found = self._source.index.locate(name)
        offsets = self._needed.get(found[0], _NONE) if found is not None else _NONE
        at = bisect_left(offsets, found[1]) if found is not None else 0
        if found is None or at == len(offsets) or offsets[at] != found[1]:
            raise RepositoryError(
                "the index was changed meanwhile",
                name=self._source.name,
                advice="the same command starts over",
            )
        return self._renamed[found[0]][NAME_BYTES * at : NAME_BYTES * (at + 1)]

    def _copy_branch(
        self, name: bytes, branch: Branch, below: list[bytes], writer: ChunkWriter
    ) -> bytes:
        del name
        return writer.add_node(replace(branch, names=b"".join(below)).encode())

    def _manifest(self, snapshot: Snapshot, root: bytes, known: dict[str, str]) -> Manifest:
        """What the snapshot is in the target; those that come later refer to it."""
        manifest = snapshot.manifest
        if not self.is_same:
            parent = None if manifest.parent is None else known.get(manifest.parent)
            manifest = replace(manifest, root=root.hex(), parent=parent)
        known[snapshot.name] = self._target.protection.name_of(manifest.encode()).hex()
        return manifest

    def copy_signature(self, old: Snapshot, name: str) -> None:
        """Keep a signature, which has to be there before its snapshot is."""
        content = self._unwrapped(SIGNATURES + old.name, What.SIGNATURE)
        if content is None:
            return
        if name != old.name:
            self.report.unsigned.append(old.name)
            return
        self._put(SIGNATURES + name, What.SIGNATURE, content)

    def copy_tags(self, old: Snapshot, new: Snapshot) -> None:
        """Keep the tags."""
        content = self._unwrapped(TAGS + old.name, What.TAGS)
        if content is not None:
            self._put(TAGS + new.name, What.TAGS, content)

    def _unwrapped(self, name: str, what: What) -> bytes | None:
        try:
            data = self._source.store.get(name)
        except MissingObjectError:
            return None
        return unwrap(data, what, self._source.protection, name=name)

    def _put(self, name: str, what: What, content: bytes) -> None:
        data = wrap(what, content, self._target.protection, name=name)
        self._target.store.put(name, (data,))


def _identity(manifest: Manifest) -> bytes:
    """The same for a snapshot and for its copy, whatever things are called there."""
    return replace(manifest, root="", parent=None).encode()
