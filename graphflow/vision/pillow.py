"""Pillow, imported when an image is first made or read."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from graphflow.errors import GraphFlowError

# Decoders that only decode; others (EPS, for one) start programs.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
MOST_PIXELS = 1 << 27


def pil(name: str = "Image") -> Any:
    """The module ``PIL.<name>``, or one error that says how to get it."""
    try:
        return import_module(f"PIL.{name}")
    except ImportError:
        raise GraphFlowError(
            "images need Pillow, which is not installed: pip install 'graphflow[vision]'"
        ) from None


def is_pil(image: Any) -> bool:
    """Whether ``image`` is a Pillow image (does not import Pillow)."""
    return any(c.__module__ == "PIL.Image" and c.__name__ == "Image" for c in type(image).__mro__)


def read_image(path: str | os.PathLike[str], mode: str | None = "RGB") -> Any:
    """The image in a file, converted to ``mode``; a damaged or huge one is a clear error.

    The number of pixels is looked at before they are unpacked.
    """
    try:
        with open(path, "rb") as stream, pil().open(stream, formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise GraphFlowError(
                    f"{os.fspath(path)}: the image claims {image.width} × {image.height} pixels, "
                    f"more than the {MOST_PIXELS:,} that are sensible"
                )
            if mode is None:
                image.load()
                return image.copy()
            return image.convert(mode)
    except GraphFlowError:
        raise
    except FileNotFoundError:
        raise
    except Exception as error:  # decoders have many ways to fail on damaged bytes
        raise GraphFlowError(
            f"{os.fspath(path)}: not an image that can be read ({type(error).__name__}: {error})"
        ) from None
