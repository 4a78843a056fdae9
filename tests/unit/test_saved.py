"""Conversations as files: what is written is what is read, and damaged or hostile files are one line."""

import hashlib
import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbllm.chat import saved
from nbllm.chat.saved import export, load, save
from nbllm.chat.transcript import Answer, Transcript
from nbllm.errors import ConversationFileError
from nbllm.runtime.events import Stats

ANY = st.text(st.characters(codec=None, exclude_categories=()))  # lone surrogates, too
ANSWER = st.fixed_dictionaries({"content": ANY}, optional={"reasoning_content": ANY})
TALK = Transcript("Be brief.", [
    {"role": "user", "content": "<b>ü</b>\r\n\u2028"},
    {"role": "assistant", "content": "$5", "reasoning_content": "Hm."},
])  # fmt: skip
NO_PATHS = "~there-is-no-such-user/talk", 5, None, b"talk"


@given(st.none() | ANY.filter(bool), st.lists(st.tuples(ANY, ANSWER), max_size=3))
def test_any_conversation_is_read_as_it_was_written(tmp_path_factory, system, exchanges):
    messages = []
    for question, answer in exchanges:
        messages += [{"role": "user", "content": question}, {"role": "assistant"} | answer]
    path = tmp_path_factory.mktemp("saved") / "talk.jsonl"
    save(Transcript(system, messages), path)
    assert load(path) == Transcript(system, messages)


def test_the_file_is_lines_of_json_after_one_that_has_their_length_and_hash(tmp_path):
    save(TALK, tmp_path / "talk.jsonl")
    first, _, body = (tmp_path / "talk.jsonl").read_bytes().partition(b"\n")
    assert json.loads(first) == {"format": "nbllm conversation", "version": 1, "bytes": len(body),
                                 "sha256": hashlib.sha256(body).hexdigest()}  # fmt: skip
    assert [json.loads(line) for line in body.split(b"\n")[:-1]] == [
        {"role": "system", "content": "Be brief."}, *TALK.messages,
    ]  # fmt: skip
    assert os.listdir(tmp_path) == ["talk.jsonl"]


def test_a_saved_conversation_is_replaced_and_nothing_else(tmp_path):
    path = tmp_path / "talk.jsonl"
    save(TALK, path)
    save(Transcript(), path)
    assert load(path) == Transcript()
    for data in (b"", b"notes", b"[" * 2000):
        path.write_bytes(data)
        with pytest.raises(ConversationFileError, match="is there and is no saved conversation"):
            save(TALK, path)
        with pytest.raises(ConversationFileError, match="is there already"):
            export(TALK, path)
        assert path.read_bytes() == data


