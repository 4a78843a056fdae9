"""Prompts as models expect them: real templates with the text that they make, and the forms of families without one."""

import json
import lzma
from pathlib import Path

import pytest
import tiny_gguf
import vocabularies
from fakes import FakeTokenizer

from nbllm.chat.conversation import Chat, Notice
from nbllm.chat.prompt import PromptEncoder
from nbllm.chat.styles import ALPACA, CHATML, GEMMA, GPT4ALL, HUMAN, LLAMA2, LLAMA3, PHI3, VICUNA, WIZARD, style
from nbllm.chat.template import render
from nbllm.tokenizers import load_tokenizer

RECORDED = json.loads(
    lzma.decompress((Path(__file__).parents[1] / "data" / "chat_templates.json.xz").read_bytes()).decode()
)
CONVERSATION = [{"role": role, "content": content} for role, content in RECORDED["conversation"]]
TWO = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}, {"role": "user", "content": "Oh."}]


class Named(FakeTokenizer):
    """With a BOS and an EOS of these texts, and further special tokens."""

    def __init__(self, bos, eos, specials):
        self.texts = [bos, eos, *specials]
        self.special_ids = frozenset(256 + i for i, text in enumerate(self.texts) if text)
        self.bos_id, self.eos_id = 256 if bos else None, 257 if eos else None

    def decode(self, ids, start=True):
        return self.texts[ids[0] - 256]


@pytest.mark.parametrize("case", RECORDED["cases"], ids=[case["name"] for case in RECORDED["cases"]])
def test_a_conversation_in_a_real_template(case):
    encoder = PromptEncoder(case["template"], Named(case["bos"], case["eos"], case["specials"]))
    extra = [{"role": role, "content": content} for role, content in case["extra"]]
    assert encoder.render(CONVERSATION + extra) == case["text"]


FORMS = {  # form -> how two questions stand in it
    CHATML: "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n<|im_start|>user\nOh.<|im_end|>\n"
    "<|im_start|>assistant\n",
    ALPACA: "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\nWhy?\n\n### Response:\nSo.\n\n### Instruction:\nOh.\n\n### Response:\n",
    GPT4ALL: "### Instruction:\nThe prompt below is a question to answer, a task to complete, or a conversation to "
    "respond to; decide which and write an appropriate response.\n"
    "### Prompt:\nWhy?\n### Response:\nSo.\n### Prompt:\nOh.\n### Response:\n",
    VICUNA: "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: Why? ASSISTANT: So.</s>USER: Oh. ASSISTANT:",
    HUMAN: "### Human: Why?\n### Assistant: So.\n### Human: Oh.\n### Assistant:",
    WIZARD: "Why?\n\n### Response: So.\n\nOh.\n\n### Response:",
    LLAMA2: "[INST] Why? [/INST] So.</s>[INST] Oh. [/INST]",
    LLAMA3: "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|><|start_header_id|>assistant"
    "<|end_header_id|>\n\nSo.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nOh.<|eot_id|><|start_header_id|>"
    "assistant<|end_header_id|>\n\n",
    GEMMA: "<bos><start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\nSo.<end_of_turn>\n<start_of_turn>user\n"
    "Oh.<end_of_turn>\n<start_of_turn>model\n",
    PHI3: "<|user|>\nWhy?<|end|>\n<|assistant|>\nSo.<|end|>\n<|user|>\nOh.<|end|>\n<|assistant|>\n",
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_family_s_form(form):
    assert render(form.template, TWO, "<s>", "</s>") == FORMS[form]
    system = [{"role": "system", "content": "Be brief."}]
    assert "Be brief." in render(form.template, system + TWO, "<s>", "</s>")
    assert "Below is" not in render(form.template, system + TWO, "<s>", "</s>")


@pytest.mark.parametrize(("name", "specials", "form"), [
    ("ggml-gpt4all-j-v1.3-groovy", [], GPT4ALL),
    ("ggml-gpt4all-l13b-snoozy", [], GPT4ALL),
    ("gpt4all-lora-quantized", [], ALPACA),
    ("ggml-vicuna-7b-1.1-q4_2", [], VICUNA),
    ("ggml-stable-vicuna-13B.q4_2", [], HUMAN),
    ("ggml-wizardLM-7B.q4_2", [], WIZARD),
    ("ggml-wizard-13b-uncensored", [], VICUNA),
    ("llama-2-7b-chat", ["<s>"], LLAMA2),
    ("Some-Model", ["<|start_header_id|>"], LLAMA3),
    ("Some-Model", ["<start_of_turn>"], GEMMA),
    ("Some-Model", ["<|assistant|>", "<|end|>"], PHI3),
    ("Some-Model", [], CHATML),
])  # fmt: skip
def test_the_family_is_told_by_the_name_or_a_special_token(name, specials, form):
    assert style(name, specials) is form


def test_a_model_without_a_template_is_asked_in_its_family_s_form_and_stops_at_the_next_question(tmp_path):
    from nbllm.model import load

    path = tiny_gguf.write_llama(tmp_path / "ggml-vicuna-7b.gguf", metadata={"tokenizer.chat_template": ""})
    with load(path) as model:
        chat, options = Chat(model), []
        generate = model.generate
        model.generate = lambda *given, **sampling: options.append(sampling) or generate(*given, **sampling)
        events = list(chat.stream("Hi", max_tokens=2, stop="END"))
        assert events[0] == Notice("The model file has no chat template; the Vicuna form is used.")
        assert options[0]["stop"] == ("END", "USER:")
        assert model.detokenize(chat.sent).endswith("questions. USER: Hi ASSISTANT:")


def test_what_follows_a_reply_is_no_beginning_and_what_follows_a_special_token_is():
    """SentencePiece writes a space before a text; not so in the middle of one."""
    tokenizer = load_tokenizer(vocabularies.read("phi-3") | {"general.name": "a LLaMA"})
    encoder = PromptEncoder("{{ bos_token }}[INST] {{ messages[0].content }} [/INST]", tokenizer)
    whole = encoder.encode(encoder.render([{"role": "user", "content": "Hello</s>"}]))
    assert whole == tokenizer.encode("<s>[INST] Hello", start=True) + tokenizer.encode("</s> [/INST]", False, False)
    assert encoder.encode(" and so on", start=False) == tokenizer.encode(" and so on", start=False)
