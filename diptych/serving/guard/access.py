"""Which token a request needs, decided before anything else is read of it.

Deny by default: what is not listed here needs the scope for writing, and so does a route that somebody adds.
"""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from diptych.serving.guard.headers import refuse
from diptych.serving.guard.tokens import CHALLENGE, Scope, Tokens

# Health is for whoever watches the server. The way to sign in, the page's own files and the choice of its colours say
# nothing about the pictures.
PUBLIC = frozenset({"/healthz", "/readyz", "/login", "/theme"})
PUBLIC_FILES = "/static/"
PUBLIC_BY_POST = frozenset({"/login"})
# Questions that are too long for an address.
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
    """The scope that a request needs; None where everybody may ask."""
    if method in ("GET", "HEAD"):
        return None if path in PUBLIC or path.startswith(PUBLIC_FILES) else Scope.READ
    if method == "POST" and path in PUBLIC_BY_POST:
        return None
    return Scope.READ if method == "POST" and path in READ_BY_POST else Scope.WRITE


class Access:
    """ASGI middleware: 401 without a known token, 403 with one whose scope is too small.

    A server without tokens answers only this machine: who asks may read, and nobody may write.
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
            # Two headers could mean one thing to a proxy and another here.
            given = Headers(scope=connection).getlist("authorization")
            held = self.tokens.scope_of(given[0]) if len(given) == 1 else None
        if held is None:
            detail = "no known token; send the header Authorization: Bearer TOKEN"
            await refuse(send, 401, "Unauthorized", detail, www_authenticate=CHALLENGE)
            return False
        if held < needed:
            detail = (
                "this token is for reading; use one with the scope write"
                if self.tokens
                else "this server has no tokens, and so nobody may change the index; start it with --token-file"
            )
            await refuse(send, 403, "Forbidden", detail)
            return False
        return True
