# ruff: noqa: E501  (messages are whole)
"""Lost if these fail: a web configuration written for another exporter works here, or says why it does not."""

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
from exporter.web.configuration import WebConfiguration, load
from exporter.web.tls import CIPHER_SUITES
from tests.program import ROOT, configuration, run
from tests.security.web_files import HASH, PAIR, PASSWORD, WebFiles

EXPORTER_TOOLKITS_OWN = """
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
    X-XSS-SecurityPolicy:
basic_auth_users:
  alice: $2y$10$mDwo.lAisC94iLAyP81MCesa29IzH37oigHC/42V2pdJlUprsJPze
  bob: $2y$10$hLqFl9jSjoAAy95Z/zw8Ye8wkdMBM8c5Bn1ptYqP/AXyV0.oy0S8m
rate_limit:
  interval: 1s
  burst: 10
"""
"""All keys of the format but those for certificates inline and for curves, as its users write them."""


def problems(file: Path) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(file)
    return [problem.replace(str(file.parent) + "/", "") for problem in caught.value.problems]


# What is honoured


def test_a_file_written_for_another_exporter_works_unchanged(web: WebFiles) -> None:
    loaded = load(web.put("web.yml", EXPORTER_TOOLKITS_OWN.encode()))
    policy = loaded.policy
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
def test_a_file_that_demands_nothing_is_good(web: WebFiles, text: str) -> None:
    policy = load(web.put("web.yml", text.encode())).policy
    assert policy.tls is None
    assert not policy.users


def test_certificate_and_key_may_stand_in_the_file(web: WebFiles) -> None:
    inline = {name: (web.folder / f"{name}.pem").read_text() for name in ("cert", "key")}
    authority = (web.folder / "ca.pem").read_text()
    file = web.write(
        tls_server_config={**inline, "client_ca": authority, "client_auth_type": "RequireAndVerifyClientCert"}
    )
    tls = load(file).policy.tls
    assert tls
    assert len(tls.get_ca_certs()) == 1


def test_names_of_files_are_relative_to_the_file_and_may_be_absolute(web: WebFiles) -> None:
    for prefix in ("", f"{web.folder}/"):
        pair = {key: prefix + name for key, name in PAIR.items()}
        assert load(web.write(tls_server_config=pair)).policy.tls


@pytest.mark.parametrize(
    ("least", "greatest", "versions"),
    [
        ("TLS12", "TLS13", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)),
        ("TLS13", "TLS13", (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3)),
        ("TLS12", "TLS12", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)),
        ("TLS10", "TLS12", (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2)),
    ],
)
def test_the_versions_of_tls_are_those_that_are_asked_for(
    web: WebFiles, least: str, greatest: str, versions: tuple[ssl.TLSVersion, ssl.TLSVersion]
) -> None:
    tls = load(web.write(tls_server_config={**PAIR, "min_version": least, "max_version": greatest})).policy.tls
    assert tls
    assert (tls.minimum_version, tls.maximum_version) == versions


@pytest.mark.parametrize("suite", CIPHER_SUITES)
def test_every_cipher_suite_of_go_is_known_by_its_name(web: WebFiles, suite: str) -> None:
    tls = load(web.write(tls_server_config={**PAIR, "cipher_suites": [suite]})).policy.tls
    assert tls
    offered = [cipher["name"] for cipher in tls.get_ciphers() if cipher["protocol"] != "TLSv1.3"]
    assert offered == [CIPHER_SUITES[suite]]


def test_with_none_but_suites_of_tls_13_nothing_older_is_spoken(web: WebFiles) -> None:
    tls = load(web.write(tls_server_config={**PAIR, "cipher_suites": ["TLS_AES_256_GCM_SHA384"]})).policy.tls
    assert tls
    assert tls.minimum_version == ssl.TLSVersion.TLSv1_3


def test_the_order_of_the_client_counts_where_that_is_asked_for(web: WebFiles) -> None:
    for own in (True, False):
        tls = load(web.write(tls_server_config={**PAIR, "prefer_server_cipher_suites": own})).policy.tls
        assert tls
        assert bool(tls.options & ssl.OP_CIPHER_SERVER_PREFERENCE) == own


# What is told


