"""The page's own files: read once, served from memory under an address that changes with their contents."""

import hashlib
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response

from diptych.palette import PALETTE

FOLDER = Path(__file__).parent / "static"

_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# An address names these very bytes: a browser never needs to ask again.
_FOREVER = "public, max-age=31536000, immutable"


class StaticFiles:
    """The files of one folder, and the palette of the package. No path of a request ever reaches the disk."""

    def __init__(self, folder: Path = FOLDER) -> None:
        files = [*sorted(folder.iterdir()), PALETTE]
        self._files = {path.name: path.read_bytes() for path in files if path.suffix in _TYPES}
        digest = hashlib.sha256()
        for name, data in self._files.items():
            digest.update(f"{name} {len(data)}\n".encode() + data)
        self.version = digest.hexdigest()[:12]

    @property
    def base(self) -> str:
        """What stands before a file's name in its address."""
        return f"/static/{self.version}"

    def answer(self, version: str, name: str) -> Response:
        """The file; 404 for another name, or the version of another build."""
        data = self._files.get(name)
        if data is None or version != self.version:
            raise HTTPException(404, f"no file {name[:80]!r} of the page; load the page again")
        headers = {"Cache-Control": _FOREVER}
        return Response(data, media_type=_TYPES[Path(name).suffix], headers=headers)
