//! The tensors of known architectures: what a checkpoint of SD 1.5 or SD 2.1 holds, without the checkpoint.
//!
//! Models are built from a checkpoint's own keys; this goes the other way, for plans without a file and for tests.

use crate::{TextConfig, UnetConfig, VaeConfig};
use ratel_kernels::activation::Act;
use ratel_tensor::Shape;
use std::collections::BTreeMap;

/// Keys below a component (`conv_in.weight`) and shapes as PyTorch has them.
pub type Catalogue = BTreeMap<String, Shape>;

/// The sizes of a text encoder, a UNet and a VAE.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Rows of the token table.
    pub vocabulary: usize,
    /// Channels of the text encoder, and of what cross-attention looks at.
    pub text_channels: usize,
    /// Channels inside the text encoder's feed-forward layers.
    pub text_inner: usize,
    /// Layers of the text encoder.
    pub text_layers: usize,
    /// What else the text encoder is.
    pub text: TextConfig,
    /// Channels of each level of the UNet; the last one has no attention.
    pub unet_channels: Vec<usize>,
    /// Residual blocks of each level going down; one more going up.
    pub unet_layers: usize,
    /// Whether transformers' projections are linear layers rather than 1x1 convolutions.
    pub linear_projection: bool,
    /// What else the UNet is.
    pub unet: UnetConfig,
    /// Channels of each level of the VAE.
    pub vae_channels: Vec<usize>,
    /// Residual blocks of each level of its encoder; one more in its decoder.
    pub vae_layers: usize,
    /// What else the VAE is.
    pub vae: VaeConfig,
}

/// Tokens of a prompt, with its first and last.
const TOKENS: usize = 77;
/// Channels of latents.
const LATENT: usize = 4;

impl Architecture {
    /// Stable Diffusion 1.x.
    pub fn sd15() -> Self {
        Architecture {
            vocabulary: 49408,
            text_channels: 768,
            text_inner: 3072,
            text_layers: 12,
            text: TextConfig { heads: 12, act: Act::QuickGelu, eps: 1e-5, layers: 12 },
            unet_channels: vec![320, 640, 1280, 1280],
            unet_layers: 2,
            linear_projection: false,
            unet: UnetConfig { heads: vec![8; 4], groups: 32, eps: 1e-5, cos_first: true, freq_shift: 0.0 },
            vae_channels: vec![128, 256, 512, 512],
            vae_layers: 2,
            vae: VaeConfig { groups: 32 },
        }
    }

    /// Stable Diffusion 2.x.
    pub fn sd21() -> Self {
        let sd15 = Self::sd15();
        Architecture {
            text_channels: 1024,
            text_inner: 4096,
            text_layers: 23,
            text: TextConfig { heads: 16, act: Act::Gelu, eps: 1e-5, layers: 23 },
            linear_projection: true,
            unet: UnetConfig { heads: vec![5, 10, 20, 20], ..sd15.unet.clone() },
            ..sd15
        }
    }

    /// The whole topology of SD 1.x in a few megabytes.
    pub fn toy() -> Self {
        let sd15 = Self::sd15();
        Architecture {
            text_channels: 64,
            text_inner: 256,
            text_layers: 2,
            text: TextConfig { heads: 4, layers: 2, ..sd15.text },
            unet_channels: vec![32, 64, 64, 64],
            unet_layers: 1,
            unet: UnetConfig { heads: vec![2; 4], groups: 8, ..sd15.unet.clone() },
            vae_channels: vec![16, 32, 32, 32],
            vae_layers: 1,
            vae: VaeConfig { groups: 8 },
            ..sd15
        }
    }

