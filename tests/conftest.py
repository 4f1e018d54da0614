"""What many tests share: tiny models with random weights, and documents to give them."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from mmcore.config import PRESETS, MMCoreConfig
from mmcore.document import Document, Image, Text, Video
from mmcore.model import MMCoreModel
from mmcore.pipeline import Pipeline
from mmcore.sequence import Piece
from mmcore.tokenizers.pieces import document_pieces
from mmcore.tokenizers.text import TextTokenizer, train_text_tokenizer

Module = TypeVar("Module", bound=torch.nn.Module)
WORDS = "a red ball and a blue cube stand still make it green what is this describe now the first one 0 1 2 3 . ? !"


def pytest_configure(config: pytest.Config) -> None:
    """A core for each worker."""
    if hasattr(config, "workerinput"):
        torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_seed() -> None:
    torch.manual_seed(0)


def lively(model: Module) -> Module:
    """Weights that are 0 at the beginning hide mistakes: give every one of them something to say."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    path = tmp_path_factory.mktemp("text") / "tokenizer.model"
    return train_text_tokenizer([WORDS] * 50, 320, path)


@pytest.fixture
def config() -> MMCoreConfig:
    return MMCoreConfig(vocab_size=320, patch=(2, 4, 4), height=8, width_px=8, frames=4, **PRESETS["debug"])


@pytest.fixture
def model(config: MMCoreConfig) -> MMCoreModel:
    return lively(MMCoreModel(config))


@pytest.fixture
def pipeline(model: MMCoreModel, tokenizer: TextTokenizer) -> Pipeline:
    return Pipeline(model, tokenizer)


def noise_clip(seed: int, frames: int = 4, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3), dtype=np.uint8)


@pytest.fixture
def mixed() -> Document:
    """A conversation with every kind of segment on both sides."""
    return Document(
        (
            Text("describe this"),
            Video(noise_clip(0)),
            Text("a red ball", True),
            Text("now make it green"),
            Image(noise_clip(1, 1)),
            Text("a", True),
            Video(noise_clip(2), learn=True),
            Image(noise_clip(3, 1), learn=True),
            Text("what is this ?"),
            Text("a blue cube", True),
            Image(noise_clip(4, 1), learn=True),
        )
    )


@pytest.fixture
def prompts(tokenizer: TextTokenizer, config: MMCoreConfig) -> list[list[Piece]]:
    """A clip and words, words alone, a picture and a conversation about it."""
    documents = (
        Document((Text("make it green"), Video(noise_clip(0)))),
        Document((Text("a red ball and a blue cube stand still"),)),
        Document((Image(noise_clip(1, 1)), Text("what is this ?"), Text("a ball", True), Text("now make it blue"))),
    )
    return [document_pieces(d, tokenizer, config.patch) for d in documents]


@pytest.fixture
def root() -> Path:
    return Path(__file__).parent.parent
