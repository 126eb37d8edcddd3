"""Inputs from programs: a few bytes that say which seed is taken and what is changed in it.

Any bytes are a program. A missing byte counts as 0, so that programs can be cut anywhere, and
an empty one gives the first seed as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from imprint.core.buffers import is_zero

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from imprint.core.layout import Structure
    from imprint.testing.fuzzing.target import Target

PROGRAM_BYTES_MAX: Final = 160
_USUAL_BYTES: Final = (5, 6, 7, 8, 9, 10, 12, 16, 24, 40, PROGRAM_BYTES_MAX)  # six for a change
_EDITS_MAX: Final = 12
_GROWTH_MAX: Final = 1 << 20
_OCCURRENCES_MAX: Final = 16  # of a mark in a seed
_BLOCK: Final = 16
_NEAR: Final = 48  # blocks at the start, which half of all changes go to: headers stand there
_WIDTHS: Final = (1, 2, 4, 8)
_PAGE: Final = 4096


@dataclass(frozen=True)
class Spot:
    """A field in a seed."""

    at: int
    size: int
    order: Literal["little", "big"]


class Program:
    """Bytes that are taken one by one."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    @property
    def is_at_end(self) -> bool:
        """Whether only zeros are left."""
        return self._position >= len(self._data)

    def byte(self) -> int:
        """The next one."""
        self._position += 1
        return self._data[self._position - 1] if self._position <= len(self._data) else 0

    def number(self, size: int = 2) -> int:
        """The next few as one number."""
        return int.from_bytes(bytes(self.byte() for _ in range(size)), "big")

    def below(self, end: int) -> int:
        """Something from 0 to ``end - 1``."""
        return (self.byte() if end <= 1 << 8 else self.number(3)) % max(1, end)

    def rest(self, length_max: int) -> bytes:
        """Some of what is left, as it is."""
        piece = self._data[self._position : self._position + length_max]
        self._position += length_max
        return piece


