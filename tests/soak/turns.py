"""The kinds of turns, and how often each is taken. A turn does something, and says what must have come of it."""

import json
import shutil
import time

from kernel.test_mistakes import MISTAKES
from soak.expected import Fault
from soak.panel_turns import PANEL_TURNS
from soak.talk import answer_of, begun, made, reading, writing
from soak.words import LONG, PROMPTS, SEA, limit

OPTIONS = ("", "", "", "-t 0", "-t 1.5", "--seed 7", "--top-k 1", "--top-p 0.5", "--min-p 0.2", "--repeat-penalty 1.3",
           "--stop .", "--raw", "-o kept", "--system 'Be brief.'")  # fmt: skip
CERTAIN = ("--system 'Be brief.' -t 1 --top-k 40 --top-p 0.95 --min-p 0.05 --repeat-penalty 1.1 --repeat-window 64 "
           "--max-tokens 12 --seed {seed}")  # fmt: skip
SCHEMA = {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9},
          "legs": {"enum": [0, 2, 4]}}, "required": ["name", "legs"]}, "minItems": 1, "maxItems": 2}  # fmt: skip
SETTINGS = {
    "temperature": (0.0, 0.7, 1.5),
    "top_k": (0, 40),
    "max_tokens": (4, 8, 20),
    "system": (None, "Be brief."),
    "overflow": ("drop", "drop", "stop"),
    "context": (None, 512, 2048),
    "threads": (None, 1, 2),
    "cache_bits": (16, 16, 8),
    "describe": (50, 400),
    "seed": (None, 1),
}
ANYTIME = ("what", "model", "load", "export")  # commands whose mistakes depend on nothing that was said before
SILENT = [code for code in MISTAKES if code.startswith("%%chat") or code.split()[1] in ANYTIME]


def say(talk):
    mark, most = talk.mark(), limit(talk)
    option = talk.random.choice(OPTIONS)
    new = talk.random.random() < 0.05
    cell = talk.run(f"%%chat --max-tokens {most} {option} {'--new' * new}\n{mark} {talk.random.choice(PROMPTS)}")
    text = talk.asked(cell, mark, new)
    if made(cell) and made(cell)["generated_tokens"] > most:
        raise Fault(f"{made(cell)['generated_tokens']} tokens were written, and {most} are the most")
    if option == "-o kept" and text and talk.kernel.value("kept.text") != text:
        raise Fault("the variable has another text")


def stopped_writing(talk):
    mark, after = talk.mark(), talk.random.randint(1, 12)
    talk.asked(talk.interrupted(f"%%chat --max-tokens 2000 -t 1\n{mark} {LONG}", writing(after)), mark)


def stopped_at_any_moment(talk):
    mark, since = talk.mark(), []
    pause = talk.random.random() * 0.3

    def late(cell):
        if begun(cell) and not since:
            since.append(time.monotonic())
            time.sleep(pause)
        return bool(since)

    talk.asked(talk.interrupted(f"%%chat --max-tokens 2000 -t 1\n{mark} {LONG}", late), mark)


