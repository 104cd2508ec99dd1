"""Each value of the chart has its documented effect, and invalid values are refused with advice."""

import copy
import itertools
import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml
from msgspec import Struct

from exporter import __version__
from exporter.config import load
from exporter.config.settings import Account, Api, Devices, Events, LockSelection, OAuth, Settings, Sync
from exporter.state.rate_limits import RateLimitPolicy
from exporter.web.settings import ALLOWED_HEADERS, BCRYPT_HASH, HttpServer, RateLimit, TlsServer, WebSettings
from exporter.web.tls import CIPHER_SUITES, CLIENT_AUTH, DEPRECATED_VERSIONS, TLS13_SUITES
from exporter.web.tls import VERSIONS as VERSIONS_OF_TLS
from exporter.web.urls import BadUrl, parse_external_url, parse_route_prefix
from helm.refresh import CHART, documented_values

from .release import CI, HOME, Object, Values, chart, release, values_of
from .test_objects import VERSIONS, check

DEFAULTS = (CHART / "values.yaml").read_text("utf-8")
DOCUMENTED = {name: default for name, default, _ in documented_values(DEFAULTS)}
SECTIONS = {name.rsplit(".", dots)[0] for name in DOCUMENTED for dots in range(1, name.count(".") + 1)}
SCHEMA: Any = chart().schema


def leaf(values: Values, name: str) -> Any:
    """Return the value with that name. Raises KeyError if it is absent."""
    part: Any = values
    for step in name.split("."):
        part = part[step]
    return part


def without(values: Values, name: str) -> dict[str, Any]:
    """Return the values without that one."""
    left = copy.deepcopy(dict(values))
    *above, last = name.split(".")
    part: Any = left
    for step in above:
        part = part[step]
    del part[last]
    return left


def given(value: Any, name: str) -> dict[str, Any]:
    """Return values with only that one."""
    for step in reversed(name.split(".")):
        value = {step: value}
    return dict(value)


def with_some_account(values: Values) -> Values:
    """Return the values, with keys if they have no account."""
    if {"demo", "keys", "existingSecret"} & values.keys():
        return values
    return {**values, "keys": {"home": "key-of-home", "hotel": "key-of-the-hotel"}}


def objects_or_error(values: Values) -> list[Object] | str:
    """Return the objects of the chart; the error if the chart refuses the values."""
    try:
        return release(values).objects
    except helm_python.HelmError as error:
        return str(error)


@cache
def objects_of(path: Path) -> list[Object]:
    """Return the objects of the chart for a file of values."""
    return release(values_of(path)).objects


# Effects


REQUIRED = {"httpRoute.parentRefs", "podDisruptionBudget.maxUnavailable"}
"""Values that are required for an object, or one of several such values."""


@pytest.mark.parametrize("name", sorted(DOCUMENTED.keys() - {"httpRoute.parentRefs"}))
def test_every_value_has_an_effect(name: str) -> None:
    tried = []
    for path in CI:
        try:
            if leaf(values_of(path), name) != DOCUMENTED[name]:
                tried.append(path)
        except KeyError:
            continue
    assert tried, f"no file in ci/ sets {name}"
    for path in tried:
        left = objects_or_error(with_some_account(without(values_of(path), name)))
        # An error without the value does not count as an effect.
        if left != objects_of(path) and not isinstance(left, str):
            return
    pytest.fail(f"no file in ci/ shows the effect of {name}")


def test_each_key_is_an_account_by_default() -> None:
    rendered = release({"keys": {"home": "a", "hotel": "b"}})
    assert yaml.safe_load(rendered.config)["accounts"] == [
        {"name": "home", "personal_key_file": "/etc/tedee-exporter/keys/home"},
        {"name": "hotel", "personal_key_file": "/etc/tedee-exporter/keys/hotel"},
    ]


def test_account_uses_key_of_its_name_by_default() -> None:
    oauth = {"client_id": "c", "refresh_token_file": "/somewhere/else"}
    accounts = [{"name": "home"}, {"name": "hotel", "access_token_file": "/token"}, {"name": "guests", "oauth": oauth}]
    rendered = release({"keys": {"home": "a"}, "config": {"accounts": accounts}})
    with_key = {"name": "home", "personal_key_file": "/etc/tedee-exporter/keys/home"}
    assert yaml.safe_load(rendered.config)["accounts"] == [with_key, *accounts[1:]]


def test_numbers_and_texts_are_passed_unchanged(tmp_path: Path) -> None:
    # Helm can write 1e+06 for a million, and YAML can parse a text as a number.
    names = ["101", "1e6", "0x1f", "yes", "null", "2026-01-01", "12:30", "1_000", "~", "=", "a: b", "# no", "ä ż"]
    locks = {"ids": [1000000, 9007199254740991]}
    accounts = [{"name": name, "personal_key_file": f"/{at}", "locks": locks} for at, name in enumerate(names)]
    values: Values = {"config": {"accounts": accounts, "api": {"version": "v1.36"}}}
    file = tmp_path / "tedee-exporter.yml"
    file.write_text(release(values).config, "utf-8")
    settings = load(file)
    assert [account.name for account in settings.accounts] == names
    assert {account.locks.ids for account in settings.accounts if account.locks} == {tuple(locks["ids"])}


