"""What an S3 server's refusal means: ``obstore`` gives most of it as text only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from imprint.core.errors import NetworkError

if TYPE_CHECKING:
    from imprint.core.errors import ImagingError

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_KIND: Final = re.compile(r"\bkind: (\w{1,32})|\binner: (BareRedirect)\b")
_METADATA: Final = "//169.254.169.254/"  # where a machine in a cloud asks for its role

_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_CONDITION_FAILED: Final = 412
_BEHIND_THE_END: Final = 416
_NOT_IMPLEMENTED: Final = 501
_SERVER_ERROR: Final = 500
_NO_ROOM: Final = 507
# Too slow, two conditional writes at once, too many requests: all of these say to try again.
_PASSING: Final = (408, _CONFLICT, 425, 429)
_PASSING_CODES: Final = ("RequestTimeout", "SlowDown", "InternalError", "OperationAborted")
_REASONS: Final = {
    "Connect": "cannot be reached",
    "Timeout": "does not answer in time",
    "Interrupted": "the connection broke off",
    "Credentials": "no credentials were found",
    "BareRedirect": "the bucket is in another region",
}
_ADVICE: Final = {
    "Credentials": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "BareRedirect": "set AWS_REGION to that of the bucket",
}


@dataclass(frozen=True)
class Answer:
    """How a request failed.

    Attributes:
        status: of HTTP; 0 if there was no answer.
        code: of S3, or ``""``.
        kind: of the failure, if there was no answer.
    """

    status: int
    code: str
    kind: str

    @classmethod
    def of(cls, failure: Exception) -> Self:
        """What an exception of ``obstore`` says."""
        text = str(failure)
        status = _STATUS.search(text)
        code = _CODE.search(text)
        kind = _KIND.search(text)
        if _METADATA in text:
            return cls(0, "", "Credentials")
        number = int(status[1]) if status else 0
        if not number and isinstance(failure, FileNotFoundError):
            number = _NOT_FOUND
        return cls(number, code[1] if code else "", (kind[1] or kind[2]) if kind else "")

    @property
    def is_missing(self) -> bool:
        """There is no such object, in a bucket that is there."""
        return self.status == _NOT_FOUND and self.code in ("", "NoSuchKey")

    @property
    def is_existing(self) -> bool:
        """There is an object, and there should be none."""
        return self.status == _CONDITION_FAILED

    @property
    def is_behind_the_end(self) -> bool:
        """The range begins where the object has ended."""
        return self.status == _BEHIND_THE_END

    @property
    def is_unknown_condition(self) -> bool:
        """The server cannot do what a conditional request asks for."""
        return self.status == _NOT_IMPLEMENTED

    @property
    def is_passing(self) -> bool:
        """It may well work later."""
        if self.code in _PASSING_CODES or self.status in _PASSING:
            return True
        if not self.status:
            return self.kind not in _ADVICE
        is_refusal = self.status in (_NOT_IMPLEMENTED, _NO_ROOM)
        return self.status >= _SERVER_ERROR and not is_refusal

    @property
    def reason(self) -> str:
        """For people."""
        if not self.status:
            return _REASONS.get(self.kind, "the connection failed")
        if self.code == "NoSuchBucket":
            return "there is no such bucket"
        return f"the server answers {self.status} {self.code}".rstrip()

    def error(self, kind: type[ImagingError], name: str) -> ImagingError:
        """One that says so: a ``NetworkError`` if it may pass, else one of ``kind``."""
        chosen = NetworkError if self.is_passing else kind
        return chosen(self.reason, name=name, advice=_ADVICE.get(self.kind))