@pytest.mark.parametrize(
    ("sections", "note"),
    [
        (
            {"http_server_config": {"http2": True}},
            "http_server_config.http2: HTTP/1.1 is spoken here, which every HTTP/2 client speaks, too",
        ),
        (
            {"tls_server_config": {**PAIR, "min_version": "TLS10"}},
            "tls_server_config.min_version: TLS10 is broken (RFC 8996); TLS12 is the least here",
        ),
        (
            {"basic_auth_users": {"alice": HASH}},
            "basic_auth_users without tls_server_config: the passwords travel unencrypted",
        ),
    ],
)
def test_what_is_not_as_the_file_has_it_is_told_by_name(web: WebFiles, sections: dict[str, Any], note: str) -> None:
    file = web.write(**sections)
    assert load(file).notes == (f"{file}: {note}",)


@pytest.mark.parametrize("name", ["key.pem", "web.yml"])
def test_a_file_with_a_secret_that_others_may_read_is_told(web: WebFiles, name: str) -> None:
    file = web.write(tls_server_config=PAIR, basic_auth_users={"alice": HASH})
    assert load(file).notes == ()
    (web.folder / name).chmod(0o644)
    (note,) = load(file).notes
    assert note.startswith(f"{web.folder / name} is accessible to ")
    assert "chmod" in note


def test_nothing_is_told_of_a_file_that_has_no_secret(web: WebFiles) -> None:
    file = web.write(rate_limit={"interval": "1s", "burst": 1})
    file.chmod(0o644)
    assert load(file).notes == ()


# What is refused: each with its own message


def tls(**keys: Any) -> dict[str, Any]:
    return {"tls_server_config": {**PAIR, **keys}}


