"""The arithmetic of the benchmark of repositories: a wrong one would make bars hold or miss."""

from __future__ import annotations

import random
import string
import subprocess
import sys
from pathlib import Path

import pytest

# The benchmarks are programs beside the package, not a part of it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks import store_table
from benchmarks.keepers import KEEPERS, STEPS, STORE_A, STORE_B, STORE_C
from benchmarks.large import per_tib
from benchmarks.measuring import FailedError, run_measured
from benchmarks.ranges import data_of, differing, merge, offsets, same
from benchmarks.reading import reads_in_a_row
from benchmarks.results import Measured, Results
from benchmarks.series import Group, choose, groups_of, rebuilt

ROOT = Path(__file__).resolve().parent.parent.parent
MIB = 1 << 20
GIB = 1 << 30
FIELDS = ("live", "stale", "sibling", "sibling_stale")
TOOLS = ("imprint", "borg", "borg-fixed", "restic", "ideal")


def _results(kind: str = "ext4", size: int = 4 * GIB) -> Results:
    return Results(kind, TOOLS, size=size, difference=10 * MIB)


def _run(wall_s: float = 1.0, cpu_s: float = 1.0, kept: float = 0.0) -> Measured:
    return Measured(wall_s, cpu_s, 50 * MIB, 0, 0, kept * MIB)


def _row(results: Results, what: str) -> store_table.Row:
    (row,) = (row for row in store_table.rows(results) if row.what == what)
    return row


def _kept(results: Results, tool: str, *sizes: float) -> None:
    for step, kept in zip((STORE_A, STORE_B, STORE_C), sizes, strict=True):
        results.add(tool, step.name, _run(kept=kept))


def test_sizes_are_compared_with_the_better_of_borg_and_restic() -> None:
    """Fails if the worse one were beaten instead, or the ideal pipeline counted as a rival."""
    results = _results()
    _kept(results, "imprint", 610, 635, 807)
    _kept(results, "borg", 1130, 1282, 2077)
    _kept(results, "borg-fixed", 1136, 1599, 2686)
    _kept(results, "restic", 1172, 1312, 2010)
    _kept(results, "ideal", 622, 680, 1124)
    everything = _row(results, "kept: A+B+C")
    assert everything.ratio == pytest.approx(807 / 2010)
    assert (everything.bar, everything.holds) == (0.42, True)
    own = _row(results, "kept: C's own")
    assert own.values == pytest.approx(
        {"imprint": 172, "borg": 795, "borg-fixed": 1087, "restic": 698, "ideal": 444}
    )
    assert own.ratio == pytest.approx(172 / 698)
    assert (own.bar, own.holds) == (0.30, True)


def test_an_unknown_file_system_is_compared_with_fixed_chunks() -> None:
    """Fails if a disk that nobody can cut well had to be smaller than what is possible."""
    results = _results("opaque")
    _kept(results, "imprint", 1129, 1234, 1970)
    _kept(results, "borg", 1130, 1282, 2077)
    _kept(results, "ideal", 1129, 1234, 1962)
    everything = _row(results, "kept: A+B+C")
    assert everything.ratio == pytest.approx(1970 / 1962)
    assert everything.holds is False
    assert _row(results, "kept: C's own").holds is None
    assert _row(results, "wall: store A").holds is None


def test_times_are_medians_compared_with_the_faster_rival() -> None:
    """Fails if one slow minute, or the slower of two rivals, decided."""
    results = _results()
    for ours, borg, restic in ((4.0, 16.0, 10.5), (3.9, 15.0, 10.0), (40.0, 14.0, 9.5)):
        results.add("imprint", "store A", _run(wall_s=ours))
        results.add("borg", "store A", _run(wall_s=borg))
        results.add("restic", "store A", _run(wall_s=restic))
    row = _row(results, "wall: store A")
    assert row.values == {"imprint": 4.0, "borg": 15.0, "restic": 10.0}
    assert row.ratio == pytest.approx(0.4)
    assert row.holds is True
    spread = _row(results, "largest spread of wall")
    assert spread.values["restic"] == pytest.approx(0.1)


