"""Addresses of objects on web servers."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from imprint.core.errors import NetworkError, UsageError

# Everything that a URL may hold already, so that only spaces and the like are escaped.
_URL_SAFE: Final = "%/:=&?~#+!$,;'@()*[]"


@dataclass(frozen=True)
class Address:
    """A URL taken apart.

    Attributes:
        scheme: ``http`` or ``https``.
        host: without brackets.
        port: as given, or the scheme's.
        target: path and query, escaped.
        authorization: value of that header, or ``None``.
    """

    scheme: str
    host: str
    port: int
    target: str
    authorization: str | None = None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Take a URL apart.

        Raises:
            UsageError: if it is not one of HTTP or HTTPS with a host. The message does not
                repeat the URL, which may hold a password.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as failure:
            raise UsageError("expected a URL of a valid form") from failure
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError("expected a URL with http or https and a host")
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        target = quote(parts.path or "/", safe=_URL_SAFE)
        if parts.query:
            target += "?" + quote(parts.query, safe=_URL_SAFE)
        default = 443 if parts.scheme == "https" else 80
        return cls(parts.scheme, parts.hostname, port or default, target, authorization)

    @property
    def site(self) -> tuple[str, str, int]:
        """What a connection is made to, and what credentials are for."""
        return self.scheme, self.host, self.port

    @property
    def url(self) -> str:
        """The URL without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        port = "" if self.port == default else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"

    @property
    def name(self) -> str:
        """The URL for messages: its query may be a key too."""
        before, mark, _ = self.url.partition("?")
        return before + ("?..." if mark else "")

    def follow(self, location: str) -> Address:
        """Where a redirect leads. Credentials stay only within the same site.

        Raises:
            NetworkError: if that may not be followed.
        """
        try:
            address = Address.parse(urljoin(self.url, location))
        except (UsageError, ValueError) as error:
            raise NetworkError(f"redirects to nowhere: {error}", name=self.name) from error
        if self.scheme == "https" and address.scheme == "http":
            raise NetworkError(f"redirects from https to {address.name}", name=self.name)
        same = address.site == self.site
        return Address(
            address.scheme,
            address.host,
            address.port,
            address.target,
            self.authorization if same else None,
        )