BAD: dict[str, tuple[dict[str, Any] | str, list[str]]] = {
    "not YAML": (
        "tls_server_config: [",
        ["web.yml:1: is not valid YAML: a quote or bracket is opened here but not closed"],
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
        ["web.yml:1: tls_server_config: needs one of cert or cert_file; it has cert and cert_file"],
    ),
    "a certificate that is not there": (
        tls(cert_file="gone.pem"),
        ["web.yml:2: tls_server_config.cert_file: gone.pem cannot be read: No such file or directory"],
    ),
    "a folder for a key": (
        tls(key_file="sub"),
        ["web.yml:3: tls_server_config.key_file: sub cannot be read: Is a directory"],
    ),
    "a file that is no certificate": (
        tls(cert_file="web.yml"),
        ["web.yml:2: tls_server_config.cert_file: web.yml holds no certificate in PEM form"],
    ),
    "certificate and key swapped": (
        {"tls_server_config": {"cert_file": "key.pem", "key_file": "cert.pem"}},
        ["web.yml:2: tls_server_config.cert_file: key.pem holds no certificate in PEM form"],
    ),
    "another certificate's key": (
        tls(key_file="other-key.pem"),
        ["web.yml:3: tls_server_config.key_file: other-key.pem is not the key of cert.pem"],
    ),
    "an encrypted key": (
        tls(key_file="encrypted.pem"),
        [
            "web.yml:3: tls_server_config.key_file: encrypted.pem is encrypted, and there is nobody to ask for the passphrase"
        ],
    ),
    "a broken certificate": (
        tls(cert_file="broken.pem"),
        ["web.yml:2: tls_server_config.cert_file: broken.pem or key.pem is broken"],
    ),
    "a broken CA": (
        tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="key.pem"),
        ["web.yml:4: tls_server_config.client_ca_file: key.pem holds no certificates in PEM form"],
    ),
    "a CA for nothing": (
        tls(client_ca_file="ca.pem"),
        [
            (
                "web.yml:3: tls_server_config.client_ca_file: has no use without "
                "client_auth_type: RequireAndVerifyClientCert"
            )
        ],
    ),
    "two CAs": (
        tls(client_ca_file="ca.pem", client_ca="x", client_auth_type="VerifyClientCertIfGiven"),
        ["web.yml:5: tls_server_config.client_ca_file: client_ca is there already; give one of them"],
    ),
    "names for certificates that nobody needs": (
        tls(client_allowed_sans=["a"], client_auth_type="VerifyClientCertIfGiven"),
        ["web.yml:3: tls_server_config.client_allowed_sans: needs client_auth_type: RequireAndVerifyClientCert"],
    ),
    "certificates that nobody verifies": (
        tls(client_auth_type="RequireAnyClientCert"),
        [
            (
                "web.yml:3: tls_server_config.client_auth_type: accepts unverified certificates, which is not supported; "
                "use NoClientCert, VerifyClientCertIfGiven or RequireAndVerifyClientCert"
            )
        ],
    ),
    "an unknown way to authenticate": (
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
    "no version left": (
        tls(min_version="TLS13", max_version="TLS12"),
        ["web.yml:4: tls_server_config.max_version: is less than min_version"],
    ),
    "a version that is dead": (
        tls(max_version="TLS11"),
        ["web.yml:4: tls_server_config.max_version: is deprecated (RFC 8996); use TLS12 or TLS13"],
    ),
    "an unknown cipher suite": (
        tls(cipher_suites=["TLS_RSA_WITH_RC4_128_SHA"]),
        [
            "web.yml:4: tls_server_config.cipher_suites[0]: is not a cipher suite known here: "
            + ", ".join(
                [*CIPHER_SUITES, "TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
            )
        ],
    ),
    "curves": (
        tls(curve_preferences=["CurveP256"]),
        [
            (
                "web.yml:3: tls_server_config.curve_preferences: cannot be chosen here, OpenSSL's own curves are used; "
                "leave it out"
            )
        ],
    ),
    "a header that is not of those": (
        {"http_server_config": {"headers": {"Access-Control-Allow-Origin": "*"}}},
        [
            (
                "web.yml:2: http_server_config.headers: only these can be set: Content-Security-Policy, "
                "Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options, X-XSS-SecurityPolicy"
            )
        ],
    ),
    "a header with a line break": (
        {"http_server_config": {"headers": {"Content-Security-Policy": "a\nSet-Cookie: b"}}},
        ["web.yml:2: http_server_config.headers: Content-Security-Policy must be one line of ASCII text"],
    ),
    "a header with a value it cannot have": (
        {"http_server_config": {"headers": {"X-Frame-Options": "allow"}}},
        ["web.yml:2: http_server_config.headers: X-Frame-Options must be deny or sameorigin"],
    ),
    "http2 that is neither": (
        {"http_server_config": {"http2": "maybe"}},
        ["web.yml:2: http_server_config.http2: must be true or false"],
    ),
    "a password in place of its hash": (
        {"basic_auth_users": {"alice": PASSWORD}},
        ["web.yml:2: basic_auth_users.alice: is not a bcrypt hash; make one with: htpasswd -nBC 10 '' | tr -d ':\\n'"],
    ),
    "a user without a hash": (
        {"basic_auth_users": {"alice": None}},
        ["web.yml:2: basic_auth_users.alice: has no value"],
    ),
    "a user name with a colon": (
        {"basic_auth_users": {"al:ice": HASH}},
        ["web.yml:1: basic_auth_users: a user name cannot be empty or have a colon or control characters"],
    ),
    "a list of users": (
        {"basic_auth_users": ["alice"]},
        ["web.yml:1: basic_auth_users: must be a mapping of keys to values"],
    ),
    "a bucket that nothing fits into": (
        {"rate_limit": {"interval": "1s", "burst": 0}},
        ["web.yml:2: rate_limit.burst: must be at least 1, or no request is ever answered"],
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
    "several things": (
        {"tls_server_config": {**PAIR, "min_version": "x"}, "basic_auth_users": {"alice": "y"}, "rate": 1},
        [
            "web.yml:2: basic_auth_users.alice: is not a bcrypt hash; make one with: htpasswd -nBC 10 '' | tr -d ':\\n'",
            "web.yml:3: rate: unknown key; known keys: tls_server_config, http_server_config, basic_auth_users, rate_limit",
            "web.yml:7: tls_server_config.min_version: must be TLS12 or TLS13",
        ],
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_each_bad_file_has_its_own_message(web: WebFiles, what: str) -> None:
    sections, messages = BAD[what]
    (web.folder / "sub").mkdir()
    other = web.ca.issue_cert("localhost")
    web.put("other-key.pem", other.private_key_pem.bytes())
    web.put("encrypted.pem", b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIFHDBOBgkqhkiG9w0BBQ0wQTApBgkqhkiG9w0BBQ\n")
    web.put("broken.pem", b"-----BEGIN CERTIFICATE-----\nno base64, this\n-----END CERTIFICATE-----\n")
    text = sections if isinstance(sections, str) else yaml.safe_dump(sections)
    assert problems(web.put("web.yml", text.encode())) == messages


def test_lists_in_place_of_words_are_told(web: WebFiles) -> None:
    wrong = {"min_version": ["TLS12"], "max_version": {"a": 1}, "client_auth_type": ["x"], "cipher_suites": [["x"]]}
    told = problems(web.write(tls_server_config={**PAIR, **wrong}, rate_limit={"interval": ["1s"]}))
    assert [line.split(": ")[1] for line in told] == [
        "rate_limit.interval",
        "tls_server_config.cipher_suites[0]",
        "tls_server_config.client_auth_type",
        "tls_server_config.max_version",
        "tls_server_config.min_version",
    ]


def test_a_file_that_is_not_there_is_told(web: WebFiles) -> None:
    assert problems(web.folder / "web.yml") == ["web.yml: cannot be read: No such file or directory"]


def test_no_secret_of_a_bad_file_is_repeated(web: WebFiles) -> None:
    secret = "hunter2-hunter2"
    places: list[Any] = [
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
    for sections in places:
        told = problems(web.put("web.yml", yaml.safe_dump(sections).encode()))
        assert told
        assert secret not in "".join(told)


# The command line


def test_the_check_tells_what_is_wrong_with_both_files_at_once(web: WebFiles) -> None:
    config = configuration(web.folder, "http://127.0.0.1:1", [{"name": "home"}])
    ended = run(
        "--config.check", f"--config.file={config}", f"--web.config.file={web.write(tls_server_config={'x': 1})}"
    )
    assert ended.returncode == 2
    assert "accounts[0]: needs one of" in ended.stderr
    assert "tls_server_config.x: unknown key" in ended.stderr


def test_the_check_tells_what_a_person_should_know(web: WebFiles) -> None:
    config = configuration(web.folder, "http://127.0.0.1:1", [{"name": "home", "personal_key": "k"}])
    config.chmod(0o600)
    file = web.write(basic_auth_users={"alice": HASH})
    ended = run("--config.check", f"--config.file={config}", f"--web.config.file={file}")
    assert ended.returncode == 0
    assert "the passwords travel unencrypted" in ended.stderr


def test_it_does_not_start_with_a_bad_file(web: WebFiles) -> None:
    ended = run("--demo", f"--web.config.file={web.folder / 'gone.yml'}")
    assert ended.returncode == 2
    assert ended.stderr == f"{web.folder / 'gone.yml'}: cannot be read: No such file or directory\n"


# Changes


def test_nothing_is_read_again_as_long_as_nothing_changes(web: WebFiles) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR))
    before = configured.policy
    assert configured.refresh() == []
    assert configured.policy is before


@pytest.mark.parametrize("changed", ["certificate", "users"])
def test_a_change_is_picked_up(web: WebFiles, changed: str) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR, basic_auth_users={"alice": HASH}))
    before = configured.policy
    if changed == "certificate":
        web.issue()
    else:
        web.write(tls_server_config=PAIR, basic_auth_users={"bob": HASH})
    assert configured.refresh() == []
    assert configured.policy is not before
    assert set(configured.policy.users) == {"alice" if changed == "certificate" else "bob"}


def test_a_change_that_is_broken_changes_nothing_and_is_told(web: WebFiles) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR))
    before = configured.policy
    good = (web.folder / "key.pem").read_bytes()
    web.put("key.pem", trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    (problem,) = configured.refresh()
    assert "is not the key of" in problem
    assert configured.policy is before
    assert configured.refresh() == [problem]
    web.put("key.pem", good)
    assert configured.refresh() == []


def test_a_file_that_is_empty_for_a_moment_opens_no_door(web: WebFiles) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR, basic_auth_users={"alice": HASH}))
    before = configured.policy
    for emptied in ("web.yml", "ca.pem", "cert.pem", "key.pem"):
        content = (web.folder / emptied).read_bytes()
        web.put(emptied, b"")
        configured.refresh()
        assert configured.policy is before
        web.put(emptied, content)
        assert configured.refresh() == []
        before = configured.policy