@pytest.mark.parametrize(("cpu_s", "holds"), [(1.29, True), (1.31, False)])
def test_processor_time_is_compared_with_the_ideal_pipeline(cpu_s: float, holds: bool) -> None:
    """Fails if a rival that wastes processors set the bar."""
    results = _results()
    results.add("imprint", "store C", _run(cpu_s=cpu_s))
    results.add("ideal", "store C", _run(cpu_s=1.0))
    results.add("restic", "store C", _run(cpu_s=9.0))
    assert _row(results, "CPU: store C").holds is holds


@pytest.mark.parametrize(("wall_s", "holds"), [(0.49, True), (0.51, False)])
def test_an_unchanged_disk_has_a_second_for_four_gibibytes(wall_s: float, holds: bool) -> None:
    """Fails if small disks were given as long as large ones."""
    results = _results(size=2 * GIB)
    results.add("imprint", "store B again", _run(wall_s=wall_s))
    row = _row(results, "wall: store B again")
    assert row.limit == pytest.approx(0.5)
    assert row.holds is holds


@pytest.mark.parametrize(("ours", "holds"), [(2000.0, True), (1900.0, False)])
def test_rates_are_compared_the_other_way_round(ours: float, holds: bool) -> None:
    """Fails if being slow at reading looked like an advantage."""
    results = _results()
    results.add_rate("imprint", "random", ours)
    results.add_rate("borg", "random", 100.0)
    results.add_rate("borg-fixed", "random", 200.0)
    row = _row(results, "random reading")
    assert row.ratio == pytest.approx(200 / ours)
    assert row.holds is holds


def test_restoring_over_another_disk_may_move_only_what_differs() -> None:
    """Fails if reading the whole target counted as reading too much, or rewriting it did not."""
    results = _results()
    results.target = 100 * MIB
    read, written = 100 * MIB + 30 * MIB, 60 * MIB
    results.add("imprint", "B over A", Measured(1, 1, 0, read, written, 0))
    reading = _row(results, "B over A: read beyond the target")
    assert reading.values == {"imprint": 30}
    assert reading.holds is True
    writing = _row(results, "B over A: written")
    assert writing.ratio == pytest.approx(6)
    assert writing.holds is False


def test_who_fails_misses_and_a_rival_who_fails_is_left_out() -> None:
    """Fails if a crash would win, or would spoil the whole table."""
    results = _results()
    for tool, wall_s in (("imprint", 1.0), ("borg", 2.0), ("restic", 20.0)):
        results.add(tool, "store A", _run(wall_s=wall_s))
    results.failures["borg"] = "no room"
    assert _row(results, "wall: store A").ratio == pytest.approx(0.05)
    results.failures["imprint"] = "crashed"
    assert _row(results, "wall: store A").holds is False
    text = store_table.render(store_table.rows(results), [results], {"date": "x"}, markdown=True)
    assert "ext4, imprint: crashed" in text


def test_peers_alone_have_no_bars() -> None:
    """Fails if a run without imprint were reported as missed."""
    results = Results("ext4", ("borg", "restic"), size=GIB, difference=1)
    results.add("borg", "store A", _run())
    assert {row.holds for row in store_table.rows(results)} == {None}


def test_ranges_that_touch_are_one() -> None:
    """Fails if reads were cut where the map changes its source only."""
    assert merge([(0, 10), (10, 5), (20, 1), (21, 9)]) == [(0, 15), (20, 10)]
    assert merge([(20, 5), (0, 10), (5, 20), (2, 1)]) == [(0, 25)]
    assert merge([]) == []


