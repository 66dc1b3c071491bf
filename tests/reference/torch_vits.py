"""What vision transformers of other programs compute, with weights drawn from their files' names.

Run by an interpreter that has torch, timm, transformers and open_clip:

    PYTHONPATH=. python tests/reference/torch_vits.py tests/golden/vit_programs.npz

Every case has ``CASE:arrays`` (JSON, names and shapes in the file), ``CASE:size`` (the image, see
`drawn_image`), ``CASE:tokens`` [b, n, d] of the last norm, and ``CASE:embedding`` [b, e] if the
network has one. CLIP has ``CASE:texts`` [t, n] (tokens) and ``CASE:text_embedding`` [t, e], too.
"""

import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip.model  # pyright: ignore[reportMissingImports]
import timm  # pyright: ignore[reportMissingImports]
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from safetensors.numpy import load_file, save_file

from tests.reference.drawing import draw

HF = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128)
TIMM = dict(embed_dim=32, depth=2, num_heads=2, num_classes=5, dynamic_img_size=True)
VOCABULARY = 520
Shapes = dict[str, tuple[int, ...]]


def drawn_texts() -> np.ndarray:
    """Tokens of three texts of different lengths."""
    texts = np.random.default_rng(2).integers(1, VOCABULARY - 2, (3, 9))
    texts[:, 0] = VOCABULARY - 2
    for row, end in enumerate((8, 4, 2)):
        texts[row, end:] = 0
        texts[row, end] = VOCABULARY - 1
    return texts


def drawn_image(height: int, width: int) -> torch.Tensor:
    x = np.random.default_rng(1).normal(size=(2, height, width, 3)).astype(np.float32)
    return torch.from_numpy(x).permute(0, 3, 1, 2)


def shapes_of(arrays: Any) -> Shapes:
    return {name: tuple(array.shape) for name, array in arrays.items()}


def drawn(shapes: Shapes) -> dict[str, np.ndarray]:
    return {name: draw(name, shape, 0) for name, shape in shapes.items()}


def load(model: Any) -> Shapes:
    """Loads drawn weights into a module under its own names."""
    shapes = shapes_of(model.state_dict())
    model.load_state_dict({n: torch.from_numpy(a) for n, a in drawn(shapes).items()})
    model.eval()
    return shapes


def load_hugging_face(model: Any) -> tuple[Any, Shapes]:
    """Lets transformers load a file of drawn weights; its names need not be its modules'."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        shapes = shapes_of(load_file(path))
        save_file(drawn(shapes), path, metadata={"format": "pt"})
        return type(model).from_pretrained(folder).eval(), shapes


def timm_case(name: str, size: tuple[int, int], **fields: Any) -> dict[str, Any]:
    model = timm.create_model(name, **{**TIMM, **fields})
    arrays, x = load(model), drawn_image(*size)
    return dict(arrays=arrays, size=size, tokens=model.forward_features(x))


def hugging_face_case(
    model: Any, size: tuple[int, int], file: bool = True, **options: Any
) -> dict[str, Any]:
    if file:
        model, arrays = load_hugging_face(model)
    else:
        arrays = load(model)
    tokens = getattr(model, "vit", model)(drawn_image(*size), **options).last_hidden_state
    return dict(arrays=arrays, size=size, tokens=tokens)


def hugging_face_clip() -> dict[str, Any]:
    config = transformers.CLIPConfig(
        text_config=dict(
            **HF, vocab_size=VOCABULARY, eos_token_id=VOCABULARY - 1, bos_token_id=VOCABULARY - 2
        ),
        vision_config=dict(**HF, image_size=32, patch_size=8),
        projection_dim=16,
    )
    model, arrays = load_hugging_face(transformers.CLIPModel(config))
    found = model.vision_model(drawn_image(40, 24), interpolate_pos_encoding=True)
    tokens = model.vision_model.post_layernorm(found.last_hidden_state)
    embedding = model.visual_projection(found.pooler_output)
    texts = torch.from_numpy(drawn_texts())
    text = model.text_projection(model.text_model(texts).pooler_output)
    found = dict(arrays=arrays, size=(40, 24), tokens=tokens, embedding=embedding)
    return dict(found, texts=texts, text_embedding=text)


def open_clip_case(quick_gelu: bool) -> dict[str, Any]:
    vision = open_clip.model.CLIPVisionCfg(
        layers=2, width=32, head_width=16, patch_size=8, image_size=32
    )
    text = open_clip.model.CLIPTextCfg(width=32, heads=2, layers=2, vocab_size=VOCABULARY)
    model = open_clip.model.CLIP(16, vision, text, quick_gelu=quick_gelu)
    tower, x = model.visual, drawn_image(32, 32)
    arrays = load(model if quick_gelu else tower)  # the latter is a file of the image tower alone
    model.eval()
    tokens = tower.ln_post(tower.transformer(tower._embeds(x)))
    found = dict(arrays=arrays, size=(32, 32), tokens=tokens, embedding=tower(x))
    if quick_gelu:
        texts = torch.from_numpy(drawn_texts())
        found |= dict(texts=texts, text_embedding=model.encode_text(F.pad(texts, (0, 68))))
    return found


def big_vision(prefix: str) -> dict[str, Any]:
    """timm reads the file, which is drawn here under the names of AugReg or big_vision."""
    new = bool(prefix)
    attention, mlp, norm = (0, 0, 1) if new else (1, 3, 2)
    shapes: dict[str, tuple[int, ...]] = {
        "cls": (1, 1, 32),
        "embedding/kernel": (8, 8, 3, 32),
        "embedding/bias": (32,),
        "pos_embedding" if new else "Transformer/posembed_input/pos_embedding": (1, 17, 32),
        "Transformer/encoder_norm/scale": (32,),
        "Transformer/encoder_norm/bias": (32,),
        "head/kernel": (32, 5),
        "head/bias": (5,),
    }
    for number in range(2):
        block = f"Transformer/encoderblock_{number}"
        for part in ("query", "key", "value"):
            name = f"{block}/MultiHeadDotProductAttention_{attention}/{part}"
            shapes |= {f"{name}/kernel": (32, 2, 16), f"{name}/bias": (2, 16)}
        name = f"{block}/MultiHeadDotProductAttention_{attention}/out"
        shapes |= {f"{name}/kernel": (2, 16, 32), f"{name}/bias": (32,)}
        name = f"{block}/MlpBlock_{mlp}/Dense_"
        shapes |= {f"{name}0/kernel": (32, 128), f"{name}0/bias": (128,)}
        shapes |= {f"{name}1/kernel": (128, 32), f"{name}1/bias": (32,)}
        for number_of_norm in (0, norm):
            name = f"{block}/LayerNorm_{number_of_norm}"
            shapes |= {f"{name}/scale": (32,), f"{name}/bias": (32,)}
    shapes = {prefix + name: shape for name, shape in shapes.items()}
    model = timm.create_model("vit_tiny_patch16_224", **{**TIMM, "img_size": 32, "patch_size": 8})
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "w.npz", allow_pickle=False, **drawn(shapes))
        model.eval().load_pretrained(str(Path(folder) / "w.npz"))
    tokens = model.forward_features(drawn_image(32, 32))
    return dict(arrays=shapes, size=(32, 32), tokens=tokens)


def resized_positions() -> dict[str, Any]:
    """Grids that the programs' own calls of PyTorch resize; ``out_HOW_NUMBER`` [h, w, d]."""
    grid = torch.randn(1, 3, 7, 7, generator=torch.Generator().manual_seed(2))
    found: dict[str, Any] = dict(arrays={}, grid=grid[0].permute(1, 2, 0))
    for number, size in enumerate(((7, 7), (7, 9), (4, 12), (3, 2), (25, 13), (1, 30))):
        whole = F.interpolate(grid, size=size, mode="bicubic")
        smooth = F.interpolate(grid, size=size, mode="bicubic", antialias=True)
        # DINO's and DINOv2's programs do not resize to the size of the grid.
        scale = tuple((side + 0.1) / math.sqrt(49) for side in size)
        offset = F.interpolate(grid, scale_factor=scale, mode="bicubic") if size != (7, 7) else grid
        found[f"size_{number}"] = torch.tensor(size)
        for how, out in (("bicubic", whole), ("antialias", smooth), ("offset", offset)):
            assert out.shape[2:] == size
            found[f"out_{how}_{number}"] = out[0].permute(1, 2, 0)
    return found


