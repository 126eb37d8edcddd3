"""What containers have in common that need a secret: each member is one, of one volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imprint.core.errors import FormatError, PassphraseError, ReadError
from imprint.core.runs import Runs
from imprint.volumes.assembly import Assembly

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from imprint.core.contracts import Source
    from imprint.volumes.assembly import Inner


def unlocked(
    members: Sequence[Source], unlock: Callable[[int, Source], Inner], kind: str
) -> list[Assembly]:
    """Unlock each member. What stays locked has a note, unless all do: then the first error.

    Args:
        members: each is a volume of its own.
        unlock: gets the number of a member and itself.
        kind: for the names of assemblies.

    Raises:
        PassphraseError: and what else ``unlock`` raises.
    """
    nothing = (Runs.of([]),) * len(members)
    found = []
    failure: FormatError | PassphraseError | ReadError | None = None
    is_any_open = False
    for index, member in enumerate(members):
        name = f"{kind} volume {member.name}"
        try:
            inner = unlock(index, member)
        except (FormatError, PassphraseError, ReadError) as error:
            failure = failure or error
            note = f"all of it counts: {error.args[0]}"
            found.append(Assembly(name, (), nothing, (note,)))
        else:
            is_any_open = True
            found.append(Assembly(name, (inner,), nothing))
    if failure is not None and not is_any_open:
        raise failure
    return found
