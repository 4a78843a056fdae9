"""The model object: what it checks, how tokens become text, stop strings, and closing."""

import shutil

import numpy as np
import pytest
import tiny_gguf
from fakes import BOS, END, START, FakeTokenizer, fake_model, tokens
from hypothesis import given
from hypothesis import strategies as st

import nbllm
from nbllm import model as model_module
from nbllm.catalogue import DEFAULT
from nbllm.errors import ContextFullError, ModelFileError, ModelNotFoundError, NbLLMError, OptionError
from nbllm.text import StopStrings, Text
from nbllm.runtime.events import Done, Prefill, StopFlag

encode = FakeTokenizer().encode


def texts(events):
    return [event.text for event in events if isinstance(event, Text)]


def test_tokenize_parses_special_tokens_unless_told_not_to_and_adds_bos_only_as_the_file_says():
    model = fake_model()
    assert model.tokenize("a<|im_end|>") == [97, END]
    assert model.tokenize("a<s>", special=False) == [97, *b"<s>"]
    assert model.detokenize([START, 97, END]) == "<|im_start|>a<|im_end|>"
    model = fake_model(add_bos=True)
    assert model.tokenize("a") == model.tokenize("<s>a") == [BOS, 97]
    assert model.tokenize("") == [BOS]
    assert model.detokenize([]) == ""


def test_generate_takes_text_or_ids_and_yields_text_with_its_tokens():
    for prompt in ("a<|im_end|>", [97, END], np.array([97, END])):
        model = fake_model("é!")
        events = list(model.generate(prompt, max_tokens=10, seed=3))
        assert model.engine.prompts == [[97, END]]
        assert (model.engine.options[0].max_tokens, model.engine.options[0].seed) == (10, 3)
        assert events[:-1] == [Prefill(2, 2, 0), Text("é", tokens(0xC3, 0xA9)), Text("!", tokens(33))]
        assert (events[-1].finish_reason, events[-1].stats.generated_tokens) == ("end", 3)


def test_a_character_that_never_becomes_complete_comes_at_the_end():
    events = list(fake_model([97, 0xE5, 0xAD]).generate("x"))
    assert events[1:-1] == [Text("a", tokens(97)), Text("\ufffd", tokens(0xE5, 0xAD))]


@pytest.mark.parametrize(("reply", "stop", "expected", "reason"), [
    ("one END two", "END", "one ", "stop"),
    ("one END", ("two", "END"), "one ", "stop"),
    ("one EN", "END", "one EN", "end"),  # what was held back comes after all
    ("one ENEND", "END", "one EN", "stop"),
    ("ENENX", "ENEND", "ENENX", "end"),
    ("abcabd", ("abd", "bcx"), "abc", "stop"),
    ("END", "END", "", "stop"),
    ("存在", "在", "存", "stop"),  # stops at a character made of three tokens
    ("aXbY", ("Y", "X"), "a", "stop"),
])
def test_nothing_of_a_stop_string_comes_out_whatever_the_token_borders(reply, stop, expected, reason):
    model = fake_model(reply)
    flag = StopFlag()
    events = list(model.generate("x", flag, stop=stop))
    assert "".join(texts(events)) == expected
    assert isinstance(events[-1], Done) and events[-1].finish_reason == reason
    assert not flag.is_set()  # it is the user's


def test_after_a_stop_string_no_token_is_generated():
    steps = []
    list(fake_model("one END two", on_step=steps.append).generate("x", stop="END"))
    assert len(steps) == len("one END")


@given(st.text("ab", max_size=40), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), st.data())
def test_stop_strings_cut_any_text_in_any_pieces_at_the_first_one(text, stops, data):
    found_at = [text.find(stop) for stop in stops if stop in text]
    # The one that ends first is seen first; of several that end together, the one that starts first counts.
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    searcher, out, rest = StopStrings(tuple(stops)), "", text
    found = False
    while rest and not found:
        size = 1 if found_at else data.draw(st.integers(1, len(rest)))
        piece, found = searcher.push(rest[:size])
        out, rest = out + piece, rest[size:]
    if not found:
        piece, found = searcher.finish("")
        out += piece
    assert found is bool(ends)
    assert out == (text[: min(ends)[1]] if ends else text)


def test_the_stop_flag_ends_the_generation_and_keeps_the_text():
    flag = StopFlag()
    events = list(fake_model("abcdef", on_step=lambda step: step == 2 and flag.set()).generate("x", flag))
    assert ("".join(texts(events)), events[-1].finish_reason) == ("abc", "stopped")


def test_the_stop_flag_ends_the_encoding_of_a_prompt():
    flag = StopFlag()
    flag.set()
    model = fake_model("abc")
    assert [event.finish_reason for event in model.generate("x", flag)] == ["stopped"]
    assert model.engine.prompts == []


def test_a_text_that_no_context_holds_is_refused_before_it_is_encoded():
    model = fake_model("abc", context=300)
    model.tokenizer.encode = None
    with pytest.raises(ContextFullError, match="9,000 characters makes more tokens than the 300"):
        model.generate("x" * 9_000)


