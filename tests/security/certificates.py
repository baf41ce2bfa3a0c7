"""A certificate authority for one test, made with the openssl command."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Certificates:
    """Files in PEM.

    Attributes:
        authority: the authority's certificate.
        certificate: of localhost and 127.0.0.1; good for a server and for a client.
        key: of that certificate.
    """

    authority: Path
    certificate: Path
    key: Path


def make_certificates(directory: Path, *, names: str = "DNS:localhost,IP:127.0.0.1", days: int = 2) -> Certificates:
    """Make an authority and a certificate that it signs; skips the test where there is no openssl.

    Args:
        directory: where the files go.
        names: whom the certificate is of.
        days: how long it is good; negative for one that has expired.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl command")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=directory, check=True, capture_output=True)

    directory.mkdir(parents=True, exist_ok=True)
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    run(
        "req",
        "-x509",
        *new,
        "-keyout",
        "ca.key",
        "-out",
        "ca.pem",
        "-days",
        "2",
        "-subj",
        "/CN=rabbitry test authority",
        # Python 3.13 wants authorities to say what their key is for, and certificates whose they are.
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    )
    run("req", *new, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=localhost")
    (directory / "extensions").write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
    good_for = ("-days", str(days))
    if days < 0 and b"-not_after" in subprocess.run([openssl, "x509", "-help"], capture_output=True, check=True).stderr:
        good_for = ("-not_before", "20200101000000Z", "-not_after", "20200102000000Z")  # OpenSSL 3.4 takes no such days
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", *good_for, "-extfile", "extensions")
    run("x509", "-req", "-in", "request.pem", "-out", "certificate.pem", *signing)
    return Certificates(directory / "ca.pem", directory / "certificate.pem", directory / "key.pem")