class Mutator:
    """Makes inputs for one target. Deterministic: the same program gives the same input."""

    def __init__(self, target: Target, kept: list[bytes] | None = None) -> None:
        """``kept`` are further seeds."""
        self.length_max = PROGRAM_BYTES_MAX
        self._target = target
        self.seeds = [*target.seeds(), *(kept or [])] or [b""]
        self._spots = [list(self._find_spots(seed)) for seed in self.seeds]
        self._blocks = [_written_blocks(seed) for seed in self.seeds]
        self._edits: tuple[Callable[[bytearray, Program, int], None], ...] = (
            *((self._field,) * 10 if target.places else ()),
            *((self._word,) * 5),
            *((self._put_word,) * 3 if target.words else ()),
            *((self._flip, self._byte) * 2),
            self._cut,
            self._copy,
            self._fill,
            self._grow,
            self._insert,
            self._delete,
        )

    def random_program(self, randomness: random.Random) -> bytes:
        """A program of usual length: mostly one to three changes."""
        return randomness.randbytes(randomness.choice(_USUAL_BYTES))

    def make(self, data: bytes) -> bytes:
        """Carry out a program."""
        program = Program(data[:PROGRAM_BYTES_MAX])
        index = program.below(len(self.seeds))
        is_sealed = program.byte() % 8 != 7 or self._target.is_always_sealed
        content = bytearray(self.seeds[index])
        for _ in range(_EDITS_MAX):
            if program.is_at_end:
                break
            self._edits[program.below(len(self._edits))](content, program, index)
        if is_sealed and self._target.seal is not None:
            self._target.seal(content)
        return bytes(content)

    def _find_spots(self, seed: bytes) -> Iterator[Spot]:
        for place in self._target.places:
            order = _order(place.structure)
            if isinstance(place.at, bytes):
                starts = [at - place.within for at in _occurrences(seed, place.at)]
            else:
                starts = [place.at if place.at >= 0 else len(seed) + place.at]
            for start in starts:
                for field in place.structure.FIELDS.values():
                    at = start + field.at
                    if at >= 0 and at + field.size <= len(seed):
                        yield Spot(at, field.size, order)

    def _field(self, content: bytearray, program: Program, index: int) -> None:
        """Set a field of a declared structure."""
        spots = self._spots[index]
        if not spots:
            return
        spot = spots[program.below(len(spots))]
        size = spot.size
        at = spot.at
        if size not in _WIDTHS:  # a field of bytes: some of them
            at += program.below(size)
            size = 1
        self._set(content, at, size, spot.order, program)

    def _word(self, content: bytearray, program: Program, index: int) -> None:
        """Set a number somewhere, where numbers are likely: aligned, among written bytes."""
        size = _WIDTHS[program.below(4)]
        at = self._position(content, program, index) // size * size
        self._set(content, at, size, "little" if program.byte() % 2 else "big", program)

    def _set(
        self,
        content: bytearray,
        at: int,
        size: int,
        order: Literal["little", "big"],
        program: Program,
    ) -> None:
        if at + size > len(content):
            return
        old = int.from_bytes(content[at : at + size], order)
        bits = size * 8
        match program.below(8):
            case 0:
                value = 1 << program.below(bits)
            case 1:
                value = (1 << (program.below(bits) + 1)) - 1
            case 2:
                value = old + program.byte() - 128
            case 3:
                value = (
                    (len(content) >> (0, 9, 12, 16, 20)[program.below(5)]) + program.below(3) - 1
                )
            case 4:
                value = old ^ 1 << program.below(bits)
            case 5:
                value = (1 << bits) - 1 - program.byte()
            case 6:
                value = program.byte()
            case _:
                value = int.from_bytes(program.rest(size), "big")
        content[at : at + size] = (value & ((1 << bits) - 1)).to_bytes(size, order)

    def _put_word(self, content: bytearray, program: Program, index: int) -> None:
        """Insert a word of the parser's language, or write it over what is there."""
        words = self._target.words
        word = words[program.below(len(words))]
        at = self._position(content, program, index)
        end = at if program.byte() % 2 else at + len(word)
        content[at:end] = word

    def _flip(self, content: bytearray, program: Program, index: int) -> None:
        at = self._position(content, program, index)
        if at < len(content):
            content[at] ^= 1 << program.below(8)

    def _byte(self, content: bytearray, program: Program, index: int) -> None:
        at = self._position(content, program, index)
        if at < len(content):
            content[at] = program.byte()

    def _cut(self, content: bytearray, program: Program, index: int) -> None:
        """Cut the end off."""
        if program.byte() % 2:
            del content[self._position(content, program, index) :]
        else:
            del content[max(0, len(content) - program.number()) :]

    def _copy(self, content: bytearray, program: Program, index: int) -> None:
        """Put a piece somewhere else too: tables that point to each other, repeated lines."""
        start = self._position(content, program, index)
        to = self._position(content, program, index)
        piece = bytes(content[start : start + _BLOCK * (1 + program.byte())])
        end = to if program.byte() % 4 == 0 else to + len(piece)
        content[to:end] = piece

    def _fill(self, content: bytearray, program: Program, index: int) -> None:
        at = self._position(content, program, index)
        length = min(_BLOCK * (1 + program.byte()), max(0, len(content) - at))
        content[at : at + length] = bytes([(0, 0xFF)[program.byte() % 2]]) * length

    def _grow(self, content: bytearray, program: Program, index: int) -> None:
        """Append zeros, or the file's own start."""
        if program.byte() % 2:
            content.extend(bytes(min(_GROWTH_MAX, 1 << program.below(21))))
        else:
            content.extend(content[: 512 * (1 + program.byte())])

    def _insert(self, content: bytearray, program: Program, index: int) -> None:
        at = self._position(content, program, index)
        content[at:at] = program.rest(1 + program.byte() % 16) or b"\0"

    def _delete(self, content: bytearray, program: Program, index: int) -> None:
        at = self._position(content, program, index)
        del content[at : at + 1 + program.byte() % 64]

    def _position(self, content: bytearray, program: Program, index: int) -> int:
        """Inside one of the seed's blocks that hold something; or, rarely, anywhere."""
        blocks = self._blocks[index]
        how = program.byte()
        if how >= 0xF0 or not blocks:
            return program.number(3) % (len(content) + 1)
        near = blocks[:_NEAR] if how % 2 else blocks
        at = near[program.below(len(near))] + program.below(_BLOCK)
        return min(at, len(content))


def _order(structure: type[Structure]) -> Literal["little", "big"]:
    """How a structure's numbers stand."""
    for name, field in structure.FIELDS.items():
        if field.size in (2, 4, 8) and isinstance(field.default, int):
            packed = structure(**{name: 1}).pack()
            return "little" if packed[field.at] == 1 else "big"
    return "little"


def _occurrences(seed: bytes, mark: bytes) -> list[int]:
    found: list[int] = []
    at = seed.find(mark)
    while at >= 0 and len(found) < _OCCURRENCES_MAX:
        found.append(at)
        at = seed.find(mark, at + 1)
    return found


def _written_blocks(seed: bytes) -> list[int]:
    """Offsets of blocks with something in them; of equal neighbours only the first."""
    found: list[int] = []
    view = memoryview(seed)
    before = b""
    for page in range(0, len(seed), _PAGE):
        if is_zero(view[page : page + _PAGE]):
            before = b""
            continue
        for at in range(page, min(page + _PAGE, len(seed)), _BLOCK):
            block = seed[at : at + _BLOCK]
            if block != before and any(block):
                found.append(at)
            before = block
    return found
