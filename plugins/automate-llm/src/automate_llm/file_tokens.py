"""The most tokens that an image or a document takes, as the services document it."""

from __future__ import annotations

import re
from math import ceil

from automate_kernel import AutomateError, ErrorCodes
from automate_llm.media import PDF, media_type_of, pages_of_pdf, size_of_image, text_of_pdf

# Anthropic: patches of 28 pixels, or width x height / 750, of an image that was made to fit; and a
# few for its frame.
_ANTHROPIC_PIXELS, _ANTHROPIC_MOST, _ANTHROPIC_FRAME = 750, 4_784, 16
# Google: 258 for a tile; Gemini 3 takes up to 1,120 for an image.
_GOOGLE_TILE, _GOOGLE_MOST = 258, 1_120
# OpenAI: tiles of 512 pixels, or patches of 32; the dearest of the models with each.
_OPENAI_FIT, _OPENAI_SHORT, _OPENAI_TILE = 2_048, 768, 512
_OPENAI_BASE, _OPENAI_EACH = 85, 170
_MINI_BASE, _MINI_EACH = 2_833, 5_667
_PATCH, _DEAREST_PATCH = 32, 2.46
_OPENAIS_OWN = re.compile(r"(?:gpt-|chatgpt-|o\d)")
# Those up to GPT-5.4 make an image smaller; later ones take each patch, and refuse more than that.
_FITTING, _FITTED_PATCHES = re.compile(r"(?:gpt-[34]|chatgpt-4|gpt-5(?!\.[5-9]|\.\d\d)|o\d)"), 2_500
_MOST_PATCHES = 30_000
# Anthropic and others have patches of 28 pixels, the others with no bound that all of them share.
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
        text = max(pages * _PAGE_TEXT, text_of_pdf(data))
        return text + pages * image_tokens(*_PAGE_SIZE, system=system, model=model)
    size = size_of_image(data, media_type)
    if size is None:
        raise _unknown("the size of an image can't be read")
    return image_tokens(*size, system=system, model=model)


def image_tokens(width: int, height: int, *, system: str, model: str) -> int:
    """Return the most tokens of an image of so many pixels."""
    if system == "anthropic":
        tokens = max(
            ceil(width * height / _ANTHROPIC_PIXELS), _patches(width, height, _OTHER_PATCH)
        )
        return min(tokens, _ANTHROPIC_MOST) + _ANTHROPIC_FRAME
    if system.startswith("google"):
        return max(_google_tiles(width, height) * _GOOGLE_TILE, _GOOGLE_MOST)
    if "gpt-4o-mini" in model:
        return _MINI_BASE + _MINI_EACH * _openai_tiles(width, height)
    fitted = system == "openai" and _FITTING.match(model)
    bound = _FITTED_PATCHES if fitted else _MOST_PATCHES
    patches = min(_patches(width, height, _PATCH), bound)
    tiles = _OPENAI_BASE + _OPENAI_EACH * _openai_tiles(width, height)
    most = max(tiles, ceil(patches * _DEAREST_PATCH))
    if system == "openai" and _OPENAIS_OWN.match(model):
        return most
    return max(most, _patches(width, height, _OTHER_PATCH))


def _patches(width: int, height: int, side: int) -> int:
    return ceil(width / side) * ceil(height / side)


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
