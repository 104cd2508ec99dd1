# ruff: noqa: E501  (messages are on one line)
"""The file of `--web.config.file`: accepted files, warnings, errors and reloads."""

import errno
import os
import ssl
import stat
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trustme
import yaml

from exporter.config import ConfigurationError
from exporter.web import tls as tls_module
from exporter.web.configuration import WebConfiguration
from exporter.web.configuration_file import load_web_configuration
from exporter.web.policy import SecurityPolicy
from exporter.web.tls import CIPHER_SUITES
from testing.program import ROOT, configuration, run
from tests.security.web_files import HASH, PAIR, PASSWORD, WebFiles

EXPORTER_TOOLKIT_FILE = """
tls_server_config:
  cert_file: cert.pem
  key_file: key.pem
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [prometheus.example]
  min_version: TLS12
  max_version: TLS13
  cipher_suites:
    - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    - TLS_AES_128_GCM_SHA256
  prefer_server_cipher_suites: true
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: deny
    X-XSS-Protection:
basic_auth_users:
  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze
  bob: $2y$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m
rate_limit:
  interval: 1s
  burst: 10
"""
"""All keys of the format except inline certificates and curves."""


def problems(file: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load_web_configuration(file)
    return [problem.replace(str(file.parent) + "/", "") for problem in caught.value.problems]


# Accepted files


def test_file_of_another_exporter_is_accepted(web: WebFiles) -> None:
    loaded = load_web_configuration(web.put("web.yml", EXPORTER_TOOLKIT_FILE.encode()))
    policy = loaded.security_policy
    assert policy.tls is not None
    assert policy.tls.verify_mode == ssl.CERT_REQUIRED
    assert policy.client_sans == {"prometheus.example"}
    assert set(policy.users) == {"alice", "bob"}
    assert policy.headers == {"Strict-Transport-Security": "max-age=31536000", "X-Frame-Options": "deny"}
    assert (policy.rate_limit.interval, policy.rate_limit.burst) == (1.0, 10)
    offered = {cipher["name"] for cipher in policy.tls.get_ciphers() if cipher["protocol"] == "TLSv1.2"}
    assert offered == {"ECDHE-RSA-AES128-GCM-SHA256"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "{}",
        "tls_server_config: {}",
        "tls_server_config:\nbasic_auth_users:\nhttp_server_config:\nrate_limit:\n",
    ],
)
def test_empty_web_configuration_is_accepted(web: WebFiles, text: str) -> None:
    policy = load_web_configuration(web.put("web.yml", text.encode())).security_policy
    assert policy == SecurityPolicy()


def test_inline_certificate_and_key_are_accepted(web: WebFiles) -> None:
    inline = {name: (web.folder / f"{name}.pem").read_text() for name in ("cert", "key")}
    authority = (web.folder / "ca.pem").read_text()
    file = web.write(
        tls_server_config={**inline, "client_ca": authority, "client_auth_type": "RequireAndVerifyClientCert"}
    )
    tls = load_web_configuration(file).security_policy.tls
    assert tls
    assert len(tls.get_ca_certs()) == 1


def test_paths_are_absolute_or_relative_to_the_file(web: WebFiles) -> None:
    for prefix in ("", f"{web.folder}/"):
        pair = {key: prefix + name for key, name in PAIR.items()}
        assert load_web_configuration(web.write(tls_server_config=pair)).security_policy.tls


@pytest.mark.parametrize(
    ("minimum", "maximum", "versions"),
    [
        ("TLS12", "TLS13", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)),
        ("TLS13", "TLS13", (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)),
        ("TLS12", "TLS12", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)),
        ("TLS10", "TLS12", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)),
    ],
)
def test_configured_tls_versions_are_used(
    web: WebFiles, minimum: str, maximum: str, versions: tuple[ssl.TLSVersion, ssl.TLSVersion]
) -> None:
    tls = load_web_configuration(
        web.write(tls_server_config={**PAIR, "min_version": minimum, "max_version": maximum})
    ).security_policy.tls
    assert tls
    assert (tls.minimum_version, tls.maximum_version) == versions


