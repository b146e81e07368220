"""A hub of a later release says more than this one knows: replies are read all the same, requests stay strict."""

import json

import msgspec
import pytest

from paroma.hub.api.people import Ending, OpenRun, Reason
from paroma.kernel import canonical
from paroma.kernel.errors import BadInput
from paroma.learn.algorithms.query import Described, Fitted, Judged, Spent, Summary
from paroma.learn.runs.report import Happened, Progress, Proof, RunReport, SiteSeen
from paroma.sdk.connection import Held, LogKeys, Member
from paroma.sdk.officer import Ended, Erased, Requested, Withdrawal
from paroma.trust.identity.clients import TokenReply, read_reply
from paroma.trust.permit.permit import Permit
from paroma.trust.permit.wish import SiteRefusal, Standing, Wish

READ = (
    RunReport, Progress, SiteSeen, Proof, Happened, Summary, Described, Fitted, Judged, Spent, Standing, SiteRefusal,
    TokenReply, Member, Held, LogKeys, Requested, Ended, Erased, Withdrawal,
)  # fmt: skip
ASKED = (Wish, OpenRun, Reason, Ending, Permit)


@pytest.mark.parametrize("kind", READ, ids=lambda kind: kind.__name__)
def test_a_reply_with_a_field_more_is_read(kind):
    assert not kind.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize("kind", ASKED, ids=lambda kind: kind.__name__)
def test_what_is_asked_or_signed_has_no_field_that_is_not_known(kind):
    assert kind.__struct_config__.forbid_unknown_fields


def test_a_whole_report_of_a_newer_hub_is_read():
    report = RunReport(
        run="run-1", permit="permit-1", study="study-1", title="Hearts", algorithm="logistic", query="num ~ age",
        status="finished", reason="", opened=1.0, ended=2.0, revision=3, step=1, steps=1, measure="mean log loss",
        progress=(Progress(step=1, at=1.5, value=0.5),),
        result=None,
        numbers=3, private=False, epsilon=None, delta=None, most_epsilon=None, least_owners=3,
        sites=(SiteSeen(title="Basel", online=True),), story=(Happened(what="opened", at=1.0, entry=4),),
        proof=Proof(first=4, last=9, cosigned=3),
    )  # fmt: skip
    said = json.loads(msgspec.json.encode(report))
    for part in (said, said["progress"][0], said["sites"][0], said["story"][0], said["proof"]):
        part["since_1_4"] = {"more": [1, 2]}
    assert msgspec.json.decode(json.dumps(said).encode(), type=RunReport) == report


def test_a_token_of_a_newer_hub_is_read():
    assert read_reply(b'{"access_token":"t","token_type":"DPoP","expires_in":60,"refresh":"x"}').access_token == "t"


def test_a_wish_with_an_unknown_field_is_refused():
    with pytest.raises(BadInput, match="unknown field"):
        canonical.decode_as(b'{"title":"x","colour":"red"}', Wish)
