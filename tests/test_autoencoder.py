"""Latents of diffusers' autoencoders: as the library computes them, chunk by chunk, tile by tile; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmcore.autoencoder import PIXELS, Latents, open_autoencoder
from mmcore.config import cells_of, grid_of
from mmcore.decoders.visual import unpatchify
from mmcore.errors import MMCoreError
from mmcore.tiles import Coder, Tiles
from mmcore.tokenizers.visual import patchify
from tests.conftest import lively, noise_clip

diffusers = pytest.importorskip("diffusers")
pytestmark = pytest.mark.quick

SCALES = {"latents_mean": [0.3, -0.2, 0.1, 0.0], "latents_std": [2.0, 0.5, 1.5, 1.0]}
WAN: dict[str, Any] = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, **SCALES}
WAN22 = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16}
FLUX: dict[str, Any] = {
    "block_out_channels": (8, 8, 8),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "norm_num_groups": 4,
    "latent_channels": 4,
    "scaling_factor": 0.36,
    "shift_factor": 0.12,
}
MADE = {
    "wan 2.1": lambda: diffusers.AutoencoderKLWan(**WAN),
    "wan 2.2": lambda: diffusers.AutoencoderKLWan(**WAN, **WAN22, decoder_base_dim=8),
    "flux": lambda: diffusers.AutoencoderKL(**FLUX, use_quant_conv=False, use_post_quant_conv=False),
    "kl": lambda: diffusers.AutoencoderKL(**{**FLUX, "shift_factor": None}),
}
CELLS = {"wan 2.1": (4, 8, 8), "wan 2.2": (4, 16, 16), "flux": (1, 4, 4), "kl": (1, 4, 4)}


@pytest.fixture(scope="module", params=MADE)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, Latents]:
    """A small random autoencoder, and ours of the folder that it was saved in."""
    torch.manual_seed(0)
    folder, theirs = tmp_path_factory.mktemp("vae"), lively(MADE[request.param]())
    theirs.save_pretrained(folder / "vae")
    return request.param, theirs, open_autoencoder(folder)


@torch.no_grad()
def reference(name: str, theirs: Any, frames: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """Scaled latents (t, h, w, C) and the frames that they give, by the library's own methods."""
    pixels = torch.from_numpy(PIXELS.encode(frames)).permute(3, 0, 1, 2)
    if name.startswith("wan"):
        mean, std = (torch.tensor(SCALES[key])[:, None, None, None] for key in ("latents_mean", "latents_std"))
        raw = theirs.encode(pixels[None]).latent_dist.mode()
        told, made = ((raw[0] - mean) / std).permute(1, 2, 3, 0), theirs.decode(raw).sample[0].permute(1, 2, 3, 0)
    else:
        raw = theirs.encode(pixels.transpose(0, 1)).latent_dist.mode()
        told = ((raw - (theirs.config.shift_factor or 0)) * theirs.config.scaling_factor).permute(0, 2, 3, 1)
        made = theirs.decode(raw).sample.permute(0, 2, 3, 1)
    return told, PIXELS.decode(made.numpy())


@pytest.mark.parametrize("frames", [1, 9])
def test_it_computes_what_diffusers_does(pair: tuple[str, Any, Latents], frames: int) -> None:
    """Latents to 1e-4, frames to one level in 255; an image is a clip of one frame."""
    name, theirs, ours = pair
    clip = noise_clip(0, frames, 32)
    told, made = reference(name, theirs, clip)
    found = ours.encode(clip)
    assert ours.cell == CELLS[name] and found.shape == (*cells_of((frames, 32, 32), ours.cell), ours.channels)
    torch.testing.assert_close(torch.from_numpy(found), told, atol=1e-4, rtol=0)
    back = ours.decode(found)
    assert back.shape == clip.shape and np.abs(back.astype(int) - made).max() <= 1 and back.std() > 1


def test_any_size_comes_back_at_its_size(pair: tuple[str, Any, Latents]) -> None:
    """Through patches too: what does not fill them is continued, and cut off again."""
    _, _, ours = pair
    clip = noise_clip(1, 3, 40)[:, :21]
    values, grid = patchify(clip, (1, 2, 2), ours)
    assert grid == grid_of((3, 21, 40), (1, 2, 2), ours.cell)
    assert values.shape == (np.prod(grid), 4 * ours.channels) and values.dtype == torch.float32
    back = unpatchify(values, grid, (1, 2, 2), (3, 21, 40), ours)
    assert back.shape == clip.shape
    rows, columns = (-(-n // c) * c for n, c in zip((21, 40), ours.cell[1:], strict=True))
    whole = np.pad(clip, [(0, 0), (0, rows - 21), (0, columns - 40), (0, 0)], mode="edge")
    assert np.array_equal(back, ours.decode(ours.encode(whole))[:3, :21, :40])


def test_memory_does_not_follow_the_length(pair: tuple[str, Any, Latents]) -> None:
    """No half ever takes more than one chunk, nor more than a tile; and a longer clip begins like a shorter one."""
    _, _, ours = pair
    taken: list[torch.Size] = []
    hooks = [
        half.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].shape))
        for half in (ours.model.encoder, ours.model.decoder)
    ]
    short, long = noise_clip(2, 5, 32), noise_clip(2, 13, 32)
    long[:5] = short
    a, b = ours.encode(short), ours.encode(long)
    frames_a, frames_b = ours.decode(a), ours.decode(b)
    for hook in hooks:
        hook.remove()
    assert np.array_equal(a, b[: len(a)]) and np.array_equal(frames_a, frames_b[: len(frames_a)])
    assert all(shape[2] <= 4 if len(shape) == 5 else shape[0] == 1 for shape in taken)
    assert all(shape[-1] <= 32 for shape in taken) and len(taken) >= 12


