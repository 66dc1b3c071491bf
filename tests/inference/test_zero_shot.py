"""CLIP's two towers from one file: golden features, class names, templates and scores."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.models.test_vit_programs import golden
from tests.toys.clip_vocabulary import write_archive
from wsss_jax.errors import UserError
from wsss_jax.inference import zero_shot
from wsss_jax.weights.clip_tokenizer import ClipTokenizer

TOY: dict[str, Any] = dict(head_width=16)


def weights_of(case: str, folder: Path) -> Path:
    """The file of a recorded case, and a vocabulary beside it."""
    path, arrays = folder / "model.safetensors", golden(case)["arrays"]
    if case == "openai_clip":  # Its files also hold the sizes of the towers.
        sizes = dict(input_resolution=32, context_length=77, vocab_size=520)
        arrays |= {name: np.array(size) for name, size in sizes.items()}
    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, path)
    write_archive(folder)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return weights_of("openai_clip", tmp_path_factory.mktemp("clip"))


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("case", ["openai_clip", "hf_clip"])
def test_texts_have_the_features_of_the_other_program(case: str, tmp_path: Path):
    path, expected = weights_of(case, tmp_path), golden(case)
    tower, variables = zero_shot.text_tower(path, **TOY)
    assert (tower.vocabulary, tower.context, tower.depth, tower.embedding) == (520, 77, 2, 16)
    close(jax.jit(tower.apply)(variables, expected["texts"]), expected["text_embedding"])


def test_the_image_tower_is_known_from_its_arrays(weights: Path):
    tower, variables = zero_shot.image_tower(weights, **TOY)
    assert (tower.patch, tower.width, tower.depth, tower.pretrain_size) == (8, 32, 2, 32)
    expected = golden("openai_clip")
    x = np.random.default_rng(1).normal(size=(2, *expected["size"], 3)).astype(np.float32)
    found: Any = jax.jit(tower.apply)(variables, x)
    close(found["class_embedding"], expected["embedding"])


def test_class_names_in_templates(weights: Path):
    templates = ("a photo of a {}.", "the {}")
    found = zero_shot.text_features(["cat", "photo"], weights, templates=templates, **TOY)
    assert found.shape == (2, 16) and found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    tower, variables = zero_shot.text_tower(weights, **TOY)
    tokenizer = ClipTokenizer(weights.parent)
    for row, name in enumerate(("cat", "photo")):
        texts = [f"a photo of a {name}.", f"the {name}"]
        each = np.asarray(jax.jit(tower.apply)(variables, tokenizer(texts)))
        mean = (each / np.linalg.norm(each, axis=1, keepdims=True)).mean(0)
        close(found[row], mean / np.linalg.norm(mean))
    # A folder is as good as its file, and one template is the default.
    alone = zero_shot.text_features(["cat"], weights.parent, **TOY)
    close(alone, zero_shot.text_features(["cat"], weights, templates=templates[:1], **TOY))


def test_scores_of_an_image(weights: Path):
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 27, 3), np.uint8)
    features = zero_shot.image_features(images, weights, **TOY)
    texts = zero_shot.text_features(["cat", "dog", "photo"], weights, **TOY)
    found = np.asarray(zero_shot.class_scores(features, texts))
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-6)
    logits = 100 * features.astype(np.float64) @ texts.T.astype(np.float64)
    expected = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-3)
    flat = np.asarray(zero_shot.class_scores(features, texts, logit_scale=0.0))
    np.testing.assert_allclose(flat, 1 / 3, rtol=1e-6)


def test_settings_beside_the_weights_are_compared(tmp_path: Path):
    weights = weights_of("hf_clip", tmp_path)
    towers: dict[str, Any] = {
        "vision_config": dict(num_attention_heads=2, hidden_act="quick_gelu", image_size=32),
        "text_config": dict(num_attention_heads=2, hidden_act="quick_gelu", layer_norm_eps=1e-5),
    }
    for tower, load in (
        ("vision_config", zero_shot.image_tower),
        ("text_config", zero_shot.text_tower),
    ):
        (tmp_path / "config.json").write_text(json.dumps(towers))
        load(weights, **TOY)
        changed = towers[tower] | dict(num_attention_heads=1, hidden_act="gelu")
        (tmp_path / "config.json").write_text(json.dumps(towers | {tower: changed}))
        expected = "with activation=quick_gelu, head_width=16, .* states activation=gelu, head_wi"
        with pytest.raises(UserError, match=expected):
            load(weights, **TOY)
        load(weights, activation="gelu", head_width=32)


def test_what_cannot_work_is_refused(weights: Path, tmp_path: Path):
    for names, templates, message in (
        ([], ("{}",), "at least one class name"),
        (["cat"], (), "one template"),
        (["cat"], ("a photo",), r"one \{\} in a template, found 'a photo'"),
    ):
        with pytest.raises(UserError, match=message):
            zero_shot.text_features(names, weights, templates=templates, **TOY)
    image_only = tmp_path / "image.safetensors"
    arrays = golden("open_clip_image")["arrays"]
    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, image_only)
    with pytest.raises(UserError, match=r"found no token_embedding\.weight"):
        zero_shot.text_features(["cat"], image_only, **TOY)
    other = weights_of("openai_clip", tmp_path)
    arrays = golden("openai_clip")["arrays"]
    arrays["token_embedding.weight"] = np.ones((600, 32), np.float32)
    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, other)
    with pytest.raises(UserError, match=r"vocabulary of 600 tokens .* found one of 520"):
        zero_shot.text_features(["cat"], other, **TOY)
