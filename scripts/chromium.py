"""Find and start Chromium for the tests and the screenshots."""

import shutil
from pathlib import Path

from playwright.sync_api import Browser, Playwright


def executable(downloaded: str) -> str:
    """Return the path of Playwright's own Chromium if it was downloaded, else that of the distribution's.

    Args:
        downloaded: where Playwright's own would be.
    """
    found = downloaded if Path(downloaded).exists() else shutil.which("chromium")
    if found is None:
        raise FileNotFoundError(
            f"no Chromium: {downloaded} does not exist and no `chromium` is on the PATH; `make setup` installs one"
        )
    return found


def launch(playwright: Playwright) -> Browser:
    """Start Chromium without its sandbox, which root may not use, and without its own requests to the network."""
    return playwright.chromium.launch(
        executable_path=executable(playwright.chromium.executable_path),
        args=["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
    )