@pytest.mark.parametrize("suite", CIPHER_SUITES)
def test_every_cipher_suite_of_go_is_known(web: WebFiles, suite: str) -> None:
    tls = load_web_configuration(web.write(tls_server_config={**PAIR, "cipher_suites": [suite]})).security_policy.tls
    assert tls
    offered = [cipher["name"] for cipher in tls.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert offered == [CIPHER_SUITES[suite]]


def test_only_tls13_suites_disable_tls12(web: WebFiles) -> None:
    tls = load_web_configuration(
        web.write(tls_server_config={**PAIR, "cipher_suites": ["TLS_AES_256_GCM_SHA384"]})
    ).security_policy.tls
    assert tls
    assert tls.minimum_version == ssl.TLSVersion.TLSv1_3


def test_client_suite_order_is_configurable(web: WebFiles) -> None:
    for own in (True, False):
        tls = load_web_configuration(
            web.write(tls_server_config={**PAIR, "prefer_server_cipher_suites": own})
        ).security_policy.tls
        assert tls
        assert bool(tls.options & ssl.OP_CIPHER_SERVER_PREFERENCE) == own


# Warnings


@pytest.mark.parametrize(
    ("sections", "note"),
    [
        (
            {"http_server_config": {"http2": True}},
            "http_server_config.http2: HTTP/2 is not supported; clients use HTTP/1.1 instead",
        ),
        (
            {"tls_server_config": {**PAIR, "min_version": "TLS10"}},
            "tls_server_config.min_version: TLS10 is deprecated (RFC 8996); TLS12 is used instead",
        ),
        (
            {"basic_auth_users": {"alice": HASH}},
            "basic_auth_users without tls_server_config: passwords are sent unencrypted",
        ),
    ],
)
def test_ineffective_setting_causes_a_warning(web: WebFiles, sections: dict[str, Any], note: str) -> None:
    file = web.write(**sections)
    assert load_web_configuration(file).warnings == (f"{file}: {note}",)


@pytest.mark.parametrize("name", ["key.pem", "web.yml"])
def test_readable_secret_file_causes_a_warning(web: WebFiles, name: str) -> None:
    file = web.write(tls_server_config=PAIR, basic_auth_users={"alice": HASH})
    assert load_web_configuration(file).warnings == ()
    (web.folder / name).chmod(0o644)
    (note,) = load_web_configuration(file).warnings
    assert note.startswith(f"{web.folder / name} is accessible to ")
    assert "chmod" in note


def test_file_without_secret_causes_no_warning(web: WebFiles) -> None:
    file = web.write(rate_limit={"interval": "1s", "burst": 1})
    file.chmod(0o644)
    assert load_web_configuration(file).warnings == ()


# Errors


def tls(**keys: Any) -> dict[str, Any]:
    return {"tls_server_config": {**PAIR, **keys}}


BAD: dict[str, tuple[dict[str, Any] | str, list[str]]] = {
    "not YAML": (
        "tls_server_config: [",
        [
            (
                "web.yml:1:21: is not valid YAML: while parsing a flow node (line 1, column 21): "
                "expected the node content, but found '<stream end>'"
            )
        ],
    ),
    "not a mapping": ("- a", ["web.yml:1: must be a mapping of keys to values"]),
    "an unknown section": (
        {"tls_config": PAIR},
        ["web.yml:1: tls_config: unknown key; did you mean 'tls_server_config'?"],
    ),
    "an unknown key": (
        tls(certfile="x"),
        ["web.yml:3: tls_server_config.certfile: unknown key; did you mean 'cert_file'?"],
    ),
    "no certificate": (
        {"tls_server_config": {"key_file": "key.pem"}},
        ["web.yml:1: tls_server_config: needs one of cert or cert_file; it has none"],
    ),
    "no key": (
        {"tls_server_config": {"cert_file": "cert.pem"}},
        ["web.yml:1: tls_server_config: needs one of key or key_file; it has none"],
    ),
    "neither": (
        {"tls_server_config": {"min_version": "TLS12"}},
        [
            "web.yml:1: tls_server_config: needs one of cert or cert_file; it has none",
            "web.yml:1: tls_server_config: needs one of key or key_file; it has none",
        ],
    ),
    "blank certificate and key": (
        {"tls_server_config": {"cert_file": "", "key_file": None}},
        [
            "web.yml:1: tls_server_config: needs one of cert or cert_file; it has none",
            "web.yml:1: tls_server_config: needs one of key or key_file; it has none",
        ],
    ),
    "certificate in a home": (
        tls(cert_file="~/cert.pem"),
        [
            (
                "web.yml:2: tls_server_config.cert_file: begins with ~, which only a shell expands; "
                "write the full path, or ./~ if the name begins with ~"
            )
        ],
    ),
    "two certificates": (
        tls(cert="-----BEGIN"),
        ["web.yml:1: tls_server_config: needs exactly one of cert or cert_file; it has cert and cert_file"],
    ),
    "a missing certificate": (
        tls(cert_file="gone.pem"),
        ["web.yml:2: tls_server_config.cert_file: gone.pem cannot be read: No such file or directory"],
    ),
    "a folder as key": (
        tls(key_file="sub"),
        ["web.yml:3: tls_server_config.key_file: sub cannot be read: Is a directory"],
    ),
    "a file that is no certificate": (
        tls(cert_file="web.yml"),
        ["web.yml:2: tls_server_config.cert_file: web.yml contains no certificate in PEM format"],
    ),
    "certificate and key swapped": (
        {"tls_server_config": {"cert_file": "key.pem", "key_file": "cert.pem"}},
        ["web.yml:2: tls_server_config.cert_file: key.pem contains no certificate in PEM format"],
    ),
    "another certificate's key": (
        tls(key_file="other-key.pem"),
        ["web.yml:3: tls_server_config.key_file: other-key.pem is not the key of cert.pem"],
    ),
    "an encrypted key": (
        tls(key_file="encrypted.pem"),
        [
            "web.yml:3: tls_server_config.key_file: encrypted.pem is encrypted, which is not supported: no passphrase can be entered"
        ],
    ),
    "a broken certificate": (
        tls(cert_file="broken.pem"),
        ["web.yml:2: tls_server_config.cert_file: broken.pem or key.pem is invalid"],
    ),
    "a broken CA": (
        tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="key.pem"),
        ["web.yml:4: tls_server_config.client_ca_file: key.pem contains no certificates in PEM format"],
    ),
    "a CA without client authentication": (
        tls(client_ca_file="ca.pem"),
        [
            (
                "web.yml:3: tls_server_config.client_ca_file: has no effect without "
                "client_auth_type: RequireAndVerifyClientCert"
            )
        ],
    ),
    "two CAs": (
        tls(client_ca_file="ca.pem", client_ca="x", client_auth_type="VerifyClientCertIfGiven"),
        ["web.yml:5: tls_server_config.client_ca_file: conflicts with client_ca; set only one of them"],
    ),
    "allowed names without required certificates": (
        tls(client_allowed_sans=["a"], client_auth_type="VerifyClientCertIfGiven"),
        ["web.yml:3: tls_server_config.client_allowed_sans: needs client_auth_type: RequireAndVerifyClientCert"],
    ),
    "unverified certificates": (
        tls(client_auth_type="RequireAnyClientCert"),
        [
            (
                "web.yml:3: tls_server_config.client_auth_type: accepts unverified certificates, which is not supported; "
                "use NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            )
        ],
    ),
    "an unknown client_auth_type": (
        tls(client_auth_type="Required"),
        [
            (
                "web.yml:3: tls_server_config.client_auth_type: must be NoClientCert, VerifyClientCertIfGiven or "
                "RequireAndVerifyClientCert"
            )
        ],
    ),
    "an unknown version": (
        tls(min_version="1.2"),
        ["web.yml:4: tls_server_config.min_version: must be TLS12 or TLS13"],
    ),
    "max_version below min_version": (
        tls(min_version="TLS13", max_version="TLS12"),
        ["web.yml:4: tls_server_config.max_version: is lower than min_version"],
    ),
    "a deprecated version": (
        tls(max_version="TLS11"),
        ["web.yml:4: tls_server_config.max_version: is deprecated (RFC 8996); use TLS12 or TLS13"],
    ),
    "an unknown cipher suite": (
        tls(cipher_suites=["TLS_RSA_WITH_RC4_128_SHA"]),
        [
            "web.yml:4: tls_server_config.cipher_suites[0]: is not a known cipher suite; known: "
            + ", ".join(
                [*CIPHER_SUITES, "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
            )
        ],
    ),
    "curves": (
        tls(curve_preferences=["CurveP256"]),
        [
            "web.yml:3: tls_server_config.curve_preferences: is not supported: OpenSSL's default curves are used; remove it"
        ],
    ),
    "an unsupported header": (
        {"http_server_config": {"headers": {"Access-Control-Allow-Origin": "*"}}},
        [
            (
                "web.yml:3: http_server_config.headers: is not a header that can be set; known: "
                "Content-Security-Policy, Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, "
                "X-XSS-Protection"
            )
        ],
    ),
    "a header with a line break": (
        {"http_server_config": {"headers": {"Content-Security-Policy": "a\nSet-Cookie: b"}}},
        ["web.yml:3: http_server_config.headers: Content-Security-Policy must be one line of ASCII text"],
    ),
    "a header with an invalid value": (
        {"http_server_config": {"headers": {"X-Frame-Options": "allow"}}},
        ["web.yml:3: http_server_config.headers.X-Frame-Options: X-Frame-Options must be deny or sameorigin"],
    ),
    "http2 that is not a boolean": (
        {"http_server_config": {"http2": "maybe"}},
        ["web.yml:2: http_server_config.http2: must be true or false"],
    ),
    "a password instead of its hash": (
        {"basic_auth_users": {"alice": PASSWORD}},
        ["web.yml:2: basic_auth_users.alice: is not a bcrypt hash; make one with: htpasswd -nBC 10 '' | tr -d ':\\n'"],
    ),
    "a user without a hash": (
        {"basic_auth_users": {"alice": None}},
        ["web.yml:2: basic_auth_users.alice: has no value"],
    ),
    "a user name with a colon": (
        {"basic_auth_users": {"al:ice": HASH}},
        ["web.yml:1: basic_auth_users: a user name cannot be empty or contain a colon or control characters"],
    ),
    "a list of users": (
        {"basic_auth_users": ["alice"]},
        ["web.yml:1: basic_auth_users: must be a mapping of keys to values"],
    ),
    "a burst of 0": (
        {"rate_limit": {"interval": "1s", "burst": 0}},
        ["web.yml:2: rate_limit.burst: must be at least 1, otherwise all requests are rejected"],
    ),
    "a burst that YAML reads as 8": (
        "rate_limit:\n  interval: 1s\n  burst: 010\n",
        [
            (
                "web.yml:3: rate_limit.burst: must be a whole number; "
                "write it as a decimal number without leading zeros and without quotes"
            )
        ],
    ),
    "an interval without its unit": (
        {"rate_limit": {"interval": 5, "burst": 1}},
        ["web.yml:3: rate_limit.interval: is not a duration; write it with its unit, as in 20s or 5m"],
    ),
    "several errors": (
        {"tls_server_config": {**PAIR, "min_version": "x"}, "basic_auth_users": {"alice": "y"}, "rate": 1},
        [
            "web.yml:2: basic_auth_users.alice: is not a bcrypt hash; make one with: htpasswd -nBC 10 '' | tr -d ':\\n'",
            "web.yml:3: rate: unknown key; known keys: tls_server_config, http_server_config, basic_auth_users, rate_limit",
            "web.yml:7: tls_server_config.min_version: must be TLS12 or TLS13",
        ],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_invalid_web_configuration_has_specific_message(web: WebFiles, what: str) -> None:
    sections, messages = BAD[what]
    (web.folder / "sub").mkdir()
    other = web.ca.issue_cert("localhost")
    web.put("other-key.pem", other.private_key_pem.bytes())
    web.put("encrypted.pem", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBOBgkqhkiG9w0BBQ0wQTApBgkqhkiG9w0BBQ\n")
    web.put("broken.pem", b"-----BEGIN CERTIFICATE-----\nno base64, this\n-----END CERTIFICATE-----\n")
    text = sections if isinstance(sections, str) else yaml.safe_dump(sections)
    assert problems(web.put("web.yml", text.encode())) == messages


def test_lists_instead_of_text_are_reported(web: WebFiles) -> None:
    wrong = {"min_version": ["TLS12"], "max_version": {"a": 1}, "client_auth_type": ["x"], "cipher_suites": [["x"]]}
    errors = problems(web.write(tls_server_config={**PAIR, **wrong}, rate_limit={"interval": ["1s"]}))
    assert [line.split(": ")[1] for line in errors] == [
        "rate_limit.interval",
        "tls_server_config.cipher_suites[0]",
        "tls_server_config.client_auth_type",
        "tls_server_config.max_version",
        "tls_server_config.min_version",
    ]


def test_missing_web_configuration_is_reported(web: WebFiles) -> None:
    assert problems(web.folder / "web.yml") == ["web.yml: cannot be read: No such file or directory"]


def test_web_configuration_errors_contain_no_secrets(web: WebFiles) -> None:
    secret = "hunter2-hunter2"
    configurations: list[Any] = [
        {"basic_auth_users": {"alice": secret}},
        {"basic_auth_users": secret},
        {"tls_server_config": {"cert_file": "cert.pem", "key": secret}},
        {"tls_server_config": {**PAIR, "client_auth_type": secret}},
        {"tls_server_config": {**PAIR, "cipher_suites": [secret]}},
        {"tls_server_config": {**PAIR, "min_version": secret}},
        {"http_server_config": {"headers": {"X-Frame-Options": secret}}},
        {"rate_limit": {"interval": secret}},
        secret,
    ]
    for sections in configurations:
        errors = problems(web.put("web.yml", yaml.safe_dump(sections).encode()))
        assert errors
        assert secret not in "".join(errors)


# The command line


def test_check_reports_errors_of_both_files(web: WebFiles) -> None:
    config = configuration(web.folder, "http://127.0.0.1:1", [{"name": "home"}])
    completed = run(
        "--config.check", f"--config.file={config}", f"--web.config.file={web.write(tls_server_config={'x': 1})}"
    )
    assert completed.returncode == 2
    assert "accounts[0]: needs one of" in completed.stderr
    assert "tls_server_config.x: unknown key" in completed.stderr


def test_check_reports_web_configuration_warnings(web: WebFiles) -> None:
    config = configuration(web.folder, "http://127.0.0.1:1", [{"name": "home", "personal_key": "k"}])
    config.chmod(0o600)
    file = web.write(basic_auth_users={"alice": HASH})
    completed = run("--config.check", f"--config.file={config}", f"--web.config.file={file}")
    assert completed.returncode == 0
    assert "passwords are sent unencrypted" in completed.stderr


def test_exporter_does_not_start_with_invalid_file(web: WebFiles) -> None:
    completed = run("--demo", f"--web.config.file={web.folder / 'gone.yml'}")
    assert completed.returncode == 2
    assert completed.stderr == f"{web.folder / 'gone.yml'}: cannot be read: No such file or directory\n"


# Reloads


def test_unchanged_web_configuration_is_not_reloaded(web: WebFiles) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR))
    before = configured.security_policy
    assert configured.reload_if_changed() == []
    assert configured.security_policy is before


@pytest.mark.parametrize("changed", ["certificate", "users"])
def test_changed_web_configuration_is_reloaded(web: WebFiles, changed: str) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR, basic_auth_users={"alice": HASH}))
    before = configured.security_policy
    if changed == "certificate":
        web.issue()
    else:
        web.write(tls_server_config=PAIR, basic_auth_users={"bob": HASH})
    assert configured.reload_if_changed() == []
    assert configured.security_policy is not before
    assert set(configured.security_policy.users) == {"alice" if changed == "certificate" else "bob"}


def test_invalid_change_is_reported_and_ignored(web: WebFiles) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR))
    before = configured.security_policy
    good = (web.folder / "key.pem").read_bytes()
    web.put("key.pem", trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    (problem,) = configured.reload_if_changed()
    assert "is not the key of" in problem
    assert configured.security_policy is before
    assert configured.reload_if_changed() == [problem]
    web.put("key.pem", good)
    assert configured.reload_if_changed() == []


def test_momentarily_empty_file_is_ignored(web: WebFiles) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR, basic_auth_users={"alice": HASH}))
    before = configured.security_policy
    for emptied in ("web.yml", "ca.pem", "cert.pem", "key.pem"):
        content = (web.folder / emptied).read_bytes()
        web.put(emptied, b"")
        configured.reload_if_changed()
        assert configured.security_policy is before
        web.put(emptied, content)
        assert configured.reload_if_changed() == []
        before = configured.security_policy


