"""Jinja2's immutable sandbox for chat templates, with a budget of steps and sizes on top.

The sandbox keeps a template from reaching Python; the budget keeps it from taking all time or memory, which would end
the Jupyter kernel and the user's variables with it. A template that goes over it raises TooMuch. Knows nothing of
messages.

How the budget holds: every line of Python that runs for a template is a step, which bounds loops and recursion. What
can make much out of little in one step is checked before it runs, and what a step has made is measured, so that no
value is ever larger than LIMIT, and what the next step does with it in C is short; where C takes the product of two
lengths, that is checked. As many short ones can be long, the time is looked at, too: that of this thread on the
processor, so that a busy machine is no reason to fail. As all that was made may be kept, its bytes are counted.
"""

import datetime
import json
import math
import os
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

import jinja2
import markupsafe  # which Jinja brings along
from jinja2 import nodes
from jinja2.defaults import DEFAULT_FILTERS
from jinja2.ext import Extension, loopcontrols
from jinja2.runtime import Namespace
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from nbllm.tokenizers import unwatched

LIMIT = 1 << 22  # of a value: characters, and values within values; more fit in no model's context
STEPS = 1_000_000  # lines of Python for one prompt
SECONDS = 0.8  # of the processor, for one prompt; honest templates take milliseconds
MADE = 1 << 29  # bytes of all that is made for one prompt
PRODUCT = LIMIT * 16  # of two lengths, where C looks for a text from its end, or for each of many characters
FORMAT = 1000  # characters of a format of dates, each of which may make 255
NUMBER = 1 << 20  # largest whole number that may be given to a function
BITS = 4096  # of a whole number
FOLDERS = tuple(f"{Path(package.__file__).parent}{os.sep}" for package in (jinja2, markupsafe, json))

# Those that chat templates use. Jinja has more; some of them make much out of little.
FILTERS = """abs capitalize count d default dictsort e escape first float int items last length list lower map max min
reject rejectattr reverse safe select selectattr sort string sum title trim unique upper""".split()
METHODS = {
    str: """capitalize count endswith find index isalnum isalpha isdigit islower isspace isupper join lower lstrip
    removeprefix removesuffix replace rfind rindex rsplit rstrip split splitlines startswith strip title
    upper""".split(),
    dict: ["get", "items", "keys", "values"],
    list: ["count", "index"],
    tuple: ["count", "index"],
    int: [],
    float: [],
}
PRODUCTS = "lstrip rfind rindex rsplit rstrip strip".split()  # methods of text whose time is a product


class Budget(threading.local):
    """What the template that this thread renders may still take."""

    end = math.inf  # by when it must be done, as of `time.thread_time`
    left = math.inf  # bytes that it may make
    given = frozenset()  # `id` of what it has not made, which is there as long as it is rendered
    look = staticmethod(unwatched)  # as of `Model.tokenize`


_budget = Budget()


class Refusal(Exception):
    """The template called `raise_exception`."""


class TooMuch(Exception):
    """The template went over its budget."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment that Hugging Face's `apply_chat_template` gives to templates."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self):
        # Not optimized: that would compute while compiling, outside of the budget.
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=[Generation, loopcontrols])
        self.filters = {name: self.filters[name] for name in FILTERS}
        self.filters.update(
            concat=concat, indent=indent, join=join, measured=measured, replace=replace, sum=add_up, tojson=tojson,
            trim=trim,
        )  # fmt: skip
        self.globals = {
            "dict": dict,
            "namespace": QuietNamespace,
            "raise_exception": raise_exception,
            "range": self.globals["range"],
            "strftime_now": strftime_now,
        }
        self.concat = lambda parts: measured(concat(parts))  # of blocks and macros

    def run(self, template, variables, look=unwatched) -> str:
        """Render. The tracing that counts steps concerns this thread only, and only meanwhile."""
        steps, here = 0, sys._getframe().f_code

        def count(frame, event, argument):
            nonlocal steps
            steps += 1
            check(steps, STEPS, "steps")
            check_time()
            return count

        def enter(frame, event, argument):
            # An object of somebody else's may end meanwhile: what it runs then is no step, and must not be broken off.
            caller = frame.f_back
            counted = (caller.f_code is here or caller.f_trace is count) and is_templates(frame.f_code.co_filename)
            return count(frame, event, argument) if counted else None

        before, given = sys.gettrace(), frozenset(map(id, values_in(variables)))
        vars(_budget).update(end=time.thread_time() + SECONDS, left=MADE, given=given, look=look)
        sys.settrace(enter)
        try:
            parts, length = [], 0
            for part in template.generate(variables):
                length += len(part)
                check(length, LIMIT, "characters")
                parts.append(part)
            return "".join(parts)
        finally:
            sys.settrace(before)
            vars(_budget).clear()

    def call_binop(self, context, operator, left, right):
        if operator == "%" and isinstance(left, str):
            raise TooMuch("it formats text with %, which is not supported")
        if operator in ("*", "**"):
            check_product(operator, left, right)
        return measured(super().call_binop(context, operator, left, right))

    def call(self, context, function, *args, **kwargs):
        check_time()
        for value in (*args, *kwargs.values()):
            if isinstance(value, int):
                check(abs(value), NUMBER, "as an argument")
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(owner, str) and name == "join":
            return join(*args, owner)
        if isinstance(owner, str) and name == "replace":
            return replace(owner, *args)
        if isinstance(owner, str) and name in PRODUCTS:
            check_search(owner, *args, *kwargs.values())
        return measured(super().call(context, function, *args, **kwargs))

    def is_safe_attribute(self, value, name, attribute):
        for kind, names in METHODS.items():
            if isinstance(value, kind):
                return name in names
        return super().is_safe_attribute(value, name, attribute)

    def wrap_str_format(self, value):
        """`str.format`, for fields without a specification, which could ask for any width."""
        if super().wrap_str_format(value) is None:
            return None
        parts = value.__self__.split("{}")
        if any("{" in part or "}" in part for part in parts):
            raise TooMuch("it formats text with more than {}, which is not supported")
        return lambda *fields: concat([part for pair in zip(parts, [*fields, ""]) for part in pair])

    def _generate(self, source, *args, **kwargs):
        return super()._generate(Measuring().visit(source), *args, **kwargs)


class Measuring(NodeTransformer):
    """Has every literal and the result of every filter, comparison and slice measured,
    and `a ~ b` joined by `concat`."""

    def measure(self, node):
        self.generic_visit(node)
        if getattr(node, "ctx", "load") == "store":  # the names on the left of an assignment
            return node
        return nodes.Filter(node, "measured", [], [], None, None, lineno=node.lineno)

    visit_List = visit_Tuple = visit_Dict = visit_Filter = visit_Compare = measure

    def visit_Getitem(self, node):
        return self.measure(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)

    def visit_Concat(self, node):
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), "concat", [], [], None, None, lineno=node.lineno)

    def visit_FilterBlock(self, node):
        node.body = [self.visit(part) for part in node.body]
        return node


class Generation(Extension):
    """`{% generation %}` marks what a model is trained on; it has no meaning here."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


