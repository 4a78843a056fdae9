"""The architectures: one file each, found by the name that a file gives in `general.architecture`."""

from ...errors import ModelFileError
from ...formats.file import short, where
from .gemma import Gemma
from .gemma2 import Gemma2
from .gemma3 import Gemma3
from .gpt2 import Gpt2
from .gptj import GptJ
from .gptneox import GptNeoX
from .llama import Llama
from .phi2 import Phi2
from .phi3 import Phi3
from .qwen2 import Qwen2
from .qwen2moe import Qwen2Moe
from .qwen3 import Qwen3
from .qwen3moe import Qwen3Moe
from .stablelm import StableLm

ARCHITECTURES = {
    "llama": Llama,
    "gptj": GptJ,
    "gpt2": Gpt2,
    "gptneox": GptNeoX,
    "qwen2": Qwen2,
    "qwen2moe": Qwen2Moe,
    "qwen3": Qwen3,
    "qwen3moe": Qwen3Moe,
    "gemma": Gemma,
    "gemma2": Gemma2,
    "gemma3": Gemma3,
    "phi2": Phi2,
    "phi3": Phi3,
    "stablelm": StableLm,
}


def architecture(metadata):
    """The class for a file.

    Raises
    ------
    ModelFileError
        The file names none, or one that is not here.
    """
    name = metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ModelFileError(
            f"the file's architecture is {short(name)}{where(metadata, 'general.architecture')}, which nbllm does not "
            f"run yet; it runs {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[name]
