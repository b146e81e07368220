"""An officer's house rules and packs at a real site: previewed, ticked, in force from the next decision on, in the log."""

import msgspec
import pytest

from paroma.learn.algorithms.query import Statistics
from paroma.learn.sandbox.task import Ending, WorkerFailed

ME = "officer@va"
EVERYTHING = Statistics(features=("age",))


async def tick(town, *rules, remove=()):
    status, said = await town.someone(ME).ask(
        "POST", "/api/policies/house", {"add": list(rules), "remove": list(remove)}
    )
    assert status == 200, said
    return said


@pytest.mark.promise(3)
def test_a_new_house_rule_is_previewed_then_holds_from_the_next_decision_on(town):
    async def scene(town):
        officer = town.someone(ME)
        permit = await town.permit()
        await town.run(permit, EVERYTHING)
        since = town.clock.now() - 3600
        asked = {"since": since, "house": {"add": ["only-organisations kinds=university"], "remove": []}, "files": None}
        _, foreseen = await officer.ask("POST", "/api/policies/replay", asked)
        assert foreseen["decisions"] > 0
        assert {one["action"] for one in foreseen["flips"]} == {"Consider", "SignPermit", "TakePart"}
        assert all(one["allowed"] and one["policy"] == "house-only-university" for one in foreseen["flips"])
        size = len(town.site_log("va"))
        said = await tick(town, "only-organisations kinds=university")
        assert said["version"] == 1
        changed = [e for e in town.site_log("va")[size:] if e["kind"] == "policies-changed"]
        assert [(e["what"], e["name"], e["policies"]) for e in changed] == [
            ("rule-ticked", "only-organisations kinds=university", said["policies"])
        ]
        assert said["policies"] == foreseen["policies"]
        run = await town.run(permit, Statistics(features=("chol",)))
        assert run["status"] == "finished"  # three others are enough
        refused = [e for e in town.site_log("va")[size:] if e["kind"] == "refused" and e["action"] == "TakePart"]
        assert {e["policy"] for e in refused} == {"house-only-university"}
        assert {e["policies"] for e in refused} == {said["policies"]}
        status, why = await officer.ask("GET", f"/api/policies/decisions/{refused[0]['decision']}")
        assert status == 200
        assert why["changes"] == [{"fact": "organisation_kind", "now": "unknown", "helps": "university"}]
        assert "context.organisation_kind" in why["deciding"][0]["text"]
        await tick(town, remove=["only-organisations kinds=university"])
        again = await town.run(permit, Statistics(features=("age", "chol")))
        assert again["status"] == "finished"
        assert [e for e in town.site_log("va") if e["kind"] == "contribution-made"][-1]["run"] == again["run"]

    town.play(scene)


@pytest.mark.promise(3)
def test_an_application_against_the_house_never_reaches_the_officer(town, fed):
    async def scene(town):
        await tick(town, "nobody-from-country country=US")
        status, said = await town.someone("scientist@hub").ask(
            "POST", "/api/applications", msgspec.to_builtins(town.wish(country="US", organisation="Acme"))
        )
        assert status == 201, said

        async def refused():
            _, seen = await town.someone("scientist@hub").ask("GET", f"/api/applications/{said['permit']['id']}")
            return seen["refusals"] and seen["refusals"][0]["policy"] == "house-nobody-from-us"

        await fed.until(refused)

    town.play(scene)


def test_what_cannot_be_a_rule_is_refused_with_what_is_asked_for(town):
    async def scene(town):
        officer = town.someone(ME)
        size = len(town.site_log("va"))
        for rule in (
            "of-cards",
            "never-kind",
            'nobody-from-organisation organisation=" } || true',
            "",
            "epsilon-at-most epsilon=0",
        ):
            status, said = await officer.ask("POST", "/api/policies/house", {"add": [rule], "remove": []})
            assert (status, said["title"]) == (400, "RuleInvalid"), rule
            assert said["do"]
        status, said = await officer.ask("POST", "/api/policies/house", {"add": [], "remove": ["private-only"]})
        assert (status, said["title"]) == (400, "RuleInvalid")
        for body in (
            {"action": "TakePart"},
            {
                "action": "Nope",
                "principal": {"kind": "Hub", "id": "h"},
                "resource": {"kind": "Study", "id": "s"},
                "facts": {},
            },
        ):
            assert (await officer.ask("POST", "/api/policies/explain", body))[0] == 400
        assert not [e for e in town.site_log("va")[size:] if e["kind"] == "policies-changed"]

    town.play(scene, sites=("va",))


