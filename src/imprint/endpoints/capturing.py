"""A copy whose target is a repository: what ``capture`` and ``convert`` do there."""

from __future__ import annotations

import platform
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from imprint import __version__
from imprint.core.errors import Cancelled, ImagingError, RepositoryError, UsageError
from imprint.core.events import Event, Finding, Severity
from imprint.core.units import counted
from imprint.endpoints.adding import check_addition
from imprint.endpoints.copying import Outcome, Plan, left_out_of, tell_left_behind
from imprint.endpoints.hashing import hash_disk
from imprint.endpoints.layout import LateCutting
from imprint.endpoints.location import FORMAT, Where, parse
from imprint.endpoints.open import open_source
from imprint.endpoints.places import without_secrets
from imprint.endpoints.proof import prove_disk
from imprint.endpoints.repository import open_repository, teller
from imprint.endpoints.rereading import format_of, noted, state_of, to_read
from imprint.filters.used import UsedOnly
from imprint.repository.capture import Options, store_disk
from imprint.repository.signing import read_key, sign
from imprint.repository.snapshots import (
    Manifest,
    Snapshot,
    newest_first,
    time_text,
)
from imprint.repository.tags import change_tags, check_tag
from imprint.transfer.hashing import READ_BACK, HashSet
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.core.runs import Runs
    from imprint.endpoints.copying import CopyRequest
    from imprint.repository.repository import Repository
    from imprint.repository.sessions import Session
    from imprint.repository.writing import ChunkWriter
    from imprint.transfer.report import Report

_NOTES_MAX: Final = 64
_SHOWN_BYTES: Final = 16  # of a pattern, in a note


@dataclass(frozen=True)
class Adding:
    """What a snapshot shall have besides the disk.

    Attributes:
        tags: labels.
        signer: file of the key that vouches for it.
        verify: read it back.
        reread: read all of the disk, whatever is known not to have changed.
        bitmap: of the image, which has noted what was written since the last snapshot.
        trust_times: do not read files that their file systems say not to have changed since.
    """

    tags: tuple[str, ...] = ()
    signer: Path | None = None
    verify: bool = False
    reread: bool = False
    bitmap: str | None = None
    trust_times: bool = False


@dataclass
class Heard:
    """Passes events on, and keeps those that belong to the snapshot."""

    request: CopyRequest
    notes: list[str] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        """An event of whoever reads the disk."""
        if (
            isinstance(event, Finding)
            and event.severity is not Severity.INFO
            and len(self.notes) < _NOTES_MAX
        ):
            self.notes.append(f"{event.where}: {event.what}")
        self.request.access.on_event(event)


@dataclass(frozen=True)
class _Passage:
    """A disk on its way into a repository; see :meth:`Addition.add`."""

    source: Source
    disk: Source
    cutting: LateCutting
    hashes: HashSet | None


def plan(request: CopyRequest) -> Plan:
    """Open the source and the repository, and touch nothing.

    Raises:
        ImagingError: for what would make the copy fail before it begins.
    """
    location, _ = check_addition(request)
    with open_repository(location.base, request.access):
        source = open_source(request.source, request.access)
        try:
            extents = source.extents(0, source.size)
            data = sum(extent.length for extent in extents if extent.kind in HAS_BYTES)
            return Plan(source.size, data, FORMAT, left_out=left_out_of(source))
        finally:
            source.close()


def run(request: CopyRequest, adding: Adding | None = None) -> Outcome:
    """Add a disk to a repository as a snapshot.

    Raises:
        ImagingError: of the kind that says what is wrong. There is no snapshot then; what was
            stored is found again by the next attempt, or removed by a prune.
    """
    heard = Heard(request)
    with closing(Addition(request, adding or Adding(), heard.notes)) as addition:
        source = open_source(request.source, replace(request.access, on_event=heard))
        try:
            tell_left_behind(request, source)
            if request.source_map is not None:
                from imprint.endpoints.maps import mapped  # only for partial copies

                source = mapped(source, request.source_map)
            if not request.salvage:
                added = addition.add(source, source)
            else:
                from imprint.endpoints.rescued_source import Rescuable  # where errors are expected

                disk = Rescuable(request, source)
                opened, source = source, disk
                disk.begin()
                added = addition.add(opened, disk, aside=disk.aside)
                disk.finish(added.report)
        finally:
            source.close()
        return addition.read_back(added)