def cases() -> dict[str, Callable[[], dict[str, Any]]]:
    """What makes every case, by name."""
    small, large = dict(image_size=32, patch_size=8), dict(image_size=70, patch_size=14)
    t = transformers
    return {
        "timm_vit": lambda: timm_case("vit_tiny_patch16_224", (48, 24), img_size=32, patch_size=8),
        "timm_deit_distilled": lambda: timm_case(
            "deit_tiny_distilled_patch16_224", (32, 32), img_size=32, patch_size=8
        ),
        "timm_dinov2": lambda: timm_case("vit_small_patch14_dinov2", (42, 84), img_size=70),
        "timm_dinov2_registers": lambda: timm_case(
            "vit_small_patch14_reg4_dinov2", (84, 42), img_size=70
        ),
        "timm_clip": lambda: timm_case(
            "vit_base_patch16_clip_quickgelu_224", (40, 32), img_size=32, patch_size=8
        ),
        "hf_vit": lambda: hugging_face_case(
            t.ViTModel(t.ViTConfig(**HF, **small)), (40, 24), interpolate_pos_encoding=True
        ),
        "hf_vit_classifier": lambda: hugging_face_case(
            t.ViTForImageClassification(t.ViTConfig(**HF, **small)), (32, 32)
        ),
        "hf_vit_modules": lambda: hugging_face_case(
            t.ViTModel(t.ViTConfig(**HF, **small)), (32, 32), file=False
        ),
        "hf_deit_distilled": lambda: hugging_face_case(
            t.DeiTModel(t.DeiTConfig(**HF, **small)), (32, 32)
        ),
        "hf_dinov2": lambda: hugging_face_case(
            t.Dinov2Model(t.Dinov2Config(**HF, **large)), (42, 84)
        ),
        "hf_dinov2_registers": lambda: hugging_face_case(
            t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**HF, **large)), (84, 42)
        ),
        "hf_clip": hugging_face_clip,
        "openai_clip": lambda: open_clip_case(quick_gelu=True),
        "open_clip_image": lambda: open_clip_case(quick_gelu=False),
        "augreg": lambda: big_vision(""),
        "big_vision": lambda: big_vision("params/"),
        "positions": resized_positions,
    }


def main(path: Path) -> None:
    """Writes all cases."""
    torch.set_num_threads(1)
    everything: dict[str, np.ndarray] = {}
    for case, make in cases().items():
        with torch.no_grad():
            found = make()
        found["arrays"] = json.dumps(found["arrays"])
        everything |= {f"{case}:{key}": np.asarray(value) for key, value in found.items()}
    np.savez_compressed(path, allow_pickle=False, **everything)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