def test_alert_values_change_rules() -> None:
    values = values_of(next(path for path in CI if path.name.startswith("alerts-")))
    before = release({**HOME, "prometheusRule": {"enabled": True}}).one("PrometheusRule")["spec"]["groups"]
    after = release(values).one("PrometheusRule")["spec"]["groups"]
    assert after[-1:] == values["prometheusRule"]["additionalGroups"]
    changed: dict[str, str] = {}
    for old, new in zip(before, after, strict=False):
        kept = [rule for rule in old["rules"] if rule.get("alert") != "TedeeFirmwareOutdated"]
        assert [rule.get("record", rule.get("alert")) for rule in new["rules"]] == [
            rule.get("record", rule.get("alert")) for rule in kept
        ]
        changed |= {was["record"]: now["expr"] for was, now in zip(kept, new["rules"], strict=True) if was != now}
    assert changed == {"tedee:battery_percent:low": "30", "tedee:battery_percent:critical": "15"}
    assert sum(len(group["rules"]) for group in before) == sum(len(group["rules"]) for group in after[:-1]) + 1


def test_token_outside_state_folder_is_recognised() -> None:
    oauth = {"client_id": "c", "refresh_token_file": "/var/lib/tedee-exporter2/token"}
    assert release({"config": {"accounts": [{"name": "guests", "oauth": oauth}]}})


def test_pod_values_are_passed_unchanged() -> None:
    values = values_of(CHART / "ci/pod-values.yaml")
    spec = release(values).pod["spec"]
    for name in (
        "affinity",
        "dnsConfig",
        "dnsPolicy",
        "hostAliases",
        "nodeSelector",
        "priorityClassName",
        "runtimeClassName",
        "schedulerName",
        "tolerations",
        "topologySpreadConstraints",
    ):
        assert spec[name] == values[name]
    assert spec["securityContext"]["sysctls"] == values["podSecurityContext"]["sysctls"]
    assert release(values).container["lifecycle"] == values["lifecycle"]
    startup = release(values).container["startupProbe"]
    assert startup == {"httpGet": release(values).container["livenessProbe"]["httpGet"], **values["startupProbe"]}
    (sidecar,) = [each for each in spec["containers"] if each["name"] != "exporter"]
    assert sidecar["image"] == f"registry.example.com/oauth2-proxy:{__version__}"
    assert sidecar["ports"] == values["extraContainers"][0]["ports"]
    assert spec["volumes"][0] == {"name": "state", "emptyDir": {"sizeLimit": values["persistence"]["sizeLimit"]}}
    assert release(values).one("Deployment")["spec"]["revisionHistoryLimit"] == values["revisionHistoryLimit"]
    more = values_of(CHART / "ci/extra-values.yaml")
    container = release(more).container
    assert (container["env"], container["envFrom"]) == (more["extraEnv"], more["extraEnvFrom"])


