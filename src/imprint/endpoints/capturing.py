"""A copy whose target is a repository: what ``capture`` and ``convert`` do there."""

from __future__ import annotations

import platform
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from imprint import __version__
from imprint.codecs.zstd import LEVEL_MAX
from imprint.core.errors import Cancelled, ImagingError, RepositoryError, UsageError
from imprint.core.events import Event, Finding, Severity
from imprint.core.formats import Option, OptionKind, parse_options
from imprint.endpoints.copying import Outcome, Plan, left_out_of, tell_left_behind
from imprint.endpoints.hashing import hash_disk
from imprint.endpoints.layout import disk_cuts
from imprint.endpoints.location import FORMAT, Where, parse
from imprint.endpoints.open import open_source
from imprint.endpoints.places import without_secrets
from imprint.endpoints.proof import prove_disk
from imprint.endpoints.repository import open_repository, teller
from imprint.endpoints.rereading import format_of, noted, state_of, to_read
from imprint.endpoints.rescue_request import RescueRequest
from imprint.filters.salvage import Salvaging
from imprint.filters.used import UsedOnly
from imprint.repository.capture import Options, store_disk
from imprint.repository.cutting import Cutting
from imprint.repository.signing import read_key, sign
from imprint.repository.snapshots import (
    Manifest,
    Snapshot,
    check_image_name,
    newest_first,
    time_text,
)
from imprint.repository.tags import change_tags, check_tag
from imprint.transfer.hashing import HashSet
from imprint.transfer.span import HAS_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from imprint.core.contracts import Source
    from imprint.core.runs import Runs
    from imprint.endpoints.copying import CopyRequest
    from imprint.endpoints.location import Location
    from imprint.repository.repository import Repository
    from imprint.repository.sessions import Session
    from imprint.repository.writing import ChunkWriter
    from imprint.transfer.report import Report

OPTIONS: Final = (
    Option(
        "level",
        f"of the compression, 1 to {LEVEL_MAX}; by default what the repository says",
        kind=OptionKind.NUMBER,
    ),
)
"""What ``-o`` takes if the target is a repository."""

_NOTES_MAX: Final = 64
_READ_BACK: Final = ("blake3",)


@dataclass(frozen=True)
class Adding:
    """What a snapshot shall have besides the disk.

    Attributes:
        tags: labels.
        signer: file of the key that vouches for it.
        verify: read it back.
        reread: read all of the disk, whatever is known not to have changed.
        bitmap: of the image, which has noted what was written since the last snapshot.
    """

    tags: tuple[str, ...] = ()
    signer: Path | None = None
    verify: bool = False
    reread: bool = False
    bitmap: str | None = None


@dataclass
class _Heard:
    """Passes events on, and keeps those that belong to the snapshot."""

    request: CopyRequest
    notes: list[str] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        if (
            isinstance(event, Finding)
            and event.severity is not Severity.INFO
            and len(self.notes) < _NOTES_MAX
        ):
            self.notes.append(f"{event.where}: {event.what}")
        self.request.access.on_event(event)


def plan(request: CopyRequest) -> Plan:
    """Open the source and the repository, and touch nothing.

    Raises:
        ImagingError: for what would make the copy fail before it begins.
    """
    location, _ = _checked(request)
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
    adding = adding or Adding()
    location, level = _checked(request)
    for tag in adding.tags:
        check_tag(tag)
    heard = _Heard(request)
    with open_repository(location.base, request.access) as repository:
        source = open_source(request.source, replace(request.access, on_event=heard))
        try:
            tell_left_behind(request, source)
            if request.source_map is not None:
                from imprint.endpoints.maps import mapped  # only for partial copies

                source = mapped(source, request.source_map)
            capture = _Capture(request, adding, repository, location.image, heard.notes)
            added = capture.run(source, repository.format.level if level is None else level)
        finally:
            source.close()
        if not adding.verify:
            return added
        return replace(added, wrong=_read_back(request, repository, added))