    /// The text encoder's tensors.
    pub fn text_encoder(&self) -> Catalogue {
        let (c, inner) = (self.text_channels, self.text_inner);
        let mut t = Tensors::default();
        t.add("embeddings.token_embedding.weight", &[self.vocabulary, c]);
        t.add("embeddings.position_embedding.weight", &[TOKENS, c]);
        for i in 0..self.text_layers {
            let layer = format!("encoder.layers.{i}");
            t.norm(&format!("{layer}.layer_norm1"), c);
            for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                t.linear(&format!("{layer}.self_attn.{name}"), c, c);
            }
            t.norm(&format!("{layer}.layer_norm2"), c);
            t.linear(&format!("{layer}.mlp.fc1"), inner, c);
            t.linear(&format!("{layer}.mlp.fc2"), c, inner);
        }
        t.norm("final_layer_norm", c);
        t.0
    }

    /// The UNet's tensors.
    pub fn unet(&self) -> Catalogue {
        let levels = &self.unet_channels;
        let (first, last) = (levels[0], levels[levels.len() - 1]);
        let time = 4 * first;
        let mut t = Tensors::default();
        t.conv("conv_in", first, LATENT, 3);
        t.linear("time_embedding.linear_1", time, first);
        t.linear("time_embedding.linear_2", time, time);
        let mut skips = vec![first];
        let mut c = first;
        for (level, &n) in levels.iter().enumerate() {
            let block = format!("down_blocks.{level}");
            let bottom = level + 1 == levels.len();
            for i in 0..self.unet_layers {
                t.resnet(&format!("{block}.resnets.{i}"), n, c, Some(time));
                c = n;
                if !bottom {
                    self.transformer(&mut t, &format!("{block}.attentions.{i}"), n);
                }
                skips.push(n);
            }
            if !bottom {
                t.conv(&format!("{block}.downsamplers.0.conv"), n, n, 3);
                skips.push(n);
            }
        }
        t.resnet("mid_block.resnets.0", last, last, Some(time));
        self.transformer(&mut t, "mid_block.attentions.0", last);
        t.resnet("mid_block.resnets.1", last, last, Some(time));
        for (i, &n) in levels.iter().rev().enumerate() {
            let block = format!("up_blocks.{i}");
            for j in 0..=self.unet_layers {
                let skip = skips.pop().unwrap_or(first);
                t.resnet(&format!("{block}.resnets.{j}"), n, c + skip, Some(time));
                c = n;
                if i > 0 {
                    self.transformer(&mut t, &format!("{block}.attentions.{j}"), n);
                }
            }
            if i + 1 < levels.len() {
                t.conv(&format!("{block}.upsamplers.0.conv"), n, n, 3);
            }
        }
        t.norm("conv_norm_out", first);
        t.conv("conv_out", LATENT, first, 3);
        t.0
    }

    fn transformer(&self, t: &mut Tensors, name: &str, c: usize) {
        let project = |t: &mut Tensors, name: String| {
            if self.linear_projection { t.linear(&name, c, c) } else { t.conv(&name, c, c, 1) }
        };
        t.norm(&format!("{name}.norm"), c);
        project(t, format!("{name}.proj_in"));
        let block = format!("{name}.transformer_blocks.0");
        for (norm, attention, context) in [("norm1", "attn1", c), ("norm2", "attn2", self.text_channels)] {
            t.norm(&format!("{block}.{norm}"), c);
            t.add(&format!("{block}.{attention}.to_q.weight"), &[c, c]);
            t.add(&format!("{block}.{attention}.to_k.weight"), &[c, context]);
            t.add(&format!("{block}.{attention}.to_v.weight"), &[c, context]);
            t.linear(&format!("{block}.{attention}.to_out.0"), c, c);
        }
        t.norm(&format!("{block}.norm3"), c);
        t.linear(&format!("{block}.ff.net.0.proj"), 8 * c, c);
        t.linear(&format!("{block}.ff.net.2"), c, 4 * c);
        project(t, format!("{name}.proj_out"));
    }

    /// The VAE's tensors, encoder and decoder.
    pub fn vae(&self) -> Catalogue {
        let levels = &self.vae_channels;
        let (first, last) = (levels[0], levels[levels.len() - 1]);
        let mut t = Tensors::default();
        t.conv("encoder.conv_in", first, 3, 3);
        let mut c = first;
        for (level, &n) in levels.iter().enumerate() {
            for i in 0..self.vae_layers {
                t.resnet(&format!("encoder.down_blocks.{level}.resnets.{i}"), n, c, None);
                c = n;
            }
            if level + 1 < levels.len() {
                t.conv(&format!("encoder.down_blocks.{level}.downsamplers.0.conv"), n, n, 3);
            }
        }
        t.vae_middle("encoder.mid_block", last);
        t.norm("encoder.conv_norm_out", last);
        t.conv("encoder.conv_out", 2 * LATENT, last, 3);
        t.conv("quant_conv", 2 * LATENT, 2 * LATENT, 1);
        t.conv("post_quant_conv", LATENT, LATENT, 1);
        t.conv("decoder.conv_in", last, LATENT, 3);
        t.vae_middle("decoder.mid_block", last);
        for (i, &n) in levels.iter().rev().enumerate() {
            for j in 0..=self.vae_layers {
                t.resnet(&format!("decoder.up_blocks.{i}.resnets.{j}"), n, c, None);
                c = n;
            }
            if i + 1 < levels.len() {
                t.conv(&format!("decoder.up_blocks.{i}.upsamplers.0.conv"), n, n, 3);
            }
        }
        t.norm("decoder.conv_norm_out", first);
        t.conv("decoder.conv_out", 3, first, 3);
        t.0
    }
}

