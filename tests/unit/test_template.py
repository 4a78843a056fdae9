"""Chat templates: the text they make, and that no template can take Python, all time or all memory."""

import datetime
import itertools
import json
import resource
import sys
import time

import numpy as np
import pytest
from fakes import BOS, CHATML, END, START, FakeTokenizer
from hypothesis import given
from hypothesis import strategies as st

from nbllm.chat.prompt import FENCE, PromptEncoder
from nbllm.chat.styles import CHATML as FALLBACK
from nbllm.chat.template import render
from nbllm.errors import ModelFileError, OptionError, Stopped

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hello {{ 1 }}\n"},
    {"role": "assistant", "content": "Hi <b>there</b> & 'you'"},
    {"role": "user", "content": "存在?"},
]


def test_the_default_models_template_makes_its_prompt(default_model):
    from nbllm.formats.open import open_model

    with open_model(default_model) as gguf:
        template = gguf.metadata["tokenizer.chat_template"]
    assert render(template, CONVERSATION[1:2]) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n Hello {{ 1 }}\n<|im_end|>\n<|im_start|>assistant\n"
    )
    assert render(template, CONVERSATION) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hello {{ 1 }}\n<|im_end|>\n"
        "<|im_start|>assistant\nHi <b>there</b> & 'you'<|im_end|>\n<|im_start|>user\n存在?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("template", [np.array([], np.int32), np.array([1, 2]), ["{{ 1 }}"], [], 0, False])
def test_a_template_that_is_no_text_is_refused(template):
    """As a file may have it; there is then no saying that it has none."""
    encoder = PromptEncoder(template, FakeTokenizer())
    with pytest.raises(ModelFileError, match="template fails: it is no text but [a-z]+; use another model file"):
        encoder.render(CONVERSATION)
    assert encoder.notice is None


def test_the_fallback_is_chatml():
    assert render(FALLBACK.template, CONVERSATION) == render(CHATML, CONVERSATION)
    assert render(FALLBACK.template, CONVERSATION, add_generation_prompt=False).endswith("存在?<|im_end|>\n")


@pytest.mark.parametrize(("template", "text"), [
    ("{{ bos_token }}{{ messages[1].content | trim }}{{ eos_token }}", "<s>Hello {{ 1 }}</s>"),
    ("{% for m in messages %}\n  {% if loop.first %}\n{{ m.role }}\n  {% endif %}\n{% endfor %}", "system\n"),
    ("{% for m in messages %}{% if loop.index > 2 %}{% break %}{% endif %}{{ m.role[0] }}{% endfor %}", "su"),
    ("{% generation %}{{ messages|length }}{% endgeneration %}", "4"),
    ("{{ messages[2].content | tojson }}", '"Hi <b>there</b> & \'you\'"'),
    ("{{ {'b': ['é', 1, none]} | tojson(indent=2) }}", '{\n  "b": [\n    "é",\n    1,\n    null\n  ]\n}'),
    ("{{ strftime_now('%Y') }}", str(datetime.datetime.now().year)),
    ("{{ tools is none and not documents }}", "True"),
    ("{{ 'a,b'.split(',') | join('-') }}{{ ' x '.strip() }}{{ 'aXa'.replace('a', 'b') }}", "a-bxbXb"),
    ("{{ ['x', 2] | join }}{{ '-'.join(messages | map(attribute='role')) }}", "x2system-user-assistant-user"),
    ("{{ 'a{}c{}'.format('b', 1) }}{{ 'x' * 3 }}{{ 2 ** 3 }}{{ 7 % 4 }}{{ 'a' ~ 1 ~ none }}", "abc1xxx83a1None"),
    ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('a') }}{% set y %}{{ f('b') }}{% endset %}{{ y + y }}", "<a><b><b>"),
    ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "4"),
    ("{% for key, value in {'a': 1}.items() %}{{ key }}{{ value }}{% endfor %}", "a1"),
    ("{% set a, b = (1, 2) %}{{ a }}{{ b }}{{ (messages[-1] if 3 in [3]).role }}", "12user"),
    ("{% filter upper %}a{{ 'b' }}{% endfilter %}{{ 'a\nb\n\nc' | indent(2, first=true) }}", "AB  a\n  b\n\n  c"),
    ("{{ messages[0].get('tool_calls') }}{{ messages[0].nothing is defined }}", "NoneFalse"),
    ("{% for i in range(3) %}{{ i }}{% endfor %}{{ messages[::-1][0].role }}", "012user"),
])  # fmt: skip
def test_what_templates_use_works(template, text):
    assert render(template, CONVERSATION, "<s>", "</s>") == text


