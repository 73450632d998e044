"""Writes the output of every weighted module of a checkpoint's models to one safetensors file.

    python trace_modules.py CHECKPOINT -o trace.safetensors --prompt "a cat" --width 136 --height 72 --timestep 501

Each component is called once: the text encoder with the prompts; the UNet (without guidance) with those embeddings and
a seeded standard normal latent; the VAE decoder with a seeded latent; on request the VAE encoder with a seeded image.
run_reference.py --trace does the same within a whole run. The README describes the file.
"""

import argparse
import json
import re
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from reference import generators, has_vae, load_pipeline, token_ids

COMPONENTS = ("text_encoder", "unet", "vae", "vae_encoder")
WEIGHTLESS = {"time_proj"}
"""Modules traced although they hold no weights."""


def first_tensor(output) -> torch.Tensor:
    """A module's output; the first element where it gives several."""
    while not isinstance(output, torch.Tensor):
        output = output[0]
    return output


class Trace:
    """Collects tensors in execution order. With `steps`, unet tensors get the step in front, others are left out."""

    def __init__(self, only: str = "", steps: set[int] | None = None):
        self.tensors: dict[str, torch.Tensor] = {}
        self.only = re.compile(only)
        self.steps = steps
        self.step = -1
        self.handles = []

    def add(self, key: str, tensor: torch.Tensor) -> None:
        """Adds one tensor, as f32."""
        if key.startswith("unet.") and self.steps is not None:
            if self.step not in self.steps:
                return
            key = f"step{self.step}.{key}"
        if not self.only.search(key):
            return
        if key in self.tensors:
            raise ValueError(f"{key} ran twice: a trace holds one call of each module")
        self.tensors[key] = tensor.detach().to(torch.float32).contiguous().clone()

    def hook(self, prefix: str, model: torch.nn.Module) -> None:
        """Hooks a model's weighted submodules, and the model itself unless it is a whole component."""
        for name, module in model.named_modules():
            key = f"{prefix}.{name}" if name else prefix
            weighted = any(True for _ in module.parameters())
            if "." in key and (weighted or name in WEIGHTLESS):
                self.handles.append(module.register_forward_hook(partial(self._output, key)))

    def _output(self, key: str, module, args, output) -> None:
        self.add(key, first_tensor(output))

    def _input(self, key: str, module, args, named) -> None:
        self.add(key, args[0] if args else named["input_ids"])

    def hook_input(self, key: str, module: torch.nn.Module) -> None:
        """Records a module's first argument."""
        self.handles.append(module.register_forward_pre_hook(partial(self._input, key), with_kwargs=True))

    def hook_unet(self, unet: torch.nn.Module) -> None:
        """Hooks the UNet and its inputs; counts its calls as steps."""

        def inputs(_, args, named):
            self.step += 1
            sample, timestep = args[0], args[1]
            self.add("unet.input.sample", sample)
            self.add("unet.input.timestep", torch.as_tensor(timestep).reshape(-1))
            self.add("unet.input.encoder_hidden_states", named["encoder_hidden_states"])

        self.handles.append(unet.register_forward_pre_hook(inputs, with_kwargs=True))
        self.hook("unet", unet)

    def hook_text_encoder(self, text_encoder: torch.nn.Module) -> None:
        """Hooks the text encoder and its ids."""
        self.hook_input("text_encoder.input.ids", text_encoder)
        self.hook("text_encoder", text_encoder)

    def hook_decoder(self, vae: torch.nn.Module) -> None:
        """Hooks the VAE's decoder and what precedes it."""
        self.hook_input("vae.input.latents", vae.post_quant_conv)
        self.hook("vae.post_quant_conv", vae.post_quant_conv)
        self.hook("vae.decoder", vae.decoder)

    def hook_encoder(self, vae: torch.nn.Module) -> None:
        """Hooks the VAE's encoder and what follows it."""
        self.hook_input("vae.input.image", vae.encoder)
        self.hook("vae.encoder", vae.encoder)
        self.hook("vae.quant_conv", vae.quant_conv)

    def remove(self) -> None:
        """Takes the hooks off again."""
        for handle in self.handles:
            handle.remove()

    def save(self, path: Path) -> None:
        """Writes the file, with the execution order in its metadata."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors, path, metadata={"order": json.dumps(list(self.tensors))})
        path.chmod(0o644)


@torch.no_grad()
def trace_once(pipeline, prompts, width, height, timestep, seed, components=COMPONENTS, only="") -> Trace:
    """Calls each component once (module documentation). Prompt i's latent comes from the generator seeded seed + i, and
    so does the decoder's, drawn second, and the encoder's image, drawn third."""
    trace = Trace(only)
    factor = pipeline.vae_scale_factor
    source = generators(seed, len(prompts))

    def draw(channels, h, w):
        return torch.cat([torch.randn((1, channels, h, w), generator=g) for g in source])

    sample = draw(pipeline.unet.config.in_channels, height // factor, width // factor)
    latents = draw(pipeline.vae.config.latent_channels, height // factor, width // factor)
    image = draw(pipeline.vae.config.in_channels, height, width).mul_(0.5).clamp_(-1, 1)
    if "text_encoder" in components:
        trace.hook_text_encoder(pipeline.text_encoder)
    if "unet" in components:
        trace.hook_unet(pipeline.unet)
    embeddings = pipeline.text_encoder(token_ids(pipeline, prompts))[0]
    if "unet" in components:
        pipeline.unet(sample, torch.tensor(timestep), encoder_hidden_states=embeddings)
    if "vae" in components and has_vae(pipeline):
        trace.hook_decoder(pipeline.vae)
        pipeline.vae.decode(latents)
    if "vae_encoder" in components and has_vae(pipeline):
        trace.hook_encoder(pipeline.vae)
        pipeline.vae.encode(image)
    trace.remove()
    return trace


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--config", type=Path, help="folder with the config files, for a single-file checkpoint")
    parser.add_argument("--prompt", action="append", help="several make a batch")
    parser.add_argument("--width", type=int, default=136)
    parser.add_argument("--height", type=int, default=72)
    parser.add_argument("--timestep", type=float, default=501.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--components", default="text_encoder,unet,vae", help=f"of {','.join(COMPONENTS)}")
    parser.add_argument("--only", default="", metavar="REGEX", help="keep only keys in which this occurs")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    components = args.components.split(",")
    if unknown := set(components) - set(COMPONENTS):
        parser.error(f"unknown component {sorted(unknown)[0]}; there are {', '.join(COMPONENTS)}")
    pipeline = load_pipeline(args.checkpoint, args.config)
    prompts = args.prompt or ["a photograph of an astronaut riding a horse"]
    trace = trace_once(pipeline, prompts, args.width, args.height, args.timestep, args.seed, components, args.only)
    trace.save(args.output)
    print(f"{len(trace.tensors)} tensors in {args.output}")


if __name__ == "__main__":
    main()
