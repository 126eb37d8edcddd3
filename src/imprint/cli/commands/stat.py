"""stat: all that an image says of a file in it."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from imprint.cli import files, options
from imprint.cli.console import exact
from imprint.core.errors import FormatError, ReadError

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console

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
        place = files.place_in(browser, args.address, follow=False, deleted=args.deleted)
        entry = place.entry
        streams = _streams(place)
        console.result(
            **{
                **files.facts(entry),
                "streams": [{"name": name, "size": size} for name, size in streams],
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
                ("volume", f"{place.volume.where}, {place.volume.kind}"),
                *(
                    (f"stream {name}", "not readable" if size is None else exact(size))
                    for name, size in streams
                ),
            ]
        )
        if entry.extents:
            console.print("extents, in bytes of the volume")
            console.table(
                [(f"  {offset}", str(length)) for offset, length in entry.extents], right=(0, 1)
            )
    return 0


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
