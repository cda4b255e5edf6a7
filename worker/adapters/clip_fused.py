"""
open_clip's plain vision transformer in bf16 or fp16, computed from uint8 pixels with as few passes as it has products.

What one product scales, shifts or normalises is folded into the weights of the next in fp32, before they are rounded.
Towers of any other make run as open_clip runs them: see ``fuse``. The products are ``worker/adapters/clip_linear.py``.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import nn
from torch.nn import functional

from worker.adapters.clip_library import QuickGELU, ResidualAttentionBlock, VisionTransformer
from worker.adapters.clip_linear import Activation, Linear
from worker.domain import PreprocessSpec

TOKENS_TOGETHER: Final = 1600
"""
On a CPU, tokens that go through the blocks together.

Each time, all weights come through the caches: 170 MB for ViT-B/32, and more slowly where others use the memory too, as
decoders do. Activations of so many take some 15 MB there, which a last-level cache holds.
"""

# Pixels are taken as (x - 128) / 64, which is exact in bf16 and fp16; the rest of normalising is in the weights.
_CENTRE: Final = 128.0
_SCALE: Final = 64.0
_QUICK: Final = 1.702


@dataclass(frozen=True, slots=True)
class _Block:
    """
    One residual block: four products, its norms' affine parts and its layer scales folded into them.
    """

    query: Linear
    key_value: Linear
    out: Linear
    wide: Linear
    narrow: Linear
    norms: tuple[float, float]


class FusedTower(nn.Module):
    """
    uint8[n, height, width, 3] on its device to features [n, dim] in its precision; any number of threads may call it.

    Of the last block only what the pooled features depend on is computed. Nothing of one picture enters another's.
    """

    def __init__(self, tower: VisionTransformer, spec: PreprocessSpec, like: torch.Tensor) -> None:
        super().__init__()
        self._like = like
        self._patch = _patch(tower)
        self._heads = tower.transformer.resblocks[0].attn.num_heads
        self._embed = Linear(*_embedding(tower, spec), like=like)
        positions, shift = tower.positional_embedding.float(), _embedding_shift(tower, spec)
        self._positions = (positions[1:] + shift).to(like.device)
        self._first = (positions[:1] + tower.class_embedding.float()).to(like.device)
        pre = tower.ln_pre
        self._pre = pre if isinstance(pre, nn.Identity) else pre.to(like.device)
        self._blocks = [_block(block, like) for block in tower.transformer.resblocks]
        self._by_token = tower.pool_type == "tok"
        self._norm_after_pool = self._by_token or tower.final_ln_after_pool
        self._post_eps = tower.ln_post.eps
        self._project = Linear(*_folded(tower.ln_post, tower.proj.float().t(), None), like=like)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        The features of pictures, in order.
        """
        if self._like.device.type != "cpu":
            return self._features(pixels)
        together = max(1, TOKENS_TOGETHER // (len(self._positions) + 1))
        # Parts of one size, as far as that goes: a small rest costs more by the picture.
        parts = pixels.chunk(-(-len(pixels) // together))
        return torch.cat([self._features(part) for part in parts])

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        values = self._tokens(pixels)
        for block in self._blocks[:-1]:
            values = self._through(block, values, values)
        # Where the class token alone is looked at, the last block asks the others for their keys and values only.
        wanted = values[:, :1] if self._by_token else values
        values = self._through(self._blocks[-1], values, wanted)
        pooled = values[:, 0] if self._by_token else values[:, 1:]
        if self._norm_after_pool:
            pooled = pooled if self._by_token else pooled.mean(dim=1)
            return self._project(_normal(pooled, self._post_eps))
        return self._project(_normal(pooled, self._post_eps).mean(dim=1))

    def _tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """
        The tokens before the first block; summed and normalised in fp32, as there are few.
        """
        count, (high, wide) = len(pixels), self._patch
        rows, columns = pixels.shape[1] // high, pixels.shape[2] // wide
        whole = pixels[:, : rows * high, : columns * wide]
        tiles = whole.reshape(count, rows, high, columns, wide, 3).transpose(2, 3)
        patches = tiles.reshape(count, rows * columns, high * wide * 3).to(self._like.dtype)
        embedded = self._embed(patches.sub_(_CENTRE).div_(_SCALE)).float() + self._positions
        tokens = torch.cat([self._first.expand(count, 1, -1), embedded], dim=1)
        normal: torch.Tensor = self._pre(tokens)
        return normal.to(self._like.dtype)

    def _through(self, block: _Block, values: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """
        What becomes of the ``wanted`` tokens, which attend to all ``values``.
        """
        normal = _normal(values, block.norms[0])
        asking = normal[:, : wanted.shape[1]]
        attended = self._attention(block.query(asking), block.key_value(normal))
        summed = block.out(attended, wanted)
        return block.narrow(block.wide(_normal(summed, block.norms[1])), summed)

    def _attention(self, query: torch.Tensor, key_value: torch.Tensor) -> torch.Tensor:
        """
        Softmax attention by head; the scale is in the query's weights.
        """
        count, asking, width = query.shape
        all_of = key_value.shape[1]
        size = width // self._heads
        queries = query.view(count, asking, self._heads, size).transpose(1, 2)
        keys, values = key_value.view(count, all_of, 2, self._heads, size).permute(2, 0, 3, 1, 4)
        if self._like.device.type == "cpu":
            # Half the time of torch's flash attention on a CPU, for the 50 to 260 tokens of a picture.
            scores = torch.matmul(queries, keys.transpose(2, 3))
            attended = torch.matmul(torch.softmax(scores, dim=-1), values)
        else:
            attended = functional.scaled_dot_product_attention(queries, keys, values, scale=1.0)
        return attended.transpose(1, 2).reshape(count, asking, width)


def fuse(tower: nn.Module, spec: PreprocessSpec, like: torch.Tensor) -> FusedTower | None:
    """
    The same tower, in the precision and on the device of ``like``; None where it is not the plain transformer.

    ``tower`` is in fp32, in evaluation mode, and is not used afterwards.
    """
    if not isinstance(tower, VisionTransformer) or not _is_plain(tower):
        return None
    with torch.inference_mode():
        return FusedTower(tower, spec, like)


def _is_plain(tower: VisionTransformer) -> bool:
    return (
        type(tower) is VisionTransformer
        and tower.attn_pool is None
        and tower.pool_type in ("tok", "avg")
        and isinstance(tower.patch_dropout, nn.Identity)
        and not tower.output_tokens
        and tower.proj is not None
        and (isinstance(tower.ln_pre, nn.Identity) or _is_norm(tower.ln_pre))
        and _is_norm(tower.ln_post)
        and len(tower.transformer.resblocks) > 0
        and all(_is_plain_block(block) for block in tower.transformer.resblocks)
    )


def _is_plain_block(block: nn.Module) -> bool:
    if not isinstance(block, ResidualAttentionBlock) or type(block) is not ResidualAttentionBlock:
        return False
    attention, mlp = block.attn, block.mlp
    return (
        not hasattr(block, "ln_1_kv")
        and _is_norm(block.ln_1)
        and _is_norm(block.ln_2)
        and type(attention) is nn.MultiheadAttention
        and getattr(attention, "in_proj_weight", None) is not None
        and getattr(attention, "in_proj_bias", None) is not None
        and attention.bias_k is None
        and not attention.add_zero_attn
        and type(mlp.c_fc) is type(mlp.c_proj) is nn.Linear
        and _activation(block) is not None
    )


def _is_norm(part: nn.Module) -> bool:
    return isinstance(part, nn.LayerNorm) and part.elementwise_affine and isinstance(part.bias, torch.Tensor)


def _activation(block: ResidualAttentionBlock) -> Activation | None:
    gelu = block.mlp.gelu
    if type(gelu) is QuickGELU:
        return "silu"
    if type(gelu) is nn.GELU:
        return "gelu_tanh" if gelu.approximate == "tanh" else "gelu"
    return None


def _patch(tower: VisionTransformer) -> tuple[int, int]:
    high, wide = tower.conv1.weight.shape[2:]
    return int(high), int(wide)


def _embedding(tower: VisionTransformer, spec: PreprocessSpec) -> tuple[torch.Tensor, None]:
    """
    The first convolution as a product over a patch's pixels, with the standard deviations in it.
    """
    weight = tower.conv1.weight.float() * (_SCALE / 255) / _by_channel(spec.std)
    return weight.permute(0, 2, 3, 1).flatten(1), None


def _embedding_shift(tower: VisionTransformer, spec: PreprocessSpec) -> torch.Tensor:
    """
    What the means add to every patch.
    """
    shift = (_CENTRE / 255 - _by_channel(spec.mean)) / _by_channel(spec.std)
    summed: torch.Tensor = (tower.conv1.weight.float() * shift).sum(dim=(1, 2, 3))
    return summed


def _by_channel(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1)


def _block(block: ResidualAttentionBlock, like: torch.Tensor) -> _Block:
    attention, mlp = block.attn, block.mlp
    activation = _activation(block) or "none"
    width, before = attention.embed_dim, _folded(block.ln_1, attention.in_proj_weight, attention.in_proj_bias)
    weight, bias = before
    scale = (width // attention.num_heads) ** -0.5
    wide = _folded(block.ln_2, mlp.c_fc.weight, mlp.c_fc.bias)
    # x * sigmoid(1.702 x) is silu(1.702 x) / 1.702.
    quick = _QUICK if activation == "silu" else 1.0
    return _Block(
        query=Linear(weight[:width] * scale, bias[:width] * scale, like=like),
        key_value=Linear(weight[width:], bias[width:], like=like),
        out=Linear(*_scaled(block.ls_1, attention.out_proj, 1.0), like=like),
        wide=Linear(wide[0] * quick, wide[1] * quick, like=like, activation=activation),
        narrow=Linear(*_scaled(block.ls_2, mlp.c_proj, 1 / quick), like=like),
        norms=(block.ln_1.eps, block.ln_2.eps),
    )


def _folded(norm: nn.LayerNorm, weight: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """
    A product over normalised values with the norm's own weight and bias in it.
    """
    weight = weight.float()
    shift = weight @ norm.bias.float()
    return weight * norm.weight.float(), shift if bias is None else shift + bias.float()


def _scaled(scale: nn.Module, product: nn.Linear, quick: float) -> tuple[torch.Tensor, torch.Tensor]:
    """
    A product with the layer scale behind it, if there is one, and a factor on what comes into it.
    """
    weight, bias = product.weight.float() * quick, product.bias.float()
    gamma = getattr(scale, "gamma", None)
    if not isinstance(gamma, torch.Tensor):
        return weight, bias
    return weight * gamma.float()[:, None], bias * gamma.float()


def _normal(values: torch.Tensor, epsilon: float) -> torch.Tensor:
    return functional.layer_norm(values, values.shape[-1:], eps=epsilon)
