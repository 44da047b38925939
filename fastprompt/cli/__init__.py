"""The command line, one module per command: ``add_arguments(parser)`` and ``run(arguments) -> exit code``."""


class UserError(Exception):
    """A mistake of the user: ``main`` prints the message on one line and exits with 2."""


def needs(*packages: str) -> UserError:
    """The error for optional packages that are not installed."""
    return UserError(f"{' or '.join(packages)} is not installed; run: pip install {' '.join(packages)}")
