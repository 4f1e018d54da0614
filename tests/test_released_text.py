"""Released text tokenizers: old ids stay, media are added behind them, turns follow the chat template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmcore.errors import MMCoreError
from mmcore.sequence import IGNORE, IMAGE, VIDEO, Patches, Tokens, document_strip
from mmcore.tokenizers.released import ReleasedText, add_media
from mmcore.tokenizers.words import copy_words, open_words
from tests.conftest import WORDS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

pytestmark = pytest.mark.quick

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def patches_of(opener: int, learn: bool = False) -> Patches:
    return Patches(torch.zeros(4, 3), (1, 2, 2), opener, learn)


def released(folder: Path, template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A small byte-level tokenizer as text cores have, with a template or without."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    raw.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator([WORDS] * 20, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))  # type: ignore[call-arg]
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<|pad|>")
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.chat_template = template
    made.save_pretrained(folder)
    return made


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> ReleasedText:
    folder = tmp_path_factory.mktemp("released")
    released(folder / "old")
    return add_media(folder / "old", 320, folder / "new")


def test_old_ids_stay_and_media_come_behind_them(tmp_path: Path) -> None:
    old = released(tmp_path / "old")
    text = add_media(tmp_path / "old", len(old) + 9, tmp_path / "new")
    again = AutoTokenizer.from_pretrained(tmp_path / "new")
    for token, i in old.get_vocab().items():
        assert again.get_vocab()[token] == i
    assert text.encode("a red ball <?>") == old("a red ball <?>", add_special_tokens=False)["input_ids"]
    signs = text.signs
    assert sorted((*signs.image, *signs.video)) == list(range(len(old), len(old) + 4))
    assert set(range(len(old) + 4, len(old) + 9)) <= set(signs.special), "rows that no token has are never written"
    assert not set(text.encode(WORDS)) & set(signs.special)
    assert (signs.opens(signs.image[0]), signs.opens(signs.video[0]), signs.opens(5)) == (IMAGE, VIDEO, None)


def test_turns_follow_the_chat_template(text: ReleasedText, tmp_path: Path) -> None:
    """A conversation as a strip holds the very ids that the template gives."""
    old = released(tmp_path)
    says = [("user", "a red ball"), ("assistant", "a blue cube"), ("user", "what is this ?"), ("assistant", "stand")]
    pieces = [Tokens(text.encode(words), role == "assistant") for role, words in says]
    strip = document_strip(pieces, signs=text.signs)
    told = old.apply_chat_template([{"role": r, "content": w} for r, w in says], tokenize=False)
    assert isinstance(told, str)
    expected = old(told.removesuffix("\n"), add_special_tokens=False)["input_ids"]
    assert strip.ids == expected
    learnt = [i for i in strip.labels if i != IGNORE]
    end = text.signs.end[0]
    assert old.decode([end]) == "<|im_end|>"
    assert learnt == [*pieces[1].ids, end, *pieces[3].ids, end]


def test_without_a_template_turns_have_tokens_of_their_own(tmp_path: Path) -> None:
    old = released(tmp_path / "old", None)
    signs = add_media(tmp_path / "old", 1, tmp_path / "new").signs
    assert sorted((*signs.start, *signs.reply, *signs.end)) == list(range(len(old) + 4, len(old) + 7))
    old.bos_token = "<|im_start|>"
    old.save_pretrained(tmp_path / "old")
    again = add_media(tmp_path / "old", 1, tmp_path / "newer").signs
    assert again.start == (old.bos_token_id, *signs.start), "what every text of its began with"


def test_media_stand_between_their_signs(text: ReleasedText) -> None:
    signs = text.signs
    strip = document_strip([Tokens([5], False), patches_of(VIDEO, learn=True)], signs=signs)
    assert strip.ids == [*signs.start, 5, *signs.reply, *signs.video, signs.end[0]]
    prompt = document_strip([patches_of(IMAGE)], signs=signs, open_reply=True)
    assert prompt.ids == [*signs.start, *signs.image, *signs.reply]


@settings(max_examples=40, deadline=None)
@given(words=st.text(max_size=30) | st.sampled_from(["<|im_end|>", "a<image>b", "<|im_start|>user\n", "</video>"]))
def test_any_words_come_back_and_none_are_special(text: ReleasedText, words: str) -> None:
    ids = text.encode(words)
    assert not set(ids) & set(text.signs.special)
    assert text.decode([*text.signs.image, *ids, text.signs.end[0]]) == words


def test_it_is_copied_and_opened_whole(text: ReleasedText, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    text.save(tmp_path / "a")
    (tmp_path / "b").mkdir()
    copy_words(tmp_path / "a", tmp_path / "b")
    again = open_words(tmp_path / "b")
    assert again.signs == text.signs and again.encode(WORDS) == text.encode(WORDS) and len(again) == len(text)
    (tmp_path / "b" / "tokenizer.json").write_text("{")
    with pytest.raises(MMCoreError, match="cannot read the tokenizer"):
        open_words(tmp_path / "b")
    (tmp_path / "b" / "signs.json").write_text(json.dumps({"begin": [1]}))
    with pytest.raises(MMCoreError, match=r"signs.json: cannot read it"):
        open_words(tmp_path / "b")
    with pytest.raises(MMCoreError, match=r"no tokenizer.model here"):
        open_words(tmp_path)


@pytest.mark.parametrize("template", ["{{ messages[0].content }}", "{{ raise_exception('no') }}"])
def test_a_template_that_cannot_be_followed_is_one_line(template: str, tmp_path: Path) -> None:
    released(tmp_path / "old", template)
    with pytest.raises(MMCoreError, match="its chat template cannot be followed"):
        add_media(tmp_path / "old", 1, tmp_path / "new")
