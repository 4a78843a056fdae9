"""What a session's conversations should be, and what the Jupyter kernel says that they are. Knows nothing of turns."""

import zlib

# Runs in the Jupyter kernel: keeps the handles of all jobs, and says what became of them and of the conversations.
IN_KERNEL = '''
def _soak():
    import time, zlib
    from nbllm.jupyter.config import settings
    from nbllm.jupyter.session import session
    from nbllm.chat.conversation import Notice
    from nbllm.runtime.events import Done
    from nbllm.text import Text

    current, handles = session(settings(get_ipython())), []
    submit = current.submit

    def kept(*arguments, **named):
        handles.append(submit(*arguments, **named))
        return handles[-1]

    current.submit = kept

    def outcome(handle):
        of = {kind: [event for event in handle.events if isinstance(event, kind)] for kind in (Text, Notice, Done)}
        return {
            "text": "".join(event.text for event in of[Text]),
            "notices": [event.text for event in of[Notice]],
            "reason": of[Done][-1].finish_reason if of[Done] else None,
            "error": f"{type(handle._error).__name__}: {handle._error}" if handle._error else None,
        }

    def pairs(transcript):
        return [[q["content"], a["content"]] for q, a in zip(transcript.messages[::2], transcript.messages[1::2])]

    def digest(transcript):
        return [len(transcript.messages) / 2, zlib.crc32("\\0".join(text for pair in pairs(transcript) for text in pair)
                                                         .encode("utf-8", "surrogatepass"))]

    def state(whole=False):
        while current.busy:
            time.sleep(0.01)
        shelf, model = current.shelf, current.model
        jobs = [outcome(handle) for handle in handles]
        handles.clear()
        last = pairs(shelf.current)[-1:]
        return {
            "name": shelf.name,
            "digests": {name: digest(transcript) for name, transcript in shelf.conversations.items()},
            "last": last[0] if last else None,
            "whole": {name: pairs(transcript) for name, transcript in shelf.conversations.items()} if whole else None,
            "model": str(model.path) if model else None,
            "context": model.context if model else None,
            "jobs": jobs,
        }

    def kept_text():
        said = sum(len(m["content"]) for t in current.shelf.conversations.values() for m in t.messages)
        return [said, sum(map(len, In))]

    def heap():
        """MB that C's allocator has given out, and that it keeps; None of another than glibc's."""
        import ctypes
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
        figures = type("Figures", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names]})
        tell = getattr(ctypes.CDLL(None), "mallinfo2", None)
        if tell is None:
            return None
        tell.restype = figures
        told = tell()
        return [(told.uordblks + told.hblkhd) / 1e6, told.fordblks / 1e6]

    return state, kept_text, heap
soak_state, soak_kept_text, soak_heap = _soak()
'''


class Fault(Exception):
    """What is not as it should be, in a line."""


class Expected:
    """The conversations by name, each a list of (question, answer), as they should be after what was done."""

    def __init__(self):
        self.conversations = {"1": []}
        self.name = "1"

    @property
    def current(self):
        return self.conversations[self.name]

    def asked(self, question, answer, dropped=0, again=False):
        """A reply came; again : in place of the last one."""
        before = self.current[:-1] if again else self.current
        self.conversations[self.name] = [*before[dropped:], (question, answer)]

    def undo(self, count):
        del self.current[len(self.current) - count :]

    def begin(self, name, exchanges=(), leave=True):
        """Another conversation, which must be new, goes on."""
        if leave:
            self.leave()
        if name in self.conversations:
            raise Fault(f"the new conversation is called {name!r}, as another one is")
        self.name, self.conversations[name] = name, list(exchanges)

    def switch(self, name):
        if name != self.name:
            self.leave()
        self.name = name

    def leave(self):
        if not self.current and self.name.isdecimal():
            del self.conversations[self.name]

    def compare(self, state):
        """Raises Fault where the Jupyter kernel has something else."""
        ours = {name: digest(pairs) for name, pairs in self.conversations.items()}
        if state["name"] != self.name:
            raise Fault(f"conversation {state['name']!r} goes on, and it should be {self.name!r}")
        if state["digests"] != ours:
            others = [name for name in ours | state["digests"] if ours.get(name) != state["digests"].get(name)]
            told = {name: (ours.get(name), state["digests"].get(name)) for name in others[:3]}
            raise Fault(f"conversations differ, (expected, found): {told}")

    def adopt(self, state):
        """Take what is there, after a fault."""
        self.name = state["name"]
        self.conversations = {name: [tuple(pair) for pair in pairs] for name, pairs in state["whole"].items()}


def digest(pairs):
    """How many exchanges, and a checksum of what was said."""
    return [len(pairs), zlib.crc32("\0".join(text for pair in pairs for text in pair).encode("utf-8", "surrogatepass"))]
