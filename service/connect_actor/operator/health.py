"""The command ``connect-actor health``: asks a running service whether it serves.

It is asked every few seconds beside a service, at that service's cost, so it loads little.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from connect_actor.network.addresses import AddressError, parse, parse_target
from connect_actor.network.client_tls import ClientTls
from connect_actor.process.exit_codes import RIGHT, UNHEALTHY, USAGE
from connect_actor.process.program import in_words
from connect_actor.rpc.probe import ask_health

__all__ = ["run"]

# Seconds; also keeps infinity and what is no number out.
_LONGEST = 24 * 60 * 60.0


def run(flags: Sequence[str]) -> int:
    """Print the service's status; return 0 if it serves."""
    parser = argparse.ArgumentParser("connect-actor health")
    parser.add_argument(
        "--target", help="host:port or unix:path; default: where this environment's serve listens"
    )
    parser.add_argument("--timeout", type=_seconds, default=3.0, help="seconds (default: 3)")
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
        if target is not None:
            parse_target(target)
        else:
            # Settings are most of this command's cost: only if they are needed.
            from connect_actor.settings import load_settings  # noqa: PLC0415

            settings = load_settings([])
            target = str(parse(settings.listen).reachable)
            if ca is None and settings.tls_certificate is not None:
                from connect_actor.access.certificates import name_in  # noqa: PLC0415 - likewise

                # The very certificate, so whatever it calls this machine is right.
                ca = settings.tls_certificate
                name = name or name_in(ca.read_bytes())
        tls = None
        if ca is not None:
            tls = ClientTls.from_files(ca, asked.tls_certificate, asked.tls_private_key, name)
    except AddressError as error:
        sys.stderr.write(f"connect-actor: --target {target}: {error}\n")
        return USAGE
    except (OSError, ValueError) as error:
        reason = in_words(error) if isinstance(error, OSError) else error
        sys.stderr.write(f"connect-actor: {reason}\n")
        return USAGE
    status = ask_health(target, asked.timeout, tls)
    sys.stdout.write(f"{status}\n")
    return RIGHT if status == "SERVING" else UNHEALTHY


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= _LONGEST:
        raise ValueError
    return seconds
