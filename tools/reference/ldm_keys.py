"""diffusers' tensor names -> the names of a single-file checkpoint (the ldm layout).

The inverse of what diffusers does when it loads such a file; make_checkpoint.py --check holds the two against each
other.
"""

import re

import torch

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def rename(name: str, table: dict[str, str]) -> str:
    """Replaces the longest dotted prefix of a name that the table has."""
    for old in sorted(table, key=len, reverse=True):
        if name == old or name.startswith(old + "."):
            return table[old] + name[len(old) :]
    return name


def unet_blocks(names: set[str]) -> dict[str, str]:
    """diffusers' block names -> ldm's numbered blocks, for the down and up path of this UNet.

    ldm numbers every layer of a path in one row: a resnet with its attention is one entry, a downsampler is another,
    and an upsampler stands inside the entry of its level's last resnet.
    """
    present = {".".join(name.split(".")[:4]) for name in names if re.match(r"(down|up)_blocks\.", name)}

    def count(pattern: str) -> int:
        numbers = [int(m[1]) for m in (re.match(pattern, name) for name in present) if m]
        return max(numbers, default=-1) + 1

    blocks = {}
    entry = 1
    for level in range(count(r"down_blocks\.(\d+)\.")):
        here = f"down_blocks.{level}"
        for layer in range(count(rf"down_blocks\.{level}\.resnets\.(\d+)")):
            blocks[f"{here}.resnets.{layer}"] = f"input_blocks.{entry}.0"
            blocks[f"{here}.attentions.{layer}"] = f"input_blocks.{entry}.1"
            entry += 1
        if f"{here}.downsamplers.0" in present:
            blocks[f"{here}.downsamplers.0.conv"] = f"input_blocks.{entry}.0.op"
            entry += 1
    entry = 0
    for level in range(count(r"up_blocks\.(\d+)\.")):
        here = f"up_blocks.{level}"
        for layer in range(count(rf"up_blocks\.{level}\.resnets\.(\d+)")):
            blocks[f"{here}.resnets.{layer}"] = f"output_blocks.{entry}.0"
            blocks[f"{here}.attentions.{layer}"] = f"output_blocks.{entry}.1"
            entry += 1
        if f"{here}.upsamplers.0" in present:
            place = 2 if f"{here}.attentions.0" in present else 1
            blocks[f"{here}.upsamplers.0.conv"] = f"output_blocks.{entry - 1}.{place}.conv"
    return blocks


def unet_to_ldm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """UNet tensors under `model.diffusion_model.`."""
    blocks = {**UNET_ENDS, **unet_blocks(set(state))}
    renamed = {}
    for name, tensor in state.items():
        block = next((b for b in sorted(blocks, key=len, reverse=True) if name.startswith(b + ".")), None)
        if block is None:
            raise ValueError(f"unet.{name} has no place in the ldm layout")
        inside = name[len(block) + 1 :]
        renamed[f"model.diffusion_model.{blocks[block]}.{rename(inside, RESNET)}"] = tensor
    return renamed


def vae_to_ldm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """VAE tensors under `first_stage_model.`; the attention's Linear weights become 1x1 convolutions, and the decoder's
    levels are counted from the other end."""
    levels = 1 + max(int(m[1]) for m in (re.match(r"decoder\.up_blocks\.(\d+)\.", name) for name in state) if m)
    renamed = {}
    for name, tensor in state.items():
        if ".attentions.0." in name:
            part, inside = name.split(".mid_block.attentions.0.")
            new = f"{part}.mid.attn_1.{rename(inside, VAE_ATTENTION)}"
            tensor = tensor[:, :, None, None] if tensor.dim() == 2 else tensor
        else:
            new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
            new = re.sub(r"down_blocks\.(\d+)", r"down.\1", new.replace("downsamplers.0", "downsample"))
            new = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{levels - 1 - int(m[1])}", new)
            new = re.sub(r"\.resnets\.(\d+)", r".block.\1", new.replace("upsamplers.0", "upsample"))
            new = new.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        renamed[f"first_stage_model.{new}"] = tensor
    return renamed


def clip_to_ldm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """SD1's text encoder under `cond_stage_model.transformer.text_model.`."""
    return {f"cond_stage_model.transformer.text_model.{name}": tensor for name, tensor in state.items()}


def clip_to_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """SD2's text encoder under `cond_stage_model.model.`: q, k and v in one matrix."""
    tops = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    renamed = {}
    for name, tensor in state.items():
        layer = re.match(r"encoder\.layers\.(\d+)\.(.+)", name)
        if layer is None:
            new = tops[name]
        elif fused := re.match(r"self_attn\.([qkv])_proj\.(weight|bias)", layer[2]):
            if fused[1] != "q":
                continue
            start = f"encoder.layers.{layer[1]}.self_attn"
            tensor = torch.cat([state[f"{start}.{part}_proj.{fused[2]}"] for part in "qkv"])
            new = f"transformer.resblocks.{layer[1]}.attn.in_proj_{fused[2]}"
        else:
            new = f"transformer.resblocks.{layer[1]}.{rename(layer[2], OPEN_CLIP_LAYER)}"
        renamed[f"cond_stage_model.model.{new}"] = tensor
    return renamed