def test_empty_ca_file_is_reported(web: WebFiles) -> None:
    web.put("ca.pem", b"")
    clients = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
    assert problems(web.write(tls_server_config={**PAIR, **clients})) == [
        "web.yml:4: tls_server_config.client_ca_file: ca.pem contains no certificates in PEM format"
    ]


# Without /proc, a disk or free file descriptors


@pytest.fixture
def loaded_pairs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path]]:
    """Files from which OpenSSL has read a certificate and its key. Only their owner can read them."""
    pairs: list[tuple[Path, Path]] = []
    load_cert_chain = ssl.SSLContext.load_cert_chain

    def load_and_record(context: ssl.SSLContext, certificate: str, key: str, password: str) -> None:
        assert {stat.S_IMODE(Path(name).stat().st_mode) for name in (certificate, key)} == {0o600}
        load_cert_chain(context, certificate, key, password)
        pairs.append((Path(certificate), Path(key)))

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load_and_record)
    return pairs


@pytest.mark.parametrize("memory", [True, False], ids=["/dev/shm", "a temporary file"])
def test_key_is_in_a_temporary_file_without_proc(
    web: WebFiles, monkeypatch: pytest.MonkeyPatch, loaded_pairs: list[tuple[Path, Path]], memory: bool
) -> None:
    shared, temporary = web.folder / "shm", web.folder / "tmp"
    shared.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tls_module, "MEMORY_FILES", web.folder / "none")
    monkeypatch.setattr(tls_module, "SHARED_MEMORY", shared if memory else web.folder / "none")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert load_web_configuration(web.write(tls_server_config=PAIR)).security_policy.tls
    (pair,) = loaded_pairs
    assert {file.parent for file in pair} == {shared if memory else temporary}
    assert [*shared.iterdir(), *temporary.iterdir()] == []


