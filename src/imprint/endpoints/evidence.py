"""The evidence log: what was imaged, by whom, how, and what came of it, beside the image.

``BASE.log.json`` has everything, ``BASE.log.txt`` the same for people, ``BASE.dfxml`` what other
tools read. They are written when the first byte has been read, as "unfinished", and again at the
end of whatever happens, so that they are there after a crash too. A session that went before is
kept in the log of the next one.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import platform
import re
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import (
    Cancelled,
    ImagingError,
    RefusedError,
    TargetBusyError,
    TargetError,
    UsageError,
)
from imprint.core.events import Event, Finding, Severity
from imprint.core.system import exists
from imprint.core.units import utc_text
from imprint.core.version import VERSION
from imprint.endpoints import asking_medium
from imprint.endpoints.dfxml import render_dfxml
from imprint.endpoints.evidence_source import source_facts
from imprint.endpoints.evidence_text import render_text
from imprint.endpoints.location import Where, parse
from imprint.storage.medium import UNKNOWN
from imprint.storage.pending import PendingFile

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from imprint.endpoints.copying import Outcome
    from imprint.storage.hidden import Hidden

KIND: Final = "imprint evidence log"
SUFFIXES: Final = (".log.json", ".log.txt", ".dfxml")
DRIVE_FACTS: Final = ("model", "serial_number")
"""Options of formats that keep facts about the drive."""
_LOG_MAX: Final = 64 << 20
_FINDINGS_MAX: Final = 1000
_SECTOR: Final = 512
_USER: Final = re.compile(r"://[^/@\s]*@")
_QUERY: Final = re.compile(r"(://[^\s?]*)\?[^\s:]*")


@dataclass(frozen=True)
class EvidenceRequest:
    """What a log shall say beforehand.

    Attributes:
        base: the files are called like it, with suffixes.
        source: address.
        target: address.
        arguments: of the program.
        case: what the examiner says, by field.
        options: of the capture, for the record.
        force: replace files that are no logs of ours.
        unlocks: sectors that a host protected area hides are to be imaged.
    """

    base: Path
    source: str
    target: str
    arguments: Sequence[str] = ()
    case: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    force: bool = False
    unlocks: bool = False


class EvidenceLog:
    """The log of one capture.

    Raises:
        RefusedError: if one of its files exists and is not a log.
        TargetError: if there is no such folder, or it cannot be written.
        ImagingError: if the source's device is gone.
    """

    def __init__(self, request: EvidenceRequest) -> None:
        self._request = request
        self._began = False
        self._clock = time.monotonic()
        self._earlier = _earlier(request)
        self._device = _device(request.source)
        before = None if self._device is None else asking_medium.smart(self._device)
        self.facts: dict[str, Any] = {
            "kind": KIND,
            "version": 1,
            "program": {"name": "imprint", "version": VERSION},
            "command_line": [without_secrets_of(word) for word in request.arguments],
            "environment": environment(),
            "started": utc_text(),
            "ended": None,
            "duration_s": None,
            "case": dict(request.case),
            "source": {
                "address": without_secrets_of(request.source),
                **source_facts(request.source),
            },
            "hidden_areas": None,
            "smart": {"before": before, "after": None},
            "target": {"address": without_secrets_of(request.target)},
            "options": dict(request.options),
            "size": None,
            "hashes": {"read": {}, "stored": {}},
            "pieces": [],
            "bad": [],
            "findings": [],
            "result": "unfinished",
            "error": None,
            "exit_code": None,
            "earlier": self._earlier,
        }
        self.hidden: Hidden | None = None
        self.hidden_findings: list[Finding] = []
        if self._device is not None:
            self._look_for_hidden(self._device, before)

    def drive_options(self, known: Collection[str]) -> list[tuple[str, str]]:
        """Options of a format that keeps facts about the drive, as far as these are known."""
        medium = self.facts["source"].get("medium", {})
        facts = dict(zip(DRIVE_FACTS, (medium.get("model"), medium.get("serial")), strict=True))
        return [
            (name, value)
            for name, value in facts.items()
            if name in known and value not in (None, UNKNOWN)
        ]

    def on_event(self, event: Event) -> None:
        """Take note of what happens; the first progress writes the log."""
        if isinstance(event, Finding):
            self._note(event)
        elif not self._began:
            self._began = True
            # Callbacks do not raise: the log that is written in the end will say so.
            with contextlib.suppress(ImagingError):
                self._write()

    def unlocking(self, facts: Mapping[str, Any]) -> None:
        """Note at once that, and how, the limit of the drive is being changed.

        Raises:
            TargetError: if the log cannot be written.
        """
        self._began = True
        self.facts["unlocked"] = dict(facts)
        self._write()

    def completed(
        self, outcome: Outcome, wrong: Mapping[str, str] | None, more: Mapping[str, Any]
    ) -> None:
        """Take over what a copy has done.

        Args:
            outcome: of the copy.
            wrong: hashes of the target that were read back and differ; ``None``: it was not read.
            more: facts, by name.
        """
        report = outcome.report
        wrong = outcome.wrong or wrong
        stored = {} if wrong is None else {**report.hashes, **wrong}
        sector = self._sector
        self.facts.update(
            size=report.size,
            bytes_read=report.bytes_read,
            bytes_stored=outcome.bytes_stored,
            resumed_at=report.resumed_at,
            left_out=outcome.left_out,
            hashes={"read": dict(report.hashes), "stored": stored},
            pieces=[piece.to_json() for piece in report.pieces],
            bad=[
                {
                    "offset": extent.offset,
                    "length": extent.length,
                    "first_sector": extent.offset // sector,
                    "last_sector": (extent.end - 1) // sector,
                }
                for extent in report.bad
            ],
            sector_size=sector,
            **more,
        )
        self.facts["target"]["format"] = outcome.format
        if outcome.snapshot is not None:
            self.facts["target"]["snapshot"] = outcome.snapshot.name

    def ended(self, exit_code: int, error: BaseException | None = None) -> None:
        """Write how it ended.

        Where nothing was done, and a log of an earlier session is there, that one stays.

        Raises:
            TargetError: if the log cannot be written.
        """
        if not self._began and error is not None:
            refused = isinstance(error, UsageError | RefusedError | TargetBusyError)
            if refused or self._earlier or not _is_there(self._request.source):
                return
        if self._device is not None and _is_there(self._request.source):
            self.facts["smart"]["after"] = asking_medium.smart(self._device)
        self.facts.update(
            ended=utc_text(),
            duration_s=round(time.monotonic() - self._clock, 3),
            result=_result(exit_code, error),
            error=None if error is None else _said(error),
            exit_code=exit_code,
        )
        self._write()

    @property
    def _sector(self) -> int:
        sector = self.facts["source"].get("medium", {}).get("logical_sector")
        return sector if isinstance(sector, int) and sector > 0 else _SECTOR

    def _look_for_hidden(self, device: Path, smart: dict[str, Any] | None) -> None:
        hidden = asking_medium.hidden(device, smart)
        self.hidden = hidden
        self.facts["hidden_areas"] = hidden.to_json()
        for what in hidden.findings(is_unlocked=self._request.unlocks):
            finding = Finding(Severity.WARNING, str(device), what)
            self.hidden_findings.append(finding)
            self._note(finding)

    def _note(self, finding: Finding) -> None:
        said = {
            "severity": finding.severity.value,
            "where": without_secrets_of(finding.where),
            "what": finding.what,
        }
        findings = self.facts["findings"]
        if len(findings) < _FINDINGS_MAX and said not in findings:
            findings.append(said)

    def _write(self) -> None:
        text = json.dumps(self.facts, indent=2)
        contents = (f"{text}\n", render_text(self.facts), render_dfxml(self.facts))
        for suffix, content in zip(SUFFIXES, contents, strict=True):
            path = _beside(self._request.base, suffix)
            file = PendingFile.create(path, may_replace=True)
            try:
                file.write(memoryview(content.encode("utf-8", "backslashreplace")), 0)
                file.commit()
            except BaseException:
                file.abort()
                raise


def without_secrets_of(word: str) -> str:
    """A text as it may be kept: URLs in it lose user, password and query."""
    return _QUERY.sub(r"\1", _USER.sub("://", word))


def _beside(base: Path, suffix: str) -> Path:
    return base.with_name(base.name + suffix)


def _earlier(request: EvidenceRequest) -> list[Any]:
    """Sessions that the log in this place has, the newest first."""
    if not os.access(request.base.absolute().parent, os.W_OK | os.X_OK):
        raise TargetError("expected a folder that can be written", name=str(request.base.parent))
    log = _beside(request.base, SUFFIXES[0])
    found: Any = None
    try:
        if log.stat().st_size <= _LOG_MAX:
            found = json.loads(log.read_bytes())
    except (OSError, ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and found.get("kind") == KIND:
        rest = found.pop("earlier", [])
        return [found, *(rest if isinstance(rest, list) else [])]
    for suffix in SUFFIXES:
        path = _beside(request.base, suffix)
        if exists(path) and not request.force:
            raise RefusedError(
                "exists, and is no log of an earlier capture",
                name=str(path),
                advice="--log-to names another place, --no-log leaves it away",
            )
    return []


def _device(address: str) -> Path | None:
    location = parse(address)
    return location.path if location.where is Where.DEVICE else None


def _is_there(address: str) -> bool:
    location = parse(address)
    return location.where not in (Where.FILE, Where.DEVICE) or exists(location.path)


def environment() -> dict[str, Any]:
    """Where this runs: host, user, system and Python."""
    system = platform.uname()
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a number without a name
        user = "unknown"
    return {
        "host": socket.gethostname(),
        "user": user,
        "uid": os.getuid(),
        "system": system.system,
        "release": system.release,
        "version": system.version,
        "machine": system.machine,
        "python": platform.python_version(),
    }


def _result(exit_code: int, error: BaseException | None) -> str:
    if exit_code == Cancelled.exit_code:
        return "interrupted"
    if error is not None:
        return "failed"
    texts = {0: "done", 1: "done, but what was read back differs", 6: "done, with unreadable areas"}
    return texts.get(exit_code, "failed")


def _said(error: BaseException) -> str:
    text = str(error) if isinstance(error, ImagingError) else f"{type(error).__name__}: {error}"
    return without_secrets_of(text)
