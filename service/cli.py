"""The command line: ``connect-actor serve [flags]``."""

import sys

import uvloop

from service.app import serve
from service.keyfiles import KeyFileError
from service.logs import configure_logging
from service.persistence.contract import JournalError
from service.rpc.server import ListenError
from service.settings import SettingsError, load_settings

__all__ = ["main"]

_USAGE = """\
usage: connect-actor serve [flags]

commands:
  serve    run the service (connect-actor serve --help lists the flags)
"""
_EXIT_USAGE = 2
_EXIT_CANNOT_START = 3


def main() -> int:
    """Run the command that the arguments name; return the process's exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] != "serve":
        asked = bool(arguments) and arguments[0] in ("-h", "--help")
        (sys.stdout if asked else sys.stderr).write(_USAGE)
        return 0 if asked else _EXIT_USAGE
    try:
        settings = load_settings(arguments[1:])
    except SettingsError as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return _EXIT_USAGE
    configure_logging(settings.log_level)
    try:
        uvloop.run(serve(settings))
    except (JournalError, KeyFileError, ListenError) as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return _EXIT_CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
