"""A folder with what a web configuration names: certificates, keys and the file itself."""

from pathlib import Path
from typing import Any

import bcrypt
import trustme
import yaml

PASSWORD = "open sesame"
HASH = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
"""At bcrypt's least cost, so that tests are quick."""


class WebFiles:
    """Writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = trustme.CA()
        self.ca.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.issue()

    @property
    def file(self) -> Path:
        return self.folder / "web.yml"

    def issue(self, ca: trustme.CA | None = None) -> None:
        """A new certificate for the server."""
        certificate = (ca or self.ca).issue_cert("localhost", "127.0.0.1")
        self.put("key.pem", certificate.private_key_pem.bytes())
        self.put("cert.pem", b"".join(pem.bytes() for pem in certificate.cert_chain_pems))

    def client(self, *names: str, ca: trustme.CA | None = None) -> Path:
        """A client's certificate with these names, and its key, in one file."""
        path = self.folder / f"client-{'-'.join(names).replace('/', '_')}.pem"
        (ca or self.ca).issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(path))
        return path

    def put(self, name: str, content: bytes) -> Path:
        """A file in the folder, for its owner alone."""
        path = self.folder / name
        path.touch(0o600)
        path.write_bytes(content)
        return path

    def write(self, **sections: Any) -> Path:
        """The web configuration."""
        return self.put("web.yml", yaml.safe_dump(sections).encode())


PAIR = {"cert_file": "cert.pem", "key_file": "key.pem"}
