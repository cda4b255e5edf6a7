"""
Decode: hostile bytes to pixels, or to a stable error code; never to anything else.

Which formats, how large, which views and which failure is which stand here; which frames is
``worker/stages/frames.py``, colour is ``colour.py``, size is ``preprocess.py`` and ``one_footing.py``, where crops fall
is ``native_views.py``, what Pillow is told of a file is ``opened.py``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Final

import numpy as np
from PIL import (
    AvifImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
    __version__,
    features,
)

from schemas.errors import ErrorCode
from schemas.verdict import ContentCredentials, ImageFacts
from worker.domain import ContentHash, Pixels, PreprocessSpec
from worker.errors import CannotStart, UploadFailed
from worker.stages.colour import AlphaFact, ProfileUnusable, flattened, in_srgb, on_grey
from worker.stages.decode_notes import READING_RULES, DecodeNote
from worker.stages.frames import FrameLimits, announced_frames, further_frames
from worker.stages.gif_extent import MOST_COUNTED, gif_extent
from worker.stages.heif import REMEDY, can_open_heif
from worker.stages.native_views import continued, crop_boxes
from worker.stages.one_footing import MAX_JPEG_SIDE_PX, reduced_to, through_jpeg
from worker.stages.opened import opened
from worker.stages.preprocess import RULES_VERSION, Area, Resizer, framed, resized
from worker.stages.reduced_jpeg import reduce_jpeg
from worker.stages.sniff import HEIF, MEDIA_TYPES, announced_bytes, description_of, format_of, is_heif
from worker.stages.upright import upright
from worker.views import GLOBAL_ONLY, DecodedPicture, ViewSpec

PerceptualHash = Callable[[Pixels], tuple[str, int]]
"""From uint8[h, w, 3] of at most ``HASHED_SIDE`` pixels a side to the hash in hex and its quality."""

RealismStatistics = Callable[[Pixels], tuple[float, ...]]
"""From uint8[REALISM_SIDE, REALISM_SIDE, 3] to the numbers in the order of ``worker.heads.features.REALISM``."""

CredentialsReader = Callable[[bytes], ContentCredentials | None]
"""From a file's bytes to what they say of their own origin; None where they say nothing. Never raises."""

_OUTSIDE: Final = "tile cannot extend outside image"
"""What Pillow says of a frame without pixels."""

HASHED_SIDE: Final = 512
REALISM_SIDE: Final = 512

# Imported for their registration, so that no thread ever finds Pillow without them and loads its other forty openers.
_OPENERS: Final = (AvifImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin)


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """
    What counts as an image: ``formats`` under Pillow's names, and at most ``max_pixels`` in width times height.

    ``max_frames`` and ``max_animation_pixels`` bound how an animation is looked at, as ``FrameLimits`` says;
    ``on_grey``: what is transparent is looked at on grey as well. The defaults look once, as banks want it.
    """

    formats: tuple[str, ...] = tuple(MEDIA_TYPES)
    max_pixels: int = 40_000_000
    max_frames: int = 1
    max_animation_pixels: int = 100_000_000
    on_grey: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    """
    What holds of a file and of all its frames; ``area``: of one that was decoded smaller, where the picture lies.
    """

    orientation: int
    profile: bytes | None = field(repr=False)
    area: Area | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """
    What Pillow has shown of a frame: ``square`` is the picture of REALISM_SIDE, where realism is to be measured.
    """

    frame: int
    pixels: Pixels = field(repr=False)
    native: tuple[Pixels, ...] = field(repr=False)
    square: Pixels | None = field(repr=False)
    thumbnail: Pixels | None = field(repr=False)


