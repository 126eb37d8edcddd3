"""UDF as Linux 6.1 wrote it, which few machines can: what it has against what Linux told of it.

The volumes were made by ``mkudffs``: of revision 2.01 with blocks of 512 bytes, mounted as they
are; of 1.02 and 4096, mounted with ``noadinicb,shortad``; of 1.50 for a CD-RW, which has a
sparing table; of 2.00 with strategy 4096. All were filled by the same commands. Expected are the
words of ``stat`` there, and contents by the commands.
"""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path
from typing import Final

import pytest

from imprint.core.extent import Kind
from imprint.filesystems import identify
from imprint.filesystems.tree import Type
from imprint.filesystems.trees import tree
from imprint.filesystems.udf.tree import UdfTree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import digest
from imprint.testing.fuzzing.sparse import load

FOLDER: Final = Path(__file__).parents[1] / "data" / "udf"

VOLUMES: Final = {
    "hd-512-2.01": {"tiny": 264, "few/deep": 2255, "odd": 2403},
    "hd-4096-1.02": {"tiny": 261, "few/deep": 520, "odd": 785},
    "cdrw-2048-1.50": {"tiny": 1377, "few/deep": 1882, "odd": 2016},
    "chained-1024-2.00": {"tiny": 263, "few/deep": 1262, "odd": 1403},
}
"""Numbers of inodes as Linux has them: blocks of the volume."""

LONG: Final = "0123456789" * 25
CONTENTS: Final = {
    "/tiny": b"hi\n",
    "/few/hard": b"hi\n",
    "/empty": b"",
    "/text": b"".join(b"line %d of a text that is longer than a block\n" % at for at in range(300)),
    "/holes": b"start\n".ljust(700_000, b"\0") + b"end\n".ljust(200_000, b"\0"),
    "/few/deep/er/file": b"in\n",
    "/größe": b"lat\n",
    "/日本語 名前": b"wide\n",
    "/smile 😀": b"emo\n",
    f"/{LONG}": b"long\n",
    "/reserved": bytes(50_000),
    **{f"/many/name {at} of some length": b"%d\n" % at for at in range(120) if at % 3},
}
STAT: Final = """
/tiny|89e9|478760767|0|2
/few/hard|89e9|478760767|0|2
/text|81a0|1234567890|2000|1
/few|43ff|1234567890|0|
/few/deep|41ed|1234567890|0|
/few/deep/er|41ed|1234567890|0|
/many|41ed|1234567890|0|
/fifo|11a4|1234567890|0|1
/chr|21a4|1234567890|0|1
/large|81a4|1234567890|0|1
/größe|81a4|1234567890|0|1
"""
"""Type and permissions, modified, group, links; Linux counts folders in folders anew."""

TYPES: Final = {"8": Type.FILE, "4": Type.DIRECTORY, "1": Type.FIFO, "2": Type.CHARACTER}
LINKS: Final = {
    "/absolute": "/etc/../x/./y",
    "/few/deep/up": "../../up/./a",
    "/link": "few/deep/er/file",
    "/long": "x" + "".join(f"/component{at}" for at in range(60)),
}

each_volume = pytest.mark.parametrize("name", list(VOLUMES))


def volume(name: str) -> MemoryStorage:
    packed = (FOLDER / f"linux-6.1-{name}.hex.xz").read_bytes()
    return MemoryStorage(load(lzma.decompress(packed).decode("ascii")), name="volume")


def large() -> bytes:
    content = bytearray(b"x" * 1_000_000)
    for at in range(40):
        part = b"part %d\n" % at
        content[at * 24_999 : at * 24_999 + len(part)] = part
    return bytes(content)


def in_turns() -> bytes:
    return b"".join(b"%d" % (at % 10) * 4096 + bytes(4096) for at in range(150))[:-4096]


@each_volume
def test_names_and_facts_are_those_that_linux_told(name: str) -> None:
    """Fails if an entry, a name or a fact is found elsewhere than Linux puts it."""
    source = volume(name)
    kind = identify(source)
    assert kind is not None
    files = tree(kind.kind, source)
    found = {entry.path: entry for entry in walk(files) if entry.type is not Type.SYSTEM}
    links = {path: target for path, target in LINKS.items() if path in found or path != "/long"}
    told = [line.split("|") for line in STAT.strip().splitlines()]
    assert set(found) == {"/", "/odd", "/even", *CONTENTS, *links, *(words[0] for words in told)}
    for path, mode, modified, group, count in told:
        entry = found[path]
        assert (entry.type, entry.mode) == (TYPES[mode[0]], int(mode, 16) & 0o7777), path
        assert (entry.times.modified or 0) // 10**9 == int(modified)
        assert (entry.owner, entry.group) == (0, int(group))
        assert not count or entry.links == int(count)
        assert (entry.times.accessed or 0) // 10**9 in range(478760767, 1795420000)
        has_created = name in ("hd-512-2.01", "chained-1024-2.00")
        assert entry.times.created == (entry.times.modified if has_created else None)
    assert {path: found[path].target for path in links} == links
    assert ("/long" in found) == (name in ("hd-4096-1.02", "cdrw-2048-1.50"))
    numbers = VOLUMES[name]
    differences = {number - found[f"/{path}"].inode for path, number in numbers.items()}
    assert len(differences) == 1
    assert found["/tiny"].inode == found["/few/hard"].inode
    assert files.notes == []


@each_volume
def test_contents_are_those_that_were_put_there(name: str) -> None:
    """Fails if content in an entry, behind holes, or in very many pieces is read wrong."""
    files = UdfTree(volume(name))
    expected = {**CONTENTS, "/large": large(), "/odd": in_turns(), "/even": in_turns()}
    for path, content in expected.items():
        entry = find_path(files, path)
        assert entry.size == len(content)
        assert digest(files.content(entry)) == hashlib.sha256(content).hexdigest(), path
    holes = files.content(find_path(files, "holes"))
    kinds = [extent.kind for extent in holes.extents(0, holes.size)]
    assert kinds.count(Kind.HOLE) >= 2
    assert len(find_path(files, "odd").extents) > 100


@each_volume
def test_deleted_names_are_told_when_they_are_asked_for(name: str) -> None:
    """Fails if deleted names are lost, or told as those of files."""
    files = UdfTree(volume(name))
    deleted = [entry for entry in walk(files, deleted=True) if entry.is_deleted]
    gone = {f"/many/name {at} of some length" for at in range(0, 120, 3)}
    found = {entry.path for entry in deleted}
    assert "/few/deleted2" in found
    assert found <= {*gone, "/deleted", "/few/deleted2"}
    assert len(found & gone) > 35
    assert {entry.type for entry in deleted} == {Type.OTHER}
    assert not any(entry.is_deleted for entry in walk(files))
