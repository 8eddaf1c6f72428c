"""Serve the page's own files from memory, under an address that changes with their contents."""

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
# The address contains the hash of the files, so a browser never needs to ask again.
_FOREVER = "public, max-age=31536000, immutable"


class StaticFiles:
    """Hold the files of one folder and the palette of the package. No path of a request reaches the disk."""

    def __init__(self, folder: Path = FOLDER) -> None:
        files = [*sorted(folder.iterdir()), PALETTE]
        self._files = {path.name: path.read_bytes() for path in files if path.suffix in _TYPES}
        digest = hashlib.sha256()
        for name, data in self._files.items():
            digest.update(f"{name} {len(data)}\n".encode() + data)
        self.version = digest.hexdigest()[:12]

    @property
    def base(self) -> str:
        """Return the part of the address before the file name."""
        return f"/static/{self.version}"

    def answer(self, version: str, name: str) -> Response:
        """Return the file. Status 404 for an unknown name, or the version of another build."""
        data = self._files.get(name)
        if data is None or version != self.version:
            raise HTTPException(404, f"the page has no file {name[:80]!r}; reload the page")
        headers = {"Cache-Control": _FOREVER}
        return Response(data, media_type=_TYPES[Path(name).suffix], headers=headers)
