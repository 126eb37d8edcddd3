"""What a registered format is, and how its options are declared.

A format is one object: :class:`Format` is what all have; further abilities are the
small protocols below it, and a format has one by having its methods.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from imprint.core.contracts import Encoding, Opener, Reference, Source, Storage, Target
from imprint.core.errors import UsageError
from imprint.core.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from imprint.core.events import Finding
    from imprint.core.image import Image, WritableImage
    from imprint.core.info import SnapshotInfo
    from imprint.core.runs import Runs

OptionValue = str | int | bool


class Match(enum.IntEnum):
    """How sure a probe is."""

    NO = 0
    WEAK = 1
    STRONG = 2


class OptionKind(enum.Enum):
    """How the text of an option is read."""

    SIZE = "size"
    NUMBER = "number"
    SWITCH = "on|off"
    TEXT = "text"


@dataclass(frozen=True)
class Option:
    """One ``-o NAME=VALUE`` of a format.

    Attributes:
        name: as users of qemu-img know it.
        doc: one line.
        kind: how its text is read.
        default: used when it is not given; ``None``: the format decides.
        choices: what is allowed; empty: anything of the kind.
        archive: takes the default's place where an image is made to be kept: compressed, and of
            what file systems use only; ``None``: the default does.
    """

    name: str
    doc: str
    kind: OptionKind = OptionKind.TEXT
    default: OptionValue | None = None
    choices: tuple[OptionValue, ...] = ()
    archive: OptionValue | None = None

    def parse(self, text: str) -> OptionValue:
        """The value that ``text`` stands for.

        Raises:
            UsageError: if it is not of the option's kind, or not among its choices.
        """
        value = self._convert(text)
        if self.choices and value not in self.choices:
            allowed = ", ".join(str(choice) for choice in self.choices)
            raise UsageError(f"option {self.name}: expected one of {allowed}, found {text!r}")
        return value

    def _convert(self, text: str) -> OptionValue:
        if self.kind is OptionKind.SIZE:
            try:
                return parse_size(text)
            except UsageError as error:
                raise UsageError(f"option {self.name}: {error.args[0]}") from None
        if self.kind is OptionKind.NUMBER:
            try:
                return int(text)
            except ValueError:
                raise UsageError(f"option {self.name}: expected a number, found {text!r}") from None
        if self.kind is OptionKind.SWITCH:
            if text in ("on", "true", "yes", "1"):
                return True
            if text in ("off", "false", "no", "0"):
                return False
            raise UsageError(f"option {self.name}: expected on or off, found {text!r}")
        return text


def parse_options(
    format_name: str,
    options: Iterable[Option],
    given: Mapping[str, str],
    *,
    used_only: bool = False,
) -> dict[str, OptionValue]:
    """Values for what was given, and the defaults of the rest that have one.

    Args:
        format_name: for errors.
        options: that the format has.
        given: by name, as text.
        used_only: the image will have only what file systems use.

    Raises:
        UsageError: for an unknown option, or a value that its option does not allow.
    """
    known = {option.name: option for option in options}
    for name in given:
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise UsageError(f"format {format_name} has no option {name!r}; it has: {listed}")
    is_archive = used_only and given.get("compression", "none") != "none"
    values: dict[str, OptionValue] = {}
    for name, option in known.items():
        if name in given:
            values[name] = option.parse(given[name])
        elif is_archive and option.archive is not None:
            values[name] = option.archive
        elif option.default is not None:
            values[name] = option.default
    return values


@dataclass(frozen=True)
class CreateSpec:
    """What a new image shall be.

    Attributes:
        size: of the disk, in bytes.
        opener: for the parent's name, a data file's storage and a passphrase.
        options: as :func:`parse_options` gives them.
        parent: what to write into the image as its parent.
        parent_source: that parent, opened; given exactly if ``parent`` is.
        time_s: when the image shall say that it was made, in seconds since 1970; ``None``:
            now. With it and a given UUID, the same disk gives the same file.
        sector: of the disk that it will hold, in bytes: its tables count in these.
    """

    size: int
    opener: Opener
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    parent: Reference | None = None
    parent_source: Source | None = None
    time_s: int | None = None
    sector: int = 512


@dataclass(frozen=True)
class Support:
    """What imprint can do with a format, for ``imprint formats`` and the docs."""

    read: bool = True
    write: bool = False
    stream: bool = False
    edit: bool = False
    check: bool = False
    repair: bool = False
    parent: bool = False
    snapshots: bool = False


class Format(Protocol):
    """What every format can do. Stateless."""

    @property
    def name(self) -> str:
        """As in ``-f`` and ``-O``."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def support(self) -> Support:
        """What can be done with it."""

    @property
    def options(self) -> tuple[Option, ...]:
        """Of ``create``."""

    def probe(self, storage: Storage) -> Match:
        """Whether the storage holds this format; reads at most 64 KiB at each end."""

    def open(self, storage: Storage, opener: Opener) -> Image:
        """Open for reading. The image owns the storage then; on an error the caller does.

        Raises:
            FormatError: if the content is not a sound image of this format.
        """

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Open for writing in place; as :meth:`open` otherwise.

        Raises:
            UnsupportedFeatureError: if this format, or this image, can only be read.
        """

    def create(self, storage: Storage, spec: CreateSpec) -> Target:
        """Lay out a new, empty image in an empty storage.

        Raises:
            UsageError: if the options contradict each other or the size.
        """

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """Predict what storing ``source`` would take, without reading its data."""


@dataclass(frozen=True)
class Measure:
    """A prediction of a file's size.

    Attributes:
        required: bytes for the data there is, uncompressed.
        fully_allocated: bytes when every byte of the disk is written.
    """

    required: int
    fully_allocated: int


@runtime_checkable
class Checkable(Protocol):
    """A format with structures that can be checked."""

    def check(self, storage: Storage, opener: Opener, *, repair: bool) -> Iterator[Finding]:
        """Compare the image's tables with each other. Changes nothing without ``repair``."""


