"""An officer and the hospital's own sentences, on the command line of a real site: look, tick, explain, take out."""

import json

import pytest

from paroma.lab.processes import ProcessFailed


@pytest.fixture
def site(running):
    """`site("rules", "list")`: a command as the officer of Cleveland; what it says."""

    def run(*words):
        group = words[0] if words[0] == "policy" else "site"
        return json.loads(running.command(group, *words[group == "policy" :], "--profile", "cleveland", "--json"))

    return run


@pytest.mark.promise(3)
def test_a_rule_is_previewed_ticked_explained_and_taken_out(site, running):
    rule = ("only-organisations", "kinds=university")
    before = site("rules", "list")
    assert any(one["name"] == "never-kind" for one in before["sentences"])
    foreseen = site("rules", "preview", *rule, "--since", "24h")
    assert foreseen["decisions"] > 0
    assert {one["policy"] for one in foreseen["flips"]} == {"house-only-university"}
    assert "flip" in running.command("site", "rules", "preview", *rule, "--profile", "cleveland")
    ticked = site("rules", "add", *rule)
    try:
        assert ticked["version"] == before["version"] + 1
        assert ticked["policies"] == foreseen["policies"] == site("policy", "packs")["policies"]
        why = site("policy", "explain", foreseen["flips"][0]["decision"][:16])
        assert not why["allowed"]
        assert why["changes"] == [{"fact": "organisation_kind", "now": "unknown", "helps": "university"}]
        said = running.command("policy", "explain", foreseen["flips"][0]["decision"], "--profile", "cleveland")
        assert "unknown -> university" in said
        assert "forbid(principal" in said
    finally:
        site("rules", "remove", *rule)
    assert [one["rule"] for one in site("rules", "list")["rules"]] == [one["rule"] for one in before["rules"]]


def test_decisions_are_listed_with_the_ids_to_ask_for(site):
    found = site("policy", "decisions")["decisions"]
    assert {"SignPermit", "ReadPolicies", "Consider"} <= {one["action"] for one in found}


def test_a_rule_that_is_none_is_refused_with_what_is_asked_for(running):
    with pytest.raises(ProcessFailed) as failed:
        running.command("site", "rules", "add", "never-kind", "kind=blue", "--profile", "cleveland")
    assert "which kind of data" in failed.value.message


def test_a_hospital_that_ticked_a_rule_in_the_demo_has_it(running):
    said = json.loads(running.command("site", "rules", "list", "--profile", "zurich-basel", "--json"))
    assert [one["policy"] for one in said["rules"]] == ["house-no-product-development"]
