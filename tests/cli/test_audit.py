import json
import subprocess
import sys

import pytest

from paroma.cli import start
from paroma.kernel import canonical
from paroma.kernel.randomness import SeededRandomness
from paroma.sdk.connection import LogKeys
from paroma.trust.audit import entries, log as logs, tables
from paroma.trust.audit.cosignatures import Cosigner
from paroma.trust.audit.notes import CheckpointSigner, Note
from paroma.trust.audit.tiles import CHECKPOINT, needed
from paroma.trust.keys.log_keys import HeldLogKey

TITLES = {"site-1": "Basel", "site-2": "Budapest"}


@pytest.fixture
def copied(new_store, tmp_path):
    """A copy of a log of 300 entries as `paroma audit export` lays it out, cosigned by both sites."""
    store = new_store("hub")
    tables.METADATA.create_all(store.engine)
    signer = CheckpointSigner("hub.example/federation", HeldLogKey.fresh(SeededRandomness(1, "log")))
    cosigners = {s: Cosigner(f"{s}/w", HeldLogKey.fresh(SeededRandomness(2, s))) for s in TITLES}
    sealed = [entries.seal("vote", float(n), {"attempt": n}) for n in range(300)]
    store.write_now(lambda tx: logs.append(tx, logs.FEDERATION, sealed, signer))
    folder = tmp_path / "copy"

    def files(tx):
        head = logs.checkpoint(tx, logs.FEDERATION)
        return head, {w.path: logs.serve(tx, logs.FEDERATION, w.path) for w in needed(0, head.size)}

    head, found = store.read_now(files)
    for path, content in found.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    note = Note.parse(head.note)
    signed = (*note.signatures, *(c.cosign(note.text, 1_700_000_000) for c in cosigners.values()))
    (folder / CHECKPOINT).write_text(Note(note.text, signed).whole)
    witnesses = {s: c.public.vkey for s, c in cosigners.items()}
    keys = LogKeys(origin=signer.origin, vkey=signer.vkey, witnesses=witnesses, titles=TITLES, quorum=2)
    (folder / "keys.json").write_bytes(canonical.encode(keys))
    return folder


def verify(capsys, folder, *more):
    status = start.run(["audit", "verify", "--folder", str(folder), *more])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.mark.promise(4)
def test_a_sound_copy_holds_and_it_is_said_what_that_proves_and_what_not(capsys, copied):
    status, out, _ = verify(capsys, copied)
    assert status == 0
    assert "All 300 entries" in out
    assert "cosigned by Basel and Budapest" in out
    assert "It does not prove that a program wrote down everything it did" in out
    assert "The keys came along with the copy" in out
    found = json.loads(verify(capsys, copied, "--json")[1])
    assert found["holds"]
    assert (found["entries"], found["cosigned_by"]) == (300, ["Basel", "Budapest"])


@pytest.mark.promise(4)
def test_one_edited_byte_is_found(capsys, copied):
    bundle = copied / "tile/entries/000"
    content = bytearray(bundle.read_bytes())
    content[content.index(b"vote")] ^= 1
    bundle.write_bytes(content)
    status, out, err = verify(capsys, copied)
    assert (status, out) == (1, "")
    assert "cannot be trusted" in err


@pytest.mark.promise(4)
def test_too_few_cosignatures_do_not_hold(capsys, copied):
    assert verify(capsys, copied, "--cosigned", "3")[0] == 1


@pytest.mark.promise(4)
def test_a_key_that_the_auditor_knows_wins_over_the_one_that_came_along(capsys, copied):
    other = CheckpointSigner("hub.example/federation", HeldLogKey.fresh(SeededRandomness(9, "other")))
    assert verify(capsys, copied, "--log-key", other.vkey)[0] == 1
    known = json.loads((copied / "keys.json").read_bytes())["vkey"]
    assert "The keys" not in verify(capsys, copied, "--log-key", known)[1]


def test_a_copy_that_lacks_a_file_says_which(capsys, copied):
    (copied / "tile/0/000").unlink()
    status, _, err = verify(capsys, copied)
    assert status == 1
    assert "`tile/0/000`" in err


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"sqlalchemy", "alembic", "starlette", "granian", "cedarpy", "numpy", "pyarrow", "flwr"}:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Missing())
from paroma.cli import start
sys.exit(start.run(sys.argv[1:]))
"""


@pytest.mark.promise(4)
@pytest.mark.parametrize("command", ["audit verify", "run --help", "permit --help", "desk --help", "study --help"])
def test_who_only_checks_or_asks_needs_no_database_and_no_server(copied, command):
    """The base installation: whoever checks the log is not made to install the hub's parts."""
    arguments = [*command.split(), *(["--folder", str(copied)] if command == "audit verify" else [])]
    done = subprocess.run([sys.executable, "-c", WITHOUT, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("All 300 entries" in done.stdout) == (command == "audit verify")