@runtime_checkable
class SnapshotKeeping(Protocol):
    """A format with internal snapshots. ``key`` is a snapshot's name or id."""

    def open_snapshot(self, storage: Storage, opener: Opener, key: str) -> Image:
        """The disk as it was."""

    def create_snapshot(self, storage: Storage, opener: Opener, name: str) -> SnapshotInfo:
        """Keep the disk as it is now."""

    def apply_snapshot(self, storage: Storage, opener: Opener, key: str) -> None:
        """Go back: the disk's present content is lost."""

    def delete_snapshot(self, storage: Storage, opener: Opener, key: str) -> None:
        """Forget it and give its room back."""


@runtime_checkable
class ChangeKeeping(Protocol):
    """A format whose images can note what is written to them."""

    def written(self, storage: Storage, name: str) -> Runs:
        """What was written since the bitmap ``name`` was made, in bytes of the disk.

        Raises:
            UsageError: if there is no such bitmap.
            UnsupportedFeatureError: if it has missed something.
        """


@runtime_checkable
class Rebasable(Protocol):
    """A format whose images can be told that their parent is another one."""

    def set_parent(self, storage: Storage, opener: Opener, parent: Reference | None) -> None:
        """Change the name only; the caller has seen to the content."""


SizePolicy = Literal["chs", "current"]
"""Which of two sizes counts: the one of the geometry, or the one that has a field."""


@runtime_checkable
class SizeChoosing(Protocol):
    """A format whose images say their size twice, and not always the same."""

    def with_size_policy(self, policy: SizePolicy | None) -> Format:
        """The format for images of which the caller knows what counts; ``None``: it decides."""


@runtime_checkable
class Gapped(Protocol):
    """A format whose images can be read around parts that are missing."""

    def open_incomplete(self, storage: Storage, opener: Opener) -> Image:
        """As :meth:`Format.open`; what was in missing files is ``BAD``, and told by ``info``."""


@runtime_checkable
class Resuming(Protocol):
    """A format whose unfinished images can be completed later."""

    def resume(self, storage: Storage, spec: CreateSpec) -> Target:
        """Take up an image that :meth:`Format.create` began and a checkpoint made durable.

        What lies behind the checkpoint may hold anything: the target's ``reads_zero`` is
        false, and what is written again takes its place.
        """


class SurveyTarget(Target, Encoding, Protocol):
    """Takes a disk and remembers only what a stream's tables need."""


@runtime_checkable
class Streaming(Protocol):
    """A format that can be written front to back, once its tables are known.

    The same source is copied twice: first into a survey, then into the stream.
    """

    def survey(self, spec: CreateSpec) -> SurveyTarget:
        """The first pass."""

    def stream(self, storage: Storage, spec: CreateSpec, survey: SurveyTarget) -> Target:
        """The second: writes ``storage`` in ascending order, without a gap.

        Raises:
            ReadError: at commit or before, if the source was not the same twice.
        """
