"""Conversations as files: JSON lines, of which the first says how long the others are and what their hash is.

    {"format": "nbllm conversation", "version": 1, "bytes": 123, "sha256": "..."}
    {"role": "system", "content": "..."}          if there is a system prompt
    {"role": "user", "content": "..."}            questions and answers in turn
    {"role": "assistant", "content": "...", "reasoning_content": "...", "stats": {...}}

Reading makes text and nothing else of them, whatever is in them. Knows nothing of models.
"""

import hashlib
import json
import os
import re
from dataclasses import MISSING, asdict, fields
from pathlib import Path

from nbllm.chat.transcript import Answer, Transcript
from nbllm.errors import ConversationFileError, quoted, why
from nbllm.paths import expanded, opened, written
from nbllm.runtime.events import Stats

FORMAT, VERSION = "nbllm conversation", 1
LARGEST = 64 << 20  # bytes of a file, at most
HEADER = 1024  # bytes of the first line, and of what is no text in another, at most
STRINGS = 32  # in a line, at most; made of more, or of lists, it could take 30 times its size of memory
FIELDS = {"system": {"content"}, "user": {"content"}, "assistant": {"content", "reasoning_content", "stats"}}
COUNTS = {field.name: (int,) if field.type is int else (int, float) for field in fields(Stats)}
_TEXT = re.compile(rb'"(?:[^"\\]++|\\.)*+"')
LATER = {field.name: field.default for field in fields(Stats) if field.default is not MISSING}  # not in every file


def save(transcript: Transcript, path):
    """Write a conversation, whole or not at all. Only a file that is a saved conversation is replaced.

    Raises
    ------
    ConversationFileError
        It cannot be written there, or there is another file.
    """
    system = [{"role": "system", "content": transcript.system}] if transcript.system else []
    lines = (f"{_json(_with_stats(message))}\n" for message in system + transcript.messages)
    body = "".join(lines).encode(errors="surrogatepass")
    header = {"format": FORMAT, "version": VERSION, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    path = expanded(path, ConversationFileError)
    if len(body) > LARGEST - HEADER:
        raise ConversationFileError(f"{path} cannot be written: the conversation has {len(body):,} bytes, and no more "
                                    f"than {LARGEST - HEADER:,} could be read again; export it, or save a shorter one")
    if os.path.lexists(path) and not _is_ours(path):
        raise ConversationFileError(f"{path} is there and is no saved conversation; choose another name, or delete it")
    write(path, f"{_json(header)}\n".encode() + body)


def load(path) -> Transcript:
    """Read a conversation.

    Raises
    ------
    ConversationFileError
        The file is not there, is damaged, or is no saved conversation.
    """
    path = expanded(path, ConversationFileError)
    try:
        with opened(path) as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise ConversationFileError(
            f"{path} cannot be read: {why(error)}; give the file of a saved conversation"
        ) from error
    return _transcript(path, data)


def export(transcript: Transcript, path):
    """Write a conversation as Markdown, for people; raises ConversationFileError, also where a file is."""
    path = expanded(path, ConversationFileError)
    if os.path.lexists(path):
        raise ConversationFileError(f"{path} is there already; choose another name, or delete it")
    write(path, transcript.markdown().encode(errors="replace"))


def write(path: Path, data: bytes):
    """Write a file, whole or not at all."""
    try:
        with written(path) as file:
            file.write(data)
    except (OSError, ValueError) as error:
        raise ConversationFileError(f"{path} cannot be written: {why(error)}; choose another place") from error


def _transcript(path, data):
    if len(data) > LARGEST:
        raise ConversationFileError(f"{path} has more than {LARGEST:,} bytes, the most that are read")
    first, _, body = data.partition(b"\n")
    header = _object(path, first, 0) if len(first) <= HEADER else {}
    if header.get("format") != FORMAT:
        raise ConversationFileError(f'{path} is no saved conversation: its first line has no "format": "{FORMAT}"')
    if (version := header.get("version")) != VERSION:
        raise ConversationFileError(f"{path} is of version {quoted(version)}, not {VERSION}; update nbllm")
    for name, found in (("bytes", len(body)), ("sha256", hashlib.sha256(body).hexdigest())):
        if (said := header.get(name)) != found:
            raise ConversationFileError(
                f"{path} is damaged: its first line has {name} {quoted(said, 70)}, and what follows at byte "
                f"{len(first) + 1} has {found!r}; use another copy"
            )
    return Transcript(*_messages(path, body, len(first) + 1))


def _messages(path, body, at):
    system, messages = None, []
    for line in body.splitlines(keepends=True):
        if not _simple(line):
            raise ConversationFileError(f"{path}, byte {at}: the line has more in it than a message")
        message = _object(path, line, at)
        role, expected = message.get("role"), ("user", "assistant")[len(messages) % 2]
        if role != expected and (role != "system" or messages or system is not None):
            raise ConversationFileError(f"{path}, byte {at}: role {quoted(role, 40)} stands where {expected!r} should")
        texts = {name: value for name, value in message.items() if name != "role"}
        stats = _stats(path, texts.pop("stats"), at) if role == "assistant" and "stats" in texts else None
        if "content" not in texts or not texts.keys() <= FIELDS[role]:
            raise ConversationFileError(f"{path}, byte {at}: a message of {role} has {', '.join(sorted(FIELDS[role]))}")
        for name, value in texts.items():
            if not isinstance(value, str):
                raise ConversationFileError(f"{path}, byte {at}: {name} is no text but {type(value).__name__}")
        if role == "system":
            system = texts["content"]
        else:
            messages.append(Answer(role=role, **texts) if role == "assistant" else message)
            if stats:
                messages[-1].stats = stats
        at += len(line)
    if len(messages) % 2:
        raise ConversationFileError(f"{path}, byte {at}: the last question has no answer")
    return system, messages


def _simple(line):
    """Whether little but a few texts is in this line of JSON, told before anything is made of it."""
    at = between = 0
    for _ in range(STRINGS):
        quote = line.find(b'"', at)
        between += (len(line) if quote < 0 else quote) - at
        if quote < 0 or between > HEADER:
            break
        text = _TEXT.match(line, quote)
        at = text.end() if text else len(line)  # one without an end is the last
    else:
        return False
    return between <= HEADER


def _with_stats(message):
    stats = getattr(message, "stats", None)
    return message | {"stats": asdict(stats)} if stats else message


def _stats(path, value, at):
    numbers = LATER | value if isinstance(value, dict) else {}
    if numbers.keys() != COUNTS.keys() or not all(
        type(numbers[name]) in kinds and 0 <= numbers[name] < 1e12 for name, kinds in COUNTS.items()
    ):
        raise ConversationFileError(f"{path}, byte {at}: stats are the numbers {', '.join(COUNTS)}, none negative")
    return Stats(**numbers)


def _object(path, line, at):
    try:
        value = json.loads(line.decode(errors="surrogatepass"))
    except (ValueError, RecursionError) as error:  # also bytes that are no text
        raise ConversationFileError(f"{path}, byte {at}: the line is no JSON") from error
    if not isinstance(value, dict):
        raise ConversationFileError(f"{path}, byte {at}: the line is no JSON object but {type(value).__name__}")
    return value


def _is_ours(path):
    try:
        with opened(path) as file:
            return _object(path, file.readline(HEADER), 0).get("format") == FORMAT
    except (OSError, ConversationFileError):
        return False


def _json(value):
    return json.dumps(value, ensure_ascii=False)
