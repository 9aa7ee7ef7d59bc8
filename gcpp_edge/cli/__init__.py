"""The command line `gcpp-edge`: one file a command, and here how a command ends.

Standard output holds what was asked for, standard error the rest. Exit status: 0 done; 1 a defect of ours; 2 something
given to the command cannot be used, said in one line on standard error; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from gcpp_edge.errors import GcppError, MissingDependencyError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
DEBUG_VARIABLE = "GCPP_EDGE_DEBUG"  # =1 shows the traceback behind an error line


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status. arguments: without the program's name; None takes sys.argv."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _run(words or ["--help"])
        if status == EXIT_INTERRUPTED:  # how newer releases of typer hand Ctrl-C on, without a word
            raise KeyboardInterrupt
        return status
    except GcppError as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except MemoryError as error:
        return _refuse(f"Not enough memory ({error}). Is a size too large?")
    except KeyboardInterrupt:
        print("gcpp-edge: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _run(words: list[str]) -> int:
    try:
        import rich  # noqa: F401, only to know that it is there
        import typer
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"The command line needs {error.name}, which is not installed: pip install 'gcpp-edge[cli]'"
        ) from error
    from gcpp_edge.cli.app import application

    # the root of the errors that typer raises over options; newer releases carry a click of their own
    usage_error: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")
    try:
        return int(application(words[0])(words, prog_name="gcpp-edge", standalone_mode=False) or 0)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except usage_error as error:
        command = error.ctx.command_path if getattr(error, "ctx", None) else "gcpp-edge"
        return _refuse(f"{error.format_message().rstrip('.')} (see {command} --help)")


def _refuse(message: str) -> int:
    if os.environ.get(DEBUG_VARIABLE) == "1":
        import traceback

        traceback.print_exc()
    print("gcpp-edge: " + " ".join(message.split()), file=sys.stderr)
    return EXIT_BAD_INPUT
