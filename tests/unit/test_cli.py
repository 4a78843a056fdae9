"""The command line: what it prints, where, and with which exit status."""

import io
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest
from fakes import fake_model

import nbllm
from nbllm import catalogue, cli, model
from nbllm.errors import CpuError, DownloadError
from nbllm.jupyter import install as install_module
from nbllm.runtime import ops
from nbllm.runtime.options import Sampling


@pytest.fixture
def run(capsys):
    """Run a command: (exit status, standard output, standard error)."""

    def run(*arguments):
        status = cli.main(arguments)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def loads(monkeypatch):
    """Has every load give this fake model; `asked` is what was asked for."""

    def loads(*replies, **engine):
        fake = fake_model(*replies, **engine)
        fake.asked = []
        monkeypatch.setattr(model, "load", lambda *arguments, **named: fake.asked.append(arguments) or fake)
        return fake

    return loads


def test_chat_prints_the_reply_and_nothing_else(run, loads):
    fake = loads("Hello there.")
    engine = fake.engine
    assert run("chat", "hi", "--model", "m", "--context", "99", "--threads", "2") == (0, "Hello there.\n", "")
    assert fake.asked == [("m", 99, 2)]
    assert engine.closed == 1


def test_chat_takes_every_sampling_option_and_a_system_message(run, loads):
    values = {
        "temperature": 0.5, "top_k": 3, "top_p": 0.5, "min_p": 0.1, "repeat_penalty": 1.5, "repeat_window": 9,
        "seed": 7, "max_tokens": 11, "stop": ("x", "y z"),
    }  # fmt: skip
    assert set(values) == {option.name for option in fields(Sampling)}
    flags = []
    for name, value in values.items():
        for one in value if isinstance(value, tuple) else (value,):
            flags += ["--" + name.replace("_", "-"), str(one)]
    fake = loads("ok")
    engine = fake.engine
    assert run("chat", "hi", "--system", "Be brief.", *flags)[0] == 0
    assert engine.options == [Sampling(**values)]
    assert b"Be brief." in bytes(id for id in engine.prompts[0] if id < 256)


def test_chat_reads_standard_input_for_a_dash(run, loads, monkeypatch):
    fake = loads("ok")
    engine = fake.engine
    monkeypatch.setattr(sys, "stdin", io.StringIO("a long\nquestion"))
    assert run("chat", "-", "--max-tokens", "none")[0] == 0
    assert b"a long\nquestion" in bytes(id for id in engine.prompts[0] if id < 256)
    assert engine.options[0].max_tokens is None


def test_chat_says_what_the_user_should_know_on_standard_error(run, loads):
    loads("ok", template=None)
    status, out, err = run("chat", "hi")
    assert (status, out) == (0, "ok\n")
    assert re.fullmatch("nbllm: .*no chat template.*\n", err)


