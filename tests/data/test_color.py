"""Colors: factors, hue, jitter and gray as PIL or floating point has them."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.toys.pictures import (
    difference,
    noise,
    quick,
    seeds,
    sides,
    slow_adjust,
    slow_jitter,
    smooth,
)
from wsss_jax.data import color


@quick
@given(
    st.sampled_from(["brightness", "contrast", "saturation"]), st.floats(0, 2), sides, sides, seeds
)
def test_color_factors_agree_with_pil(what, factor, height, width, seed):
    image = noise(height, width, seed)
    ours = getattr(color, f"adjust_{what}")(image, factor)
    # PIL cuts off the fraction, and rounds the gray image of the saturation before blending it.
    levels = 2 if what == "saturation" else 1
    assert difference(ours, slow_adjust(image, what, factor)).max() <= levels


@quick
@given(st.floats(-0.5, 0.5), seeds)
def test_hue_agrees_with_floating_point(shift, seed):
    image = smooth(40, 50, seed)
    ours = color.adjust_hue(image, shift)
    # 8-bit hue has 256 steps; half of one is 3 levels of a full color, each conversion rounds.
    assert difference(ours, slow_adjust(image, "hue", round(shift * 256) / 256)).mean() < 1.0
    assert difference(ours, slow_adjust(image, "hue", shift)).max() <= 12


def test_hue_turns_red_to_green_to_blue():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    step = 5  # 200 * 6 / 256, what one step of the 8-bit hue changes in a channel
    assert difference(color.adjust_hue(red, 1 / 3), red[..., [1, 0, 2]]).max() <= step
    assert difference(color.adjust_hue(red, -1 / 3), red[..., [1, 2, 0]]).max() <= step
    np.testing.assert_array_equal(color.adjust_hue(red, 0.0), red)


@pytest.mark.parametrize("hue", [0.0, 0.1])
def test_jitter_agrees_with_the_slow_version(hue):
    strengths: dict[str, Any] = dict(brightness=0.3, contrast=0.3, saturation=0.3, hue=hue)
    for seed in range(20):
        image = smooth(60, 80, seed)
        ours = color.color_jitter(image, np.random.default_rng(seed), **strengths)
        slow = slow_jitter(image, np.random.default_rng(seed), strengths)
        assert difference(ours, slow).mean() < (2.0 if hue else 1.0)
        assert difference(ours, slow).max() <= (20 if hue else 5)
        assert difference(ours, image).mean() > 2


def test_jitter_of_strength_zero_is_the_identity():
    image = noise(20, 30)
    none: dict[str, Any] = dict(brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    ours = color.color_jitter(image, np.random.default_rng(0), **none)
    np.testing.assert_array_equal(ours, image)


def test_jitter_orders_vary():
    # Brightness 0 leaves black; whether contrast comes before or after is then the only question.
    image = smooth(20, 30)
    rng = np.random.default_rng(0)
    results = {
        color.color_jitter(
            image, rng, brightness=1.0, contrast=1.0, saturation=0.0, hue=0.0
        ).tobytes()
        for _ in range(10)
    }
    assert len(results) == 10


def test_contrast_of_a_part_is_about_the_mean_of_the_whole():
    whole = smooth(64, 64)
    part = np.ascontiguousarray(whole[:20, :20])
    for seed in range(10):
        jitter: dict[str, Any] = dict(brightness=0.3, contrast=0.9, saturation=0.3, hue=0.1)
        ours = color.color_jitter(part, np.random.default_rng(seed), **jitter, whole=whole)
        expected = color.color_jitter(whole, np.random.default_rng(seed), **jitter)
        np.testing.assert_array_equal(ours, expected[:20, :20])


def test_grayscale_is_pils_luma():
    image = noise(30, 40)
    luma = np.asarray(Image.fromarray(image).convert("L"))
    assert difference(color.grayscale(image), luma[..., None]).max() <= 1


def test_hsv_shift_moves_hue_round_and_clips_the_rest():
    image = smooth(30, 40)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(int)
    shifts = np.random.default_rng(5).integers(-10, 10, 3, endpoint=True)
    expected = np.stack(
        [
            (hsv[..., 0] + shifts[0]) % 180,
            *np.clip(hsv[..., 1:] + shifts[1:], 0, 255).transpose(2, 0, 1),
        ],
        axis=-1,
    ).astype(np.uint8)
    ours = color.hsv_shift(image, np.random.default_rng(5), 10)
    np.testing.assert_array_equal(ours, cv2.cvtColor(expected, cv2.COLOR_HSV2RGB))
