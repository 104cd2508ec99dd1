"""Lost if these fail: values that do what they say, and are refused with a helpful message where they cannot."""

import copy
import itertools
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from pydantic import BaseModel

from exporter.config import load
from exporter.config.settings import Account, Api, ChosenLocks, OAuth, Settings, Sync
from helm.refresh import CHART, documented

from .release import CI, HOME, Values, chart, release, values_of

DEFAULTS = (CHART / "values.yaml").read_text("utf-8")
DOCUMENTED = {name: default for name, default, _ in documented(DEFAULTS)}


def leaf(values: Values, name: str) -> Any:
    """The value of that name; KeyError where it is not given."""
    part: Any = values
    for step in name.split("."):
        part = part[step]
    return part


def without(values: Values, name: str) -> dict[str, Any]:
    """The values as they are when that one is not given."""
    left = copy.deepcopy(dict(values))
    *above, last = name.split(".")
    part: Any = left
    for step in above:
        part = part[step]
    del part[last]
    return left


def given(value: Any, name: str) -> dict[str, Any]:
    """Values in which only that one is given."""
    for step in reversed(name.split(".")):
        value = {step: value}
    return dict(value)


def outcome(values: Values) -> object:
    try:
        return chart().render(dict(values))
    except helm_python.HelmRenderError as error:
        return str(error)


# What they do


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_value_is_tried_out_and_changes_something(name: str) -> None:
    tried = []
    for path in CI:
        values = values_of(path)
        try:
            if leaf(values, name) != DOCUMENTED[name]:
                tried.append(values)
        except KeyError:
            continue
    assert tried, f"no file in ci/ sets {name}"
    assert any(outcome(values) != outcome(without(values, name)) for values in tried)


def test_each_of_the_keys_is_an_account_where_no_other_is_named() -> None:
    made = release({"keys": {"home": "a", "hotel": "b"}})
    assert yaml.safe_load(made.config)["accounts"] == [
        {"name": "home", "personal_key_file": "/etc/tedee-exporter/keys/home"},
        {"name": "hotel", "personal_key_file": "/etc/tedee-exporter/keys/hotel"},
    ]


def test_an_account_has_the_key_of_its_name_unless_it_names_another_credential() -> None:
    oauth = {"client_id": "c", "refresh_token_file": "/somewhere/else"}
    accounts = [{"name": "home"}, {"name": "hotel", "access_token_file": "/token"}, {"name": "guests", "oauth": oauth}]
    made = release({"keys": {"home": "a"}, "config": {"accounts": accounts}})
    with_key = {"name": "home", "personal_key_file": "/etc/tedee-exporter/keys/home"}
    assert yaml.safe_load(made.config)["accounts"] == [with_key, *accounts[1:]]


def test_numbers_and_texts_arrive_as_they_are(tmp_path: Path) -> None:
    # Helm is known to write 1e+06 for a million, and YAML to read a number where a text was meant.
    names = ["101", "1e6", "0x1f", "yes", "null", "2026-01-01", "12:30", "1_000", "~", "=", "a: b", "# no", "ä ż"]
    locks = {"ids": [1000000, 9007199254740991]}
    accounts = [{"name": name, "personal_key_file": f"/{at}", "locks": locks} for at, name in enumerate(names)]
    values: Values = {"config": {"accounts": accounts, "api": {"version": "v1.36"}}}
    file = tmp_path / "tedee-exporter.yml"
    file.write_text(release(values).config, "utf-8")
    settings = load(file)
    assert [account.name for account in settings.accounts] == names
    assert {account.locks.ids for account in settings.accounts if account.locks} == {tuple(locks["ids"])}


def test_limits_are_replaced_alerts_left_out_and_groups_added() -> None:
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


@pytest.mark.parametrize(("storage_class", "expected"), [("", None), ("-", ""), ("fast", "fast")])
def test_a_claim_has_the_clusters_storage_class_or_none_or_the_one_that_is_named(
    storage_class: str, expected: str | None
) -> None:
    made = release({**HOME, "persistence": {"enabled": True, "storageClass": storage_class}})
    assert made.one("PersistentVolumeClaim")["spec"].get("storageClassName") == expected


def test_nobody_but_the_exporter_and_what_it_needs_is_made_unasked() -> None:
    kinds = [each["kind"] for each in release().objects]
    assert sorted(kinds) == ["ConfigMap", "Deployment", "Secret", "Service", "ServiceAccount"]