class _LateCutting:
    """Looks for the borders of files when something has to be cut: often nothing has to be."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._found: Cutting | None = None

    def border_after(self, offset: int) -> int:
        """As of :class:`Cutting`."""
        return self._cutting().border_after(offset)

    def lengths(self, offset: int, data: memoryview) -> Sequence[int]:
        """As of :class:`Cutting`."""
        return self._cutting().lengths(offset, data)

    def _cutting(self) -> Cutting:
        if self._found is None:
            with self._lock:
                if self._found is None:
                    self._found = Cutting(disk_cuts(self._source))
        return self._found


class _Capture:
    """One disk on its way into a repository."""

    def __init__(
        self,
        request: CopyRequest,
        adding: Adding,
        repository: Repository,
        image: str,
        notes: list[str],
    ) -> None:
        self._request = request
        self._adding = adding
        self._repository = repository
        self._image = image
        self._notes = notes
        self._key = None if adding.signer is None else read_key(adding.signer)
        self._written = None if adding.bitmap is None else noted(request, adding.bitmap)

    def run(self, source: Source, level: int) -> Outcome:
        older = self._older()
        try:
            return self._add(source, level, older)
        except RepositoryError as error:
            if older is None:
                raise
            # A new snapshot is what somebody needs who has lost part of an old one.
            what = f"starts over, and without snapshot {older.short}: {error.args[0]}"
            self._request.on_event(Finding(Severity.WARNING, self._request.source, what))
            return self._add(source, level, None)

    def _add(self, source: Source, level: int, older: Snapshot | None) -> Outcome:
        request, repository = self._request, self._repository
        used = source.used if isinstance(source, UsedOnly) else None
        began, state = self._moment(), state_of(source, request)
        then = None if older is None else repository.source(older)
        changed = None
        if then is not None and not self._adding.reread:
            changed = to_read(source, then, request, state, self._written)
        options = Options(
            workers=request.workers,
            level=level,
            older=None if then is None else (then.tree, then.size),
            changed=changed,
            hashes=HashSet(request.hashes) if request.hashes else None,
            on_event=request.on_event,
            cancel=request.cancel,
        )
        disk: Source = Salvaging(source) if request.salvage else source
        cutting = _LateCutting(source)
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
            notes.append(f"{lost} bytes could not be read, in {len(report.bad)} areas")
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
        where = parse(self._request.source).where
        if where is Where.REPOSITORY:
            return source.name
        address = self._request.source
        return without_secrets(address) if where is Where.HTTP else address

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


def _checked(request: CopyRequest) -> tuple[Location, int | None]:
    """Where the disk shall go, and the level that was asked for."""
    address = request.target.address
    location = parse(address)
    if location.where is not Where.REPOSITORY or location.is_part or location.snapshot is not None:
        raise UsageError("expected repo:PLACE::IMAGE as target, found more", name=address)
    check_image_name(location.image)
    if request.target.format is not None:
        raise UsageError("-O makes no sense: a repository keeps disks, not images", name=address)
    if request.rescue != RescueRequest():
        raise UsageError(
            "options of a rescue make no sense with a repository",
            name=address,
            advice="rescue into a file, and convert that into the repository with --map",
        )
    if request.resume:
        raise UsageError(
            "--resume makes no sense: what is there already is always found again", name=address
        )
    level = parse_options(FORMAT, OPTIONS, request.target.options).get("level")
    if level is None:
        return location, None
    if not isinstance(level, int) or not 1 <= level <= LEVEL_MAX:
        raise UsageError(f"option level: expected 1 to {LEVEL_MAX}, found {level}")
    return location, level


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
        tuple(expected) or _READ_BACK,
        workers=request.workers,
        on_event=request.on_event,
        cancel=request.cancel,
        phase="verify",
    ).hashes
    return {name: found[name] for name, digest in expected.items() if found[name] != digest}
