"""Tokens: where they come from, what they allow, and that looking one up tells nothing about the others."""

import base64
import hmac
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from diptych.errors import SettingsError
from diptych.serving.guard import tokens as module
from diptych.serving.guard.tokens import Scope, Tokens, check_exposure, is_loopback

READER = "reader-0123456789abcdefghijklmnopqrstuv"
WRITER = "writer-0123456789abcdefghijklmnopqrstuv"
STRANGER = "stranger-123456789abcdefghijklmnopqrstuv"


def both() -> Tokens:
    return Tokens([(Scope.READ, READER), (Scope.WRITE, WRITER)])


def basic(password: str, user: str = "") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("header", "scope"),
    [
        (f"Bearer {READER}", Scope.READ),
        (f"bearer   {WRITER} ", Scope.WRITE),
        (basic(READER), Scope.READ),
        (basic(WRITER, "anybody"), Scope.WRITE),
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        (READER, None),
        (f"Token {READER}", None),
        (f"Bearer {STRANGER}", None),
        (f"Bearer {READER}x", None),
        (f"Bearer {READER[:-1]}", None),
        (f"Bearer {READER.upper()}", None),
        (f"Bearer {READER} {READER}", None),
        (f"Bearer {READER}\0", None),
        (f"Bearer {READER}é", None),
        (f"Bearer {READER}" + "A" * 100_000, None),
        (basic(STRANGER), None),
        (basic(READER + "x"), None),
        ("Basic " + base64.b64encode(READER.encode()).decode(), None),  # no colon, no password
        ("Basic %%%", None),
        ("Basic " + base64.b64encode(b":\xff\xfe").decode(), None),
    ],
)
def test_a_header_has_the_scope_of_its_token_and_no_other(header: str | None, scope: Scope | None) -> None:
    assert both().scope_of(header) == scope


def test_without_tokens_nobody_is_known() -> None:
    assert Tokens().scope_of("Bearer ") is None
    assert Tokens().scope_of(f"Bearer {READER}") is None
    assert len(Tokens()) == 0


def test_a_token_given_twice_has_its_larger_scope() -> None:
    for scopes in ((Scope.READ, Scope.WRITE), (Scope.WRITE, Scope.READ)):
        assert Tokens([(scope, READER) for scope in scopes]).scope_of(f"Bearer {READER}") == Scope.WRITE


def comparisons(
    make: Callable[[list[tuple[Scope, str]]], Tokens], monkeypatch: pytest.MonkeyPatch
) -> set[tuple[int, int]]:
    """(Known tokens compared with, length of what was compared) for the first, the last and no token."""
    known = [(Scope.READ, f"token-number-{n}-0123456789abcdefghij") for n in range(5)]
    tokens = make(known)
    seen = set()
    for token in (known[0][1], known[-1][1], STRANGER, "x"):
        lengths: list[int] = []

        def counting(a: bytes, b: bytes, lengths: list[int] = lengths) -> bool:
            lengths.append(len(a))
            return a == b

        monkeypatch.setattr(hmac, "compare_digest", counting)
        tokens.scope_of(f"Bearer {token}")
        monkeypatch.undo()
        seen.add((len(lengths), max(lengths, default=0)))
    return seen


class StopsAtTheFirst(Tokens):
    """A broken twin: how long it takes tells which token was right."""

    def scope_of(self, authorization: str | None) -> Scope | None:
        token = module._token_in(authorization)
        digest = self._digest(token or "")
        return next((scope for known, scope in self._known if hmac.compare_digest(digest, known)), None)


class ComparesPlainTokens(Tokens):
    """A broken twin: `==` ends at the first character that differs."""

    def _digest(self, token: str) -> bytes:
        return token.encode()


def test_every_token_is_compared_with_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert comparisons(Tokens, monkeypatch) == {(5, 32)}


