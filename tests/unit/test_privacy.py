"""What the user says stays in the user's notebook: not in logs, not on the network,
not in files but those that are told of."""

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nbllm

SECRET = "aurora-borealis-4711"
OFFLINE = Path(__file__).with_name("test_offline.py")
SESSION = f"""
import logging, sys
logging.basicConfig(level=logging.DEBUG)
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_line_magic("load_ext", "nbllm")
shell.run_line_magic("config", f"NbLLM.model = {{sys.argv[1]!r}}")
shell.run_cell_magic("chat", "--max-tokens 3 --system {SECRET}", "{SECRET}")
shell.run_line_magic("chat", "save talk.jsonl")
shell.run_line_magic("chat", "export talk.md")
shell.run_line_magic("chat", "list")
assert nbllm_running().shelf.current.exchanges == 1
""".replace("nbllm_running()", "__import__('nbllm.jupyter.session').jupyter.session.running()")


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_nothing_is_written_but_where_the_readme_says(tiny_model, tmp_path):
    home, temporary, here = (tmp_path / name for name in ("home", "tmp", "here"))
    for folder in (home, temporary, here):
        folder.mkdir()
    drop = ("NBLLM", "XDG", "IPYTHON", "JUPYTER")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(drop)}
    environment |= {
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    ran = subprocess.run(
        [sys.executable, "-c", SESSION, str(tiny_model)],
        env=environment,
        cwd=here,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ran.returncode == 0, ran.stderr
    assert files(here) == {"talk.jsonl", "talk.md"} and files(temporary) == set()
    assert all("nbllm/packed/" in name for name in files(home)) and len(files(home)) == 1
    assert SECRET not in ran.stderr
    packed = next(home.rglob("*.packed")).read_bytes()
    assert SECRET.encode() not in packed


def test_no_log_has_what_was_said(tiny_model, caplog, capfd):
    with caplog.at_level(logging.DEBUG), nbllm.load(tiny_model, threads=1) as model:
        logging.getLogger("a").debug("heard")
        chat = nbllm.Chat(model, system=SECRET, max_tokens=3)
        reply = chat(SECRET)
    assert "heard" in caplog.text and SECRET not in caplog.text and len(reply.text) > 0
    assert SECRET not in "".join(capfd.readouterr())


def test_all_but_downloads_works_where_there_is_no_network_at_all(tiny_model, tmp_path):
    unshare = shutil.which("unshare")
    alone = [unshare, "--user", "--map-root-user", "--net"]
    if not unshare or subprocess.run([*alone, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody make a network namespace")
    program = OFFLINE.read_text().split('"""')[3]
    ran = subprocess.run(
        [*alone, sys.executable, "-c", program, str(tiny_model)],
        env=os.environ | {"NBLLM_MODELS": str(tmp_path)}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("done\n")
