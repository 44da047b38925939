"""The command line, one module per command: ``add_arguments(parser)`` and ``run(arguments) -> exit code``."""


class UserError(Exception):
    """A mistake of the user: ``main`` prints the message on one line and exits with 2."""


def needs(extra: str, module: str) -> UserError:
    """The error for an optional package that is not installed."""
    return UserError(f'{module} is not installed; run: pip install "fastprompt[{extra}]"')