def test_in_a_terminal_the_text_cannot_steer_it_and_the_speed_is_told(loads, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    loads("a\x1b[2Jb\tc\nd\x9b")
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(["chat", "hi"]) == 0
    assert out.getvalue() == "a[2Jb\tc\nd\n"
    assert re.fullmatch(r"\[\d+ tokens read at \d+/s, 12 written at 48/s\]\n", err.getvalue())


def test_the_precision_of_the_cache_is_passed_on(run, tiny_model, monkeypatch):
    asked, load = [], model.load
    monkeypatch.setattr("nbllm.model.load", lambda *args, **kwargs: asked.append(load(*args, **kwargs)) or asked[-1])
    monkeypatch.setattr("nbllm.model.Model.close", lambda self: None)  # so that its memory can be looked at
    for bits in ("16", "8"):
        status, _, err = run("chat", "hi", "--model", str(tiny_model), "--max-tokens", "1", "--cache-bits", bits)
        assert status == 0, err
    half, small = (loaded.engine.memory["cache"] for loaded in asked)
    assert small < 0.65 * half


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are POSIX's")
def test_an_interrupt_keeps_what_was_printed_and_ends_with_130(run, loads):
    def on_step(step):
        time.sleep(0.01)
        if step == 50:
            os.kill(os.getpid(), signal.SIGINT)

    reply = "abc" + "." * 100_000
    fake = loads(reply, on_step=on_step, context=200_000)
    engine = fake.engine
    status, out, err = run("chat", "hi", "--max-tokens", "none")
    assert (status, err) == (130, "nbllm: stopped\n")
    assert 1 < len(out) < 10_000 and out == reply[: len(out) - 1] + "\n"
    assert engine.closed == 1


@pytest.mark.parametrize(("arguments", "match"), [
    (["chat", "hi", "--top-p", "3"], "top_p=3.0"),
    (["chat", "hi", "--model", "nonsense"], "nonsense.*nbllm pull"),
    (["info", "nonsense"], "nonsense.*nbllm pull"),
    (["pull", "gpt-17"], "gpt-17.*nbllm models"),
    (["install-kernel", "--prefix", "/dev/null"], "/dev/null"),
])  # fmt: skip
def test_a_mistake_is_one_line_on_standard_error_and_status_1(run, arguments, match):
    status, out, err = run(*arguments)
    assert (status, out) == (1, "")
    assert re.fullmatch(f"nbllm: .*{match}.*\n", err)


@pytest.mark.parametrize(
    "arguments", [[], ["sing"], ["chat"], ["chat", "hi", "--top-k", "few"], ["chat", "hi", "--tall"]]
)
def test_a_command_that_cannot_be_parsed_shows_the_usage_and_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == 2
    assert capsys.readouterr().err.startswith("usage: nbllm")


def test_models_lists_what_is_here_and_what_can_be_fetched(run, monkeypatch, tmp_path):
    monkeypatch.setenv("NBLLM_MODELS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / catalogue.DEFAULT.file).write_bytes(b"GGUF".ljust(catalogue.DEFAULT.size))
    status, out, err = run("models")
    here, fetch, *_ = out.split("\n\n")
    row = r"  smollm2-135m +0.1 B +0.1 GB +0.4 GB +yes +Apache-2.0 +nbllm, " + re.escape(str(tmp_path)) + ".*"
    assert re.fullmatch(row, here.splitlines()[2])
    assert "\n  llama3.2-1b " in fetch and (status, err) == (0, "")


def test_pull_shows_progress_and_prints_where_the_model_is(run, monkeypatch):
    def pull(name, progress):
        progress(0, 93_000_000)
        return Path("/models") / f"{name}.gguf"

    monkeypatch.setattr(catalogue, "pull", pull)
    assert run("pull", "smollm2") == (0, "/models/smollm2.gguf\n", "fetching smollm2, 93 MB, once\n")


def test_a_pull_that_fails_is_one_line(run, monkeypatch):
    def pull(name, progress):
        raise DownloadError("no network")

    monkeypatch.setattr(catalogue, "pull", pull)
    assert run("pull") == (1, "", "nbllm: no network\n")


def test_info_tells_the_processor_and_the_variant_and_why(run, monkeypatch):
    features = {"AVX": True, "AVX2": True, "FMA": True, "F16C": True, "AVX-512": False, "VNNI": False, "NEON": False}
    monkeypatch.setattr(ops, "cpu_features", lambda: features)
    monkeypatch.setattr(ops, "threads", lambda: (2, 8))
    monkeypatch.setattr(ops, "variant", lambda: ops.Variant("avx2", (), True, "the best of all"))
    status, out, _ = run("info")
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["nbllm"] == nbllm.__version__
    assert lines["model"] == "none is loaded"
    assert lines["threads"] == "2 of 8 processors"
    assert lines["processor"] == "AVX yes  AVX2 yes  FMA yes  F16C yes  AVX-512 no  VNNI no  NEON no"
    assert lines["kernels"] == "avx2: the best of all"


def test_info_tells_that_no_kernels_can_be_used(run, monkeypatch):
    def variant():
        raise CpuError("NBLLM_ISA=avx2 needs AVX2")

    monkeypatch.setattr(ops, "variant", variant)
    status, out, _ = run("info")
    assert status == 0 and "NBLLM_ISA=avx2 needs AVX2" in out


def test_info_about_a_model_tells_what_it_takes(run, loads):
    fake = loads()
    lines = dict(line.split(maxsplit=1) for line in run("info", "m")[1].splitlines())
    assert lines["model"] == "fake, fake.gguf"
    assert lines["context"] == "4,096 tokens"
    assert lines["memory"] == "weights 3 MB, cache 2 MB"
    assert lines["threads"].startswith("1 of ")
    assert lines["packed"] == "3 MB, in this process's own memory"
    assert fake.asked == [("m",)]


@pytest.mark.parametrize(("arguments", "expected"), [
    ([], {}),
    (["--user"], {"user": True}),
    (["--sys-prefix", "--name", "n"], {"sys_prefix": True, "name": "n"}),
    (["--prefix", "/p", "--display-name", "My model"], {"prefix": "/p", "display_name": "My model"}),
])  # fmt: skip
def test_install_kernel_passes_on_what_was_given(run, monkeypatch, arguments, expected):
    given = []
    monkeypatch.setattr(install_module, "install", lambda **options: given.append(options) or "/where")
    assert run("install-kernel", *arguments) == (0, "/where\n", "")
    assert given == [expected]


def test_python_m_nbllm_is_the_command():
    ran = subprocess.run([sys.executable, "-m", "nbllm", "--version"], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"nbllm {nbllm.__version__}\n", "")


@pytest.mark.parametrize(("given", "said"), [
    (None, "standard input cannot be read: give the question itself"),
    (io.TextIOWrapper(io.BytesIO(b"a\xff"), "utf-8"), "standard input is no text in utf-8: convert it first"),
])  # fmt: skip
def test_a_question_that_cannot_be_read_is_one_line(run, loads, monkeypatch, given, said):
    loads("ok")
    monkeypatch.setattr(sys, "stdin", given)
    status, out, err = run("chat", "-")
    assert (status, out) == (1, "") and re.fullmatch(f"nbllm: {said}.*\n", err)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it takes a disk that is full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_one_line(unbuffered):
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "nbllm", "info"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    assert ran.returncode == 1
    assert re.fullmatch("nbllm: .*No space left on device: look at .*where the output goes\n", ran.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="the shell is POSIX's")
def test_output_that_is_closed_is_dropped(tmp_path):
    command = f"exec {sys.executable} -m nbllm info >&- 2>&-"
    assert subprocess.run(command, shell=True, timeout=60).returncode == 0
    command = f"{sys.executable} -m nbllm chat hi --model nothing 2>&-; echo $?"
    ran = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("1\n", "")  # the line is not standard output's


def test_what_the_encoding_of_the_output_does_not_have_is_escaped(loads, monkeypatch):
    loads("café ☂")
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["chat", "hi"]) == 0
    assert out.buffer.getvalue() == rb"caf\xe9 \u2602" + os.linesep.encode()


def test_an_error_is_one_line_that_takes_over_no_terminal(run):
    status, out, err = run("info", "http://a\nb\x1b[2J\udcff")
    assert (status, out) == (1, "")
    assert err.startswith(r"nbllm: the model http://a\nb\x1b[2J\udcff is not on this machine")
    assert err[:-1].isprintable()


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break otherwise there")
def test_a_reader_that_leaves_is_no_error_to_talk_about():
    with subprocess.Popen(
        [sys.executable, "-m", "nbllm", "info"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1
