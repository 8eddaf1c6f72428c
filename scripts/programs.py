"""Install the programs that the tests look up and that pip does not install. `make setup` and `make test` run it.

As root it installs what is missing. Otherwise it stops with the command that does.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import chromium
from playwright.sync_api import Error, sync_playwright

# Program -> Debian package. torch.compile calls the compiler.
PACKAGES = {"chromium": "chromium", "g++": "g++", "git": "git"}
# Playwright's driver loads libatomic.so.1.
DRIVER_LIBRARY = "libatomic1"
# torch.compile includes Python.h.
HEADERS = f"python{sys.version_info.major}.{sys.version_info.minor}-dev"
PLAYWRIGHT = str(Path(sys.executable).with_name("playwright"))
DOWNLOAD_SECONDS = 600


def missing_packages() -> list[str]:
    """Return the Debian packages of the programs, headers and libraries that are absent, without the browser's."""
    missing = [
        package
        for program, package in PACKAGES.items()
        if program != "chromium" and shutil.which(program) is None
    ]
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append(HEADERS)
    if subprocess.run([PLAYWRIGHT, "--version"], capture_output=True, check=False).returncode != 0:
        missing.append(DRIVER_LIBRARY)
    return missing


def browser_starts() -> bool:
    try:
        with sync_playwright() as playwright:
            chromium.launch(playwright).close()
    except (Error, FileNotFoundError):
        return False
    return True


def download_browser() -> bool:
    """Download Playwright's own Chromium. Return whether that was possible; a machine without the network says no."""
    print("downloading Playwright's Chromium", flush=True)
    try:
        done = subprocess.run(
            [PLAYWRIGHT, "install", "chromium"],
            capture_output=True,
            check=False,
            timeout=DOWNLOAD_SECONDS,
            env={**os.environ, "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "10000"},
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def apt_install(packages: list[str]) -> list[str]:
    """Return the command that installs Debian packages."""
    return ["apt-get", "install", "--yes", "--no-install-recommends", *packages]


def run_as_root(command: list[str]) -> None:
    """Run a command that installs something. Update the package lists once where they are absent or old."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    print(" ".join(command), flush=True)
    if subprocess.run(command, capture_output=True, check=False, env=environment).returncode != 0:
        subprocess.run(["apt-get", "update", "--quiet=2"], check=True, env=environment)
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)


def main() -> int:
    packages, commands = missing_packages(), []
    can_install = os.geteuid() == 0 and shutil.which("apt-get") is not None
    if packages and can_install:
        run_as_root(apt_install(packages))
        packages = []
    if DRIVER_LIBRARY in packages or (not browser_starts() and not download_browser()):
        packages.append(PACKAGES["chromium"])
    elif not browser_starts():
        commands.append([PLAYWRIGHT, "install-deps", "chromium"])
    if packages:
        commands.append(apt_install(packages))
    if can_install:
        for command in commands:
            run_as_root(command)
    elif commands:
        print(
            "The tests need programs that only root can install. Run this command, or install the same programs "
            "in your system's way; then run make again:\n  "
            + " && ".join(f"sudo {' '.join(command)}" for command in commands)
        )
        return 1
    if not browser_starts():
        print(
            "Chromium is installed but does not start; `chromium --headless --no-sandbox about:blank` says why"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