@pytest.mark.parametrize("make", [
    lambda path: os.mkfifo(path), lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to(path),
], ids=("a pipe", "a link that leads nowhere", "a link to itself"))  # fmt: skip
@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes that are files, and links need rights")
def test_what_is_no_file_is_neither_waited_for_nor_replaced(make, tmp_path):
    path = tmp_path / "talk.jsonl"
    make(path)
    before = path.lstat().st_ino
    with pytest.raises(ConversationFileError, match="is there and is no saved conversation"):
        save(TALK, path)
    with pytest.raises(ConversationFileError, match="is there already"):
        export(TALK, path)
    assert path.lstat().st_ino == before and os.listdir(tmp_path) == ["talk.jsonl"]


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path):
    for path in (tmp_path / "no" / "talk.jsonl", tmp_path, "a\0b", *NO_PATHS):
        for put in (save, export):
            with pytest.raises(ConversationFileError) as error:
                put(TALK, path)
            assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def file(*lines, **header):
    body = b"".join(line if isinstance(line, bytes) else f"{json.dumps(line)}\n".encode() for line in lines)
    first = {
        "format": "nbllm conversation",
        "version": 1,
        "bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    return json.dumps(first | header).encode() + b"\n" + body


USER, ASSISTANT, SYSTEM = ({"role": role, "content": "x"} for role in ("user", "assistant", "system"))
DAMAGED = {  # what is wrong: the file, and what is said of it; after +, bytes since the first line
    "empty": (b"", "byte 0: the line is no JSON"),
    "binary": (os.urandom(50).replace(b"\n", b"") + b"\xff", "byte 0: the line is no JSON"),
    "another format": (b'{"format": "other"}\n', 'its first line has no "format": "nbllm conversation"'),
    "no header": (b'{"role": "user", "content": "x"}\n', 'its first line has no "format"'),
    "a list": (b"[1]\n", "byte 0: the line is no JSON object but list"),
    "a header without an end": (b"x" * 100_000, 'its first line has no "format"'),
    "nested": (b'{"format": ' + b"[" * 900 + b"\n", "byte 0: the line is no JSON"),
    "a later version": (file(version=2), "is of version 2, not 1; update nbllm"),
    "cut": (file(USER, ASSISTANT)[:-1], "is damaged: its first line has bytes 71, and"),
    "another hash": (file(USER, ASSISTANT, sha256="0"), "is damaged: its first line has sha256 '0'"),
    "another letter": (file(USER, ASSISTANT).replace(b'"x"', b'"y"', 1), "is damaged: its first line has sha256"),
    "many lists": (file(b'{"role": "user", "content": [' + b"[]," * 2000 + b"0]}\n"), "+0: the line has more in it"),
    "many names": (file(USER, {**ASSISTANT, "stats": dict.fromkeys(map(str, range(99)), 1)}), "byte +33: the line has"),
    "a text without an end": (file(b'{"role": "' + b'\\"' * 2000 + b"\n"), "byte +0: the line is no JSON"),
    "lines of other things": (file(USER, [1]), "byte +33: the line is no JSON object but list"),
    "deep nesting": (file(b"[" * 100_000 + b"\n"), "byte +0: the line has more in it than a message"),
    "less deep nesting": (file(b"[" * 1000 + b"\n"), "byte +0: the line is no JSON"),
    "a number too long": (file(b'{"role": ' + b"9" * 9000 + b"}\n"), "byte +0: the line has more in it"),
    "an answer first": (file(ASSISTANT), "byte +0: role 'assistant' stands where 'user' should"),
    "two questions": (file(USER, USER), "byte +33: role 'user' stands where 'assistant' should"),
    "a late system prompt": (file(USER, SYSTEM), "role 'system' stands where 'assistant' should"),
    "two system prompts": (file(SYSTEM, SYSTEM), "role 'system' stands where 'user' should"),
    "no answer": (file(USER), "byte +33: the last question has no answer"),
    "no content": (file({"role": "user"}), "byte +0: a message of user has content"),
    "another field": (file({**USER, "name": "x"}), "byte +0: a message of user has content"),
    "no text": (file({**USER, "content": ["x"]}), "byte +0: content is no text but list"),
    "a role that is no text": (file({**USER, "role": {"a": "b" * 1000}}), "stands where 'user' should"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_line(name, tmp_path):
    data, message = DAMAGED[name]
    message = re.sub(r"\+(\d+)", lambda match: str(int(match[1]) + data.index(b"\n") + 1), message)
    path = tmp_path / "talk.jsonl"
    path.write_bytes(data)
    with pytest.raises(ConversationFileError) as error:
        load(path)
    assert message in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < len(str(path)) + 300


def test_a_file_that_is_not_there_or_too_large_is_one_line(tmp_path, monkeypatch):
    for path in (tmp_path / "none.jsonl", tmp_path, "a\0b", "/dev/zero", *NO_PATHS):
        with pytest.raises(ConversationFileError, match="cannot be read: there is no such file|null|home|no path"):
            load(path)
    save(TALK, tmp_path / "talk.jsonl")
    monkeypatch.setattr(saved, "LARGEST", 100)
    with pytest.raises(ConversationFileError, match="more than 100 bytes"):
        load(tmp_path / "talk.jsonl")


def test_what_could_not_be_read_again_is_not_written(tmp_path, monkeypatch):
    path = tmp_path / "talk.jsonl"
    save(TALK, path)
    monkeypatch.setattr(saved, "LARGEST", saved.HEADER + len(path.read_bytes().partition(b"\n")[2]))
    save(TALK, path)
    assert load(path) == TALK
    with pytest.raises(ConversationFileError, match="could be read again"):
        save(Transcript(TALK.system + ".", TALK.messages), path)
    assert load(path) == TALK


def test_as_markdown_questions_are_quoted_and_answers_are_as_they_are(tmp_path):
    export(Transcript("Be ```brief```.", [
        {"role": "user", "content": "a\n\nb"},
        {"role": "assistant", "content": "*c*", "reasoning_content": "Hm."},
        {"role": "user", "content": "d"},
        {"role": "assistant", "content": "```python\n1\n```"},
    ]), tmp_path / "talk.md")  # fmt: skip
    assert (tmp_path / "talk.md").read_text() == (
        "System prompt:\n\n````\nBe ```brief```.\n````\n\n> a\n>\n> b\n\nThought:\n\n```\nHm.\n```\n\n*c*\n\n> d\n\n"
        "```python\n1\n```\n"
    )


def with_stats(**changes):
    counts = {"prompt_tokens": 9, "reused_tokens": 4, "generated_tokens": 3}
    return {**ASSISTANT, "stats": counts | {"prefill_seconds": 0.5, "decode_seconds": 1} | changes}


def test_how_an_answer_came_is_saved_with_it_and_is_not_part_of_the_message(tmp_path):
    answer = Answer(ASSISTANT)
    answer.stats = Stats(9, 4, 3, 0.5, 1.25, 2)
    talk = Transcript(None, [USER, answer])
    save(talk, tmp_path / "talk.jsonl")
    read = load(tmp_path / "talk.jsonl")
    assert read == talk and read.messages[1] == ASSISTANT and read.messages[1].stats == answer.stats
    assert read.without(0).messages[1].stats == answer.stats


@pytest.mark.parametrize("changes", [
    {"prompt_tokens": 1.5}, {"prompt_tokens": True}, {"decode_seconds": -1}, {"decode_seconds": float("inf")},
    {"decode_seconds": float("nan")}, {"prompt_tokens": "9"}, {"prompt_tokens": 10**30}, {"more": 1},
    {"guessed_tokens": 0.5},
])  # fmt: skip
def test_stats_that_are_no_such_numbers_are_one_line(changes, tmp_path):
    (tmp_path / "talk.jsonl").write_bytes(file(USER, with_stats()))
    # as it was saved before there were guesses
    assert load(tmp_path / "talk.jsonl").messages[1].stats == Stats(9, 4, 3, 0.5, 1)
    (tmp_path / "talk.jsonl").write_bytes(file(USER, with_stats(**changes)))
    with pytest.raises(ConversationFileError, match="byte 1[0-9]+: stats are the numbers prompt_tokens, reused_tokens"):
        load(tmp_path / "talk.jsonl")
