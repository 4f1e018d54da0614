"""GenEval: its file, its folders, and its rules on made-up detections whose verdicts are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmcore.cli import main
from mmcore.document import Image
from mmcore.errors import MMCoreError
from mmcore.pipeline import Pipeline
from mmcore.training.detectors import ClipColours, FolderDetector, bounds, crop
from mmcore.training.geneval import COLOURS, Found, Prompt, draw, judge, overall, read_prompts, relations, score
from mmcore.training.scores import share

pytestmark = pytest.mark.quick

PICTURE = np.zeros((100, 100, 3), np.uint8)


def line(tag: str, *include: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"tag": tag, "include": list(include), "prompt": f"a photo for {tag}", **more}


def one(kind: str, count: int = 1, **more: Any) -> dict[str, Any]:
    return {"class": kind, "count": count, **more}


def at(kind: str, x: float, y: float, sure: float = 0.95, size: float = 20) -> Found:
    return Found(kind, sure, (x - size / 2, y - size / 2, x + size / 2, y + size / 2))


def told(*names: str) -> Any:
    """Colours by what is told of each object, which stands at 10, 30, 50, ... from the left."""

    def colours(picture: np.ndarray, found: Sequence[Found], kind: str) -> list[str]:
        return [names[int(o.box[0] // 20)] for o in found]

    return colours


TWO_CATS = line("counting", one("cat", 2), exclude=[one("cat", 3)])
LEFT = line("position", one("dog"), one("cat", position=["left of", 0]))
RED = line("colors", one("car", color="red"))
BOTH = line("color_attr", one("car", color="red"), one("cat", color="blue"))


@pytest.mark.parametrize(
    ("asked", "found", "colours", "wrong"),
    [
        (line("single_object", one("cat")), [at("cat", 50, 50, 0.31)], None, None),
        (line("single_object", one("cat")), [at("cat", 50, 50, 0.3)], None, "0 cat, not 1"),
        (line("single_object", one("cat")), [at("dog", 50, 50)], None, "0 cat, not 1"),
        (line("two_object", one("cat"), one("dog")), [at("cat", 9, 9, 0.5), at("dog", 50, 50, 0.4)], None, None),
        (line("two_object", one("cat"), one("dog")), [at("cat", 9, 9), at("cat", 50, 50)], None, "0 dog, not 1"),
        (TWO_CATS, [at("cat", 10, 9, 0.91), at("cat", 50, 9, 0.92), at("cat", 80, 9, 0.9)], None, None),
        (TWO_CATS, [at("cat", 10, 9, 0.91), at("cat", 50, 9, 0.9)], None, "1 cat, not 2"),
        (TWO_CATS, [at("cat", x, 9) for x in (10, 50, 80)], None, "3 cat, not fewer than 3"),
        (RED, [at("car", 10, 50), at("car", 30, 50, 0.9)], told("red", "blue"), None),
        (RED, [at("car", 10, 50, 0.9), at("car", 30, 50)], told("red", "blue"), "car: blue, not red"),
        (LEFT, [at("cat", 20, 50), at("dog", 80, 50)], None, None),
        (LEFT, [at("cat", 80, 50), at("dog", 20, 50)], None, "cat not left of dog"),
        (LEFT, [at("cat", 50, 20), at("dog", 52, 80)], None, "cat not left of dog"),
        (LEFT, [at("cat", 20, 50, 0.4), at("cat", 90, 50), at("dog", 60, 50)], None, "cat not left of dog"),
        (LEFT, [at("cat", 20, 50)], None, "0 dog, not 1; nothing for cat to be left of"),
        (BOTH, [at("car", 10, 50), at("cat", 30, 50)], told("red", "blue"), None),
        (BOTH, [at("car", 10, 50), at("cat", 30, 50)], told("blue", "red"), "car: blue, not red; cat: red, not blue"),
    ],
)
def test_verdicts(asked: dict[str, Any], found: list[Found], colours: Any, wrong: str | None) -> None:
    assert "; ".join(judge(Prompt.read(asked), PICTURE, found, colours)) == (wrong or "")


def test_centres_must_be_further_apart_than_a_tenth_of_both_sizes() -> None:
    here = at("cat", 50, 50)
    assert relations(at("dog", 53.9, 50), here) == set() == relations(here, here)
    assert relations(at("dog", 58.1, 50), here) == {"right of"}, "4.1 of 8.1 are left"
    assert relations(at("dog", 57.9, 50), here) == set(), "3.9 of 7.9 are left: not more than half"
    assert relations(at("dog", 90, 90), here) == {"right of", "below"}
    assert relations(at("dog", 20, 49), here) == {"left of"}, "y grows downwards"


@given(*[st.floats(0, 100)] * 4, st.floats(1, 60), st.floats(1, 60))
def test_relations_turn_around(x: float, y: float, u: float, v: float, a: float, b: float) -> None:
    other = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    one, two = at("cat", x, y, size=a), at("dog", u, v, size=b)
    assert relations(two, one) == {other[name] for name in relations(one, two)}


def test_only_the_sixteen_surest_of_a_class_are_seen() -> None:
    crowd = [at("cat", x, 9, 0.99 - x / 1000) for x in range(20)]
    wrong = judge(Prompt.read(line("single_object", one("cat", 17))), PICTURE, crowd, None)
    assert wrong == ["16 cat, not 17"]


def write(path: Path, *lines: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"tag": "smell", "include": [one("cat")], "prompt": ""}, "tag must be one of single_object"),
        (line("colors", one("cat", color="mauve")), "color must be one of red"),
        (line("position", one("cat", position=["left of", 0])), "position must be one of left of"),
        (line("counting", {"class": "cat"}), "KeyError"),
        (line("counting"), "include not empty"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, broken: dict[str, Any], why: str) -> None:
    path = write(tmp_path / "prompts.jsonl", line("single_object", one("cat")), broken)
    with pytest.raises(MMCoreError, match=f"line 2 is no metadata of GenEval: .*{why}"):
        read_prompts(path)


def test_pictures_are_drawn_once(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders as the official programs have them; what was lost alone is drawn again, and as it was."""
    prompts = read_prompts(write(tmp_path / "prompts.jsonl", line("single_object", one("cat")), TWO_CATS))
    draw(pipeline, prompts, tmp_path / "out", 2, progress=False)
    paths = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").glob("*/samples/*"))
    assert paths == [f"0000{i}/samples/000{k}.png" for i in range(2) for k in range(2)]
    assert json.loads((tmp_path / "out" / "00001" / "metadata.jsonl").read_text()) == TWO_CATS
    lost = tmp_path / "out" / "00001" / "samples" / "0000.png"
    before, asked = Image.open(lost), []
    lost.unlink()
    reply = pipeline.reply
    monkeypatch.setattr(pipeline, "reply", lambda r, *a, **k: (asked.extend(r), reply(r, *a, **k))[1])
    draw(pipeline, prompts, tmp_path / "out", 2, progress=False)
    assert [(r.document.text, r.want) for r in asked] == [("a photo for counting", "image")]
    assert Image.open(lost) == before
    assert len({p.read_bytes() for p in (tmp_path / "out").glob("*/samples/*")}) == 4, "each has noise of its own"
    with pytest.raises(MMCoreError, match="another prompt's pictures"):
        draw(pipeline, prompts[::-1], tmp_path / "out", 2, progress=False)


def test_scores_are_shares_of_pictures(tmp_path: Path) -> None:
    """Cats lie where a picture is bright. The mean is over tags; colours are left out where nothing tells them."""
    lines = (line("single_object", one("cat")), line("two_object", one("cat"), one("dog")), RED)
    for i, (prompt, bright) in enumerate(zip(lines, ((1, 1, 1, 0), (1, 1), (1,)), strict=True)):
        (samples := tmp_path / f"{i:05d}" / "samples").mkdir(parents=True)
        write(samples.parent / "metadata.jsonl", prompt)
        for k, shines in enumerate(bright):
            Image(np.full((1, 8, 8, 3), 255 * shines, np.uint8)).save(samples / f"{k:05d}.png")
    report = score(tmp_path, lambda picture: [at("cat", 4, 4)] if picture.any() else [], None, progress=False)
    assert [(s.task, s.value, s.count) for s in report.scores] == [("single_object", 0.75, 4), ("two_object", 0.0, 2)]
    assert report.left_out == ("colors",), "and no mean is told"
    results = [json.loads(r) for r in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [r["correct"] for r in results] == [True, True, True, False, False, False]
    assert results[4]["reason"] == "0 dog, not 1" and results[0]["filename"] == "00000/samples/00000.png"
    whole = score(tmp_path, lambda _: [at("car", 9, 50), at("cat", 4, 4)], told("red"), progress=False).scores
    assert [(s.task, s.value) for s in whole[:-1]] == [("single_object", 1.0), ("two_object", 0.0), ("colors", 1.0)]
    assert (whole[-1].task, whole[-1].value, whole[-1].count) == ("overall", pytest.approx(2 / 3), 7)


def test_the_interval_of_a_mean_over_tags() -> None:
    rows = [share("a", "right", [True, False] * 50, None, None), share("b", "right", [True] * 10, None, None)]
    found = overall(rows)
    half = 1.96 * np.sqrt(0.25 / 100) / 2
    assert (found.value, found.high - found.value) == (0.75, pytest.approx(half))


def detr(folder: Path, **labels: str) -> Path:
    """A tiny one of random weights, as `transformers` saves it."""
    from transformers import DetrConfig, DetrForObjectDetection, DetrImageProcessor, ResNetConfig

    resnet: Any = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "out_features": ["stage2"]}
    sizes: Any = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 6}
    sizes |= {f"{side}_attention_heads": 2 for side in ("encoder", "decoder")}
    sizes |= {f"{side}_ffn_dim": 16 for side in ("encoder", "decoder")}
    sizes |= {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    names = dict(enumerate(labels.values() or ("cat", "N/A", "remote")))
    ids = {name: i for i, name in names.items()}
    config = DetrConfig(**sizes, backbone_config=ResNetConfig(**resnet), id2label=names, label2id=ids)
    model = DetrForObjectDetection(config)
    torch.nn.init.normal_(model.class_labels_classifier.weight, std=2.0)
    model.save_pretrained(folder)
    DetrImageProcessor(size={"shortest_edge": 32, "longest_edge": 48}).save_pretrained(folder)
    return folder


def test_a_folder_of_transformers_finds_objects(tmp_path: Path, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By command, from prompts to a table; classes have GenEval's names, boxes lie in pixels of the picture."""
    torch.manual_seed(0)
    detector = FolderDetector(detr(tmp_path / "detr"), "cpu")
    assert set(detector.kinds.values()) == {"cat", "N/A", "tv remote"}
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    found = detector(picture)
    assert found and all(0.3 < o.score <= 1 for o in found)
    for left, top, right, bottom in (o.box for o in found):
        assert -1 < left < right < 61 and -1 < top < bottom < 41
    middles = [(o.box[0] + o.box[2]) / 2 for o in found]
    turned = FolderDetector(tmp_path / "detr", "cpu")(np.ascontiguousarray(picture.repeat(2, 0).repeat(2, 1)))
    assert max(middles) > 5 and max((o.box[0] + o.box[2]) / 2 for o in turned) > 1.5 * max(middles)

    prompts = write(tmp_path / "prompts.jsonl", line("single_object", one("cat")), line("two_object", one("tv remote")))
    asked = ["eval", "--suite", "geneval", "--prompts", str(prompts), "--out", str(tmp_path / "out"), "--count", "1"]
    capsys.readouterr()
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"pictures": str(tmp_path / "out")}
    assert main([*asked, "--detector", str(tmp_path / "detr"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [row["task"] for row in made["scores"]] == ["single_object", "two_object", "overall"]
    assert {row["count"] for row in made["scores"]} == {1, 2} and not made["left_out"]
    for broken, why in (
        (["--detector", str(tmp_path)], "transformers cannot open it"),
        (["--clip", str(tmp_path)], "it wants --detector"),
        (["--detector", str(detr(tmp_path / "poor", only="dog"))], "the detector knows no cat, tv remote"),
    ):
        assert main([*asked, *broken]) == 2
        assert why in capsys.readouterr().err
    assert main(["eval", "--suite", "geneval"]) == 2


def test_a_model_that_segments_gives_masks(tmp_path: Path) -> None:
    """The kind of the official detector, of random weights: masks as large as the picture, boxes around them."""
    pytest.importorskip("scipy", reason="scipy is not installed, which this model of transformers wants")
    from transformers import (
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SwinConfig,
    )

    swin: Any = {"image_size": 64, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 2}
    swin["out_features"] = [f"stage{i}" for i in range(1, 5)]
    sizes: Any = {"feature_size": 32, "mask_feature_size": 32, "hidden_dim": 32, "encoder_feedforward_dim": 32}
    sizes |= {"dim_feedforward": 32, "encoder_layers": 1, "decoder_layers": 2, "num_attention_heads": 2}
    names = {0: "cat", 1: "remote"}
    config = Mask2FormerConfig(
        **sizes, backbone_config=SwinConfig(**swin), num_queries=6, id2label=names,
        label2id={n: i for i, n in names.items()},
    )  # fmt: skip
    model = Mask2FormerForUniversalSegmentation(config)
    torch.nn.init.normal_(model.class_predictor.weight, std=3.0)
    model.save_pretrained(tmp_path)
    Mask2FormerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    found = FolderDetector(tmp_path, "cpu")(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    assert found and {o.kind for o in found} <= {"cat", "tv remote"}
    for o in found:
        assert o.mask is not None and o.mask.shape == (40, 60) and o.box == bounds(o.mask) and o.score > 0.3


@torch.inference_mode()
def test_colours_are_those_of_the_likest_sentences(tmp_path: Path) -> None:
    """A tiny CLIP of random weights: the same by hand, sentence by sentence."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    sizes: Any = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text: Any = {**sizes, "vocab_size": 600, "bos_token_id": 512, "eos_token_id": 513}
    config = CLIPConfig(text_config=text, vision_config={**sizes, "image_size": 32, "patch_size": 8}, projection_dim=8)
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    vocabulary = {token: i for i, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    vocabulary |= {"<|startoftext|>": 512, "<|endoftext|>": 513}
    words = CLIPTokenizer(vocab=vocabulary, merges=[])
    words.save_pretrained(tmp_path)
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pictures.save_pretrained(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    found = [at("cat", 20, 20, size=24), at("cat", 44, 20, size=24), at("cat", 30, 28, size=24)]
    seen = model.visual_projection(
        model.vision_model(**pictures([crop(picture, o) for o in found], return_tensors="pt"))[1]
    )
    likest: list[tuple[float, str]] = [(-2.0, "")] * len(found)
    for colour in COLOURS:
        three = [f"a photo of a {colour} cat", f"a photo of a {colour}-colored cat", f"a photo of a {colour} object"]
        told = [model.text_projection(model.text_model(**words(s, return_tensors="pt"))[1])[0] for s in three]
        mean = torch.stack([t / t.norm() for t in told]).mean(0)
        for i, one_seen in enumerate(seen):
            likest[i] = max(likest[i], (float(torch.cosine_similarity(one_seen, mean, dim=0)), colour))
    assert ClipColours(tmp_path, "cpu")(picture, found, "cat") == [colour for _, colour in likest]


def test_an_object_is_cut_out_on_gray() -> None:
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    mask[2, 3] = False
    assert bounds(mask) == (3, 2, 9, 5)
    seen = np.asarray(crop(np.full((10, 12, 3), 200, np.uint8), Found("cat", 1.0, bounds(mask), mask)))
    assert seen.shape == (3, 6, 3) and seen[0, 0].tolist() == [153] * 3 and (seen[1:] == 200).all()
