"""The `audiostride` command: parse, call, print. Nothing else.

    prepare     recipes, init, validate                         before training
    training    train, sweep, crossval
    study       evaluate, cutoffs, compare, report, listen      what a run has learned
    calibrate   calibrate                                       by which settings it is to be believed
    use         predict, embed, export                          a model at work

stdout carries data, stderr progress and errors. Modules are imported where they are used, so that
`--help` is fast.
"""

import codecs
import errno
import os
import sys
import warnings
from typing import Annotated, Any

import typer

from ..errors import AudiostrideError, DataWarning, printable, resource_error
from .arguments import spread
from .calibrate import calibrate
from .prepare import init, recipes, validate
from .study import compare, cutoffs, evaluate, listen, report
from .training import crossval, resolution, sweep, train
from .use import embed, export, predict

app = typer.Typer(
    name="audiostride",
    help="Audio classification with CNNs that learn their temporal and spectral resolution.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

COMMANDS = (
    train,
    evaluate,
    calibrate,
    cutoffs,
    recipes,
    init,
    validate,
    sweep,
    crossval,
    resolution,
    compare,
    report,
    listen,
    predict,
    embed,
    export,
)
"""Every command, in the order of `--help`."""

for command in COMMANDS:
    app.command()(spread(command))


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"audiostride {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point: run the command and turn errors into one message and an exit code."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed; the next file that is opened would take its place
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    codecs.register_error("audiostride", _as_bytes)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="audiostride")  # type: ignore[union-attr]
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        app()
    except AudiostrideError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C, without a word
            _fail("interrupted", 130)
        raise
    except BrokenPipeError:
        # The reader of stdout is gone (`| head`); silence the flush at exit, too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        full = "; free some space" if error.errno == errno.ENOSPC else ""
        _fail(f"{error.filename or ''}: {error.strerror or error}{full}".lstrip(": "), 1)
    except (MemoryError, RuntimeError) as error:
        named = resource_error(error)
        if named is None:
            raise
        _fail(str(named), named.exit_code)


def _show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    if issubclass(category, DataWarning):  # a sentence for the person at the terminal, not for a programmer
        typer.secho(printable(f"warning: {message}", keep="\n"), fg="yellow", err=True)
    else:
        _show_any_warning(message, category, *where)


_show_any_warning = warnings.showwarning


def _as_bytes(error: UnicodeError) -> tuple[bytes, int]:
    """What a stream cannot encode: a byte of a name as it was, for any other character a question mark."""
    assert isinstance(error, UnicodeEncodeError)
    first = error.object[error.start]
    return first.encode("ascii", "surrogateescape" if "\udc80" <= first <= "\udcff" else "replace"), error.start + 1


def _fail(message: str, exit_code: int) -> None:
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(printable(message, keep="\n"), err=True)
    sys.exit(exit_code)
