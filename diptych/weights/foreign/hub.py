"""Fetch a model of the Hugging Face hub with its own client, and say in one line what is in the way.

The client, `huggingface_hub`, has the cache, the retries and the tokens, and reads the variables `HF_HOME`,
`HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE`. Only the files that the model's reader needs are
fetched, configuration first, so that a model that Diptych does not build costs no download of its weights. The hub
states the SHA-256 of large files; it is compared before a file is read.
"""

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.atomic import sha256_of
from diptych.errors import CheckpointError, DownloadError
from diptych.weights import checkpoint
from diptych.weights.foreign import open_clip, transformers
from diptych.weights.foreign.published import Progress

PREFIX = "hf-hub:"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@.+)?", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}")
# As the hub addresses a file: plain, or through its cache of small files.
_FILE_ADDRESS = re.compile(r"https?://[^/]+(?:/api/resolve-cache/models)?/([^/]+/[^/]+)/")


class HubWarning(UserWarning):
    """The hub's answer, or a name, has a second meaning that the user should know."""


@dataclass(frozen=True)
class HubName:
    """A repository, and a branch, tag or commit of it."""

    repo: str  # owner/name
    revision: str | None = None

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def hub_name(text: str) -> HubName | None:
    """Return the repository that `hf-hub:owner/name[@revision]` or `owner/name[@revision]` names; None for others.

    Raises `CheckpointError` for a name that begins with `hf-hub:` and is not of that form.
    """
    bare = text.removeprefix(PREFIX)
    if _NAME.fullmatch(bare) is None:
        if bare != text:
            raise CheckpointError(f"{text}: is not a name on the hub; expected {PREFIX}owner/name[@revision]")
        return None
    repo, _, revision = bare.partition("@")
    return HubName(repo, revision or None)


def is_cached(name: HubName, cache: str | os.PathLike[str] | None = None) -> bool:
    """Return whether the client's cache has files of a repository."""
    from huggingface_hub import constants  # noqa: PLC0415, takes time, and few calls need it

    return (Path(cache or constants.HF_HUB_CACHE) / f"models--{name.repo.replace('/', '--')}").is_dir()


def is_offline() -> bool:
    """Return whether `HF_HUB_OFFLINE` switches downloads off."""
    from huggingface_hub import constants  # noqa: PLC0415

    return constants.is_offline_mode()


