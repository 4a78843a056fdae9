"""What strangers may give to nbllm, for `guided.py`: what to begin with, how it is damaged with a knowledge of its
form, and how it is used.

An input may be several files: their bytes, with MARK between them. Knows nothing of how inputs are chosen.
"""

import hashlib
import json
import lzma
import re
from collections.abc import Callable
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import cache
from io import StringIO
from pathlib import Path

import architectures
import tiny_gguf
from fuzz import outcome
from fuzz.damage import damaged
from fuzz.seeds import names, seeds
from unit.test_template import CONVERSATION, HOSTILE

import nbllm
from nbllm.chat import kept, sandbox, saved, styles
from nbllm.chat.conversation import Chat
from nbllm.chat.stats import plot, rows
from nbllm.chat.template import render
from nbllm.runtime.weights import packed_cache

MARK = b"\n--- another file ---\n"


@dataclass(frozen=True)
class Target:
    seeds: Callable  # folder -> what to begin with: list of bytes
    damage: Callable  # draw, raw, mutate -> bytes; `mutate` is what the fuzzer itself would do to bytes
    use: Callable  # folder, raw -> what came of it; an error that is no NbLLMError is a finding


# Models


def _models(folder):
    """Those that `case` damages, and all other architectures, and an alignment of its own."""
    others = [architectures.write(model, folder / "m.gguf").read_bytes() for model in architectures.MODELS.values()]
    metadata, tensors = tiny_gguf.llama(layers=1)
    aligned = tiny_gguf.gguf_bytes(metadata | {"general.alignment": 64}, tensors)
    return [MARK.join(parts) for parts in seeds().values()] + others + [aligned]


def _damage_model(draw, raw, mutate):
    parts = raw.split(MARK)
    i = draw.randrange(len(parts))
    parts[i] = damaged(draw, parts[i]) if draw.random() < 0.6 else mutate(parts[i])
    return MARK.join(parts)


def _use_model(folder, raw):
    parts = raw.split(MARK)[:2]
    alike = names("gguf3") if len(parts) == 1 else names("split" if raw[:4] == b"GGUF" else "ggmf")
    return outcome.model(_put(folder, dict(zip(alike, parts, strict=True))), json=len(raw) % 2 == 0)


# Conversations, and the caches that are kept with them


VALUES = ("null", "true", "-1", "1e999", "NaN", "9" * 30, "[", "{}", '"', "\\ud800", "\\u0000", ",", "\n", "\u2028",
          '"role": "system"', '"role": "user"', '"stats": {', '"reasoning_content": "x"', "<think>")  # fmt: skip


@cache
def _model(folder):
    return nbllm.load(tiny_gguf.write_llama(folder / "tiny.gguf", context=256), threads=1)


def _conversations(folder):
    one, path = Chat(_model(folder), "Be brief.", seed=1, max_tokens=4), folder / "talk.jsonl"
    one("hello the moon")
    one("and <b>then</b>?")
    one.save(path, cache=True)
    told, cached = path.read_bytes(), kept.beside(path).read_bytes()
    return [told, MARK.join([told, cached])]


def _damage_sealed(draw, raw, mutate):
    """Changes a file, and mostly has its header say what its length and hash are now."""
    parts = raw.split(MARK)
    i = draw.randrange(len(parts))
    head = parts[i].find(b"\n") + 1
    what, body = parts[i][:head], parts[i][head:]
    if draw.random() < 0.3:
        what = mutate(what) if draw.random() < 0.9 else b"[" * len(what)
    else:
        body = draw.choice((damaged(draw, body), mutate(body), _spliced(draw, body, VALUES)))
    parts[i] = (_sealed(what, body) if draw.random() < 0.8 else what) + body
    return MARK.join(parts)


