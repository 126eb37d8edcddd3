"""qemu-img and qemu-io as judges, behind typed functions. Nothing is required at import.

A call that the tool refuses fails the test with the tool's own message. Tests that use
this module are marked ``@pytest.mark.oracle("qemu-img")``.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from imprint.core.extent import Kind
from imprint.storage.file import FileStorage
from imprint.testing.opener import DictOpener

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from imprint.core.contracts import Source
    from imprint.core.formats import Format
    from imprint.core.image import WritableImage

TIMEOUT_S: Final = 60.0
"""How long a tool may take; tests use small disks, so that longer means it hangs."""


class OracleError(AssertionError):
    """A tool ended with an exit code that the test did not expect."""


class Result(NamedTuple):
    """How a tool ended."""

    exit_code: int
    stdout: str
    stderr: str


class Run(NamedTuple):
    """A run of a disk as ``qemu-img map`` prints it.

    Attributes:
        offset: of the disk, in bytes.
        length: in bytes.
        is_data: whether it is stored.
        is_zero: whether it is known to read as zeros.
        is_present: whether the image or a parent says something of it.
        depth: 0 for the image itself, 1 for its parent …
        storage_offset: where it is stored, or ``None``.
    """

    offset: int
    length: int
    is_data: bool
    is_zero: bool
    is_present: bool
    depth: int
    storage_offset: int | None


def run(*command: str | Path, accept: Sequence[int] = (0,), stdin: bytes = b"") -> Result:
    """Run a tool and wait for it.

    Raises:
        OracleError: if its exit code is not in ``accept``.
    """
    words = [str(word) for word in command]
    done = subprocess.run(  # noqa: S603 - tests name the tool
        words, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False
    )
    result = Result(
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )
    if result.exit_code not in accept:
        raise OracleError(
            f"{' '.join(words)}: exit code {result.exit_code}\n{result.stdout}{result.stderr}"
        )
    return result


def qemu_img(*arguments: str | Path, accept: Sequence[int] = (0,)) -> Result:
    """``qemu-img ARGUMENTS``."""
    return run("qemu-img", *arguments, accept=accept)


def qemu_img_with_luks(*arguments: str | Path) -> None:
    """``qemu-img ARGUMENTS`` that make a LUKS header: again until QEMU has measured its speed.

    It gives up when its first rounds took less than a tick of the kernel's accounting, which
    is rare with SHA-512. The measurement takes it seconds, whatever ``iter-time`` is. Skips
    the test where it never succeeds.
    """
    for _ in range(10):
        result = qemu_img(*arguments, accept=(0, 1))
        if result.exit_code == 0:
            return
        if "Unable to get accurate CPU usage" not in result.stderr:
            raise OracleError(result.stderr)
    import pytest  # of the test that calls

    pytest.skip("qemu-img cannot measure CPU time here")


@contextmanager
def edited(format_: Format, path: Path) -> Iterator[WritableImage]:
    """An image of ours, opened to be changed in place; committed at the end, and closed."""
    image = format_.edit(FileStorage.open(path, writable=True), DictOpener())
    with image:
        yield image
        image.commit()


def write_all(image: WritableImage, changes: Iterable[tuple[int, int, int]]) -> None:
    """Do writes of ``(offset, length, byte)`` to an image of ours; byte 0 zeroes the range."""
    for offset, length, byte in changes:
        if byte:
            image.write(memoryview(bytes([byte]) * length), offset)
        else:
            image.zero(offset, length)


def qemu_io(path: Path, format_name: str, *commands: str, writable: bool = True) -> str:
    """Run ``qemu-io`` commands (``write -P 7 0 64k``, ``read -P 0 …``) on an image.

    Raises:
        OracleError: if one of them fails, or a pattern that is read is another one.
    """
    words = [word for command in commands for word in ("-c", command)]
    mode = () if writable else ("-r",)
    result = run("qemu-io", *mode, "-f", format_name, *words, path)
    # qemu-io ends with 0 although a pattern differs; older versions also after an I/O error.
    if "verification failed" in result.stdout or "failed:" in result.stdout:
        raise OracleError(f"qemu-io {path}: {result.stdout}{result.stderr}")
    return result.stdout


def create(
    path: Path,
    size: int | None,
    format_name: str,
    *,
    options: Mapping[str, object] | None = None,
    backing: Path | None = None,
    backing_format: str = "raw",
) -> None:
    """``qemu-img create``. ``size`` may be ``None`` if there is a backing file."""
    parent = () if backing is None else ("-b", backing, "-F", backing_format)
    sizes = () if size is None else (str(size),)
    qemu_img("create", "-q", "-f", format_name, *_options(options), *parent, path, *sizes)


def convert(
    source: Path,
    target: Path,
    target_format: str,
    *,
    source_format: str = "raw",
    options: Mapping[str, object] | None = None,
    arguments: Sequence[str] = (),
) -> None:
    """``qemu-img convert``; ``arguments`` are further ones, such as ``-c``."""
    qemu_img(
        *("convert", "-q", "-f", source_format, "-O", target_format),
        *_options(options),
        *arguments,
        *(source, target),
    )


def info(path: Path, format_name: str | None = None) -> dict[str, Any]:
    """What ``qemu-img info`` says of an image."""
    result = qemu_img("info", "--output=json", *_format(format_name), path)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def image_map(path: Path, format_name: str) -> list[Run]:
    """What ``qemu-img map`` says, run by run, parents included."""
    result = qemu_img("map", "--output=json", *_format(format_name), path)
    return [
        Run(
            item["start"],
            item["length"],
            item["data"],
            item["zero"],
            item.get("present", True),
            item["depth"],
            item.get("offset"),
        )
        for item in json.loads(result.stdout)
    ]


def check(path: Path, format_name: str) -> dict[str, Any]:
    """``qemu-img check``: its report, if it found nothing wrong.

    Raises:
        OracleError: if it found errors or leaks.
    """
    result = qemu_img("check", "--output=json", *_format(format_name), path, accept=range(4))
    report: dict[str, Any] = json.loads(result.stdout)
    if result.exit_code != 0:
        raise OracleError(f"qemu-img check {path}: {report}\n{result.stderr}")
    return report


def is_equal(first: Path, second: Path, *, first_format: str, second_format: str) -> bool:
    """Whether ``qemu-img compare`` finds the same disk in both; a shorter one is zeros beyond."""
    formats = ("-f", first_format, "-F", second_format)
    return qemu_img("compare", *formats, first, second, accept=(0, 1)).exit_code == 0


def content(path: Path, format_name: str) -> bytes:
    """All bytes of the disk, as ``qemu-img`` reads them."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder, "raw")
        convert(path, raw, "raw", source_format=format_name)
        return raw.read_bytes()


