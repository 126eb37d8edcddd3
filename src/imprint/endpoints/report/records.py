"""Files as elements of DFXML: one line of text for each, made without a library.

Source: Digital Forensics XML, schema 2.0.0-beta.0 (dfxml-working-group/dfxml_schema); values and
their codes as The Sleuth Kit's ``fiwalk`` has them.
"""

from __future__ import annotations

import re
from html import escape
from typing import TYPE_CHECKING, Final

from imprint.endpoints.dfxml import hash_type
from imprint.endpoints.report.gathering import HOLE, ORPHANS
from imprint.endpoints.report.moments import Moments
from imprint.endpoints.report.results import DONE, FAILED
from imprint.filesystems.tree import Type, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from imprint.endpoints.report.gathering import Special
    from imprint.endpoints.report.results import Results
    from imprint.filesystems.tree import Entry

    Places = Callable[[int, int], Sequence[tuple[int, int]]]
    """Of an offset and a length in a volume: offsets and lengths on the disk."""

CODES: Final = {
    Type.FILE: ("r", 1),
    Type.DIRECTORY: ("d", 2),
    Type.FIFO: ("p", 3),
    Type.CHARACTER: ("c", 4),
    Type.BLOCK: ("b", 5),
    Type.LINK: ("l", 6),
    Type.SOCKET: ("s", 8),
    Type.SYSTEM: ("r", 1),
    Type.OTHER: ("-", 0),
}
"""Letter of the type in the name, number of the type in the metadata."""

_VIRTUAL: Final = ("v", 10)
_VIRTUAL_FOLDER: Final = ("V", 11)
_MADE_UP: Final = frozenset({"vfat", "exfat"})
"""Where what is of the file system itself has no names of its own."""