def _sealed(head, body):
    try:
        header = json.loads(head)
        facts = {"bytes": len(body), "size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
        header |= {name: fact for name, fact in facts.items() if name in header}
    except (ValueError, TypeError, RecursionError):
        return head
    return json.dumps(header).encode().ljust(len(head) - 1) + b"\n"


def _use_conversation(folder, raw):
    kept.beside(folder / "talk.jsonl").unlink(missing_ok=True)
    path = _put(folder, dict(zip(("talk.jsonl", "talk.jsonl" + kept.ENDING), raw.split(MARK), strict=False)))
    one = Chat(_model(folder), temperature=0, max_tokens=2)
    with redirect_stderr(StringIO()) as notices:
        one.load(path)
    notice = notices.getvalue()
    assert notice.count("\n") <= 1 and len(notice) < 400, f"a notice of several lines: {notice[:300]}"
    assert isinstance(one.transcript.markdown() + str(rows(one.transcript)) + str(plot(one.transcript)), str)
    saved.save(one.transcript, folder / "again.jsonl")
    assert saved.load(folder / "again.jsonl") == one.transcript, "saved again, it is another conversation"
    one("hello")
    return "answered"


# Chat templates

SNIPPETS = re.split("\n|  ", """\
{% for m in messages %}  {% endfor %}  {% if m.role == 'user' %}  {% else %}  {% endif %}  {{ m.content }}
{{ x }}  {% set x = x ~ x %}  {% set ns = namespace(x=1) %}  {% set ns.x = ns.x + 1 %}  {% macro f(x) %}
{% endmacro %}  {{ f(1) }}  |trim  |join(',')  |list  |map('upper')  |tojson(indent=2)  |length  |sort
|dictsort  |safe  |replace('a', 'bb')  |indent(4)  |int  |batch(3)  .format(1)  .split(',')  [::-1]  [0]  ['a']
.__class__  'a' * 9  ** 9  %s  -1  none  true  loop.index  loop.cycle(1)  range(9)  dict(a=1)
{% filter upper %}  {% endfilter %}  {% call f() %}  {% endcall %}  {% set x %}  {% endset %}  {% block b %}
{% endblock %}  {% raw %}  {% endraw %}  {# #}  {%- -%}  {{- -}}  {% break %}  {% generation %}
{% endgeneration %}  raise_exception('x')  strftime_now('%d')  {% include 'x' %}  {% extends 'x' %}
{% with x = 1 %}  {% endwith %}   in   not   and   or   is defined   recursive """)


def _templates(folder):
    own = [value.template for value in vars(styles).values() if isinstance(value, styles.Style)]
    packed = (Path(__file__).parents[1] / "data" / "chat_templates.json.xz").read_bytes()
    real = json.loads(lzma.decompress(packed))["cases"]
    return [text.encode() for text in (*own, *(case["template"] for case in real), *HOSTILE.values())]


def _damage_template(draw, raw, mutate):
    return mutate(raw) if draw.random() < 0.4 else _spliced(draw, raw, SNIPPETS)


def _use_template(folder, raw):
    sandbox.SECONDS = 0.05  # for as many more inputs
    messages = [message.copy() for message in CONVERSATION]
    text = render(raw.decode(errors="replace"), messages, "<s>", "</s>")
    assert isinstance(text, str) and messages == CONVERSATION, "it changed the conversation"
    return "rendered"


# Packed weights


@cache
def _packed(folder):
    """A model file, and where its packed weights are."""
    path = _put(folder, {"m.gguf": seeds()["gguf3"][0]})
    packed_cache.folder = lambda: folder / "packed"
    with nbllm.load(path, threads=1, progress=lambda done, total: None):
        return path, next(packed_cache.folder().iterdir())


def _use_packed(folder, raw):
    path, place = _packed(folder)
    _put(place.parent, {place.name: raw})
    packed_cache.entries(place.parent)
    return outcome.model(path)


def _spliced(draw, raw, words):
    """With one of these words, or a part of itself, put in, mostly instead of nothing."""
    start, end = sorted(draw.choices(range(len(raw) + 1), k=2))
    new = draw.choice(words).encode() if draw.random() < 0.7 else raw[start:end]
    return raw[:start] + new + raw[start if draw.random() < 0.8 else end :]


def _put(folder, files):
    """Write files, and return the path of the first."""
    for name, raw in files.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(raw)
    return folder / next(iter(files))


TARGETS = {
    "model": Target(_models, _damage_model, _use_model),
    "conversation": Target(_conversations, _damage_sealed, _use_conversation),
    "template": Target(_templates, _damage_template, _use_template),
    "packed": Target(lambda folder: [_packed(folder)[1].read_bytes()], _damage_sealed, _use_packed),
}
