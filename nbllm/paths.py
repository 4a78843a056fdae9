"""A path as the user wrote it, with the home folder in place of `~`. Knows nothing of what is there."""

from pathlib import Path

from nbllm.errors import NbLLMError


def expanded(path, kind: type[NbLLMError] = NbLLMError) -> Path:
    """The path, with the home folder in place of `~`.

    kind : what is raised when there is no such home folder, or when it is no path at all.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise kind(f"{path} cannot be found: there is no such home folder; write the whole path") from error
    except TypeError as error:
        raise kind(f"{path!r:.80} is no path; give a string or a Path") from error
