"""The files of a volume on their way from its tree to their hashes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.units import format_size
from imprint.endpoints.report.gathering import is_hashed
from imprint.endpoints.report.on_disk import places_of
from imprint.endpoints.report.records import Records
from imprint.endpoints.report.results import DONE, FAILED, NONE, WANTED
from imprint.endpoints.report.sweeping import Sweep
from imprint.filesystems.tree import Type
from imprint.transfer.hashing import maker

if TYPE_CHECKING:
    from imprint.core.contracts import Source
    from imprint.endpoints.browsing import BrowsedVolume
    from imprint.endpoints.report.gathering import Special
    from imprint.endpoints.report.results import Results
    from imprint.filesystems.tree import Entry

_HOLES_TIMES: Final = 16
_HOLES_BYTES: Final = 1 << 30
"""A content may be so many times as large as its volume, and so much larger, to be hashed."""


class Files:
    """The files of a volume on their way."""

    def __init__(self, volume: BrowsedVolume, number: int, first: int, disk: Source) -> None:
        assert volume.kind is not None
        self._volume = volume.source
        places = places_of(volume.source, disk)
        self.records = Records(volume.kind, number, first, places)
        self._folders: dict[str, tuple[int, int]] = {}
        self._planned: list[tuple[int, int, int]] = []
        self._special: list[tuple[int, Entry, Special | None]] = []
        self._held: list[tuple[int, bytes]] = []
        self.places = 0
        """That are kept of files in several pieces."""
        self._twins: dict[tuple[int, int], int] = {}
        self._copies: list[tuple[int, int]] = []
        self._name = f"{number} {volume.name} {volume.source.size}".encode(errors="replace")
        self.digest = maker("blake3")(self._name)
        self._largest = _HOLES_TIMES * volume.source.size + _HOLES_BYTES

    def parents(self, entries: list[Entry], first: int) -> list[tuple[int, int] | None]:
        """Number and inode of the folder of each; ``None`` for the root, and where it is lost."""
        folders = self._folders
        found: list[tuple[int, int] | None] = []
        for number, entry in enumerate(entries, first):
            path = entry.path
            if path == "/":
                folders[""] = (number, entry.inode)
                found.append(None)
                continue
            found.append(folders.get(path.rpartition("/")[0]) or folders.get(""))
            if entry.type is Type.DIRECTORY:
                folders[path] = (number, entry.inode)
        return found

    def plan(self, entry: Entry, special: Special | None, results: Results) -> None:
        """Note how a file is to be hashed."""
        is_map = special is not None and special.is_map
        if not results.names or is_map or not is_hashed(entry):
            results.add(NONE)
            return
        number = results.add(WANTED)
        if entry.links > 1 and ":" not in entry.name:
            twin = self._twins.setdefault((entry.subvolume, entry.inode), number)
            if twin != number:
                results.states[number] = NONE
                self._copies.append((number, twin))
                return
        size = entry.size
        if size > self._largest:
            limit = format_size(self._largest)
            results.fail(number, f"not hashed: has {size} bytes, more than {limit}")
        elif special is None and len(entry.extents) == 1 and entry.is_plain and size:
            self._planned.append((number, entry.extents[0][0], size))
        elif special is None and entry.held is not None:
            self._held.append((number, results.digest(memoryview(entry.held))))
        else:
            self._special.append((number, entry, special))
            self.places += len(entry.extents) + len(special.parts or () if special else ())

    def sweep(self, results: Results, workers: int) -> Sweep:
        """What was planned, as work to be done."""
        sweep = Sweep(self._volume, results, workers=workers)
        for number, start, size in self._planned:
            sweep.add_plain(number, start, size)
        for number, entry, special in self._special:
            if special is not None and special.error is not None:
                results.fail(number, special.error)
            elif special is not None and special.content is not None:
                sweep.add_content(number, special.content)
            elif special is not None and special.parts:
                sweep.add_parts(number, list(special.parts))
            elif entry.is_plain and entry.size:
                sweep.add_parts(number, _parts_of(entry))
            else:
                results.store(number, results.digest(memoryview(b"")))
        for number, row in self._held:
            results.store(number, row)
        self._planned, self._special, self._held, self.places = [], [], [], 0
        return sweep

    def name_of_batch(self) -> bytes:
        """The same for the same files only; the next batch begins anew."""
        name = self.digest.digest()
        self.digest = maker("blake3")(self._name + name)
        return name

    def copy_twins(self, results: Results) -> None:
        """Further names of a file have its hashes."""
        for number, twin in self._copies:
            if results.states[twin] == DONE:
                results.store(number, results.row(twin))
            elif results.states[twin] == FAILED:
                results.fail(number, results.errors[twin])
        self._copies, self._twins = [], {}


def _parts_of(entry: Entry) -> list[tuple[int, int]]:
    """The extents of a plain file, cut to its size."""
    parts: list[tuple[int, int]] = []
    left = entry.size
    for start, length in entry.extents:
        if left > 0:
            parts.append((start, min(left, length)))
            left -= length
    return parts
