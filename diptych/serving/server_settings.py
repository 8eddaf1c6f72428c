"""What a server can be told, and its limits. The defaults are for two cores and a few dozen users."""

from dataclasses import dataclass, field
from pathlib import Path

from diptych.errors import SettingsError
from diptych.serving.guard.tokens import Tokens, check_exposure


@dataclass(frozen=True)
class Settings:
    """Settings of one server."""

    host: str = "127.0.0.1"  # address to listen on
    port: int = 8000  # 0: any free one
    names: tuple[str, ...] = ()  # further names that the server is asked by, such as a proxy's
    tokens: Tokens = field(default_factory=Tokens)  # none: only on loopback, and only for reading
    allow_url_fetch: bool = False  # whether a request may name a picture by its address on the web
    uploads: Path | None = None  # folder for pictures that are added by upload; None: none can be added
    originals: bool = True  # whether the pictures themselves are handed out, beside their thumbnails

    body_bytes: int = 26_000_000  # of one request; pictures in JSON take a third more than their files
    inputs: int = 64  # texts and pictures in one request
    prompts: int = 256  # labels times templates in one classification
    text_characters: int = 4_000  # of one text; CLIP reads some 300

    text_batch: int = 32  # texts in one pass through the model
    picture_batch: int = 16  # pictures in one pass
    batch_wait: float = 0.005  # seconds without a new item after which a batch waits no longer for more
    text_queue: int = 256  # texts that may wait or be computed; more are answered 429
    picture_queue: int = 64  # pictures, each with its pixels in memory
    text_cache: int = 4096  # vectors of texts that are kept; 2 KB each for 512 dimensions
    index_threads: int = 2  # that read the index
    index_queue: int = 128  # questions to the index that may wait or be answered; more are answered 429
    drain_seconds: float = 10.0  # that requests may take after SIGTERM

    def __post_init__(self) -> None:
        check_exposure(self.host, self.tokens)
        if self.prompts > self.text_queue or self.inputs > min(self.text_queue, self.picture_queue):
            raise SettingsError(
                f"queues of {self.text_queue} texts and {self.picture_queue} pictures: too short for one request of "
                f"{self.inputs} inputs or {self.prompts} prompts, which would always be refused"
            )
