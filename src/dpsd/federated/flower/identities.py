"""Keys and certificates: the server's authority and certificate, and a client's pair of keys.

A client knows the server by a certificate that the federation's own authority signed. The server
knows a client by its public key. Private keys are files that their owner alone can read.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
    load_ssh_public_key,
)
from cryptography.x509.oid import NameOID

from dpsd.errors import ConfigError, RunError, reason
from dpsd.federated.flower.exchange import key_of

#: The names under which a server is reached from its own machine, which its certificate always has.
_LOOPBACK = ("localhost", "127.0.0.1")
#: How long the authority and the server's certificate are valid, in days.
_DAYS = 3650


def make_authority(certificate: Path, key: Path) -> None:
    """Make a federation's authority: a key, and a certificate that the key itself has signed.

    Args:
        certificate: where its certificate is written, as PEM; clients get it with an invitation.
        key: where its private key is written, as PEM.
    """
    private = ec.generate_private_key(ec.SECP384R1())
    name = _name("dpsd federation")
    signed = (
        _certificate(name, name, private.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(private, hashes.SHA384())
    )
    write_secret(key, _private_pem(private))
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))


def make_server_certificate(
    certificate: Path, key: Path, *, authority: Path, authority_key: Path, hosts: Iterable[str] = ()
) -> None:
    """Make the server's key, and its certificate, signed by the federation's authority.

    Args:
        certificate: where the certificate is written, as PEM.
        key: where the private key is written, as PEM.
        authority: the authority's certificate.
        authority_key: the authority's private key.
        hosts: the names and addresses under which clients reach the server; those of its own
            machine are always among them.

    Raises:
        ConfigError: a name is no name of a host.
    """
    signer = x509.load_pem_x509_certificate(authority.read_bytes())
    signing = load_pem_private_key(authority_key.read_bytes(), None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise RunError(f"{authority_key} is not the key that dpsd made: remove the folder")
    private = ec.generate_private_key(ec.SECP384R1())
    names = [_alternative(host) for host in dict.fromkeys((*_LOOPBACK, *hosts))]
    signed = (
        _certificate(_name("dpsd server"), signer.subject, private.public_key())
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False
        )
        .sign(signing, hashes.SHA384())
    )
    write_secret(key, _private_pem(private))
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))


def hosts_of(certificate: Path) -> set[str]:
    """Return the names and addresses that a certificate is valid for."""
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {str(name.value) for name in names}


def make_client_key(key: Path) -> None:
    """Make a client's pair of keys, in OpenSSH's format, which Flower's node reads.

    Args:
        key: where the private key is written; the public key gets the same name with ``.pub``.
    """
    private = ec.generate_private_key(ec.SECP384R1())
    write_secret(key, private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    key.with_name(key.name + ".pub").write_bytes(public + b"\n")


def client_key(path: Path) -> str:
    """Return the key by which the server knows a client, given its private key's file.

    Raises:
        RunError: the file cannot be read, or holds no such key.
    """
    private = _parsed(path, lambda data: load_ssh_private_key(data, None))
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise RunError(f"{path} holds no key of an elliptic curve: make it anew")
    return key_of(_public_pem(private.public_key()))


def read_public_key(path: Path) -> bytes:
    """Return a client's public key as PEM, from the ``.pub`` file that the client sent.

    Raises:
        RunError: the file cannot be read.
        ConfigError: it holds no public key of an elliptic curve.
    """
    public = _parsed(path, load_ssh_public_key)
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{path} holds no public key of an elliptic curve: ask the client for it")
    return _public_pem(public)


def write_secret(path: Path, data: bytes) -> None:
    """Write a file anew that its owner alone can read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def make_shared_secret(path: Path) -> None:
    """Write a random secret that two processes of this machine share."""
    write_secret(path, secrets.token_bytes(32))


def _parsed(path: Path, parse: Callable[[bytes], object]) -> object:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise RunError(f"cannot read {path}: {reason(error)}; give another path") from None
    except (ValueError, UnsupportedAlgorithm):
        if b"PRIVATE KEY" in path.read_bytes():
            raise ConfigError(
                f"{path} is a private key, which never leaves the client: give the public one, as "
                f"in {path.name}.pub"
            ) from None
        raise ConfigError(f"{path} holds no key: give the file that dpsd made") from None


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        # Clocks differ: a client whose clock is behind must not refuse a new certificate.
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
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


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise ConfigError(f"{host!r} is no name of a host: give it as hospital.example") from None


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
