"""
Do a bank and an encoder fit: the recorded fingerprint says so, and a picture that is encoded again proves it.
"""

import hashlib
import io
from typing import Final

import numpy as np
from PIL import Image

from worker.bank.files import StoredBank
from worker.bank.manifest import PROBE, BankManifest
from worker.domain import ContentHash, Embedding, EncoderFingerprint
from worker.errors import BankInvalid, UploadFailed
from worker.ports import Encoder, PictureDecoder

MIN_PROBE_COSINE: Final = 0.999
"""Wide enough for another precision of the same weights, too narrow for another activation or channel order."""

_PROBE_SIDES: Final = (384, 288)
_CONFIG: Final = "open_clip_config.json"
_OF_CONFIG: Final = frozenset({"architecture", "preprocess", "dim"})
_WITH_CONFIG: Final = ("local-dir:", "hf-hub:", "starter")
"""Encoders whose architecture and preprocessing are read from that file, beside their weights."""


def probe_picture() -> bytes:
    """
    The picture that every bank keeps to recognise its encoder by: a PNG of edges, gradients, texture and colour.

    Not square, so that resizing and cropping show; each channel different, so that a swapped order shows. Computed in
    whole numbers, so the pixels are the same everywhere.
    """
    width, height = _PROBE_SIDES
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    red = x * 255 // (width - 1)
    green = np.where((x // 24 + y // 24) % 2 == 0, 220, 40) * y // (height - 1)
    blue = (x * 2654435761 + y * 40503 + x * y * 97) // 64 % 256
    disc = (x - 230) ** 2 + (y - 120) ** 2 < 70**2
    pixels = np.stack([np.where(disc, 240, red), np.where(disc, 60, green), np.where(disc, 30, blue)], axis=2)
    png = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(png, format="PNG", optimize=False)
    return png.getvalue()


def embed_probe(png: bytes, encoder: Encoder, decoder: PictureDecoder) -> Embedding:
    """
    Where the encoder puts the probe picture. Raises ``BankInvalid`` when it cannot be decoded or encoded.
    """
    try:
        decoded = decoder.decode(png, ContentHash(hashlib.sha256(png).hexdigest()))
        return Embedding.from_features(encoder.encode([decoded.pixels])[0])
    except (UploadFailed, ValueError) as fault:
        raise BankInvalid(
            f"{PROBE} could not be embedded ({fault}); PNG must be among decode.formats, and the encoder must work"
        ) from fault


def check_fit(bank: StoredBank, encoder: Encoder, decoder: PictureDecoder) -> float:
    """
    Refuse a bank whose vectors are not comparable with this encoder's; returns the probe's cosine, 0.999 to 1.

    Two checks. The fingerprint's ``space`` must be equal: architecture, weights and preprocessing. Then the probe
    picture is embedded again, and must lie where it lay (cosine at least ``MIN_PROBE_COSINE``): that catches what no
    record says, such as another activation, a broken kernel or another decoder. Another *precision* of the same space
    is allowed when the probe agrees, for a bank built in fp32 serves a worker that runs in bf16. The decoder must have
    the bank's views: they may reduce or re-encode a picture before its global view is taken.

    Raises ``BankInvalid`` naming the part that differs, both values, and what to do.
    """
    check_space(bank.manifest, encoder.fingerprint)
    found = embed_probe(bank.probe_png, encoder, decoder).vector.astype(np.float64)
    stored = bank.probe.astype(np.float64)
    cosine = float(found @ stored / (np.linalg.norm(found) * np.linalg.norm(stored)))
    if not cosine >= MIN_PROBE_COSINE:
        raise BankInvalid(
            f"bank {bank.manifest.id} {bank.manifest.version}: its probe picture now has cosine {cosine:.6f} with the "
            f"stored probe vector, expected at least {MIN_PROBE_COSINE}, although fingerprints agree "
            f"(bank {bank.manifest.encoder.precision}, encoder {encoder.fingerprint.precision}). The encoder computes "
            "something else than when the bank was built: rebuild the bank here, or use the bank's precision."
        )
    return cosine


def check_space(manifest: BankManifest, fingerprint: EncoderFingerprint) -> None:
    """
    Refuse an encoder of another space, by the records alone. Raises ``BankInvalid`` naming each part that differs.
    """
    recorded = manifest.encoder
    if recorded.space == fingerprint.space and recorded.dim == fingerprint.dim:
        return
    parts = {
        "architecture": (recorded.architecture_sha256, fingerprint.architecture_sha256),
        "weights": (recorded.weights_sha256, fingerprint.weights_sha256),
        "preprocess": (manifest.preprocess.sha256, fingerprint.preprocess.sha256),
        "dim": (recorded.dim, fingerprint.dim),
    }
    differing = {name: pair for name, pair in parts.items() if pair[0] != pair[1]}
    named = differing or {"space": (recorded.space, fingerprint.space)}
    advice = "Configure the encoder that the bank was built with, or rebuild the bank with this one."
    if set(named) <= _OF_CONFIG and fingerprint.model.startswith(_WITH_CONFIG):
        # No checksum covers that file: all that is known of it is what came of it.
        advice = (
            f"Weights agree, so look at {_CONFIG} beside them, from which the rest is read: if this is the encoder "
            f"that the bank was built with, that file is damaged or was changed; copy it again. Else: {advice}"
        )
    if set(named) == {"preprocess"}:
        advice += (
            " encoder.jpeg_oversampling, encoder.resize and encoder.jpeg_decoder (with a GPU, or without) are part of "
            "preprocess: see that they are what the bank was built with."
        )
    raise BankInvalid(
        f"bank {manifest.id} {manifest.version} was built by another encoder: "
        + "; ".join(f"{name} is {found}, the bank wants {wanted}" for name, (wanted, found) in named.items())
        + f" (encoder {fingerprint.model}, bank {recorded.model}). "
        + advice
    )
