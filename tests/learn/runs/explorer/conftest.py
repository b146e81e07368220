"""An explorer of one masked question: the real `runs/site.py`, symbols in place of numbers, a hub that does whatever it likes.

Honest sites run the real machine behind a driver that keeps state and effects as the programs do. The hub, with up to c colluding
sites, may send any proposal or complete set that it can put together, to anyone, at any time, again and again; patients withdraw,
sites crash, move on. Breadth first over every interleaving, up to renaming of honest sites. What a site does depends on its own state and
the message only, so each such step is run once and remembered.

Knowledge (the worst that follows): upload of i is x_i + PRG(b_i) +- PRG(s_ij) for all j. b_j opens with t shares, those of colluders
included; s_ij when an end answers with it or colludes, or t shares of it are out. A combination of the x opens iff b_i is known where it
is not zero, and its coefficients agree wherever s_ij is unknown: it is spanned by the connected components of "seed unknown".
"""

import hashlib
import itertools
import time
from collections import deque
from typing import NamedTuple

import pytest

from paroma.kernel.errors import Refused
from paroma.kernel.ids import RunId, SiteId
from paroma.learn.runs import site
from paroma.learn.runs.messages import (
    AllKeys,
    Box,
    Complete,
    Member,
    OpenAttempt,
    Opening,
    Participant,
    Proposal,
    Ready,
    Signed,
    SignedKeys,
    entry_bytes,
    sha256,
    upload_hash,
    vote_statement,
)
from paroma.learn.secagg.agreement import EphemeralKeys
from paroma.learn.secagg.shamir import SHARE_BYTES, threshold

FORM_BITS, NAME_BITS = 20, 12  # of the numbers that stand for a renamed site, and for a move
CLEAN, TAINTED = 1, 2  # versions of a contribution: with the patient, made when nobody had withdrawn; and without her


class Symbols:
    """Perfect cryptography: a signature is a name, a box is what it holds, a share knows its secret."""

    shares: dict = {}  # noqa: RUF012  # share -> (secret, x)

    def __init__(self, me):
        self.me = me

    def now(self):
        return 0.0

    def thumbprint(self, name):
        return f"key of {name}"

    def sign(self, data):
        return self.me.encode() + b" says " + hashlib.sha256(data).digest()

    def verify(self, name, data, signature):
        return signature == Symbols(name).sign(data)

    def commit(self, label, entry, secret):
        return hashlib.sha256(label.encode() + entry.encode() + secret).digest()

    def self_seed(self, root, entry):
        return b"b|" + root + b"|" + entry.encode()

    def pair_seed(self, secret, entry):
        return b"s|" + secret + b"|" + entry.encode()

    def split(self, secret, *, n, t, root, entry, what):
        out = []
        for x in range(1, n + 1):
            share = hashlib.sha256(b"%b|%b|%d|%b" % (secret, root, x, what.encode())).digest() + b"."
            assert len(share) == SHARE_BYTES
            Symbols.shares[share] = (secret, x, what)
            out.append(share)
        return tuple(out)

    def seal(self, secret, plaintext, **bound):
        return repr((secret, sorted(bound.items()))).encode() + b"//" + plaintext

    def open_box(self, secret, box, **bound):
        head = repr((secret, sorted(bound.items()))).encode() + b"//"
        if not box.startswith(head):
            raise Refused("another box", do="send the right one")
        return box[len(head) :]


class Local(NamedTuple):
    """An honest site: what is on its disk, whether its patient has withdrawn, what it has computed, and what has left it."""

    state: site.SiteState
    withdrawn: bool
    version: int
    facts: frozenset
    spare: object = None  # what a planted bug remembers


class Honest:
    """The driver as the programs have it: write the state, then let the effects out. Planted bugs derive from it."""

    def __init__(self, model):
        self.model = model

    def clean(self, at):
        return not (at.withdrawn and at.version == CLEAN)

    def outcomes(self, at, event):
        """What may be on disk, and out, after `event`."""
        after, effects = site.step(at.state, event, self.model.crypto[at.state.me], lambda: self.clean(at))
        return [self.model.out(at, after, effects)]

    def extra(self, at):
        """Moves of its own: (name, Local)."""
        return ()

    def spare_key(self, spare, tab):
        return spare


