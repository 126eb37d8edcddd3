"""demo: build a disk, capture it, verify, look inside, restore it."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from imprint.cli import demo_disk, options
from imprint.cli.console import printable
from imprint.core.errors import RefusedError, TargetError
from imprint.core.events import Event, Progress
from imprint.core.units import format_size
from imprint.endpoints.copying import CopyRequest, Outcome
from imprint.endpoints.copying import run as copy
from imprint.endpoints.hashing import verify_disk
from imprint.endpoints.open import open_image
from imprint.endpoints.survey import describe
from imprint.endpoints.target import TargetRequest
from imprint.transfer.compare import compare

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from imprint.cli.console import Console
    from imprint.cli.demo_disk import DemoDisk
    from imprint.endpoints.survey import Survey, Volume

EXAMPLES = """\
  imprint demo                        in a temporary folder
  imprint demo --keep /tmp/demo       keep the disk, the image and the restored disk
"""

HASHES: Final = ("sha256", "blake3")
OPTIONS: Final = {"compression": "zstd"}

_FILES: Final = ("disk.raw", "disk.qcow2", "restored.raw")
_INDENT: Final = " " * 12


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; ``docs/reference/demo.md`` lists them too."""
    parser.add_argument(
        "--keep",
        metavar="DIR",
        type=Path,
        help="work in this folder and keep the files, instead of in a temporary one",
    )
    options.add_workers(parser)
    options.add_output(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Show it all; 0 only if every proof holds."""
    if args.keep is None:
        with tempfile.TemporaryDirectory(prefix="imprint-demo-") as folder:
            return _Demo(args, console, Path(folder)).run()
    try:
        args.keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError((error.strerror or "").lower(), name=str(args.keep)) from error
    for name in _FILES:
        if (args.keep / name).exists():
            raise RefusedError("exists already", name=str(args.keep / name))
    return _Demo(args, console, args.keep).run()


class _Demo:
    """One demonstration: the steps in order, and what each has proven."""

    def __init__(self, args: argparse.Namespace, console: Console, folder: Path) -> None:
        self._console = console
        self._workers: int = args.workers
        self._is_kept = args.keep is not None
        self._folder = folder
        self._disk, self._image, self._restored = (folder / name for name in _FILES)
        # The steps are the progress; within them only a terminal is told more.
        self._shows_progress = args.progress != "auto" or sys.stderr.isatty()
        self._proofs: dict[str, bool] = {}
        self._durations: dict[str, float] = {}

    def run(self) -> int:
        began = time.monotonic()
        self._console.print(f"imprint demo, in {self._folder}")
        self._console.print()
        with self._console.stopping():
            disk = self._build()
            captured = self._capture()
            self._verify(captured)
            survey = self._map()
            self._look_inside(survey, disk)
            self._restore(captured)
        self._sum_up(disk, captured, survey, time.monotonic() - began)
        return 0 if all(self._proofs.values()) else 1

    def _build(self) -> DemoDisk:
        with self._step("disk"):
            disk = demo_disk.build(self._disk, self._convert)
            kinds = " and ".join(f"{part.kind} {part.label}" for part in disk.parts)
        if disk.sha256 is not None:
            size = format_size(disk.size)
            self._headline("disk", f"{size}: GPT, {kinds}, from the sample in this package")
            self._detail(f"not made here: {disk.no_tools}")
            self._prove("sample", _sha256(disk.path) == disk.sha256, "its content is as published")
        else:
            files = f"{disk.files} files of {format_size(disk.file_bytes)}"
            self._headline("disk", f"{format_size(disk.size)}: GPT, {kinds}, with {files}")
            self._detail(f"made by {', '.join(disk.made_by)}, without root")
        return disk

    def _capture(self) -> Outcome:
        with self._step("capture"):
            outcome = self._convert(self._disk, self._image, options=OPTIONS, hashes=HASHES)
        read = format_size(outcome.report.bytes_read)
        self._headline(
            "capture",
            f"{self._disk.name} -> {self._image.name}, {OPTIONS['compression']}: "
            f"{read} read, {format_size(outcome.bytes_stored)} stored",
        )
        for name, digest in outcome.report.hashes.items():
            self._detail(f"{name:<6} {digest}")
        return outcome

    def _verify(self, captured: Outcome) -> None:
        with self._step("verify"), open_image(str(self._image)) as image:
            found = verify_disk(
                image,
                (),
                captured.report.hashes,
                workers=self._workers,
                on_event=self._on_event,
                cancel=self._console.cancel,
            )
            independent = _sha256(self._disk)
        self._headline("verify", f"{self._image.name} read back, {self._disk.name} read again")
        self._prove("image", found.ok, "the image's content has both hashes of the capture")
        # Not with our own reader: what it cannot see, it cannot have hashed either.
        same = independent == captured.report.hashes["sha256"]
        self._prove("source", same, "so has the disk, read by Python's hashlib alone (sha256)")

    def _map(self) -> Survey:
        console = self._console
        with self._step("map"), open_image(str(self._image)) as image:
            survey = describe(image)
            lines: list[str] = []
            if not console.is_json:
                from imprint.cli.picture import draw_disk  # only for people

                lines = draw_disk(
                    survey,
                    image.extents(0, image.size),
                    width=shutil.get_terminal_size().columns if console.is_terminal else 80,
                    encoding=console.encoding,
                    colour=console.is_terminal and "NO_COLOR" not in os.environ,
                )
        self._headline("map", self._image.name)
        console.block(["", *lines, ""])
        return survey

    def _look_inside(self, survey: Survey, disk: DemoDisk) -> None:
        expected = [(part.start, part.length, part.kind, part.label) for part in disk.parts]
        found = [
            (
                volume.partition.start,
                volume.partition.length,
                volume.filesystem and volume.filesystem.kind,
                volume.filesystem and volume.filesystem.label,
            )
            for volume in survey.volumes
        ]
        table = "no partition table" if survey.table is None else survey.table.kind.upper()
        self._headline("inside", f"{table}, {len(found)} partitions", timed=False)
        for volume in survey.volumes:
            self._detail(_line(volume))
        self._prove("inside", found == expected, "its partitions and file systems are those made")

    def _restore(self, captured: Outcome) -> None:
        with self._step("restore"):
            outcome = self._convert(self._image, self._restored)
        self._headline(
            "restore",
            f"{self._image.name} -> {self._restored.name}: "
            f"{format_size(outcome.report.bytes_written)} written",
        )
        with (
            self._step("compare"),
            open_image(str(self._disk)) as disk,
            open_image(str(self._restored)) as restored,
        ):
            answer = compare(
                disk,
                restored,
                workers=self._workers,
                on_event=self._on_event,
                cancel=self._console.cancel,
            )
            same_size = answer.sizes[0] == answer.sizes[1]
            same_hash = _sha256(self._restored) == captured.report.hashes["sha256"]
        self._headline("compare", f"{self._disk.name} with {self._restored.name}")
        self._prove("compare", answer.equal and same_size, "the same size and the same bytes")
        self._prove("restored", same_hash, "the same sha256, by Python's hashlib alone")

    def _sum_up(self, disk: DemoDisk, captured: Outcome, survey: Survey, duration_s: float) -> None:
        data, stored = captured.report.bytes_read, captured.bytes_stored
        ratio = data / stored if stored else 0.0
        failed = [name for name, holds in self._proofs.items() if not holds]
        self._console.print()
        if failed:
            self._console.print(f"NOT PROVEN: {', '.join(failed)}")
        else:
            self._console.print(
                f"All {len(self._proofs)} proofs hold: a disk of {format_size(disk.size)} with "
                f"{format_size(data)} of data was kept in {format_size(stored)} ({ratio:.1f} : 1) "
                f"and came back bit for bit, in {duration_s:.1f} s."
            )
        if self._is_kept:
            self._console.print(f"{', '.join(_FILES)} are in {self._folder}.")
        else:
            self._console.print("The files are gone; --keep DIR keeps them.")
        self._console.result(
            ok=not failed,
            proofs=self._proofs,
            size=disk.size,
            bytes_read=data,
            bytes_stored=stored,
            ratio=round(ratio, 3),
            hashes=captured.report.hashes,
            sample=disk.sha256 is not None,
            made_by=list(disk.made_by),
            folder=str(self._folder) if self._is_kept else None,
            content=survey.to_json(),
            steps={name: round(seconds, 3) for name, seconds in self._durations.items()},
            duration_s=round(duration_s, 3),
        )

    def _convert(
        self,
        source: Path,
        target: Path,
        *,
        options: dict[str, str] | None = None,
        hashes: tuple[str, ...] = (),
    ) -> Outcome:
        return copy(
            CopyRequest(
                source=str(source),
                target=TargetRequest(str(target), options=options or {}),
                workers=self._workers,
                hashes=hashes,
                on_event=self._on_event,
                cancel=self._console.cancel,
            )
        )

    def _on_event(self, event: Event) -> None:
        if self._shows_progress or not isinstance(event, Progress):
            self._console.on_event(event)

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._durations[name] = time.monotonic() - began

    def _headline(self, name: str, text: str, *, timed: bool = True) -> None:
        duration = f"  ({self._durations[name]:.1f} s)" if timed else ""
        self._console.print(f"{name:<10}  {printable(text)}{duration}")

    def _detail(self, text: str) -> None:
        self._console.print(_INDENT + printable(text))

    def _prove(self, name: str, holds: bool, claim: str) -> None:  # noqa: FBT001 - what it is about
        self._proofs[name] = holds
        self._detail(f"{'ok' if holds else 'FAILED'}: {claim}")


def _line(volume: Volume) -> str:
    """A partition and its file system in one line."""
    found = volume.filesystem
    facts = (found.version, found.label, found.uuid) if found is not None else ()
    kind = found.kind if found is not None else "no file system"
    name = f"p{volume.partition.index} {volume.partition.name}: {kind}"
    return " ".join([name, *(fact for fact in facts if fact is not None)])


def _sha256(path: Path) -> str:
    """Of a whole file, without any code of imprint."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
