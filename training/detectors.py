"""Objects and their colours in a picture, by models of `transformers` that lie in folders: what GenEval is scored with.

    detector = FolderDetector(Path("mask2former-swin-small-coco-instance"))
    colours = ClipColours(Path("clip-vit-large-patch14"))

These two, of facebook and openai on the hub, are the models of the official evaluation in other files; any detector
with COCO's classes will do (DETR, RT-DETR, ...), and gives figures of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForObjectDetection,
    AutoModelForUniversalSegmentation,
    AutoTokenizer,
)

from mmcore.errors import MMCoreError
from mmcore.training.geneval import COLOURS, SURE, Found

CALLED = {
    **{"mouse": "computer mouse", "remote": "tv remote", "keyboard": "computer keyboard"},
    **{"sofa": "couch", "tvmonitor": "tv", "pottedplant": "potted plant", "diningtable": "dining table"},
    **{"motorbike": "motorcycle", "aeroplane": "airplane"},
}
"""Classes of COCO as detectors call them, and as GenEval does, where that differs."""

SEGMENTING = ("mask2former", "maskformer", "oneformer")
"""Kinds of model that give masks."""

TEMPLATES = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")
"""Sentences about a colour and a class that pictures are compared with; the mean of the three counts."""

GRAY = 0x99
"""The background of a crop."""


def _opened(folder: Path, *kinds: Any) -> list[Any]:
    """What `transformers` reads from a folder, by several of its classes.

    Raises:
        MMCoreError: it cannot.
    """
    try:
        return [kind.from_pretrained(str(folder), local_files_only=True) for kind in kinds]
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MMCoreError(f"{folder}: transformers cannot open it: {reason}; name a folder of such a model") from error


class FolderDetector:
    """Finds objects; see `geneval.Detector`.

    Args:
        folder: an object detector, or one that segments instances, with its image processor.
        device: where to; CUDA if there is one, else the CPU.
    """

    def __init__(self, folder: Path, device: torch.device | str | None = None) -> None:
        (config,) = _opened(folder, AutoConfig)
        self.masks = config.model_type in SEGMENTING
        kind = AutoModelForUniversalSegmentation if self.masks else AutoModelForObjectDetection
        model, self.processor = _opened(folder, kind, AutoImageProcessor)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).eval()
        self.kinds: dict[int, str] = {int(i): CALLED.get(str(n), str(n)) for i, n in config.id2label.items()}

    def check(self, kinds: set[str]) -> None:
        """Whether it knows some classes.

        Raises:
            MMCoreError: it does not.
        """
        if lacking := sorted(kinds - set(self.kinds.values())):
            raise MMCoreError(f"the detector knows no {', '.join(lacking)}: take one with COCO's classes")

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> list[Found]:
        """(H, W, 3) uint8 -> all that is surer than SURE."""
        inputs = self.processor(images=PILImage.fromarray(picture), return_tensors="pt").to(self.device)
        outputs, size = self.model(**inputs), [picture.shape[:2]]
        if not self.masks:
            (told,) = self.processor.post_process_object_detection(outputs, threshold=SURE, target_sizes=size)
            found = zip(told["labels"].tolist(), told["scores"].tolist(), told["boxes"].tolist(), strict=True)
            return [Found(self.kinds[label], score, tuple(box)) for label, score, box in found if label in self.kinds]
        (told,) = self.processor.post_process_instance_segmentation(
            outputs, threshold=SURE, target_sizes=size, return_binary_maps=True
        )
        masks = told["segmentation"]
        if masks is None or not told["segments_info"]:
            return []
        found = zip(told["segments_info"], masks.cpu().numpy().astype(bool), strict=True)
        return [Found(self.kinds[s["label_id"]], s["score"], bounds(m), m) for s, m in found if m.any()]


def bounds(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is true in a mask (H, W)."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class ClipColours:
    """Tells colours; see `geneval.Colours`. A crop has the colour whose sentences are the most like it.

    Args:
        folder: a CLIP (arXiv 2103.00020) with its tokenizer and image processor.
        device: where to; CUDA if there is one, else the CPU.
    """

    def __init__(self, folder: Path, device: torch.device | str | None = None) -> None:
        model, self.words, self.pictures = _opened(folder, AutoModel, AutoTokenizer, AutoImageProcessor)
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = model.to(self.device).eval()

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray, found: Sequence[Found], kind: str) -> list[str]:
        """One of COLOURS for each object."""
        sentences = [template.format(colour, kind) for colour in COLOURS for template in TEMPLATES]
        words = self.words(sentences, padding=True, return_tensors="pt").to(self.device)
        pixels = self.pictures(images=[crop(picture, o) for o in found], return_tensors="pt").to(self.device)
        outputs = self.model(**words, **pixels)
        of_colour: Tensor = outputs.text_embeds.unflatten(0, (len(COLOURS), len(TEMPLATES))).mean(1)
        likeness = outputs.image_embeds @ torch.nn.functional.normalize(of_colour, dim=-1).T
        return [COLOURS[i] for i in likeness.argmax(1).tolist()]


def crop(picture: np.ndarray, found: Found) -> PILImage.Image:
    """An object cut out of a picture, gray around it where a mask says what it is."""
    seen = picture if found.mask is None else np.where(found.mask[..., None], picture, np.uint8(GRAY))
    return PILImage.fromarray(seen).crop(tuple(found.box))  # type: ignore[arg-type]
