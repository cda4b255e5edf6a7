"""
Content credentials for tests: signers that nobody knows, and pictures that they sign with the real library.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import c2pa
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from tests.pictures import encoded, photograph

IPTC: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MEDIA_TYPES: Final = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
    "GIF": "image/gif",
}
_LONG_AGO, _LONG_HENCE = datetime(2020, 1, 1, tzinfo=UTC), datetime(2060, 1, 1, tzinfo=UTC)
_QUIET: Final[dict[str, Any]] = {
    "verify": {"verify_after_sign": False, "remote_manifest_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},
}


@dataclass(frozen=True)
class Signer:
    """
    A certificate that may sign content credentials, its key, and the authority that issued it, in PEM.
    """

    chain: bytes
    key: bytes
    anchor: str


@lru_cache
def a_signer(organisation: str = "Test Mill", *, ocsp_url: str | None = None) -> Signer:
    """
    A signer with an authority of its own. C2PA asks for a leaf that may sign and has an allowed purpose: e-mail is one.
    """
    root_key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    root_name, leaf_name = _name(organisation, "authority"), _name(organisation, "signer")
    root = (
        _certificate(root_name, root_name, root_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(root_key, hashes.SHA256())
    )
    leaf = (
        _certificate(leaf_name, root_name, leaf_key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
    )
    if ocsp_url is not None:
        place = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp_url))
        leaf = leaf.add_extension(x509.AuthorityInformationAccess([place]), critical=False)
    chain = [leaf.sign(root_key, hashes.SHA256()), root]
    pem = [certificate.public_bytes(serialization.Encoding.PEM) for certificate in chain]
    key = leaf_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Signer(b"".join(pem), key, pem[-1].decode())


def created(term: str) -> dict[str, Any]:
    """
    The action that made a picture, with its digital source type.
    """
    return {"action": "c2pa.created", "digitalSourceType": IPTC + term}


GENERATED: Final = (created("trainedAlgorithmicMedia"),)


def signed(
    data: bytes,
    name: str,
    actions: Sequence[Mapping[str, Any]] = GENERATED,
    *,
    signer: Signer | None = None,
    ingredients: Mapping[str, bytes] | None = None,
    remote_url: str | None = None,
) -> bytes:
    """
    An image file of this format with credentials of these actions.

    ``ingredients`` are files of the same format by their relationship, such as ``parentOf``; an action names them with
    the relationship as its ingredient's id. With ``remote_url`` the file only says that its manifest lies there.
    """
    who = signer or a_signer()
    builder = c2pa.Builder(
        {
            "claim_generator_info": [{"name": "mill", "version": "1.5"}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": list(actions)}}],
        },
        context=c2pa.Context(c2pa.Settings.from_dict(_QUIET)),
    )
    for relationship, file in (ingredients or {}).items():
        builder.add_ingredient(
            {"title": "a part", "relationship": relationship, "label": relationship},
            MEDIA_TYPES[name],
            io.BytesIO(file),
        )
    if remote_url is not None:
        builder.set_remote_url(remote_url)
        builder.set_no_embed()
    out = io.BytesIO()
    info = c2pa.C2paSignerInfo(b"es256", who.chain, who.key, None)
    builder.sign(c2pa.Signer.from_info(info), MEDIA_TYPES[name], io.BytesIO(data), out)
    return out.getvalue()


@lru_cache
def a_signed_picture(name: str) -> bytes:
    """
    A small picture of this format that says it was generated.
    """
    return signed(encoded(photograph(60, 50), name), name)


def _name(organisation: str, common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "CH"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{organisation} {common}"),
        ]
    )


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_LONG_AGO)
        .not_valid_after(_LONG_HENCE)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
