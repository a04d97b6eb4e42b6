"""The most tokens that an image or a document takes, as the services document it."""

from __future__ import annotations

import re
from math import ceil

from automate_kernel import AutomateError, ErrorCodes
from automate_llm.media import PDF, media_type_of, pages_of_pdf, size_of_image

# Anthropic: width x height / 750, of an image that was made to fit.
_ANTHROPIC_PIXELS, _ANTHROPIC_MOST = 750, 4_784
# Google: 258 for a tile; Gemini 3 takes up to 1,120 for an image.
_GOOGLE_TILE, _GOOGLE_MOST = 258, 1_120
# OpenAI: tiles of 512 pixels, or patches of 32; the dearest of the models with each.
_OPENAI_FIT, _OPENAI_SHORT, _OPENAI_TILE = 2_048, 768, 512
_OPENAI_BASE, _OPENAI_EACH = 85, 170
_MINI_BASE, _MINI_EACH = 2_833, 5_667
_PATCH, _MOST_PATCHES, _DEAREST_PATCH = 32, 2_500, 2.46
_OPENAIS_OWN = re.compile(r"(?:gpt-|chatgpt-|o\d)")
# Other models have patches of 28 pixels, and no bound that all of them share.
_OTHER_PATCH = 28
# Anthropic and OpenAI send the text and an image of each page.
_PAGE_TEXT, _PAGE_SIZE = 3_000, (1_700, 2_200)


def file_tokens(data: bytes, *, system: str, model: str) -> int | None:
    """
    Return the most tokens of an image or a PDF for *model*, or None for another kind of file.

    Raises ``FAILED_PRECONDITION`` for one of which nobody knows.
    """
    media_type = media_type_of(data)
    if media_type is None:
        return None
    if media_type == PDF:
        pages = pages_of_pdf(data)
        if pages is None:
            raise _unknown("the pages of a PDF can't be counted")
        return pages * (_PAGE_TEXT + image_tokens(*_PAGE_SIZE, system=system, model=model))
    size = size_of_image(data, media_type)
    if size is None:
        raise _unknown("the size of an image can't be read")
    return image_tokens(*size, system=system, model=model)


def image_tokens(width: int, height: int, *, system: str, model: str) -> int:
    """Return the most tokens of an image of so many pixels."""
    if system == "anthropic":
        return min(ceil(width * height / _ANTHROPIC_PIXELS), _ANTHROPIC_MOST)
    if system.startswith("google"):
        return max(_google_tiles(width, height) * _GOOGLE_TILE, _GOOGLE_MOST)
    if "gpt-4o-mini" in model:
        return _MINI_BASE + _MINI_EACH * _openai_tiles(width, height)
    patches = min(ceil(width / _PATCH) * ceil(height / _PATCH), _MOST_PATCHES)
    tiles = _OPENAI_BASE + _OPENAI_EACH * _openai_tiles(width, height)
    most = max(tiles, ceil(patches * _DEAREST_PATCH))
    if system == "openai" and _OPENAIS_OWN.match(model):
        return most
    return max(most, ceil(width / _OTHER_PATCH) * ceil(height / _OTHER_PATCH))


def _openai_tiles(width: int, height: int) -> int:
    fit = min(1.0, _OPENAI_FIT / max(width, height))
    fit = min(fit, _OPENAI_SHORT / min(width, height))
    return ceil(width * fit / _OPENAI_TILE) * ceil(height * fit / _OPENAI_TILE)


def _google_tiles(width: int, height: int) -> int:
    unit = min(max(int(min(width, height) / 1.5), 256), 768)
    return ceil(width / unit) * ceil(height / unit)


def _unknown(problem: str) -> AutomateError:
    return AutomateError(
        ErrorCodes.FAILED_PRECONDITION,
        f"{problem}, so no budget can hold",
        hint="send another file, a PDF that is not encrypted say",
    )
