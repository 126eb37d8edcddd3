"""The folders of an ext file system, as they are on the volume, whose journal may be replayed.

The Sleuth Kit reads most of them, and deleted names as well. This is for what it does not know:
clusters of several blocks, descriptors that are spread over the groups, folders within inodes; and
the fine times of what has no extents.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import CorruptImageError, FormatError, ReadError, UnsupportedFeatureError
from imprint.filesystems import sleuthkit
from imprint.filesystems.allocation import UNBOUNDED, VolumeReader
from imprint.filesystems.clusters import pieces_of
from imprint.filesystems.contents import PIECES_MAX, Run, extents_of, held, inside, mapped
from imprint.filesystems.ext import features
from imprint.filesystems.ext.attributes import Attributes
from imprint.filesystems.ext.geometry import read_geometry
from imprint.filesystems.ext.inline import inline_content
from imprint.filesystems.ext.inodes import Inodes
from imprint.filesystems.ext.layout import (
    EXTENT_LENGTH_MAX,
    HAS_INLINE_DATA,
    IS_ENCRYPTED,
    ROOT_INODE,
    SUPERBLOCK_OFFSET,
    Inode,
    Superblock,
)
from imprint.filesystems.ext.names import names_in
from imprint.filesystems.ext.trees import NODE, Piece, Trees, has_blocks
from imprint.filesystems.journals import ADVICE, REPLAYERS
from imprint.filesystems.tree import (
    TYPES_BY_MODE,
    Entry,
    Remark,
    Type,
    bytes_of,
    no_stream,
    note_of,
    path_in,
    shown,
    text_of,
)
from imprint.filesystems.with_deleted import WithDeleted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Source
    from imprint.filesystems.ext.inodes import Facts
    from imprint.filesystems.tree import Attribute, FileTree

_EXTENTS: Final = 0x0040
_INLINE_DATA: Final = 0x8000
_PARENT_BYTES: Final = 4
"""Of a folder within its inode: the number of the folder above, in front of its names."""

_INLINE_BYTES: Final = 60
_TARGET_BYTES_MAX: Final = 4096
_PIECE_BYTES: Final = 64 << 10
_UNCLEAN: Final = "the file system was not unmounted: what is only in its journal is not told"


class _Extents(NamedTuple):
    """Where an inode's content is: what is written, ascending; the blocks of its tree."""

    runs: list[Run]
    nodes: list[tuple[int, int]]


class _Trees(Trees):
    """Those that know what was never written."""

    def __init__(self, tree: ExtTree) -> None:
        super().__init__(tree.reader, tree.geometry)
        self.unwritten: set[int] = set()

    def extent(self, raw: bytes, where: str) -> Piece:
        piece = super().extent(raw, where)
        if int.from_bytes(raw[4:6], "little") > EXTENT_LENGTH_MAX:
            self.unwritten.add(piece.position)
        return piece