def test_it_can_be_a_part_of_another_chart(tmp_path: Path) -> None:
    part = {"name": "tedee-exporter", "version": chart().version, "condition": "tedee-exporter.enabled"}
    (tmp_path / "Chart.yaml").write_text(
        yaml.safe_dump({"apiVersion": "v2", "name": "house", "version": "1.0.0", "dependencies": [part]})
    )
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "NOTES.txt").touch()
    chart().save_dir(tmp_path / "charts")
    values = {"global": {"imageRegistry": "r"}, "tedee-exporter": {"enabled": True, **HOME}}
    made = release(values, name="house", path=tmp_path)
    assert made.one("Deployment")["metadata"]["name"] == "house-tedee-exporter"


# What is refused


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_misspelt_value_is_refused_by_name(name: str) -> None:
    misspelt = given(DOCUMENTED[name], f"{name}s")
    with pytest.raises(helm_python.HelmValuesError, match=f"{name.rpartition('.')[2]}s"):
        release({**HOME, **misspelt})


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_value_of_another_type_is_refused(name: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=name.replace(".", "/")):
        release({**HOME, **given(7.5, name)})


def test_the_state_has_a_file_since_the_pod_has_no_home() -> None:
    with pytest.raises(helm_python.HelmValuesError, match="state_file"):
        release({**HOME, "config": {"state_file": None}})


@pytest.mark.parametrize(
    ("place", "section"),
    [
        ("", Settings),
        ("api", Api),
        ("sync", Sync),
        ("accounts.items", Account),
        ("accounts.items.oauth", OAuth),
        ("accounts.items.locks", ChosenLocks),
    ],
)
def test_the_configuration_may_have_what_the_exporter_knows_and_nothing_else(
    place: str, section: type[BaseModel]
) -> None:
    schema: Any = chart().schema
    for step in ["config", *place.split(".")] if place else ["config"]:
        schema = schema["items"] if step == "items" else schema["properties"][step]
    assert set(schema["properties"]) == set(section.model_fields)
    assert schema["additionalProperties"] is False


GROUPS = yaml.safe_load((CHART / "files" / "tedee.rules.yml").read_text("utf-8"))["groups"]
KNOWN = {
    "{limits}": ", ".join(rule["record"] for rule in GROUPS[0]["rules"]),
    "{alerts}": ", ".join(sorted({rule["alert"] for group in GROUPS for rule in group["rules"] if "alert" in rule})),
}
REFUSED = yaml.safe_load(Path(__file__).with_name("refused.yml").read_text("utf-8"))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["message"][:40])
def test_what_goes_not_together_is_refused_with_what_to_do(case: dict[str, Any]) -> None:
    with pytest.raises(helm_python.HelmRenderError) as refused:
        release(case["values"])
    message = case["message"]
    for name, known in KNOWN.items():
        message = message.replace(name, known)
    assert str(refused.value).strip().splitlines()[1:] == [message]


def test_all_problems_are_told_at_once() -> None:
    monitors = {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}
    with pytest.raises(helm_python.HelmRenderError) as refused:
        release({"webConfig": {"tls": True}, **monitors})
    assert len(str(refused.value).strip().splitlines()) == 1 + 3


# What is said afterwards


@pytest.mark.parametrize("path", CI, ids=lambda path: path.name)
def test_the_notes_name_what_there_is(path: Path) -> None:
    values = values_of(path)
    made = release(values)
    assert f"deployment/{made.one('Deployment')['metadata']['name']}" in made.notes
    port = made.one("Service")["spec"]["ports"][0]["port"]
    assert f"service/{made.one('Service')['metadata']['name']} 10333:{port}" in made.notes
    monitors = made.all("ServiceMonitor") + made.all("PodMonitor")
    assert ("Nobody scrapes it yet" in made.notes) == (not monitors)
    scheme = made.container["livenessProbe"].get("httpGet", {"scheme": "HTTPS"})["scheme"].lower()
    assert f"open {scheme}://localhost:10333/" in made.notes
    for other in {"keys", "existingSecret"} & values.keys():
        name = values["existingSecret"] if other == "existingSecret" else made.one("Deployment")["metadata"]["name"]
        assert f" Secret {name}" in made.notes
    numbers = [line.split(".")[0] for line in made.notes.splitlines() if line[:1].isdigit()]
    assert numbers == [str(number) for number, _ in zip(itertools.count(1), numbers)]


def test_the_notes_name_the_accounts_and_say_how_to_get_a_key() -> None:
    assert "\n  - home\n" in release().notes
    assert "https://portal.tedee.com" in release({"demo": True}).notes