def test_key_that_cannot_be_passed_is_an_error(web: WebFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEMORY_FILES", "SHARED_MEMORY"):
        monkeypatch.setattr(tls_module, name, web.folder / "none")
    monkeypatch.setattr(tempfile, "tempdir", str(web.folder / "none"))
    assert problems(web.write(tls_server_config=PAIR)) == [
        "web.yml:3: tls_server_config.key_file: key.pem cannot be passed to OpenSSL: No such file or directory"
    ]


def test_file_descriptor_shortage_keeps_configuration(web: WebFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR))
    before = configured.security_policy
    web.issue()

    def fail(_name: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", fail)
        (problem,) = configured.reload_if_changed()
    assert problem.endswith("key.pem cannot be passed to OpenSSL: Too many open files")
    assert configured.security_policy is before
    assert configured.reload_if_changed() == []
    assert configured.security_policy is not before


def test_ca_file_may_have_non_ascii_comments(web: WebFiles) -> None:
    web.put("ca.pem", "# Zaufany urząd\n".encode() + (web.folder / "ca.pem").read_bytes())
    clients = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
    assert load_web_configuration(web.write(tls_server_config={**PAIR, **clients})).security_policy.tls


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"basic_auth_users": {"a": HASH}}, "TLS is now disabled"),
        ({"tls_server_config": PAIR}, "passwords are now disabled"),
    ],
)
def test_disabled_tls_and_passwords_are_logged(
    web: WebFiles, sections: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(
        "exporter.web.configuration.log", SimpleNamespace(warning=warnings.append, info=warnings.append)
    )
    configured = WebConfiguration(web.write(tls_server_config=PAIR, basic_auth_users={"a": HASH}))
    web.write(**sections)
    assert configured.reload_if_changed() == []
    assert any(message in warning for warning in warnings)


@pytest.mark.parametrize("name", ["web.yml", "key.pem"])
@pytest.mark.parametrize("what", ["a pipe", "an endless device", "a folder", "nothing"])
def test_replaced_file_is_reported_without_blocking(web: WebFiles, name: str, what: str) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR))
    before, path = configured.security_policy, web.folder / name
    path.unlink()
    match what:
        case "a pipe":
            os.mkfifo(path)
        case "an endless device":
            path.symlink_to("/dev/zero")
        case "a folder":
            path.mkdir()
    (problem,) = configured.reload_if_changed()
    assert str(path) in problem
    assert configured.security_policy is before


