"""Messages to the prompt's token ids, such that only the template's author writes special tokens.

Every special token that stands in a message's text is fenced before the template is rendered, and the fences are taken
out when the text becomes ids. All other text stays as it is, so templates can trim it, split it and look into it. Knows
nothing of caches or replies.
"""

import re

from nbllm.chat.template import CHATML, render

FENCE = "\ud800"  # half of a surrogate pair: no text that can be encoded holds it


class PromptEncoder:
    """Renders messages with a chat template, and encodes what was rendered.

    Attributes
    ----------
    notice : str or None
        What the user should know about the template.
    """

    def __init__(self, template: str | None, tokenizer):
        self.notice = None if template else "The model file has no chat template; the common ChatML form is used."
        self._template = template or CHATML
        self._tokenizer = tokenizer
        self._ids = {tokenizer.decode([id]): id for id in sorted(tokenizer.special_ids)}  # text -> id
        longest_first = "|".join(re.escape(text) for text in sorted(self._ids, key=len, reverse=True) if text)
        self._special = re.compile(f"({longest_first})(?!{FENCE})" if longest_first else "(?!)()")

    def fence(self, text: str) -> str:
        """The text, its special tokens made plain: a fence after every character of each."""
        plain = text.replace(FENCE, "\ufffd")
        return self._special.sub(lambda match: FENCE.join(match[0]) + FENCE, plain)

    def render(self, messages) -> str:
        """The prompt's text, fenced, up to where the assistant's reply begins."""
        fenced = [{"role": message["role"], "content": self.fence(message["content"])} for message in messages]
        bos, eos = self._text(self._tokenizer.bos_id), self._text(self._tokenizer.eos_id)
        return render(self._template, fenced, bos, eos)

    def encode(self, text: str, start=True) -> list[int]:
        """Token ids of fenced text.

        start : whether the text begins a sequence; then it gets the one BOS that the model file asks for, unless the
        template wrote it.
        """
        ids = []
        for part in self._special.split(text):
            ids += [self._ids[part]] if part in self._ids else self._tokenizer.encode(part.replace(FENCE, ""), False)
        bos = self._tokenizer.bos_id
        return [bos, *ids] if start and self._tokenizer.add_bos and ids[:1] != [bos] else ids

    def _text(self, id):
        return "" if id is None else self._tokenizer.decode([id])
