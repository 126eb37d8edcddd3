"""info: what an image is, and what is on it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from imprint.cli import options
from imprint.cli.console import exact, format_value
from imprint.core.units import format_size, utc_text
from imprint.endpoints.describing import describe_image
from imprint.endpoints.location import Where, parse
from imprint.volumes.type_names import UNKNOWN

if TYPE_CHECKING:
    import argparse

    from imprint.cli.console import Console
    from imprint.core.info import ImageInfo, SnapshotInfo
    from imprint.endpoints.describing import Description
    from imprint.endpoints.survey import Survey
    from imprint.repository.snapshots import Snapshot

EXAMPLES = """\
  imprint info disk.qcow2
  imprint info disk.qcow2#p2
  imprint info disk.qcow2#lvm/vg0/root
  imprint info repo:/srv/images::laptop
  imprint info https://host/disk.qcow2 --json
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/info.md`` lists them too."""
    parser.add_argument("image", help="image, device, URL or disk in a repository")
    options.add_access(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Describe; a parent that is missing is named, and is no error."""
    # An image says much without its passphrase, a repository nothing.
    asks = parse(args.image).where is Where.REPOSITORY
    found = describe_image(args.image, options.access(args, console, asks=asks))
    if console.is_json:
        console.result(**_json(found))
    else:
        _print(args.image, found, console)
    return 0


def _json(found: Description) -> dict[str, object]:
    info = found.info
    survey: dict[str, object] = {"table": None, "partitions": [], "gaps": []}
    if found.survey is not None:
        survey = found.survey.to_json()
    return {
        "format": info.format,
        "size": found.size,
        "stored_size": found.stored_size,
        "file_size": found.file_size,
        "parent": info.parent,
        "parent_format": info.parent_format,
        "chain": [asdict(member) for member in found.chain],
        "data_file": info.data_file,
        "encryption": info.encryption,
        "uuid": info.uuid,
        "hashes": dict(info.hashes),
        "case": dict(info.case),
        "options": dict(info.options),
        "features": list(info.features),
        "snapshots": [snapshot_json(item) for item in info.snapshots],
        "bitmaps": [asdict(item) for item in info.bitmaps],
        "notes": list(info.notes),
        "disks": [asdict(disk) for disk in found.disks],
        "volumes": [asdict(volume) for volume in found.volumes],
        **({} if found.snapshot is None else _snapshot_facts(found.snapshot)),
        **survey,
    }


def _snapshot_facts(snapshot: Snapshot) -> dict[str, object]:
    """What only a disk in a repository has."""
    manifest = snapshot.manifest
    return {
        "image": manifest.image,
        "snapshot": snapshot.name,
        "time": manifest.time,
        "bytes_read": manifest.read,
        "used": manifest.used,
        "source": manifest.source,
        "source_format": manifest.format,
        "host": manifest.host,
        "tool": manifest.tool,
    }


def snapshot_json(item: SnapshotInfo) -> dict[str, object]:
    """A snapshot, with its time in seconds and for people."""
    return {**asdict(item), "time": snapshot_time(item)}


def snapshot_time(item: SnapshotInfo) -> str | None:
    """When it was taken, in UTC; ``None`` for a time that is none."""
    try:
        return utc_text(item.time_s)
    except (ValueError, OverflowError, OSError):
        return None


def _print(address: str, found: Description, console: Console) -> None:
    info = found.info
    files = f"{1 + len(info.files)} files" if info.files else "file"
    file = f", {files} of {exact(found.file_size)}" if found.snapshot is None else ""
    parent = info.parent or ""
    if info.parent_format:
        parent += f" ({info.parent_format})"
    console.print(f"{address}: {info.format}")
    console.facts(
        [
            ("size", exact(found.size)),
            ("stored", f"{format_size(found.stored_size)}{file}"),
            *([] if found.snapshot is None else _snapshot_rows(found.snapshot)),
            ("parent", parent),
            ("chain", _chain(found)),
            ("data file", info.data_file or ""),
            ("encryption", info.encryption or ""),
            ("uuid", info.uuid or ""),
            *[(name, format_value(value)) for name, value in info.options.items()],
            ("features", ", ".join(info.features)),
            *info.hashes.items(),
            *((name.replace("_", " "), value) for name, value in info.case.items()),
        ]
    )
    if found.problem is not None:
        console.print(f"  the parent cannot be opened: {found.problem}")
    for note in info.notes:
        console.print(f"  {note}")
    _print_lists(info, console)
    _print_disks(found, console)
    if found.survey is not None:
        _print_survey(found.survey, console, is_whole=found.problem is None)
    _print_volumes(found, console)


