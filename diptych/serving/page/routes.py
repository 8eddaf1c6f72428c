"""The routes of the search page. The server renders every view; the page works without a script, and
`static/page.js` makes it faster."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from diptych.data.images.thumbnails import MEDIA_TYPE, preview
from diptych.errors import DiptychError, ImageError, MissingExtraError, SettingsError
from diptych.search.query import QueryPart, Question
from diptych.search.stores.image_rows import Item
from diptych.serving.page import view
from diptych.serving.page.downloads import MOST, as_csv, as_json
from diptych.serving.page.filter_form import SHAPES, Filters
from diptych.serving.page.login import COOKIE, own_address, signed_in, signed_out
from diptych.serving.page.messages import FORGOTTEN, empty_index, explained, no_matches, no_such_picture
from diptych.serving.page.page_state import PAGE, State, Term
from diptych.serving.page.query_images import Upload, Uploads
from diptych.serving.page.static import StaticFiles
from diptych.serving.server_settings import Settings

if TYPE_CHECKING:  # it brings torch
    from diptych.serving.service import Service

TEMPLATES = Path(__file__).parent / "templates"
THEME = "diptych_theme"  # the cookie; without it the page follows the system
THEMES = ("light", "dark")
MOST_FILES = 8  # in one upload
_MOST_FIELDS = 200


def add_page(app: FastAPI, service: "Service", settings: Settings) -> None:
    """Add the page's routes to the server: `/`, `/pictures/{id}`, results as files, uploads, sign-in, static files.

    Raises:
        MissingExtraError: without jinja2 or python-multipart.
    """
    page = _Page(service, settings)
    routes = [
        ("/", page.search, ["GET"]),
        ("/", page.upload, ["POST"]),
        ("/uploads/{token}", page.uploaded, ["GET"]),
        ("/pictures/{id}", page.picture, ["GET"]),
        ("/results.json", page.results_json, ["GET"]),
        ("/results.csv", page.results_csv, ["GET"]),
        ("/theme", page.theme, ["GET"]),
        ("/login", page.login, ["GET", "POST"]),
        ("/static/{version}/{name}", page.static_file, ["GET"]),
    ]
    for path, endpoint, methods in routes:
        app.add_api_route(path, endpoint, methods=methods, include_in_schema=False, response_model=None)


class _Page:
    """The routes and what they share: the service, the uploaded images, the templates."""

    def __init__(self, service: "Service", settings: Settings) -> None:
        try:
            import jinja2  # noqa: PLC0415 - optional
            import python_multipart  # noqa: F401, PLC0415 - optional; starlette reads forms with it
        except ImportError as error:
            raise MissingExtraError(str(error.name), "serve", "the search page") from None
        self._service, self._settings = service, settings
        self._uploads, self._static = Uploads(), StaticFiles()
        # All values are escaped; a name that a template misspells is an error, not a blank.
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def search(self, request: Request) -> Response:
        state, problems = State.read(request.query_params.multi_items())
        if not problems and f"?{request.url.query}" != (state.query() or "?"):
            # A form sends empty fields too. Redirect to the address without them, which people share.
            return RedirectResponse(f"/{state.query()}", 303)
        return await self._render_results(request, state, problems)

    async def upload(self, request: Request) -> Response:
        """Store the images of a form, and redirect to the address that searches by them."""
        fields: list[tuple[str, str]] = []
        tokens: list[str] = []
        problems: tuple[str, ...] = ()
        async with request.form(max_files=MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=64_000) as form:
            for name, value in form.multi_items():
                if isinstance(value, str):
                    fields.append((name, value))
                elif name == "file" and (value.filename or value.size):
                    try:
                        tokens.append(await self._store(value))
                    except ImageError as error:
                        problems += (f"{value.filename or 'picture'}: {error}",)
        state, unread = State.read(fields)
        for token in tokens:
            state = state.with_term(Term("picture", token))
        problems += unread
        if problems:
            return await self._render_results(request, state, problems)
        return RedirectResponse(f"/{state.query()}", 303)

    async def uploaded(self, request: Request) -> Response:
        """Send the small copy of an uploaded image."""
        upload = self._uploads.get(request.path_params["token"])
        if upload is None:
            raise HTTPException(404, "this picture is no longer stored; upload it again")
        return Response(upload.thumbnail, media_type=MEDIA_TYPE)

    async def picture(self, request: Request) -> Response:
        """Show one image with its fields."""
        state, _ = State.read(request.query_params.multi_items())
        try:
            state, _ = await self._without_gone(state)
            items = await self._items_of([request.path_params["id"]])
        except DiptychError as error:
            message, status, headers = explained(error, state)
            context = await self._context(state, message=message)
            return self._html(request, "search.html", status, headers, **context)
        if not items:
            context = await self._context(state, message=no_such_picture(state))
            return self._html(request, "search.html", 404, **context)
        item = items[0]
        original = view.original_of(item) if self._settings.originals else ""
        thumbnail = view.thumbnail_of(item)
        return self._html(
            request,
            "picture.html",
            **await self._context(state),
            card=view.card(state, item),
            full=original if original and view.shows_in_browsers(item) else thumbnail,
            thumbnail=thumbnail,
            original=original,
            back=f"/{state.query()}",
            facts=view.facts(item),
            tags=view.tags(item),
        )

    async def results_json(self, request: Request) -> Response:
        state, found = await self._search_for_download(request)
        return _file(as_json(state, found), "application/json", "diptych-results.json")

    async def results_csv(self, request: Request) -> Response:
        _, found = await self._search_for_download(request)
        return _file(as_csv(found), "text/csv; charset=utf-8", "diptych-results.csv")

    async def theme(self, request: Request) -> Response:
        """Set the cookie for light or dark, and redirect back to the page of the button."""
        theme = request.query_params.get("theme")
        response = RedirectResponse(own_address(request.query_params.get("next", "")), 303)
        if theme in THEMES:
            # A script may read and write it: the toggle then needs no request.
            response.set_cookie(THEME, theme, max_age=31_536_000, samesite="strict", path="/")
        return response

    async def login(self, request: Request) -> Response:
        """Show the form; sign in when it is sent with a token, sign out when it is sent without."""
        tokens, next_, problem = self._settings.tokens, request.query_params.get("next", ""), ""
        if not tokens:
            return RedirectResponse("/", 303)
        if request.method == "POST":
            async with request.form(max_files=0, max_fields=4, max_part_size=8_192) as form:
                token, next_ = str(form.get("token", "")).strip(), str(form.get("next", ""))
            if not token:
                return signed_out()
            if tokens.scope_of(f"Bearer {token}") is not None:
                return signed_in(token, next_, secure=request.url.scheme == "https")
            problem = "The server does not know this token. Check that you copied all of it."
        status = 401 if problem else 200
        return self._html(request, "login.html", status, next=own_address(next_), problem=problem)

    async def static_file(self, request: Request) -> Response:
        return self._static.answer(request.path_params["version"], request.path_params["name"])

    async def _store(self, file: UploadFile) -> str:
        """Store an uploaded image and return its token. Raises ImageError if it cannot be read."""
        data = await file.read()
        pixels = await self._service.decode(data)
        small = await run_in_threadpool(preview, pixels)
        return self._uploads.put(Upload(data, small.thumbnail))

    async def _render_results(self, request: Request, state: State, problems: tuple[str, ...]) -> Response:
        """Render the results of a state, or the reason why there are none."""
        status = 400 if problems else 200
        headers: dict[str, str] = {}
        shown: dict[str, Any]
        try:
            state, gone = await self._without_gone(state)
            problems += gone
            shown = await self._results_or_message(state)
        except DiptychError as error:
            message, status, headers = explained(error, state)
            shown = {"message": message}
        context = await self._context(state, problems=problems, **shown)
        return self._html(request, "search.html", status, headers, **context)

    async def _results_or_message(self, state: State) -> dict[str, Any]:
        """Search or list images. Return the results, or a message if there are none, for the template."""
        filter_ = state.filters.text()
        if state.terms:
            answer = await self._service.search(self._question(state, PAGE))
            if answer.found:
                return {"results": view.found_results(state, answer)}
            return {"message": no_matches(state)}
        items, total = await self._service.items(filter_, offset=state.offset, count=PAGE, sort=state.sort)
        if items:
            heading = view.browsed_heading(state, total)
            return {"heading": heading, "results": view.browsed_results(state, items, total=total)}
        return {
            "message": no_matches(state)
            if state.filters or state.offset
            else empty_index(self._service.index.place)
        }

    async def _search_for_download(self, request: Request) -> tuple[State, Any]:
        """Search for a download: all matches up to `MOST`."""
        state, problems = State.read(request.query_params.multi_items())
        if problems or not state.terms:
            raise HTTPException(
                400, problems[0] if problems else "no query found; add one to the address: ?q=WORDS"
            )
        try:
            answer = await self._service.search(self._question(state.first_page(), MOST))
        except DiptychError as error:
            message, status, headers = explained(error, state)
            raise HTTPException(status, message.text, headers) from error
        return state, answer.found

    def _question(self, state: State, count: int) -> Question:
        return Question(
            parts=tuple(self._part(term) for term in state.terms),
            filter=state.filters.text(),
            min_score=state.min_score if state.hide_weak else None,
            count=count,
            offset=state.offset,
            group_duplicates=state.unique,
            diversity=state.variety / 100,
            sort=state.sort,
        )

    def _part(self, term: Term) -> QueryPart:
        if term.kind == "q":
            return QueryPart(text=term.value, weight=term.weight)
        if term.kind == "like":
            return QueryPart(id=term.value, weight=term.weight)
        upload = self._uploads.get(term.value)
        if upload is None:
            raise SettingsError(FORGOTTEN)
        return QueryPart(image=upload.data, weight=term.weight)

    async def _without_gone(self, state: State) -> tuple[State, tuple[str, ...]]:
        """Return the state without images that are gone, and a sentence for each kind of them."""
        wanted = [term.value for term in state.terms if term.kind == "like"]
        known = {item.id for item in await self._items_of(wanted)}
        kept = tuple(
            term
            for term in state.terms
            if term.kind == "q"
            or (term.kind == "like" and term.value in known)
            or (term.kind == "picture" and self._uploads.get(term.value) is not None)
        )
        gone = {term.kind for term in state.terms if term not in kept}
        sentences = {"like": "A picture of this search is no longer in the index.", "picture": FORGOTTEN}
        return replace(state, terms=kept), tuple(sentences[kind] for kind in sorted(gone))

    async def _items_of(self, ids: Iterable[str]) -> list[Item]:
        """Return the images with these ids that are in the index."""
        found = await asyncio.gather(*(self._service.item(id_) for id_ in ids))
        return [item for item in found if item is not None]

    async def _context(self, state: State, **more: Any) -> dict[str, Any]:
        """Return what the search templates need: the form and the headings."""
        liked = [term.value for term in state.terms if term.kind == "like"]
        try:
            thumbnails = {("like", item.id): view.thumbnail_of(item) for item in await self._items_of(liked)}
        except DiptychError:  # the page shows a message instead of results, and the query without thumbnails
            thumbnails = {}
        uploads = [term.value for term in state.terms if term.kind == "picture"]
        thumbnails |= {("picture", token): f"/uploads/{token}" for token in uploads}
        main, chips = view.search_box(state), view.chips(state, thumbnails)
        return {
            "problems": (),
            "results": None,
            "message": None,
            "state": state,
            "main": main,
            "chips": chips,
            "pills": view.pills(state),
            "without_filters": f"/{replace(state.first_page(), filters=Filters()).query()}",
            "filters_open": False,
            "searched": bool(state.terms),
            "heading": view.heading(state),
            "shapes": SHAPES,
            "places": self._settings.originals,
            **more,
        }

    def _html(
        self,
        request: Request,
        template: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        **context: Any,
    ) -> HTMLResponse:
        theme = request.cookies.get(THEME, "")
        query = f"?{request.url.query}" if request.url.query else ""
        text = self._templates.get_template(template).render(
            static=self._static.base,
            theme=theme if theme in THEMES else "",
            here=request.url.path + query,
            signed_in=COOKIE in request.cookies and bool(self._settings.tokens),
            **context,
        )
        # What is not valid Unicode cannot be sent; replace what is left of it.
        return HTMLResponse(view.shown(text), status, headers)


def _file(text: str, media_type: str, name: str) -> Response:
    return Response(
        text, media_type=media_type, headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )
