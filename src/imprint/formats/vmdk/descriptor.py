"""The descriptor: the text that says what a disk is made of, alone or inside an extent.

Source: VMware *Virtual Disk Format 5.0*, "The Descriptor File".
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError, UsageError
from imprint.core.limits import DISK_SIZE_MAX
from imprint.core.units import align_up
from imprint.formats.vmdk.layout import SECTOR

if TYPE_CHECKING:
    from collections.abc import Sequence

NO_PARENT: Final = "ffffffff"

TEXT_BYTES_MAX: Final = 1 << 20
"""A disk of 62 TiB in files of 2 GiB has 32 thousand lines of 30 bytes."""

EXTENTS_MAX: Final = 1 << 15

FLAT_KINDS: Final = frozenset({"FLAT", "VMFS"})
SPARSE_KINDS: Final = frozenset({"SPARSE", "VMFSSPARSE", "SESPARSE"})
KINDS: Final = FLAT_KINDS | SPARSE_KINDS | {"ZERO"}

DEVICE_KINDS: Final = frozenset({"VMFSRDM", "VMFSRAW"})
"""What an image has no content for: the disk is a device of the host."""

_EXTENT: Final = re.compile(
    r"(RW|RDONLY|NOACCESS)[ \t]+(\d{1,20})[ \t]+([A-Z0-9]+)"
    r"(?:[ \t]+\"([^\"]*)\"(?:[ \t]+(\d{1,20}))?)?(?:[ \t].*)?"
)
_LOOKS_LIKE_EXTENT: Final = re.compile(r"(?:RW|RDONLY|NOACCESS)[ \t]")
_SETTING: Final = re.compile(r"([A-Za-z_][\w.]*)\s*=\s*(.*)")
_CID: Final = re.compile(r"[0-9a-fA-F]{1,8}")


@dataclass(frozen=True)
class ExtentLine:
    """One run of the disk, as the descriptor names it.

    Attributes:
        access: ``RW``, ``RDONLY`` or ``NOACCESS``.
        sectors: how many of the disk.
        kind: ``FLAT``, ``SPARSE`` …
        file: where it is stored; empty for ``ZERO``.
        offset: of its first sector in a flat file.
    """

    access: str
    sectors: int
    kind: str
    file: str = ""
    offset: int = 0

    @property
    def text(self) -> str:
        """As it stands in a descriptor."""
        tail = f" {self.offset}" if self.kind == "FLAT" else ""
        return f'{self.access} {self.sectors} {self.kind} "{self.file}"{tail}'


@dataclass(frozen=True)
class Descriptor:
    """A parsed descriptor.

    Attributes:
        settings: ``name = value`` lines; names in lower case, quotes taken off.
        extents: in the disk's order.
        text: as it is stored, decoded; for those who change it.
        encoding: of the text, as Python calls it.
        offset: where it begins in its file, in bytes.
        room: bytes that it may take up there; 0: as many as it likes.
    """

    settings: dict[str, str] = field(default_factory=dict)
    extents: tuple[ExtentLine, ...] = ()
    text: str = ""
    encoding: str = "utf-8"
    offset: int = 0
    room: int = 0

    @property
    def cid(self) -> str:
        """Of the content: changed when the disk is first written after it was opened."""
        return _cid(self.settings.get("cid", ""))

    @property
    def parent_cid(self) -> str:
        """What the parent's was when this image was made; ``NO_PARENT`` if it has none."""
        return _cid(self.settings.get("parentcid", NO_PARENT))

    @property
    def has_parent(self) -> bool:
        """Whether what it does not hold is in another image."""
        return self.parent_cid != NO_PARENT

    @property
    def create_type(self) -> str:
        """``monolithicSparse`` and its like."""
        return self.settings.get("createtype", "")

    @property
    def sectors(self) -> int:
        """Of the disk."""
        return sum(line.sectors for line in self.extents)

    def with_setting(self, name: str, value: str | None) -> Descriptor:
        """The same with one setting changed, added behind ``parentCID``, or taken out."""
        line = "" if value is None else f"{name}={value}\n"
        found = _setting_line(name, self.text)
        if found is None:
            behind = _setting_line("parentCID", self.text) or _setting_line("CID", self.text)
            at = len(self.text) if behind is None else behind.end()
            text = self.text[:at] + line + self.text[at:]
        else:
            text = self.text[: found.start()] + line + self.text[found.end() :]
        return self._changed(text)

    def with_sectors(self, index: int, sectors: int) -> Descriptor:
        """The same with another length of one extent."""
        lines = list(self.extents)
        lines[index] = replace(lines[index], sectors=sectors)
        return self.with_extents(lines)

    def with_extents(self, extents: Sequence[ExtentLine]) -> Descriptor:
        """The same with other lengths of its extents, without the last ones, or with more."""
        lines: list[str] = []
        seen = 0
        for line in self.text.split("\n"):
            if not _LOOKS_LIKE_EXTENT.match(line.strip()):
                lines.append(line)
                continue
            if seen < len(extents):
                lines.append(re.sub(r"\d+", str(extents[seen].sectors), line, count=1))
            seen += 1
            if seen == len(self.extents):
                end = "\r" if line.endswith("\r") else ""
                lines += [extent.text + end for extent in extents[seen:]]
        return self._changed("\n".join(lines))

    def _changed(self, text: str) -> Descriptor:
        data = text.encode(self.encoding, "surrogateescape")
        return parse(data, where="", offset=self.offset, room=self.room)


