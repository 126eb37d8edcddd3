"""Every parser, given wrong bytes: always the same ones, about a second for each.

``run.py`` beside this file does it for as long as one wants, guided by coverage.
"""

from __future__ import annotations

import os
import random
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from imprint import formats
from imprint.core.errors import CorruptImageError
from imprint.testing.fuzzing.mutate import Mutator
from imprint.testing.fuzzing.sparse import dump, keep_read, load, load_folder
from imprint.testing.fuzzing.table import targets
from imprint.testing.fuzzing.target import FailureError, Target, survive

CORPUS: Final = Path(__file__).resolve().parent / "corpus"
COUNT: Final = int(os.environ.get("IMPRINT_FUZZ_COUNT", "250"))
KEPT_BYTES_MAX: Final = 16384

on_linux = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the size of a process is only known on Linux"
)
each_target = pytest.mark.parametrize("name", sorted(targets()))


@cache
def mutator(name: str) -> Mutator:
    return Mutator(targets()[name], list(load_folder(CORPUS / name).values()))


@each_target
def test_what_has_failed_once_and_what_is_sound_gives_a_result_or_one_error(name: str) -> None:
    """Fails if a mended defect is back, or a parser cannot even bear its own seeds."""
    for seed in mutator(name).seeds:
        survive(targets()[name], seed)


@each_target
def test_any_bytes_give_a_result_or_one_error(name: str) -> None:
    """Fails if a parser raises anything else, does not end, or takes too much memory."""
    randomness = random.Random(name)
    target = targets()[name]
    for _ in range(COUNT):
        program = mutator(name).random_program(randomness)
        try:
            survive(target, mutator(name).make(program))
        except FailureError as failure:
            failure.add_note(f"the program is {program.hex()}")
            raise


def test_every_format_has_a_target() -> None:
    """Fails if a format is added whose parser nobody attacks."""
    assert set(formats.names()) <= set(targets())


def test_every_kept_input_belongs_to_a_target_and_is_small() -> None:
    """Fails if a folder was misspelt, or a whole image slips in."""
    for path in CORPUS.rglob("*.*"):
        assert path.parent.name in targets(), path
        assert path.suffix == ".hex", path
        assert path.stat().st_size <= KEPT_BYTES_MAX, path


def _raise_type_error(content: bytes) -> None:
    raise TypeError(content)


def _raise_imaging_error(content: bytes) -> None:
    raise CorruptImageError("bad", name=repr(content))


def _allocate(content: bytes) -> None:
    bytearray(len(content) << 40)


def _hang(content: bytes) -> None:
    while content:
        try:
            content += b""
        except Exception:  # noqa: BLE001 - as a parser might do
            continue


@pytest.mark.parametrize(
    "step", [_raise_type_error, _hang, pytest.param(_allocate, marks=on_linux)]
)
def test_the_rule_catches_who_breaks_it(step: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if the harness lets anything pass."""
    monkeypatch.setattr("imprint.testing.fuzzing.target.CPU_S_MAX", 0.2)
    assert callable(step)
    with pytest.raises(FailureError):
        survive(Target("bad", lambda: [b""], (step,)), b"x")
    survive(Target("good", lambda: [b""], (_raise_imaging_error,)), b"x")


def test_kept_inputs_are_the_bytes_that_were_kept() -> None:
    """Fails if a regression is replayed with other bytes."""
    randomness = random.Random(1)
    pieces = [bytes(5000), b"\xff" * 300, b"a" * 11, randomness.randbytes(100), b"b" * 12]
    for _ in range(50):
        content = b"".join(randomness.choices(pieces, k=randomness.randrange(6)))
        assert load(dump(content, "a comment")) == content
    assert load("# one\nsize 20\n00000002  0102 ff*3\n0000000a  aa\n") == bytes.fromhex(
        "0000 0102ffffff 000000 aa" + "00" * 9
    )


def test_a_seed_is_cut_down_to_what_is_read() -> None:
    """Fails if bytes are lost that the parser needs, or all are kept."""
    content = bytes(range(256)) * 16
    kept = keep_read(content, lambda source: source.readinto(memoryview(bytearray(10)), 300))
    assert kept == bytes(300) + content[300:310]


def test_any_program_can_be_carried_out() -> None:
    """Fails if the mutator itself stumbles, or gives another input the second time."""
    randomness = random.Random(2)
    for name in ("vhdx", "partitions", "addresses", "raw"):
        for length in range(60):
            program = randomness.randbytes(length)
            assert mutator(name).make(program) == mutator(name).make(program)
        assert mutator(name).make(b"") == mutator(name).seeds[0]