def test_an_empty_file_of_authorities_is_told(web: WebFiles) -> None:
    web.put("ca.pem", b"")
    clients = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
    assert problems(web.write(tls_server_config={**PAIR, **clients})) == [
        "web.yml:4: tls_server_config.client_ca_file: ca.pem holds no certificates in PEM form"
    ]


# Without /proc, a disk, or more files


@pytest.fixture
def loaded_pairs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path]]:
    """Files that OpenSSL has read a certificate and its key from. They are private."""
    pairs: list[tuple[Path, Path]] = []
    load_cert_chain = ssl.SSLContext.load_cert_chain

    def load_and_note(context: ssl.SSLContext, certificate: str, key: str, password: str) -> None:
        assert {stat.S_IMODE(Path(name).stat().st_mode) for name in (certificate, key)} == {0o600}
        load_cert_chain(context, certificate, key, password)
        pairs.append((Path(certificate), Path(key)))

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load_and_note)
    return pairs


@pytest.mark.parametrize("memory", [True, False], ids=["/dev/shm", "a temporary file"])
def test_key_without_proc_is_in_a_file_for_a_moment(
    web: WebFiles, monkeypatch: pytest.MonkeyPatch, loaded_pairs: list[tuple[Path, Path]], memory: bool
) -> None:
    shared, temporary = web.folder / "shm", web.folder / "tmp"
    shared.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tls_module, "MEMORY_FILES", web.folder / "none")
    monkeypatch.setattr(tls_module, "SHARED_MEMORY", shared if memory else web.folder / "none")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert load(web.write(tls_server_config=PAIR)).policy.tls
    (pair,) = loaded_pairs
    assert {file.parent for file in pair} == {shared if memory else temporary}
    assert [*shared.iterdir(), *temporary.iterdir()] == []


