"""What a front end can be sent: JSON in UTF-8, which has no place for half of a surrogate pair.

A variable, a file's name or a conversation may hold one all the same; one message with it, and ipykernel sends nothing.
Knows nothing of what is sent.
"""


def sendable(value):
    """Text, or what JSON is made of, with a question mark in place of each half."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {sendable(key): sendable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [sendable(each) for each in value]
    return value
