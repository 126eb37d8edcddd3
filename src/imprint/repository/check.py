"""Is the repository sound, and what would be lost if it is not?

The structure is checked by the names that objects must have, and by looking for every chunk of
every snapshot in the index; the data, if that is wanted, by reading packs and naming every chunk.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import (
    ImagingError,
    NetworkError,
    PassphraseError,
    RepositoryError,
)
from imprint.core.events import Severity
from imprint.objects.contract import MissingObjectError
from imprint.repository.check_packs import PackCheck
from imprint.repository.check_report import CheckOptions, CheckReport, Teller
from imprint.repository.chunks import ChunkReader
from imprint.repository.condemning import CONDEMNED
from imprint.repository.damage import DamageSearch
from imprint.repository.envelope import What, unwrap
from imprint.repository.index import ChunkIndex
from imprint.repository.index_content import IndexContent
from imprint.repository.index_rewriting import INDEX
from imprint.repository.key_objects import KeyObject
from imprint.repository.keyring import FOLDER as KEYS
from imprint.repository.repository import SIGNATURES, SNAPSHOTS, TAGS
from imprint.repository.signing import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imprint.repository.damage import SnapshotDamage
    from imprint.repository.repository import Repository
    from imprint.repository.snapshots import Snapshot

_NAME: Final = re.compile(r"[0-9a-f]{64}\Z")


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
        self.report = CheckReport()
        self._tell = Teller(self.report, options)
        self._signed: set[str] = set()

    def run(self) -> CheckReport:
        if not self._protection.can_read:
            raise PassphraseError(
                "expected a key that may read, found one that may only add",
                name=self._repository.name,
            )
        self._check_objects(KEYS, KeyObject.parse)
        self.report.broken_condemned = self._check_objects(
            CONDEMNED, lambda data, name: unwrap(data, What.CONDEMNED, self._protection, name=name)
        )
        # Each speaks of what was there before it: whoever adds meanwhile does no harm.
        snapshots = self._read_snapshots()
        self._check_index()
        index = ChunkIndex(self._store, self._protection, hidden=self.report.broken_index)
        packs = PackCheck(self._repository, index, self._options, self.report, self._tell)
        packs.check_presence()
        packs.check_directories()
        packs.read_packs()
        self._check_snapshots(snapshots, index)
        return self.report

    def _check_objects(self, prefix: str, parse: Callable[[bytes, str], object]) -> list[str]:
        """Read small objects; the names of those that are of no use."""
        broken = []
        for info in list(self._store.list(prefix)):
            self._tell.step()
            try:
                parse(self._store.get(info.name), info.name)
            except MissingObjectError:
                continue  # removed since it was listed
            except (NetworkError, PassphraseError):
                raise
            except ImagingError as failure:
                self._tell.error(info.name, failure)
                broken.append(info.name)
        return broken

    def _check_index(self) -> None:
        from blake3 import blake3

        def parse(data: bytes, name: str) -> None:
            if INDEX + blake3(data).hexdigest() != name:
                raise RepositoryError("its bytes are not what its name says", name=name)
            IndexContent(unwrap(data, What.INDEX, self._protection, name=name))

        self.report.broken_index = self._check_objects(INDEX, parse)

    def _read_snapshots(self) -> list[Snapshot]:
        """Those that can be read, by time; and what belongs to them is checked."""
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
        if self._options.trusted:
            for snapshot in found:
                if snapshot.name not in self._signed:
                    what = "it has no signature of a trusted key"
                    self._tell.error(SNAPSHOTS + snapshot.name, what)
        return found

    def _check_snapshots(self, snapshots: Sequence[Snapshot], index: ChunkIndex) -> None:
        broken = self.report.broken_packs
        sound = index.without(broken) if broken else index
        named = {name for pack in broken.values() for name in pack.damaged}
        lost = {name for name in named if sound.locate(name) is None}
        absent = {pack for pack, found in broken.items() if not found.size}
        readable = index.without(absent) if absent else index
        chunks = ChunkReader(self._store, readable, self._protection)
        search = DamageSearch(chunks, readable, lost)
        for snapshot in snapshots:
            self._tell.step()
            damage = search.of(snapshot)
            if damage is not None and self._store.stat(SNAPSHOTS + snapshot.name) is not None:
                self._take_damage(damage)
        self.report.checked = search.checked

    def _take_damage(self, damage: SnapshotDamage) -> None:
        if self._options.files_of is not None:
            try:
                files = tuple(self._options.files_of(damage.snapshot, damage.ranges))
            except ImagingError as failure:
                files = ()
                self._tell.find(
                    Severity.WARNING,
                    SNAPSHOTS + damage.snapshot.name,
                    f"which files are damaged could not be found out: {failure}",
                )
            damage = replace(damage, files=files)
        self.report.damage.append(damage)
        ranges = damage.ranges
        what = f"{ranges.total} bytes of its disk are lost, in {len(ranges)} ranges"
        self._tell.error(SNAPSHOTS + damage.snapshot.name, "; ".join((what, *damage.reasons[:4])))

    def _check_signature(self, data: bytes, name: str) -> None:
        content = unwrap(data, What.SIGNATURE, self._protection, name=name)
        snapshot = name.removeprefix(SIGNATURES)
        if _NAME.match(snapshot) is None:
            raise RepositoryError("expected the name of a snapshot, found a strange one")
        verdict = verify(content, bytes.fromhex(snapshot), self._options.trusted)
        if verdict.is_trusted:
            self._signed.add(snapshot)
        if verdict.wrong:
            raise RepositoryError(f"{len(verdict.wrong)} signatures are wrong", name=name)
