"""What becomes of model files in one engine: loaded, and asked for a few tokens, each file in a process of its own.

    python openers.py ENGINE      reads lines of JSON and answers each with one

The engine is imported once, and forked for each file, so that no file suffers from what an earlier one did.
Processor time and memory are bounded. Knows nothing of how files are damaged, and needs nothing of nbllm but to open
files with it.
"""

import json
import os
import resource
import signal
import sys
import time
from importlib import import_module
from importlib.metadata import version

SECONDS = 10  # of the processor, for one file
PATIENCE = 120  # seconds, for a process that does nothing
MEMORY = 2 << 30  # bytes in memory; what is only mapped does not count
TOKENS = 3
QUESTION = "hello the moon"


def nbllm(lib, path, between):
    with lib.load(path, threads=1, progress=lambda done, total: None) as model:
        between()
        return str(lib.Chat(model, max_tokens=TOKENS)(QUESTION))


def llama_cpp(lib, path, between, **options):
    model = lib.Llama(path, n_threads=1, n_threads_batch=1, verbose=False, **options)
    between()
    return model.create_chat_completion([{"role": "user", "content": QUESTION}], max_tokens=TOKENS)


def llama_cpp_careful(lib, path, between):
    """Read instead of mapped, and with its weights checked, which `Llama` has no option for."""
    defaults = lib.llama_cpp.llama_model_default_params()
    defaults.check_tensors = True
    lib.llama_cpp.llama_model_default_params = lambda: defaults
    return llama_cpp(lib, path, between, use_mmap=False)


def openvino(lib, path, between):
    pipe = lib.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=1)
    between()
    return str(pipe.generate(QUESTION, max_new_tokens=TOKENS))


def gpt4all(lib, path, between):
    model = lib.GPT4All(path, allow_download=False, device="cpu", n_threads=1)
    between()
    return model.generate(QUESTION, max_tokens=TOKENS)


ENGINES = {  # name -> modules, the first of which is the engine; its package; how it opens a file
    "nbllm": ("nbllm nbllm.model nbllm.chat.conversation nbllm.chat.sandbox", "nbllm", nbllm),
    "llama-cpp-python": ("llama_cpp", "llama-cpp-python", llama_cpp),
    "llama-cpp-python, careful": ("llama_cpp", "llama-cpp-python", llama_cpp_careful),
    "OpenVINO GenAI": ("openvino_genai", "openvino-genai", openvino),
    "GPT4All": ("gpt4all", "gpt4all", gpt4all),
}


def outcome(engine, lib, path, cut):
    """[what, more]: in a process of its own. `cut`: the file is cut to half once it is loaded."""
    told, tell = os.pipe()
    process = os.fork()
    if not process:
        os.close(told)
        _open(ENGINES[engine][2], lib, path, cut, tell)
    os.close(tell)
    status = _ended(process)
    with os.fdopen(told) as pipe:
        said = pipe.read()
    if status is None:
        return ["memory", ""]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return ["time", ""] if number in (signal.SIGXCPU, signal.SIGALRM) else ["signal", signal.Signals(number).name]
    return json.loads(said) if said else ["ended", f"status {os.WEXITSTATUS(status)}"]


def _open(opener, lib, path, cut, tell):
    """The process of a file: never returns."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    signal.alarm(PATIENCE)
    between = (lambda: os.truncate(path, os.path.getsize(path) // 2)) if cut else (lambda: None)
    try:
        result = ["ran", str(opener(lib, path, between))]
    except BaseException as error:  # whatever it is: the process lives
        result = ["refused", f"{type(error).__name__}: {error}"]
    os.write(tell, json.dumps([text[:1000] for text in result]).encode())
    os._exit(0)


def _ended(process):
    """The status a process ended with, or None if it was ended because of its memory."""
    page = os.sysconf("SC_PAGE_SIZE")
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return status
        with open(f"/proc/{process}/statm") as numbers:
            if int(numbers.read().split()[1]) * page > MEMORY:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                return None
        time.sleep(0.01)


def main():
    modules, package, _ = ENGINES[sys.argv[1]]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever an engine prints
    try:
        lib, *_ = [import_module(module) for module in modules.split()]
    except ImportError as error:
        print(json.dumps({"absent": str(error)}), file=answers)
        return
    print(json.dumps({"version": version(package)}), file=answers, flush=True)
    for line in sys.stdin:
        told = outcome(sys.argv[1], lib, **json.loads(line))
        print(json.dumps(told), file=answers, flush=True)


if __name__ == "__main__":
    main()
