"""Snapshots: small manifests that name the root of a disk's tree.

Source: ``docs/repository-format.md``, Snapshots.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from imprint.core.errors import RepositoryError, UnsupportedFeatureError, UsageError
from imprint.repository.nodes import SIZE_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION: Final = 1
_IMAGE = re.compile(r"[^\x00-\x1f\x7f:@#/\\][^\x00-\x1f\x7f:@#]{0,254}\Z")
_NAME = re.compile(r"[0-9a-f]{64}\Z")
_ID_PART = re.compile(r"[0-9a-f]{4,64}\Z")
_TIME_FORMAT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"
_SHORT: Final = 12


def canonical(value: object) -> bytes:
    """JSON that is the same for the same value: what is hashed and signed.

    Names of files may have bytes that are no text; there is a question mark for each.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace")


def check_image_name(name: str) -> str:
    """The name of a disk in a repository, if it can be one.

    Raises:
        UsageError: if it cannot.
    """
    if not _IMAGE.match(name):
        raise UsageError(
            f"expected the name of an image, found {name!r:.80}",
            advice="1 to 255 letters, digits and most signs, none of : @ # and no slash in front",
        )
    return name


@dataclass(frozen=True)
class Manifest:
    """What a snapshot says of itself; see the format page for each key."""

    image: str
    time: str
    size: int
    root: str
    sector: int = 512
    physical_sector: int = 512
    parent: str | None = None
    used: bool = False
    stored: int = 0
    read: int = 0
    hashes: dict[str, str] = field(default_factory=dict)
    source: str = ""
    host: str = ""
    tool: str = ""
    format: str = ""
    notes: tuple[str, ...] = ()
    chain: tuple[str, ...] = ()
    version: int = VERSION

    def encode(self) -> bytes:
        """As canonical JSON."""
        return canonical(asdict(self))

    @classmethod
    def parse(cls, content: bytes, where: str) -> Manifest:
        """Of its JSON; ``where`` is for errors.

        Raises:
            RepositoryError: if it is none.
            UnsupportedFeatureError: if a newer version wrote it.
        """
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as failure:
            raise RepositoryError(f"expected JSON: {failure}", name=where) from failure
        if not isinstance(value, dict):
            raise RepositoryError("expected a JSON object", name=where)
        if isinstance(value.get("version"), int) and value["version"] > VERSION:
            raise UnsupportedFeatureError(f"is of version {value['version']}", name=where)
        known = {item.name for item in fields(cls)}
        manifest = cls(
            **{"image": "", "time": "", "size": -1, "root": ""}
            | {key: item for key, item in value.items() if key in known}
        )
        manifest = replace(manifest, notes=_strings(manifest.notes), chain=_strings(manifest.chain))
        _check(manifest, where)
        return manifest

    @property
    def taken(self) -> datetime:
        """When the disk was read."""
        return datetime.strptime(self.time, _TIME_FORMAT).replace(tzinfo=UTC)


def _check(manifest: Manifest, where: str) -> None:
    """Refuse values that cannot be."""
    texts = (
        manifest.image,
        manifest.time,
        manifest.root,
        manifest.source,
        manifest.host,
        manifest.tool,
        manifest.format,
    )
    numbers = (
        manifest.size,
        manifest.sector,
        manifest.physical_sector,
        manifest.stored,
        manifest.read,
    )
    flags: tuple[object, ...] = (manifest.used, manifest.hashes)
    sound = (
        all(isinstance(item, str) for item in texts)
        and all(type(item) is int and 0 <= item <= SIZE_MAX for item in numbers)
        and _NAME.match(manifest.root) is not None
        and (manifest.parent is None or _is_name(manifest.parent))
        and list(map(type, flags)) == [bool, dict]
        and all(isinstance(item, str) for item in manifest.hashes.values())
        and _is_time(manifest.time)
        and _IMAGE.match(manifest.image) is not None
        and 1 <= manifest.sector <= 1 << 20
        and 1 <= manifest.physical_sector <= 1 << 30
    )
    if not sound:
        raise RepositoryError("expected the manifest of a snapshot, found another", name=where)


def _strings(value: Any) -> tuple[str, ...]:  # noqa: ANN401 - it comes from JSON
    if isinstance(value, list | tuple):
        return tuple(item for item in value if isinstance(item, str))
    return ()


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.match(value) is not None


def _is_time(text: str) -> bool:
    try:
        datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return False
    return True


def time_text(moment: datetime) -> str:
    """A time as manifests have it."""
    return moment.astimezone(UTC).strftime(_TIME_FORMAT)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot in a repository.

    Attributes:
        name: of it: the hash of its manifest, 64 hexadecimal digits.
        manifest: what it says.
    """

    name: str
    manifest: Manifest

    @property
    def short(self) -> str:
        """As many digits of the name as people want to read."""
        return self.name[:_SHORT]


def newest_first(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """By time; names decide between equals, so that everybody finds the same order."""
    return sorted(snapshots, key=lambda item: (item.manifest.time, item.name), reverse=True)


def select(snapshots: Sequence[Snapshot], image: str, selector: str | None, where: str) -> Snapshot:
    """The snapshot of an image that a selector means.

    Args:
        snapshots: to choose from.
        image: whose.
        selector: ``None``: the newest; the beginning of a snapshot's name; or a time such as
            ``2026-11-20T10:00``: the newest that is not later.
        where: for errors.

    Raises:
        UsageError: if there is none, or several.
    """
    own = newest_first([item for item in snapshots if item.manifest.image == image])
    if not own:
        known = ", ".join(sorted({item.manifest.image for item in snapshots})[:8]) or "none"
        raise UsageError(f"has no image {image!r}; it has: {known}", name=where)
    if selector is None:
        return own[0]
    if _ID_PART.match(selector):
        found = [item for item in own if item.name.startswith(selector)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UsageError(f"has several snapshots {selector}…", name=where)
    moment = _moment(selector)
    if moment is not None:
        found = [item for item in own if item.manifest.taken <= moment]
        if found:
            return found[0]
        raise UsageError(
            f"has no snapshot of {image!r} as old as {selector}; the oldest is of "
            f"{own[-1].manifest.time}",
            name=where,
        )
    raise UsageError(
        f"has no snapshot {selector!r:.80} of {image!r}",
        name=where,
        advice="a snapshot is named by the beginning of its id, or by a time",
    )


def _moment(text: str) -> datetime | None:
    """The last moment that a time, given as exactly as the user likes, may mean; local time."""
    for form, length in (("%Y-%m-%dT%H:%M:%S", 19), ("%Y-%m-%dT%H:%M", 16), ("%Y-%m-%d", 10)):
        zone = text[length:]
        try:
            moment = datetime.strptime(text[:length], form)  # noqa: DTZ007 - the zone follows
        except ValueError:
            continue
        if zone == "Z":
            moment = moment.replace(tzinfo=UTC)
        elif zone:
            return None
        last = {19: 0.999999, 16: 59.999999, 10: 86399.999999}[length]
        return datetime.fromtimestamp(moment.timestamp() + last, UTC)
    return None
