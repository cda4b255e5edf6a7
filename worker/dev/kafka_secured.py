"""
A second listener for the Kafka of tests: TLS, passwords (SCRAM-SHA-512), and access control lists in force.

The broker itself is in ``kafka_server.py``. Certificates are made by whoever asks for it; nothing here outlives a test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker.dev.embedded import LOOPBACK

MECHANISM: Final = "SCRAM-SHA-512"
PROPERTIES: Final = """\
listener.name.secured.sasl.enabled.mechanisms={mechanism}
listener.name.secured.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.secured.ssl.keystore.type=PEM
listener.name.secured.ssl.keystore.location={directory}/broker.pem
listener.name.secured.ssl.truststore.type=PEM
listener.name.secured.ssl.truststore.location={directory}/authorities.pem
listener.name.secured.ssl.client.auth={client_auth}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
# The plain listener is for the test itself, and for the broker.
super.users={super_users}
allow.everyone.if.no.acl.found=false
"""


@dataclass(frozen=True, slots=True)
class SecuredListener:
    """
    What the listener shows and asks for: PEM texts, and names with their passwords.

    ``keystore``: the broker's key (PKCS 8) and its chain. ``authorities``: who signs the certificates of clients, which
    are asked for if ``client_certificates``. Of the users, those who are ``unrestricted`` need no access control list.
    """

    keystore: str
    authorities: str
    users: Mapping[str, str]
    client_certificates: bool = False
    unrestricted: tuple[str, ...] = ()

    def added_to(self, properties: str, *, port: int, directory: Path) -> str:
        """
        The broker's properties with this listener; its files are written beside them.
        """
        keystore = directory / "broker.pem"
        keystore.touch(mode=0o600)
        keystore.write_text(self.keystore, encoding="ascii")
        (directory / "authorities.pem").write_text(self.authorities, encoding="ascii")
        address = f",SECURED://{LOOPBACK}:{port}"
        lines = [
            line
            + {
                "listeners": address,
                "advertised.listeners": address,
                "listener.security.protocol.map": ",SECURED:SASL_SSL",
            }.get(line.partition("=")[0], "")
            for line in properties.splitlines()
        ]
        added = PROPERTIES.format(
            mechanism=MECHANISM,
            directory=directory,
            client_auth="required" if self.client_certificates else "none",
            super_users=";".join(f"User:{name}" for name in ("ANONYMOUS", *self.unrestricted)),
        )
        return "\n".join(lines) + "\n" + added

    def format_options(self) -> Sequence[str]:
        """
        What makes the users known when the storage is formatted.
        """
        return [
            option
            for name, password in self.users.items()
            for option in ("--add-scram", f"{MECHANISM}=[name={name},password={password}]")
        ]
