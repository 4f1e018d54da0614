"""One conversation of five turns with the bundled model and each family: Python, page, program, command line."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmcore
from mmcore.cli import main
from mmcore.demo.five_turns import by_page, by_program, converse, lines, sayings
from mmcore.document import Document, Image, Segment, Text, Video
from mmcore.pipeline import FamilyPipeline, Pipeline
from mmcore.replies import Request
from mmcore.sequence import Patches, Piece
from tests.test_families import WHOLE, released  # type: ignore[import-not-found]

pytestmark = pytest.mark.quick

FAMILIES = ("bagel", "lance", "showo2")


def small_media(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lance's media at sizes that a tiny model is quick with."""
    from mmcore.families import lance_media

    sides = lance_media.Sides(48, 48, 56, 56)
    monkeypatch.setattr(lance_media, "Sides", lambda: sides)


def released_folder(family: str, root: Path) -> Path:
    """A tiny model of a family in its released layout, with a tiny tokenizer and autoencoder."""
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install -e .[families]")
    from tests.test_families_pipeline import write_autoencoder, write_tokenizer  # type: ignore[import-not-found]

    (folder := root / {"lance": "Lance_3B"}.get(family, family)).mkdir()
    released(family, folder, "model.safetensors" if family == "showo2" else "ema.safetensors")
    write_tokenizer(folder / "tokenizer.json")
    if family == "bagel":
        write_autoencoder(folder / "ae.safetensors")
    elif family == "lance":
        from mmcore.families.lance import LanceConfig
        from tests.test_lance import write_tower  # type: ignore[import-not-found]
        from tests.test_lance_pipeline import write_autoencoder as write_clip_autoencoder

        if not WHOLE:
            write_tower(LanceConfig.read(folder), root)
        write_clip_autoencoder(root / "vae")
    else:
        from mmcore.families.showo2_autoencoder import original_name
        from tests.test_showo2_pipeline import wan  # type: ignore[import-not-found]

        torch.save({original_name(name): tensor for name, tensor in wan().items()}, folder / "Wan2.1_VAE.pth")
    return folder


@pytest.fixture(scope="module", params=[None, *FAMILIES], ids=["native", *FAMILIES])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The folder to load, or None for the bundled model."""
    torch.manual_seed(0)
    return request.param and released_folder(request.param, tmp_path_factory.mktemp("released"))


@dataclass
class Seen:
    """What a model was given and did.

    Args:
        prompts: the media in the document of each turn, as pieces.
        encoded: how often pixels went through the autoencoder.
    """

    prompts: list[list[Patches]] = field(default_factory=list)
    encoded: int = 0


@pytest.fixture
def small(source: Path | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Families of small media and short clips."""
    if source is not None:
        from mmcore.families import lance_media, showo2_media

        small_media(monkeypatch)
        monkeypatch.setattr(lance_media, "FRAMES", 5)
        monkeypatch.setattr(showo2_media, "FILMED", 5)


@pytest.fixture
def model(source: Path | None, small: None, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """Loaded; it and those that are loaded after it take one step, and say three tokens, the likeliest ones."""
    loaded = mmcore.load(source, device="cpu")
    kind: Any = type(loaded.translator)
    for name in ("settings", "editing"):
        monkeypatch.setattr(kind, name, replace(getattr(kind, name), steps=1, tokens=3, temperature=0.0))
    return loaded


@pytest.fixture
def seen(model: Pipeline, monkeypatch: pytest.MonkeyPatch) -> Seen:
    """Filled by this model and those that are loaded after it."""
    found, kind = Seen(), type(model.backbone)
    read = kind.read

    def noted(self: object, prompts: Sequence[Sequence[Piece]]) -> object:
        found.prompts += [[p for p in prompt if isinstance(p, Patches)] for prompt in prompts]
        return read(self, prompts)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "read", noted)
    if isinstance(model, FamilyPipeline):
        autoencoder = type(model.translator.autoencoder)  # type: ignore[attr-defined]
        encode: Callable = autoencoder.encode

        def counted(*given: object, **named: object) -> object:
            found.encoded += 1
            return encode(*given, **named)

        monkeypatch.setattr(autoencoder, "encode", counted)
    return found