def test_host_network_is_set_on_the_pod() -> None:
    values = values_of(CHART / "ci/host-network-values.yaml")
    spec = release(values).pod["spec"]
    assert (spec["hostNetwork"], spec["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
    assert "hostNetwork" not in release().pod["spec"]


@pytest.mark.parametrize("which", ["service", "load-balancer", "dual-stack"])
def test_service_values_are_set_on_the_service(which: str) -> None:
    values = values_of(CHART / f"ci/{which}-values.yaml")
    spec = release(values).one("Service")["spec"]
    monitor_values = values["service"].keys() - {"port", "nodePort", "annotations", "labels"}
    assert {name: spec[name] for name in monitor_values} == {name: values["service"][name] for name in monitor_values}
    assert set(release().one("Service")["spec"]) == {"type", "selector", "ports"}


def test_http_route_sends_all_paths_to_the_service_by_default() -> None:
    gateway = [{"name": "gateway"}]
    rendered = release({**HOME, "httpRoute": {"enabled": True, "parentRefs": gateway}, "service": {"port": 80}})
    backend = {"name": rendered.one("Service")["metadata"]["name"], "port": 80}
    assert rendered.one("HTTPRoute")["spec"] == {"parentRefs": gateway, "rules": [{"backendRefs": [backend]}]}


def test_http_route_values_are_passed_unchanged() -> None:
    values = values_of(CHART / "ci/http-route-values.yaml")["httpRoute"]
    spec = release(values_of(CHART / "ci/http-route-values.yaml")).one("HTTPRoute")["spec"]
    assert (spec["parentRefs"], spec["hostnames"]) == (values["parentRefs"], values["hostnames"])
    assert [{**rule, "backendRefs": None} for rule in spec["rules"]] == [
        {**rule, "backendRefs": None} for rule in values["rules"]
    ]


def test_extra_object_can_be_text() -> None:
    rendered = release(values_of(CHART / "ci/extra-values.yaml"))
    assert rendered.one("ConfigMap", "tedee-exporter-more")["metadata"]["namespace"] == "locks"


@pytest.mark.parametrize("monitor", ["ServiceMonitor", "PodMonitor"])
def test_monitor_values_are_passed_unchanged(monitor: str) -> None:
    path = CHART / "ci" / f"{monitor.removesuffix('Monitor').lower()}-monitor-values.yaml"
    monitor_values = values_of(path)[f"{monitor[0].lower()}{monitor[1:]}"]
    spec = release(values_of(path)).one(monitor)["spec"]
    (endpoint,) = spec["endpoints" if monitor == "ServiceMonitor" else "podMetricsEndpoints"]
    arrived = {name: value for name, value in monitor_values.items() if (spec | endpoint).get(name) == value}
    left = monitor_values.keys() - arrived.keys()
    # The metadata, and fields that are omitted if empty.
    assert left - {name for name in left if monitor_values[name] == ""} == {
        "enabled",
        "namespace",
        "labels",
        "annotations",
    }


def test_limit_can_be_zero() -> None:
    zero = {"enabled": True, "limits": {"tedee:battery_percent:low": 0}}
    (limits, *_) = release({**HOME, "prometheusRule": zero}).one("PrometheusRule")["spec"]["groups"]
    assert [rule["expr"] for rule in limits["rules"] if rule["record"] == "tedee:battery_percent:low"] == ["0"]


@pytest.mark.parametrize(("storage_class", "expected"), [("", None), ("-", ""), ("fast", "fast")])
def test_claim_has_requested_storage_class(storage_class: str, expected: str | None) -> None:
    rendered = release({**HOME, "persistence": {"enabled": True, "storageClass": storage_class}})
    assert rendered.one("PersistentVolumeClaim")["spec"].get("storageClassName") == expected


def test_defaults_create_only_required_objects() -> None:
    kinds = [each["kind"] for each in release().objects]
    # The pod exists only during `helm test`.
    assert sorted(kinds) == ["ConfigMap", "Deployment", "Pod", "Secret", "Service", "ServiceAccount"]
    assert release().one("Pod")["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_chart_can_be_a_subchart(tmp_path: Path) -> None:
    part = {"name": "tedee-exporter", "version": chart().version, "condition": "tedee-exporter.enabled"}
    (tmp_path / "Chart.yaml").write_text(
        yaml.safe_dump({"apiVersion": "v2", "name": "house", "version": "1.0.0", "dependencies": [part]})
    )
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "NOTES.txt").touch()
    chart().save_dir(tmp_path / "charts")
    everywhere = {"imageRegistry": "mirror.example.com", "imagePullSecrets": ["mirror"], "of-another": 1}
    values = {"global": everywhere, "tedee-exporter": {"enabled": True, **HOME}}
    rendered = release(values, name="house", path=tmp_path)
    assert rendered.one("Deployment")["metadata"]["name"] == "house-tedee-exporter"
    assert rendered.container["image"] == f"mirror.example.com/tedee-exporter/tedee-exporter:{__version__}"
    assert rendered.pod["spec"]["imagePullSecrets"] == [{"name": "mirror"}]


# Refused values


# `global` may contain keys of other charts.
@pytest.mark.parametrize("name", [name for name in DOCUMENTED if not name.startswith("global.")])
def test_misspelt_value_is_refused_by_name(name: str) -> None:
    misspelt = given(DOCUMENTED[name], f"{name}s")
    with pytest.raises(helm_python.HelmValuesError, match=f"{name.rpartition('.')[2]}s"):
        release({**HOME, **misspelt})


# Below these values, names are free (labels, accounts) or belong to objects of Kubernetes.
NAMED_BY_OTHERS = re.compile(
    r"(global|.*\.params|.*[aA]nnotations|.*[lL]abels|keys|nodeSelector|affinity\..*|prometheusRule\.limits|.*basic_auth_users)\."
)


def everything_below(values: Values, above: str = "") -> Iterator[str]:
    """Yield the name of each value in a map, at any depth."""
    for key, value in values.items():
        yield f"{above}{key}"
        if isinstance(value, dict):
            yield from everything_below(value, f"{above}{key}.")


TRIED = {
    name: values
    for values in [yaml.safe_load(DEFAULTS), *map(values_of, CI)]
    for name in everything_below(values)
    if "." in name and not NAMED_BY_OTHERS.match(name)
}


@pytest.mark.parametrize("name", TRIED)
def test_nested_misspelt_value_is_refused_by_name(name: str) -> None:
    above, _, last = name.rpartition(".")
    misspelt = copy.deepcopy(TRIED[name])
    leaf(misspelt, above)[f"{last}Misspelt"] = leaf(misspelt, above).pop(last)
    with pytest.raises(helm_python.HelmValuesError, match=f"'{last}Misspelt'"):
        release({**HOME, **misspelt})


def test_misspelt_values_are_detected_everywhere() -> None:
    places = {name.rpartition(".")[0] for name in TRIED}
    assert places >= {
        "podSecurityContext",
        "podSecurityContext.seccompProfile",
        "securityContext",
        "securityContext.capabilities",
        "resources.limits",
        "serviceMonitor.tlsConfig",
        "podMonitor.tlsConfig.ca.secret",
        "serviceMonitor.basicAuth.password",
        "webConfig.config.tls_server_config",
    }


@pytest.mark.parametrize("name", sorted(SECTIONS | DOCUMENTED.keys() - REQUIRED))
def test_null_is_refused_or_means_absent(name: str) -> None:
    section, _, rest = name.partition(".")
    values: dict[str, Any] = {**HOME, section: given(None, rest) if rest else None}
    if rest and f"{section}.enabled" in DOCUMENTED:
        gateway = {"parentRefs": [{"name": "gateway"}]} if section == "httpRoute" else {}
        values[section] = {"enabled": True, **gateway, **values[section]}
    rendered = objects_or_error(values)
    if isinstance(rendered, str):
        assert f"missing property '{name.rpartition('.')[2]}'" in rendered
        return
    for thing in rendered:
        check(thing, VERSIONS[0])
        assert "nil>" not in str(thing)


def test_null_in_web_configuration_is_refused() -> None:
    with pytest.raises(helm_python.HelmValuesError, match="tls_server_config': got null"):
        release({**HOME, "webConfig": {"config": {"tls_server_config": None}}})


def web(**config: Any) -> dict[str, Any]:
    return {"webConfig": {"tlsSecret": "tedee-exporter-tls", "config": config}}


def accounts(**account: Any) -> dict[str, Any]:
    return {"config": {"accounts": [{"name": "home", **account}]}}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (web(basic_auth_user={}), "'basic_auth_user' not allowed"),
        (web(basic_auth_users={"prometheus": "hunter2"}), "users/prometheus.* does not match"),
        (web(basic_auth_users={"a:b": f"$2y$10${'a' * 53}"}), "a:b.* does not match"),
        (web(tls_server_config={"client_auth_type": "RequireAnyClientCert"}), "client_auth_type.*must be one of"),
        (web(tls_server_config={"client_ca_file": "/ca"}), "'client_auth_type' required"),
        (web(tls_server_config={"curve_preferences": ["X25519"]}), "'curve_preferences' not allowed"),
        (web(tls_server_config={"cipher_suites": ["RC4"]}), "cipher_suites/0.*must be one of"),
        (web(tls_server_config={"max_version": "TLS11"}), "max_version.*must be one of"),
        (web(http_server_config={"headers": {"X-Frame-Options": "no"}}), "X-Frame-Options.*must be"),
        (web(rate_limit={"interval": "1s"}), "'burst' required"),
        ({"securityContext": {"readOnlyRootFileSystem": True}}, "'readOnlyRootFileSystem' not allowed"),
        ({"serviceMonitor": {"tlsConfig": {"insecureSkipverify": True}}}, "'insecureSkipverify' not allowed"),
        ({"podMonitor": {"tlsConfig": {"caFile": "/ca"}}}, "'caFile' not allowed"),
        ({"resources": {"limits": {"memroy": "1Gi"}}}, "'memroy' not allowed"),
        ({"config": {"sync": {"interval": 20}}}, "got number, want string"),
        ({"config": {"sync": {"requests_per_hour": 701}}}, "requests_per_hour.*maximum"),
        ({"config": {"api": {"version": "37"}}}, "version.*does not match"),
        ({"config": {"devices": {"interval": "10"}}}, "interval.*does not match"),
        ({"config": {"events": {"enabled": "yes"}}}, "enabled.*got string, want boolean"),
        (accounts(expires="30.11.2027"), "expires.*does not match"),
        (accounts(name='"home"'), "name.*does not match"),
        (accounts(locks={}), "locks.*minProperties"),
        (accounts(locks={"ids": [1], "serial_numbers": ["1-2"]}), "locks.*maxProperties"),
        (accounts(locks={"ids": []}), "ids.*minItems"),
        (accounts(locks={"serial_numbers": ["a key"]}), "serial_numbers/0.*does not match"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_values_that_break_the_pod_are_refused(values: Values, message: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=message):
        release({**HOME, **values})


@pytest.mark.parametrize(
    ("value", "parse", "texts"),
    [
        (
            "externalUrl",
            parse_external_url,
            (
                "https://a.example http://a:80/ https://[::1]:8443/b/c/ https://a/b~.c a.example https:// ftp://a "
                "https://u@a https://a?b https://a#b https://a/../b https://a/b%20c https://a:0 https://a//b"
            ),
        ),
        ("routePrefix", parse_route_prefix, "/ /a a a/ /a/b/ /a-b_c~d.e /a//b /a/../b /a?b /%61 /ä"),
    ],
)
def test_urls_are_accepted_as_in_the_exporter(value: str, parse: Callable[[str], str], texts: str) -> None:
    for text in ["", *texts.split()]:
        try:
            parse(text)
        except BadUrl:
            with pytest.raises(helm_python.HelmValuesError, match=f"{value}.*does not match"):
                release({**HOME, "web": {value: text}})
        else:
            release({**HOME, "web": {value: text}})


def test_resources_can_be_any_kind() -> None:
    more = {"ephemeral-storage": "1Gi", "hugepages-2Mi": "4Mi", "nvidia.com/gpu": 1}
    limits = release({**HOME, "resources": {"limits": more}}).container["resources"]["limits"]
    assert limits == {"memory": "256Mi", **more}


OTHER_CHARTS = [
    f"{section}{name}"
    for section, properties_ in [
        ("", SCHEMA["properties"]),
        *((f"{name}.", each.get("properties", {})) for name, each in SCHEMA["properties"].items()),
    ]
    for name, schema in properties_.items()
    if schema.get("$ref") == "#/definitions/otherCharts"
]


@pytest.mark.parametrize("name", OTHER_CHARTS)
def test_value_of_another_chart_is_refused_with_hint(name: str) -> None:
    with pytest.raises(helm_python.HelmRenderError) as refused:
        release({**HOME, **given(3, name)})
    (problem,) = str(refused.value).strip().splitlines()[1:]
    replacement = re.fullmatch(rf"{re.escape(name)}: is called (\S+) here", problem)
    assert (
        replacement[1] in DOCUMENTED.keys() | SECTIONS
        if replacement
        else problem.startswith(f"{name}: is not a value of this chart; ")
    )


def test_schema_accepts_each_value_of_another_chart() -> None:
    # Otherwise Helm prints an error of the schema, without the hint.
    template = (CHART / "templates" / "_check.tpl").read_text("utf-8")
    table = template.partition('{{- define "tedee-exporter.otherCharts" -}}\n')[2].partition("{{- end -}}")[0]
    names = re.findall(r"(?m)^([\w.]+): ", table)
    assert sorted(names) == sorted(OTHER_CHARTS)
    assert len(names) >= 70


def texts_in(value: Any, *place: str | int) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of each text in values, except in the user's own objects and rules."""
    if isinstance(value, str):
        yield place
    elif isinstance(value, dict):
        for key, below in value.items():
            if key not in {"extraObjects", "keys"}:
                yield from texts_in(below, *place, key)
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from texts_in(below, *place, index)


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name)
@pytest.mark.parametrize("other", [8080, True])
def test_number_or_boolean_for_a_text_is_refused(path: Path, other: object) -> None:
    # Unless Kubernetes and the operator accept the resulting object.
    for *above, last in texts_in(values_of(path)):
        values = values_of(path)
        part: Any = values
        for step in above:
            part = part[step]
        part[last] = other
        rendered = objects_or_error(values)
        for thing in [] if isinstance(rendered, str) else rendered:
            check(thing, VERSIONS[-1])


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"extraEnv": [{"name": "PORT", "value": 8080}]}, "/extraEnv/0/value"),
        ({"extraEnv": [{"name": "DEBUG", "value": True}]}, "/extraEnv/0/value"),
        ({"extraEnv": [{"value": "x"}]}, "/extraEnv/0"),
        ({"tolerations": [{"key": "edge", "value": True}]}, "/tolerations/0/value"),
        ({"dnsConfig": {"options": [{"name": "ndots", "value": 2}]}}, "/dnsConfig/options/0/value"),
        ({"podSecurityContext": {"sysctls": [{"name": "a", "value": 1}]}}, "/podSecurityContext/sysctls/0/value"),
        ({"initContainers": [{"name": "a", "env": [{"name": "B", "value": 1}]}]}, "/initContainers/0/env/0/value"),
        ({"extraContainers": [{"name": "a", "args": [1]}]}, "/extraContainers/0/args/0"),
        ({"extraContainers": [{"name": "a", "imagee": "b"}]}, "/extraContainers/0"),
        ({"extraVolumes": [{"name": "a", "nfs": {"path": 1, "server": "b"}}]}, "/extraVolumes/0/nfs/path"),
        ({"hostAliases": [{"ip": "192.0.2.1", "hostnames": [1]}]}, "/hostAliases/0/hostnames/0"),
        ({"nodeSelector": {"disk": True}}, "/nodeSelector/disk"),
        ({"serviceMonitor": {"relabelings": [{"replacement": 1}]}}, "/serviceMonitor/relabelings/0/replacement"),
        ({"serviceMonitor": {"params": {"a": "b"}}}, "/serviceMonitor/params/a"),
        ({"prometheusRule": {"additionalGroups": [{"name": "a", "rules": [{"expr": "1", "labels": {"b": 1}}]}]}},
         "/prometheusRule/additionalGroups/0/rules/0/labels/b"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)  # fmt: skip
