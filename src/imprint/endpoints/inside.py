"""Volumes in the containers of a disk: finding one by its name, and listing them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from imprint.core.errors import (
    FormatError,
    PassphraseError,
    ReadError,
    UnsupportedFeatureError,
    UsageError,
)
from imprint.core.events import Finding, Severity
from imprint.endpoints.survey import describe, open_partition, window_of
from imprint.filesystems import identify
from imprint.filters.inside import Inside
from imprint.volumes.containers import container

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from imprint.core.contracts import Passphrase, Source
    from imprint.endpoints.survey import Survey, Volume
    from imprint.filesystems import FileSystem
    from imprint.volumes.assembly import Assembly

DEPTH_MAX: Final = 4
"""Containers in containers: an array, encrypted, with a volume group, is three."""

VOLUMES_MAX: Final = 256
"""Volumes of a disk that are looked into: a hostile one could hold thousands."""

_OPEN: Final = {"linux_raid_member": "md", "LVM2_member": "lvm"}
_LOCKED: Final = {"crypto_LUKS": "luks", "BitLocker": "bitlocker"}


@dataclass(frozen=True)
class InnerVolume:
    """A volume in a container. Sizes are bytes.

    Attributes:
        name: what stands behind the first ``#`` of its address.
        size: of it; ``None`` as long as it is locked.
        filesystem: in it, if it is one of those known.
        filesystem_version: as ``filesystem`` has it.
        filesystem_label: the same.
        filesystem_uuid: the same.
        is_locked: whether a passphrase is needed to look inside.
    """

    name: str
    size: int | None
    filesystem: str | None = None
    filesystem_version: str | None = None
    filesystem_label: str | None = None
    filesystem_uuid: str | None = None
    is_locked: bool = False


@dataclass(frozen=True)
class _Node:
    """A part of a disk, by its address."""

    name: str
    source: Source
    filesystem: FileSystem | None

    @property
    def kind(self) -> str:
        return "" if self.filesystem is None else self.filesystem.kind

    def address_of(self, inner: str) -> str:
        """What is inside of it is called so."""
        return f"{self.name}#{inner}" if self.name else inner


def open_volume(
    disk: Source, names: Sequence[str], passphrase: Passphrase, *, may_be_cut: bool = False
) -> Source:
    """What a chain of names leads to; it owns the disk then.

    Args:
        disk: or a partition of it.
        names: as addresses have them: ``luks``, ``lvm/group/root``, ``p1`` …
        passphrase: asks for secrets, once one is needed.
        may_be_cut: take a partition of which the end is missing.

    Raises:
        UsageError: if there is no such volume, or several.
        UnsupportedFeatureError: if it cannot be read.
        PassphraseError: if a secret is missing or wrong.
        FormatError: if what it is in makes no sense.
        ReadError: if that cannot be read.
    """
    found, name = disk, disk.name
    for step in names:
        if step[1:].isdigit() and step[0] == "p":
            found = open_partition(found, int(step[1:]), may_be_cut=may_be_cut)
        else:
            found = _Search(step, passphrase, name).find(_outermost(found, describe(found)), 0)
        name += f"#{step}"
    return Inside(found, disk, name=name)


def inner_volumes(disk: Source, survey: Survey) -> tuple[list[InnerVolume], list[Finding]]:
    """All volumes in containers of a disk, and what is to be said of them; asks for nothing."""
    volumes: list[InnerVolume] = []
    findings: list[Finding] = []
    nodes = list(_outermost(disk, survey))
    for _ in range(DEPTH_MAX):
        inside: list[_Node] = []
        for kind, group in _by_kind(nodes).items():
            if kind in _LOCKED:
                names = [node.address_of(_LOCKED[kind]) for node in group]
                volumes += [InnerVolume(name, None, is_locked=True) for name in names]
            elif kind in _OPEN:
                try:
                    inside += _opened(kind, group, _refuse, findings)
                except (FormatError, ReadError) as error:
                    findings.append(Finding(Severity.WARNING, kind, str(error.args[0])))
        nodes = inside[:VOLUMES_MAX]
        volumes += [_facts(node) for node in nodes]
    return volumes, findings


@dataclass(frozen=True)
class Leaf:
    """A volume that nothing is opened in: a file system, or what is not known or locked.

    Attributes:
        name: what stands behind the first ``#`` of its address; empty for the disk itself.
        source: its content.
        filesystem: what it is; ``None``: not known.
        problem: why a container could not be opened; ``None``: it is none.
    """

    name: str
    source: Source
    filesystem: FileSystem | None
    problem: str | None = None


def leaves(
    disk: Source, survey: Survey, passphrase: Passphrase
) -> tuple[list[Leaf], list[Finding]]:
    """All volumes of a disk by the names of addresses, containers opened; and what is to be said.

    What cannot be opened is a leaf with a problem; a locked one has the name of what is in it.

    Args:
        disk: or a partition of it.
        survey: of it.
        passphrase: asks for the secrets of encrypted volumes, once for each.
    """
    found: list[Leaf] = []
    findings: list[Finding] = []
    nodes = [*_outermost(disk, survey), *_unknown(disk, survey)]
    for depth in range(DEPTH_MAX + 1):
        inside: list[_Node] = []
        for group in _sets(nodes):
            kind = group[0].kind
            if depth == DEPTH_MAX or (kind not in _OPEN and kind not in _LOCKED):
                found += [Leaf(node.name, node.source, node.filesystem) for node in group]
                continue
            try:
                for node in _opened(kind, group, passphrase, findings):
                    inside += _divided(node)
            except (FormatError, ReadError, PassphraseError) as error:
                why = str(error.args[0])
                names = [
                    node.address_of(_LOCKED[kind]) if kind in _LOCKED else node.name
                    for node in group
                ]
                found += [
                    Leaf(name, node.source, node.filesystem, why)
                    for name, node in zip(names, group, strict=True)
                ]
        nodes = inside[:VOLUMES_MAX]
    order = {f"p{item.partition.index}": at for at, item in enumerate(survey.volumes)}
    found.sort(key=lambda leaf: order.get(leaf.name.partition("#")[0], len(order)))
    return found, findings


def outer_leaves(disk: Source, survey: Survey) -> tuple[list[Leaf], list[Leaf]]:
    """The volumes of a disk that are in no container, and its containers; opens nothing."""
    found: tuple[list[Leaf], list[Leaf]] = ([], [])
    for node in [*_outermost(disk, survey), *_unknown(disk, survey)]:
        is_container = node.kind in _OPEN or node.kind in _LOCKED
        found[is_container].append(Leaf(node.name, node.source, node.filesystem))
    return found


def _sets(nodes: Sequence[_Node]) -> Iterator[list[_Node]]:
    """What is opened at once: containers that belong together, else each volume by itself."""
    for kind, group in _by_kind(nodes).items():
        if kind in _OPEN:
            yield group
        else:
            yield from ([node] for node in group)


def _divided(node: _Node) -> list[_Node]:
    """A volume in a container, or what its partition table divides it into."""
    if node.filesystem is not None:
        return [node]
    survey = describe(node.source)
    if survey.table is None:
        return [node]
    parts = [*_outermost(node.source, survey), *_unknown(node.source, survey)]
    return [_Node(node.address_of(part.name), part.source, part.filesystem) for part in parts] or [
        node
    ]


def _unknown(disk: Source, survey: Survey) -> Iterator[_Node]:
    """Partitions in which nothing is known, and a disk that is nothing known as a whole."""
    if survey.filesystem is None and not survey.volumes:
        yield _Node("", disk, None)
    for item in survey.volumes:
        part = item.partition
        is_volume = not part.is_container and not part.is_free and part.start < disk.size
        if item.filesystem is None and is_volume:
            yield _node(disk, item)


def _facts(node: _Node) -> InnerVolume:
    found = node.filesystem
    if found is None:
        return InnerVolume(node.name, node.source.size)
    size = node.source.size
    return InnerVolume(node.name, size, found.kind, found.version, found.label, found.uuid)


def _outermost(disk: Source, survey: Survey) -> Iterator[_Node]:
    """The disk if it is one volume, and its partitions."""
    if survey.filesystem is not None:
        yield _Node("", disk, survey.filesystem)
    for item in survey.volumes:
        if item.filesystem is not None and item.partition.start < disk.size:
            yield _node(disk, item)


def _node(disk: Source, item: Volume) -> _Node:
    return _Node(f"p{item.partition.index}", window_of(disk, item.partition), item.filesystem)


def _by_kind(nodes: Sequence[_Node]) -> dict[str, list[_Node]]:
    groups: dict[str, list[_Node]] = {}
    for node in nodes:
        groups.setdefault(node.kind, []).append(node)
    return groups


def _opened(
    kind: str, group: Sequence[_Node], passphrase: Passphrase, findings: list[Finding]
) -> list[_Node]:
    """What is in the containers of one kind."""
    nodes = []
    for assembly in _assemblies(kind, group, passphrase):
        where = assembly.name
        findings += [Finding(Severity.INFO, where, note) for note in assembly.notes]
        for inner in assembly.volumes[:VOLUMES_MAX]:
            name = inner.name
            if kind in _LOCKED:
                name = group[inner.pieces[0].member or 0].address_of(name) if inner.pieces else name
            try:
                found = identify(inner.source)
            except (ReadError, FormatError):
                found = None
            nodes.append(_Node(name, inner.source, found))
    return nodes


def _assemblies(kind: str, group: Sequence[_Node], passphrase: Passphrase) -> list[Assembly]:
    opener = container(kind)
    if opener is None:
        raise UnsupportedFeatureError(f"{kind} cannot be opened", name=group[0].source.name)
    return opener.assemble([node.source for node in group], passphrase)


def _refuse(name: str) -> bytes:
    raise PassphraseError("is encrypted", name=name)


class _Search:
    """Looks for one volume by its name: first where no secret is needed."""

    def __init__(self, name: str, passphrase: Passphrase, where: str) -> None:
        self._name = name
        self._passphrase = passphrase
        self._where = where
        self._known: list[str] = []
        self._findings: list[Finding] = []

    def find(self, nodes: Iterator[_Node], depth: int) -> Source:
        """The volume.

        Raises:
            UsageError: if there is none, or several.
        """
        failures: list[FormatError | ReadError | PassphraseError] = []
        found = self._find(list(nodes), depth, failures)
        if found is not None:
            return found
        if failures:
            raise failures[0]
        for finding in self._findings:
            if self._name in finding.what:
                raise UnsupportedFeatureError(finding.what, name=self._where)
        known = ", ".join(self._known[:16]) or "none"
        raise UsageError(f"has no volume {self._name}; it has: {known}", name=self._where)

    def _find(
        self,
        nodes: Sequence[_Node],
        depth: int,
        failures: list[FormatError | ReadError | PassphraseError],
    ) -> Source | None:
        if depth == DEPTH_MAX or not nodes:
            return None
        groups = _by_kind(nodes)
        for kinds in (_OPEN, _LOCKED):
            inside: list[_Node] = []
            for kind in (kind for kind in kinds if kind in groups):
                is_asked_for = kinds is _LOCKED and self._name == kinds[kind]
                if is_asked_for and len(groups[kind]) > 1:
                    raise self._several([node.address_of(self._name) for node in groups[kind]])
                if kinds is _LOCKED:
                    self._known += [node.address_of(kinds[kind]) for node in groups[kind]]
                try:
                    volumes = _opened(kind, groups[kind], self._passphrase, self._findings)
                except (FormatError, ReadError, PassphraseError) as error:
                    failures.append(error)
                    continue
                if is_asked_for:
                    return volumes[0].source
                inside += volumes
            found = self._named(inside)
            if found is None:
                found = self._find(inside, depth + 1, failures)
            if found is not None:
                return found
        return None

    def _named(self, nodes: Sequence[_Node]) -> Source | None:
        found = [node for node in nodes if node.name == self._name]
        if len(found) > 1:
            raise self._several([node.name for node in found])
        self._known += [node.name for node in nodes if node.name not in self._known]
        return found[0].source if found else None

    def _several(self, names: Sequence[str]) -> UsageError:
        listed = ", ".join(names[:16])
        return UsageError(
            f"expected one volume {self._name}, found several: {listed}", name=self._where
        )
