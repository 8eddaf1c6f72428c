"""Bearer tokens with scopes, and the rule that a public address needs one.

Tokens come from a file that only its owner can read, or from the environment. They never come from the command line,
which every user of a machine can list. Only keyed hashes of them are stored.
"""

import base64
import binascii
import enum
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from diptych.errors import SettingsError

VARIABLE = "DIPTYCH_TOKENS"
CHALLENGE = 'Bearer realm="diptych", Basic realm="diptych"'  # the header WWW-Authenticate of a 401

_SHORTEST = 32  # characters: 128 bits even if all are hexadecimal digits
_LONGEST_HEADER = 4096  # characters; longer headers are not hashed
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")  # RFC 6750 section 2.1
_MAKE_ONE = "create one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"


class Scope(enum.IntEnum):
    """What a token allows. A larger scope includes the smaller ones."""

    READ = 1
    WRITE = 2


class Tokens:
    """The tokens of a server. An empty set accepts no one."""

    def __init__(self, tokens: Iterable[tuple[Scope, str]] = ()) -> None:
        # A random key, so that the digests are useless outside this process.
        self._key = secrets.token_bytes(32)
        self._known = [(self._digest(token), scope) for scope, token in tokens]

    @classmethod
    def from_file(cls, path: Path) -> "Tokens":
        """Read a file with one `read TOKEN` or `write TOKEN` a line; `#` begins a comment.

        Raises:
            SettingsError: the file cannot be read, others can read or change it, or a line has a mistake.
        """
        try:
            # Check the open file, so that it cannot be exchanged in between.
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                text = file.read(1_000_000).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"{path}: cannot read the token file ({error}); check its path and owner"
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise SettingsError(f"{path}: not a regular file; expected a text file of tokens")
        if status.st_uid not in (0, os.geteuid()):
            raise SettingsError(f"{path}: the token file belongs to another user; use chown to own it")
        if status.st_mode & 0o077:
            mode = f"{stat.S_IMODE(status.st_mode):03o}"
            raise SettingsError(
                f"{path}: other users can read or change the token file (mode {mode}); run: chmod 600 {path}"
            )
        return cls(_parse(text, str(path)))

    @classmethod
    def from_environment(cls) -> "Tokens":
        """Read the variable DIPTYCH_TOKENS: the lines of a token file, separated by newlines, commas or semicolons.

        Raises:
            SettingsError: an entry has a mistake.
        """
        return cls(_parse(re.sub("[,;]", "\n", os.environ.get(VARIABLE, "")), f"${VARIABLE}"))

    def __len__(self) -> int:
        return len(self._known)

    def scope_of(self, authorization: str | None) -> Scope | None:
        """Return the scope of the header `Authorization`: `Bearer TOKEN`, or `Basic` with the token as the password.

        Browsers offer the second kind by themselves. None without the header, for another kind, or an unknown token.
        All known tokens are compared, in a time that does not depend on how many characters are right.
        """
        token = _token_in(authorization)
        if token is None:
            return None
        digest, scope = self._digest(token), None
        for known, allowed in self._known:
            if hmac.compare_digest(digest, known) and (scope is None or allowed > scope):
                scope = allowed
        return scope

    def _digest(self, token: str) -> bytes:
        return hmac.digest(self._key, token.encode(), hashlib.sha256)


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # a name: its address may change
        return False


def check_exposure(host: str, tokens: Tokens) -> None:
    """Raise SettingsError if other machines could reach a server on `host` without a token."""
    if not is_loopback(host) and not len(tokens):
        raise SettingsError(
            f"host {host!r}: other machines can reach it, and there is no token; use 127.0.0.1, or give --token-file "
            f"with a line 'read TOKEN', or set {VARIABLE}; {_MAKE_ONE}"
        )


def _parse(text: str, place: str) -> list[tuple[Scope, str]]:
    tokens = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        # The line itself is never in a message: messages are printed and logged.
        if len(words) != 2 or words[0].upper() not in Scope.__members__:
            raise SettingsError(
                f"{place}, line {number}: expected 'read TOKEN' or 'write TOKEN'; correct the line"
            )
        if not _TOKEN.fullmatch(words[1]) or len(words[1]) < _SHORTEST:
            raise SettingsError(
                f"{place}, line {number}: a token of {len(words[1])} characters; expected at least {_SHORTEST} of "
                f"A-Z a-z 0-9 . _ ~ + / - =; {_MAKE_ONE}"
            )
        tokens.append((Scope[words[0].upper()], words[1]))
    return tokens


def _token_in(authorization: str | None) -> str | None:
    if authorization is None or len(authorization) > _LONGEST_HEADER:
        return None
    kind, _, value = authorization.strip().partition(" ")
    token = value.strip()
    if kind.lower() == "basic":
        try:
            token = base64.b64decode(token, validate=True).decode("ascii").partition(":")[2]
        except (binascii.Error, ValueError):
            return None
    elif kind.lower() != "bearer":
        return None
    return token if _TOKEN.fullmatch(token) else None
