"""Which snapshots a policy keeps, compared with restic and with arithmetic."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any

import pytest

from imprint.core.errors import UsageError
from imprint.repository.retention import ALL, Policy, Verdict, apply
from imprint.repository.snapshots import Manifest, Snapshot, time_text

if TYPE_CHECKING:
    from pathlib import Path

TIMES = [
    "2024-12-31 23:59:59",
    "2025-01-01 00:00:00",
    "2025-06-15 12:00:00",
    "2025-12-28 22:00:00",  # a Sunday: the last day of an ISO week
    "2025-12-29 01:00:00",  # the first week of 2026, by ISO 8601
    "2026-01-01 10:00:00",
    "2026-01-01 10:59:59",
    "2026-01-01 11:00:00",
    "2026-01-02 11:30:00",
    "2026-01-05 08:00:00",
    "2026-01-31 08:00:00",
    "2026-02-01 08:00:00",
    "2026-02-01 08:00:01",
]
POLICIES = [
    {"last": 3},
    {"last": 100},
    {"hourly": 4},
    {"daily": 5},
    {"daily": 50},
    {"weekly": 3},
    {"weekly": 50},
    {"monthly": 4},
    {"yearly": 2},
    {"yearly": 9},
    {"last": 1, "hourly": 2, "daily": 3, "weekly": 4, "monthly": 5, "yearly": 6},
    {"within": 31},
    {"within": 1, "daily": 2},
    {"daily": 1, "within": 400},
]


def snapshot(moment: datetime, image: str = "disk") -> Snapshot:
    text = time_text(moment)
    return Snapshot(f"{image}-{text}", Manifest(image, text, 0, "00" * 32))


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def policy_of(rules: dict[str, int]) -> Policy:
    counts: dict[str, Any] = {name: count for name, count in rules.items() if name != "within"}
    within = timedelta(days=rules["within"]) if "within" in rules else None
    return replace(Policy(within=within), **counts)


def kept_times(
    times: list[datetime], policy: Policy, zone: tzinfo = UTC, *, oldest: bool = True
) -> list[datetime]:
    verdicts = apply([snapshot(item) for item in times], {}, policy, zone=zone)
    if not oldest:
        verdicts = [item._replace(reasons=newer_reasons(item)) for item in verdicts]
    return sorted(item.snapshot.manifest.taken for item in verdicts if item.is_kept)


def newer_reasons(verdict: Verdict) -> tuple[str, ...]:
    """Without the rule that keeps the oldest, which restic has only since version 0.16."""
    return tuple(item for item in verdict.reasons if not item.startswith("oldest"))


def restic(folder: Path, *arguments: str) -> bytes:
    environment = {**os.environ, "RESTIC_PASSWORD": "x", "TZ": "UTC"}
    command = ["restic", "--no-cache", "-r", str(folder), "--json", *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def restic_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Snapshots of all times."""
    folder = tmp_path_factory.mktemp("restic")
    restic(folder / "repository", "init")
    (folder / "file").write_text("x")
    for time in TIMES:
        backup = ("backup", "--host", "h", "--time", time, str(folder / "file"))
        restic(folder / "repository", *backup)
    return folder / "repository"


@pytest.mark.oracle("restic")
def test_the_same_is_kept_as_restic_keeps(restic_folder: Path) -> None:
    """Fails if a rule that users know from elsewhere keeps other snapshots here."""
    for rules in POLICIES:
        arguments = [
            text
            for name, count in rules.items()
            for text in (f"--keep-{name}", f"{count}d" if name == "within" else str(count))
        ]
        (group,) = json.loads(restic(restic_folder, "forget", "--dry-run", *arguments))
        expected = {datetime.fromisoformat(item["time"]) for item in group["keep"]}
        found = kept_times([moment(text) for text in TIMES], policy_of(rules), oldest=False)
        assert set(found) == expected, rules
        reasons = {
            datetime.fromisoformat(item["snapshot"]["time"]): len(item["matches"])
            for item in group["reasons"]
        }
        for verdict in apply([snapshot(moment(text)) for text in TIMES], {}, policy_of(rules)):
            number = len(newer_reasons(verdict))
            assert number == reasons.get(verdict.snapshot.manifest.taken, 0), rules


def test_the_newest_of_each_day_is_kept() -> None:
    """Fails if a day keeps another snapshot than its last, or days without any count."""
    start = moment("2026-03-01 00:00:00")
    times = [start + timedelta(hours=5 * number) for number in range(40) if number not in (10, 11)]
    expected = {}
    for time in times:
        expected[time.date()] = time
    newest_days = sorted(expected)[-4:]
    assert kept_times(times, Policy(daily=4)) == [expected[day] for day in newest_days]


def test_the_oldest_is_kept_while_a_rule_has_room() -> None:
    """Fails if a history that begins within one month loses its first day to --keep-monthly."""
    times = [moment("2026-03-01 00:00:00") + timedelta(days=number) for number in range(20)]
    verdicts = apply([snapshot(time) for time in times], {}, Policy(monthly=3))
    assert verdicts[0].reasons == ("monthly",)
    assert verdicts[-1].reasons == ("oldest monthly",)
    assert not any(item.is_kept for item in verdicts[1:-1])


def test_each_image_is_looked_at_by_itself() -> None:
    """Fails if many snapshots of one disk push out those of another."""
    times = [moment("2026-03-01 00:00:00") + timedelta(days=number) for number in range(5)]
    snapshots = [snapshot(time, "busy") for time in times] + [snapshot(times[0], "old")]
    kept = [item.snapshot for item in apply(snapshots, {}, Policy(last=2)) if item.is_kept]
    assert [item.manifest.image for item in kept] == ["busy", "busy", "old"]


def test_protected_and_tagged_snapshots_are_kept_and_say_why() -> None:
    """Fails if a policy forgets what the user has marked."""
    times = [moment("2026-03-01 00:00:00") + timedelta(days=number) for number in range(4)]
    snapshots = [snapshot(time) for time in times]
    tags = {snapshots[0].name: ("protected",), snapshots[1].name: ("golden", "x")}
    verdicts = apply(snapshots, tags, Policy(last=1, tags=frozenset({"golden"})))
    assert [item.reasons for item in verdicts] == [("last",), (), ("tag golden",), ("protected",)]


def test_days_begin_where_the_user_is() -> None:
    """Fails if two evenings of one local day count as two days."""
    times = [moment("2026-03-01 22:30:00"), moment("2026-03-02 01:30:00")]
    west = timezone(timedelta(hours=-8))
    assert kept_times([moment("2026-02-20 00:00:00"), *times], Policy(daily=1)) == times[1:]
    assert len(kept_times(times, Policy(daily=1, last=0), zone=west)) == 1
    daily = apply([snapshot(time) for time in times], {}, Policy(daily=7), zone=west)
    assert [item.reasons for item in daily] == [("daily",), ("oldest daily",)]


def test_all_of_a_kind_can_be_kept() -> None:
    """Fails if -1 is taken for a number."""
    times = [moment("2026-03-01 00:00:00") + timedelta(days=number) for number in range(9)]
    assert kept_times(times, Policy(daily=ALL)) == times
    assert kept_times(times, Policy(last=ALL)) == times


@pytest.mark.parametrize(
    "policy", [Policy(), Policy(last=-2), Policy(within=timedelta(-1)), Policy(within=timedelta(0))]
)
def test_a_policy_that_keeps_nothing_is_refused(policy: Policy) -> None:
    """Fails if `forget` without a rule forgets everything."""
    with pytest.raises(UsageError):
        apply([snapshot(moment("2026-03-01 00:00:00"))], {}, policy)