def test_value_kubernetes_refuses_is_refused(values: Values, place: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=f"at '{place}': "):
        release({**HOME, **values})


@pytest.mark.parametrize("name", DOCUMENTED)
def test_value_of_wrong_type_is_refused(name: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=name.replace(".", "/")):
        release({**HOME, **given(7.5, name)})


def test_state_file_is_set_explicitly() -> None:
    with pytest.raises(helm_python.HelmValuesError, match="state_file"):
        release({**HOME, "config": {"state_file": None}})


@pytest.mark.parametrize(
    ("place", "section"),
    [
        ("", Settings),
        ("api", Api),
        ("sync", Sync),
        ("devices", Devices),
        ("events", Events),
        ("accounts.items", Account),
        ("accounts.items.oauth", OAuth),
        ("accounts.items.locks", LockSelection),
    ],
)
def test_configuration_has_exactly_keys_of_exporter(place: str, section: type[Struct]) -> None:
    schema = SCHEMA
    for step in ["config", *place.split(".")] if place else ["config"]:
        schema = schema["items"] if step == "items" else schema["properties"][step]
    # The chart needs the hosts of the URL for its NetworkPolicy, and has the password in a Secret.
    assert set(schema["properties"]) == set(section.__struct_fields__) - {"state_url_file"}
    assert schema["additionalProperties"] is False