def test_closing_a_generation_early_closes_the_engines_run():
    closed = []
    model = fake_model("abc")
    inner = model.engine.generate

    def watched(*args):
        try:
            yield from inner(*args)
        finally:
            closed.append(True)
    model.engine.generate = watched
    events = model.generate("x")
    next(events)
    events.close()
    assert closed == [True]


@pytest.mark.parametrize(("prompt", "options", "error", "match"), [
    ("", {}, OptionError, "empty"),
    ([], {}, OptionError, "empty"),
    ([259], {}, OptionError, "259"),
    ([-1], {}, OptionError, "-1"),
    ("x", {"temprature": 1}, OptionError, "'temprature'.*temperature"),
    ("x", {"top_p": 3}, OptionError, "top_p=3"),
])  # fmt: skip
def test_a_wrong_argument_is_refused_at_the_call(prompt, options, error, match):
    model = fake_model("y")
    with pytest.raises(error, match=match):
        model.generate(prompt, **options)
    assert model.engine.prompts == []


def test_a_closed_model_says_so_and_frees_its_engine_once():
    with fake_model() as model:
        engine = model.engine
    model.close()
    assert engine.closed == 1
    for use in (lambda: model.generate("x"), lambda: model.logits([1]), lambda: model.context):
        with pytest.raises(NbLLMError, match="closed"):
            use()


# ---- loading


def test_load_finds_nothing_silently(tmp_path, monkeypatch):
    monkeypatch.setenv("NBLLM_MODELS", str(tmp_path))
    monkeypatch.setattr(model_module, "pull", lambda *a, **k: pytest.fail("fetched without being asked"))
    for name in ("smollm2-135m", "other", str(tmp_path / "no.gguf")):
        with pytest.raises(ModelNotFoundError, match="nbllm pull"):
            nbllm.load(name)


def test_load_without_a_name_fetches_the_default_model_once_and_shows_it(tmp_path, monkeypatch, capsys, tiny_model):
    monkeypatch.setenv("NBLLM_MODELS", str(tmp_path))

    def pull(progress):
        progress(0, 93_000_000)
        return shutil.copy(tiny_model, tmp_path / DEFAULT.file) and tmp_path / DEFAULT.file
    monkeypatch.setattr(model_module, "pull", pull)
    with nbllm.load() as model:
        assert model.name == "smollm2-135m"
    assert capsys.readouterr().err.splitlines()[0] == "fetching smollm2-135m, 93 MB, once"
    monkeypatch.setattr(model_module, "pull", lambda *a, **k: pytest.fail("fetched again"))
    nbllm.load().close()
    assert capsys.readouterr().err == ""


def test_load_takes_a_path_and_limits(tiny_model):
    with nbllm.load(tiny_model, context=64, threads=1) as model:
        assert (model.name, model.path, model.context, model.engine.threads) == (tiny_model.stem, tiny_model, 64, 1)
        ids = model.tokenize("hello hello")
        assert model.detokenize(ids) == "hello hello"
        logits = model.logits(ids)
        assert (logits.shape, logits.dtype) == ((len(ids), model.tokenizer.vocab_size), np.float32)
        with pytest.raises(ContextFullError, match="64"):
            model.generate([1] * 64)
        with pytest.raises(OptionError, match="context"):
            nbllm.load(tiny_model, context=0)


def test_greedy_generation_is_the_argmax_of_the_logits(tiny_model):
    with nbllm.load(tiny_model) as model:
        ids = model.tokenize("once upon a")
        events = list(model.generate(ids, temperature=0, repeat_penalty=1, max_tokens=8))
        generated = [token.id for event in events if isinstance(event, Text) for token in event.tokens]
        for id in generated:
            assert model.logits(ids)[-1].argmax() == id
            ids = [*ids, id]
        assert generated


def test_logits_that_are_no_numbers_are_refused_in_the_words_of_generate(tmp_path):
    metadata, tensors = tiny_gguf.llama(embedding_type="F32")
    tensors["token_embd.weight"][0][9, 3] = np.nan  # which comes to the logits of token 9, whatever is asked
    path = tmp_path / "damaged.gguf"
    path.write_bytes(tiny_gguf.gguf_bytes(metadata, tensors))
    with nbllm.load(path, threads=1) as model:
        with pytest.raises(ModelFileError, match="computed a value that is not a number") as written:
            list(model.generate([1, 2], max_tokens=1))
        for ids in ([1, 2], [1] * 40):  # in one step and in two
            with pytest.raises(ModelFileError) as computed:
                model.logits(ids)
            assert str(computed.value) == str(written.value)


def test_the_same_seed_gives_the_same_text(tiny_model):
    with nbllm.load(tiny_model) as model:
        def run(seed):
            return "".join(texts(model.generate("once", temperature=2, seed=seed, max_tokens=20)))
        assert run(5) == run(5) != run(6)


def test_a_file_that_is_no_model_is_one_line_and_stays_closed(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelFileError) as error:
        nbllm.load(tmp_path / "bad.gguf")
    assert "\n" not in str(error.value)