def stopped_reading(talk):
    new, mark = talk.random.random() < 0.5, talk.mark()
    sentences = min(250, (talk.settings.get("context") or 8192) // 20)
    code = f"%%chat --max-tokens 2 {'--new' * new}\n{mark} {SEA * sentences}"
    talk.asked(talk.interrupted(code, reading), mark, new)


def long_reading(talk):
    """A long prompt that is read to its end."""
    mark = talk.mark()
    cell = talk.run(f"%%chat --max-tokens 3\n{mark} {SEA * talk.random.randint(10, 60)}")
    talk.asked(cell, mark)


def too_long(talk):
    cell = talk.refused("%%chat\n" + "hello world " * (talk.state["context"] or 8192), "ContextFullError")
    for job in talk.settle():
        if job["text"]:
            raise Fault(f"{cell.error} and yet {job['text'][:40]!r} was written")


def retry(talk):
    if not talk.expected.current:
        talk.refused("%chat retry", "OptionError", "the conversation is empty")
        talk.settle()
        return
    mark = talk.expected.current[-1][0]
    if talk.random.random() < 0.3:
        cell = talk.interrupted("%chat retry --max-tokens 2000 -t 1", writing(talk.random.randint(1, 5)))
        talk.asked(cell, mark, again=True)
    else:
        talk.asked(talk.run(f"%chat retry --max-tokens {limit(talk)} -t 1"), mark, again=True)


def undo(talk):
    count, has = talk.random.choice((1, 1, 1, 2, 3, 50)), len(talk.expected.current)
    if count > has:
        talk.refused(f"%chat undo {count}", "OptionError", "cannot be taken back")
    else:
        talk.ok(f"%chat undo {count}")
        talk.expected.undo(count)
    talk.settle()


def new(talk):
    if talk.random.random() < 0.3:
        name = talk.random.choice((f"talk {talk.turn}", "mine", "a | *b*"))
        if name in talk.expected.conversations:
            talk.refused(f"%chat new {name}", "OptionError", "there is a conversation")
        else:
            talk.ok(f"%chat new {name}")
            talk.expected.begin(name)
        talk.settle()
        return
    talk.ok("%chat new")
    talk.settle()
    talk.expected.begin(talk.state["name"])


def switch(talk):
    name = talk.random.choice((*sorted(talk.expected.conversations)[-20:], "nowhere"))
    if name == "nowhere":
        talk.refused("%chat switch nowhere", "OptionError", "there is no conversation")
    else:
        talk.ok(f"%chat switch {name}")
        talk.expected.switch(name)
    talk.settle()


def branch(talk):
    exchanges = list(talk.expected.current)
    name, _ = talk.told(talk.ok("%chat branch"))
    talk.expected.begin(name, exchanges, leave=False)
    talk.settle()


def edit(talk):
    count, exchanges = talk.random.randint(1, 2), list(talk.expected.current)
    if count > len(exchanges):
        talk.refused(f"%chat edit {count}", "OptionError", "cannot be taken back")
        talk.settle()
        return
    cell = talk.ok(f"%chat edit {count}")
    (payload,) = cell.reply["payload"]
    if payload["text"] != "%%chat --raw\n" + exchanges[-count][0]:
        raise Fault(f"the next cell is {payload['text'][:60]!r}")
    talk.expected.begin(talk.told(cell)[0], exchanges[:-count], leave=False)
    talk.settle()


def fix(talk):
    if talk.run("1/0").reply["ename"] != "ZeroDivisionError":
        raise Fault("1/0 is no error any more")
    cell = talk.run("%chat fix --max-tokens 8 -t 1")
    jobs = talk.settle()
    (job,) = talk.only(jobs, 1)
    talk.outcome(job, "ZeroDivisionError")
    if cell.reply["status"] == "error" and cell.reply["ename"] not in ("NbLLMError", "ContextFullError"):
        raise Fault(f"%chat fix ended with {cell.error}")


def save(talk):
    name = talk.random.choice("abc")
    talk.ok(f"%chat save {talk.folder / name}.jsonl")
    talk.files[name] = list(talk.expected.current)
    talk.settle()


def load(talk):
    if not talk.files:
        talk.refused(f"%chat load {talk.folder}/none.jsonl", "ConversationFileError", "no such file")
        talk.settle()
        return
    name = talk.random.choice(sorted(talk.files))
    cell = talk.ok(f"%chat load {talk.folder / name}.jsonl")
    told, count = talk.told(cell)
    if count != len(talk.files[name]):
        raise Fault(f"{count} exchanges were loaded, and {len(talk.files[name])} were saved")
    talk.expected.begin(told, talk.files[name])
    talk.settle()


def kept(talk):
    """Saved with its cache, and gone on with after another conversation, without reading it again."""
    mark, path = talk.mark(), talk.folder / "kept.jsonl"
    if not talk.asked(talk.run(f"%%chat --new --max-tokens 3\n{mark} {SEA * 5}"), mark, new=True):
        return
    talk.ok(f"%chat save {path} --cache")
    exchanges = list(talk.expected.current)
    talk.settle()
    new(talk)
    other = talk.mark()
    talk.asked(talk.run(f"%%chat --max-tokens 3\n{other} hello"), other)
    told, _ = talk.told(talk.ok(f"%chat load {path}"))
    talk.expected.begin(told, exchanges)
    talk.settle()
    cell = talk.run(f"%%chat --max-tokens 3\n{other} And?")
    talk.asked(cell, other)
    if made(cell) and made(cell)["reused_tokens"] < 50:
        raise Fault(f"the cache was kept, and {made(cell)['reused_tokens']} tokens were reused")


def export(talk):
    path = talk.folder / "talk.md"
    talk.ok(f"%chat export {path}")
    talk.refused(f"%chat export {path}", "ConversationFileError", "is there already")
    path.unlink()
    talk.settle()


def model(talk):
    name = talk.random.choice(("default", "other", "tiny", "default"))
    code = f"%chat model {talk.models[name]}"
    if talk.random.random() < 0.3 and name != "tiny":  # which may be there before it is interrupted
        cell = talk.interrupted(code, begun)
        if cell.reply["status"] == "error" and cell.reply["ename"] != "Stopped":
            raise Fault(f"{code} ended with {cell.error}")
    else:
        cell = talk.ok(code)
    talk.settle()
    if cell.reply["status"] == "ok" and not talk.on(name):
        raise Fault(f"the model is {talk.state['model']!r} after {code}")
    if "while" not in str(cell.of("error")):
        talk.settings["model"] = str(talk.models[name])


def pack_again(talk):
    """What was laid out of a model is deleted, while it is in use."""
    if (packed := talk.folder / "packed").exists():  # else nothing was loaded since it was deleted
        shutil.rmtree(packed)
    talk.note("rm -r packed")
    model(talk)


def change_setting(talk):
    name = talk.random.choice(sorted(SETTINGS))
    talk.set(name, talk.random.choice(SETTINGS[name]))
    say(talk)


def plain_settings(talk):
    for name, values in SETTINGS.items():
        talk.set(name, values[0] if name != "max_tokens" else 8)
    talk.set("temperature", 0.7)


def at_rest(talk):
    """The state in which memory is compared: the default model, loaded afresh, in a new conversation."""
    plain_settings(talk)
    talk.ok(f"%chat model {talk.models['tiny']}")
    talk.ok(f"%chat model {talk.models['default']}")
    talk.settings["model"] = str(talk.models["default"])
    talk.settle()
    same_seed(talk)


def schema(talk):
    mark = talk.mark()
    talk.run(f"soak_schema = {SCHEMA!r}")
    cell = talk.run(f"%%chat --schema soak_schema --max-tokens 90 -o made\n{mark} Name animals and their legs.")
    text = talk.asked(cell, mark)
    if text and made(cell)["finish_reason"] == "end":
        animals = json.loads(text)
        if not (1 <= len(animals) <= 2 and all(animal["legs"] in (0, 2, 4) for animal in animals)):
            raise Fault(f"the reply does not fit: {text}")
        if talk.kernel.value("made.value") != animals:
            raise Fault("the value is another than the text")


def each(talk):
    count = talk.random.randint(2, 12)
    talk.run(f"soak_rows = [f'number {{n}} of {talk.turn}' for n in range({count})]")
    talk.ok("%%chat --each soak_rows -o soak_found --max-tokens 3 -t 1\nTell me of {}.")
    talk.only(talk.settle(), 1)
    if (found := talk.kernel.value("[type(each).__name__ for each in soak_found]")) != ["str"] * count:
        raise Fault(f"{count} rows, and the answers are {found}")


def stopped_each(talk):
    talk.run(f"soak_many = [f'number {{n}} of {talk.turn}' for n in range(300)]")
    code = "%%chat --each soak_many -o soak_found --max-tokens 20 -t 1\nTell me of {}."
    cell = talk.interrupted(code, lambda cell: " rows, " in answer_of(cell))
    talk.only(talk.settle(), 1)
    line = "\n".join(cell.error) if cell.of("error") else ""
    answered = talk.kernel.value("sum(each is not None for each in soak_found)")
    if not line.startswith("Stopped after ") or answered != int(line.split()[2]):
        raise Fault(f"--each was interrupted, and said {line!r}")


def filled(talk):
    mark = talk.mark()
    talk.run(f"soak_value = {talk.turn}\nsoak_list = list(range({talk.turn % 50}))")
    option = talk.random.choice(("", "--with soak_list"))
    talk.asked(talk.run(f"%%chat --max-tokens 3 {option}\n{mark} Is {{soak_value}} more than {{no_such_name}}?"), mark)
    question = (talk.state["last"] or [""])[0]
    if mark in question and not ("Is " in question and "{soak_value}" not in question and "{no_such_name}" in question):
        raise Fault(f"the question was filled in as {question[-90:]!r}")


def mistake(talk):
    code = talk.random.choice(SILENT)
    name, words = MISTAKES[code]
    talk.refused(code, name, words)
    talk.settle()


def same_seed(talk):
    """The same question with the same seed has the same answer, now and hours later."""
    seed = talk.random.randint(1, 5)
    options, mark = CERTAIN.format(seed=seed), "Tell me of the sea."
    first = talk.asked(talk.run(f"%%chat --new {options}\n{mark}"), mark, new=True)
    key = talk.on("tiny"), talk.settings.get("cache_bits", 16), seed
    known = talk.written.setdefault(key, first)
    if first != known:
        raise Fault(f"the same seed gave {first!r}, and before {known!r}")
    if first and not talk.random.randint(0, 2):
        again = talk.asked(talk.run("%chat retry " + options.split("' ", 1)[1]), mark, again=True)
        if again != first:
            raise Fault(f"asked again with the same seed: {again!r}, and before {first!r}")


def look(talk):
    talk.ok("%chat " + talk.random.choice(("list", "stats", "info", "prompt", "models", "model", "help")))
    talk.kernel.ask("complete", "%%chat --t", 10)
    talk.kernel.ask("inspect", "%%chat", 4)
    talk.settle()


def python(talk):
    talk.ok(f"sum(range({talk.turn}))")


def idle_interrupt(talk):
    talk.note("interrupt of nothing")
    talk.kernel.interrupt()
    python(talk)


def show_panel(talk):
    talk.ok("shown")


TURNS = {  # what, how often
    say: 30, stopped_writing: 6, stopped_at_any_moment: 6, stopped_reading: 4, long_reading: 2, too_long: 1, retry: 8,
    undo: 5, new: 2, switch: 4, branch: 2, edit: 2, fix: 2, save: 3, load: 2, kept: 2, export: 1, model: 3,
    pack_again: 0.3, change_setting: 6, plain_settings: 2, schema: 4, each: 3, stopped_each: 2, filled: 5, mistake: 8,
    same_seed: 4, look: 4, python: 4, idle_interrupt: 2, show_panel: 0.1, **PANEL_TURNS,
}  # fmt: skip
