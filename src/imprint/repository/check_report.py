"""What a check is told, and what it has found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from imprint.core.events import Finding, OnEvent, Severity, ignore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from imprint.core.cancel import CancelToken
    from imprint.core.errors import ImagingError
    from imprint.repository.damage import FilesOf, SnapshotDamage
    from imprint.repository.pack_contents import Inspection
    from imprint.repository.signing import TrustedKey
    from imprint.repository.subsets import Subset


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
    directories: float = 0.05
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
        is_index_wrong: whether the index says of some pack what that does not say of itself.
        broken_condemned: names of objects that condemn packs, and are of no use.
        broken_packs: what is known of packs that are damaged, missing or cut.
        broken_parity: packs that were read and whose parity is damaged, or missing although the
            repository's format asks for it.
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
    is_index_wrong: bool = False
    broken_condemned: list[str] = field(default_factory=list)
    broken_packs: dict[bytes, Inspection] = field(default_factory=dict)
    broken_parity: list[bytes] = field(default_factory=list)
    damage: list[SnapshotDamage] = field(default_factory=list)

    @property
    def is_sound(self) -> bool:
        """Whether no finding is an error."""
        return all(finding.severity is not Severity.ERROR for finding in self.findings)


class Teller:
    """Takes findings into a report, and tells of them; looks whether to stop."""

    def __init__(self, report: CheckReport, options: CheckOptions) -> None:
        self._report = report
        self._options = options

    def find(self, severity: Severity, where: str, what: str) -> None:
        """Something was found."""
        finding = Finding(severity, where, what)
        self._report.findings.append(finding)
        self._options.on_event(finding)

    def error(self, where: str, failure: ImagingError | str) -> None:
        """Something is wrong."""
        what = failure if isinstance(failure, str) else str(failure.args[0])
        self.find(Severity.ERROR, where, what)

    def step(self) -> None:
        """Stop here if that was asked for.

        Raises:
            Cancelled: if it was.
        """
        if self._options.cancel is not None:
            self._options.cancel.check()
