"""Nothing but a download touches the network, or starts another program."""

import os
import subprocess
import sys

PROGRAM = """
import sys

import nbllm  # first: an editable install builds itself now

def refuse(event, arguments):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(refuse)

from nbllm import catalogue, cli
from nbllm.chat.worker import Worker
from nbllm.errors import ModelNotFoundError

path = sys.argv[1]
model = nbllm.load(path)
chat = nbllm.Chat(model, system="Be brief.", max_tokens=4)
handle = Worker().submit(lambda flag: chat.stream("hello", flag))
handle.wait()
chat("and then?")
model.logits(model.tokenize("hello"))
for name in (None, "nonsense"):
    try:
        catalogue.find(name)
    except ModelNotFoundError:
        print("not found")
for command in (["info", path], ["models"], ["chat", "hello", "--model", path, "--max-tokens", "4"]):
    assert cli.main(command) == 0
print("done")
"""


def test_all_but_downloads_works_without_the_network(tiny_model, tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_model)],
        env=os.environ | {"NBLLM_MODELS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[:2] == ["not found", "not found"] and ran.stdout.endswith("done\n")


def test_the_check_above_can_fail():
    program = PROGRAM.split("from nbllm")[0] + "import socket\nsocket.create_connection(('127.0.0.1', 9))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1 and "socket." in ran.stderr