def test_data_of_a_sparse_file_is_found(tmp_path: Path) -> None:
    """Fails if reading a target's holes were expected."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        for offset in (0, 8 * MIB):
            file.seek(offset)
            file.write(b"x" * MIB)
        file.truncate(16 * MIB)
    assert data_of(path) == [(0, MIB), (8 * MIB, MIB)]


def test_random_offsets_are_whole_blocks_in_use() -> None:
    """Fails if free space were read, where every store is fast, or some places never were."""
    ranges = [(4096, 4096), (1 << 20, 8 * 4096), (1 << 30, 4096 + 512)]
    blocks = {4096, 1 << 30} | {(1 << 20) + 4096 * number for number in range(8)}
    found = offsets(ranges, 500, 1)
    assert len(found) == 500
    assert set(found) == blocks
    assert found == offsets(ranges, 500, 1)
    assert found != offsets(ranges, 500, 2)
    assert found != sorted(found)


def test_sequential_reads_stop_at_the_limit() -> None:
    """Fails if the amount that is divided by the time were not what was read."""
    reads = reads_in_a_row([(0, 3 * MIB + 5), (10 * MIB, 9 * MIB)], 5 * MIB)
    assert reads[0] == reads[1] == (0, MIB)
    assert sum(length for _, length in reads[1:]) == 5 * MIB
    assert reads[4] == (3 * MIB, 5)
    assert reads[5] == (10 * MIB, MIB)


def test_differences_count_in_blocks_and_only_in_ranges(tmp_path: Path) -> None:
    """Fails if the bar for what may be written were too low or too high."""
    one, other = tmp_path / "one", tmp_path / "other"
    content = bytearray(random.Random(1).randbytes(2 * MIB))
    one.write_bytes(content)
    for at in (5, 4095, 4096 * 3, MIB + 4096 * 7 + 1, 2 * MIB - 1):
        content[at] ^= 1
    other.write_bytes(content)
    everything = [(0, 2 * MIB)]
    assert differing(one, other, everything) == 4 * 4096
    assert differing(one, other, [(0, MIB), (MIB, MIB)]) == 4 * 4096
    assert differing(one, other, [(4096, 4096), (8192, 8192)]) == 4096
    assert same(one, other, [(4096, 8192)])
    assert not same(one, other, everything)


def test_a_run_counts_memory_and_input_of_children(tmp_path: Path) -> None:
    """Fails if a tool could hide what it takes in another process."""
    program = (
        "import os, subprocess, sys, time\n"
        "held = bytearray(40 << 20)\n"
        "if len(sys.argv) == 1:\n"
        "    subprocess.run([sys.executable, __file__, 'child'], check=True)\n"
        "else:\n"
        "    time.sleep(0.5)\n"
        f"    open({str(tmp_path / 'out')!r}, 'wb').write(held)\n"
        "print('done')\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program, encoding="utf-8")
    settled: list[bool] = []
    run = run_measured(
        [sys.executable, str(script)], lambda: settled.append(True), watch=True, keep=True
    )
    assert settled == [True]
    assert run.tree_peak >= 80 * MIB
    assert run.peak >= 40 * MIB  # no bound above: Linux counts the memory of who starts it
    assert 40 * MIB <= run.written < 41 * MIB
    assert run.wall_s >= 0.5
    assert run.output == b"done\ndone\n"


def test_a_run_that_fails_says_why() -> None:
    """Fails if a program that does not work counted as a fast one."""
    with pytest.raises(FailedError, match="exit code 3"):
        run_measured(["sh", "-c", "exit 3"], lambda: None)
    with pytest.raises(FailedError, match="ValueError: so"):
        run_measured([sys.executable, "-c", "raise ValueError('so')"], lambda: None)
    with pytest.raises(FailedError, match="No such file"):
        run_measured(["/nowhere/at/all"], lambda: None)


def _groups(count: int, room: int) -> list[Group]:
    return [Group(f"g{number}", (Path(f"/usr/f{number}"),), room) for number in range(count)]


def test_a_sibling_shares_four_fifths_of_the_files() -> None:
    """Fails if the bar for C's own share were measured on another sort of disk."""
    groups = _groups(1000, MIB)
    choice = choose(groups, 300 * MIB)
    names = {field: {group.name for group in getattr(choice, field)} for field in FIELDS}
    assert len(names["live"]) == len(names["sibling"]) == 300
    assert len(names["live"] & names["sibling"]) == 240
    assert not names["live"] & names["stale"]
    assert not names["sibling"] & names["sibling_stale"]
    assert choose(list(reversed(groups)), 300 * MIB).live == choice.live