def test_five_turns(model: Pipeline, seen: Seen) -> None:
    """Kinds, sizes, and what each turn is given; what the model made is never encoded."""
    chat = model.chat()
    drawn, told, edited, moved, asked = (reply.document.segments for reply in converse(chat))
    moving = Video if model.translator.frames > 1 else Image
    assert [type(part) for part in media(drawn)] == [Image] == [type(part) for part in media(edited)]
    assert [type(part) for part in media(moved)] == [moving]
    assert not media(told) and not media(asked)
    (first,), (second,), (third,) = media(drawn), media(edited), media(moved)
    assert second.size == first.size == (1, *third.size[1:])
    assert not np.array_equal(second.frames, first.frames) and np.ptp(first.frames) > 20
    note = [] if isinstance(model, FamilyPipeline) else [1]  # on what the user shows, of itself alone
    assert [len(p) for p in seen.prompts] == [0, 1, 1, 2, *note, 4], "every medium so far is read in each turn"
    assert seen.encoded == apart(model, third)
    turns = [part for part in chat.document if not part.learn]
    assert [part for part in turns if isinstance(part, Text)] == [Text(saying.words) for saying in sayings(model)]
    (again,) = media(turns)
    assert np.array_equal(again.frames, first.frames), "shown by the user, as it was drawn"


def apart(model: Pipeline, medium: Image | Video) -> int:
    """What must be encoded of a medium that the model made, if it is asked about: Show-o2 reads a clip's frames as so
    many pictures, and has the latents of the clip alone."""
    return len(medium.frames) if model.translator.facts.get("family") == "Show-o2" else 0


def media(parts: Sequence[Segment]) -> list[Image | Video]:
    return [part for part in parts if not isinstance(part, Text)]


def test_the_answer_is_about_the_first_medium(model: Pipeline, seen: Seen) -> None:
    """The logits of the second turn's first token are others if another picture was drawn."""
    chat, other = model.chat(seed=0), model.chat(seed=100)
    firsts = []
    for talk in (chat, other):
        next(converse(talk))
        request = model._fitted(Request(talk.document + Document((Text("what is this?"),)), "text"))
        firsts.append(model.backbone.read([model.translator.order(request, model.translator.sizes(request)).pieces])[1])
    finite = torch.isfinite(firsts[0])
    assert (firsts[0] - firsts[1])[finite].abs().max() > 1e-3


def test_all_three_ways_give_the_same_document(
    model: Pipeline, seen: Seen, source: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """From Python, as the page has it, and by the command line, which loads the model itself and knows the first
    picture again by its file; none of them encodes what the model made."""
    chat, out = model.chat(), tmp_path / "talk"
    list(converse(chat))
    paged = by_page(model, tmp_path / "page")
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines(model, out)))
    assert main(["chat", "--out", str(out), *(["--model", str(source)] if source else [])]) == 0
    printed = capsys.readouterr()
    assert printed.err == "" and str(out / "reply_1.png") in printed.out.splitlines()
    commanded = Document.load(out)
    for document in (paged, commanded):
        assert len(document) == len(chat.document)
        for part, expected in zip(document, chat.document, strict=True):
            assert part == expected if isinstance(part, Text) else same(part, expected)
    once = apart(model, chat.document.media[2])
    assert seen.encoded == 2 * once, "by the model that was loaded twice, not again for the page"
    assert not (tmp_path / "page").exists()


def test_a_program_that_holds_the_conversation_gives_it_too(
    model: Pipeline, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program sends all of it again in each turn, as files; what the model made is known again, clips too."""
    testing = pytest.importorskip("fastapi.testclient", reason="fastapi is not installed: pip install -e .[demo]")
    import fastapi

    from mmcore.demo.completions import add_completions

    chat, given = model.chat(), []
    replies = list(converse(chat))
    encoded, stream = seen.encoded, model.stream
    monkeypatch.setattr(model, "stream", lambda asked, chosen: (given.extend(asked), stream(asked, chosen))[1])
    add_completions(app := fastapi.FastAPI(), model)
    client = testing.TestClient(app)
    messages = by_program(model, lambda body: client.post("/v1/chat/completions", json=body).json())
    *_, last = given
    assert len(last.document) + len(replies[-1].document) == len(chat.document)
    for part, expected in zip(last.document, chat.document, strict=False):
        assert part == expected if isinstance(part, Text) else same(part, expected)
    assert " ".join(part["text"] for part in messages[-1]["content"]) == replies[-1].text
    assert seen.encoded == encoded


def same(part: Image | Video, expected: Segment) -> bool:
    alike = type(part) is type(expected) and part.learn == expected.learn
    return alike and not isinstance(expected, Text) and np.array_equal(part.frames, expected.frames)
