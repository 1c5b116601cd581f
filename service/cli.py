"""The command line: ``connect-actor COMMAND [flags]``.

What a command needs is imported when it runs: ``health`` is asked every few seconds beside a
service, at that service's cost, and must not load a second one to do it.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from service.exit_codes import RIGHT, UNHEALTHY, USAGE

__all__ = ["main"]

_USAGE = """\
usage: connect-actor COMMAND [flags]

commands:
  serve     run the service
  health    ask a running service whether it serves; exit code 0 if it does
  token     make a bearer token for a principal, and the line that stores it

connect-actor COMMAND --help lists the flags.
"""


def main() -> int:
    """Run the command that the arguments name; return the process's exit code."""
    # Read when gRPC is imported. Its core writes lines of its own, about every handshake that
    # fails: anyone could fill the log with them. What it calls an error still comes.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    match sys.argv[1:]:
        case ["-h" | "--help"]:
            sys.stdout.write(_USAGE)
            return RIGHT
        case ["serve", *flags]:
            return _serve(flags)
        case ["health", *flags]:
            return _health(flags)
        case ["token", *flags]:
            return _token(flags)
        case _:
            sys.stderr.write(_USAGE)
            return USAGE


def _serve(flags: Sequence[str]) -> int:
    # gRPC's core writes lines of its own to standard error, which are no JSON, and as many as a
    # stranger likes. It reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from service.serve_command import run_serve  # noqa: PLC0415 - see above

    return run_serve(flags)


def _health(flags: Sequence[str]) -> int:
    from service.access.client_tls import ClientTls  # noqa: PLC0415 - see above
    from service.rpc.probe import ask_health, reachable  # noqa: PLC0415 - see above

    parser = argparse.ArgumentParser("connect-actor health")
    parser.add_argument(
        "--target", help="host:port; default: where this environment's serve listens"
    )
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds (default: 3)")
    parser.add_argument(
        "--tls-ca",
        type=Path,
        help="PEM file, roots of the service's certificate or that itself; without it clear text,"
        " or what this environment's serve shows",
    )
    parser.add_argument("--tls-certificate", type=Path, help="PEM file of the asker's certificate")
    parser.add_argument("--tls-private-key", type=Path, help="PEM file of its key")
    parser.add_argument("--tls-server-name", help="a name that the service's certificate has")
    asked = parser.parse_args(flags)

    target, ca, name = asked.target, asked.tls_ca, asked.tls_server_name
    try:
        if target is None:
            from service.settings import load_settings  # noqa: PLC0415 - see above

            settings = load_settings([])
            target = reachable(settings.listen)
            if ca is None and settings.tls_certificate is not None:
                from service.access.certificates import name_in  # noqa: PLC0415 - see above

                # The very certificate, so whatever it calls this machine is right.
                ca = settings.tls_certificate
                name = name or name_in(ca.read_bytes())
        tls = None
        if ca is not None:
            tls = ClientTls.from_files(ca, asked.tls_certificate, asked.tls_private_key, name)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return USAGE
    status = ask_health(target, asked.timeout, tls)
    sys.stdout.write(f"{status}\n")
    return RIGHT if status == "SERVING" else UNHEALTHY


def _token(flags: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("connect-actor token")
    parser.add_argument("name", help="the principal's name, without spaces")
    name = parser.parse_args(flags).name
    from service.access.principals import principal_named  # noqa: PLC0415 - see above
    from service.access.tokens import new_token, token_line  # noqa: PLC0415 - see above

    try:
        principal_named(name)
    except ValueError as error:
        parser.error(str(error))
    token = new_token()
    sys.stderr.write("the token, for the caller alone, and the line for the token file:\n")
    sys.stdout.write(f"{token}\n{token_line(name, token)}\n")
    return RIGHT


if __name__ == "__main__":
    sys.exit(main())