def test_large_frames_go_in_tiles(pair: tuple[str, Any, Latents]) -> None:
    """Halves take tiles alone; where a tile has no neighbour, it is what that part of the frame gives by itself."""
    _, theirs, ours = pair
    side = ours.cell[1]
    tiled = Latents(theirs, tile=4 * side, overlap=2 * side)
    clip = noise_clip(3, 5, 7 * side)
    taken: list[int] = []
    hook = theirs.encoder.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0].shape[-1]))
    found = tiled.encode(clip)
    hook.remove()
    assert found.shape == ours.encode(clip).shape and max(taken) <= 4 * side
    alone = ours.encode(clip[:, : 4 * side, : 4 * side])
    np.testing.assert_allclose(found[:, :2, :2], alone[:, :2, :2], atol=1e-5)
    made = tiled.decode(found)
    assert made.shape == clip.shape
    corner = ours.decode(np.ascontiguousarray(found[:, -4:, -4:]))
    assert np.abs(made[:, -side:, -side:].astype(int) - corner[:, -side:, -side:]).max() <= 1


def averaging(side: int) -> Coder:
    return lambda pixels: torch.nn.functional.avg_pool2d(pixels, side)


def repeating(side: int) -> Coder:
    return lambda cells: cells.repeat_interleave(side, 2).repeat_interleave(side, 3)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 17), columns=st.integers(1, 17), tile=st.integers(2, 6), share=st.floats(0, 0.99))
def test_tiles_of_what_looks_no_further_than_a_cell_are_the_whole(
    rows: int, columns: int, tile: int, share: float
) -> None:
    """To 1e-5, for any frame, tile and overlap."""
    overlap = int(share * tile)
    pixels = torch.randn(3, 2, 4 * rows, 4 * columns)
    cells = averaging(4)(pixels)
    shrinking = Tiles((rows, columns), (4, 4), 4 * tile, 4 * overlap, lambda: averaging(4), shrink=True)
    torch.testing.assert_close(shrinking(pixels), cells, atol=1e-5, rtol=0)
    growing = Tiles((rows, columns), (4, 4), 4 * tile, 4 * overlap, lambda: repeating(4), shrink=False)
    torch.testing.assert_close(growing(cells), repeating(4)(cells), atol=1e-5, rtol=0)


@settings(max_examples=40, deadline=None)
@given(size=st.tuples(*[st.integers(1, 40)] * 3), patch=st.tuples(*[st.integers(1, 4)] * 3))
def test_pixels_are_cells_of_one(size: tuple[int, int, int], patch: tuple[int, int, int]) -> None:
    assert cells_of(size, (1, 1, 1)) == size
    assert grid_of(size, patch) == tuple(-(-n // p) for n, p in zip(size, patch, strict=True))
    assert cells_of(size, (4, 8, 8)) == (1 + -(-(size[0] - 1) // 4), -(-size[1] // 8), -(-size[2] // 8))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(MMCoreError, match=r"config.json: cannot read it"):
        open_autoencoder(tmp_path)
    MADE["flux"]().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    table = json.loads(path.read_text())

    def refused(match: str, **changes: object) -> None:
        path.write_text(json.dumps({**table, **changes}))
        with pytest.raises(MMCoreError, match=match):
            open_autoencoder(tmp_path)

    refused("AutoencoderKLWan, AutoencoderKL is expected, this is 'VQModel'", _class_name="VQModel")
    refused(r"decoder.conv_in.weight is \(8, 4, 3, 3\), not \(8, 6, 3, 3\)", latent_channels=6)
    refused("missing: .*quant_conv.weight", use_quant_conv=True)
    refused("makes no autoencoder", norm_num_groups=3)
    path.write_text(json.dumps(table))
    (tmp_path / "diffusion_pytorch_model.safetensors").rename(tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(MMCoreError, match=r"no diffusion_pytorch_model.safetensors here; nothing else is read"):
        open_autoencoder(tmp_path)