def properties(schema: Any, *steps: str) -> Any:
    """Return the properties at that path in the chart's schema, with references resolved."""
    for step in steps:
        schema = schema["properties"][step]
        if "$ref" in schema:
            schema = SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    assert schema["additionalProperties"] is False
    return schema["properties"]


@pytest.mark.parametrize(
    ("place", "section"),
    [
        ([], WebSettings),
        (["tls_server_config"], TlsServer),
        (["http_server_config"], HttpServer),
        (["rate_limit"], RateLimit),
    ],
)
def test_web_configuration_has_exactly_keys_of_exporter(place: list[str], section: type[Struct]) -> None:
    found = properties(SCHEMA, "webConfig", "config", *place)
    # The exporter also lists unsupported choices, for its error messages.
    assert set(found) == set(section.__struct_fields__) - {"curve_preferences"}


def test_tls_and_header_choices_match_exporter() -> None:
    tls = properties(SCHEMA, "webConfig", "config", "tls_server_config")
    assert tls["client_auth_type"]["enum"] == list(CLIENT_AUTH)
    assert tls["cipher_suites"]["items"]["enum"] == [*CIPHER_SUITES, *TLS13_SUITES]
    assert set(tls["min_version"]["enum"]) == {*DEPRECATED_VERSIONS, *VERSIONS_OF_TLS}
    assert tls["max_version"]["enum"] == list(VERSIONS_OF_TLS)
    users = SCHEMA["definitions"]["webConfig"]["properties"]["basic_auth_users"]
    assert users["additionalProperties"]["pattern"] == f"^{BCRYPT_HASH}$"
    headers = properties(SCHEMA, "webConfig", "config", "http_server_config", "headers")
    assert {name: tuple(header.get("enum", ())) for name, header in headers.items()} == ALLOWED_HEADERS


