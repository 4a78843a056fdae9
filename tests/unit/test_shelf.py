"""The conversations of a session: begun, left, taken up, copied, taken back; none is lost."""

import pytest

from nbllm.chat.shelf import Shelf
from nbllm.errors import OptionError


def say(shelf, *questions):
    for question in questions:
        shelf.current.messages = [
            *shelf.current.messages,
            {"role": "user", "content": question},
            {"role": "assistant", "content": question.upper()},
        ]


def said(shelf):
    """The questions of each conversation, and the name of the one that goes on."""
    return {name: [m["content"] for m in each.messages[::2]] for name, each in shelf.conversations.items()}, shelf.name


@pytest.fixture
def shelf():
    """With one conversation of three exchanges."""
    shelf = Shelf()
    say(shelf, "a", "b", "c")
    return shelf


def test_new_ones_get_numbers_or_names_and_the_old_ones_stay(shelf):
    assert shelf.new() == "A new conversation."
    say(shelf, "d")
    assert shelf.new("other") == "A new conversation, other."
    assert said(shelf) == ({"1": ["a", "b", "c"], "2": ["d"], "other": []}, "other")
    assert shelf.switch("1") == "Conversation 1 goes on after 3 exchanges."
    say(shelf, "e")
    assert said(shelf) == ({"1": ["a", "b", "c", "e"], "2": ["d"], "other": []}, "1")


def test_one_that_never_began_and_has_no_name_is_not_kept(shelf):
    for _ in range(3):
        shelf.new()
    assert said(shelf) == ({"1": ["a", "b", "c"], "2": []}, "2")
    shelf.switch("1")
    assert said(shelf) == ({"1": ["a", "b", "c"]}, "1")


def test_switching_to_itself_changes_nothing():
    shelf = Shelf()
    shelf.switch("1")
    assert said(shelf) == ({"1": []}, "1")


def test_a_branch_goes_on_in_a_copy_and_the_other_stays(shelf):
    shelf.current.system = "Be brief."
    assert shelf.branch() == "Conversation 1-2 goes on after 3 exchanges; 1 stays as it is."
    shelf.current.system = "Be long."
    say(shelf, "d")
    assert shelf.branch("mine", undo=3) == "Conversation mine goes on after 1 exchange; 1-2 stays as it is."
    say(shelf, "e")
    assert said(shelf) == ({"1": ["a", "b", "c"], "1-2": ["a", "b", "c", "d"], "mine": ["a", "e"]}, "mine")
    assert [each.system for each in shelf.conversations.values()] == ["Be brief.", "Be long.", "Be long."]


def test_undo_takes_back_the_last(shelf):
    kept = shelf.current
    assert shelf.undo() == "Taken back: 1. The conversation goes on after 2 exchanges."
    assert shelf.undo(2) == "Taken back: 2. The conversation goes on after 0 exchanges."
    assert shelf.current is kept and kept.messages == []


def test_a_question_is_counted_from_the_end(shelf):
    assert [shelf.current.question(count) for count in (1, 2, 3)] == ["c", "b", "a"]


def test_a_saved_one_goes_on_under_the_name_of_its_file(shelf, tmp_path):
    path = tmp_path / "talk.jsonl"
    assert shelf.save(path) == f"Saved 3 exchanges in {path}."
    say(shelf, "d")
    assert shelf.load(path) == "Conversation talk goes on after 3 exchanges."
    shelf.load(path)
    assert said(shelf) == ({"1": ["a", "b", "c", "d"], "talk": ["a", "b", "c"], "talk-2": ["a", "b", "c"]}, "talk-2")
    assert shelf.export(tmp_path / "talk.md") == f"Wrote 3 exchanges to {tmp_path / 'talk.md'}."


def test_a_system_prompt_is_that_of_the_conversation_which_goes_on(shelf):
    assert shelf.instruct("Be brief.") == "The system prompt is set." and shelf.current.system == "Be brief."
    shelf.new("other")
    assert shelf.current.system is None and shelf.conversations["1"].system == "Be brief."
    assert shelf.instruct("") == "There is no system prompt any more." and shelf.current.system is None


MISTAKES = {
    "there is no conversation 'x'; %chat list shows them, %chat new begins one": lambda shelf: shelf.switch("x"),
    "there is a conversation '1' already; %chat switch 1 goes on with it": lambda shelf: shelf.new("1"),
    "4 cannot be taken back: the conversation has 3 exchanges": lambda shelf: shelf.undo(4),
    "9 cannot be taken back: the conversation has 3 exchanges": lambda shelf: shelf.branch(undo=9),
    "1 cannot be taken back: the conversation is empty": lambda shelf: Shelf().undo(),
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_and_changes_nothing(shelf, line):
    before = said(shelf)
    with pytest.raises(OptionError) as error:
        MISTAKES[line](shelf)
    assert str(error.value) == line and said(shelf) == before
