"""`diptych serve`: the API and the page."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diptych.cli.options import Activation, Device, IndexPlace, Precision
from diptych.cli.output import say


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where the server listens, and what it allows."""

    host: Annotated[
        str, Parameter(help="Address to listen on. Any but this machine's own demands tokens.")
    ] = "127.0.0.1"
    port: Annotated[int, Parameter(help="0: any free one.")] = 8000
    token_file: Annotated[
        Path | None,
        Parameter(
            help="A file with 'read TOKEN' or 'write TOKEN' a line, which only its owner can read. Without it: the "
            "variable DIPTYCH_TOKENS."
        ),
    ] = None
    name: Annotated[
        list[str] | None,
        Parameter(negative="", help="A further name that the server is asked by, such as a proxy's."),
    ] = None
    uploads: Annotated[
        Path | None,
        Parameter(help="A folder for images that are added over the network; without it none are."),
    ] = None
    allow_url_fetch: Annotated[
        bool, Parameter(negative="", help="Let requests name images by their public addresses on the web.")
    ] = False
    originals: Annotated[
        bool,
        Parameter(
            help="Hand out the images themselves, beside their thumbnails, and tell where they were taken."
        ),
    ] = True


DEFAULT_SERVER = ServerOptions()


def serve(
    *,
    folder: IndexPlace,
    server: ServerOptions = DEFAULT_SERVER,
    model: Annotated[
        str | None,
        Parameter(name=["--model", "-m"], help="Where the index's own model now is, if it has moved."),
    ] = None,
    activation: Activation = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Serve an index: a page for people, an API for programs."""
    from diptych.search.image_index import Index
    from diptych.serving.guard.tokens import Tokens
    from diptych.serving.server import serve as run
    from diptych.serving.server_settings import Settings

    file = server.token_file
    settings = Settings(
        host=server.host,
        port=server.port,
        names=tuple(server.name or ()),
        tokens=Tokens.from_environment() if file is None else Tokens.from_file(file),
        allow_url_fetch=server.allow_url_fetch,
        uploads=server.uploads,
        originals=server.originals,
    )
    with Index(folder) as opened:
        from diptych.cli.machine import load_model

        full_name, network, preprocess = load_model(
            model or opened.manifest.current.model, device, precision, activation
        )
        run(
            opened,
            network,
            preprocess,
            full_name,
            settings,
            announce=lambda url: say(f"{folder} is served at {url}"),
        )
