"""Messages are one line that can be shown, whatever they quote."""

import pickle

import pytest

from wsss_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("expected ä in /a/b c.png, found ×: do it", "expected ä in /a/b c.png, found ×: do it"),
        ("found a\nb\r\nc", "found a b c"),
        ("found \x1b[31mred\x07", "found \\x1b[31mred\\x07"),
        ("found \ud800\u200b", "found \\ud800\\u200b"),
    ],
)
def test_a_message_is_one_line(text: str, line: str):
    assert str(UserError(text)) == line
    assert str(pickle.loads(pickle.dumps(UserError(text)))) == line


def test_the_middle_of_a_long_line_is_left_out():
    message = str(UserError(f"expected a name, found {'a' * 100_000}: write another one"))
    assert len(message) == 4000 and message.startswith("expected a name, found aaa")
    assert message.endswith("aaa: write another one") and " ... " in message
    assert str(UserError(message)) == message
