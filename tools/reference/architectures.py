"""The architectures that make_checkpoint.py knows: config files as published, and small models of awkward sizes."""

from dataclasses import dataclass

SD_SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "clip_sample": False,
}
"""What the scheduler_config.json of Stable Diffusion 1 and 2 have in common. It names no timestep_spacing, so each
scheduler class uses its own default (leading for ddim, ddpm, pndm, lcm and tcd, else linspace)."""
PNDM = {"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **SD_SCHEDULER, "trained_betas": None}
DDIM_V = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.8.0",
    **SD_SCHEDULER,
    "trained_betas": None,
    "prediction_type": "v_prediction",
}


@dataclass(frozen=True)
class Architecture:
    """Everything that config files say about a model.

    open_clip: a single file has the text encoder in OpenCLIP's layout (SD2), else in CLIP's (SD1).
    pad_token: what the tokenizer fills up with.
    merges: how many of CLIP's merges the vocabulary keeps; None for all.
    vae: None for a model whose UNet works on pictures themselves.
    legacy_keys: a folder has the names that the published files have: `text_model.` before the text encoder's keys,
        position_ids, and the VAE attention's query/key/value/proj_attn.
    """

    unet: dict
    vae: dict | None
    text_encoder: dict
    scheduler: dict
    open_clip: bool = False
    pad_token: str = "<|endoftext|>"
    merges: int | None = None
    legacy_keys: bool = False


def unet_config(
    channels, *, attention, heads, cross_attention_dim, layers=2, groups=32, sample_size=64, **more
) -> dict:
    """A UNet2DConditionModel config. attention: per level, whether it has transformer blocks. heads: number of heads
    (diffusers calls that number attention_head_dim), one for all levels or a list."""
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": "0.6.0",
        "act_fn": "silu",
        "attention_head_dim": heads,
        "block_out_channels": list(channels),
        "center_input_sample": False,
        "cross_attention_dim": cross_attention_dim,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attention],
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "layers_per_block": layers,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": groups,
        "out_channels": 4,
        "sample_size": sample_size,
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attention)],
        **more,
    }


def vae_config(channels, *, layers=2, groups=32, sample_size=512, **more) -> dict:
    """An AutoencoderKL config."""
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": "0.6.0",
        "act_fn": "silu",
        "block_out_channels": list(channels),
        "down_block_types": ["DownEncoderBlock2D"] * len(channels),
        "in_channels": 3,
        "latent_channels": 4,
        "layers_per_block": layers,
        "norm_num_groups": groups,
        "out_channels": 3,
        "sample_size": sample_size,
        "up_block_types": ["UpDecoderBlock2D"] * len(channels),
        **more,
    }


