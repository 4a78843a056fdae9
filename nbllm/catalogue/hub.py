"""What a repository on the Hugging Face hub has: which file is meant, where it is, and its checksum. Fetches no file.

huggingface_hub knows the hub's address (HF_ENDPOINT), and the user's token; it is asked for by `pip install
"nbllm[hub]"`, and imported only here and now.
"""

from nbllm.catalogue.fetch import Remote
from nbllm.catalogue.find import has_quant
from nbllm.catalogue.known import KnownModel
from nbllm.catalogue.places import SPLIT
from nbllm.errors import DownloadError

PREFERENCE = ("Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1", "IQ4_XS", "Q5_K_M", "Q5_0", "Q6_K", "Q8_0", "Q3_K_M", "BF16", "F16")
TROUBLE = {  # an error of the library -> what it means for the user
    "GatedRepoError": "it wants its licence accepted on its page first, and you logged in (`hf auth login`)",
    "RepositoryNotFoundError": "there is no such repository, or it is not public",
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set",
    "HFValidationError": "this is no name of a repository",
}


def files(repo: str, quant: str | None = None, model: KnownModel | None = None) -> list[Remote]:
    """The files of a model in a repository, more than one if it is split.

    Parameters
    ----------
    repo : str
        owner/repo
    quant : str, optional
        A block type as file names have it, such as Q4_K_M; by default the first of `PREFERENCE` that there is.
    model : KnownModel, optional
        Then its file is the one.

    Raises
    ------
    DownloadError
        huggingface_hub is not installed, or the hub does not answer, or has no such repository or file.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise DownloadError(f"to fetch from {repo}, first: pip install 'nbllm[hub]'") from None
    try:
        info = huggingface_hub.HfApi().model_info(repo, files_metadata=True)
        token = huggingface_hub.get_token()
    except Exception as error:  # the library's own, and those of what it is built on
        lines = str(error).strip().splitlines() or [type(error).__name__]
        why = TROUBLE.get(type(error).__name__, f"{lines[0]}; try again when online")
        raise DownloadError(f"could not look into {repo} on the hub: {why}") from error
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    offered = {}  # (name without the split, of how many parts, "" if it is none) -> the parts
    for file in sorted(info.siblings or (), key=lambda file: file.rfilename):
        if file.rfilename.lower().endswith(".gguf") and "mmproj" not in file.rfilename.lower():
            split = SPLIT.search(file.rfilename)
            offered.setdefault((SPLIT.sub("", file.rfilename), split[2] if split else ""), []).append(file)
    chosen = _choose(repo, offered, quant, model)
    _check_whole(repo, chosen)
    if model and chosen[0].size != model.size:
        raise DownloadError(
            f"{model.file} in {repo} is no more the file that the catalogue knows; "
            f"`nbllm pull {repo}:{model.blocks}` takes it as it is"
        )
    return [
        Remote(
            file.rfilename.rpartition("/")[2],
            huggingface_hub.hf_hub_url(repo, file.rfilename, revision=info.sha),
            file.size,
            model and model.checksum or file.lfs and f"sha256:{file.lfs.sha256}",
            headers,
        )
        for file in chosen
    ]


def _choose(repo, offered, quant, model):
    if model:
        wanted = [each for each in offered if each[0] == model.file]
    else:
        for block_type in [quant] if quant else PREFERENCE:
            wanted = [each for each in offered if has_quant(each[0].rpartition("/")[2], block_type)]
            if wanted:
                break
    if not wanted:
        has = ", ".join(name.rpartition("/")[2] for name, _ in offered) or "no GGUF file"
        what = model.file if model else quant or "a GGUF file of a block type that is computed"
        raise DownloadError(f"{repo} does not have {what}; it has {has}"[:500])
    return offered[min(wanted, key=lambda each: (len(each[0]), each[1]))]


def _check_whole(repo, parts):
    """Of a split file, that all parts are there: else it would be fetched, and then be of no use."""
    split = SPLIT.search(parts[0].rfilename)
    has = [int(SPLIT.search(file.rfilename)[1]) for file in parts if split]
    if split and has != [*range(1, int(split[2]) + 1)]:
        raise DownloadError(
            f"{repo} has {len(has)} of the {int(split[2])} parts of {parts[0].rfilename}: name another block type, "
            "as in owner/repo:Q4_0"
        )
