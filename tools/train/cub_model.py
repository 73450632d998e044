"""Cub's networks (classes of diffusers and transformers), its noise schedule, and how they are built, saved and run."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

WIDTHS = (64, 128, 192)
ATTENTION = (False, True, False)
# In image space a picture is 32x32: as much work as 16x16 latents at the first level, with half the channels.
PIXEL_SIDE = 32
PIXEL_WIDTHS = (32, 64, 96, 128)
PIXEL_ATTENTION = (False, False, True, False)
TEXT_WIDTH = 128
HEAD_WIDTH = 32
GROUPS = 16
LENGTH = 77

SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    # SD ends at 0.012, which leaves enough of a 16x16 latent's mean that a network would count on seeing it.
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
}


def build_unet(
    widths: tuple[int, ...] = WIDTHS, attention: tuple[bool, ...] = ATTENTION, channels: int = 4, side: int = 16
) -> nn.Module:
    """A UNet2DConditionModel with a level for each width, of one resnet on the way down, two on the way up.

    attention: which levels have transformer blocks; the middle always has one. Heads are 32 wide everywhere.
    channels, side: of latents, or of pictures in image space.
    """
    return UNet2DConditionModel(
        sample_size=side,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=widths,
        down_block_types=["CrossAttnDownBlock2D" if here else "DownBlock2D" for here in attention],
        up_block_types=["CrossAttnUpBlock2D" if here else "UpBlock2D" for here in reversed(attention)],
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=[width // HEAD_WIDTH for width in widths],  # the number of heads, as in SD 1
        norm_num_groups=GROUPS,
    )


def build_pixel_unet() -> nn.Module:
    """The noise predictor of image space."""
    return build_unet(PIXEL_WIDTHS, PIXEL_ATTENTION, 3, PIXEL_SIDE)


def build_text_encoder(vocabulary: int) -> nn.Module:
    """A CLIPTextModel of three layers. `vocabulary`: tokens; the last two are BOS and EOS."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=3,
            num_attention_heads=TEXT_WIDTH // HEAD_WIDTH,
            max_position_embeddings=LENGTH,
            hidden_act="quick_gelu",
            projection_dim=TEXT_WIDTH,
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
            attn_implementation="eager",
        )
    )


def signal_shares() -> Tensor:
    """abar: the variance share of the picture at each of the 1000 timesteps, f64."""
    start, end, steps = (SCHEDULE[key] for key in ("beta_start", "beta_end", "num_train_timesteps"))
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


def load_vae(folder: Path) -> AutoencoderKL:
    """The autoencoder of a training run (its `vae` folder) or of a diffusers folder, without gradients."""
    inner = folder / "vae"
    return AutoencoderKL.from_pretrained(inner if inner.is_dir() else folder).eval().requires_grad_(False)


class PlainAttention:
    """diffusers' AttnProcessor2_0 without masks and with batched matrix products in place of the fused kernel, whose
    backward pass is slow on CPUs; queries, keys and values come from one product each for self-attention."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        """hidden_states (N, T, C), encoder_hidden_states (N, S, D) or None for self-attention; gives (N, T, C)."""
        if encoder_hidden_states is None:
            weight = torch.cat([attn.to_q.weight, attn.to_k.weight, attn.to_v.weight])
            query, key, value = nn.functional.linear(hidden_states, weight).chunk(3, dim=-1)
        else:
            query = attn.to_q(hidden_states)
            weight = torch.cat([attn.to_k.weight, attn.to_v.weight])
            key, value = nn.functional.linear(encoder_hidden_states, weight).chunk(2, dim=-1)
        query, key, value = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (query, key, value))
        scores = (query * attn.scale) @ key.transpose(-1, -2)
        mixed = scores.softmax(-1).to(value.dtype) @ value
        return attn.to_out[0](mixed.transpose(1, 2).flatten(2))


def autocast(device: torch.device):
    """bf16 for matrix products and convolutions, on CPUs and GPUs alike."""
    return torch.autocast(device.type, torch.bfloat16)
