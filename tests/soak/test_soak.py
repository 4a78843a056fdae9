"""A few turns of the soak test, so that it works when it is wanted."""

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).with_name("run.py")


def test_some_turns_come_out_as_they_must(default_model):
    command = [sys.executable, RUN, "--turns", "40", "--seed", "1", "--model", default_model]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "\n40 turns in " in ended.stdout and " 0 faults, 0 restarts" in ended.stdout