def paint(size: int, writes: Iterable[tuple[int, int, int]]) -> bytes:
    """A disk of zeros after writes of ``(offset, length, byte)``, cut off at its end."""
    disk = bytearray(size)
    for offset, length, value in writes:
        inside = max(0, min(length, size - offset))
        disk[offset : offset + inside] = bytes([value]) * inside
    return bytes(disk)


def qemu_data(path: Path, format_name: str) -> list[tuple[int, int]]:
    """The runs with bytes of their own, as ``(offset, length)``, neighbours joined.

    Those that ``qemu-img map`` calls data, but not those that it knows to be zeros as well:
    these are allocated only, in the image or in the file that it is.
    """
    return _joined(
        (item.offset, item.length)
        for item in image_map(path, format_name)
        if item.is_data and not item.is_zero
    )


def our_data(source: Source) -> list[tuple[int, int]]:
    """The same of a source: its ``DATA`` and ``ENCODED`` extents."""
    return _joined(
        (extent.offset, extent.length)
        for extent in source.extents(0, source.size)
        if extent.kind in (Kind.DATA, Kind.ENCODED)
    )


def _joined(runs: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for offset, length in runs:
        if joined and sum(joined[-1]) == offset:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((offset, length))
    return joined


def _options(options: Mapping[str, object] | None) -> tuple[str, ...]:
    if not options:
        return ()
    return ("-o", ",".join(f"{name}={value}" for name, value in options.items()))


def _format(name: str | None) -> tuple[str, ...]:
    return () if name is None else ("-f", name)