class PillowDecoder:
    """
    Decodes with Pillow, by content and from an allow-list; any number of threads may call it at once.

    A picture is looked at once for each of its frames that is chosen, and twice where it is transparent enough that
    what it shows depends on the ground: on white, then on grey (``worker.stages.colour.on_grey``). Whoever judges takes
    the look that seems most generated: of k looks, up to k times as many reals are flagged as of one.
    What Pillow warns of is an error, but for the list in ``worker/stages/pillow_warnings.py``.
    Known hole: libjpeg repairs what it can, and Pillow keeps its warnings to itself, so that a JPEG with damage inside
    its last scan (and its end marker in place) is scored with grey in it. Of single flipped bits in a scan a third
    change the picture, and hardly one is noticed; only decoding it a second time, elsewhere, would tell.
    """

    def __init__(
        self,
        spec: PreprocessSpec,
        limits: DecodeLimits,
        perceptual_hash: PerceptualHash | None,
        *,
        views: ViewSpec = GLOBAL_ONLY,
        statistics: RealismStatistics | None = None,
        credentials: CredentialsReader | None = None,
        resizer: Resizer | None = None,
    ) -> None:
        """
        Raises ``CannotStart`` for formats that cannot be read, ``ValueError`` for views that cannot be made.
        """
        if spec.resize != "pillow" and resizer is None:
            raise ValueError(f"the spec resizes with {spec.resize}: give the decoder its resizer")
        if views.realism and statistics is None:
            raise ValueError("the views ask for realism: give the decoder its statistics, or ask without realism")
        if HEIF in limits.formats and not can_open_heif():
            raise CannotStart(f"decode.formats names HEIF, and pillow-heif, which reads it, is not installed: {REMEDY}")
        missing = [name for name in limits.formats if name not in Image.OPEN or not _supported(name)]
        if missing:
            raise CannotStart(
                f"decode.formats names {', '.join(missing)}, which this build of Pillow ({__version__}) cannot read: "
                "take them off the list, or install Pillow's own wheel"
            )
        # Pillow's limit warns below twice its value, through machinery that threads share; ours is one number and
        # always an error, checked before any pixel is read.
        Image.MAX_IMAGE_PIXELS = None
        self._spec = spec
        self._limits = limits
        self._perceptual_hash = perceptual_hash
        self._views = views
        self._statistics = statistics if views.realism else None
        self.credentials = credentials
        self._resizer = None if spec.resize == "pillow" else resizer

    def decode(self, data: bytes, content_hash: ContentHash) -> DecodedPicture:
        """
        The views of the picture that the spec asks for, at the encoder's input size, and what was found in the bytes.

        ``width`` and ``height`` of the facts are those of the file, before its orientation is undone; the facts are
        the same whatever the views. Raises ``UploadFailed`` with FORMAT_UNSUPPORTED, DECODE_BOMB, DECODE_TRUNCATED or
        DECODE_FAILED.
        """
        name = self._allowed_format(data)
        try:
            looks, facts = self._read(data, name, content_hash)
        except UploadFailed:
            raise
        except Exception as error:
            # Pillow's readers raise whatever the bytes lead them to: a dozen types are seen in the field.
            raise _failure(name, error, data) from error
        found: dict[str, object] = {}
        if self._perceptual_hash is not None and looks[0].thumbnail is not None:
            found["pdq"], found["pdq_quality"] = self._perceptual_hash(looks[0].thumbnail)
        if self.credentials is not None:
            found["credentials"] = self.credentials(data)
        facts = facts.model_copy(update=found)
        first, *further = [
            DecodedPicture(pixels=seen.pixels, facts=facts, native=seen.native, realism=self._realism(seen.square))
            for seen in looks
        ]
        return replace(first, further=tuple(further)) if further else first

    def _allowed_format(self, data: bytes) -> str:
        name = HEIF if HEIF in self._limits.formats and is_heif(data) else format_of(data)
        allowed = ", ".join(self._limits.formats)
        if name is None:
            raise UploadFailed(
                ErrorCode.FORMAT_UNSUPPORTED, f"the bytes are {description_of(data)}; accepted are {allowed}"
            )
        if name not in self._limits.formats:
            raise UploadFailed(ErrorCode.FORMAT_UNSUPPORTED, f"the bytes are {name}; accepted are {allowed}")
        return name

    def _read(self, data: bytes, name: str, content_hash: ContentHash) -> tuple[list[_Seen], ImageFacts]:
        with opened(data, name) as file:
            image = file.image
            width, height, mode = *image.size, image.mode
            self._check_pixels(width * height)
            orientation, whole = file.orientation()
            area = reduce_jpeg(image, self._spec, self._views, orientation)
            first = file.first()
            notes: list[DecodeNote] = []
            if not whole:
                notes.append(DecodeNote.EXIF_DAMAGED)
            # Of the file, not of a frame: Pillow replaces what it knows of an image as it goes through the frames.
            known = _Known(orientation, image.info.get("icc_profile"), area)
            looks, alpha = self._looks(first, known, notes)
            # Counting comes after: in a GIF it moves through the frames.
            announced = announced_frames(image, data, max_pixels=self._limits.max_pixels, notes=notes)
            limits = FrameLimits(self._limits.max_frames, self._limits.max_animation_pixels)
            for number in further_frames(image, announced, limits, notes):
                looks += self._looks(image, known, notes, frame=number)[0]
        facts = ImageFacts(
            sha256=content_hash,
            byte_length=len(data),
            format=name,
            width=width,
            height=height,
            mode=mode,
            frames_total=announced.total,
            frames_scored=tuple(look.frame for look in looks),
            orientation=orientation,
            alpha=alpha,
            warnings=tuple(dict.fromkeys(notes)),
        )
        return looks, facts

    def _looks(
        self, image: Image.Image, known: _Known, notes: list[DecodeNote], *, frame: int = 0
    ) -> tuple[list[_Seen], AlphaFact]:
        """
        What is to be seen of the frame that ``image`` shows, on white first, and what became of its alpha.
        """
        picture = upright(image, known.orientation)
        flat, alpha = flattened(picture)
        grounds = [flat]
        if self._limits.on_grey and alpha == "composited" and (grey := on_grey(picture)) is not None:
            grounds.append(grey)
        return [self._seen(ground, known, notes, frame=frame) for ground in grounds], alpha

    def _check_pixels(self, pixels: int) -> None:
        if pixels > self._limits.max_pixels:
            raise UploadFailed(
                ErrorCode.DECODE_BOMB,
                f"the header announces {pixels} pixels, decode.max_pixels allows {self._limits.max_pixels}",
            )

    def _seen(self, flat: Image.Image, known: _Known, notes: list[DecodeNote], *, frame: int) -> _Seen:
        """
        All views of an upright picture without alpha, in sRGB.

        Colour comes after size: a profile applied to all the pixels of a phone's photograph costs as much as the rest.
        Only where all go through one JPEG does it come before, as a JPEG in the file's own colours would give away
        what the file was.
        """
        profile = known.profile
        thumbnail = self._thumbnail(flat) if frame == 0 else []
        picture = reduced_to(flat, self._views.max_side_px)
        quality = self._views.reencode_quality
        if quality is not None:
            wanted = [reduced_to(picture, MAX_JPEG_SIDE_PX), *thumbnail]
            picture, *thumbnail = _all_in_srgb(wanted, profile, notes)
            picture, profile = through_jpeg(picture, quality), None
        size = self._spec.size
        crops = [picture.crop(box) for box in crop_boxes(*picture.size, size, self._views.native_crops)]
        square: list[Image.Image] = []
        if self._views.realism:
            square.append(self._square(picture))
        small, *others = _all_in_srgb(
            [resized(picture, self._spec, known.area, self._resizer), *thumbnail, *crops, *square], profile, notes
        )
        arrays = [np.asarray(other) for other in others]
        after = len(thumbnail) + len(crops)
        return _Seen(
            frame=frame,
            pixels=np.asarray(framed(small, self._spec)),
            native=tuple(continued(crop, size) for crop in arrays[len(thumbnail) : after]),
            square=arrays[after] if square else None,
            thumbnail=arrays[0] if thumbnail else None,
        )

    def _thumbnail(self, flat: Image.Image) -> list[Image.Image]:
        """
        The picture reduced for the perceptual hash, if one is asked for; of the file as it is, whatever the views.
        """
        if self._perceptual_hash is None:
            return []
        factor = -(-max(flat.size) // HASHED_SIDE)
        return [flat.reduce(factor) if factor > 1 else flat]

    def _square(self, picture: Image.Image) -> Image.Image:
        size = (REALISM_SIDE, REALISM_SIDE)
        if self._resizer is None or picture.size == size:
            return picture.resize(size, Image.Resampling.BICUBIC)
        return self._resizer(picture, size, "bicubic")

    def _realism(self, square: Pixels | None) -> tuple[float, ...] | None:
        if self._statistics is None or square is None:
            return None
        # As the cache holds them, so that a picture that is recalled equals one that is decoded.
        return tuple(float(np.float32(value)) for value in self._statistics(square))


def decoder_versions(spec: PreprocessSpec) -> dict[str, str]:
    """
    The libraries that turn bytes into the pixels of a spec, and the version of our own rules; for ``versions.decoder``.
    """
    libraries = ("libjpeg_turbo", "zlib", "webp", "avif", "littlecms2")
    found = {name: features.version(name) for name in libraries}
    known = {name: one for name, one in found.items() if one is not None}
    if spec.resize == "torch":
        known["torch"] = version("torch")
    return {"rules": RULES_VERSION, "reading": READING_RULES, "pillow": __version__, **known}


def _supported(name: str) -> bool:
    return bool(features.check(name.lower())) if name in ("WEBP", "AVIF") else True


def _all_in_srgb(pictures: Sequence[Image.Image], profile: bytes | None, notes: list[DecodeNote]) -> list[Image.Image]:
    """
    Parts of one picture in sRGB, in order; all without the profile, and a note of it, where it cannot be used.
    """
    try:
        return [in_srgb(picture, profile) for picture in pictures]
    except ProfileUnusable:
        notes.append(DecodeNote.ICC_DROPPED)
        return [in_srgb(picture, None) for picture in pictures]


def _failure(name: str, error: Exception, data: bytes) -> UploadFailed:
    """
    The stable code for what Pillow raised, with what it said; addresses of objects, which differ, left out.
    """
    extent = gif_extent(data, most_frames=MOST_COUNTED) if name == "GIF" else None
    if (len(data) < announced_bytes(data)) if extent is None else extent.cut:
        return UploadFailed(ErrorCode.DECODE_TRUNCATED, f"the {name} data end before what they announce")
    if isinstance(error, UnidentifiedImageError):
        return UploadFailed(ErrorCode.DECODE_FAILED, f"the {name} header is damaged or incomplete")
    said = "".join(letter if letter.isprintable() else " " for letter in str(error))[:200]
    if extent is not None and extent.flat is not None and said.startswith(_OUTSIDE):
        number, width, height = extent.flat
        said = f"frame {number} is {width} x {height} pixels, expected at least 1 x 1; leave that frame out"
    detail = f"the {name} data cannot be read ({type(error).__name__}: {said})"
    if isinstance(error, MemoryError | Image.DecompressionBombError | Image.DecompressionBombWarning):
        return UploadFailed(ErrorCode.DECODE_BOMB, detail)
    if isinstance(error, EOFError) or "truncated" in said.lower():
        return UploadFailed(ErrorCode.DECODE_TRUNCATED, detail)
    return UploadFailed(ErrorCode.DECODE_FAILED, detail)
