"""How a question is put to a model whose file has no chat template: as the models of its family were trained.

The forms are those of the models' own publications. Which is right is told by the name of the model, else by
the special tokens of its vocabulary. Knows nothing of tokens' ids and conversations.
"""

import re
from dataclasses import dataclass
from json import dumps


@dataclass(frozen=True)
class Style:
    """One form of prompt.

    Attributes
    ----------
    name : str
        As the notice calls it.
    template : str
        Jinja source, as `tokenizer.chat_template` has it.
    stop : tuple of str
        With which the user's next turn begins. Plain text has no token for the end of a reply that could not be missed.
    """

    name: str
    template: str
    stop: tuple[str, ...] = ()


def _turns(system, user, assistant, opening="", bos=""):
    """A template: what stands before and after the content of each kind of message.

    opening : what stands in the place of a system message if there is none.
    """
    pieces = [f"{{{{ {dumps(before)} + message['content'] + {dumps(after)} }}}}" for before, after in (system, user)]
    before, after = assistant
    ended = dumps(after) if after is not None else "eos_token"
    return (
        (f"{{{{ {dumps(bos)} }}}}" if bos else "")
        + f"{{% if messages[0]['role'] != 'system' %}}{{{{ {dumps(opening)} }}}}{{% endif %}}"
        + f"{{% for message in messages %}}{{% if message['role'] == 'system' %}}{pieces[0]}"
        + f"{{% elif message['role'] == 'user' %}}{pieces[1]}"
        + f"{{% else %}}{{{{ {dumps(before)} + message['content'] + {ended} }}}}{{% endif %}}{{% endfor %}}"
        + f"{{% if add_generation_prompt %}}{{{{ {dumps(before.rstrip(' '))} }}}}{{% endif %}}"
    )


CHATML = Style(
    "ChatML",
    _turns(*(("<|im_start|>" + role + "\n", "<|im_end|>\n") for role in ("system", "user", "assistant"))),
)
ALPACA = Style(
    "Alpaca",
    _turns(
        ("", "\n\n"),
        ("### Instruction:\n", "\n\n"),
        ("### Response:\n", "\n\n"),
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n",
    ),
    ("### Instruction:",),
)
GPT4ALL = Style(
    "GPT4All",
    _turns(
        ("### Instruction:\n", "\n"),
        ("### Prompt:\n", "\n"),
        ("### Response:\n", "\n"),
        "### Instruction:\nThe prompt below is a question to answer, a task to complete, or a conversation to "
        "respond to; decide which and write an appropriate response.\n",
    ),
    ("### Prompt:", "### Instruction:"),
)
VICUNA = Style(
    "Vicuna",
    _turns(
        ("", " "),
        ("USER: ", " "),
        ("ASSISTANT: ", None),
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. ",
    ),
    ("USER:",),
)
HUMAN = Style(
    "Human and Assistant",
    _turns(("### System: ", "\n"), ("### Human: ", "\n"), ("### Assistant: ", "\n")),
    ("### Human:",),
)
WIZARD = Style("WizardLM", _turns(("", "\n\n"), ("", "\n\n"), ("### Response: ", "\n\n")), ("### Response:",))
LLAMA2 = Style("Llama 2", _turns(("", "\n"), ("[INST] ", " [/INST]"), (" ", None)), ("[INST]",))
LLAMA3 = Style(
    "Llama 3",
    _turns(
        *(
            (f"<|start_header_id|>{role}<|end_header_id|>\n\n", "<|eot_id|>")
            for role in ("system", "user", "assistant")
        ),
        bos="<|begin_of_text|>",
    ),
)
GEMMA = Style(
    "Gemma",
    _turns(
        ("<start_of_turn>user\n", "<end_of_turn>\n"),
        ("<start_of_turn>user\n", "<end_of_turn>\n"),
        ("<start_of_turn>model\n", "<end_of_turn>\n"),
        bos="<bos>",
    ),
)
PHI3 = Style("Phi-3", _turns(*((f"<|{role}|>\n", "<|end|>\n") for role in ("system", "user", "assistant"))))

# What is found first in the name of the model or of its file, in small letters.
BY_NAME = (
    (r"stable-?vicuna|guanaco|oasst", HUMAN),
    (r"gpt4all-lora|alpaca|nous-?hermes|gpt4-?x", ALPACA),
    (r"wizardlm-?7b", WIZARD),
    (r"gpt4all|groovy|snoozy|gpt-?j", GPT4ALL),
    (r"vicuna|wizard", VICUNA),
    (r"llama-?2.*chat|mi[sx]tral.*instruct", LLAMA2),
)
# A special token that only models of one family have.
BY_TOKEN = {
    "<|im_start|>": CHATML,
    "<|start_header_id|>": LLAMA3,
    "<start_of_turn>": GEMMA,
    "<|assistant|>": PHI3,
}


def style(name: str, specials) -> Style:
    """The form for a model of this name with these special tokens; the most common one where nothing tells."""
    for pattern, found in BY_NAME:
        if re.search(pattern, name.lower()):
            return found
    return next((found for token, found in BY_TOKEN.items() if token in specials), CHATML)
