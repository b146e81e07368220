"""Joining, tokens, and what a proof is good for."""

import pytest

from paroma.kernel.errors import BadInput, ParomaError
from paroma.kernel.wire.network import HttpRequest
from paroma.trust.channel.messages import EXCHANGE_PATH


@pytest.mark.promise(5)
def test_joining_again_with_the_same_folder_changes_nothing(town, fed):
    async def scene(town):
        line = await town.invitation()
        (town.folder / "fifth").mkdir(mode=0o700)
        first = await town.join(line, "fifth")
        size = len(town.hub_log())
        again = await town.join(line, "fifth")
        assert (first.again, again.again) == (False, True)
        assert first.site == again.site
        assert len(town.hub_log()) == size

    town.play(scene, sites=())


@pytest.mark.promise(3)
def test_an_invitation_lets_one_site_join_and_not_a_second(town):
    async def scene(town):
        line = await town.invitation()
        await town.join(line, "fifth")
        with pytest.raises(ParomaError) as refused:
            await town.join(line, "sixth")
        assert refused.value.do
        assert not (town.folder / "sixth" / "member.json").exists()
        assert sum(e["kind"] == "member-joined" for e in town.hub_log()) == len(town.members) + 1

    town.play(scene, sites=())


@pytest.mark.promise(3)
@pytest.mark.parametrize("spoil", ["code", "expired", "fingerprint"])
def test_a_wrong_invitation_is_refused_and_leaves_no_member(town, spoil):
    async def scene(town):
        line = await town.invitation()
        if spoil == "expired":
            town.clock.ahead += 400 * 86400
        else:
            at = len(line) - 3 if spoil == "code" else len(line) // 2
            line = line[:at] + ("A" if line[at] != "A" else "B") + line[at + 1 :]
        before = len([e for e in town.hub_log() if e["kind"] == "member-joined"])
        with pytest.raises(ParomaError) as refused:
            await town.join(line, "fifth")
        assert refused.value.do
        assert len([e for e in town.hub_log() if e["kind"] == "member-joined"]) == before
        assert not (town.folder / "fifth" / "member.json").exists()

    town.play(scene, sites=())


@pytest.mark.promise(3)
def test_a_request_that_is_sent_again_is_refused_also_after_a_restart_of_the_hub(town):
    async def scene(town):
        auditor = town.someone("auditor@hub")
        town.wires.seen.clear()
        assert (await auditor.ask("GET", "/api/members"))[0] == 200
        request = next(r for r in reversed(town.wires.seen) if r.url.endswith("/api/members"))
        again = await town.wires.send(request)
        assert again.status == 401
        await town.stop_hub()
        await town.start_hub()
        assert (await town.wires.send(request)).status == 401

    town.play(scene, sites=())


@pytest.mark.promise(3)
@pytest.mark.parametrize("spoil", ["none", "no-proof", "other-path", "other-token", "two-proofs"])
def test_a_token_without_its_proof_opens_nothing(town, spoil):
    async def scene(town):
        auditor = town.someone("auditor@hub")
        await auditor.ask("GET", "/api/members")
        request = next(r for r in reversed(town.wires.seen) if r.url.endswith("/api/members"))
        headers = list(request.headers)
        url = request.url
        match spoil:
            case "none":
                headers = []
            case "no-proof":
                headers = [(n, v) for n, v in headers if n.lower() != "dpop"]
            case "other-path":
                url = url.replace("/api/members", "/api/runs")
            case "other-token":
                headers = [(n, v[:-4] + "AAAA" if n.lower() == "authorization" else v) for n, v in headers]
            case _:
                headers += [(n, v) for n, v in headers if n.lower() == "dpop"]
        sent = HttpRequest(method="GET", url=url, headers=tuple(headers), body=b"", timeout=10.0)
        reply = await town.wires.send(sent)
        assert reply.status in {401, 403}
        assert b"Cleveland" not in reply.body

    town.play(scene, sites=())


@pytest.mark.promise(3)
def test_the_line_is_for_sites_and_the_rest_is_for_people(town):
    async def scene(town):
        scientist = town.someone("scientist@hub")
        status, _ = await scientist.ask("POST", EXCHANGE_PATH, b"")
        assert status == 403
        site = town.sites["cleveland"]
        reply = await site.caller.call("GET", "/api/members", wait=10.0)
        assert reply.status == 403

    town.play(scene, sites=("cleveland",))


@pytest.mark.promise(3)
@pytest.mark.parametrize(
    "body", [b"", b"\x00" * 64, b"\x81" * 5000, b"\xdf\xff\xff\xff\xff", b"\xcb\x7f\xf8" + bytes(6)]
)
def test_what_cannot_be_read_on_the_line_is_refused(town, body):
    async def scene(town):
        caller = town.sites["cleveland"].caller
        reply = await caller.call("POST", EXCHANGE_PATH, body, wait=10.0)
        assert reply.status == 400

    town.play(scene, sites=("cleveland",))


def test_a_title_with_quotes_is_a_title_with_quotes(tmp_path):
    from paroma.site.settings import FILE, SiteSettings, load as load_settings, to_toml

    title = 'The "old" hospital \\ ward 3 é'
    (tmp_path / FILE).write_text(to_toml(SiteSettings(folder=tmp_path, title=title)))
    assert load_settings(tmp_path).title == title
    with pytest.raises(BadInput):
        SiteSettings(folder=tmp_path, title="x", replicas=("one",))


def test_nobody_else_on_the_machine_can_read_what_programs_write(town):
    async def scene(town):
        assert town.sites

    town.play(scene, sites=("cleveland",))
    for folder in ("cleveland", "hub"):
        readable = [
            p
            for p in (town.folder / folder).rglob("*")
            if p.is_file() and p.stat().st_mode & 0o077 and p.suffix != ".pem"
        ]
        assert readable == []