/// Tensors being listed.
#[derive(Default)]
struct Tensors(Catalogue);

impl Tensors {
    fn add(&mut self, key: &str, shape: &[usize]) {
        self.0.insert(key.to_owned(), Shape::new(shape));
    }

    fn linear(&mut self, name: &str, n: usize, k: usize) {
        self.add(&format!("{name}.weight"), &[n, k]);
        self.add(&format!("{name}.bias"), &[n]);
    }

    fn conv(&mut self, name: &str, n: usize, c: usize, window: usize) {
        self.add(&format!("{name}.weight"), &[n, c, window, window]);
        self.add(&format!("{name}.bias"), &[n]);
    }

    fn norm(&mut self, name: &str, c: usize) {
        self.add(&format!("{name}.weight"), &[c]);
        self.add(&format!("{name}.bias"), &[c]);
    }

    fn resnet(&mut self, name: &str, n: usize, c: usize, time: Option<usize>) {
        self.norm(&format!("{name}.norm1"), c);
        self.conv(&format!("{name}.conv1"), n, c, 3);
        if let Some(time) = time {
            self.linear(&format!("{name}.time_emb_proj"), n, time);
        }
        self.norm(&format!("{name}.norm2"), n);
        self.conv(&format!("{name}.conv2"), n, n, 3);
        if n != c {
            self.conv(&format!("{name}.conv_shortcut"), n, c, 1);
        }
    }