@pytest.mark.parametrize(
    ("value", "definition"),
    [("podSecurityContext", "PodSecurityContext"), ("securityContext", "SecurityContext")],
)
def test_security_context_has_keys_of_kubernetes(value: str, definition: str) -> None:
    assert set(properties(SCHEMA, value)) == set(kubernetes(definition)["properties"])


def kubernetes(definition: str) -> Any:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / f"v{VERSIONS[-1]}-local"
    return json.loads((folder / f"{definition.lower()}-v1.json").read_text("utf-8"))


@pytest.mark.parametrize("monitor", ["ServiceMonitor", "PodMonitor"])
@pytest.mark.parametrize(
    "place",
    [["tlsConfig"], ["tlsConfig", "ca"], ["tlsConfig", "ca", "secret"], ["basicAuth"], ["basicAuth", "username"]],
    ids=".".join,
)
def test_monitor_has_keys_of_operator(monitor: str, place: list[str]) -> None:
    endpoints = "endpoints" if monitor == "ServiceMonitor" else "podMetricsEndpoints"
    known = json.loads((Path(__file__).parent / "crds" / f"{monitor.lower()}.json").read_text("utf-8"))
    known = known["properties"]["spec"]["properties"][endpoints]["items"]
    for step in place:
        known = known["properties"][step]
    assert set(properties(SCHEMA, f"{monitor[0].lower()}{monitor[1:]}", *place)) == set(known["properties"])


@pytest.mark.parametrize(
    ("definition", "kind", "place"),
    [
        ("relabeling", "servicemonitor", ["endpoints", "relabelings"]),
        ("relabeling", "podmonitor", ["podMetricsEndpoints", "metricRelabelings"]),
        ("ruleGroup", "prometheusrule", ["groups"]),
        ("rule", "prometheusrule", ["groups", "rules"]),
    ],
)
def test_operator_types_are_complete(definition: str, kind: str, place: list[str]) -> None:
    known = json.loads((Path(__file__).parent / "crds" / f"{kind}.json").read_text("utf-8"))["properties"]["spec"]
    for step in place:
        known = known["properties"][step]["items"]
    assert set(SCHEMA["definitions"][definition]["properties"]) == set(known["properties"])


