"""Comparing the tables of a VHD with themselves, each other and the file's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from imprint.core.errors import CorruptImageError
from imprint.core.events import Finding, Severity
from imprint.core.units import div_up
from imprint.formats.vhd.layer import State, read_state
from imprint.formats.vhd.room import find_room, metadata
from imprint.formats.vhd.writer import WritableVhdLayer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from imprint.core.contracts import Storage
    from imprint.core.formats import SizePolicy
    from imprint.formats.vhd.layout import Header

FINDINGS_MAX: Final = 1000
"""Blocks that are named one by one; a table of garbage would name millions."""


def check(storage: Storage, *, repair: bool, policy: SizePolicy | None = None) -> Iterator[Finding]:
    """Everything that can be wrong with an image that can be opened.

    ``repair`` writes footers and checksums again, and nothing else: which of two blocks owns a
    sector cannot be known. It does nothing where blocks are wrong.
    """
    state = read_state(storage, policy=policy)
    if state.header is None:
        yield from _check_fixed(storage, state, repair=repair)
        return
    is_broken = False
    for finding in _check_blocks(storage, state):
        is_broken = is_broken or finding.severity is Severity.ERROR
        yield finding
    wrong = [*_check_footers(state), *_check_header(state)]
    is_repaired = repair and bool(wrong) and not is_broken
    if is_repaired:
        layer = WritableVhdLayer(storage, state)
        layer.switch_header(layer.header)
        layer.secure_head()
        layer.touch()
        layer.flush()
    else:
        yield from _check_room(storage, state)
    for where, what in wrong:
        yield Finding(Severity.WARNING, where, what, repaired=is_repaired)


def _check_fixed(storage: Storage, state: State, *, repair: bool) -> Iterator[Finding]:
    footers = state.footers
    where = f"Footer at 0x{footers.tail_offset:x}"
    if not footers.active.is_sound:
        if repair:
            data = footers.active.sealed().pack()[: storage.size - footers.tail_offset]
            storage.write(memoryview(data), footers.tail_offset)
            storage.flush()
        what = "expected its checksum, found another one"
        yield Finding(Severity.WARNING, where, what, repaired=repair)
    size = footers.active.current_size
    if size != footers.tail_offset:
        is_repaired = repair and footers.active.is_resizing
        if is_repaired:  # a resize that was killed has left it so
            WritableVhdLayer(storage, state).resize(state.size)
        what = f"expected a disk of {footers.tail_offset} bytes before it, found {size}"
        yield Finding(Severity.WARNING, where, what, repaired=is_repaired)


def _check_footers(state: State) -> Iterator[tuple[str, str]]:
    footers = state.footers
    for name, footer, at in (
        ("copy of the footer", footers.head, 0),
        ("footer", footers.tail, footers.tail_offset),
    ):
        if footer is None:
            yield name, "expected one, found none"
        elif not footer.is_sound:
            yield f"{name} at 0x{at:x}", "expected its checksum, found another one"
    if footers.head is not None and footers.tail is not None and footers.head != footers.tail:
        yield f"footer at 0x{footers.tail_offset:x}", "expected the same as its copy at 0x0"


def _check_header(state: State) -> Iterator[tuple[str, str]]:
    assert state.header is not None
    if not state.header.is_sound:
        where = f"Header.checksum at 0x{state.footers.active.data_offset + 36:x}"
        yield where, f"expected 0x{state.header.sealed().checksum:x}, found another one"


def _check_blocks(storage: Storage, state: State) -> Iterator[Finding]:
    header = state.header
    assert header is not None
    tables = metadata(storage, state)
    size, stride, bitmap_bytes = storage.size, header.stride, header.bitmap_bytes
    wrong, previous_end = 0, 0
    # Numbers and no pairs, and none for what is not in the file: a table may have four million.
    order: list[int] = []
    for index, start in state.table.used():
        if start + bitmap_bytes < size:
            order.append(start << 32 | index)
            continue
        wrong += 1
        if wrong <= FINDINGS_MAX:
            what = f"expected a block in the file's {size} bytes, found one at 0x{start:x}"
            yield _misplaced(header, index, what)
    order.sort()
    for number in order:
        start, index = divmod(number, 1 << 32)
        end = start + stride
        what = ""
        if start < previous_end:
            what = f"expected room of its own, found another block's at 0x{start:x}"
        elif any(start < last and first < end for first, last in tables):
            what = f"expected room of its own, found a table's at 0x{start:x}"
        elif end > size:
            wrong_end = f"expected a file of at least {end} bytes, found {size}"
            yield Finding(Severity.WARNING, f"block {index} at 0x{start:x}", wrong_end)
        previous_end = max(previous_end, end)
        if what:
            wrong += 1
            if wrong <= FINDINGS_MAX:
                yield _misplaced(header, index, what)
    if wrong > FINDINGS_MAX:
        rest = f"and {wrong - FINDINGS_MAX} more blocks without room of their own"
        yield Finding(Severity.ERROR, "block table", rest)
    needed = div_up(state.size, header.block_size)
    if header.table_entries != needed:
        what = f"expected {needed} entries for the disk, found {header.table_entries}"
        yield Finding(Severity.INFO, "Header.table_entries", what)


def _misplaced(header: Header, index: int, what: str) -> Finding:
    where = f"block {index}, table entry at 0x{header.table_offset + 4 * index:x}"
    return Finding(Severity.ERROR, where, what)


def _check_room(storage: Storage, state: State) -> Iterator[Finding]:
    """Room for whole blocks that nothing uses: new blocks take it."""
    try:
        gaps, end = find_room(storage, state)
    except CorruptImageError:
        return  # told block by block
    assert state.header is not None
    unused = len(gaps) * state.header.stride
    behind = state.footers.tail_offset - end
    if behind >= state.header.stride:
        unused += behind
    if unused:
        yield Finding(Severity.INFO, "file", f"has {unused} bytes that nothing uses")
