"""Serve an index and a model: bind the port, build the application, run until a signal."""

import asyncio
import socket
from collections.abc import Callable

from diptych.data.images.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.image_model import ImageModel
from diptych.search.image_index import Index
from diptych.serving.app import create_app
from diptych.serving.guard.connections import ConnectionLimits, GuardedConfig
from diptych.serving.guard.decoding_pool import DecodingPool
from diptych.serving.lifecycle import GracefulServer
from diptych.serving.prometheus import Metrics
from diptych.serving.served_model import Decode, Towers
from diptych.serving.server_settings import Settings
from diptych.serving.service import Service


def serve(
    index: Index,
    model: ImageModel,
    preprocess: Preprocess,
    name: str,
    settings: Settings,
    *,
    announce: Callable[[str], None],
) -> None:
    """Serve an index until SIGTERM or SIGINT. `announce` is called with the address once the server answers.

    Raises:
        SettingsError: the server cannot listen on the address.
        SearchIndexError: the index was filled by another model.
    """
    # Bind the port first: a port that is taken is reported before anything slow.
    with listening(settings.host, settings.port) as listener, DecodingPool() as decoding:
        service = build_service(index, model, preprocess, name, settings, decode=decoding.decode)
        server = build_server(service, settings)

        async def run() -> None:
            running = asyncio.create_task(server.serve([listener]))
            while not server.started and not running.done():
                await asyncio.sleep(0.01)
            if server.started:
                announce(address_of(listener))
            await running

        asyncio.run(run())


def build_service(
    index: Index, model: ImageModel, preprocess: Preprocess, name: str, settings: Settings, *, decode: Decode
) -> Service:
    """Build the service of one index. `decode` reads the images of requests."""
    metrics = Metrics()
    towers = Towers(model, preprocess, name, decode=decode, settings=settings, metrics=metrics)
    return Service(index, towers, settings, metrics)


def build_server(service: Service, settings: Settings) -> GracefulServer:
    """Build the server of a service. Its `serve` takes the listening socket."""
    limits = ConnectionLimits(drain_seconds=int(settings.drain_seconds))
    config = GuardedConfig(create_app(service, settings), settings.host, settings.port, limits)

    def stopping() -> None:
        service.draining = True

    return GracefulServer(config, stopping)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address; the server starts to listen on it.

    Raises:
        SettingsError: this machine does not have the address, or another program uses the port.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise SettingsError(
            f"{host}:{port}: cannot listen here ({error.strerror or error}); choose another address with --host and "
            "--port"
        ) from error
    return bound


def address_of(listener: socket.socket) -> str:
    """Return the URL of a server for a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
