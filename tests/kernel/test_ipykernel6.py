"""The Jupyter kernels with the oldest ipykernel that nbllm takes: a part of these tests, in a Python of its own.

`make test` makes that Python, and names it in NBLLM_IPYKERNEL6.
"""

import os
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
CHOSEN = [  # what depends on ipykernel: streaming, routing, cells' names, interrupts, completion
    "kernel/test_local_llm_kernel.py::test_running_an_earlier_cell_again_takes_the_conversation_back_to_it",
    "kernel/test_local_llm_kernel.py::test_inputs_are_what_was_typed",
    "kernel/test_local_llm_kernel.py::test_below_commands_what_the_cursor_is_in_decides",
    "kernel/test_local_llm_kernel.py::test_is_complete_completion_and_inspection_leave_prose_alone",
    "kernel/test_local_llm_states.py::test_while_loading_while_reading_and_while_writing",
    "kernel/test_local_llm_states.py::test_while_waiting_behind_another_job_which_goes_on",
    "kernel/test_interrupt.py::test_while_writing_the_partial_reply_stays_everywhere",
    "kernel/test_interrupt.py::test_in_a_task_of_the_users_it_ends_the_reply_and_not_the_jupyter_kernel",
    "kernel/test_chat_cells.py::test_a_reply_streams_as_updates_of_one_display_and_ends_complete",
    "kernel/test_chat_cells.py::test_output_goes_to_the_cell_that_asked_and_ends_with_it",
    "kernel/test_background.py",
    "kernel/test_completion.py",
    "kernel/test_panel.py::test_while_a_cell_computes_what_comes_where_cells_do_waits_for_its_end",
    "kernel/test_panel.py::test_it_and_cells_share_one_conversation",
]


@pytest.mark.timeout(300)
@pytest.mark.skipif("NBLLM_IPYKERNEL6" not in os.environ, reason="NBLLM_IPYKERNEL6 names no Python with ipykernel 6")
def test_the_jupyter_kernels_work_with_the_oldest_ipykernel(default_model):
    python = os.environ["NBLLM_IPYKERNEL6"]
    version = [python, "-c", "import ipykernel; print(ipykernel.__version__)"]
    assert subprocess.run(version, capture_output=True, text=True, check=True).stdout.startswith("6.29.")
    done = subprocess.run([python, "-m", "pytest", "-q", *CHOSEN], cwd=TESTS, capture_output=True, text=True,
                          env={**os.environ, "NBLLM_TEST_MODEL": str(default_model)})  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
