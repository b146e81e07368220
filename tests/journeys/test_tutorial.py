"""The first tutorial does what it says when it is typed as it stands, from the second step to the last."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from paroma.lab.processes import free_port

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial" / "first-study.md"
WAIT = """
import socket, sys, time
for _ in range(300):
    with socket.socket() as s:
        if s.connect_ex(("127.0.0.1", int(sys.argv[1]))) == 0:
            sys.exit(0)
    time.sleep(0.1)
sys.exit("nothing listens on port " + sys.argv[1])
"""


def typed():
    """The commands of all console blocks but the installation, as one script. Ports are free ones; whoever types waits
    for a program that was started before going on, and so does the script.
    """
    blocks = re.findall(r"```console\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks[1:] for line in block.splitlines()]
    out = []
    for line in lines:
        if line.startswith("cleveland.ndjson"):
            continue  # what `ls` prints
        if line == "paroma hub run --folder hub &":
            out += [line, 'python -c "$WAIT" $HUB']
        elif line.strip() == "paroma site run --folder $name &":
            out += [line, '    python -c "$WAIT" $port']
        else:
            out.append(line)
    script = "\n".join(out)
    assert "--folder hub\n" in script
    assert "port=8480" in script
    script = script.replace('"Heart federation" --folder hub\n', '"Heart federation" --folder hub --port $HUB\n')
    return script.replace("port=8480", "port=$SITES")


def test_the_first_tutorial_can_be_typed_as_it_stands(tmp_path):
    play = tmp_path / "play"
    play.mkdir()
    (tmp_path / "src").symlink_to(ROOT / "src")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PAROMA_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PAROMA_HOME": str(play / "people"),
        "BROWSER": "true",
        "WAIT": WAIT,
        "HUB": str(free_port()),
        "SITES": str(free_port()),
    }
    shell = subprocess.Popen(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", typed()],
        cwd=play,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = shell.communicate(timeout=240)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, said[-3000:]
    assert said.count("joined: ") == 4
    assert said.count("signed: ") == 4
    assert "valid" in said
    assert said.count("\nfinished") == 3
    assert "entries of" in said
