"""The command ``connect-actor token``: a fresh bearer token, and the line that stores it."""

import argparse
import sys
from collections.abc import Sequence

from connect_actor.access.principals import principal_named
from connect_actor.access.tokens import new_token, token_line
from connect_actor.process.exit_codes import RIGHT

__all__ = ["run"]


def run(flags: Sequence[str]) -> int:
    """Print a token and its line; return the process's exit code."""
    parser = argparse.ArgumentParser("connect-actor token")
    parser.add_argument("name", help="the principal's name, without spaces")
    name = parser.parse_args(flags).name
    try:
        principal_named(name)
    except ValueError as error:
        parser.error(str(error))
    token = new_token()
    sys.stderr.write("the token, for the caller alone, and the line for the token file:\n")
    sys.stdout.write(f"{token}\n{token_line(name, token)}\n")
    return RIGHT
