"""The Local LLM kernel under jupyter_kernel_test: every message by the protocol's own schema."""

import jupyter_kernel_test
import pytest


@pytest.fixture(scope="class", autouse=True)
def installed(local_llm_spec):
    yield


class TestLocalLLM(jupyter_kernel_test.KernelTests):
    kernel_name = "nbllm"
    language_name = "markdown"
    file_extension = ".md"
    code_hello_world = "%%py\nprint('hello, world')"
    code_stderr = "%%py\nimport sys; print('test', file=sys.stderr)"
    completion_samples = [{"text": "%%py\nzi", "matches": {"zip"}}, {"text": "%ch", "matches": {"%chat", "%%chat"}}]
    complete_code_samples = ["Hello?", "don't you (think", "%%py\nx = 1", "%chat info"]
    incomplete_code_samples = ["%%py\nfor i in x:", "%%py\n'''"]
    invalid_code_samples = ["%%py\nimport = 7q"]
    code_page_something = "?print"
    code_generate_error = "%%py\nraise"
    code_execute_result = [
        {"code": "%%py\n1 + 2", "result": "3"},
        {"code": "%%py\n[n * n for n in range(3)]", "result": "[0, 1, 4]"},
    ]
    code_display_data = [
        {"code": "%%py\nfrom IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "%%py\nfrom IPython.display import Math, display; display(Math('x'))", "mime": "text/latex"},
    ]
    code_history_pattern = "%%py*1 + 2*"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "What is this?"
    code_clear_output = "%%py\nfrom IPython.display import clear_output; clear_output()"


class TestWelcome(jupyter_kernel_test.IopubWelcomeTests):
    kernel_name = "nbllm"
    support_iopub_welcome = True  # ipykernel's channel has been of the kind that greets since its version 7
