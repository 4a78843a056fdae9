"""A model file's chat template, rendered: messages become the prompt's text.

Templates are programs by strangers, so they run in `sandbox.py`, and whatever goes wrong in one becomes one line. Knows
nothing of tokens.
"""

from functools import lru_cache

from jinja2 import TemplateSyntaxError

from nbllm.chat.sandbox import Refusal, Sandbox, check
from nbllm.errors import CLIP, ModelFileError, OptionError
from nbllm.tokenizers import unwatched

SOURCE = 1 << 16  # characters of a template; those in use have up to 17,000


def render(template, messages, bos="", eos="", add_generation_prompt=True, specials=(), look=unwatched):
    """The text of a prompt, as Hugging Face's `apply_chat_template` makes it.

    Parameters
    ----------
    template : str
        Jinja source, `tokenizer.chat_template` of a GGUF file.
    messages : list of dict
        Each with `role` ("system", "user" or "assistant") and `content`; an assistant's may have `reasoning_content`.
    bos, eos : str
        What `bos_token` and `eos_token` are in the template.
    add_generation_prompt : bool
        Whether to end with what comes before an assistant's reply.
    specials : sequence of str
        What `additional_special_tokens` is in the template: the model's special tokens but those that have names.
    look : callable
        Is called now and then, and may raise Stopped to end it.

    Returns
    -------
    str

    Raises
    ------
    OptionError
        The template refuses these messages, as many refuse a system message.
    ModelFileError
        The template is not valid, fails, or asks for too much time or memory.
    """
    variables = {
        "messages": messages,
        "bos_token": bos,
        "eos_token": eos,
        "add_generation_prompt": add_generation_prompt,
        "tools": None,
        "documents": None,
        "additional_special_tokens": list(specials),
    }
    try:
        if not isinstance(template, str):
            raise TypeError(f"it is no text but {type(template).__name__}")
        sandbox, program = _compiled(template)
        return sandbox.run(program, variables, look)
    except Refusal as refusal:
        hint = "; try it without a system message" if messages and messages[0]["role"] == "system" else ""
        raise OptionError(f"the model's chat template refuses the conversation: {_line(refusal)}{hint}") from refusal
    except TemplateSyntaxError as error:
        where = f"is not valid in line {error.lineno}"
        raise ModelFileError(f"the model's chat template {where}: {_line(error.message)}; {NEXT}") from error
    except Exception as error:  # whatever a stranger's program may raise
        reason = _line(error) or type(error).__name__
        raise ModelFileError(f"the model's chat template fails: {reason}; {NEXT}") from error


NEXT = "use another model file"


@lru_cache(8)
def _compiled(template):
    check(len(template), SOURCE, "characters of its own")
    sandbox = Sandbox()
    return sandbox, sandbox.from_string(template)


def _line(error):
    """A stranger's message as one line of bounded length."""
    return " ".join(str(error)[: 2 * CLIP].split())[:CLIP]
