"""Text and parity: what is in, what follows, and that nothing of the test is in the training."""

import string

import numpy as np
import pytest

from trainloop import load
from trainloop.data.builtin import ALPHABET, decode, encode


@pytest.fixture(scope="module")
def text():
    return load("text")


def test_alphabet_is_printable_ascii():
    assert set(ALPHABET) == set(string.printable) - set("\t\r\x0b\x0c")
    assert len(ALPHABET) == 96


def test_encode_and_decode():
    assert decode(encode("for x in “range(3)”:\n\t~pass")) == "for x in range(3):\n~pass"
    np.testing.assert_array_equal(encode(" !~\n"), [0, 1, 94, 95])


def test_text_has_the_next_character_at_every_place(text):
    assert (text.x_train.shape, text.x_test.shape, text.outputs) == ((2048, 64), (512, 64), 96)
    assert text.x_train.dtype == text.y_train.dtype == np.int32
    for x, y in ((text.x_train, text.y_train), (text.x_test, text.y_test)):
        np.testing.assert_array_equal(x.ravel()[1:], y.ravel()[:-1])


def test_text_is_pythons_manual_and_its_parts_do_not_overlap(text):
    from pydoc_data.topics import topics

    manual = "".join(c for c in "\n\n".join(topics[name] for name in sorted(topics)) if c in ALPHABET)
    train, test = (decode(np.append(x.ravel(), y[-1, -1])) for x, y in zip(*parts(text), strict=True))
    assert manual.startswith(train[:1000])
    assert not set(train.split("\n\n")[1:-1]) & set(test.split("\n\n")[1:-1])


def parts(data):
    return (data.x_train, data.x_test), (data.y_train, data.y_test)


def test_parity_is_that_of_all_bits_so_far():
    data = load("parity")
    assert (data.x_train.shape, data.x_test.shape, data.outputs) == ((2048, 16), (512, 16), 2)
    for x, y in zip(*parts(data), strict=True):
        for row, answers in zip(x[:50], y[:50], strict=True):
            assert [sum(row[: t + 1]) % 2 for t in range(16)] == list(answers)
    assert len({tuple(row) for row in np.concatenate([data.x_train, data.x_test])}) == 2560
    assert 0.45 < data.y_test.mean() < 0.55
