"""The packs of a repository: are they there, are they whole, are they what the index says?"""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final

from imprint.core.errors import ReadError, RepositoryError
from imprint.core.events import Severity
from imprint.objects.contract import MissingObjectError
from imprint.repository.pack import FOOT, pack_object
from imprint.repository.pack_contents import (
    PACKS,
    Inspection,
    groups_of,
    indexed_groups,
    inspect,
    missing_pack,
    pack_of,
    read_pack,
)
from imprint.repository.pack_reading import read_directory
from imprint.repository.parity import check_parity, parity_object
from imprint.transfer.pace import Pace
from imprint.transfer.windowed import windowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.repository.check_report import CheckOptions, CheckReport, Teller
    from imprint.repository.index import ChunkIndex
    from imprint.repository.pack_contents import GroupAt
    from imprint.repository.repository import Repository

_PACK_BYTES_MAX: Final = 512 << 20
"""Of a pack that is read at once: four times as much as one of ours could come to."""


class PackCheck:
    """Checks the packs that an index speaks of."""

    def __init__(
        self,
        repository: Repository,
        index: ChunkIndex,
        options: CheckOptions,
        report: CheckReport,
        tell: Teller,
    ) -> None:
        self._store = repository.store
        self._protection = repository.protection
        self._has_parity = repository.format.parity > 0
        self._index = index
        self._options = options
        self._report = report
        self._tell = tell
        self._workers = options.workers or os.cpu_count() or 1
        self._sizes: dict[bytes, int] = {}

    def _list_packs(self) -> None:
        """Find out which packs there are; after the index was read, which knows no later ones."""
        self._sizes = {}
        for info in self._store.list(PACKS):
            pack = pack_of(info.name)
            if pack is None:
                self._tell.find(
                    Severity.WARNING, info.name, "expected a pack, found a strange name"
                )
            else:
                self._sizes[pack] = info.size
        self._report.packs = len(self._sizes)

    def check_presence(self) -> None:
        """Find packs that the index speaks of and that are missing or too short."""
        self._list_packs()
        if not self._index.packs().keys() <= self._sizes.keys() and self._index.reload():
            # Some were pruned between reading the index and listing packs.
            self._list_packs()
        indexed = self._index.packs()
        self._report.chunks = len(self._index)
        ends = self._ends()
        absent = {pack for pack in indexed if pack not in self._sizes}
        short = {
            pack for pack in indexed.keys() - absent if self._sizes[pack] < ends[pack] + FOOT.size
        }
        for pack in sorted(absent):
            # Which chunks it had is not asked: of a repository without packs, it would be all.
            self._break(Inspection(pack, 0, ("the pack is missing",)))
        known = indexed_groups(self._index, short)
        for pack in sorted(short):
            self._inspect_one(pack, known.get(pack, []))
        strays = sum(pack not in indexed for pack in self._sizes)
        if strays and not self._report.broken_index:
            what = f"{strays} packs are in no index; a prune removes them"
            self._tell.find(Severity.INFO, PACKS, what)

    def _ends(self) -> dict[bytes, int]:
        """Where the last group of each pack ends."""
        groups = self._index.groups
        ends = [0] * len(groups.packs)
        for pack, position, stored in zip(groups.pack, groups.position, groups.stored, strict=True):
            ends[pack] = max(ends[pack], position + stored)
        return dict(zip(groups.packs, ends, strict=True))

    def _break(self, found: Inspection) -> None:
        """Take in that a pack is damaged."""
        self._report.broken_packs[found.pack] = found
        lost = sum(len(group.chunks) for group in found.groups)
        numbers = ", ".join(str(group.number) for group in found.groups[:8])
        more = ", …" if len(found.groups) > 8 else ""  # noqa: PLR2004 - for people
        where = f"; {lost} of {found.chunks} chunks are lost, in groups {numbers}{more}"
        reasons = found.reasons or (found.groups[0].reason,)
        self._tell.error(pack_object(found.pack), "; ".join(reasons) + (where if lost else ""))

    def check_directories(self) -> None:
        """Compare what packs say of themselves with what the index says of them."""
        packs = sorted(self._index.packs().keys() - self._report.broken_packs.keys())
        count = min(len(packs), -(-len(packs) * self._options.directories // 1))
        chosen = random.Random(self._options.seed).sample(packs, int(count))  # noqa: S311
        work = windowed(self._compare, chosen, workers=self._workers, window=self._workers)
        unreadable = []
        for pack, wrong in zip(chosen, work, strict=True):
            self._tell.step()
            if wrong is None:
                unreadable.append(pack)
            elif wrong:
                self._report.is_index_wrong = True
                self._tell.error(pack_object(pack), wrong)
        known = indexed_groups(self._index, frozenset(unreadable))
        for pack in unreadable:
            self._inspect_one(pack, known.get(pack, []))

    def _compare(self, pack: bytes) -> str | None:
        """What is wrong with what the index says of a pack; ``None``: the pack itself is."""
        try:
            directory = read_directory(self._store, pack, self._protection)
        except (RepositoryError, ReadError, MissingObjectError):
            return None
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

    def read_packs(self) -> None:
        """Prove every byte of the packs that were asked for."""
        if self._options.read_data is None:
            return
        whole = {
            pack: size
            for pack, size in self._sizes.items()
            if pack not in self._report.broken_packs
        }
        chosen = self._options.read_data.choose(whole, self._options.seed)
        pace = Pace(sum(map(whole.__getitem__, chosen)), "check", self._options.on_event)
        broken = []
        work = windowed(self._inspect, chosen, workers=self._workers, window=self._workers + 1)
        for pack, (found, parity) in zip(chosen, work, strict=True):
            self._tell.step()
            self._report.packs_read += 1
            self._report.bytes_read += whole[pack]
            if parity:
                self._report.broken_parity.append(pack)
                self._tell.find(Severity.WARNING, parity_object(pack), parity)
            if found is None or not found.is_sound:
                broken.append(pack)
            pace.tell(self._report.bytes_read, self._report.bytes_read)
        pace.tell(self._report.bytes_read, self._report.bytes_read, force=True)
        known = indexed_groups(self._index, frozenset(broken))
        for pack in broken:
            self._inspect_one(pack, known.get(pack, []))

    def _inspect(self, pack: bytes) -> tuple[Inspection | None, str]:
        """What is wrong with a pack, and with its parity; ``None``: it cannot be read."""
        try:
            data = self._get_pack(pack)
        except (RepositoryError, MissingObjectError):
            return None, self._wrong_parity(pack, None)
        found = inspect(pack, data, self._protection)
        return found, self._wrong_parity(pack, data if found.is_sound else None)

    def _wrong_parity(self, pack: bytes, data: bytes | None) -> str:
        """What is wrong with a pack's parity; ``data`` is all of the pack, if it is whole."""
        try:
            check_parity(self._store.get(parity_object(pack)), pack, data)
        except MissingObjectError:
            return "the pack has no parity" if self._has_parity else ""
        except (RepositoryError, ReadError) as failure:
            return str(failure.args[0])
        return ""

    def _inspect_one(self, pack: bytes, known: Sequence[GroupAt]) -> None:
        """Look at a damaged pack again, with what the index says of it."""
        try:
            found = inspect(pack, self._get_pack(pack), self._protection, known)
        except MissingObjectError as failure:
            self._index.reload()
            if pack not in self._index.packs():
                return  # it was pruned meanwhile
            found = missing_pack(pack, known, str(failure.args[0]))
        except RepositoryError as failure:
            found = missing_pack(pack, known, str(failure.args[0]))
        if not found.is_sound:
            self._break(found)

    def _get_pack(self, pack: bytes) -> bytes:
        if self._sizes[pack] > _PACK_BYTES_MAX:
            raise RepositoryError(f"expected a pack, found {self._sizes[pack]} bytes")
        return read_pack(self._store, pack)
