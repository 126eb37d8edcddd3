"""stat: all that an image says of a file in it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from imprint.cli import files, options
from imprint.cli.console import exact
from imprint.core.errors import FormatError, ReadError
from imprint.filesystems.attributes import list_in_words
from imprint.filesystems.tree import NameDating

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.filesystems.tree import Entry

_LISTS: Final = "system.posix_acl_"
_SHOWN_BYTES: Final = 128
"""Of the value of an attribute, for people."""

EXAMPLES = """\
  imprint stat disk.qcow2#p2:/etc/passwd
  imprint stat stick.img#p1:/DCIM/IMG_0001.JPG --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/stat.md`` lists them too."""
    parser.add_argument("address", help="file or folder: IMAGE#p1:/PATH")
    files.add_arguments(parser)
    options.add_json(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Tell; a link is told itself, not what it leads to."""
    with files.browser_of(args.address, args, console) as browser:
        tree = browser.tree(browser.volume())
        if isinstance(tree, NameDating):
            tree.date_names()
        place = files.place_in(browser, args.address, follow=False, deleted=args.deleted)
        entry = place.entry
        streams = _streams(place)
        told = len(place.tree.notes)
        attributes = place.tree.attributes(entry)
        console.result(
            **{
                **files.facts(entry),
                "streams": [{"name": name, "size": size} for name, size in streams],
                "name_times": _times_of_name(entry),
                "xattrs": [_fact(name, value) for name, value in sorted(attributes.items())],
                "extents": [
                    {"offset": offset, "length": length} for offset, length in entry.extents
                ],
                "volume": place.volume.name,
                "filesystem": place.volume.kind,
            }
        )
        times = entry.times
        console.print(files.name_of(entry._replace(streams=()), entry.path))
        console.facts(
            [
                ("type", entry.type.value),
                ("size", exact(entry.size)),
                ("inode", str(entry.inode)),
                ("mode", f"{files.mode_text(entry)} ({entry.mode:04o})" if entry.mode else ""),
                ("owner", f"{entry.owner}:{entry.group}"),
                ("names", str(entry.links) if entry.links else ""),
                ("modified", files.time_text(times.modified) or ""),
                ("accessed", files.time_text(times.accessed) or ""),
                ("changed", files.time_text(times.changed) or ""),
                ("created", files.time_text(times.created) or ""),
                *(
                    (f"name {what}", files.time_text(when) or "")
                    for what, when in (() if entry.named is None else entry.named._asdict().items())
                ),
                ("volume", f"{place.volume.where}, {place.volume.kind}"),
                *(
                    (f"stream {name}", "not readable" if size is None else exact(size))
                    for name, size in streams
                ),
                *(
                    (f"xattr {name}", _shown(name, value))
                    for name, value in sorted(attributes.items())
                ),
            ]
        )
        if entry.extents:
            console.print("extents, in bytes of the volume")
            console.table(
                [(f"  {offset}", str(length)) for offset, length in entry.extents], right=(0, 1)
            )
        files.tell_notes(console, args.address, place.tree.notes)
        return files.NOTED_EXIT if len(place.tree.notes) > told else 0


def _streams(place: files.Place) -> list[tuple[str, int | None]]:
    """Names and sizes; ``None``: it cannot be told."""
    found: list[tuple[str, int | None]] = []
    for name in place.entry.streams:
        try:
            with closing(place.tree.content(place.entry, name)) as source:
                found.append((name, source.size))
        except (FormatError, ReadError):
            found.append((name, None))
    return found


def _times_of_name(entry: Entry) -> dict[str, str | None] | None:
    """What the file system keeps with the name, if it does."""
    if entry.named is None:
        return None
    keys = ("mtime", "atime", "ctime", "crtime")
    return dict(zip(keys, map(files.time_text, entry.named), strict=True))


def _fact(name: str, value: bytes) -> dict[str, object]:
    """An attribute for JSON: its value as text, or, if it is none, as hexadecimal digits."""
    text = _text(value)
    if text is None:
        return {"name": name, "size": len(value), "encoding": "hex", "value": value.hex()}
    return {"name": name, "size": len(value), "encoding": "text", "value": text}


def _shown(name: str, value: bytes) -> str:
    """A value for people: a list in its own words, text as it is, other bytes in digits."""
    if not value:
        return exact(0)
    words = list_in_words(value) if name.startswith(_LISTS) else _text(value)
    if words is None:
        words = f"0x{value[:_SHOWN_BYTES].hex()}"
        is_all = len(value) <= _SHOWN_BYTES
    else:
        is_all = len(words) <= _SHOWN_BYTES
        words = words[:_SHOWN_BYTES]
    return words if is_all else f"{words}… ({exact(len(value))})"


def _text(value: bytes) -> str | None:
    """A value as text, if it is some; labels end with a zero byte."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if text.removesuffix("\0").isprintable() else None
