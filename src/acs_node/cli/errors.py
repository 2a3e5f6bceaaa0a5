"""How a command ends when it does not end well: one line on stderr, and an exit code by class."""

from typing import IO, Any

import click


class CliError(click.ClickException):
    """The common form; ``details`` follow the line as they are."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.details = details

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line to stderr, or to ``file``."""
        click.echo(f"acs: {self.message}", file, err=True)
        if self.details:
            click.echo(self.details, file, err=True)


class ActivationFailed(CliError):
    """The invoked activation ended with an error."""

    exit_code = 1


class BadSetting(CliError):
    """A setting or a local file is wrong; bad command lines have the same code, from click."""

    exit_code = 2


class Rejected(CliError):
    """The server understood and did not do it."""

    exit_code = 3


class NoAccess(CliError):
    """The server is not reachable, or the key is missing or not accepted."""

    exit_code = 4


class StillRunning(CliError):
    """The wait for an activation ended before it did; the code is that of timeout(1)."""

    exit_code = 124


class Interrupted(CliError):
    """The user stopped it; the code is what shells report for SIGINT."""

    exit_code = 130
