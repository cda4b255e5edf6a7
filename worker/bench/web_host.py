"""
A web host in a process of its own that serves a folder of pictures, for measuring what fetching over the web costs.

With the package trustme installed it speaks TLS under an authority of its own; without, plain http, and says so.
"""

import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from worker.errors import CannotStart
from worker.settings.images import FetchSettings

HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class WebHost:
    """
    Where the pictures are, and what fetching from there has to be allowed.
    """

    url: str
    scheme: str
    settings: FetchSettings


@contextmanager
def web_host(folder: Path, settings: FetchSettings, work: Path) -> Iterator[WebHost]:
    """
    The folder's files below ``url`` while inside. Raises ``CannotStart`` when the host does not come up.
    """
    allowed: dict[str, object] = {"allow_private_addresses": True}
    command = [sys.executable, "-m", "worker.bench.web_host", str(folder)]
    if find_spec("trustme") is None:
        scheme = "http"
        allowed["allow_http"] = True
    else:
        scheme = "https"
        allowed["ca_file"] = _certified(work)
        command.append(str(work / "host.pem"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
        try:
            line = process.stdout.readline().strip() if process.stdout is not None else ""
            if not line.isdecimal():
                raise CannotStart("the web host of the benchmark did not say its port; its message is above")
            yield WebHost(f"{scheme}://{HOST}:{line}", scheme, settings.model_copy(update=allowed))
        finally:
            process.terminate()


def _certified(work: Path) -> Path:
    """
    The certificate of a new authority; the host's own, with its key, lies beside it.
    """
    # A package of the tests, which only this measurement uses as well; an import by name keeps it out of the types.
    authority = import_module("trustme").CA()
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(work / "host.pem"))
    authority.cert_pem.write_to_path(str(work / "authority.pem"))
    return work / "authority.pem"


class _Handler(SimpleHTTPRequestHandler):
    """
    Keeps connections, as real hosts do, and logs nothing.
    """

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:  # noqa: ANN401 - the signature of the standard library
        """
        Say nothing.
        """


def main() -> None:
    """
    Serve the folder on the command line, over TLS with the file of key and certificate behind it, until ended.
    """
    folder, *certificate = sys.argv[1:]
    server = ThreadingHTTPServer((HOST, 0), partial(_Handler, directory=folder))
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate[0])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)  # noqa: T201 - how the parent learns it
    server.serve_forever()


if __name__ == "__main__":
    main()
