"""The published Cedar cases go through our engine: schema always, errors refuse, slices leave nothing out."""

import json

import cedarpy
import pytest

from paroma.trust.policy import engine

pytestmark = [pytest.mark.data, pytest.mark.promise(3)]


@pytest.fixture(scope="module")
def cases():
    import os
    from pathlib import Path

    root = Path(os.environ["PAROMA_DATA"]) / "vectors" / "cedar"
    files = [
        *sorted(root.glob("tests/*/*.json")),
        *sorted(f for f in root.glob("corpus-tests/*.json") if not f.name.endswith(".entities.json")),
    ]
    found = []
    for file in files:
        case = json.loads(file.read_text())
        policies, schema = ((root / case[key]).read_text() for key in ("policies", "schema"))
        found.append((file.name, case, policies, engine.read_schema(schema), (root / case["entities"]).read_text()))
    return found


def test_every_published_decision_comes_out_and_slicing_changes_none(cases):
    decided = 0
    for name, case, text, schema, entities in cases:
        rules = engine.read_rules(text, named=False)
        whole, held = engine.handle(rules), cedarpy.Entities.from_json_str(entities, schema)
        for request in case["requests"]:
            asked = {key: request[key] for key in ("principal", "action", "resource", "context")}
            three = [(request[part]["type"], request[part]["id"]) for part in ("principal", "action", "resource")]
            kept = [rule for rule in rules if engine.concerns(rule, *three)]
            assert {rule.id for rule in rules if rule.effect == "forbid"} <= {rule.id for rule in kept}
            for policies in (whole, engine.handle(kept)):
                answer = engine.answer(asked, policies, held, schema)
                assert answer.allowed is (request["decision"] == "allow"), (name, request["description"])
                assert list(answer.decided) == sorted(request["reason"]), (name, request["description"])
                assert bool(answer.errors) is bool(request["errors"]) or policies is not whole
            decided += 1
    assert decided == 794


def test_every_published_validation_comes_out(cases):
    for _, case, text, schema, _ in cases:
        if case["shouldValidate"]:
            engine.check_rules(text, schema)
        else:
            with pytest.raises(engine.PolicyInvalid, match="does not fit"):
                engine.check_rules(text, schema)
    assert len(cases) == 112
