"""Given classes are found however labels spell them."""

import pytest

from wsss_jax.data.known_classes import Classes, multi_hot
from wsss_jax.errors import UserError


def test_names_go_before_indices():
    classes = Classes(("cat", "Dog"))
    assert [classes.find(text) for text in ("CAT", "dog", "2", "2.0", "3", "0")] == [
        *(0, 1, 1, 1),
        *(None, None),
    ]


def test_where_a_class_is_called_by_a_number_no_text_is_an_index():
    classes = Classes(("1", "2", "5"))
    assert [classes.find(text) for text in ("1", "5", "3")] == [0, 2, None]
    assert Classes(("year 1", "2.5")).find("1") is None


def test_labels_in_any_case():
    assert multi_hot(["DOG"], ("cat", "Dog"), "correct it").tolist() == [0, 1]
    with pytest.raises(UserError, match="expected labels among cat, Dog, found 'Dgo'; did you"):
        multi_hot(["Dgo"], ("cat", "Dog"), "correct it")