def test_http_route_has_keys_of_gateway_api() -> None:
    known = json.loads((Path(__file__).parent / "crds" / "httproute.json").read_text("utf-8"))["properties"]["spec"]
    # The chart sets the backends, and does not offer to mirror requests.
    known = {path for path in paths_in(known) if not {"backendRefs", "requestMirror"} & set(path)}
    own = SCHEMA["properties"]["httpRoute"]
    assert {path for path in paths_in(own) if path[0] not in {"enabled", "annotations", "labels"}} == known


def paths_in(schema: Any, *above: str) -> Iterator[tuple[str, ...]]:
    """Yield the path of each property in a schema, at any depth."""
    while "$ref" in schema or "items" in schema:
        schema = schema["items"] if "items" in schema else SCHEMA["definitions"][schema["$ref"].rpartition("/")[2]]
    for name, below in schema.get("properties", {}).items():
        yield (*above, name)
        yield from paths_in(below, *above, name)


@pytest.mark.parametrize("kind", ["servicemonitor", "podmonitor"])
def test_scrape_protocols_are_those_of_the_operator(kind: str) -> None:
    known = json.loads((Path(__file__).parent / "crds" / f"{kind}.json").read_text("utf-8"))["properties"]["spec"]
    assert SCHEMA["definitions"]["scrapeProtocol"]["enum"] == known["properties"]["fallbackScrapeProtocol"]["enum"]


GROUPS = yaml.safe_load((CHART / "files" / "tedee.rules.yml").read_text("utf-8"))["groups"]
KNOWN = {
    "{limits}": ", ".join(rule["record"] for rule in GROUPS[0]["rules"]),
    "{alerts}": ", ".join(sorted({rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule})),
}
REFUSED = yaml.safe_load(Path(__file__).with_name("refused.yml").read_text("utf-8"))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["message"][:40])
def test_conflicting_values_are_refused_with_advice(case: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmRenderError) as refused:
        release(case["values"])
    message = case["message"]
    for name, known in KNOWN.items():
        message = message.replace(name, known)
    assert str(refused.value).strip().splitlines()[1:] == [message]


@pytest.mark.parametrize("interval", [20, 30, 60, 120])
def test_share_is_large_enough_for_events_as_in_the_exporter(interval: int) -> None:
    def is_refused(requests_per_hour: int) -> bool:
        sync = {"interval": f"{interval}s", "requests_per_hour": requests_per_hour}
        return isinstance(objects_or_error({**HOME, "config": {"sync": sync, "events": {"enabled": True}}}), str)

    limits = {share: RateLimitPolicy(interval, share).lowest_priority_limit for share in range(10, 400)}
    smallest = min(share for share, limit in limits.items() if limit > 0)
    assert [is_refused(smallest - 1), is_refused(smallest)] == [True, False]


def test_all_problems_are_reported_together() -> None:
    monitors = {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}
    with pytest.raises(helm_python.HelmRenderError) as refused:
        release({"webConfig": {"tls": True}, **monitors})
    assert len(str(refused.value).strip().splitlines()) == 1 + 3


# Notes


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name)
def test_notes_name_the_objects(path: Path) -> None:
    values = values_of(path)
    rendered = release(values)
    assert f"deployment/{rendered.one('Deployment')['metadata']['name']}" in rendered.notes
    port = rendered.one("Service")["spec"]["ports"][0]["port"]
    assert f"service/{rendered.one('Service')['metadata']['name']} 10333:{port}" in rendered.notes
    monitors = rendered.all("ServiceMonitor") + rendered.all("PodMonitor")
    assert ("Prometheus does not scrape the exporter yet" in rendered.notes) == (not monitors)
    scheme = rendered.container["livenessProbe"].get("httpGet", {"scheme": "HTTPS"})["scheme"].lower()
    assert f"open {scheme}://localhost:10333/" in rendered.notes
    for other in {"keys", "existingSecret"} & values.keys():
        name = values["existingSecret"] if other == "existingSecret" else rendered.one("Deployment")["metadata"]["name"]
        assert f" Secret {name}" in rendered.notes
    numbers = [line.split(".")[0] for line in rendered.notes.splitlines() if line[:1].isdigit()]
    assert numbers == [str(number) for number, _ in zip(itertools.count(1), numbers)]


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name)
def test_upgrade_commands_in_notes_are_complete(path: Path) -> None:
    notes = release(values_of(path), name="ours", namespace="locks").notes
    upgrades = [line for line in re.sub(r" \\\n +", " ", notes).splitlines() if "--set" in line]
    start = (
        f"    helm upgrade ours oci://ghcr.io/tedee-exporter/charts/tedee-exporter --version {__version__} "
        "--namespace locks --reset-then-reuse-values --set"
    )
    assert [line for line in upgrades if not re.fullmatch(rf"{re.escape(start)}(-file)? \S+=\S+.*", line)] == []
    assert upgrades or "serviceMonitor" in values_of(path)


def test_notes_list_accounts_and_explain_keys() -> None:
    assert "\n  - home\n" in release().notes
    assert "--set-file keys.home=FILE\n" in release().notes
    assert "--set-file keys.my\\.home=FILE\n" in release({"keys": {"my.home": "key"}}).notes
    assert "https://portal.tedee.com" in release({"demo": True}).notes