@pytest.mark.parametrize("twin", [StopsAtTheFirst, ComparesPlainTokens])
def test_a_comparison_that_tells_something_is_noticed(
    twin: type[Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert comparisons(twin, monkeypatch) != {(5, 32)}


def test_tokens_are_not_kept_as_they_came() -> None:
    held = repr(vars(both()))
    assert READER not in held
    assert WRITER not in held


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_has_one_token_a_line(tmp_path: Path) -> None:
    text = f"# our tokens\n\n  read {READER}  # the kiosk\nWRITE\t{WRITER}\n"
    tokens = Tokens.from_file(write(tmp_path / "tokens", text))
    assert len(tokens) == 2
    assert tokens.scope_of(f"Bearer {READER}") == Scope.READ
    assert tokens.scope_of(f"Bearer {WRITER}") == Scope.WRITE


def refused_modes(read: Callable[[Path], Tokens], folder: Path) -> set[int]:
    refused = set()
    for mode in range(0o400, 0o1000):
        path = write(folder / "tokens", f"read {READER}", mode)
        try:
            read(path)
        except SettingsError as error:
            assert f"mode {mode:03o}" in str(error)  # noqa: PT017 - the loop goes on
            assert "chmod 600" in str(error)  # noqa: PT017
            refused.add(mode)
        path.chmod(0o600)
    return refused


OPEN_TO_OTHERS = {mode for mode in range(0o400, 0o1000) if mode & (stat.S_IRWXG | stat.S_IRWXO)}


def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path) -> None:
    assert refused_modes(Tokens.from_file, tmp_path) == OPEN_TO_OTHERS


def test_a_reader_that_looks_at_no_permissions_is_noticed(tmp_path: Path) -> None:
    def careless(path: Path) -> Tokens:
        return Tokens(module._parse(path.read_text(), str(path)))

    assert refused_modes(careless, tmp_path) != OPEN_TO_OTHERS


def test_a_link_is_judged_by_what_it_leads_to(tmp_path: Path) -> None:
    write(tmp_path / "open", f"read {READER}", 0o644)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    with pytest.raises(SettingsError, match="mode 644"):
        Tokens.from_file(tmp_path / "link")


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "tokens", f"read {READER}")
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SettingsError, match="belongs to another user"):
        Tokens.from_file(path)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(str(tmp_path / name))):
        Tokens.from_file(tmp_path / name)


@pytest.mark.parametrize(
    "line",
    [
        READER,
        f"admin {READER}",
        f"read {READER} {WRITER}",
        "read",
        "read short",
        "read " + "é" * 40,
        f"read: {READER}",
    ],
)
def test_a_wrong_line_is_named_by_its_number_and_never_shown(line: str, tmp_path: Path) -> None:
    path = write(tmp_path / "tokens", f"# first\n{line}\n")
    with pytest.raises(SettingsError, match=re.escape(f"{path}, line 2: ")) as caught:
        Tokens.from_file(path)
    assert not any(secret in str(caught.value) for secret in (READER, WRITER, "é"))


def test_the_environment_parts_tokens_by_newlines_commas_or_semicolons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for separator in ("\n", ",", ";", " , "):
        monkeypatch.setenv("DIPTYCH_TOKENS", f"read {READER}{separator}write {WRITER}")
        assert Tokens.from_environment().scope_of(basic(WRITER)) == Scope.WRITE
    monkeypatch.delenv("DIPTYCH_TOKENS")
    assert len(Tokens.from_environment()) == 0


ONLY_THIS_MACHINE = ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost", "LOCALHOST"]
REACHABLE = [
    "0.0.0.0",
    "::",
    "",
    "192.168.0.5",
    "10.0.0.1",
    "fe80::1",
    "example.org",
    "127.0.0.1.example.org",
    "127.1",
]


@pytest.mark.parametrize("host", ONLY_THIS_MACHINE)
def test_on_loopback_no_token_is_needed(host: str) -> None:
    assert is_loopback(host)
    check_exposure(host, Tokens())


@pytest.mark.parametrize("host", REACHABLE)
def test_any_other_host_demands_a_token(host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(SettingsError, match="token_urlsafe"):
        check_exposure(host, Tokens())
    check_exposure(host, both())
