"""Models of the Hugging Face hub, by owner/repo: from a server on loopback, once by way of the real library."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from types import ModuleType, SimpleNamespace

import pytest
from file_server import serve

from nbllm import catalogue
from nbllm.errors import DownloadError, ModelNotFoundError

CONTENT = b"GGUF" + bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OFFERED = ("README.md", "m-BF16.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-UD-Q4_K_S.gguf", "mmproj-m-Q4_K_M.gguf",
           "big/m-Q6_K-00001-of-00002.gguf", "big/m-Q6_K-00002-of-00002.gguf")  # fmt: skip
known_module = import_module("nbllm.catalogue.known")


@pytest.fixture
def models(tmp_path, monkeypatch):
    monkeypatch.setenv("NBLLM_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("HF_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    return tmp_path / "models"


@pytest.fixture
def server():
    with serve(CONTENT) as server:
        yield server


@pytest.fixture
def hub(server, monkeypatch):
    """What nbllm uses of huggingface_hub, with one repository: owner/repo. `offered` is what it has."""
    library = ModuleType("huggingface_hub")
    library.offered, library.error, library.token = OFFERED, None, None

    class HfApi:
        def model_info(self, repo, files_metadata):
            assert repo == "owner/repo" and files_metadata
            if library.error:
                raise library.error
            lfs = SimpleNamespace(sha256=SHA256, size=len(CONTENT))
            files = [SimpleNamespace(rfilename=name, size=len(CONTENT), lfs=lfs) for name in library.offered or ()]
            return SimpleNamespace(sha="c0ffee", siblings=files or None)

    library.HfApi = HfApi
    library.get_token = lambda: library.token
    library.hf_hub_url = lambda repo, name, revision: f"{server.url}/{repo}/resolve/{revision}/{name}"
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    return library


def refused(name, *parts):
    with pytest.raises(DownloadError) as error:
        catalogue.pull(name)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(("name", "file"), [
    ("owner/repo", "m-Q4_K_M.gguf"),  # the first that is preferred
    ("owner/repo:q4_k_s", "m-Q4_K_S.gguf"),  # not the longer name
    ("owner/repo:UD-Q4_K_S", "m-UD-Q4_K_S.gguf"),
    ("owner/repo:BF16", "m-BF16.gguf"),
])  # fmt: skip
def test_a_repository_gives_the_file_of_the_block_type_asked_for(hub, server, models, name, file):
    path = catalogue.pull(name)
    assert path == models / "owner/repo" / file == catalogue.find(name) and path.read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == [f"/owner/repo/resolve/c0ffee/{file}"]  # of one revision


def test_a_file_that_is_here_is_not_fetched_again(hub, server, models):
    path, _ = catalogue.pull("owner/repo"), server.requests.clear()
    assert catalogue.pull("owner/repo") == path and server.requests == []
    assert catalogue.pull("owner/repo:BF16") == path.with_name("m-BF16.gguf") and len(server.requests) == 1


def test_a_split_file_comes_whole_and_its_first_part_is_the_model(hub, models):
    seen = []
    path = catalogue.pull("owner/repo:Q6_K", lambda *step: seen.append(step))
    names = [f"m-Q6_K-0000{number}-of-00002.gguf" for number in (1, 2)]
    assert path == models / "owner/repo" / names[0] and sorted(os.listdir(path.parent)) == names
    assert seen == sorted(seen) and seen[-1] == (2 * len(CONTENT),) * 2


@pytest.mark.parametrize("there", [(1,), (2,), (1, 3)])
def test_a_split_file_that_lacks_a_part_is_not_fetched(hub, server, models, there):
    hub.offered = [f"big/m-Q6_K-0000{number}-of-00003.gguf" for number in there]
    refused("owner/repo:Q6_K", f"has {len(there)} of the 3 parts of {hub.offered[0]}")
    assert server.requests == []


def test_a_file_that_is_there_whole_and_split_is_fetched_once(hub, server, models):
    hub.offered = ["m-Q6_K-00001-of-00002.gguf", "m-Q6_K-00002-of-00002.gguf", "m-Q6_K.gguf"]
    catalogue.pull("owner/repo:Q6_K")
    assert os.listdir(models / "owner/repo") == ["m-Q6_K.gguf"]


def test_a_repository_of_which_no_files_are_told_is_one_line(hub, models):
    hub.offered = None
    refused("owner/repo", "owner/repo does not have a GGUF file", "it has no GGUF file")


def test_the_hubs_checksum_counts(hub, server, models):
    server.content = CONTENT[:-1] + b"x"
    refused("owner/repo", "m-Q4_K_M.gguf arrived damaged")


def test_a_block_type_that_is_not_there_is_told_with_those_that_are(hub, models):
    refused("owner/repo:Q4_K", "owner/repo does not have Q4_K", "m-Q4_K_M.gguf", "m-Q6_K.gguf")
    hub.offered = ("README.md", "model.safetensors")
    refused("owner/repo", "it has no GGUF file")


@pytest.mark.parametrize(("error", "said"), [
    (type("GatedRepoError", (OSError,), {})("401 Client Error.\n\nAccess to ..."), "accepted"),
    (type("RepositoryNotFoundError", (OSError,), {})("404"), "there is no such repository"),
    (type("ConnectError", (Exception,), {})("[Errno -2] Name or service not known\nmore"), "Name or service not known"),
    (RuntimeError(), "RuntimeError"),
])  # fmt: skip
def test_what_the_library_raises_is_one_line(hub, models, error, said):
    hub.error = error
    refused("owner/repo", "could not look into owner/repo on the hub: ", said)


def test_without_the_library_the_line_names_the_extra(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("owner/repo", "pip install 'nbllm[hub]'")


def test_the_users_token_goes_along(hub, server, models):
    hub.token = "hf_x"
    catalogue.pull("owner/repo")
    assert server.requests[0][1]["authorization"] == "Bearer hf_x"


def test_a_catalogues_model_is_the_file_that_it_knows(hub, models, monkeypatch):
    model = replace(
        next(model for model in catalogue.KNOWN if model.repo and model.runs), name="test", aliases=(),
        repo="owner/repo", file="m-Q4_K_S.gguf", size=len(CONTENT), checksum=f"sha256:{SHA256}",
    )  # fmt: skip
    monkeypatch.setattr(known_module, "KNOWN", (catalogue.DEFAULT, model))
    assert catalogue.pull("test") == models / "m-Q4_K_S.gguf" == catalogue.find("test")
    monkeypatch.setattr(known_module, "KNOWN", (catalogue.DEFAULT, replace(model, size=5)))
    refused("test", "no more the file that the catalogue knows", f"nbllm pull owner/repo:{model.blocks}")
    monkeypatch.setattr(known_module, "KNOWN", (catalogue.DEFAULT, replace(model, checksum=f"sha256:{'0' * 64}")))
    refused("test", "arrived damaged")


def test_find_does_not_go_to_the_hub(hub, server, models):
    with pytest.raises(ModelNotFoundError, match="nbllm pull owner/repo:Q4_K_M"):
        catalogue.find("owner/repo:Q4_K_M")
    assert server.requests == []


REAL = """
import sys
from nbllm import catalogue
from nbllm.errors import DownloadError
print(catalogue.pull("owner/repo:Q4_K_S").name)
for name in ("owner/none", "owner/gated"):
    try:
        catalogue.pull(name)
    except DownloadError as error:
        print(error)
