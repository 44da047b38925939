"""``python -m fastprompt``, and the console script ``fastprompt``."""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

from fastprompt.cli import UserError

COMMANDS = {
    "info": "versions, threads, instruction set, and every backend with the reason if it is off",
    "doctor": "self-test: every operator against its reference on this machine",
    "segment": "cut an object out of a picture with clicks, a box or scribbles",
    "export": "write a model as a file for ONNX Runtime, OpenVINO or TensorRT",
    "bench": "time fastprompt against the installed peers, in one run",
}


class Version(argparse.Action):
    """Looks the version up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import fastprompt

        print(fastprompt.__version__)
        parser.exit()


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("fastprompt", description="Fast, exact kernels for promptable image segmentation.")
    top.add_argument("--version", action=Version, nargs=0, help="print the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands", required=True)
    for name, help_line in COMMANDS.items():
        module = importlib.import_module(f"fastprompt.cli.{name}")
        command = commands.add_parser(name, help=help_line, description=module.__doc__)
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0 = fine, 1 = the command found a fault, 2 = a mistake in the arguments."""
    command = ""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        # NOTE: argparse takes "-5,10" for an option, but nothing for one that begins with a blank.
        options = parser().parse_args([f" {text}" if re.match(r"-[.\d]", text) else text for text in given])
        command = f" {options.command}"
        return int(options.run(options))
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (UserError, ValueError, OSError) as error:
        print(f"fastprompt{command}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
