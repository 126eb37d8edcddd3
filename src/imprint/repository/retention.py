"""Which snapshots are kept, and why: a function of their times, tags and a policy alone.

The rules are those that users of backup programs know. Of each image by itself, newest first: a
rule such as *7 daily* keeps the newest snapshot of each of the last 7 days that have one. The
oldest snapshot is kept too while a rule has not found as many as it may keep, so that a history
that is just beginning does not lose its first day.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final, NamedTuple

from imprint.core.errors import UsageError
from imprint.repository.snapshots import newest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from imprint.repository.snapshots import Snapshot

PROTECTED: Final = "protected"
"""The tag of a snapshot that no policy forgets."""

ALL: Final = -1
"""Of a rule: keep as many as there are."""


@dataclass(frozen=True)
class Policy:
    """What to keep of each image. A snapshot is kept if any rule says so.

    Attributes:
        last: the newest so many.
        hourly: the newest of each of so many hours that have one.
        daily: of so many days.
        weekly: of so many weeks, which begin on Monday.
        monthly: of so many months.
        yearly: of so many years.
        within: whatever is not older than this, seen from the image's newest snapshot.
        tags: whatever has one of these.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: timedelta | None = None
    tags: frozenset[str] = frozenset()

    def check(self) -> None:
        """Make sure that it keeps something.

        Raises:
            UsageError: if it would forget everything, or makes no sense.
        """
        counts = [getattr(self, item.name) for item in fields(self)[:6]]
        if min(counts) < ALL:
            raise UsageError(f"expected a number of snapshots to keep, found {min(counts)}")
        if self.within is not None and self.within < timedelta(0):
            raise UsageError("expected a time that is not negative to keep snapshots for")
        if not any(counts) and not self.within and not self.tags:
            raise UsageError(
                "expected a rule that keeps something, found none",
                advice="such as --keep-last 3 or --keep-daily 7",
            )


class Verdict(NamedTuple):
    """What a policy says of a snapshot.

    Attributes:
        snapshot: it is about.
        reasons: why it is kept; none: it is not.
    """

    snapshot: Snapshot
    reasons: tuple[str, ...]

    @property
    def is_kept(self) -> bool:
        """Whether there is a reason to keep it."""
        return bool(self.reasons)


class _Rule:
    """Keeps the newest of each of some periods."""

    def __init__(self, reason: str, count: int, period: Callable[[datetime], object]) -> None:
        self._reason = reason
        self._left = count
        self._period = period
        self._last: object = None

    def reason(self, moment: datetime, *, is_oldest: bool) -> str | None:
        """Why a snapshot is kept; they come newest first."""
        if self._left == 0:
            return None
        period = self._period(moment)
        is_new = period != self._last
        if not is_new and not is_oldest:
            return None
        self._last = period
        self._left -= self._left > 0
        return self._reason if is_new else f"oldest {self._reason}"


def apply(
    snapshots: Sequence[Snapshot],
    tags: Mapping[str, Sequence[str]],
    policy: Policy,
    *,
    zone: tzinfo | None = UTC,
) -> list[Verdict]:
    """What a policy says of each snapshot, newest first within each image.

    Args:
        snapshots: of any images; each image is looked at by itself.
        tags: of snapshots, by name.
        policy: that is applied.
        zone: in which days and hours begin; ``None``: where this machine is.

    Raises:
        UsageError: if the policy keeps nothing.
    """
    policy.check()
    images = sorted({snapshot.manifest.image for snapshot in snapshots})
    return [
        verdict
        for image in images
        for verdict in _apply_to_image(
            newest_first([item for item in snapshots if item.manifest.image == image]),
            tags,
            policy,
            zone,
        )
    ]


def _apply_to_image(
    snapshots: Sequence[Snapshot],
    tags: Mapping[str, Sequence[str]],
    policy: Policy,
    zone: tzinfo | None,
) -> list[Verdict]:
    rules = _rules(policy)
    newest = snapshots[0].manifest.taken
    verdicts = []
    for number, snapshot in enumerate(snapshots):
        own = frozenset(tags.get(snapshot.name, ()))
        moment = snapshot.manifest.taken.astimezone(zone)
        reasons = [PROTECTED] if PROTECTED in own else []
        reasons += [f"tag {tag}" for tag in sorted(own & policy.tags)]
        if number < policy.last or policy.last == ALL:
            reasons.append("last")
        is_oldest = number == len(snapshots) - 1
        found = (rule.reason(moment, is_oldest=is_oldest) for rule in rules)
        reasons += [reason for reason in found if reason is not None]
        if policy.within is not None and newest - snapshot.manifest.taken < policy.within:
            reasons.append("within")
        verdicts.append(Verdict(snapshot, tuple(reasons)))
    return verdicts


def _rules(policy: Policy) -> list[_Rule]:
    return [
        _Rule("hourly", policy.hourly, lambda moment: (moment.date(), moment.hour)),
        _Rule("daily", policy.daily, lambda moment: moment.date()),
        _Rule("weekly", policy.weekly, lambda moment: moment.isocalendar()[:2]),
        _Rule("monthly", policy.monthly, lambda moment: (moment.year, moment.month)),
        _Rule("yearly", policy.yearly, lambda moment: moment.year),
    ]
