"""
TLS to Kafka: the files that clients are given, and what a handshake says when no broker would answer.

kafka-python tries a listener again and again whose certificate it does not trust, and in the end tells of a time-out
only. One handshake of our own tells the cause.
"""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from worker.errors import CannotStart
from worker.settings.tree import KafkaSettings

LOOK_S: Final = 2.0
REFUSAL_S: Final = 0.5
"""With TLS 1.3 a server refuses the client's certificate after the handshake; later than this it has not."""
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"})
"""What OpenSSL says of an answer that is no TLS, and of a listener that hangs up: Kafka's without TLS does."""


def tls_config(settings: KafkaSettings) -> dict[str, str]:
    """
    kafka-python's arguments for TLS. Raises ``CannotStart`` for a file that does not exist.
    """
    config: dict[str, str] = {}
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        path: Path | None = getattr(settings, name)
        if path is None:
            continue
        if not path.is_file():
            raise CannotStart(f"kafka.{name} is {path}, which is no file; name the PEM file")
        config[name] = str(path)
    if settings.ssl_key_password is not None:
        config["ssl_password"] = settings.ssl_key_password.get_secret_value()
    return config


def handshake_fault(settings: KafkaSettings) -> str:
    """
    What a handshake with the first broker that listens says is wrong, as a sentence with what to do.

    Where TLS is right and there is a password, that is suspected: over TLS kafka-python (3.0) misses the broker's
    refusal, which comes together with the end of the connection. Empty where nothing is found, or nobody listens.
    """
    for host, port in _addresses(settings.bootstrap_servers):
        try:
            with socket.create_connection((host, port), LOOK_S) as connection:
                if settings.security_protocol.endswith("SSL"):
                    return _refusal(settings, connection, host) or _suspicion(settings)
                return _unexpected_tls(settings, connection)
        except OSError:
            continue
    return ""


def _addresses(bootstrap_servers: str) -> Iterator[tuple[str, int]]:
    for server in bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        if host and port.isdigit():
            yield host.strip("[]"), int(port)


def _refusal(settings: KafkaSettings, connection: socket.socket, host: str) -> str:
    shaken = False
    try:
        with _context(settings).wrap_socket(connection, server_hostname=host) as secured:
            shaken = True
            secured.settimeout(REFUSAL_S)
            secured.recv(1)
    except TimeoutError:
        return "" if shaken else f"the TLS handshake was not answered within {LOOK_S:g} s: {_speaks_no_tls(settings)}"
    except ssl.SSLCertVerificationError as error:
        return (
            f"the broker's certificate is refused: {error.verify_message}; set kafka.ssl_cafile to the authority that "
            "signed it, and name the brokers as it names them"
        )
    except OSError as error:
        reason = (isinstance(error, ssl.SSLError) and error.reason) or type(error).__name__
        if not shaken and (not isinstance(error, ssl.SSLError) or reason in _NOT_TLS):
            return f"the TLS handshake failed ({reason}): {_speaks_no_tls(settings)}"
        return (
            f"the TLS handshake failed ({reason}); where the listener asks for a certificate, check that "
            "kafka.ssl_certfile and kafka.ssl_keyfile name one that it trusts"
        )
    return ""


def _speaks_no_tls(settings: KafkaSettings) -> str:
    plain = "SASL_PLAINTEXT" if settings.security_protocol.startswith("SASL_") else "PLAINTEXT or SASL_PLAINTEXT"
    return (
        "the listener seems to speak no TLS; name one that does in kafka.bootstrap_servers, or, inside a network that "
        f"you trust with every upload, set kafka.security_protocol to {plain} instead of {settings.security_protocol}"
    )


def _suspicion(settings: KafkaSettings) -> str:
    if settings.sasl_mechanism is None:
        return ""
    return (
        "a broker completes the TLS handshake and then lets nobody in; check kafka.sasl_username, kafka.sasl_password "
        "and kafka.sasl_mechanism, else whether that broker is in service"
    )


def _context(settings: KafkaSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.ssl_cafile)
    if settings.ssl_certfile is not None:
        password = settings.ssl_key_password
        context.load_cert_chain(
            settings.ssl_certfile,
            settings.ssl_keyfile,
            # An empty one rather than none: OpenSSL would ask the terminal.
            "" if password is None else password.get_secret_value(),
        )
    return context


def _unexpected_tls(settings: KafkaSettings, connection: socket.socket) -> str:
    """
    Whether somebody answers a TLS handshake where we were told to speak without.
    """
    context = ssl.create_default_context()
    # Nothing is sent here but the handshake, and nothing is believed but that there was an answer to it.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        context.wrap_socket(connection).close()
    except ssl.SSLError as error:
        spoke_tls = "ALERT" in (error.reason or "")
    except OSError:
        spoke_tls = False
    else:
        spoke_tls = True
    if not spoke_tls:
        return ""
    secured = "SASL_SSL" if settings.security_protocol.startswith("SASL_") else "SSL or SASL_SSL"
    return f"the listener speaks TLS; set kafka.security_protocol to {secured}, as the listener demands"
