"""The exit code of a command: 0 done or nothing to do, 2 wrong input, 1 the work failed, 130 interrupted.

An error of ours is one line: what, where, what to do. Work that failed has a log too.
"""

from __future__ import annotations

import sys

import typer

from flows.cli.standard_files import BROKEN_PIPE, discard_output
from flows.cli.usage_line import command_path, usage_line
from pipeline.errors import InputError, TutelageError, WorkError


def exit_code(app: typer.Typer, arguments: list[str]) -> int:
    """Runs a command; prints an error as one line on stderr."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=arguments, prog_name="tutelage", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as error:
        print(f"tutelage: {usage_line(error, command_path(command, arguments))}", file=sys.stderr)
        return InputError.exit_code
    except TutelageError as error:
        print(f"tutelage: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has exited, as `head` does.
        discard_output()
        return BROKEN_PIPE
    except SystemExit as ended:
        # Typer turns BrokenPipeError into a silent SystemExit(1), which would mean failed work.
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        discard_output()
        return BROKEN_PIPE
    except (KeyboardInterrupt, typer.Abort):
        print("tutelage: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        from flows.cli.machine_errors import machine_error_line

        line = machine_error_line(error)
        if line is None:
            raise
        print(f"tutelage: {WorkError(line)}", file=sys.stderr)
        return WorkError.exit_code
    return code if isinstance(code, int) else 0