class QuietNamespace(Namespace):
    """Namespaces can hold each other, so their text could grow without limit."""

    def __repr__(self):
        return "<namespace>"


@lru_cache(maxsize=None)
def is_templates(filename) -> bool:
    """Whether this is code that runs for templates: their own, Jinja's, and what it calls."""
    return filename in ("<template>", __file__) or filename.startswith(FOLDERS)


def check(amount, limit, unit):
    if amount > limit:
        raise TooMuch(f"it asks for {amount:,} {unit}, and {limit:,} is the limit")


def check_time():
    _budget.look()
    if time.thread_time() > _budget.end:
        raise TooMuch("it takes longer than a second")


def weighed(value) -> tuple[int, int]:
    """Characters and values in a value, as far as LIMIT, and the bytes of those that the template was not given."""
    total = made = 0
    for each in (value,) if isinstance(value, str) else values_in(value):  # mostly text, and each line is a step
        total += len(each) if isinstance(each, str) else 1
        made += 0 if id(each) in _budget.given else sys.getsizeof(each)
        if total > LIMIT:
            break
    return total, made


def measured(value):
    check_time()
    total, made = weighed(value)
    check(total, LIMIT, "characters or values")
    _budget.left -= made
    check(MADE - _budget.left, MADE, "bytes")
    return value


def check_product(operator, left, right):
    for value, times in ((left, right), (right, left)):
        if isinstance(value, (str, list, tuple)) and isinstance(times, int):
            check(weighed(value)[0] * times, LIMIT, "characters or values")
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
        check(bits, BITS, "bits of a number")


def check_search(text, *others):
    for other in others:
        if isinstance(other, str):
            check(len(text) * len(other), PRODUCT, "comparisons of characters")


def values_in(value):
    """A value and all those within it."""
    rest = [value]
    while rest:
        value = rest.pop()
        yield value
        if isinstance(value, dict):
            rest += [*value.keys(), *value.values()]
        elif isinstance(value, (list, tuple, set)):
            rest += value


def raise_exception(message):
    raise Refusal(message)


def strftime_now(format):
    check(len(format), FORMAT, "characters of a format")
    return datetime.datetime.now().strftime(format)


# Filters


def concat(parts):
    texts = [str(part) for part in parts]
    check(sum(map(len, texts)), LIMIT, "characters")
    return "".join(texts)


def join(items, separator=""):
    texts = [str(item) for item in items]
    check(sum(map(len, texts)) + len(separator) * len(texts), LIMIT, "characters")
    return separator.join(texts)


def replace(text, old, new, count=-1):
    text, old, new = str(text), str(old), str(new)
    check(len(text) + text.count(old) * len(new), LIMIT, "characters")
    return text.replace(old, new, count)


def indent(text, width=4, first=False, blank=False):
    check(width, 1000, "spaces")
    lines = text.split("\n")
    check(len(text) + width * len(lines), LIMIT, "characters")
    return "\n".join(
        " " * width + line if (i or first) and (line or blank or not i) else line for i, line in enumerate(lines)
    )


def trim(value, chars=None):
    text = str(value)
    check_search(text, chars)
    return text.strip(chars)


@jinja2.pass_environment
def add_up(environment, values, attribute=None, start=0):
    """Numbers. Lists would be copied once for each of them."""
    if not isinstance(start, (int, float)):
        raise TooMuch("it adds up what are no numbers, which is not supported")
    return DEFAULT_FILTERS["sum"](environment, values, attribute, start)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """Plain JSON; Jinja's own filter escapes characters for HTML."""
    check(indent or 0, 16, "spaces")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
