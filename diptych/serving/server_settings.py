"""The settings and limits of a server. The defaults are for two cores and a few dozen users."""

from dataclasses import dataclass, field
from pathlib import Path

from diptych.errors import SettingsError
from diptych.serving.guard.tokens import Tokens, check_exposure


@dataclass(frozen=True)
class Settings:
    """Settings of one server."""

    host: str = "127.0.0.1"  # the address to listen on
    port: int = 8000  # 0: any free port
    names: tuple[str, ...] = ()  # more names that clients may use, such as that of a proxy
    tokens: Tokens = field(default_factory=Tokens)  # without tokens: loopback only, read only
    allow_url_fetch: bool = False  # whether a request may name an image by its URL
    uploads: Path | None = None  # the folder of uploaded images; None: uploads are refused
    originals: bool = True  # whether original files are sent, beside thumbnails

    body_bytes: int = 26_000_000  # of one request; base64 makes an image a third larger than its file
    inputs: int = 64  # texts and images in one request
    prompts: int = 256  # labels times templates in one classification
    text_characters: int = 4_000  # of one text; CLIP reads about 300

    text_batch: int = 32  # texts in one pass through the model
    image_batch: int = 16  # images in one pass
    batch_wait: float = 0.005  # seconds without a new item after which a batch starts
    text_queue: int = 256  # texts that wait or are computed; beyond it, status 429
    image_queue: int = 64  # images, each with its pixels in memory
    text_cache: int = 4096  # cached text vectors; 2 KB each at 512 dimensions
    index_threads: int = 2  # threads that read the index
    index_queue: int = 128  # reads of the index that wait or run; beyond it, status 429
    drain_seconds: float = 10.0  # time for requests under way after SIGTERM

    def __post_init__(self) -> None:
        check_exposure(self.host, self.tokens)
        if self.prompts > self.text_queue or self.inputs > min(self.text_queue, self.image_queue):
            raise SettingsError(
                f"text_queue {self.text_queue}, image_queue {self.image_queue}: one request may hold {self.inputs} "
                f"inputs or {self.prompts} prompts and would always be refused; make the queues at least that long"
            )
