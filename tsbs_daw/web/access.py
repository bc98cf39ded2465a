"""Who may use the page: a secret in a file that only its user can read, one-time links, and a cookie.

The secret is 256 random bits. It never leaves the file: a link carries a code, and the browser a cookie, that are both
made from it and that it cannot be computed from. A code is good once and for a few minutes, so that it is worth nothing
in a browser's history. The cookie is good until the secret is replaced (`tsbs-daw web --new-token`); it survives a
restart of the server, so that a page which was left open goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from tsbs_daw.core.errors import DaemonError, shown

log = logging.getLogger(__name__)

TOKEN_BYTES = 32
LINK_LIFE_S = 600
COOKIE_LIFE_S = 90 * 86400
_CHECKED = os.name != "nt"  # Windows has no mode bits; the home belongs to its user there


def access_path(home: Path) -> Path:
    """The file with the secret, and where the server that uses it answers."""
    return home / "web" / "access.json"


@dataclass
class Access:
    """The secret, and what is made from it.

    Attributes:
        token: The secret, in hex.
        url: Where the server answers, without a slash at its end; empty before it does.
        pid: The server's process.
    """

    token: str
    url: str = ""
    pid: int = 0
    _used: dict[str, float] = field(default_factory=dict, repr=False)

    @property
    def cookie_name(self) -> str:
        """One for each port: browsers keep the cookies of all ports of a host together."""
        return f"tsbs-daw-{self.url.rpartition(':')[2]}"

    @property
    def cookie(self) -> str:
        """The cookie's value."""
        return self._sign("cookie")

    def admits(self, cookie: str) -> bool:
        """Whether this is the cookie's value, compared in constant time."""
        return hmac.compare_digest(cookie.encode("utf-8", "replace"), self.cookie.encode())

    def link(self) -> str:
        """A new link, good once and for `LINK_LIFE_S`."""
        stem = f"{int(time.time()) + LINK_LIFE_S}-{secrets.token_hex(16)}"
        return f"{self.url}/open?code={stem}-{self._sign(stem)}"

    def redeem(self, code: str) -> bool:
        """Whether this is the code of a link that is neither used nor too old. From now on it is used."""
        stem, _, signature = code.rpartition("-")
        if not hmac.compare_digest(signature.encode("utf-8", "replace"), self._sign(stem).encode()):
            return False
        now = time.time()
        self._used = {used: until for used, until in self._used.items() if until > now}
        until = float(stem.partition("-")[0])
        if stem in self._used or until < now:
            return False
        self._used[stem] = until
        return True

    def file_id(self, *parts: str) -> str:
        """A name for a file that says nothing about where it lies."""
        return self._sign("\0".join(("file", *parts)))[:24]

    def _sign(self, text: str) -> str:
        message = text.encode("utf-8", "surrogatepass")
        return hmac.new(bytes.fromhex(self.token), message, hashlib.sha256).hexdigest()


def read_access(home: Path) -> Access | None:
    """What the file says; None when there is none, or others could have read or written it."""
    path = access_path(home)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        if not _is_private(os.fstat(file.fileno())):
            log.warning("%s could have been read by others; a new token is made, and pages must be opened anew.", path)
            return None
        try:
            found = json.loads(file.read(10_000))
            access = Access(str(found["token"]), str(found["url"]), int(found["pid"]))
            return access if len(bytes.fromhex(access.token)) == TOKEN_BYTES else None
        except (ValueError, KeyError, TypeError):
            return None


def write_access(home: Path, access: Access) -> None:
    """Put the secret where only its user can read it. Raises: DaemonError: that is not possible there"""
    path = access_path(home)
    temporary = path.with_name(path.name + ".tmp")
    text = json.dumps({"token": access.token, "url": access.url, "pid": access.pid})
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text)
        private = _is_private(temporary.stat())
        if private:
            temporary.replace(path)
        else:
            temporary.unlink()
    except OSError as error:
        raise DaemonError(f"The page's token cannot be written to {shown(path)} ({error.strerror}).") from error
    if not private:
        raise DaemonError(
            f"The page's token cannot be kept secret in {shown(path)}: that file system does not know file modes. "
            "Set TSBS_DAW_HOME to a folder on another one."
        )


def new_token() -> str:
    """256 random bits, in hex."""
    return secrets.token_hex(TOKEN_BYTES)


def _is_private(status: os.stat_result) -> bool:
    own = not _CHECKED or (status.st_uid == os.geteuid() and status.st_mode & 0o077 == 0)
    return stat.S_ISREG(status.st_mode) and own