def fetch(
    name: HubName,
    *,
    cache: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Return the folder of a model in the client's cache; what is missing there is downloaded.

    cache: in place of the client's own folder.

    Raises `DownloadError` if the model cannot be fetched, and `CheckpointError` if Diptych does not read it.
    """
    snapshot = _Snapshot(name, cache, offline, progress)
    if (manifest := snapshot.file(checkpoint.MANIFEST)) is not None:
        for other in checkpoint.read_manifest(manifest.parent).sha256:
            snapshot.needed(other)
        return manifest.parent
    if (found := snapshot.file(open_clip.CONFIG)) is not None:
        open_clip.describe(found.parent)
        snapshot.first_of(open_clip.WEIGHT_FILES)
        return found.parent
    if (found := snapshot.file(transformers.CONFIG)) is not None:
        for settings in transformers.PROCESSORS:
            snapshot.file(settings)
        transformers.describe(found.parent)
        weights = snapshot.first_of(transformers.WEIGHT_FILES)
        for part in transformers.parts_of(weights):
            snapshot.needed(part)
        return found.parent
    raise snapshot.lacks((checkpoint.MANIFEST, open_clip.CONFIG, transformers.CONFIG))


class _Snapshot:
    """One commit of a repository in the cache, file by file."""

    def __init__(
        self, name: HubName, cache: str | os.PathLike[str] | None, offline: bool, progress: Progress | None
    ) -> None:
        from huggingface_hub import constants  # noqa: PLC0415

        self.name = name
        self.cache = Path(cache or constants.HF_HUB_CACHE)
        self.offline = offline or is_offline()
        self.unreachable: str | None = None  # why the hub does not answer
        self.bar = _bar(progress)
        self.commit: str | None = None

    def file(self, filename: str) -> Path | None:
        """Return a verified file; None if the repository (or, without the hub, the cache) does not have it."""
        from huggingface_hub import errors, hf_hub_download  # noqa: PLC0415

        try:
            path = Path(
                hf_hub_download(
                    self.name.repo,
                    filename,
                    revision=self.commit or self.name.revision,
                    cache_dir=self.cache,
                    local_files_only=self.offline,
                    library_name="diptych",
                    tqdm_class=self.bar,
                )
            )
        except errors.RemoteEntryNotFoundError:
            return None
        except errors.LocalEntryNotFoundError as error:
            if not self.offline:
                self.offline, self.unreachable = True, _reason(error.__cause__ or error)
            return None
        except errors.HFValidationError as error:
            raise CheckpointError(f"{self.name}: is not a name on the hub: {_reason(error)}") from None
        except (OSError, RuntimeError, errors.HTTPError) as error:  # type: ignore[attr-defined]
            raise DownloadError(self._refusal(error, filename)) from None
        if self.commit is None:
            self.commit = path.parent.name
            if not self.offline:
                self._warn_if_renamed(filename)
        _verify(path, self.name)
        return path

    def needed(self, filename: str) -> Path:
        """Return a verified file that must be there."""
        return self.first_of((filename,))

    def first_of(self, filenames: tuple[str, ...]) -> Path:
        """Return the first of these files that the repository has."""
        for filename in filenames:
            if (path := self.file(filename)) is not None:
                return path
        raise self.lacks(filenames)

    def lacks(self, filenames: tuple[str, ...]) -> DownloadError:
        """Return the error for a repository, or a cache, that has none of these files."""
        wanted = filenames[0] if len(filenames) == 1 else f"none of {', '.join(filenames)}"
        if self.offline:
            state = (
                "downloads are switched off (offline=True or HF_HUB_OFFLINE)"
                if self.unreachable is None
                else f"{_endpoint()} cannot be reached ({self.unreachable})"
            )
            has = f"does not have {wanted}" if len(filenames) == 1 else f"has {wanted}"
            return DownloadError(
                f"{self.name}: {state}, and the cache {self.cache} {has} of it; load it once with a connection, or "
                f"copy that cache from a machine that has it: hf download {self.name.repo}"
            )
        has = f"lacks the file {wanted}" if len(filenames) == 1 else f"has {wanted}"
        return DownloadError(
            f"{self.name}: {_endpoint()}/{self.name.repo} {has}, so Diptych cannot read a model there; name a "
            "repository, or a revision (@REVISION), with a model of Diptych, open_clip or transformers"
        )

    def _refusal(self, error: Exception, filename: str) -> str:
        from huggingface_hub import errors  # noqa: PLC0415

        page = f"{_endpoint()}/{self.name.repo}"
        if isinstance(error, errors.GatedRepoError):
            return (
                f"{self.name}: is gated; accept its conditions at {page}, then log in with `hf auth login` or set "
                "HF_TOKEN"
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return (
                f"{self.name}: neither a file or folder here, nor a model at {page} that you may read; check the "
                "spelling, and for a private model log in with `hf auth login` or set HF_TOKEN"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return f"{self.name}: has no branch, tag or commit {self.name.revision!r}; {page}/tree/main lists them"
        return (
            f"{self.name}: {filename} could not be fetched whole ({_reason(error)}); run the command again. Only "
            "whole files are kept"
        )

    def _warn_if_renamed(self, filename: str) -> None:
        from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url  # noqa: PLC0415

        address = hf_hub_url(self.name.repo, filename, revision=self.name.revision)
        try:
            location = get_hf_file_metadata(address).location
        except (OSError, errors.HTTPError):  # type: ignore[attr-defined]
            return  # the file is here; only a remark is lost
        found = _FILE_ADDRESS.match(location)
        if found is not None and found[1].lower() != self.name.repo.lower():
            warnings.warn(
                f"{self.name}: is now called {PREFIX}{found[1]}; use that name, the old one may go",
                HubWarning,
                stacklevel=2,
            )


def _verify(path: Path, name: HubName) -> None:
    """Compare a file's SHA-256 with the one that the hub stated, by which the cache names large files."""
    stated = Path(os.readlink(path)).name if path.is_symlink() else ""
    if _SHA256.fullmatch(stated) is None:
        return
    found = sha256_of(path)
    if found != stated:
        blob = path.parent / os.readlink(path)
        path.unlink()
        blob.unlink()
        raise DownloadError(
            f"{name}: {path.name} has the SHA-256 {found}; the hub states {stated}; it was deleted, unread. Run the "
            "command again; if it repeats, a proxy on the way changes files"
        )


def _bar(progress: Progress | None) -> type:
    """Return what the client calls in place of a bar of its own: `progress`, or nothing."""

    class Bar:
        def __init__(self, *, total: int | None = None, initial: int = 0, **_: Any) -> None:
            self.total, self.done = total, initial

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            self.close()

        def update(self, count: float | None = 1) -> None:
            self.done += int(count or 0)
            if progress is not None:
                progress(self.done, self.total)

        def close(self) -> None:
            """Leave the display as it is."""

    return Bar


def _endpoint() -> str:
    from huggingface_hub import constants  # noqa: PLC0415

    return constants.ENDPOINT


def _reason(error: BaseException) -> str:
    """Return the first line of an error of the client, which may be a page."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
