import asyncio

import pytest

import paroma
from paroma.kernel.errors import BadInput, Refused
from paroma.sdk.background import ConnectionClosed
from paroma.sdk.connection import StudyUnknown
from paroma.sdk.run import StillRunning
from paroma.sdk.study import NoPermit, NotGranted, privacy

WISH = {
    "purpose": "scientific-research",
    "data_set": "heart",
    "features": ["age", "num"],
    "algorithms": ["statistics", "logistic"],
    "benefit": "Doctors see earlier who needs help.",
}


@pytest.fixture
def study(hub, here):
    return here.apply("Heart", **WISH).wait()


def test_an_application_names_the_data_set_by_its_id_and_waits_for_the_officers(hub, here, asked):
    study = here.apply("Heart", **WISH)
    assert study.state == "submitted"
    assert asked(hub, "/api/applications")["data_set"] == hub.data_set.id
    assert study.wait().state == "valid"


def test_a_refusal_names_the_hospital_the_rule_and_what_would_pass(here):
    with pytest.raises(NotGranted, match="Basel refuses: marketing is forbidden") as refused:
        here.apply("Adverts", **WISH | {"purpose": "marketing"}).wait()
    assert refused.value.do == "choose another"


def test_a_regression_in_four_lines(hub, here, study, asked):
    summary = here.study("Heart").logistic("num > 0 ~ age", ridge=1, steps=3).summary()
    assert "P>|z|" in summary
    assert asked(hub, "/api/runs") == {
        "permit": "permit-0",
        "query": {
            "type": "logistic", "outcome": {"feature": "num", "above": 0.0}, "features": ["age"], "ridge": 1, "steps": 3,
            "rows": None,
        },
    }  # fmt: skip


def test_progress_comes_round_by_round_and_each_round_once(study):
    assert [one.step for one in study.logistic("num ~ age")] == [1, 2, 3]


def test_a_broken_line_does_not_end_the_waiting(hub, study):
    run = study.logistic("num ~ age")
    hub.breaks = 2
    assert run.wait().fitted.converged


def test_waiting_may_end_before_the_run(study):
    run = study.logistic("num ~ age")
    with pytest.raises(StillRunning, match="has not ended"):
        run.wait(seconds=0)


def test_statistics_take_names_with_commas_or_plus(hub, study, asked):
    study.statistics("age, num").wait()
    assert asked(hub, "/api/runs")["query"]["features"] == ["age", "num"]
    with pytest.raises(BadInput, match="no feature is named"):
        study.statistics(" , ")


def test_a_fitted_model_is_judged_by_its_scaled_coefficients(hub, study, asked, fitted):
    run = study.logistic("num ~ age")
    assert study.evaluate(run, "num ~ age").wait().judged.accuracy == 0.8
    assert asked(hub, "/api/runs")["query"]["coefficients"] == list(fitted.scaled)


def test_what_no_permit_allows_is_not_asked(hub, here):
    study = here.apply("Heart", **WISH)
    with pytest.raises(NoPermit) as refused:
        study.statistics("age")
    assert "Basel" in refused.value.do
    assert not hub.reports


def test_an_unknown_study_or_data_set_lists_those_that_are_there(here, study):
    with pytest.raises(StudyUnknown) as unknown:
        here.study("Lungs")
    assert "`Heart`" in unknown.value.do
    with pytest.raises(BadInput, match="no data set `lungs`") as unknown:
        here.data_set("lungs")
    assert "`heart`" in unknown.value.do


def test_an_id_cannot_smuggle_another_address(here):
    with pytest.raises(BadInput, match="is no id"):
        here.run("../people/enrol")


@pytest.mark.promise(3)
def test_every_request_carries_a_fresh_proof_and_the_nonce(hub, here):
    here.data_sets()
    here.data_sets()
    proofs = [dict(r.headers)["DPoP"] for r in hub.requests]
    assert len(set(proofs)) == len(proofs)


@pytest.mark.promise(3)
def test_who_is_not_known_is_not_let_in(hub, here):
    hub.clients.clear()
    with pytest.raises(Refused):
        here.data_sets()


def test_calls_work_inside_a_running_loop_as_a_notebook_has_it(here):
    async def cell():
        return here.data_sets()

    assert asyncio.run(cell())[0].data_set.name == "heart"


def test_a_closed_connection_says_so(here):
    here.close()
    with pytest.raises(ConnectionClosed):
        here.data_sets()


def test_a_page_opens_by_a_link(here):
    assert here.link("/runs/run-0") == "https://hub.example:8443/open/CODE?to=/runs/run-0"


def test_a_budget_becomes_the_noise_that_it_needs():
    tight, loose = privacy(1.0, questions=10), privacy(3.0, questions=10)
    assert tight.noise_multiplier > loose.noise_multiplier > 0


def test_connect_is_found_lazily():
    assert callable(paroma.connect)
    with pytest.raises(AttributeError):
        _ = paroma.nothing