def test_web_configuration_from_pipe_is_read_once(web: WebFiles) -> None:
    text = web.write(tls_server_config=PAIR).read_bytes()
    pipe = web.folder / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_bytes, args=(text,))
    writing.start()
    configured = WebConfiguration(pipe)
    writing.join()
    before = configured.security_policy
    assert before.tls
    web.issue()
    assert configured.reload_if_changed() == []
    assert configured.security_policy is before


def test_file_created_later_resolves_the_error(web: WebFiles) -> None:
    configured = WebConfiguration(web.write())
    web.write(tls_server_config={**PAIR, "cert_file": "later.pem"})
    assert configured.reload_if_changed() != []
    web.put("later.pem", (web.folder / "cert.pem").read_bytes())
    assert configured.reload_if_changed() == []
    assert configured.security_policy.tls


def test_documented_web_configuration_is_valid(web: WebFiles) -> None:
    page = (ROOT / "docs" / "web-configuration.md").read_text("utf-8")
    block = next(part.split("```")[0] for part in page.split("```yaml\n")[1:] if "tls_server_config" in part)
    block = block.replace("/etc/tedee-exporter/", "")
    loaded = load_web_configuration(web.put("web.yml", block.encode()))
    assert loaded.security_policy.tls
    assert loaded.security_policy.users