class ExtTree(WithDeleted):
    """See :class:`~imprint.filesystems.tree.FileTree`.

    Attributes:
        reader: of the volume.
        geometry: of the file system.
    """

    def __init__(self, volume: Source) -> None:
        """The file system that is all of ``volume``.

        Raises:
            CorruptImageError: if it contradicts itself.
            UnsupportedFeatureError: if it has a feature that is not known.
            ReadError: if it cannot be read.
        """
        super().__init__(volume, "ext4")
        self.reader = VolumeReader(volume, budget=UNBOUNDED)
        self.geometry = read_geometry(self.reader, may_be_cut=True)
        if _is_unknown(self.geometry.superblock):
            self._refusal = "the library does not know its features"
        self._inodes = Inodes(self.reader, self.geometry)
        self._values: Attributes | None = None
        self._begin_at(self._entry("/", ROOT_INODE))

    def _living(self, folder: Entry) -> Iterator[Entry]:
        try:
            facts = self._inodes.facts(folder.inode)
            if facts.inode.flags & IS_ENCRYPTED:
                self.notes.append(note_of(folder.path, "the names in it are encrypted"))
            for name, number in self._names(facts, folder.inode):
                path = path_in(folder, text_of(name))
                try:
                    entry = self._entry(path, number)
                except (FormatError, ReadError) as failure:
                    self.notes.append(note_of(path, failure.args[0]))
                    continue
                yield entry
        except (FormatError, ReadError) as failure:
            self.notes.append(note_of(folder.path, failure.args[0]))

    def _living_content(self, entry: Entry, stream: str | None) -> Source:
        name = f"{self._volume.name}: {shown(entry.path)}"
        if stream is not None:
            raise no_stream(stream, name)
        if entry.type is Type.LINK and entry.target is not None:
            return held(name, bytes_of(entry.target))
        if entry.is_plain:
            return mapped(self._volume, extents_of(entry), entry.size, name=name)
        facts = self._inodes.facts(entry.inode)
        if facts.inode.flags & IS_ENCRYPTED:
            raise UnsupportedFeatureError("it is encrypted by the file system", name=name)
        if facts.inode.flags & HAS_INLINE_DATA:
            found = inline_content(facts.raw)
            if facts.size > len(found):
                what = f"expected at most {len(found)} bytes within an inode, found {facts.size}"
                raise CorruptImageError(what, name=name)
            return held(name, found[: facts.size])
        return mapped(self._volume, self._extents(facts, entry.inode).runs, facts.size, name=name)

    def _attributes(self, entry: Entry) -> Iterator[Attribute]:
        if self._values is None:
            self._values = Attributes(self._volume)
        yield from self._values.of(entry.inode)

    def _extents(self, facts: Facts, number: int) -> _Extents:
        """Raises: CorruptImageError: if they cannot be."""
        found = _Extents([], [])
        size = self.geometry.block_size
        trees = _Trees(self)
        for position, block, length in trees.pieces(facts.inode, number):
            if position == NODE:
                found.nodes.append((block * size, length * size))
            elif length and position not in trees.unwritten:
                found.runs.append(Run(position * size, block * size, length * size))
            if len(found.runs) + len(found.nodes) > PIECES_MAX:
                raise CorruptImageError(f"expected at most {PIECES_MAX} pieces, found more")
        return found

    def _names(self, facts: Facts, number: int) -> Iterator[tuple[bytes, int]]:
        """Names and numbers of what is in a folder.

        Raises:
            CorruptImageError: behind all that can be told, if something cannot.
            ReadError: the same.
        """
        problem: FormatError | ReadError | None = None
        for block in self._blocks_of_names(facts, number):
            try:
                if isinstance(block, (FormatError, ReadError)):
                    raise block
                yield from names_in(block, 0, len(block))
            except (FormatError, ReadError) as failure:
                problem = problem or failure
        if problem is not None:
            raise problem

    def _blocks_of_names(
        self, facts: Facts, number: int
    ) -> Iterator[bytes | FormatError | ReadError]:
        """The blocks of a folder, or why one cannot be read."""
        if facts.inode.flags & HAS_INLINE_DATA:
            data = inline_content(facts.raw)
            yield data[_PARENT_BYTES:_INLINE_BYTES]
            yield data[_INLINE_BYTES:]
            return
        block, left = self.geometry.block_size, self._volume.size
        step = max(block, _PIECE_BYTES)
        for run in self._extents(facts, number).runs:
            left -= run.length
            if left < 0:
                raise CorruptImageError("a folder: expected blocks of its own")
            place = run.offset, min(run.length, facts.size - run.position)
            for start, length in pieces_of([place], step):
                try:
                    data = bytes(self.reader.read(start, length, "names"))
                except (FormatError, ReadError):
                    for at, size in pieces_of([(start, length)], block):
                        yield self._block_of_names(at, size)
                    continue
                for at in range(0, length, block):
                    yield data[at : at + block]

    def _block_of_names(self, start: int, length: int) -> bytes | FormatError | ReadError:
        try:
            return bytes(self.reader.read(start, length, "names"))
        except (FormatError, ReadError) as failure:
            return failure

    def _entry(self, path: str, number: int) -> Entry:
        facts = self._inodes.facts(number)
        type_ = TYPES_BY_MODE.get(stat.S_IFMT(facts.inode.mode), Type.OTHER)
        extents = _Extents([], [])
        target = None
        is_plain = type_ is Type.FILE and not facts.inode.flags & (HAS_INLINE_DATA | IS_ENCRYPTED)
        try:
            if has_blocks(facts.inode) and not facts.inode.flags & HAS_INLINE_DATA:
                extents = self._extents(facts, number)
            if type_ is Type.LINK:
                target = self._target(facts, extents)
        except (FormatError, ReadError) as failure:
            self.notes.append(note_of(path, failure.args[0]))
            is_plain = False
        covered = 0
        for run in extents.runs:
            is_there = run.offset + run.length <= self._volume.size
            is_plain = is_plain and run.position == covered and is_there
            covered += run.length
        places = [*((run.offset, run.length) for run in extents.runs), *extents.nodes]
        return Entry(
            path,
            number,
            type_,
            facts.size,
            facts.times,
            stat.S_IMODE(facts.inode.mode),
            facts.owner,
            facts.group,
            facts.inode.link_count,
            inside(self._volume, places),
            target,
            is_plain=is_plain and covered >= facts.size,
        )

    def _target(self, facts: Facts, extents: _Extents) -> str | None:
        """Of a symbolic link; ``None`` if it is encrypted."""
        if facts.inode.flags & IS_ENCRYPTED:
            return None
        if facts.inode.flags & HAS_INLINE_DATA:
            return text_of(inline_content(facts.raw)[: facts.size])
        if not has_blocks(facts.inode):
            return text_of(facts.inode.block[: facts.size])
        if not extents.runs or extents.runs[0].position:
            raise CorruptImageError("expected a block with the target of a symbolic link")
        run = extents.runs[0]
        size = min(facts.size, run.length, _TARGET_BYTES_MAX)
        return text_of(bytes(self.reader.read(run.offset, size, "symbolic link")))


