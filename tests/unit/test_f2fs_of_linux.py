"""F2FS as Linux 6.1 wrote it, which few machines can: what it has against what Linux told of it.

The volume was made by ``mkfs.f2fs -O extra_attr,inode_checksum,inode_crtime,sb_checksum,
compression,flexible_inline_xattr``, mounted with one ``compress_algorithm`` after another, and
cut down to what is read. Expected are the words of ``stat``, ``readlink`` and ``sha256sum`` there.
"""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Final

import pytest

from imprint.core.errors import CorruptImageError, UnsupportedFeatureError
from imprint.core.extent import Kind
from imprint.filesystems import identify
from imprint.filesystems.f2fs.tree import F2fsTree
from imprint.filesystems.trees import tree
from imprint.filesystems.walking import find_path, walk
from imprint.storage.memory import MemoryStorage
from imprint.testing.file_trees import digest
from imprint.testing.fuzzing.sparse import load

VOLUME: Final = Path(__file__).parents[1] / "data" / "f2fs" / "linux-6.1.hex.xz"

# Type and permissions, size, modified, owner, group, links, inode.
STAT: Final = """
/tiny|81e9|6|1234567890|70000|80000|155|4
/empty|81a4|0|1795407749|0|0|1|5
/inline|81a4|3000|1795407749|0|0|1|6
/hard|81e9|6|1234567890|70000|80000|155|4
/short|a1ff|6|1795407749|0|0|1|7
/longer|a1ff|3800|1795407749|0|0|1|8
/fifo|11a4|0|1795407749|0|0|1|9
/b|61a4|0|1795407749|0|0|1|10
/few|41ed|3452|1795407749|0|0|2|11
/few/name 1 of a length that takes slots|81a4|2|1795407749|0|0|1|12
/few/name 2 of a length that takes slots|81a4|2|1795407749|0|0|1|13
/few/name 3 of a length that takes slots|81a4|2|1795407749|0|0|1|14
/many|41ed|20480|1795407750|0|0|2|15
/gaps|81a4|12288004|1795407750|0|0|1|16
/double|81a4|8601600100|1795407750|0|0|1|19
/allocated|81a4|10000|1795407750|0|0|1|23
/lz4.txt|81a4|40001|1795407750|0|0|1|24
/zstd.txt|81a4|40001|1795407751|0|0|1|25
/lzo.txt|81a4|40001|1795407751|0|0|1|26
"""

SUMS: Final = {
    "/tiny": "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
    "/empty": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "/inline": "e390fe5065e32cdb80c345f3e7fa8002bfa6dedb97dfa20c48e05e87f4d6cd9a",
    "/few/name 1 of a length that takes slots": (
        "4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865"
    ),
    "/gaps": "5f16ed8ffba06c5aac212fb5759890eb2936ff3c6f045a9b6665f413e087cdd9",
    "/allocated": "4497665a4bd670a110cd049bdc071f16df05f467c4395a658c72b0313d7eeb8a",
    "/lz4.txt": "8ed6bc01201ac1105ebbdf11434218219950252a2d781cf0448e02e88272bc51",
    "/zstd.txt": "c6500ea6ad742d8a9189a001f6f2ec097c6645c0cc1fbe0869f341015bec4eb1",
    "/lzo.txt": "86203d76a46182bddabc4409e392684c9d6cf401b66b566d1696b0152f8656ea",
}
TYPES: Final = {
    "8": "file",
    "a": "link",
    "1": "fifo",
    "6": "block",
    "4": "directory",
}


@pytest.fixture(scope="module")
def whole() -> bytes:
    return load(lzma.decompress(VOLUME.read_bytes()).decode("ascii"))


@pytest.fixture
def volume(whole: bytes) -> MemoryStorage:
    return MemoryStorage(whole, name="volume")


def test_names_and_facts_are_those_that_linux_told(volume: MemoryStorage) -> None:
    """Fails if names in inodes or blocks, or any fact, are found elsewhere than Linux puts them."""
    kind = identify(volume)
    assert kind is not None
    files = tree(kind.kind, volume)
    found = {entry.path: entry for entry in walk(files)}
    many = {f"/many/name {number} of some length" for number in range(230) if number % 3}
    told = [line.split("|") for line in STAT.strip().splitlines()]
    assert set(found) == {"/", *many, *(words[0] for words in told)}
    for path, mode, *numbers in told:
        entry = found[path]
        assert (entry.type.value, entry.mode) == (TYPES[mode[0]], int(mode, 16) & 0o7777)
        modified = (entry.times.modified or 0) // 10**9
        facts = (entry.size, modified, entry.owner, entry.group, entry.links, entry.inode)
        assert facts == tuple(int(number) for number in numbers)
        assert (entry.times.created or 0) // 10**9 in range(1795407749, 1795407752)
    assert {found[path].inode for path in many} == {4}
    assert found["/short"].target == "target"
    assert found["/longer"].target == ("longpart/" * 430)[:3800]
    assert files.notes == []


def test_contents_are_those_that_linux_told(volume: MemoryStorage) -> None:
    """Fails if content in an inode, behind holes, preallocated or compressed is read wrong."""
    files = tree("f2fs", volume)
    for path, expected in SUMS.items():
        if path == "/lzo.txt":
            pytest.importorskip("lzallright")
        entry = find_path(files, path)
        assert digest(files.content(entry)) == expected, path
    content = files.content(find_path(files, "/double"))
    data = [item for item in content.extents(0, content.size) if item.kind is Kind.DATA]
    assert [(item.offset, item.length) for item in data] == [(2_100_000 * 4096, 100)]
    buffer = bytearray(9)
    content.readinto(memoryview(buffer), 2_100_000 * 4096)
    assert buffer == b"veryfar\n\0"


def test_compressed_clusters_that_are_damaged_are_errors(whole: bytes) -> None:
    """Fails if damage is a crash, or told as content."""
    changed = bytearray(whole)
    for name in ("/lz4.txt", "/zstd.txt"):
        files = F2fsTree(MemoryStorage(whole))
        entry = find_path(files, name)
        place = entry.extents[0][0]
        changed[place + 30 : place + 60] = b"\xff" * 30
        with pytest.raises(CorruptImageError, match="cluster at 0"):
            digest(F2fsTree(MemoryStorage(bytes(changed))).content(entry))
        changed[place : place + 4] = b"\xff" * 4
        with pytest.raises(CorruptImageError, match="expected at most"):
            digest(F2fsTree(MemoryStorage(bytes(changed))).content(entry))


@pytest.mark.parametrize(("algorithm", "word"), [(3, "LZO-RLE"), (9, "algorithm 9")])
def test_other_algorithms_are_refused_file_by_file(whole: bytes, algorithm: int, word: str) -> None:
    """Fails if what LZO-RLE made is unpacked by LZO, or nothing else is told."""
    changed = bytearray(whole)
    mark = (40001).to_bytes(8, "little")
    at = changed.index(mark)
    while at >= 0:  # every inode of that size: byte 16 is the size, 392 the algorithm
        changed[at - 16 + 392] = algorithm
        at = changed.find(mark, at + 1)
    files = F2fsTree(MemoryStorage(bytes(changed)))
    with pytest.raises(UnsupportedFeatureError, match=word):
        files.content(find_path(files, "lz4.txt"))
    assert digest(files.content(find_path(files, "gaps"))) == SUMS["/gaps"]
