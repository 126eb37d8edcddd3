"""Is the repository sound, and what would be lost if it is not?

The structure is checked by the names that objects must have, and by looking for every chunk of
every snapshot in the index; the data, if that is wanted, by reading packs and naming every chunk.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import (
    ImagingError,
    NetworkError,
    PassphraseError,
    ReadError,
    RepositoryError,
)
from imprint.core.events import Finding, OnEvent, Severity, ignore
from imprint.objects.contract import MissingObjectError
from imprint.repository.chunks import ChunkReader
from imprint.repository.damage import DamageSearch
from imprint.repository.envelope import What, unwrap
from imprint.repository.index import ChunkIndex
from imprint.repository.index_content import IndexContent
from imprint.repository.index_rewriting import INDEX
from imprint.repository.key_objects import KeyObject
from imprint.repository.keyring import FOLDER as KEYS
from imprint.repository.pack import FOOT, pack_object
from imprint.repository.pack_contents import (
    PACKS,
    groups_of,
    indexed_groups,
    inspect,
    missing_pack,
    pack_of,
)
from imprint.repository.pack_reading import read_directory
from imprint.repository.parity import check_parity, parity_object
from imprint.repository.repository import SIGNATURES, SNAPSHOTS, TAGS
from imprint.repository.signing import verify
from imprint.transfer.pace import Pace
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imprint.core.cancel import CancelToken
    from imprint.repository.damage import FilesOf, SnapshotDamage
    from imprint.repository.pack_contents import GroupAt, Inspection
    from imprint.repository.repository import Repository
    from imprint.repository.signing import TrustedKey
    from imprint.repository.snapshots import Snapshot
    from imprint.repository.subsets import Subset

_DIRECTORIES: Final = 0.05
_PACK_BYTES_MAX: Final = 512 << 20
"""Of a pack that is read at once: four times as much as one of ours could come to."""


@dataclass(frozen=True)
class CheckOptions:
    """What is checked.

    Attributes:
        read_data: the packs that are read; ``None``: none.
        directories: the share of packs whose directories are compared with the index, 0 to 1.
        seed: chooses the same packs again; ``None``: others each time.
        trusted: keys whose signatures count.
        files_of: finds the files in damaged ranges.
        workers: threads that read; ``None``: one for each processor.
        on_event: told of findings and progress.
        cancel: stops it.
    """

    read_data: Subset | None = None
    directories: float = _DIRECTORIES
    seed: int | None = None
    trusted: Sequence[TrustedKey] = ()
    files_of: FilesOf | None = None
    workers: int | None = None
    on_event: OnEvent = ignore
    cancel: CancelToken | None = None


@dataclass
class CheckReport:
    """What was found.

    Attributes:
        snapshots: how many there are.
        packs: how many there are.
        chunks: how many the index has; those that are in several packs count for each.
        checked: chunks of snapshots that were looked for, each node's once.
        packs_read: packs of which every byte was read.
        bytes_read: in these.
        findings: everything that is wrong, and some things that are worth knowing.
        broken_index: names of index objects that are of no use.
        broken_packs: what is known of packs that are damaged, missing or cut.
        damage: what of which snapshots is lost.
    """

    snapshots: int = 0
    packs: int = 0
    chunks: int = 0
    checked: int = 0
    packs_read: int = 0
    bytes_read: int = 0
    findings: list[Finding] = field(default_factory=list)
    broken_index: list[str] = field(default_factory=list)
    broken_packs: dict[bytes, Inspection] = field(default_factory=dict)
    damage: list[SnapshotDamage] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)


def check(repository: Repository, options: CheckOptions) -> CheckReport:
    """Check a repository. Damage is found, not raised.

    Raises:
        PassphraseError: if the key that opened it may only add.
        NetworkError: if the store does not answer.
        Cancelled: if that was asked for.
    """
    return _Check(repository, options).run()


class _Check:
    def __init__(self, repository: Repository, options: CheckOptions) -> None:
        self._repository = repository
        self._store = repository.store
        self._protection = repository.protection
        self._options = options
        self._workers = options.workers or os.cpu_count() or 1
        self._sizes: dict[bytes, int] = {}
        self.report = CheckReport()

    def run(self) -> CheckReport:
        if not self._protection.can_read:
            raise PassphraseError(
                "expected a key that may read, found one that may only add",
                name=self._repository.name,
            )
        self._check_keys()
        self._list_packs()
        self._check_index()
        hidden = self.report.broken_index
        self._index = ChunkIndex(self._store, self._protection, hidden=hidden)
        self._chunks = ChunkReader(self._store, self._index, self._protection)
        self._check_packs_are_there()
        self._check_directories()
        self._read_packs()
        self._check_snapshots()
        return self.report

    def _find(self, severity: Severity, where: str, what: str) -> None:
        finding = Finding(severity, where, what)
        self.report.findings.append(finding)
        self._options.on_event(finding)

    def _error(self, where: str, failure: ImagingError | str) -> None:
        what = failure if isinstance(failure, str) else str(failure.args[0])
        self._find(Severity.ERROR, where, what)

    def _step(self) -> None:
        if self._options.cancel is not None:
            self._options.cancel.check()

    def _check_keys(self) -> None:
        self._check_objects(KEYS, KeyObject.parse)

    def _check_objects(self, prefix: str, parse: Callable[[bytes, str], object]) -> list[str]:
        """Read small objects; the names of those that are of no use."""
        broken = []
        for info in list(self._store.list(prefix)):
            self._step()
            try:
                parse(self._store.get(info.name), info.name)
            except MissingObjectError:
                continue  # removed since it was listed
            except (NetworkError, PassphraseError):
                raise
            except ImagingError as failure:
                self._error(info.name, failure)
                broken.append(info.name)
        return broken

    def _list_packs(self) -> None:
        for info in self._store.list(PACKS):
            pack = pack_of(info.name)
            if pack is None:
                self._find(Severity.WARNING, info.name, "expected a pack, found a strange name")
            else:
                self._sizes[pack] = info.size
        self.report.packs = len(self._sizes)

    def _check_index(self) -> None:
        from blake3 import blake3

        def parse(data: bytes, name: str) -> None:
            if INDEX + blake3(data).hexdigest() != name:
                raise RepositoryError("its bytes are not what its name says", name=name)
            IndexContent(unwrap(data, What.INDEX, self._protection, name=name))

        self.report.broken_index = self._check_objects(INDEX, parse)

    def _check_packs_are_there(self) -> None:
        groups = self._index.groups
        indexed = self._index.packs()
        self.report.chunks = len(self._index)
        ends: Counter[bytes] = Counter()
        for number, position, stored in zip(
            groups.pack, groups.position, groups.stored, strict=True
        ):
            pack = groups.packs[number]
            ends[pack] = max(ends[pack], position + stored)
        absent = [pack for pack in indexed if pack not in self._sizes]
        short = [
            pack
            for pack in indexed
            if pack in self._sizes and self._sizes[pack] < ends[pack] + FOOT.size
        ]
        known = indexed_groups(self._index, {*absent, *short})
        for pack in absent:
            self._break(missing_pack(pack, known.get(pack, []), "the pack is missing"))
        for pack in short:
            self._inspect_one(pack, known.get(pack, []))
        if not self.report.broken_index:
            strays = sum(pack not in indexed for pack in self._sizes)
            if strays:
                what = f"{strays} packs are in no index; a prune removes them"
                self._find(Severity.INFO, PACKS, what)

    def _break(self, found: Inspection) -> None:
        """Take in that a pack is damaged."""
        self.report.broken_packs[found.pack] = found
        lost = sum(len(group.chunks) for group in found.groups)
        numbers = ", ".join(str(group.number) for group in found.groups[:8])
        more = ", …" if len(found.groups) > 8 else ""  # noqa: PLR2004 - for people
        where = f"; {lost} of {found.chunks} chunks are lost, in groups {numbers}{more}"
        reasons = found.reasons or (found.groups[0].reason,)
        self._error(pack_object(found.pack), "; ".join(reasons) + (where if lost else ""))

    def _check_directories(self) -> None:
        """Compare what packs say of themselves with what the index says of them."""
        packs = sorted(self._index.packs().keys() - self.report.broken_packs.keys())
        count = min(len(packs), -(-len(packs) * self._options.directories // 1))
        chosen = random.Random(self._options.seed).sample(packs, int(count))  # noqa: S311
        work = windowed(self._compare, chosen, workers=self._workers, window=self._workers)
        for pack, wrong in zip(chosen, work, strict=True):
            self._step()
            if wrong:
                self._error(pack_object(pack), wrong)

    def _compare(self, pack: bytes) -> str:
        """What is wrong with a pack's directory; nothing if it is as the index says."""
        try:
            directory = read_directory(self._store, pack, self._protection)
        except ImagingError as failure:
            return str(failure.args[0])
        columns = self._index.groups
        for group in groups_of(directory):
            for name, offset, length in group.chunks:
                found = self._index.locate(name)
                if found is None:
                    return f"the index does not have its chunk {name.hex()}"
                place = columns.place(found)
                if place.pack == pack and place[1:] != (*group[1:5], group.number, offset, length):
                    return f"the index says something else of its chunk {name.hex()}"
        return ""

    def _read_packs(self) -> None:
        if self._options.read_data is None:
            return
        whole = {
            pack: size for pack, size in self._sizes.items() if pack not in self.report.broken_packs
        }
        chosen = self._options.read_data.choose(whole, self._options.seed)
        pace = Pace(sum(map(whole.__getitem__, chosen)), "check", self._options.on_event)
        broken = []
        work = windowed(self._inspect, chosen, workers=self._workers, window=self._workers + 1)
        for pack, (found, parity) in zip(chosen, work, strict=True):
            self._step()
            self.report.packs_read += 1
            self.report.bytes_read += whole[pack]
            if parity:
                self._find(Severity.WARNING, parity_object(pack), parity)
            if found is None or not found.is_sound:
                broken.append(pack)
            pace.tell(self.report.bytes_read, self.report.bytes_read)
        pace.tell(self.report.bytes_read, self.report.bytes_read, force=True)
        known = indexed_groups(self._index, frozenset(broken))
        for pack in broken:
            self._inspect_one(pack, known.get(pack, []))

    def _inspect(self, pack: bytes) -> tuple[Inspection | None, str]:
        """What is wrong with a pack, and with its parity; ``None``: it cannot be read."""
        parity = ""
        try:
            check_parity(self._store.get(parity_object(pack)), pack)
        except MissingObjectError:
            pass
        except RepositoryError as failure:
            parity = str(failure.args[0])
        try:
            return inspect(pack, self._get_pack(pack), self._protection), parity
        except (RepositoryError, MissingObjectError):
            return None, parity

    def _inspect_one(self, pack: bytes, known: Sequence[GroupAt]) -> None:
        """Look at a damaged pack again, with what the index says of it."""
        try:
            found = inspect(pack, self._get_pack(pack), self._protection, known)
        except (RepositoryError, MissingObjectError) as failure:
            found = missing_pack(pack, known, str(failure.args[0]))
        if not found.is_sound:
            self._break(found)

    def _get_pack(self, pack: bytes) -> bytes:
        if self._sizes[pack] > _PACK_BYTES_MAX:
            raise RepositoryError(f"expected a pack, found {self._sizes[pack]} bytes")
        try:
            return self._store.get(pack_object(pack))
        except ReadError as failure:
            raise RepositoryError(str(failure.args[0])) from failure

    def _check_snapshots(self) -> None:
        found: list[Snapshot] = []

        def parse(_: bytes, name: str) -> None:
            found.append(self._repository.snapshot(name.removeprefix(SNAPSHOTS)))

        self._check_objects(SNAPSHOTS, parse)
        self._check_objects(SIGNATURES, self._check_signature)
        self._check_objects(
            TAGS, lambda data, name: unwrap(data, What.TAGS, self._protection, name=name)
        )
        found.sort(key=lambda item: (item.manifest.time, item.name))
        self.report.snapshots = len(found)
        broken = self.report.broken_packs
        sound = self._index.without(broken) if broken else self._index
        named = {name for pack in broken.values() for name in pack.damaged}
        lost = {name for name in named if sound.locate(name) is None}
        search = DamageSearch(self._chunks, self._index, lost)
        for snapshot in found:
            self._step()
            self._take_damage(search.of(snapshot))
        self.report.checked = search.checked

    def _take_damage(self, damage: SnapshotDamage | None) -> None:
        if damage is None:
            return
        if self._options.files_of is not None:
            try:
                files = tuple(self._options.files_of(damage.snapshot, damage.ranges))
            except ImagingError as failure:
                files = ()
                self._find(
                    Severity.WARNING,
                    SNAPSHOTS + damage.snapshot.name,
                    f"which files are damaged could not be found out: {failure}",
                )
            damage = replace(damage, files=files)
        self.report.damage.append(damage)
        ranges = damage.ranges
        what = f"{ranges.total} bytes of its disk are lost, in {len(ranges)} ranges"
        self._error(SNAPSHOTS + damage.snapshot.name, "; ".join((what, *damage.reasons[:4])))

    def _check_signature(self, data: bytes, name: str) -> None:
        content = unwrap(data, What.SIGNATURE, self._protection, name=name)
        snapshot = name.removeprefix(SIGNATURES)
        verdict = verify(content, bytes.fromhex(snapshot), self._options.trusted)
        if verdict.wrong:
            raise RepositoryError(f"{len(verdict.wrong)} signatures are wrong", name=name)