def text_config(hidden, *, layers, heads, act, projection, intermediate=None, vocabulary=49408, **more) -> dict:
    """A CLIPTextModel config, with the bos, eos and pad ids of the published files (which nothing here uses)."""
    return {
        "architectures": ["CLIPTextModel"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "dropout": 0.0,
        "eos_token_id": 2,
        "hidden_act": act,
        "hidden_size": hidden,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "intermediate_size": intermediate or 4 * hidden,
        "layer_norm_eps": 1e-05,
        "max_position_embeddings": 77,
        "model_type": "clip_text_model",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "pad_token_id": 1,
        "projection_dim": projection,
        "vocab_size": vocabulary,
        **more,
    }


SD2_TEXT = text_config(1024, layers=23, heads=16, act="gelu", projection=512)
SD2_UNET = {
    "attention": (True, True, True, False),
    "heads": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "dual_cross_attention": False,
    "only_cross_attention": False,
    "num_class_embeds": None,
}
FULL_CHANNELS = (320, 640, 1280, 1280)
FULL_VAE_CHANNELS = (128, 256, 512, 512)
SMALL_MERGES = 256
SMALL_VOCABULARY = 512 + SMALL_MERGES + 2

ARCHITECTURES = {
    "sd15": Architecture(
        unet=unet_config(FULL_CHANNELS, attention=(True, True, True, False), heads=8, cross_attention_dim=768),
        vae=vae_config(FULL_VAE_CHANNELS),
        text_encoder=text_config(768, layers=12, heads=12, act="quick_gelu", projection=768),
        scheduler=PNDM,
        legacy_keys=True,
    ),
    "sd21": Architecture(
        unet=unet_config(FULL_CHANNELS, **SD2_UNET, sample_size=96, upcast_attention=True),
        vae=vae_config(FULL_VAE_CHANNELS, sample_size=768, scaling_factor=0.18215),
        text_encoder=SD2_TEXT,
        scheduler=DDIM_V,
        open_clip=True,
        pad_token="!",
        legacy_keys=True,
    ),
    "sd21-base": Architecture(
        unet=unet_config(FULL_CHANNELS, **SD2_UNET, sample_size=64),
        vae=vae_config(FULL_VAE_CHANNELS, sample_size=512, scaling_factor=0.18215),
        text_encoder=SD2_TEXT,
        scheduler=PNDM,
        open_clip=True,
        pad_token="!",
        legacy_keys=True,
    ),
    # SDXL's UNet without its second text encoder, size and crop conditions: the same work in every step, from one text
    # encoder as wide as its two together.
    "sdxl-sized": Architecture(
        unet=unet_config(
            (320, 640, 1280),
            attention=(False, True, True),
            heads=[5, 10, 20],
            cross_attention_dim=2048,
            sample_size=128,
            transformer_layers_per_block=[1, 2, 10],
            use_linear_projection=True,
        ),
        vae=vae_config(FULL_VAE_CHANNELS, sample_size=1024, scaling_factor=0.13025),
        text_encoder=text_config(2048, layers=2, heads=32, act="gelu", projection=1280),
        scheduler={**PNDM, "_class_name": "EulerDiscreteScheduler"},
    ),
    # SD1 in small: 1x1-convolution projections, one head count, quick_gelu, the published layers_per_block.
    "tiny": Architecture(
        unet=unet_config((8, 16, 24), attention=(True, True, False), heads=2, cross_attention_dim=32, groups=8),
        vae=vae_config((8, 8, 16, 16), layers=1, groups=8, sample_size=64),
        text_encoder=text_config(32, layers=2, heads=2, act="quick_gelu", projection=32, vocabulary=SMALL_VOCABULARY),
        scheduler=PNDM,
        merges=SMALL_MERGES,
    ),
    # SD2 in small: Linear projections, heads per level, gelu, v-prediction, pad token 0, four levels.
    "tiny-v": Architecture(
        unet=unet_config(
            (8, 8, 16, 24),
            attention=(True, True, True, False),
            heads=[1, 2, 2, 4],
            cross_attention_dim=48,
            layers=1,
            groups=4,
            use_linear_projection=True,
        ),
        vae=vae_config((4, 8, 8, 16), layers=1, groups=4, sample_size=64, scaling_factor=0.18215),
        text_encoder=text_config(48, layers=2, heads=3, act="gelu", projection=24, vocabulary=SMALL_VOCABULARY),
        scheduler=DDIM_V,
        open_clip=True,
        pad_token="!",
        merges=SMALL_MERGES,
    ),
    # Numbers that fit no tile: channels, groups and head widths (3, 20, 12), layers and transformer depth per level,
    # no attention at the first level, a VAE of three levels with another scale.
    "odd": Architecture(
        unet=unet_config(
            (12, 20, 24),
            attention=(False, True, True),
            heads=[4, 1, 2],
            cross_attention_dim=40,
            layers=[1, 2, 1],
            groups=4,
            transformer_layers_per_block=[1, 2, 1],
        ),
        vae=vae_config((6, 10, 14), layers=2, groups=2, sample_size=40, scaling_factor=0.13025),
        text_encoder=text_config(
            40, layers=3, heads=2, act="quick_gelu", projection=40, intermediate=100, vocabulary=SMALL_VOCABULARY
        ),
        scheduler={**PNDM, "_class_name": "DDIMScheduler"},
        merges=SMALL_MERGES,
        legacy_keys=True,
    ),
    # No VAE: the UNet works on pictures, as cub-pixels, in small. Its scheduler clips what is predicted of the picture.
    "tiny-pixels": Architecture(
        unet=unet_config(
            (8, 12, 16, 24),
            attention=(False, False, True, False),
            heads=[1, 1, 2, 3],
            cross_attention_dim=32,
            layers=1,
            groups=4,
            sample_size=16,
            in_channels=3,
            out_channels=3,
            _diffusers_version="0.42.0",  # of older UNets diffusers takes such a sample_size for a mistake
        ),
        vae=None,
        text_encoder=text_config(32, layers=2, heads=2, act="quick_gelu", projection=32, vocabulary=SMALL_VOCABULARY),
        scheduler={**DDIM_V, "clip_sample": True},
        merges=SMALL_MERGES,
    ),
}
