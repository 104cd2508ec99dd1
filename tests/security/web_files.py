"""A folder with a web configuration, certificates and keys."""

import ssl
from pathlib import Path
from typing import Any

import bcrypt
import trustme
import yaml

PASSWORD = "open sesame"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
"""The hash has bcrypt's lowest cost, so that tests are fast."""


class WebFiles:
    """Writes the files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.issue()

    @property
    def file(self) -> Path:
        return self.folder / "web.yml"

    def issue(self, ca: trustme.CA | None = None) -> None:
        """Write a new certificate of the server."""
        certificate = (ca or self.ca).issue_cert("localhost", "127.0.0.1")
        self.put("key.pem", certificate.private_key_pem.bytes())
        self.put("cert.pem", b"".join(pem.bytes() for pem in certificate.cert_chain_pems))

    def client(self, *names: str, ca: trustme.CA | None = None) -> Path:
        """Write a client certificate with these names, and its key, to one file."""
        path = self.folder / f"client-{'-'.join(names).replace('/', '_')}.pem"
        (ca or self.ca).issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def client_context(self) -> ssl.SSLContext:
        """Return the TLS context of a client that trusts the CA."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context

    def put(self, name: str, content: bytes) -> Path:
        """Write a file to the folder that only its owner can read."""
        path = self.folder / name
        path.touch(0o600)
        path.write_bytes(content)
        return path

    def write(self, **sections: Any) -> Path:
        """Write the web configuration."""
        return self.put("web.yml", yaml.safe_dump(sections).encode())


PAIR = {"cert_file": "cert.pem", "key_file": "key.pem"}
