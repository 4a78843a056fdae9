"""What of a conversation fits in the model's context: its prompt, as text and as ids, and what to drop when it is full.

A follow-up turn continues what the engine has in its cache, token for token. For that, the ids of all that was read and
generated are kept, since text that is tokenized again may come out as other ids. When the template only appends (the
new prompt's text starts with the old prompt and the reply, as is usual), only the text after that is encoded and put
behind those ids. When it does not, all is encoded anew, and whatever prefix still agrees is reused. The ids are kept
for every turn, so that one that is taken back or asked again goes on from the turn before it.

Knows nothing of replies and of who asks.
"""

from bisect import bisect_left

from nbllm.chat.prompt import FENCE
from nbllm.errors import ContextFullError, need
from nbllm.tokenizers import unwatched


class Context:
    """
    Parameters
    ----------
    model : Model
    prompts : PromptEncoder

    Attributes
    ----------
    reads : list of (str, list of int)
        After each reply: the text, fenced, and the ids of all that was read and written until then.
    """

    def __init__(self, model, prompts):
        self._model, self._prompts = model, prompts
        self.reads = []

    def read(self, text: str) -> tuple[str, list[int]] | None:
        """Of this text, fenced, as much as was read and written before, and its ids."""
        return next((read for read in reversed(self.reads) if text.startswith(read[0])), None)

    def keep(self, text: str, ids: list[int], written: str, generated: list[int]):
        """Remember what the cache holds: the prompt, and what was written after it."""
        if not written:
            return
        fenced = self._prompts.fence(written)
        if self._model.tokenizer.decode(generated, start=False) != written:
            # cut before a stop string, or in a character
            generated = self._prompts.encode(fenced, start=False)
        before = [read for read in self.reads if text.startswith(read[0])]  # of this conversation
        self.reads = [*before, (text + fenced, ids + generated)]

    def prompt(self, system: str | None, messages: list[dict], look=unwatched) -> tuple[str, list[int]]:
        """The text, fenced, and the ids of the prompt for these messages. `look` as of `Model.tokenize`.

        Raises
        ------
        OptionError
            A message is none, or the template refuses them.
        ContextFullError
            They are too long for it to be worth finding out.
        """
        whole = [*([{"role": "system", "content": system}] if system else []), *messages]
        for each in whole:
            good = isinstance(each, dict) and {"role", "content"} <= each.keys()
            good = good and all(isinstance(text, str) for text in each.values())
            need(good, "message", each, "a dict of text, with role and content")
        self._model.check_length("".join(one["content"] for one in whole))
        text = self._prompts.render(whole, look)
        self._model.check_length(text.replace(FENCE, ""))
        before, ids = self.read(text) or ("", [])
        return text, ids + self._prompts.encode(text[len(before) :], not before, look)

    def fitting(self, system, messages, options, overflow, look) -> tuple[list[dict], str, list[int]]:
        """These messages, without the oldest exchanges if the context is full; and their prompt, as of `prompt`.

        Raises
        ------
        ContextFullError
            The last message alone does not fit; or all together do not, and overflow is "stop".
        """
        context = self._model.context
        try:
            text, ids = self.prompt(system, messages, look)
            if len(ids) + self._room(options) <= context:
                return messages, text, ids
            many = f"{len(ids):,}"
        except ContextFullError:
            many = f"more than {context:,}"
        if overflow == "stop" and len(messages) > 1:
            raise ContextFullError(
                f"the conversation and this message make a prompt of {many} tokens, and the context of {context:,} is "
                "full; take exchanges back, start a new conversation, or let the oldest be dropped "
                '(overflow = "drop")'
            )
        return self._shortened(system, messages, look)

    def _room(self, options):
        """How many tokens to keep free for the reply: what was asked for, but at most a quarter of the context."""
        quarter = self._model.context // 4
        return quarter if options.max_tokens is None else min(options.max_tokens, quarter)

    def _shortened(self, system, messages, look):
        """Without its oldest exchanges, so that half of the context is free: the messages, the text and the ids.

        Half, since all that stays must be read again: dropping as little as possible would cost that every turn.
        """
        context = self._model.context

        def enough(dropped):
            try:
                return len(self.prompt(system, messages[2 * dropped :], look)[1]) <= context // 2
            except ContextFullError:
                return False

        # all but the last message may go; halving, for each try reads a conversation that may be very long
        messages = messages[2 * bisect_left(range((len(messages) - 1) // 2), True, key=enough) :]
        text, ids = self.prompt(system, messages, look)
        if len(ids) >= context:
            raise ContextFullError(
                f"the message makes a prompt of {len(ids):,} tokens, and the context holds {context:,}; shorten it, or "
                "load the model with a larger context"
            )
        return messages, text, ids