OPEN = "Everyone in the cluster can see the locks: set TLS and passwords in webConfig"
POSSIBLY_OPEN = "If the file in the Secret web requires no password, everyone in the cluster can see the locks"
UNENCRYPTED = "Passwords are sent unencrypted"
CA = "Prometheus rejects a certificate of an unknown CA: set the CA in {}.tlsConfig"
CERTIFICATE = "The exporter requires a client certificate, and Prometheus has none: see {}.tlsConfig"
PASSWORD = "The exporter requires a password, and Prometheus has none: see {}.basicAuth"
WARNINGS = (OPEN, POSSIBLY_OPEN, UNENCRYPTED, CA, CERTIFICATE, PASSWORD)

TLS = {"tlsSecret": "tls"}
USERS = {"basic_auth_users": {"prometheus": f"$2y$10${'a' * 53}"}}
DEMANDING = {"tls_server_config": {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "/ca"}}
OFFERED = {"tls_server_config": {"client_auth_type": "VerifyClientCertIfGiven", "client_ca_file": "/ca"}}
KNOWN_CA = {"tlsConfig": {"ca": {"secret": {"name": "tls", "key": "ca.crt"}}}}
KEY_PAIR = {"tlsConfig": {"cert": {"secret": {"name": "p", "key": "c"}}, "keySecret": {"name": "p", "key": "k"}}}
USER = {"basicAuth": {"username": {"name": "p", "key": "u"}, "password": {"name": "p", "key": "p"}}}


@pytest.mark.parametrize(
    ("web_config", "policy", "monitor", "expected"),
    [
        ({}, {}, None, [OPEN]),
        ({}, {"enabled": True}, None, []),
        ({}, {"enabled": True, "from": []}, None, [OPEN]),
        (TLS, {}, None, [OPEN]),
        ({**TLS, "config": OFFERED}, {}, None, [OPEN]),
        ({**TLS, "config": DEMANDING}, {}, None, []),
        ({**TLS, "config": USERS}, {}, None, []),
        ({"config": USERS}, {}, None, [UNENCRYPTED]),
        ({"config": USERS}, {"enabled": True}, None, [UNENCRYPTED]),
        ({"existingSecret": "web"}, {}, None, [POSSIBLY_OPEN]),
        ({"existingSecret": "web", "tls": True}, {}, None, [POSSIBLY_OPEN]),
        ({"existingSecret": "web", "clientCertificates": True}, {}, None, []),
        ({"existingSecret": "web"}, {"enabled": True}, None, []),
        ({}, {"enabled": True}, {}, []),
        (TLS, {"enabled": True}, {}, [CA]),
        (TLS, {"enabled": True}, KNOWN_CA, []),
        ({"existingSecret": "web", "tls": True}, {"enabled": True}, {}, [CA]),
        ({**TLS, "config": DEMANDING}, {}, {}, [CA, CERTIFICATE]),
        ({**TLS, "config": DEMANDING}, {}, KNOWN_CA, [CERTIFICATE]),
        ({**TLS, "config": DEMANDING}, {}, KEY_PAIR, []),
        ({"existingSecret": "web", "clientCertificates": True}, {}, KNOWN_CA, [CERTIFICATE]),
        ({**TLS, "config": USERS}, {}, KNOWN_CA, [PASSWORD]),
        ({**TLS, "config": USERS}, {}, {**KNOWN_CA, **USER}, []),
    ],
)
@pytest.mark.parametrize("which", ["serviceMonitor", "podMonitor"])
def test_notes_warn_of_missing_authentication(
    which: str, web_config: Values, policy: Values, monitor: Values | None, expected: list[str]
) -> None:
    monitored = {which: {"enabled": True, **monitor}} if monitor is not None else {}
    notes = release({**HOME, "webConfig": web_config, "networkPolicy": policy, **monitored}).notes
    notes = " ".join(notes.split())
    assert [each for each in WARNINGS if each.format(which) in notes] == expected


@pytest.mark.parametrize("values", [{"service": {"type": "LoadBalancer"}}, {"hostNetwork": True}])
def test_notes_warn_of_access_from_outside_of_the_cluster(values: Values) -> None:
    notes = release({**HOME, **values}).notes
    assert "Everyone who can reach the nodes or the load balancer can see the locks" in notes


def test_notes_warn_of_ingress_without_authentication() -> None:
    ingress = {"enabled": True, "hosts": ["locks.example.com"]}
    warning = "Everyone with access to the Ingress can see the locks"
    assert warning in release({**HOME, "ingress": ingress}).notes
    assert warning not in release({**HOME, "ingress": ingress, "webConfig": {"config": USERS}}).notes
    route = {"enabled": True, "parentRefs": [{"name": "gateway"}]}
    assert "Everyone with access to the Gateway can see the locks" in release({**HOME, "httpRoute": route}).notes


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name)
def test_notes_have_no_consecutive_empty_lines(path: Path) -> None:
    assert "\n\n\n" not in release(values_of(path)).notes