class Model:
    def __init__(self, n, c, m, *, attempts=1, withdrawals=1, forged=False, receipts=True, driver=Honest):
        self.n, self.c, self.h, self.m, self.t = n, c, n - c, m, threshold(n)
        self.attempts, self.withdrawals, self.forged, self.receipts = attempts, withdrawals, forged, receipts
        self.names = [SiteId("ABCDEFGH"[i]) for i in range(n)]
        self.place = {name: i for i, name in enumerate(self.names)}
        self.crypto = {name: Symbols(name) for name in self.names}
        self.participants = tuple(Participant(site=s, owner=f"owner of {s}", key=f"key of {s}") for s in self.names)
        self.entries, self.E = [], []
        for attempt in range(1, attempts + 1):
            opening = Opening(
                run=RunId("run"), step=1, attempt=attempt, permit="permit", request=sha256(b"model"), transcript="transcript",
                participants=self.participants, t=self.t, m=m, c=c, least=max(self.t, m + c), at=0.0,
            )  # fmt: skip
            self.entries.append(entry_bytes(opening))
            self.E.append(sha256(self.entries[-1]))
        self.uploads, self.votes = {}, {}  # (i, a, version) -> Uploaded; (i, members) -> Vote
        self.driver = driver(self)
        self.ids, self.locals, self.steps, self.told, self.move_names = {}, [], {}, {}, {}
        self.views, self.numbers, self.view_of, self.parts = {}, {}, [], {}
        self.renamed, self.forms, self.judged = {}, {}, {}
        self.perms = list(itertools.permutations(range(self.h)))
        self.tabs = [self._tab(p) for p in self.perms]
        self.orders = [sorted(range(self.h), key=p.__getitem__) for p in self.perms]

    # --- the sites

    def start(self):
        return tuple(self._first(i) for i in range(self.h))

    def _pair(self, i, j):
        return "".join(sorted((self.names[i], self.names[j]))).encode()

    def _first(self, i):
        me = self.names[i]
        keys = SignedKeys(run=RunId("run"), site=me, x25519=b"", kem=b"", signature=b"")
        state = site.SiteState(
            run=RunId("run"),
            me=me,
            terms=site.Terms(
                permit="permit", m=self.m, c=self.c, attempts=self.attempts, questions=1, participants=self.participants
            ),
            revision=1,
            secrets=site.Secrets(
                keys=EphemeralKeys(x25519_private=b"", kem_private=b"", x25519=b"", kem=b""),
                root=me.encode(),
                pairs=tuple(site.Pair(site=self.names[j], secret=self._pair(i, j)) for j in range(self.n) if j != i),
            ),
            keys=keys,
            everybody=AllKeys(run=RunId("run"), keys=()),
            transcript="transcript",
            ready=Ready(run=RunId("run"), site=me, transcript="transcript"),
        )
        # an upload blocks nothing and adds knowledge, so states where all have uploaded at once include all others
        opened = OpenAttempt(entry=self.entries[0], request=b"model", checkpoint="")
        (at,) = Honest(self).outcomes(Local(state, withdrawn=False, version=0, facts=frozenset()), opened)
        return self.intern(at)

    def enter(self, at, a):
        """The hub opens attempt a, and the site computes."""
        return self.driver.outcomes(at, OpenAttempt(entry=self.entries[a], request=b"model", checkpoint=""))

    def out(self, at, after, effects):
        """Write `after`, then let the effects out. A contribution that is asked for is computed on the spot."""
        facts = set(at.facts)
        for effect in effects:
            match effect:
                case site.Compute():
                    version = TAINTED if at.withdrawn else CLEAN
                    body = sha256(f"{at.state.me} {version}".encode())
                    done = site.Computed(entry=effect.entry, masked=body, size=1, inline=None, budget="")
                    computing = Local(after, at.withdrawn, version, frozenset(facts), at.spare)
                    again, more = site.step(after, done, self.crypto[at.state.me], lambda: True)
                    return self.out(computing, again, more)
                case site.Send():
                    facts |= self._sent(at, effect.message)
                case site.Counted():
                    facts.add(("counted", effect.attempt - 1))
                case site.NotCounted():
                    facts.add(("not counted", effect.attempt - 1))
        return Local(after, at.withdrawn, at.version, frozenset(facts), at.spare)

    def _sent(self, at, message):
        i = self.place[at.state.me]
        kind = type(message).__name__
        if kind == "Uploaded":
            a = self.E.index(message.core.entry)
            version = next(v for v in (CLEAN, TAINTED) if message.core.masked == sha256(f"{at.state.me} {v}".encode()))
            self.uploads[i, a, version] = message
            return {("up", a, version)}
        if kind == "SitsOut":
            return set()
        a = self.E.index(message.entry)
        if kind == "Decline":
            return {("decline", a)}
        U = self._mask(a, message.members)
        if kind == "Vote":
            assert self.votes.setdefault((i, message.members), message) == message, "a vote is never made in two forms"
            first = not any(f[0] == "fv" and f[1] == a for f in at.facts)
            tainted = at.withdrawn and at.version == CLEAN
            return {("vote", a, U)} | ({("fv", a, tainted)} if first else set())
        assert kind == "Answer"
        shares = 0
        for one in message.shares:
            secret, x, _what = Symbols.shares[one.share]
            assert (secret, x) == (Symbols("").self_seed(one.site.encode(), message.entry), i + 1)
            shares |= 1 << self.place[one.site]
        seeds = 0
        for one in message.seeds:
            assert one.seed == Symbols("").pair_seed(self._pair(i, self.place[one.site]), message.entry)
            seeds |= 1 << self.place[one.site]
        pairs = set()
        for one in message.pair_shares:
            k, d = self.place[one.member], self.place[one.outside]
            secret, x, _ = Symbols.shares[one.share]
            assert (secret, x) == (Symbols("").pair_seed(self._pair(k, d), message.entry), i + 1)
            pairs.add((k, d))
        return {("answer", a, U, shares, seeds, frozenset(pairs))}

    # --- sets

    def _mask(self, a, members):
        U = sum(1 << self.place[one.site] for one in members)
        return U | (1 << self.n if any(one.upload == "forged" for one in members) else 0)

    def members(self, versions, a, U, me):
        """Members with the hashes of what they uploaded; None where a hash is not known. Forged: another hash for all but `me`."""
        forged, out = U >> self.n & 1, []
        for j in range(self.n):
            if not U >> j & 1:
                continue
            if j >= self.h:
                upload = "colluder's"
            elif forged and j != me:
                upload = "forged"
            else:
                version = versions[j]
                upload = "not uploaded" if not version else upload_hash(self.uploads[j, a, version].core)
            out.append(Member(site=self.names[j], upload=upload))
        return tuple(out)

    def _box(self, versions, j, i, a):
        """The share of b_j for i, as the hub holds it: from j's upload, or made by a colluder."""
        E, what = self.E[a], site.SELF
        if j >= self.h:
            mine = Symbols(self.names[j])
            root = self.names[j].encode()
            share = mine.split(mine.self_seed(root, E), n=self.n, t=self.t, root=root, entry=E, what=what)[i]
            sealed = mine.seal(
                self._pair(i, j), share, entry=E, sender=self.names[j], receiver=self.names[i], what=what
            )
            return Box(site=self.names[j], sealed=sealed)
        version = versions[j]
        if not version:
            return None
        return Box(site=self.names[j], sealed=self.uploads[j, a, version].boxes[i].sealed)

    # --- what the hub can send

    class View(NamedTuple):
        """What the hub sees that its messages are made of: versions uploaded by attempt and site, and who signed which set."""

        versions: tuple
        signed: tuple  # of (a, U, mask of honest signers)

    def view(self, state):
        """The number of what the hub sees."""
        parts = tuple(self._seen(x) for x in state)
        found = self.views.get(parts)
        if found is None:
            versions = tuple(tuple(ups[a] for ups, _ in parts) for a in range(self.attempts))
            signed = {}
            for j, (_, votes) in enumerate(parts):
                for a, U in votes:
                    signed[a, U] = signed.get((a, U), 0) | 1 << j
            view = Model.View(versions, tuple(sorted((a, U, s) for (a, U), s in signed.items())))
            found = self.views[parts] = self.numbers.setdefault(view, len(self.numbers))
            if found == len(self.view_of):
                self.view_of.append(view)
        return found

    def _seen(self, x):
        """What the hub sees of one site: the version that it uploaded in each attempt, and the sets that it signed."""
        found = self.parts.get(x)
        if found is None:
            facts = self.locals[x].facts
            ups = tuple(
                max((f[2] for f in facts if f[0] == "up" and f[1] == a), default=0) for a in range(self.attempts)
            )
            found = self.parts[x] = (ups, tuple(sorted((f[1], f[2]) for f in facts if f[0] == "vote")))
        return found

    def moves(self, state):
        """(number of the move's name, place, the site after it), each different after once."""
        view = self.view(state)
        withdrawn = sum(self.locals[x].withdrawn for x in state) < self.withdrawals
        for i in range(self.h):
            key = (state[i], view, withdrawn)
            found = self.steps.get(key)
            if found is None:
                found = self.steps[key] = self._local_moves(i, state[i], self.view_of[view], withdrawn)
            yield from found

    def _local_moves(self, i, x, view, may_withdraw):
        seen, out = {x}, []

        def add(outcomes):
            for name, y in outcomes:
                if y not in seen:
                    seen.add(y)
                    out.append((name, i, y))

        if may_withdraw and not self.locals[x].withdrawn:
            add(self._once(x, "withdraw", ()))
        add(self._once(x, "alone", ()))
        for a in range(self.attempts):
            for U in range(1, 1 << self.n):
                # what of the view is in a proposal: its members' versions; a set with an unknown upload is one that no site signs
                versions = tuple(view.versions[a][j] if U >> j & 1 else 0 for j in range(self.h))
                add(self._once(x, "propose", (i, a, U, versions)))
        # complete sets are sent as soon as anybody has signed: with too few signatures the machine must refuse them
        for a, U, signers in view.signed:
            if not U >> self.n:
                versions = tuple(view.versions[a][j] if U >> j & 1 else 0 for j in range(self.h))
                add(self._once(x, "complete", (i, a, U, versions, signers)))
        return tuple(out)

    def _once(self, x, what, about):
        """What the site comes to, by one message or by itself: run once, whatever else is seen in the federation."""
        found = self.told.get((x, what, about))
        if found is None:
            make = {
                "withdraw": self._withdraws,
                "alone": self._alone,
                "propose": self._proposed,
                "complete": self._completed,
            }
            made = [(self._name(name), self.intern(y)) for name, y in make[what](x, *about)]
            found = self.told[x, what, about] = tuple(made)
        return found

    def _withdraws(self, x):
        at = self.locals[x]._replace(withdrawn=True)
        return [(f"withdraw@{at.state.me}", y) for y in self.driver.outcomes(at, site.Withdrawn())]

    def _alone(self, x):
        at = self.locals[x]
        me, again = at.state.me, site.Restarted(anchored=at.state.revision)
        yield from ((f"restart@{me}", y) for y in self.driver.outcomes(at, again))
        yield from ((f"{name}@{me}", y) for name, y in self.driver.extra(at))
        for a in range(self.attempts):
            yield from ((f"open {a + 1}@{me}", y) for y in self.enter(at, a))

    def _proposed(self, x, i, a, U, versions):
        at, me = self.locals[x], self.names[i]
        boxes = tuple(box for j in range(self.n) if U >> j & 1 and (box := self._box(versions, j, i, a)))
        for V in (U, U | 1 << self.n) if self.forged else (U,):
            proposal = Proposal(entry=self.E[a], members=self.members(versions, a, V, i), boxes=boxes, checkpoint="")
            yield from ((f"propose {V:b} of {a + 1}@{me}", y) for y in self.driver.outcomes(at, proposal))

    def _completed(self, x, i, a, U, versions, signers):
        members, me = self.members(versions, a, U, i), self.names[i]
        core = vote_statement(self.E[a], members)
        signed = [j for j in range(self.h) if signers >> j & 1]
        signatures = [Signed(site=self.names[j], signature=self.votes[j, members].signature) for j in signed]
        signatures += [Signed(site=s, signature=Symbols(s).sign(core)) for s in self.names[self.h :]]
        boxes = tuple(box for j in range(self.n) if U >> j & 1 and (box := self._box(versions, j, i, a)))
        dealt = [(j, vote) for j in signed if (vote := self.votes[j, members]).boxes]
        pairs = tuple(Box(site=self.names[j], sealed=vote.boxes[i].sealed) for j, vote in dealt)
        complete = Complete(
            entry=self.E[a], members=members, signatures=tuple(signatures), boxes=boxes, pair_boxes=pairs
        )
        yield from ((f"complete {U:b} of {a + 1}@{me}", y) for y in self.driver.outcomes(self.locals[x], complete))

    def _name(self, text):
        assert len(self.move_names) < 1 << NAME_BITS
        return self.move_names.setdefault(text, len(self.move_names))

    # --- renaming

    def intern(self, at):
        x = self.ids.get(at)
        if x is None:
            x = self.ids[at] = len(self.locals)
            self.locals.append(at)
        return x

    def _tab(self, p):
        where = list(p) + list(range(self.h, self.n))
        full = range(1 << self.n)
        masks = [sum(1 << where[i] for i in range(self.n) if U >> i & 1) for U in full]
        return where, masks + [U | 1 << self.n for U in masks]

    def _renamed(self, x, q):
        """Everything about a site that its behaviour, or a property, depends on, with the names changed, as a number."""
        where, masks = self.tabs[q]
        at = self.locals[x]
        now, answer = at.state.attempt, at.state.answer
        facts = set()
        for f in at.facts:
            if f[0] == "vote":
                facts.add((f[0], f[1], masks[f[2]]))
            elif f[0] == "answer":
                pairs = tuple(sorted((where[k], where[d]) for k, d in f[5]))
                facts.add((f[0], f[1], masks[f[2]], masks[f[3]], masks[f[4]], pairs))
            else:
                facts.add(f)
        a = now.opening.attempt - 1
        disk = (
            a,
            now.upload is not None,
            tuple(masks[self._mask(a, v.members)] for v in now.votes),
            now.declined is not None,
            now.sits_out,
            now.left_out,
            None if answer is None else (self.E.index(answer.entry), masks[self._mask(a, answer.members)]),
            at.state.lost,
        )
        spare = self.driver.spare_key(at.spare, masks)
        found = (disk, at.withdrawn, at.version, tuple(sorted(facts, key=repr)), spare)
        return self.forms.setdefault(found, len(self.forms))

    def canonical(self, state):
        """One number for the state and all that differ from it in the names of the sites."""
        forms = [self._forms_of(x) for x in state]
        least = min(tuple(forms[i][q] for i in order) for q, order in enumerate(self.orders))
        key = 0
        for form in least:
            key = key << FORM_BITS | form
        return key

    def _forms_of(self, x):
        found = self.renamed.get(x)
        if found is None:
            found = self.renamed[x] = tuple(self._renamed(x, q) for q in range(len(self.perms)))
            assert len(self.forms) < 1 << FORM_BITS
        return found

    # --- knowledge and properties

    def opened(self, a, facts):
        """The components of honest sites whose sum opens in attempt a."""
        uploaded = [j for j in range(self.h) if any(f[0] == "up" and f[1] == a for f in facts[j])]
        holders, seeds = [set(range(self.h, self.n)) for _ in range(self.h)], set()
        dealt = {}
        for i in range(self.h):
            for f in facts[i]:
                if f[0] == "answer" and f[1] == a:
                    _, _, _, shares, with_whom, pairs = f
                    for j in range(self.h):
                        if shares >> j & 1:
                            holders[j].add(i)
                        if with_whom >> j & 1:
                            seeds.add(frozenset((i, j)))
                    for k, d in pairs:
                        dealt.setdefault((k, d), set()).add(i)
                if f[0] == "vote" and f[1] == a:  # colluders hold their shares of what the vote deals
                    for d in range(self.h):
                        if not f[2] >> d & 1:
                            dealt.setdefault((i, d), set()).update(range(self.h, self.n))
        seeds |= {frozenset(pair) for pair, who in dealt.items() if len(who) >= self.t}
        seen, out = set(), []
        for i in range(self.h):
            if i in seen:
                continue
            component, todo = {i}, [i]
            while todo:
                k = todo.pop()
                for j in range(self.h):
                    if j not in component and frozenset((k, j)) not in seeds:
                        component.add(j)
                        todo.append(j)
            seen |= component
            if all(j in uploaded and len(holders[j]) >= self.t for j in component):
                out.append(frozenset(component))
        return out

    def _plain(self, x):
        """Whether a site has answered nothing, and uploaded at most once in each attempt: then it breaks nothing by itself."""
        found = self.judged.get(x)
        if found is None:
            facts = self.locals[x].facts
            ups = [f[1] for f in facts if f[0] == "up"]
            found = self.judged[x] = len(ups) == len(set(ups)) and all(f[0] != "answer" for f in facts)
        return found

    def judge(self, state):
        """Which property this state breaks, or None, and whether a sum opens.

        Knowledge only grows, so the last state judges the past.
        """
        if all(map(self._plain, state)):
            return None, False
        facts = [self.locals[x].facts for x in state]
        for a, i in itertools.product(range(self.attempts), range(self.h)):
            if sum(f[0] == "up" and f[1] == a for f in facts[i]) > 1:
                return f"P2: two vectors of {self.names[i]} under the same masks", False
        opened = [self.opened(a, facts) for a in range(self.attempts)]
        return self._violation(state, facts, opened), any(opened)

    def _violation(self, state, facts, opened_in):
        open_in = []
        for a, opened in enumerate(opened_in):
            for C in opened:
                if len(C) == 1:
                    return f"P2: the contribution of {self._say(C)} opens alone"
                if len(C) < self.m:
                    return f"P1: the sum over {self._say(C)} opens, fewer than {self.m}"
            if len(opened) > 1:
                return f"P1: two sums open: {', '.join(map(self._say, opened))}"
            for C in opened:
                if why := next((why for i in sorted(C) if (why := self._wronged(self.locals[state[i]], a, C))), None):
                    return why
                open_in.append({(i, next(f[2] for f in facts[i] if f[0] == "up" and f[1] == a)) for i in C})
        if len(open_in) > 1 and open_in[0] != open_in[1]:
            return "P4: two attempts at one question open with different sets"
        return None

    def _wronged(self, at, a, C):
        """A patient or a receipt of a site in the sum C of attempt a that this sum belies."""
        first = next((f[2] for f in at.facts if f[0] == "fv" and f[1] == a), None)
        if at.withdrawn and ("up", a, CLEAN) in at.facts and first is not False:
            return f"P3: a patient of {at.state.me} withdrew before its vote, and is in the sum {self._say(C)}"
        if not self.receipts:
            return None
        if ("not counted", a) in at.facts:
            return f"receipt: {at.state.me} was told `not counted`, and is in the sum {self._say(C)}"
        if first is not None and ("counted", a) not in at.facts:
            return f"receipt: {at.state.me} is in the sum {self._say(C)} and holds no receipt"
        return None

    def _say(self, C):
        return "".join(self.names[i] for i in sorted(C))

    def search(self, *, seconds=60.0, deep=False):
        begin = time.monotonic()
        start = self.start()
        first = self.canonical(start)
        back, todo, sums = (
            {first: 0},
            deque([(first, start)]),
            0,
        )  # state -> the one before, and the move, in one number
        while todo:
            at, state = todo.pop() if deep else todo.popleft()
            for name, i, y in self.moves(state):
                after = (*state[:i], y, *state[i + 1 :])
                key = self.canonical(after)
                if key in back:
                    continue
                back[key] = at << NAME_BITS | name
                why, opens = self.judge(after)
                sums += opens
                if why is not None:
                    return Found(len(back), sums, why, self._path(back, first, key), exhausted=False)
                todo.append((key, after))
            if time.monotonic() - begin > seconds:
                return Found(len(back), sums, None, (), exhausted=False)
        return Found(len(back), sums, None, (), exhausted=True)

    def _path(self, back, first, key):
        names, path = list(self.move_names), []
        while key != first:
            key, name = back[key] >> NAME_BITS, back[key] & (1 << NAME_BITS) - 1
            path.append(names[name])
        return tuple(reversed(path))


class Found(NamedTuple):
    """What a search came to. sums: states in which a sum opens, so that a search which never reaches one cannot pass for a proof."""

    states: int
    sums: int
    why: str | None
    trace: tuple
    exhausted: bool


@pytest.fixture(scope="session")
def explore():
    def run(n, c, m, *, seconds=60.0, deep=False, **more):
        return Model(n, c, m, **more).search(seconds=seconds, deep=deep)

    run.Honest = Honest
    return run