def parse(data: bytes, *, where: str, offset: int = 0, room: int = 0) -> Descriptor:
    """Read a descriptor; zeros behind it are ignored.

    Raises:
        CorruptImageError: if a line that begins like an extent is none, or sizes make no sense.
        UnsupportedFeatureError: for a kind of extent that is not known.
    """
    data = data.split(b"\0", 1)[0]
    encoding = _encoding(data)
    text = data.decode(encoding, "surrogateescape")
    settings: dict[str, str] = {}
    extents: list[ExtentLine] = []
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if _LOOKS_LIKE_EXTENT.match(stripped):
            if len(extents) == EXTENTS_MAX:
                raise CorruptImageError(f"expected at most {EXTENTS_MAX} extents", name=where)
            extents.append(_extent(stripped, where))
            continue
        setting = _SETTING.fullmatch(stripped)
        if setting is not None:
            settings.setdefault(setting[1].lower(), setting[2].strip().strip('"'))
    if sum(line.sectors for line in extents) * SECTOR > DISK_SIZE_MAX:
        raise CorruptImageError(f"expected a disk of at most {DISK_SIZE_MAX} bytes", name=where)
    return Descriptor(settings, tuple(extents), text, encoding, offset, room)


def _extent(line: str, where: str) -> ExtentLine:
    found = _EXTENT.fullmatch(line)
    if found is None:
        raise CorruptImageError(
            f'expected an extent like RW 2048 FLAT "file" 0, found {line[:80]!r}', name=where
        )
    access, sectors, kind, file, offset = found.groups()
    if kind in DEVICE_KINDS:
        raise UnsupportedFeatureError(
            f"maps a raw device, {file or '(not named)'} ({kind}), which is never opened",
            name=where,
            advice="capture the device itself",
        )
    if kind not in KINDS:
        raise UnsupportedFeatureError(f"extents of the kind {kind} are not supported", name=where)
    if kind != "ZERO" and not file and access != "NOACCESS":
        raise CorruptImageError(f"expected a file name in {line[:80]!r}", name=where)
    start = int(offset or 0)
    if max(int(sectors), start) * SECTOR > DISK_SIZE_MAX:
        raise CorruptImageError(f"expected a smaller number in {line[:80]!r}", name=where)
    return ExtentLine(access, int(sectors), kind, file or "", start)


def _encoding(data: bytes) -> str:
    """As the descriptor says; names in an encoding that Python does not know stay bytes."""
    found = re.search(rb'(?im)^[ \t]*encoding[ \t]*=[ \t]*"?([\w-]+)', data)
    name = "utf-8" if found is None else found[1].decode("ascii").lower()
    if name not in ("utf-8", "windows-1252", "shift_jis", "gbk", "big5", "euc-kr", "iso-8859-1"):
        return "utf-8"
    try:
        # Only if nothing is lost when it is written back.
        return name if data.decode(name).encode(name) == data else "utf-8"
    except UnicodeError:
        return "utf-8"


def _cid(text: str) -> str:
    """Eight digits, whatever was written."""
    return f"{int(text, 16):08x}" if _CID.fullmatch(text) else NO_PARENT


def _setting_line(name: str, text: str) -> re.Match[str] | None:
    return re.search(rf"(?im)^[ \t]*{re.escape(name)}[ \t]*=.*(?:\r?\n|$)", text)


def check_size(size: int) -> None:
    """Refuse a disk that VMDK cannot hold.

    Raises:
        UsageError: if it cannot.
    """
    if size % SECTOR or not size:
        raise UsageError(
            f"vmdk: expected a size in whole sectors of 512 bytes, at least one, found {size}",
            advice=f"pad the disk with zeros first, to {max(SECTOR, align_up(size, SECTOR))} bytes",
        )


def new_cid() -> str:
    """A random content ID: any 32 bits but those that mean none."""
    found = uuid.uuid4().hex[:8]
    return "fffffffd" if found in (NO_PARENT, "fffffffe") else found
