"""What is asked. Knows nothing of turns."""

PROMPTS = ("Hello!", "What is the capital of France?", "Name a fish.", "And then?", "Why?", "Write a line of the sea.",
           "Is water wet? Ünïcödé, 日本語, {braces} and $x$.", "Count to five.", "In other words?")  # fmt: skip
LONG = "Count from one to one thousand, in words, one number a line."
SEA = "The sea was calm and the night was long. "


def limit(talk):
    """Most tokens of a reply: few, and sometimes many."""
    return 200 if talk.random.random() < 0.04 else talk.random.randint(1, 8)
