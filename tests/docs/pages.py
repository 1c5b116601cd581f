"""The pages that are made from docstrings: every error, and the Python client."""

import inspect
import re
from pathlib import Path

from connect_actor import client
from connect_actor.errors import CallerError, ConnectError, PeerError, ServiceError
from connect_actor.rpc.status import STATUSES

__all__ = ["PAGES"]

_REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

_ERRORS = """\
# Errors

Made from `service/connect_actor/errors.py` by `make docs`; a test compares the two.

Every error is one gRPC status. Its message says what to do. `google.rpc.ErrorInfo` holds a stable
reason for programs (domain `connect-actor`), and `google.rpc.RetryInfo` says when to try again,
where waiting helps. In a frame of `Exchange` an operation that fails carries the same status in its
result, and the other operations are not affected. The Python client raises the exception of
`connect_actor.errors`.
"""

_WHO = {
    CallerError: ("The caller has to act", "The request can't be carried out as it is."),
    PeerError: ("The peer has to act", "What the peer sent is refused; the channel is unharmed."),
    ServiceError: ("The service or its operator has to act", "The service can't serve this now."),
}

_CLIENT = """\
# Client API

Made from the docstrings of `connect_actor.client` by `make docs`; a test compares the two. The
[tutorial](../tutorial/client.md) shows how to use it.
"""


def errors_page() -> str:
    """Return the page of errors, by who has to act."""
    page = _ERRORS
    for parent, (title, text) in _WHO.items():
        page += f"\n## {title}\n\n{text}\n\n"
        page += "| status | reason | retry after | meaning |\n|---|---|---|---|\n"
        for kind, rule in STATUSES.items():
            if issubclass(kind, parent):
                pause = rule.retry_after_millis
                wait = "-" if pause is None else f"{pause:,} ms"
                page += f"| `{rule.code.name}` | `{rule.reason}` | {wait} | {_flat(kind)} |\n"
    return page


def client_page() -> str:
    """Return the page of the client's classes, methods and functions."""
    page = _CLIENT
    for name in sorted(vars(client)):
        value = getattr(client, name)
        if name.startswith("_") or inspect.ismodule(value):
            continue
        page += f"\n## {name}\n\n{_text(value)}\n"
        if inspect.isclass(value):
            for member, function in vars(value).items():
                if isinstance(function, property):
                    page += f"\n### {name}.{member}\n\n{_text(function)}\n"
                elif not member.startswith("_") and callable(getattr(value, member)):
                    method = getattr(value, member)
                    await_ = "await " if inspect.iscoroutinefunction(method) else ""
                    signature = _signature(method)
                    page += f"\n### {name}.{member}\n\n    {await_}{member}{signature}\n\n"
                    page += f"{_text(method)}\n"
        else:
            page += f"\n    {name}{_signature(value)}\n"
    return page


def _signature(function: object) -> str:
    signature = inspect.signature(function)  # type: ignore[arg-type] # a function
    return re.sub(r"\(self(, )?", "(", str(signature)).replace("connect_actor.", "")


def _text(value: object) -> str:
    text = inspect.getdoc(value) or ""
    text = re.sub(r"``([^`]+)``", r"`\1`", text)
    # A section of a docstring becomes a list.
    lines = []
    for line in text.splitlines():
        if section := re.fullmatch(r"(Args|Raises|Returns|Yields):", line):
            lines += ["", f"{section[1]}:", ""]
        elif (item := re.fullmatch(r" {4}(\w[\w.]*): (.*)", line)) is not None:
            lines.append(f"- `{item[1]}`: {item[2]}")
        else:
            lines.append(re.sub(r"^ {8}", "  ", re.sub(r"^ {4}(?! )", "", line)))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _flat(kind: type[ConnectError]) -> str:
    return " ".join((inspect.getdoc(kind) or "").split()).replace("|", "/")


PAGES = {_REFERENCE / "errors.md": errors_page, _REFERENCE / "client.md": client_page}
"""Each page's path, and what makes it."""
