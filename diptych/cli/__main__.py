"""The entry point: runs a command and turns what went wrong into one line and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated, 141 the reader of a pipe went away.
"""

import atexit
import gc
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

DONE, FAILED, WRONG_USAGE, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `diptych ARGUMENTS` (`sys.argv` when not given) and return the exit code."""
    _never_fail_to_print()
    # Pillow warns of odd metadata, without the name of the file and with a line of its own source; the image is read.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _show_warnings_plainly()
    # On its way out Python collects garbage among all that was imported: half a second, after torch, for nothing.
    atexit.register(gc.freeze)
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        print("interrupted", file=sys.stderr)
        return getattr(stop, "exit_code", INTERRUPTED)
    except BrokenPipeError:
        # Python flushes stdout once more on its way out; that must find something that takes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return PIPE_CLOSED
    return code


def _run(arguments: list[str]) -> int:
    # Imported here so that Ctrl-C during the imports is caught above.
    from cyclopts import CycloptsError

    from diptych.cli.options import allow_pixels
    from diptych.cli.verbs import build_app
    from diptych.errors import DiptychError, UsageError

    try:
        arguments = allow_pixels(arguments)
        code = build_app()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        return code if isinstance(code, int) else DONE
    except CycloptsError as error:
        verb = " ".join(error.command_chain or ())
        hint = f"see: diptych {verb} --help" if verb else "see: diptych --help"
        return _fail(f"{_one_line(str(error))} ({hint})", WRONG_USAGE)
    except UsageError as error:
        return _fail(_one_line(str(error)), WRONG_USAGE)
    except DiptychError as error:
        return _fail(_one_line(str(error)), FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        return _fail(f"{place}{error.strerror or error}", FAILED)
    except Exception as error:
        what = _one_line(f"{type(error).__name__}: {error}")
        return _fail(
            f"unexpected {what} (a bug: please report it with the output of DIPTYCH_DEBUG=1)", FAILED
        )


def _fail(message: str, code: int) -> int:
    if os.environ.get("DIPTYCH_DEBUG"):
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return code


def _one_line(text: str) -> str:
    from diptych.printable import printable

    return printable(" ".join(text.split()))


def _show_warnings_plainly() -> None:
    """Show a warning of Diptych in one line, as errors are; others keep the place in the code."""
    known = warnings.formatwarning

    def shown(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if category.__module__.startswith("diptych."):
            return f"warning: {_one_line(str(message))}\n"
        return known(message, category, filename, lineno, line)

    warnings.formatwarning = shown


def _never_fail_to_print() -> None:
    """Escape what a terminal's encoding may lack of file names and captions."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