    fn vae_middle(&mut self, name: &str, c: usize) {
        self.resnet(&format!("{name}.resnets.0"), c, c, None);
        self.norm(&format!("{name}.attentions.0.group_norm"), c);
        for projection in ["to_q", "to_k", "to_v", "to_out.0"] {
            self.linear(&format!("{name}.attentions.0.{projection}"), c, c);
        }
        self.resnet(&format!("{name}.resnets.1"), c, c, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{text_encoder, unet, vae_decoder, vae_encoder};
    use ratel_graph::{Finished, Graph, PlanOptions};
    use ratel_kernels::{Role, Target, WeightStorage};

    fn parameters(catalogue: &Catalogue) -> usize {
        catalogue.values().map(Shape::count).sum()
    }

    /// Parameter counts as published with the models.
    #[test]
    fn counts_are_the_published_ones() {
        let sd15 = Architecture::sd15();
        assert_eq!(parameters(&sd15.unet()), 859_520_964);
        assert_eq!(parameters(&sd15.text_encoder()), 123_060_480);
        assert_eq!(parameters(&sd15.vae()), 83_653_863);
        assert_eq!(parameters(&Architecture::sd21().unet()), 865_910_724);
    }

    fn unet_graph(a: &Architecture, batch: usize, h: usize, w: usize) -> Finished {
        let graph = Graph::new("unet", a.unet());
        let sample = graph.input("sample", [batch, h, w, LATENT], Role::Activation);
        let timestep = graph.input("timestep", [batch], Role::Vector);
        let context = graph.input("context", [batch, TOKENS, a.text_channels], Role::Activation);
        unet(sample, timestep, context, &a.unet, &graph.root()).output("noise");
        graph.finish(|_| false).expect("the architecture's own tensors")
    }

    fn gflop(graph: Finished) -> f64 {
        let plan = graph.plan(&Target::twins(WeightStorage::F32), &PlanOptions::default()).expect("a plan");
        plan.flops() / 1e9
    }

    /// Work as counted by torch's FlopCounterMode over diffusers (convolutions, products, attention).
    #[test]
    fn work_is_the_counted_one() {
        let a = Architecture::sd15();
        let close = |got: f64, counted: f64| assert!((got / counted - 1.0).abs() < 0.01, "{got} GFLOP, not {counted}");
        close(gflop(unet_graph(&a, 1, 64, 64)), 803.0);
        close(gflop(unet_graph(&a, 1, 32, 32)), 180.0);

        let graph = Graph::new("vae", a.vae());
        let latents = graph.input("latents", [1, 32, 32, LATENT], Role::Activation);
        vae_decoder(latents, &a.vae, &graph.root()).output("picture");
        close(
            gflop(graph.finish(|key| key.starts_with("encoder.") || key.starts_with("quant_conv.")).expect("decoder")),
            622.0,
        );

        let graph = Graph::new("text_encoder", a.text_encoder());
        let ids = graph.input("ids", [1, TOKENS], Role::Ids { bound: 49408 });
        text_encoder(ids, &a.text, &graph.root()).output("context");
        // by hand: 12 layers x 77 tokens x 2 (4 x 768^2 + 2 x 768 x 3072), and attention's 0.22
        close(gflop(graph.finish(|_| false).expect("text encoder")), 13.3);
    }

    /// With every rule, nothing that can be fused is left by itself; with none, everything is.
    #[test]
    fn fusion_leaves_nothing_behind() {
        let count = |options: &PlanOptions, name: &str| {
            let target = Target::twins(WeightStorage::F32);
            let plan = unet_graph(&Architecture::sd15(), 2, 32, 32).plan(&target, options).expect("a plan");
            plan.steps.iter().filter(|step| step.op.name() == name).count()
        };
        let unfused = PlanOptions { rules: vec![], observe: vec![] };
        for name in ["add", "activation", "upsample", "concat"] {
            assert_eq!(count(&PlanOptions::default(), name), 0, "{name}");
            assert!(count(&unfused, name) > 0, "{name}");
        }
    }

    #[test]
    fn odd_sizes_come_back_as_they_went_in() {
        for (h, w) in [(9, 17), (1, 1), (8, 31)] {
            let plan = unet_graph(&Architecture::toy(), 3, h, w)
                .plan(&Target::twins(WeightStorage::F32), &PlanOptions::default())
                .expect("a plan");
            assert_eq!(*plan.outputs[0].shape, [3, h, w, LATENT]);
        }
    }

    #[test]
    fn the_encoder_uses_what_the_decoder_leaves() {
        let a = Architecture::toy();
        let graph = Graph::new("vae", a.vae());
        let picture = graph.input("picture", [1, 72, 136, 3], Role::Activation);
        let moments = vae_encoder(picture, &a.vae, &graph.root());
        assert_eq!(*moments.shape(), [1, 9, 17, 8]);
        graph.finish(|key| key.starts_with("decoder.") || key.starts_with("post_quant_conv.")).expect("the encoder");
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        let a = Architecture::toy();
        let build = |catalogue: Catalogue| {
            let graph = Graph::new("unet", catalogue);
            let sample = graph.input("sample", [1, 8, 8, LATENT], Role::Activation);
            let timestep = graph.input("timestep", [1], Role::Vector);
            let context = graph.input("context", [1, TOKENS, a.text_channels], Role::Activation);
            unet(sample, timestep, context, &a.unet, &graph.root()).output("noise");
            graph.finish(|_| false).map(|_| ()).expect_err("a broken checkpoint").to_string()
        };
        let mut missing = a.unet();
        missing.remove("mid_block.resnets.0.conv1.weight");
        assert_eq!(build(missing), "unet.mid_block.resnets.0.conv1.weight is missing from the checkpoint");
        let mut biasless = a.unet();
        biasless.remove("mid_block.attentions.0.proj_in.bias");
        assert_eq!(build(biasless), "unet.mid_block.attentions.0.proj_in.bias is missing from the checkpoint");
        let mut extra = a.unet();
        extra.insert("surprise.weight".to_owned(), Shape::from([1]));
        assert!(build(extra).starts_with("no layer uses unet.surprise.weight"));
        let mut misfit = a.unet();
        misfit.insert("conv_in.weight".to_owned(), Shape::from([32, 9, 3, 3]));
        assert_eq!(build(misfit), "unet.conv_in.weight is 32x9x3x3, which does not fit an input of 4 channels");
    }

    /// A plan's slots never hold two tensors at once: no step writes where a later step still reads older values.
    #[test]
    fn slots_are_not_overwritten_while_read() {
        let plan = unet_graph(&Architecture::toy(), 2, 8, 8)
            .plan(&Target::twins(WeightStorage::F32), &PlanOptions::default())
            .expect("a plan");
        for step in &plan.steps {
            let (output, inputs) = step.operands.split_last().expect("an output");
            assert!(inputs.iter().all(|input| input.memory != output.memory), "{} reads what it writes", step.label);
        }
        let live: u64 = plan.slots.iter().sum();
        let all: u64 = plan.steps.iter().map(|s| s.operands.last().map_or(0, |p| p.bytes)).sum();
        assert!(live * 10 < all, "slots share little: {live} of {all} bytes");
    }
}
