"""What a format that is only read has to say about writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from imprint.core.errors import UnsupportedFeatureError
from imprint.core.formats import Support

if TYPE_CHECKING:
    from imprint.core.contracts import Opener, Source, Storage, Target
    from imprint.core.formats import CreateSpec, Measure, Option
    from imprint.core.image import WritableImage

_ADVICE = "convert it to qcow2, or another format that can be written"


class ReadOnlyFormat:
    """The half of :class:`~imprint.core.formats.Format` that writes: refused by name."""

    name: ClassVar[str]
    support: ClassVar[Support] = Support()
    options: ClassVar[tuple[Option, ...]] = ()

    def edit(self, storage: Storage, opener: Opener) -> WritableImage:
        """Refused.

        Raises:
            UnsupportedFeatureError: always.
        """
        del opener
        raise UnsupportedFeatureError(
            f"is a {self.name} image, which is only read", name=storage.name, advice=_ADVICE
        )

    def create(self, storage: Storage, spec: CreateSpec) -> Target:
        """Refused.

        Raises:
            UnsupportedFeatureError: always.
        """
        del storage, spec
        raise self._refusal()

    def measure(self, source: Source, spec: CreateSpec) -> Measure:
        """Refused.

        Raises:
            UnsupportedFeatureError: always.
        """
        del source, spec
        raise self._refusal()

    def _refusal(self) -> UnsupportedFeatureError:
        return UnsupportedFeatureError(f"format {self.name} is only read", advice=_ADVICE)