"""


@pytest.mark.skipif(not importlib.util.find_spec("huggingface_hub"), reason="the extra huggingface_hub is not here")
def test_the_real_library_gives_what_is_used_of_it(server, models, monkeypatch):
    lfs = {"sha256": SHA256, "size": len(CONTENT), "pointerSize": 9}
    files = [{"rfilename": name, "size": len(CONTENT), "blobId": "b", "lfs": lfs} for name in OFFERED]
    info = {"_id": "1", "id": "owner/repo", "modelId": "owner/repo", "sha": "c0ffee", "siblings": files}
    server.pages["/api/models/owner/repo"] = json.dumps(info).encode()
    server.refusals = {"/api/models/owner/none": (404, "RepoNotFound"), "/api/models/owner/gated": (403, "GatedRepo")}
    environment = os.environ | {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_x"}
    ran = subprocess.run([sys.executable, "-c", REAL], env=environment, capture_output=True, text=True, timeout=100)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == "m-Q4_K_S.gguf" and (models / "owner/repo" / lines[0]).read_bytes() == CONTENT
    assert lines[1:] == [
        "could not look into owner/none on the hub: there is no such repository, or it is not public",
        "could not look into owner/gated on the hub: it wants its licence accepted on its page first, and you logged "
        "in (`hf auth login`)",
    ]
    fetched = [(path, headers["authorization"]) for path, headers in server.requests if "/resolve/" in path]
    assert fetched == [("/owner/repo/resolve/c0ffee/m-Q4_K_S.gguf", "Bearer hf_x")]
