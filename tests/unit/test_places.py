"""Models in other programs' folders, what the catalogue knows of them, and the list that people see."""

import json
import os
import sys
from importlib import import_module

import pytest
from tiny_gguf import write_llama

from nbllm import catalogue
from nbllm.catalogue import listing as listing_module
from nbllm.catalogue.listing import HEAD, listing, recommended, text
from nbllm.errors import DownloadError, ModelNotFoundError, NbLLMError
from nbllm.formats.blocks import BLOCK_TYPES
from nbllm.runtime.memory import Memory

known_module, places_module = (import_module(f"nbllm.catalogue.{module}") for module in ("known", "places"))

ARTICLE = {  # file -> bytes, container
    "ggml-gpt4all-j-v1.3-groovy.bin": (3785248281, "ggml"),
    "ggml-gpt4all-j-v1.2-jazzy.bin": (3785248281, "ggml"),
    "ggml-gpt4all-j-v1.1-breezy.bin": (3785248281, "ggml"),
    "ggml-gpt4all-j.bin": (3785248281, "ggml"),
    "ggml-gpt4all-l13b-snoozy.bin": (8136770688, "ggjt"),
    "ggml-vicuna-7b-1.1-q4_2.bin": (4212859520, "ggjt"),
    "ggml-vicuna-13b-1.1-q4_2.bin": (8136770688, "ggjt"),
    "ggml-wizardLM-7B.q4_2.bin": (4212864640, "ggjt"),
    "ggml-stable-vicuna-13B.q4_2.bin": (8136777088, "ggjt"),
    "gpt4all-lora-quantized.bin": (4212732137, "ggml"),
}
MAGIC = {"ggml": b"lmgg", "ggjt": b"tjgg", "gguf": b"GGUF"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's folder, with nothing in it yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NBLLM_MODELS", "XDG_DATA_HOME", "HF_HOME", "HF_HUB_CACHE", "OLLAMA_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def put(path, size=4, magic=b"GGUF"):
    """A file of this size that takes no room on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(magic)
    os.truncate(path, size)
    return path


# ---- the catalogue


def test_the_articles_models_are_known_and_recognised_by_name_container_and_size(tmp_path):
    old = {model.file: model for model in catalogue.KNOWN if model.year == 2023}
    assert {file: (model.size, model.container) for file, model in old.items()} == ARTICLE
    for file, model in old.items():
        path = put(tmp_path / file, model.size, MAGIC[model.container])
        assert catalogue.recognised(path) is model
        os.truncate(path, model.size - 1)
        assert catalogue.recognised(path) is None
        path.write_bytes(b"GGUF")
        os.truncate(path, model.size)
        assert catalogue.recognised(path) is None
    assert catalogue.recognised(put(tmp_path / "other.bin", 3785248281, b"lmgg")) is None


def test_each_entry_is_whole():
    names = [name for model in catalogue.KNOWN for name in (model.name, *model.aliases, model.file.lower())]
    assert len(names) == len(set(names)) and all(name == name.lower() for name in names)
    kinds = {kind.name for kind in BLOCK_TYPES.values()} | {"Q4_2"}
    for model in catalogue.KNOWN:
        assert model.architecture in ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gptj")
        assert model.container in MAGIC and model.blocks.removesuffix("_M") in kinds
        assert 0.1 < model.parameters <= 13 and 0.4 < model.size / (model.parameters * 1e9) < 1.1
        assert all(type(number) is int and number > 0 for number in (*model.cache, model.context, model.size))
        assert model.licence and model.about and (model.prompt is None) is (model.year > 2023)
        digits = {"md5": 32, "sha256": 64, "sha512": 128}
        assert model.checksum is None or len(model.checksum.split(":")[1]) == digits[model.checksum.split(":")[0]]
        assert sum(source is not None for source in (model.package, model.repo, model.url)) <= 1
        assert model.prompt is None or model.prompt.count("{prompt}") == 1
        assert model.needs > model.size
    today = [model for model in catalogue.KNOWN if model.year > 2023]
    assert len(today) == 20 and all(0.1 < model.parameters < 8.5 and (model.repo or model.package) for model in today)


# ---- folders


def test_every_programs_folder_is_looked_into(home):
    hub = home / ".cache/huggingface/hub/models--owner--repo"
    blob = put(hub / "blobs/abc", 1000)
    (hub / "snapshots/rev/sub").mkdir(parents=True)
    for link in (hub / "snapshots/rev/m-Q4_K_M.gguf", hub / "snapshots/rev/sub/m-Q8_0.gguf"):
        link.symlink_to(blob if "Q4" in link.name else put(hub / "blobs/def", 2000))
    layers = [{"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:00"},
              {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:11"}]  # fmt: skip
    manifest = home / ".ollama/models/manifests/registry.ollama.ai/library/qwen2.5/7b"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"layers": layers}))
    for number, text in enumerate(("{", "[]", "[" * 10000, json.dumps({"layers": [layers[1] | {"digest": 1}]}))):
        (manifest.parent / f"broken {number}").write_text(text)
    paths = {
        ("nbllm", "mine"): put(home / ".local/share/nbllm/models/mine.gguf"),
        ("GPT4All", "theirs"): put(home / ".local/share/nomic.ai/GPT4All/theirs.gguf"),
        ("GPT4All", "gpt4all-j"): put(home / ".cache/gpt4all/ggml-gpt4all-j.bin", 3785248281, b"lmgg"),
        ("LM Studio", "new"): put(home / ".lmstudio/models/owner/repo/new.gguf"),
        ("LM Studio", "old"): put(home / ".cache/lm-studio/models/owner/repo/old.GGUF"),
        ("Hugging Face", "m-Q4_K_M"): hub / "snapshots/rev/m-Q4_K_M.gguf",
        ("Hugging Face", "m-Q8_0"): hub / "snapshots/rev/sub/m-Q8_0.gguf",
        ("Ollama", "qwen2.5:7b"): put(home / ".ollama/models/blobs/sha256-11"),
    }
    put(home / ".lmstudio/models/owner/repo/mmproj-new.gguf")
    put(home / ".local/share/nbllm/models/notes.bin", magic=b"text")
    (home / ".local/share/nbllm/models/gone.gguf").symlink_to(home / "nowhere")
    assert {(found.place, found.name): found.path for found in catalogue.available()} == paths
    for (_, name), path in paths.items():
        assert catalogue.find(name) == path
    assert catalogue.find("owner/repo:q8_0") == paths["Hugging Face", "m-Q8_0"]
    with pytest.raises(ModelNotFoundError):
        catalogue.find("owner/repo:Q4_K")


@pytest.mark.parametrize(("platform", "folder"), [
    ("darwin", "Library/Application Support/nomic.ai/GPT4All"),
    ("win32", "AppData/Local/nomic.ai/GPT4All"),
    ("linux", ".local/share/nomic.ai/GPT4All"),
])  # fmt: skip
def test_gpt4alls_folder_is_each_systems(home, monkeypatch, platform, folder):
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    assert places_module._gpt4all(home) == home / folder


def test_folders_of_the_users_own_are_named_in_one_variable(home, monkeypatch):
    monkeypatch.setenv("NBLLM_MODELS", os.pathsep.join(["~/first", str(home / "second")]))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "ollama"))
    put(home / "first/a.gguf"), put(home / "second/b.gguf"), put(home / "hf/hub/models--o--r/snapshots/1/c.gguf")
    assert [found.name for found in catalogue.available()] == ["a", "b", "c"]
    assert catalogue.models_dir() == home / "first"  # where downloads go
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "elsewhere"))
    assert [found.name for found in catalogue.available()] == ["a", "b"]


def test_a_file_that_is_there_by_two_names_is_listed_once(home):
    (home / ".local/share/nbllm/models").mkdir(parents=True)
    path = put(home / ".lmstudio/models/owner/repo/m.gguf")
    (home / ".local/share/nbllm/models/link.gguf").symlink_to(path)
    assert [found.name for found in catalogue.available()] == ["link"]


def test_a_split_file_is_one_model(home):
    folder = home / ".lmstudio/models/owner/re[po]"
    first, *_ = (put(folder / f"m-Q8_0-0000{number}-of-00003.gguf", number * 10) for number in (1, 2, 3))
    put(folder / "m-Q8_0-00001-of-00002.gguf", 5)
    assert [(found.path.name, found.size) for found in catalogue.available()] == [
        ("m-Q8_0-00001-of-00002.gguf", 5), (first.name, 60),
    ]  # fmt: skip


def test_a_known_model_is_found_wherever_it_is_but_not_a_piece_of_it(home):
    model = next(model for model in catalogue.KNOWN if model.name == "qwen3-8b")
    with pytest.raises(ModelNotFoundError, match="nbllm pull qwen3-8b"):
        catalogue.find("qwen3-8b")
    other = put(home / ".lmstudio/models/owner/a" / model.file, model.size - 288)  # another's quantisation of the same
    assert catalogue.find("qwen3-8b") == catalogue.find(model.file) == other
    path = put(home / ".lmstudio/models/owner/b" / model.file, model.size)
    assert catalogue.find("qwen3-8b") == path == catalogue.pull("qwen3-8b")
    snoozy = put(home / ".cache/gpt4all/ggml-gpt4all-l13b-snoozy.bin", 8136770687, b"tjgg")
    with pytest.raises(ModelNotFoundError, match="nbllm pull gpt4all-l13b-snoozy"):
        catalogue.find("snoozy")
    os.truncate(snoozy, 8136770688)
    assert catalogue.find("snoozy") == snoozy


def test_a_file_given_by_path_is_that_file_whatever_it_is_called(home, monkeypatch):
    monkeypatch.chdir(home)
    assert str(catalogue.find(str(put(home / "owner/repo")))) == str(home / "owner/repo")
    with pytest.raises(ModelNotFoundError, match="no model 'owner/other.gguf' on this machine"):
        catalogue.find("owner/other.gguf")
    assert not catalogue.pullable("owner/other.gguf") and catalogue.pullable("owner/other:Q4_0")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and names of this kind are POSIX's")
def test_what_is_no_file_or_not_in_order_hides_nothing_else(home):
    folder, ollama = home / ".local/share/nbllm/models", home / ".ollama/models"
    mine = put(folder / "mine.gguf")
    os.mkfifo(folder / "pipe.gguf")
    (folder / "loop.gguf").symlink_to(folder / "loop.gguf")
    (folder / "folder.gguf").mkdir()
    names = ollama / "manifests/registry.ollama.ai/library/m"
    names.mkdir(parents=True)
    os.mkfifo(names / "pipe")
    (names / "endless").symlink_to("/dev/zero")
    for number, digest in enumerate(("sha256:\0", "sha256:\ud800", str(put(home / "elsewhere.gguf")), "sha256:11")):
        layer = {"mediaType": "application/vnd.ollama.image.model", "digest": digest}
        (names / str(number)).write_text(json.dumps({"layers": [layer]}))
    blob = put(ollama / "blobs/sha256-11")
    (names / "long").write_text(json.dumps({"layers": [layer]}).ljust(places_module.MANIFEST) + "more")
    assert [found.path for found in catalogue.available()] == [mine, blob]


@pytest.mark.parametrize("given", ["x" * 300, "loop", "mine.gguf"])
def test_a_folder_of_the_users_own_that_is_none_has_no_models(home, monkeypatch, given):
    (home / "loop").symlink_to(home / "loop")
    put(home / "mine.gguf")
    monkeypatch.setenv("NBLLM_MODELS", str(home / given))
    assert catalogue.available() == []
    for name in ("nothing", None):
        with pytest.raises(ModelNotFoundError, match="on this machine"):
            catalogue.find(name)
    with pytest.raises(DownloadError, match="could not fetch .* into ") as error:
        catalogue.pull("http://127.0.0.1:9/x.gguf")
    assert str(error.value).isprintable()


@pytest.mark.skipif(sys.platform == "win32", reason="users' folders are found otherwise there")
def test_a_user_without_a_home_is_told_what_to_set_and_paths_do_without(home, monkeypatch):
    pwd = import_module("pwd")
    mine = put(home / "mine.gguf")
    monkeypatch.chdir(home)
    monkeypatch.setenv("HF_HUB_CACHE", "~nobody-of-this-name/hub")
    assert catalogue.available() == []
    monkeypatch.setenv("NBLLM_MODELS", "~nobody-of-this-name/models")
    with pytest.raises(NbLLMError, match="^~nobody-of-this-name/models .* no such home folder; set NBLLM_MODELS"):
        catalogue.find()
    monkeypatch.delenv("NBLLM_MODELS")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", lambda user: {}[user])
    with pytest.raises(NbLLMError, match="no such home folder; set NBLLM_MODELS"):
        catalogue.pull("http://127.0.0.1:9/x.gguf")
    assert catalogue.find(str(mine)) == mine and not (home / "~").exists()
    monkeypatch.setenv("NBLLM_MODELS", str(home))
    assert [found.path for found in catalogue.available()] == [mine]


def test_the_parts_of_many_split_files_are_found_in_one_look(home, monkeypatch):
    folder, looks = home / ".local/share/nbllm/models", []
    for number in range(50):
        for part in (1, 2):
            put(folder / f"m{number}-0000{part}-of-00002.gguf", 4 + part)
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(os.fspath(path)) or scandir(path))
    assert [found.size for found in catalogue.available()] == [11] * 50
    assert looks.count(str(folder)) <= 3


# ---- the list


@pytest.fixture
def machine(monkeypatch):
    """Says how much memory there is, in GB."""
    def machine(total, free):
        monkeypatch.setattr(listing_module, "memory", lambda: Memory(int(total * 1e9), int(free * 1e9)))
    machine(16, 8)
    return machine


def cells(name):
    (row,) = [dict(zip(table.head, row)) for table in listing()[0] for row in table.rows if row[0] == name]
    return row


def test_each_model_has_its_size_licence_and_whether_it_fits(home, machine, monkeypatch):
    row = cells("llama3.1-8b")
    assert tuple(row[name] for name in HEAD) == ("llama3.1-8b", "8.0 B", "4.9 GB", "5.6 GB", "yes", "Llama 3.1")
    for total, free, fits in ((16, 5, "not now"), (5.5, 5.5, "no"), (16, 6, "yes")):
        machine(total, free)
        assert cells("llama3.1-8b")["fits"] == fits
    monkeypatch.setattr(catalogue.KnownModel, "runs", property(lambda model: model.architecture == "llama"))
    assert cells("gpt4all-j") | {"memory": "", "size": ""} == {
        "name": "gpt4all-j", "parameters": "6.1 B", "size": "", "memory": "", "fits": "yes",
        "licence": "commercial use", "about": "not run yet; GPT-J trained by Nomic AI",
    }  # fmt: skip


def test_a_file_that_the_catalogue_does_not_know_is_told_from_its_header(home, machine):
    folder = home / ".local/share/nbllm/models"
    folder.mkdir(parents=True)
    about = {"general.license": "mit", "general.size_label": "0.1M"}
    write_llama(folder / "mine.gguf", metadata=about)
    write_llama(folder / "other.gguf", metadata={"general.architecture": "elsewhat", "general.license": "a\nb"})
    write_llama(folder / "odd.gguf", metadata={"general.architecture": ["llama"]})
    write_llama(folder / "bare.gguf", metadata={"tokenizer.ggml.tokens": 5})
    put(folder / "bad.gguf", 2_000_000_000)
    put(folder / "ggml-gpt4all-j.bin", 1_000_000_000, b"lmgg")
    mine = cells("mine")
    assert (mine["parameters"], mine["licence"], mine["fits"]) == ("0.1M", "mit", "yes")
    assert mine["where"] == f"nbllm, {folder / 'mine.gguf'}"
    assert cells("other")["where"].startswith("not run yet; nbllm, ") and cells("other")["licence"] == ""
    assert cells("odd")["where"].startswith("not run yet; nbllm, ") and cells("bare")["fits"] == "yes"
    assert cells("bad")["where"].startswith("not readable; nbllm, ") and cells("bad")["size"] == "2.0 GB"
    rows = [row for table in listing(folder / "mine.gguf")[0] for row in table.rows]
    assert cells("ggml-gpt4all-j")["where"].startswith("incomplete; nbllm, ")
    assert cells("gpt4all-j")["size"] == "3.8 GB"  # still to be fetched
    assert [row[0] for row in rows if row[6].startswith("in use, ")] == ["mine"]
    elsewhere = write_llama(home / "elsewhere.gguf")
    here, *_ = listing(elsewhere)[0]
    assert [row[0] for row in here.rows if row[6] == f"in use, by path, {elsewhere}"] == ["elsewhere"]


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such names there")
def test_a_files_name_steers_no_terminal_and_can_be_written_in_any_encoding(home, machine):
    for name in ("\x1b[31mred\nnext line", "caf\udcff"):
        put(home / ".local/share/nbllm/models" / f"{name}.gguf")
    lines = text(*listing()).encode().decode().splitlines()
    assert [line.split("  ")[1] for line in lines[2:4]] == [r"\x1b[31mred\nnext line", r"caf\udcff"]
    assert all(line.isprintable() for line in lines)


def test_what_is_here_is_not_offered_again(home, machine):
    put(home / ".local/share/nbllm/models" / catalogue.DEFAULT.file, catalogue.DEFAULT.size)
    tables, _ = listing()
    assert [table.title.split(":")[0] for table in tables] == [
        "On this machine", "To fetch by name", "The models of May 2023, in the same ways",
    ]  # fmt: skip
    assert [[row[0] for row in table.rows].count("smollm2-135m") for table in tables] == [1, 0, 0]


def test_the_recommended_model_runs_and_leaves_half_of_the_memory(home, machine):
    for total in (1, 2, 4, 8, 16, 64):
        best = recommended(Memory(int(total * 1e9), 0))
        fitting = [m for m in catalogue.KNOWN if m.runs and m.year > 2023 and m.needs <= total * 5e8]
        assert best.parameters == max(model.parameters for model in fitting)
    assert recommended(Memory(10**8, 10**8)) is None
    machine(4, 2)
    best = recommended(Memory(4 * 10**9, 0)).name
    assert f"This machine has 4.0 GB of memory, 2.0 GB of it free; recommended for it: {best}," in text(*listing())
    machine(0.1, 0.1)
    assert "none of today's models is small enough" in text(*listing())


def test_the_plain_list_is_a_table(home, machine):
    lines = text(*listing()).splitlines()
    head = lines.index(next(line for line in lines if "parameters" in line))
    column = lines[head].index("licence")
    assert all(line[column - 1] == " " and line[column] != " " for line in lines[head : head + 10])


def test_a_models_prompt_takes_a_question(home):
    for model in catalogue.KNOWN:
        if model.prompt:
            assert "hello" in model.prompt.format(prompt="hello")