def test_large_folders_are_several_groups(tmp_path: Path) -> None:
    """Fails if one folder could make up a whole disk, or a file got lost."""
    for number in range(350):
        path = tmp_path / ("many" if number else "few") / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * number)
    files = sorted(tmp_path.rglob("f*"))
    files = [path for path in files if path.is_file()]
    groups = groups_of(files, tmp_path)
    assert sorted(path for group in groups for path in group.files) == files
    assert [len(group.files) for group in groups] == [1, 300, 49]
    assert [group.room for group in groups] == [0, 300 * 4096, 49 * 4096]


def test_an_upgrade_changes_files_in_three_ways() -> None:
    """Fails if B differed from A in all of a file, or in nothing, every time."""
    content = random.Random(1).randbytes(200_000)
    kinds = {"same": 0, "edited": 0, "new": 0}
    for number in range(300):
        path = Path(f"/usr/lib/f{number}")
        changed = rebuilt(path, content)
        assert changed == rebuilt(path, content)
        if changed == content:
            kinds["same"] += 1
        elif len(changed) > len(content):
            kinds["edited"] += 1
        else:
            assert len(changed) == len(content)
            kinds["new"] += 1
    assert 90 <= kinds["same"] <= 150
    assert 90 <= kinds["edited"] <= 150
    assert 35 <= kinds["new"] <= 90


def test_the_ideal_pipeline_keeps_disks_once(tmp_path: Path) -> None:
    """Fails if imprint were compared with a pipeline that leaves work out."""
    program = [sys.executable, str(ROOT / "benchmarks" / "ideal.py")]
    content = random.Random(2).randbytes(2 * MIB) + bytes(MIB) + b"text" * (MIB // 4) + b"end"
    disk, ranges, repo = tmp_path / "disk", tmp_path / "ranges", tmp_path / "repo"
    disk.write_bytes(content)
    ranges.write_text(f"[[4096, {2 * MIB}], [{3 * MIB}, {MIB + 3}]]", encoding="ascii")
    sizes = []
    for snapshot in ("a", "b"):
        words = ["store", str(repo), snapshot, str(disk), str(ranges)]
        subprocess.run([*program, *words], check=True)
        sizes.append((repo / "data").stat().st_size)
    assert sizes[0] == sizes[1]
    assert 2 * MIB - 4096 < sizes[0] < 2 * MIB + 4096
    out = tmp_path / "out"
    subprocess.run([*program, "restore", str(repo), "b", str(out)], check=True)
    restored = out.read_bytes()
    assert restored == bytes(4096) + content[4096:]


def test_index_cost_is_for_a_tebibyte_of_chunks() -> None:
    """Fails if the index cost that is told were for another number of chunks."""
    count = (1 << 40) // (270 << 10)
    assert per_tib(44 * count, count) == pytest.approx(44 * count, rel=1e-6)
    assert per_tib(44 * 1000, 1000) == pytest.approx(44 * 3_976_821.57, rel=1e-6)


def test_commands_name_only_what_is_put_in() -> None:
    """Fails if a keeper's command could not be run for a misspelt place."""
    places = {"repo", "cache", "mount", "series", "kind", "disk", "file", "snapshot", "image"}
    places |= {"ranges", "scratch", "out", "volume"}
    for keeper in KEEPERS:
        commands = [*keeper.make, *(keeper.command(step.work) for step in STEPS)]
        commands += [keeper.mount, keeper.unmount, (keeper.address or "",)]
        for word in (word for command in commands if command for word in command):
            fields = {field for _, field, _, _ in string.Formatter().parse(word) if field}
            assert fields <= places, (keeper.name, word)
