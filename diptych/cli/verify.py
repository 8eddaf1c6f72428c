"""`diptych verify`: are the files what was written?"""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diptych.cli.options import Json
from diptych.cli.output import emit
from diptych.errors import DataError
from diptych.training.saving.layout import RESULTS, checkpoints


def verify(
    path: Annotated[str, Parameter(help="A checkpoint, the folder of a run, or an index (an address too).")],
    /,
    *,
    as_json: Json = False,
) -> None:
    """Compare every file of a checkpoint, a run or an index with the SHA-256 that was recorded when it was written."""
    checked = [_index(path)] if "://" in path else [_check(folder) for folder in _folders(Path(path))]
    if as_json:
        emit({"path": path, "ok": True, "checked": checked})
        return
    for found in checked:
        print(f"{found['path']}: {found['kind']}, {found['files']} files as they were written")


def _folders(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    if (path / "diptych.json").is_file() or (path / "index.json").is_file():
        return [path]
    parts = [*checkpoints(path), *(path / name for name in RESULTS)]
    found = [part for part in parts if (part / "diptych.json").is_file()]
    if not found:
        raise DataError(
            f"{path}: neither a checkpoint (a folder with diptych.json), nor a run (with model/), "
            "nor an index (with index.json); name the folder of one"
        )
    return found


def _check(folder: Path) -> dict[str, Any]:
    if (folder / "index.json").is_file():
        return _index(str(folder))
    from diptych.weights.checkpoint import verify_checkpoint

    manifest = verify_checkpoint(folder)
    return {"path": str(folder), "kind": "checkpoint", "files": len(manifest.sha256), "model": manifest.kind}


def _index(place: str) -> dict[str, Any]:
    from diptych.search.integrity import verify as verify_index

    found = verify_index(place)
    return {
        "path": place,
        "kind": "index",
        "files": found.files,
        "count": found.images,
        "thumbnails": found.thumbnails,
    }