def _is_unknown(block: Superblock) -> bool:
    """Whether a file system has features that The Sleuth Kit does not know."""
    return bool(
        block.ro_compat & features.BIGALLOC or block.incompat & (features.META_BG | _INLINE_DATA)
    )


def _is_ours(block: Superblock) -> bool:
    """Whether The Sleuth Kit would not tell all of it.

    Without extents it takes a file system for one of those whose inodes are small, and have times
    in seconds.
    """
    if block.revision == 0:
        return False
    has_fine_times = block.inode_size > Inode.SIZE and not block.incompat & _EXTENTS
    return has_fine_times or _is_unknown(block)


def _opened(volume: Source, kind: str, *, is_ours: bool) -> FileTree:
    if not is_ours:
        return sleuthkit.open_tree(volume, kind)
    try:
        return ExtTree(volume)
    except FormatError as failure:
        try:
            return sleuthkit.open_tree(volume, kind)
        except FormatError:
            raise failure from None


def open_tree(volume: Source, kind: str) -> FileTree:
    """The files of a volume; see :func:`imprint.filesystems.trees.tree`."""
    head = VolumeReader(volume).read(SUPERBLOCK_OFFSET, Superblock.SIZE, "superblock")
    block = Superblock.unpack(head)
    files = _opened(volume, kind, is_ours=_is_ours(block))
    if block.revision and block.incompat & features.RECOVER:
        what = f"{_UNCLEAN} ({ADVICE})" if kind in REPLAYERS else _UNCLEAN
        files.notes.append(Remark(note_of("/", what)))
    return files
