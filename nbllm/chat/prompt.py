"""Messages to the prompt's token ids, such that only the template's author writes special tokens.

Every special token that stands in a message's text is fenced before the template is rendered, and the fences are taken
out when the text becomes ids. All other text stays as it is, so templates can trim it, split it and look into it. Knows
nothing of caches or replies.
"""

from functools import cached_property

from nbllm.chat.sandbox import LIMIT
from nbllm.chat.styles import style
from nbllm.chat.template import SOURCE, render
from nbllm.errors import ContextFullError, OptionError
from nbllm.tokenizers import Prefixes, unwatched

FENCE = "\ud800"  # half of a surrogate pair: no text that can be encoded holds it
CHARACTERS = LIMIT - SOURCE  # of a conversation: with as much as templates have of their own, the sandbox lets it pass


class PromptEncoder:
    """Renders messages with a chat template, and encodes what was rendered.

    Parameters
    ----------
    template : str or None
        The model file's own; without one, the form of the model's family is used.
    tokenizer : Tokenizer
    name : str
        The model's, which tells its family.

    Attributes
    ----------
    notice : str or None
        What the user should know about the template.
    stop : tuple of str
        With which the user's next turn would begin, where no token ends a reply.
    """

    def __init__(self, template: str | None, tokenizer, name=""):
        self._tokenizer = tokenizer
        self._ids = {tokenizer.decode([id]): id for id in sorted(tokenizer.special_ids)}  # text -> id
        self.notice, self.stop, self._template = None, (), template
        if template is None or isinstance(template, str) and not template:
            form = style(name, self._ids)
            self.notice = f"The model file has no chat template; the {form.name} form is used."
            self.stop, self._template = form.stop, form.template
        self._special = Prefixes(self._ids)
        named = {tokenizer.bos_id, tokenizer.eos_id}
        self._specials = [text for text, id in self._ids.items() if id not in named]

    def fence(self, text: str, look=unwatched) -> str:
        """The text, its special tokens made plain: a fence after every character of each."""
        plain, parts, at = text.replace(FENCE, "\ufffd"), [], 0
        for begin in self._special.places(plain, look):
            found = self._special.at(plain, begin) if begin >= at else ""
            if found:
                parts += plain[at:begin], FENCE.join(found), FENCE
                at = begin + len(found)
        return "".join([*parts, plain[at:]])

    def render(self, messages, look=unwatched) -> str:
        """The prompt's text, fenced, up to where the assistant's reply begins; ContextFullError when no template could
        be given so much."""
        if messages[0]["role"] == "system" and not self.takes_system:
            system, first, *rest = messages
            messages = [{**first, "content": f"{system['content']}\n{first['content']}"}, *rest]
        fenced = [
            {key: text if key == "role" else self.fence(text, look) for key, text in one.items()} for one in messages
        ]
        size = sum(len(one["content"]) for one in fenced)
        if size > CHARACTERS:
            raise ContextFullError(
                f"the conversation has {size:,} characters, and {CHARACTERS:,} are the most that fit in a prompt; "
                "shorten the message"
            )
        return self._render(fenced, look)

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template has a place for a system message. Some refuse it, some leave it out without a word."""
        try:
            return FENCE in self._render([{"role": "system", "content": FENCE}, {"role": "user", "content": "x"}])
        except OptionError:
            return False

    def encode(self, text: str, start=True, look=unwatched) -> list[int]:
        """Token ids of fenced text.

        start : whether the text begins a sequence; then it gets the one BOS that the model file asks for, unless the
        template wrote it.
        """
        plain, fenced = [], bytearray()  # characters; for each of them, whether a fence follows it
        for char in text.split(FENCE):
            plain.append(char)
            fenced += bytes(max(0, len(char) - 1)) + b"\1" * bool(char)
        if plain[-1]:
            fenced[-1] = 0

        def reach(begin, end):
            fence = fenced.find(1, begin, end)
            return end if fence < 0 else fence

        ids = self._tokenizer.encode("".join(plain), reach, start, look)
        bos = self._tokenizer.bos_id
        return [bos, *ids] if start and self._tokenizer.add_bos and ids[:1] != [bos] else ids

    def _render(self, messages, look=unwatched):
        bos, eos = self._text(self._tokenizer.bos_id), self._text(self._tokenizer.eos_id)
        return render(self._template, messages, bos, eos, specials=self._specials, look=look)

    def _text(self, id):
        return "" if id is None else self._tokenizer.decode([id])
