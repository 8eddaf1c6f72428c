"""Sign in to a server that needs a token: a form stores the token in a cookie.

The cookie replaces the header `Authorization`. Scripts cannot read it (HttpOnly), and browsers do not send it with
requests that other sites make (SameSite=Strict). It ends with the browser's session.
"""

from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diptych.serving.page.page_state import State

COOKIE = "diptych_token"


class SignIn:
    """ASGI middleware that lets browsers sign in. It stands outside the check of tokens.

    It turns the cookie into the header `Authorization`, and sends browsers without access to the form."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if "authorization" not in headers:
            token = cookie_parser(headers.get("cookie", "")).get(COOKIE)
            if token is not None:
                given = (b"authorization", f"Bearer {token}".encode("latin-1", "replace"))
                # In place: outer layers read the matched route from this scope.
                scope["headers"] = [*scope["headers"], given]
        asks_for_page = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        await self.app(scope, receive, _to_form(scope, receive, send) if asks_for_page else send)


def _to_form(scope: Scope, receive: Receive, send: Send) -> Send:
    """Wrap `send`: redirect to the form instead of answering 401."""
    refused = False

    async def send_or_lead(message: Message) -> None:
        nonlocal refused
        if message["type"] == "http.response.start" and message["status"] == 401:
            refused = True
            address = scope["path"] + (
                f"?{query}" if (query := scope["query_string"].decode("latin-1")) else ""
            )
            form = f"/login?{urlencode({'next': own_address(address)})}"
            await RedirectResponse(form, 303)(scope, receive, send)
        elif not refused:
            await send(message)

    return send_or_lead


def signed_in(token: str, next_: str, *, secure: bool) -> Response:
    """Redirect to `next_` and set the cookie. `secure`: whether the browser came by TLS."""
    response = RedirectResponse(own_address(next_), 303)
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, path="/")
    return response


def signed_out() -> Response:
    """Redirect to the form and delete the cookie."""
    response = RedirectResponse("/login", 303)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict", path="/")
    return response


def own_address(address: str) -> str:
    """Return the address if it belongs to this page, otherwise `/`. Never another site."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "/"
    state, _ = State.read(parse_qsl(parts.query))
    picture = parts.path.removeprefix("/pictures/")
    is_picture = parts.path.startswith("/pictures/") and picture.isalnum() and picture.isascii()
    return f"{parts.path if is_picture else '/'}{state.query()}"