def test_key_that_cannot_be_passed_on_is_an_error(web: WebFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MEMORY_FILES", "SHARED_MEMORY"):
        monkeypatch.setattr(tls_module, name, web.folder / "none")
    monkeypatch.setattr(tempfile, "tempdir", str(web.folder / "none"))
    assert problems(web.write(tls_server_config=PAIR)) == [
        "web.yml:3: tls_server_config.key_file: key.pem cannot be passed on to OpenSSL: No such file or directory"
    ]


def test_lack_of_files_keeps_the_last_good_configuration(web: WebFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR))
    before = configured.policy
    web.issue()

    def fail(_name: str) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", fail)
        (problem,) = configured.refresh()
    assert problem.endswith("key.pem cannot be passed on to OpenSSL: Too many open files")
    assert configured.policy is before
    assert configured.refresh() == []
    assert configured.policy is not before


def test_authorities_may_have_comments_in_any_language(web: WebFiles) -> None:
    web.put("ca.pem", "# Zaufany urząd\n".encode() + (web.folder / "ca.pem").read_bytes())
    clients = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
    assert load(web.write(tls_server_config={**PAIR, **clients})).policy.tls


@pytest.mark.parametrize(
    ("sections", "told"),
    [({"basic_auth_users": {"a": HASH}}, "TLS is off"), ({"tls_server_config": PAIR}, "no password")],
)
def test_what_no_longer_protects_is_told_aloud(
    web: WebFiles, sections: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(
        "exporter.web.configuration.log", SimpleNamespace(warning=warnings.append, info=warnings.append)
    )
    configured = WebConfiguration(web.write(tls_server_config=PAIR, basic_auth_users={"a": HASH}))
    web.write(**sections)
    assert configured.refresh() == []
    assert any(told in warning for warning in warnings)


@pytest.mark.parametrize("name", ["web.yml", "key.pem"])
@pytest.mark.parametrize("what", ["a pipe", "a device without end", "a folder", "nothing"])
def test_whatever_takes_a_files_place_is_told_and_not_waited_for(web: WebFiles, name: str, what: str) -> None:
    configured = WebConfiguration(web.write(tls_server_config=PAIR))
    before, path = configured.policy, web.folder / name
    path.unlink()
    match what:
        case "a pipe":
            os.mkfifo(path)
        case "a device without end":
            path.symlink_to("/dev/zero")
        case "a folder":
            path.mkdir()
    (problem,) = configured.refresh()
    assert str(path) in problem
    assert configured.policy is before


def test_a_pipe_may_hold_the_web_configuration_at_the_start_and_is_not_read_again(web: WebFiles) -> None:
    text = web.write(tls_server_config=PAIR).read_bytes()
    pipe = web.folder / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_bytes, args=(text,))
    writing.start()
    configured = WebConfiguration(pipe)
    writing.join()
    before = configured.policy
    assert before.tls
    web.issue()
    assert configured.refresh() == []
    assert configured.policy is before


def test_a_file_that_comes_later_ends_the_problem(web: WebFiles) -> None:
    configured = WebConfiguration(web.write())
    web.write(tls_server_config={**PAIR, "cert_file": "later.pem"})
    assert configured.refresh() != []
    web.put("later.pem", (web.folder / "cert.pem").read_bytes())
    assert configured.refresh() == []
    assert configured.policy.tls


def test_the_readme_shows_a_web_configuration_that_is_good(web: WebFiles) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    block = next(part.split("```")[0] for part in readme.split("```yaml\n")[1:] if "tls_server_config" in part)
    block = block.replace("/etc/tedee-exporter/", "")
    loaded = load(web.put("web.yml", block.encode()))
    assert loaded.policy.tls
    assert loaded.policy.users