class Addition:
    """A repository, open, and what a disk needs to become a snapshot in it; to be closed.

    Args:
        request: whose target it is.
        adding: what the snapshot shall have besides.
        notes: of the snapshot; may grow until it is made.

    Raises:
        ImagingError: for what would make it fail before anything is read.
    """

    def __init__(self, request: CopyRequest, adding: Adding, notes: list[str]) -> None:
        location, level = check_addition(request)
        for tag in adding.tags:
            check_tag(tag)
        self._request = request
        self._adding = adding
        self._image = location.image
        self._notes = notes
        self._key = None if adding.signer is None else read_key(adding.signer)
        self._written = None if adding.bitmap is None else noted(request, adding.bitmap)
        self._repository = open_repository(location.base, request.access)
        self._level = self._repository.format.level if level is None else level

    def close(self) -> None:
        """Close the repository."""
        self._repository.close()

    def add(
        self,
        source: Source,
        disk: Source,
        *,
        aside: Source | None = None,
        hashes: HashSet | None = None,
    ) -> Outcome:
        """Add a disk.

        Args:
            source: as it was opened.
            disk: what is read in its place, once and in ascending order.
            aside: where file systems are looked at, in any order; ``None``: ``source``.
            hashes: to take; then all of the disk is read. ``None``: what the request says.

        Raises:
            ImagingError: of the kind that says what is wrong; there is no snapshot then.
        """
        passage = _Passage(source, disk, LateCutting(aside or source), hashes)
        older = self._older()
        try:
            return self._add(passage, older)
        except RepositoryError as error:
            if older is None:
                raise
            # A new snapshot is what somebody needs who has lost part of an old one.
            what = f"starts over, and without snapshot {older.short}: {error.args[0]}"
            self._request.on_event(Finding(Severity.WARNING, self._request.source, what))
            return self._add(passage, None)

    def read_back(self, added: Outcome) -> Outcome:
        """Read the snapshot again, if that was asked for, and note what is not as it was read."""
        if not self._adding.verify:
            return added
        return replace(added, wrong=_read_back(self._request, self._repository, added))

    def _add(self, passage: _Passage, older: Snapshot | None) -> Outcome:
        request, repository = self._request, self._repository
        source, hashes = passage.source, passage.hashes
        used = source.used if isinstance(source, UsedOnly) else None
        began, state = self._moment(), state_of(source, request)
        then = None if older is None else repository.source(older)
        changed = None
        if then is not None and hashes is None and not self._adding.reread:
            times = self._adding.trust_times
            changed = to_read(source, then, request, state, self._written, trust_times=times)
        if hashes is None and request.hashes:
            hashes = HashSet(request.hashes)
        options = Options(
            workers=request.workers,
            level=self._level,
            older=None if then is None else (then.tree, then.size),
            changed=changed,
            hashes=hashes,
            keeps_bad=bool(request.rescue.fill),
            on_event=request.on_event,
            cancel=request.cancel,
        )
        disk, cutting = passage.disk, passage.cutting
        with repository.session("capture") as session:
            writer = repository.writer(session)
            try:
                root, report = store_disk(disk, writer, repository.protection, cutting, options)
                manifest = replace(
                    self._manifest(source, root, report),
                    time=began,
                    parent=None if older is None else older.name,
                    stored=writer.stored,
                    chain=state,
                )
                proved = used is not None and self._prove(manifest, used, report)
                snapshot = self._commit(manifest, session, writer)
            except ImagingError as error:
                _keep(writer, error)
                raise
            finally:
                writer.close()
        return Outcome(
            report,
            writer.stored,
            FORMAT,
            left_out_of(source),
            proved,
            snapshot=snapshot,
        )

    def _moment(self) -> str:
        time_s = self._request.target.time_s
        now = datetime.now(UTC) if time_s is None else datetime.fromtimestamp(time_s, UTC)
        return time_text(now)

    def _older(self) -> Snapshot | None:
        """The newest snapshot of the same disk, if it may be read."""
        if not self._repository.protection.can_read:
            return None
        present = self._repository.snapshots(teller(self._request.on_event))
        found = [item for item in present if item.manifest.image == self._image]
        return newest_first(found)[0] if found else None

    def _manifest(self, source: Source, root: bytes, report: Report) -> Manifest:
        traits = source.traits
        notes = list(self._notes)
        if report.bad:
            lost = sum(extent.length for extent in report.bad)
            said = f"{lost} bytes could not be read, in {counted(len(report.bad), 'area')}"
            if fill := self._request.rescue.fill:
                said += f", which hold 0x{fill[:_SHOWN_BYTES].hex()}, repeated"
            notes.append(said)
        return Manifest(
            self._image,
            "",
            source.size,
            root.hex(),
            sector=traits.logical_sector,
            physical_sector=traits.physical_sector,
            used=isinstance(source, UsedOnly),
            read=report.bytes_read,
            hashes=dict(report.hashes),
            source=self._address(source),
            host=platform.node(),
            tool=f"imprint {__version__}",
            format=format_of(source),
            notes=tuple(notes),
        )

    def _address(self, source: Source) -> str:
        """Where the disk came from, without what is secret."""
        location = parse(self._request.source)
        if location.where is Where.REPOSITORY:
            return source.name
        address = self._request.source
        return without_secrets(address) if location.outermost.where is Where.HTTP else address

    def _prove(self, manifest: Manifest, used: Runs, report: Report) -> bool:
        """Walk the file systems in what was stored, before it becomes a snapshot."""
        repository = self._repository
        if not repository.protection.can_read:
            if self._request.prove:
                raise UsageError(
                    "--prove needs a key that may read what was stored", name=repository.name
                )
            return False
        name = repository.protection.name_of(manifest.encode()).hex()
        stored = repository.source(Snapshot(name, manifest))
        return prove_disk(self._request, lambda: stored, used, report)

    def _commit(self, manifest: Manifest, session: Session, writer: ChunkWriter) -> Snapshot:
        if self._request.cancel is not None:
            self._request.cancel.check()
        key = self._key
        snapshot = self._repository.commit(
            manifest,
            session,
            writer,
            sign=None if key is None else lambda name: sign(name, key),
        )
        if self._adding.tags:
            change_tags(self._repository, snapshot, add=self._adding.tags)
        return snapshot


def _keep(writer: ChunkWriter, error: ImagingError) -> None:
    """Let the next attempt find what was stored so far."""
    if not isinstance(error, Cancelled):
        return
    try:
        writer.finish()
    except ImagingError:
        return  # it was a courtesy
    if error.advice is None:
        error.advice = "what was stored is kept: the same command goes on from there"


def _read_back(request: CopyRequest, repository: Repository, added: Outcome) -> dict[str, str]:
    """Read a snapshot, whose chunks are checked by their names; hashes that are not the same."""
    assert added.snapshot is not None
    disk = repository.source(added.snapshot)
    expected = added.report.hashes
    found = hash_disk(
        disk,
        tuple(expected) or READ_BACK,
        workers=request.workers,
        on_event=request.on_event,
        cancel=request.cancel,
        phase="verify",
    ).hashes
    return {name: found[name] for name, digest in expected.items() if found[name] != digest}