def _snapshot_rows(snapshot: Snapshot) -> list[tuple[str, str]]:
    manifest = snapshot.manifest
    read = f"{format_size(manifest.read)}{', what is used' if manifest.used else ''}"
    return [
        ("image", manifest.image),
        ("snapshot", snapshot.name),
        ("taken", manifest.taken.astimezone().strftime("%Y-%m-%d %H:%M:%S %z")),
        ("read", read),
        ("source", " ".join(filter(None, (manifest.source, manifest.format)))),
        ("host", manifest.host),
        ("made by", manifest.tool),
    ]


def _chain(found: Description) -> str:
    """Only where it says more than the parent's name does."""
    if len(found.chain) <= 2:  # noqa: PLR2004 - the image and its parent
        return ""
    return " <- ".join(member.name for member in found.chain)


def _print_lists(info: ImageInfo, console: Console) -> None:
    if info.snapshots:
        console.print("snapshots")
        console.table(snapshot_rows(info.snapshots))
    if info.bitmaps:
        console.print("bitmaps")
        console.table(
            [
                (f"  {item.name}", format_size(item.granularity), ", ".join(item.flags))
                for item in info.bitmaps
            ]
        )


def _print_disks(found: Description, console: Console) -> None:
    """Those of a package."""
    if found.disks:
        console.print("disks of the package, of which the first one is shown")
        rows = [("  ", "format", "size", "stored", "file")]
        rows += [
            (
                f"  #d{disk.number}",
                disk.format or "-",
                "-" if disk.size is None else format_size(disk.size),
                format_size(disk.stored_size),
                disk.name if disk.problem is None else f"{disk.name}: {disk.problem}",
            )
            for disk in found.disks
        ]
        console.table(rows, right=(2, 3))


def _print_volumes(found: Description, console: Console) -> None:
    """Those in containers: logical volumes, arrays, encrypted ones."""
    if found.volumes:
        console.print("volumes")
        rows = [("  ", "size", "file system", "label")]
        rows += [
            (
                f"  #{volume.name}",
                "-" if volume.size is None else format_size(volume.size),
                "locked" if volume.is_locked else volume.filesystem or "-",
                volume.filesystem_label or "-",
            )
            for volume in found.volumes
        ]
        console.table(rows, right=(1,))


def snapshot_rows(snapshots: tuple[SnapshotInfo, ...]) -> list[tuple[str, ...]]:
    """A table of snapshots."""
    return [
        ("  id", "name", "time", "size", "machine state"),
        *[
            (
                f"  {item.id}",
                item.name,
                snapshot_time(item) or "-",
                format_size(item.size),
                format_size(item.vm_state_size) if item.vm_state_size else "-",
            )
            for item in snapshots
        ],
    ]


def _print_survey(survey: Survey, console: Console, *, is_whole: bool) -> None:
    if survey.filesystem is not None:
        whole = survey.filesystem
        label = f", label {whole.label}" if whole.label else ""
        identity = f", UUID {whole.uuid}" if whole.uuid else ""
        kind = " ".join(filter(None, (whole.kind, whole.version)))
        console.print(f"content: {kind}{label}{identity}")
    if survey.table is not None:
        identity = f", UUID {survey.table.uuid}" if survey.table.uuid else ""
        sectors = f"sectors of {survey.table.sector_size} bytes"
        console.print(f"partition table: {survey.table.kind}, {sectors}{identity}")
        _print_partitions(survey, console)
    if is_whole:  # else everything that lies in the parent is a finding
        for finding in survey.findings:
            console.print(f"  {finding.severity.value}: {finding.where}: {finding.what}")


def _print_partitions(survey: Survey, console: Console) -> None:
    rows = [("  ", "start", "size", "type", "name", "file system", "label")]
    identities = [("  ", "partition UUID", "file system UUID", "flags")]
    for volume in survey.volumes:
        part, found = volume.partition, volume.filesystem
        number, size = f"  p{part.index}", format_size(part.length)
        kind = found.kind if found is not None else "-"
        label = (found.label if found is not None else None) or "-"
        type_ = part.type if part.type != UNKNOWN else part.code
        rows.append((number, str(part.start), size, type_, part.name or "-", kind, label))
        uuid = (found.uuid if found is not None else None) or "-"
        if part.uuid or uuid != "-" or part.flags:
            identities.append((number, part.uuid or "-", uuid, ", ".join(part.flags) or "-"))
    rows += [_gap_row(start, length) for start, length in survey.gaps]
    if len(rows) > 1:
        console.table(rows, right=(1, 2))
    if len(identities) > 1:
        console.table(identities)


def _gap_row(start: int, length: int) -> tuple[str, str, str, str, str, str, str]:
    return ("  gap", str(start), format_size(length), "", "", "", "")