def assert_refused(template, error=ModelFileError, match="."):
    with pytest.raises(error, match=match) as caught:
        render(template, CONVERSATION)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert "use another model file" in str(caught.value) or error is OptionError


@pytest.mark.parametrize("template", [
    "{{ ''.__class__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__init__.__globals__ }}",
    "{{ raise_exception.__globals__['sys'].modules }}",
    "{{ strftime_now.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "{{ ''|attr('__class__') }}",
    "{{ self.__init__.__globals__ }}{{ self._TemplateReference__context.environment }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__['os'] }}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'x'}) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
])
def test_python_is_out_of_reach(template):
    """Either the template fails, or what it asked for is not there, which is no text."""
    try:
        assert render(template, CONVERSATION) == ""
    except ModelFileError as error:
        assert "\n" not in str(error)
    assert CONVERSATION[0] == {"role": "system", "content": "Be brief."} and len(CONVERSATION) == 4


GROW = "{% set ns = namespace(x='a' * 10000, l=[1]) %}{% for i in range(60) %}STEP{% endfor %}{{ ns.x|length }}"
LARGE = "{% set a = 'a' * 4000000 %}"
HOSTILE = {
    "long loop": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "long range": "{% for i in range(999999999) %}{% endfor %}",
    "long output": "{% for i in range(99999) %}" + "x" * 1000 + "{% endfor %}",
    "deep macro": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "many macros": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "multiplied": "{{ ('a' * 10000000 * 10000) | length }}",
    "multiplied while compiling": "{{ 'a' * 10000000000 }}",
    "multiplied list": "{{ [1, 2] * 1000000000 }}",
    "power": "{{ 9 ** 999999999 }}",
    "added": GROW.replace("STEP", "{% set ns.x = ns.x + ns.x %}"),
    "joined": GROW.replace("STEP", "{% set ns.x = ns.x ~ ns.x %}"),
    "put in a block": GROW.replace("STEP", "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
    "put in a macro": "{% macro d(x) %}{{ x }}{{ x }}{% endmacro %}" + GROW.replace("STEP", "{% set ns.x = d(ns.x) %}"),
    "replaced": GROW.replace("STEP", "{% set ns.x = ns.x.replace('a', ns.x) %}"),
    "replaced by a filter": GROW.replace("STEP", "{% set ns.x = ns.x | replace('a', ns.x) %}"),
    "separated": GROW.replace("STEP", "{% set ns.x = ns.x.join(ns.x) %}"),
    "separated by a filter": GROW.replace("STEP", "{% set ns.x = ns.x | join(ns.x) %}"),
    "lists added": GROW.replace("STEP", "{% set ns.l = ns.l + ns.l %}"),
    "lists nested": GROW.replace("STEP", "{% set ns.l = [ns.l, ns.l] %}") + "{{ ns.l }}",
    "tuples nested": GROW.replace("STEP", "{% set ns.l = (ns.l, ns.l) %}") + "{{ ns.l }}",
    "mappings nested": GROW.replace("STEP", "{% set ns.l = {1: ns.l, 2: ns.l} %}") + "{{ ns.l }}",
    "calls nested": GROW.replace("STEP", "{% set ns.l = dict(a=ns.l, b=ns.l) %}") + "{{ ns.l }}",
    "long texts in a list": "{% set x = 'a' * 9999999 %}{% set l = [x, x, x, x] %}{{ l }}",
    "namespaces nested": GROW.replace("STEP", "{% set ns.l = namespace(a=ns.l, b=ns.l) %}") + "{{ ns.l }}{{ 1 // 0 }}",
    "work in every step": LARGE + "{% for i in range(99999) %}{{ a.upper() | length }}{% endfor %}",
    "search in every step": LARGE + "{% for i in range(99999) %}{{ ('a' * 999 ~ 'b') in a }}{% endfor %}",
    "search in one step": LARGE + "{{ " + " or ".join(["('a' * 999 ~ 'b') in a"] * 400) + " or 1 // 0 }}",
    "slices": LARGE + "{% for i in range(99999) %}{% set b = a[1:] %}{% endfor %}",
    "splits": LARGE + "{% for i in range(99999) %}{% set b = a.split('a') %}{% endfor %}",
    "sorted in every step": "{% set l = range(99999) | list %}{% for i in range(99999) %}"
    "{% set b = l | sort %}{% endfor %}",
    "recursive loop": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "deep json": GROW.replace("range(60)", "range(50000)").replace("STEP", "{% set ns.l = [ns.l] %}")
    + "{{ ns.l | tojson }}",
    "deep text": GROW.replace("range(60)", "range(50000)").replace("STEP", "{% set ns.l = [ns.l] %}") + "{{ ns.l }}",
    "indented": "{{ ('\n' * 4000000) | indent(2) }}",
    "long time": "{{ strftime_now('%Y' * 2000000) }}{{ 1 // 0 }}",
    "numbers": GROW.replace("STEP", "{% set ns.l = ns.l[0] * 2 ** 4000 %}{% set ns.l = [ns.l * ns.l] %}"),
    "wide format": "{{ '{:>999999999}'.format('x') }}{{ '%0999999999d' % 1 }}",
    "wide method": "{{ 'x'.center(999999999) }}",
    "wide filter": "{{ 'x' | center(999999999) }}",
    "wide indent": "{{ 'x\n' | indent(999999999) }}",
    "wide json": "{{ [1] | tojson(indent=999999999) }}",
    "precise": "{{ 1.5 | round(999999999, 'ceil') }}",
    "wide number": "{{ (1).to_bytes(999999999, 'big') }}",
    "deep brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep lists": "{{ " + "[" * 300 + "]" * 300 + " }}",
    "long source": "x" * 1_000_000,
    "searched from the end": "{{ ('a' * 4000000).rfind('ab' + 'a' * 2000000) }}{{ 1 // 0 }}",
    "indexed from the end": "{{ ('a' * 4000000).rindex('ab' + 'a' * 2000000) }}{{ 1 // 0 }}",
    "split from the end": "{{ ('a' * 4000000).rsplit(sep='ab' + 'a' * 2000000) }}{{ 1 // 0 }}",
    "stripped": "{{ ('a' * 4000000).strip('b' * 4000000 ~ 'a') }}{{ 1 // 0 }}",
    "trimmed": "{{ ('a' * 4000000) | trim('b' * 3000000 ~ 'a') }}{{ 1 // 0 }}",
    "lists added up": "{{ ([(1,)] * 90000) | sum(start=()) | length }}{{ 1 // 0 }}",
    "namespaces in a chain": "{% set ns = namespace(l=none) %}{% for i in range(3000) %}"
    "{% set ns.l = namespace(l=ns.l, x='\U0001f600' * 4000000) %}{% endfor %}",
    "many texts": "".join(f"{{% set a{i} = '\U0001f600' * 4000000 %}}" for i in range(1500)),
    "many texts in blocks": "{% set x = '\U0001f600' * 2000000 %}{% set ns = namespace(l=none) %}"
    "{% for i in range(3000) %}{% set y %}{{ x }}{{ x }}{% endset %}"
    "{% set ns.l = namespace(l=ns.l, x=y) %}{% endfor %}",
    "texts in lists": "{% set x = ['\U0001f600' * 4000000] %}{% set ns = namespace(l=none) %}"
    "{% for i in range(3000) %}{% set ns.l = namespace(l=ns.l, x=x | map('safe') | list) %}{% endfor %}",
    "wide dates": "{{ strftime_now('%255d' * 5000) }}",
    "no syntax": "{% for %}",
    "unclosed": "{{ messages",
    "unknown": "{{ nothing() }}",
    "wrong types": "{{ messages + 1 }}",
    "not text": "{{ messages[0]['content']['a']['b'] }}",
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_or_broken_template_is_one_line_in_bounded_time_and_memory(template):
    begun, before = time.thread_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert_refused(template)
    # about 1; a bound for slow machines, and without the budget it would not end
    assert time.thread_time() - begun < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_a_template_may_refuse_the_conversation_and_its_words_are_bounded():
    wordy = "{{ raise_exception('roles must\nalternate' + 'x' * 999) }}"
    assert_refused(wordy, OptionError, "roles must alternate.*system")
    with pytest.raises(OptionError) as caught:
        render("{{ raise_exception('No.') }}", CONVERSATION[1:])
    assert "system" not in str(caught.value)


def test_what_a_terminal_would_obey_is_not_in_a_template_s_words():
    assert_refused("{{ raise_exception('no\x1b[31m\x07 more') }}", OptionError, r"no\\x1b\[31m\\x07 more")
    assert_refused("{{ messages['\x1b[31m'].x }}", match="^[^\x1b]*$")


def test_a_long_conversation_is_no_reason_to_refuse_it():
    """As templates of models that reason look for what was thought, in each message."""
    template = (
        "{% for m in messages[::-1] %}{% set c = m.content.rsplit('</think>', 1)[-1].strip('\n') | trim %}"
        "{{ m.role + ': ' + c + '\n' }}{% endfor %}"
    )
    messages = [{"role": "user", "content": f"{'long ' * 4_000}{i}"} for i in range(100)]
    assert len(render(template, messages)) == sum(len(one["content"]) + 7 for one in messages)


def test_what_a_template_was_given_is_not_counted_as_made():
    """Slices of a long conversation hold its texts, and not copies of them."""
    rest = "{% set rest = messages[loop.index0:] %}"
    template = f"{{% for m in messages %}}{rest}{rest}{{{{ rest|length }}}} {{% endfor %}}"
    messages = [{"role": "user", "content": f"{n}" + "\U0001f600" * 100_000} for n in range(40)]
    assert render(template, messages).split() == [str(n) for n in range(40, 0, -1)]


def test_a_template_can_be_stopped():
    def look():
        raise Stopped("Stopped.")

    with pytest.raises(Stopped):
        render(HOSTILE["long loop"], CONVERSATION, look=look)


def test_a_debuggers_trace_is_put_back():
    before = sys.gettrace()

    def trace(frame, event, argument):
        return None
    sys.settrace(trace)
    try:
        render(CHATML, CONVERSATION)
        assert sys.gettrace() is trace
        assert_refused(HOSTILE["long loop"])
        assert sys.gettrace() is trace
    finally:
        sys.settrace(before)


class Ends:
    """Runs code of its own when it ends, for more steps than a template may take."""

    def __init__(self, told):
        self.told = told

    def __del__(self):
        for _ in range(200):
            pass
        self.told.append(json.loads("[1, 2]"))  # by code that templates may run, too


def test_what_ends_while_a_template_runs_is_neither_counted_nor_broken_off(monkeypatch):
    from nbllm.chat import sandbox

    monkeypatch.setattr(sandbox, "STEPS", 150)
    told, env = [], sandbox.Sandbox()
    template = env.from_string("{% for item in items %}.{% endfor %}")
    assert env.run(template, {"items": (Ends(told) for _ in range(3))}) == "..."
    assert told == [[1, 2]] * 3
    with pytest.raises(sandbox.TooMuch):
        env.run(template, {"items": range(200)})


# ---- from messages to ids


def ids_of(*messages, template=CHATML):
    encoder = PromptEncoder(template, FakeTokenizer())
    return encoder.encode(encoder.render([{"role": "user", "content": message} for message in messages]))


def test_ordinary_text_becomes_the_ids_of_the_rendered_text():
    text = render(CHATML, CONVERSATION)
    encoder = PromptEncoder(CHATML, FakeTokenizer())
    assert encoder.encode(encoder.render(CONVERSATION)) == FakeTokenizer().encode(text)


PARTS = ["<|im_end|>", "<|im_start|>", "<s>", "<", "<|im_", "end|>", "s>", FENCE, " ", "é", "x"]


@given(st.lists(st.sampled_from(PARTS)))
def test_no_text_of_a_message_becomes_a_special_token(parts):
    content = "".join(parts)
    ids = ids_of(content)
    assert [id for id in ids if id > 255] == [START, END, START]
    visible = content.replace(FENCE, "\ufffd")  # half a character is none
    assert FakeTokenizer().decode(ids) == render(CHATML, [{"role": "user", "content": visible}])


def test_a_fence_in_a_message_cannot_break_the_templates_own_special_tokens():
    assert ids_of(FENCE, template="<s>{{ messages[0].content }}")[0] == BOS


def test_templates_that_trim_and_look_into_contents_see_them_as_they_are():
    template = "{% set c = messages[0].content %}{{ c | trim }}{{ 'b' in c }}{{ c.split(' ') | length }}"
    assert FakeTokenizer().decode(ids_of("  a b<s> ", template=template)) == "a b<s>True5"


def test_every_special_token_of_the_default_model_is_fenced(default_model):
    import nbllm

    with nbllm.load(default_model) as model:
        encoder = PromptEncoder(CHATML, model.tokenizer)
        texts = [model.detokenize([id]) for id in sorted(model.tokenizer.special_ids)]
        for a, b in itertools.product(texts, texts[:3]):
            ids = encoder.encode(encoder.render([{"role": "user", "content": a + b}]))
            assert len([id for id in ids if id in model.tokenizer.special_ids]) == 3
            assert model.detokenize(ids) == render(CHATML, [{"role": "user", "content": a + b}])
