"""Refcounts of all widths: arithmetic on blocks, and allocation through them."""

from __future__ import annotations

import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imprint.core.errors import CorruptImageError, TargetError, UnsupportedFeatureError
from imprint.core.formats import CreateSpec, parse_options
from imprint.formats.qcow2 import FORMAT, compressed, counts, create, header
from imprint.formats.qcow2.refcounts import Refcounts
from imprint.storage.memory import MemoryStorage
from imprint.testing.opener import DictOpener

WIDTHS = [1, 2, 4, 8, 16, 32, 64]


def from_the_specification(block: bytes, index: int, bits: int) -> int:
    """Entry ``index`` of a block: big-endian, or from the least significant bit below a byte."""
    if bits >= 8:
        size = bits // 8
        return int.from_bytes(block[index * size : (index + 1) * size], "big")
    return block[index * bits // 8] >> (index * bits % 8) & ((1 << bits) - 1)


@given(data=st.data(), bits=st.sampled_from(WIDTHS))
def test_runs_of_counts_go_up_and_down(data: st.DataObject, bits: int) -> None:
    """Fails if a neighbour in the same byte changes, or a run is off by one."""
    code = counts.width_of(bits)
    block = array.array(code, bytes(64))
    length = 64 * 8 // bits
    model = [0] * length
    for _ in range(data.draw(st.integers(0, 12))):
        first = data.draw(st.integers(0, length - 1))
        count = data.draw(st.integers(1, length - first))
        delta = data.draw(st.sampled_from((1, -1, 1, 2)))
        inside = [0 <= value + delta < 1 << bits for value in model[first : first + count]]
        done = inside.index(False) if False in inside else count
        if done < count:
            with pytest.raises(OverflowError) as caught:
                counts.add(block, first, count, delta, bits)
            assert caught.value.args[0] == done
        else:
            counts.add(block, first, count, delta, bits)
        for index in range(first, first + done):
            model[index] += delta
    assert [counts.get(block, index, bits) for index in range(length)] == model
    assert counts.used(block, bits) == max((i + 1 for i, v in enumerate(model) if v), default=0)


@pytest.mark.parametrize("bits", WIDTHS)
def test_blocks_are_stored_as_the_specification_says(bits: int) -> None:
    """Fails if an image's refcounts are in another order or byte order than qemu's."""
    options = parse_options(
        "qcow2", FORMAT.options, {"cluster_size": "512", "refcount_bits": str(bits)}
    )
    storage = MemoryStorage()
    target = FORMAT.create(storage, CreateSpec(1 << 20, DictOpener(), options))
    target.write(memoryview(b"x" * 70_000), 5000)
    target.commit()
    area = header.read(storage)
    table = area.header.refcount_table_offset
    per_block = 512 * 8 // bits
    used = 0
    for index in range(area.header.refcount_table_clusters * 64):
        entry = int.from_bytes(storage.content[table + index * 8 : table + index * 8 + 8], "big")
        if not entry:
            continue
        block = bytes(storage.content[entry : entry + 512])
        values = [from_the_specification(block, at, bits) for at in range(per_block)]
        assert set(values) <= {0, 1}
        used += sum(values)
    assert used == storage.size // 512


@pytest.mark.parametrize("bits", [1, 16, 64])
def test_a_refcount_table_moves_when_it_is_full(bits: int) -> None:
    """Fails if growing beyond the table loses counts, or counts the table itself wrongly."""
    options = parse_options(
        "qcow2", FORMAT.options, {"cluster_size": "512", "refcount_bits": str(bits)}
    )
    storage = MemoryStorage()
    FORMAT.create(storage, CreateSpec(512, DictOpener(), options)).commit()
    area = header.read(storage)
    refcounts = Refcounts.open(storage, area)
    moves: list[tuple[int, int]] = []
    wanted = area.header.refcount_table_clusters * 64 * refcounts.per_block + 10
    taken: set[int] = set()
    while refcounts.tail <= wanted:
        first, count = refcounts.allocate(997)
        assert not taken & set(range(first, first + count))
        taken.update(range(first, first + count))
    storage.resize(refcounts.tail * 512)
    refcounts.write_back(lambda offset, clusters: moves.append((offset, clusters)))
    refcounts.settle()
    assert moves
    offset, clusters = moves[-1]
    moved = area.with_header(refcount_table_offset=offset, refcount_table_clusters=clusters)
    again = Refcounts.open(storage, moved)
    assert all(again.get(cluster) == 1 for cluster in taken)
    assert again.tail == refcounts.tail
    old = area.header.refcount_table_offset // 512
    assert again.get(old) == 0


def test_freed_clusters_are_used_again_but_not_before_it_is_safe() -> None:
    """Fails if a cluster that tables in the file still refer to is given to somebody else."""
    storage = MemoryStorage()
    spec = CreateSpec(1 << 20, DictOpener(), parse_options("qcow2", FORMAT.options, {}))
    layer = create.make_layer(storage, create.plan(spec), spec)
    refcounts = layer.writer.refcounts
    first, _ = refcounts.allocate(10)
    refcounts.release(first + 2, 3)
    assert refcounts.allocate(1)[0] == first + 10
    assert refcounts.settle() == [(first + 2, 3)]
    assert refcounts.allocate(5) == (first + 2, 3)
    refcounts.release(first + 9, 1)
    refcounts.release(first + 10, 1)
    refcounts.settle()
    assert refcounts.tail == first + 9  # the end of the file is given back at once


def test_counts_that_leave_their_range_are_errors() -> None:
    """Fails if a refcount wraps round: the cluster would be free and in use."""
    storage = MemoryStorage()
    options = parse_options("qcow2", FORMAT.options, {"refcount_bits": "1"})
    spec = CreateSpec(1 << 20, DictOpener(), options)
    refcounts = create.make_layer(storage, create.plan(spec), spec).writer.refcounts
    with pytest.raises(UnsupportedFeatureError, match="at most 1 references"):
        refcounts.add(0, 1, 1)
    first, _ = refcounts.allocate(1)
    refcounts.add(first, 1, -1)
    with pytest.raises(CorruptImageError, match="expected at least 1"):
        refcounts.add(first, 1, -1)


@given(data=st.data(), bits=st.integers(9, 21))
def test_a_compressed_descriptor_says_where_and_how_long(data: st.DataObject, bits: int) -> None:
    """Fails if the split between offset and sectors is not where the specification has it."""
    offset = data.draw(st.integers(0, min(1 << 62 - (bits - 8), 1 << 56) - 1))
    length = data.draw(st.integers(1, (1 << bits) - 1))
    entry = compressed.pack_descriptor(offset, length, bits)
    x = 62 - (bits - 8)
    assert entry >> 62 == 1
    assert entry & (1 << x) - 1 == offset
    assert (entry >> x) & ((1 << 62 - x) - 1) == (offset + length - 1) // 512 - offset // 512
    found, stored = compressed.unpack_descriptor(entry, bits)
    assert found == offset
    assert length <= stored < length + 512
    assert (found + stored) % 512 == 0
    first, count = compressed.host_clusters(entry, bits)
    assert first == offset >> bits
    assert first + count - 1 == (offset + length - 1) >> bits


def test_a_descriptor_cannot_point_behind_its_bits() -> None:
    """Fails if an offset is silently cut off: 2 MiB clusters reach 512 TiB."""
    compressed.pack_descriptor((1 << 49) - 1, 1, 21)
    with pytest.raises(TargetError):
        compressed.pack_descriptor(1 << 49, 1, 21)
