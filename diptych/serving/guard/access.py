"""Decide which token a request needs, before anything else of it is read.

Deny by default: a route that is not listed here, such as a new one, needs the scope `write`.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from diptych.serving.guard.headers import refuse
from diptych.serving.guard.tokens import CHALLENGE, Scope, Tokens

# Health checks are for monitoring. Sign-in, the page's own files and its colour theme reveal nothing about the images.
PUBLIC = frozenset({"/healthz", "/readyz", "/login", "/theme"})
PUBLIC_FILES = "/static/"
PUBLIC_BY_POST = frozenset({"/login"})
# Queries, which may be too long for a URL.
READ_BY_POST = frozenset(
    {
        "/",
        "/v1/classify",
        "/v1/embeddings",
        "/v1/huggingface/zero-shot-image-classification",
        "/v1/search",
    }
)


def scope_needed(method: str, path: str) -> Scope | None:
    """Return the scope that a request needs; None if anyone may send it."""
    if method in ("GET", "HEAD"):
        return None if path in PUBLIC or path.startswith(PUBLIC_FILES) else Scope.READ
    if method == "POST" and path in PUBLIC_BY_POST:
        return None
    return Scope.READ if method == "POST" and path in READ_BY_POST else Scope.WRITE


class Access:
    """ASGI middleware: status 401 without a known token, 403 if the scope of the token is too small.

    A server without tokens answers only this machine: anyone may read, and no one may write.
    """

    def __init__(self, app: ASGIApp, tokens: Tokens) -> None:
        self.app = app
        self.tokens = tokens

    async def __call__(self, connection: Connection, receive: Receive, send: Send) -> None:
        if connection["type"] == "http":
            needed = scope_needed(connection["method"], connection["path"])
            if needed is not None and not await self._allows(needed, connection, send):
                return
        await self.app(connection, receive, send)

    async def _allows(self, needed: Scope, connection: Connection, send: Send) -> bool:
        if not self.tokens:
            held: Scope | None = Scope.READ
        else:
            # A proxy and this server could read two headers differently.
            given = Headers(scope=connection).getlist("authorization")
            held = self.tokens.scope_of(given[0]) if len(given) == 1 else None
        if held is None:
            detail = "no valid token found; send the header Authorization: Bearer TOKEN"
            await refuse(send, 401, "Unauthorized", detail, www_authenticate=CHALLENGE)
            return False
        if held < needed:
            detail = (
                "this token only allows reading; use a token with the scope write"
                if self.tokens
                else "a server without tokens does not change its index; start it with --token-file"
            )
            await refuse(send, 403, "Forbidden", detail)
            return False
        return True
