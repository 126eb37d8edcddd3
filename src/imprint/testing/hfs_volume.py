"""Classic HFS by ``hfsutils``, and its files with both forks as one file: MacBinary II.

Source: the MacBinary II standard of 1987.
"""

from __future__ import annotations

import binascii
import os
import random
import re
import struct
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.testing.oracles import OracleError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

WORDS: Final = b"".join(random.Random(1).choices([b"disk ", b"image\r", b"\0\0\0\0"], k=30_000))
"""What files are made of."""

_HEAD: Final = 128
_TIMEOUT_S: Final = 60


class MacFile(NamedTuple):
    """A file as a Mac has it.

    Attributes:
        name: in MacRoman.
        data: its data fork.
        resource: its resource fork.
        finder: type and creator.
        modified_s: since 1904.
        created_s: since 1904.
    """

    name: bytes
    data: bytes = b""
    resource: bytes = b""
    finder: bytes = b"TEXTttxt"
    modified_s: int = 3_000_000_000
    created_s: int = 2_900_000_000

    def packed(self) -> bytes:
        """In one file."""
        head = bytearray(_HEAD)
        head[1] = len(self.name)
        head[2 : 2 + len(self.name)] = self.name
        head[65:73] = self.finder
        sizes = len(self.data), len(self.resource)
        struct.pack_into(">IIII", head, 83, *sizes, self.created_s, self.modified_s)
        head[122:124] = bytes([129, 129])  # the version, and the one that is needed
        struct.pack_into(">H", head, 124, binascii.crc_hqx(bytes(head[:124]), 0))
        return bytes(head) + _padded(self.data) + _padded(self.resource)


def unpacked(content: bytes) -> MacFile:
    """What :meth:`MacFile.packed` makes."""
    data_size, resource_size, created, modified = struct.unpack_from(">IIII", content, 83)
    start = _HEAD + len(_padded(bytes(data_size)))
    return MacFile(
        content[2 : 2 + content[1]],
        content[_HEAD : _HEAD + data_size],
        content[start : start + resource_size],
        content[65:73],
        modified,
        created,
    )


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _HEAD)


class HfsUtils:
    """A volume that is mounted, as the tools call it."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def call(self, *words: str | bytes | Path) -> bytes:
        """What a tool prints.

        Raises:
            OracleError: if it fails.
        """
        done = subprocess.run(  # noqa: S603 - tests name the tool
            words,
            env={**os.environ, "HOME": str(self._home), "TZ": "UTC"},
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode or done.stderr:
            raise OracleError(f"{words[:4]!r}: {done.stderr[-500:]!r}")
        return done.stdout

    def add(self, folder: bytes, files: Sequence[MacFile]) -> None:
        """Put files into a folder, which is ``:`` or ``:name:``."""
        place = self._home / "added"
        place.mkdir(exist_ok=True)
        paths = [place / f"{number:05}" for number in range(len(files))]
        for path, file in zip(paths, files, strict=True):
            path.write_bytes(file.packed())
        self.call("hcopy", "-m", *paths, folder)

    def read(self, path: bytes) -> MacFile:
        """A file, by its path from ``:``."""
        target = self._home / "read"
        self.call("hcopy", "-m", re.sub(rb"([*?\[\]{}\\])", rb"\\\1", path), target)
        return unpacked(target.read_bytes())

    def listed(self, folder: bytes) -> dict[bytes, tuple[int, bool]]:
        """Number of each name in a folder, and whether it is a folder itself."""
        found = {}
        for line in self.call("hls", "-1", "-a", "-i", "-F", "-N", folder).split(b"\n")[:-1]:
            number, name = line.lstrip().split(b" ", 1)
            is_folder = name.endswith(b":")
            found[name.removesuffix(b":").removesuffix(b"*")] = (int(number), is_folder)
        return found


@contextmanager
def hfs_mounted(
    path: Path, home: Path, *, size: int = 0, label: str = "Volume"
) -> Iterator[HfsUtils]:
    """A volume in a file, made if a size is given; ``home`` is a folder for the tools' own."""
    tools = HfsUtils(home)
    if size:
        with path.open("wb") as file:
            file.truncate(size)
        tools.call("hformat", "-l", label, path)
    else:
        tools.call("hmount", path)
    try:
        yield tools
    finally:
        tools.call("humount")


def below(tools: HfsUtils, folder: bytes = b":") -> Iterator[tuple[bytes, int, bool]]:
    """Path from ``:``, number, and whether it is a folder, of all that hls lists."""
    for name, (number, is_folder) in tools.listed(folder).items():
        path = folder + name
        yield path, number, is_folder
        if is_folder:
            yield from below(tools, path + b":")


def some_files(count: int, *, seed: int, most: int) -> list[MacFile]:
    """Files of less than ``most`` bytes, a third of them with a resource fork."""
    dice = random.Random(seed)
    return [
        MacFile(
            b"file %d of some length" % number,
            WORDS[: dice.randrange(most)],
            WORDS[-dice.randrange(1, most) :] if number % 3 == 0 else b"",
            b"%04dHand" % number,
            2_900_000_000 + dice.randrange(10**8),
            2_800_000_000 + dice.randrange(10**8),
        )
        for number in range(count)
    ]


def in_pieces(tools: HfsUtils, count: int, most: int) -> None:
    """Files of which most are gone again, then three large ones in what is free."""
    small = some_files(count, seed=3, most=most)
    tools.add(b":", small)
    tools.call("hdel", *(b":" + file.name for file in small[::2]))
    large = WORDS[:60_000]
    tools.add(b":", [MacFile(b"large %d" % at, large[at:], large[: 9000 * at]) for at in range(3)])