@pytest.mark.promise(3)
def test_a_pack_goes_on_trial_then_into_force(town):
    text = '@id("ours") @because("not on {hour}") @to_change("wait") @change("hour = 25")\nforbid(principal, action == Action::"TakePart", resource) when { context.hour < 24 };'
    files = {
        "pack.toml": 'name = "closed"\nversion = "1"\ntitle = "Closed"\nsays = "Never."\n',
        "policies.cedar": text,
        "tests.toml": '[[test]]\nsays = "closed"\naction = "TakePart"\ndecision = "refused"\npolicy = "ours"\n',
    }

    async def scene(town):
        officer, permit = town.someone(ME), await town.permit()
        status, said = await officer.ask("POST", "/api/policies/packs", {"files": files})
        assert (status, [one["state"] for one in said["packs"]][-1]) == (200, "trial")
        await town.run(permit, EVERYTHING)
        _, seen = await officer.ask("GET", "/api/policies/differences")
        assert {(one["action"], one["allowed"], one["policy"]) for one in seen["found"]} == {("TakePart", True, "ours")}
        assert [e for e in town.site_log("va") if e["kind"] == "contribution-made"]  # it decided nothing
        _, said = await officer.ask("POST", "/api/policies/packs/closed/activate", {})
        assert said["policies"] == seen["trial"]
        await town.run(permit, Statistics(features=("chol",)))
        assert [e for e in town.site_log("va") if e["kind"] == "refused"][-1]["policy"] == "ours"
        assert [e["what"] for e in town.site_log("va") if e["kind"] == "policies-changed"] == [
            "pack-on-trial",
            "pack-active",
        ]

    town.play(scene)


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    ("rule", "ending", "limit", "most"),
    [
        pytest.param("no-contribution-longer seconds=7", Ending.LATE, "seconds", 7.0, id="time"),
        pytest.param("no-contribution-longer seconds=7", Ending.CPU, "cpu_seconds", 7, id="processor"),
        pytest.param("no-contribution-larger mib=512", Ending.MEMORY, "memory_mib", 512, id="memory"),
    ],
)
def test_a_contribution_that_is_cut_says_so_with_what_was_done(town, rule, ending, limit, most):
    """The worker gets the limits of the decision; a cut one stands in the log, and the round goes on without it."""

    async def scene(town):
        site = town.sites["va"]
        permit = await town.permit()
        first = await town.run(permit, EVERYTHING)
        assert first["status"] == "finished"
        await tick(town, rule)
        asked = []

        class Cut:
            async def run(self, task):
                asked.append(task.limits)
                raise WorkerFailed(task.entry, ending)

        site.rounds._p.workers = Cut()
        run = await town.run(permit, Statistics(features=("chol",)))
        assert run["status"] == "finished"
        (given,) = {*asked}
        assert {"seconds": given.seconds, "cpu_seconds": given.cpu_seconds, "memory_mib": given.memory >> 20}[
            limit
        ] == most
        mine = [e for e in town.site_log("va") if e.get("run") == run["run"]]
        cut = [e for e in mine if e["kind"] == "cut-at-limit"]
        assert {(e["limit"], e["most"], e["answered"], e["run_sent"]) for e in cut} == {(limit, most, 0, 0)}
        assert [e["kind"] for e in mine].count("sat-out") == len(cut)
        allowed = [e for e in mine if e["kind"] == "allowed" and e["action"] == "TakePart"]
        assert allowed[0]["obliges"][limit] == most  # the obligation stands in the log beside the decision

    town.play(scene)