_END: Final = "</fileobject>\n"
_LOCAL_TIMES: Final = "vfat"
_PLAIN: Final = re.compile(r"[^ !-%'-;=?-~]")
"""What needs a closer look before it is text of XML."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffe\uffff]")


def text_of(name: str) -> str:
    r"""A name as text of XML; bytes and characters that it cannot hold as ``\xff``."""
    if _PLAIN.search(name) is None:
        return name
    return escape(_CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", shown(name)), quote=False)


def code_of(entry: Entry, kind: str) -> tuple[str, int]:
    """Letter and number of its type."""
    if entry.type is Type.SYSTEM and kind in _MADE_UP:
        return _VIRTUAL
    if entry.path == ORPHANS and entry.is_deleted:
        return _VIRTUAL_FOLDER
    return CODES[entry.type]


class Records:
    """The files of a volume."""

    def __init__(self, kind: str, number: int, first: int, places: Places | int | None) -> None:
        """Args as follows.

        Args:
            kind: of the file system.
            number: of the volume, from 1 on.
            first: number of its first file in the report.
            places: where bytes of the volume lie on the disk: a distance, or how to find out;
                ``None``: that is not known.
        """
        self._kind = kind
        self._number = number
        self._id = first - 1
        self._shift = places if isinstance(places, int) else None
        self._places = None if isinstance(places, int) else places
        self._moments = Moments()
        self._is_local = kind == _LOCAL_TIMES

    def head(self, entry: Entry, parent: int | None, special: Special | None) -> str:
        """All of a file but its hashes and the end of its element."""
        path, inode, type_, size, times, mode, owner, group, links, _, target, *_ = entry
        self._id = number = self._id + 1
        name = path[1:] or "."
        if _PLAIN.search(name) is not None:
            name = text_of(name)
        if type_ is Type.FILE:
            letter, meta = "r", 1
        else:
            letter, meta = code_of(entry, self._kind)
        above = "" if parent is None else f"<parent_object><inode>{parent}</inode></parent_object>"
        used = "<alloc>1</alloc><used>1</used>" if not entry.is_deleted else _given_up(entry)
        link = "" if target is None else f"<link_target>{text_of(target)}</link_target>"
        return (
            f"<fileobject>{above}<filename>{name}</filename>"
            f"<partition>{self._number}</partition><id>{number}</id><name_type>{letter}</name_type>"
            f"<filesize>{size}</filesize>{used}<inode>{inode}</inode>"
            f"<meta_type>{meta}</meta_type><mode>{mode}</mode><nlink>{links}</nlink>"
            f"<uid>{owner}</uid><gid>{group}</gid>{self._times(times)}{link}"
            f"{self._runs(entry, special)}"
        )

    def _times(self, times: tuple[int | None, ...]) -> str:
        modified, accessed, changed, created = times
        if self._is_local:
            return self._local_times(modified, accessed, created)
        moments = self._moments
        text = ""
        if modified is not None:
            text = f"<mtime>{moments[modified]}</mtime>"
        if changed is not None:
            text = f"{text}<ctime>{moments[changed]}</ctime>"
        if accessed is not None:
            text = f"{text}<atime>{moments[accessed]}</atime>"
        if created is not None:
            text = f"{text}<crtime>{moments[created]}</crtime>"
        return text

    def _local_times(self, modified: int | None, accessed: int | None, created: int | None) -> str:
        """Of FAT: nobody knows of which time zone, and not exactly."""
        found = (("mtime", 2, modified), ("atime", 86400, accessed), ("crtime", 2, created))
        return "".join(
            f'<{name} prec="{exact}">{self._moments[when].rstrip("Z")}</{name}>'
            for name, exact, when in found
            if when is not None
        )

    def _runs(self, entry: Entry, special: Special | None) -> str:
        extents = entry.extents
        if special is None and entry.is_plain:
            if len(extents) == 1 and self._shift is not None:
                start = extents[0][0]
                return (
                    f'<byte_runs><byte_run file_offset="0" fs_offset="{start}" '
                    f'img_offset="{start + self._shift}" len="{entry.size}"/></byte_runs>'
                )
            return _grouped(self._plain_runs(entry))
        if special is not None and special.parts is not None:
            return _grouped(self._parts(special.parts))
        is_inside = entry.held is not None or (special is not None and special.content is not None)
        if is_inside and not extents:
            return (
                f'<byte_runs><byte_run file_offset="0" len="{entry.size}" type="resident"/>'
                "</byte_runs>"
            )
        return _grouped(run for start, length in extents for run in self._run(None, start, length))

    def _plain_runs(self, entry: Entry) -> Iterator[str]:
        position = 0
        for start, length in entry.extents:
            here = min(length, entry.size - position)
            if here <= 0:
                return
            yield from self._run(position, start, here)
            position += here

    def _parts(self, parts: Iterable[tuple[int, int]]) -> Iterator[str]:
        position = 0
        for start, length in parts:
            if start == HOLE:
                yield f'<byte_run file_offset="{position}" fill="0" len="{length}"/>'
            else:
                yield from self._run(position, start, length)
            position += length

    def _run(self, position: int | None, start: int, length: int) -> Iterator[str]:
        """A part of a file; what is in one piece of the volume may be in several of the disk."""
        at = "" if position is None else f'file_offset="{position}" '
        if self._places is None:
            image = "" if self._shift is None else f'img_offset="{start + self._shift}" '
            yield f'<byte_run {at}fs_offset="{start}" {image}len="{length}"/>'
            return
        done = 0
        for place, size in self._places(start, length):
            at = "" if position is None else f'file_offset="{position + done}" '
            yield (f'<byte_run {at}fs_offset="{start + done}" img_offset="{place}" len="{size}"/>')
            done += size


def _given_up(entry: Entry) -> str:
    orphan = "<orphan>1</orphan>" if entry.path.startswith(f"{ORPHANS}/") else ""
    return (
        f"<alloc>0</alloc><alloc_inode>{int(entry.is_allocated)}</alloc_inode>"
        f"<alloc_name>0</alloc_name><used>1</used>{orphan}"
    )


def _grouped(runs: Iterable[str]) -> str:
    text = "".join(runs)
    return f"<byte_runs>{text}</byte_runs>" if text else ""


class Tails:
    """Hashes and ends of elements."""

    def __init__(self, results: Results) -> None:
        self._results = results
        forms = [
            f'<hashdigest type="{hash_type(name)}"'
            + ("" if hash_type(name) == name else f' imprint:algorithm="{name}"')
            + ">%s</hashdigest>"
            for name in results.names
        ]
        self._form = f"%s{''.join(forms)}{_END}"

    def finished(self, heads: Sequence[str], first: int) -> str:
        """Whole elements of files, by the number of the first of them in the batch."""
        results, form = self._results, self._form
        digits = 2 * results.width
        end = first + len(heads)
        states = results.states[first:end]
        text = results.rows[first * results.width : end * results.width].hex()
        places = [(place.start, place.stop) for place in results.places]
        lines: list[str] = []
        at = 0
        for number, (head, state) in enumerate(zip(heads, states, strict=True), first):
            if state == DONE:
                lines.append(
                    form % (head, *[text[at + start : at + stop] for start, stop in places])
                )
            elif state == FAILED:
                error = f"</filename><error>{text_of(results.errors[number])}</error>"
                lines.append(head.replace("</filename>", error, 1) + _END)
            else:
                lines.append(head + _END)
            at += digits
        return "".join(lines)
