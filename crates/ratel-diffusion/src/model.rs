//! A model ready to draw: what its parts look like, how its prompts are cut into tokens, and where its weights are.

use crate::random_weights::RandomWeights;
use crate::sampling::{Run, SamplerChoice, SamplerConfig, SchedulerFile, plan, start_for_strength};
use crate::{DiffusionError, text};
use ratel_engine::WeightSource;
use ratel_graph::{Finished, Graph};
use ratel_kernels::Role;
use ratel_models::{
    Architecture, Catalogue, TextConfig, Timesteps, UnetConfig, VaeConfig, text_encoder, unet, vae_decoder, vae_encoder,
};
use ratel_tensor::{Elem, Shape};
use ratel_weights::Defaults;
use std::path::PathBuf;

/// What noise is added to, and taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// The pixels of a picture, red, green and blue in -1 to 1.
    Image,
    /// What a VAE makes of a picture.
    Latent,
}

impl Space {
    /// `image` or `latent`.
    pub const fn name(self) -> &'static str {
        match self {
            Space::Image => "image",
            Space::Latent => "latent",
        }
    }
}

/// Text encoder, UNet and VAE of one checkpoint, or the first two alone: then what the UNet works on are pictures.
pub struct Model {
    /// What to call it: the file's or folder's name.
    pub name: String,
    /// Cuts prompts into tokens.
    pub tokenizer: text::ClipTokenizer,
    /// The text encoder's tensors and the rest of its description.
    pub text: (Catalogue, TextConfig),
    /// The UNet's.
    pub unet: (Catalogue, UnetConfig),
    /// The VAE's; `None` in image space.
    pub vae: Option<(Catalogue, VaeConfig)>,
    /// What latents are multiplied by after encoding (`scaling_factor`) ...
    pub scaling_factor: f32,
    /// ... and what is subtracted before that (`shift_factor`).
    pub shift_factor: f32,
    /// What the checkpoint says about its sampler.
    pub scheduler: SchedulerFile,
    /// The file that says it; empty where none does.
    pub scheduler_path: PathBuf,
    /// What to draw with unless something else is asked for.
    pub defaults: Defaults,
    /// Latents, in image space pixels, of a side of the pictures that it was trained on.
    pub native_latents: usize,
    /// What had to be guessed about the checkpoint, in a sentence, if anything.
    pub guess: Option<String>,
    /// The widest type that the matrices have in the file.
    pub elem: Elem,
    /// Where the weights are.
    pub weights: Box<dyn WeightSource + Send + Sync>,
}

impl Model {
    /// A known architecture with random weights: for plans and measurements without a checkpoint.
    ///
    /// # Errors
    /// None that can be caused from outside.
    pub fn of_architecture(architecture: &Architecture, seed: u64) -> Result<Self, DiffusionError> {
        Ok(Model {
            name: "random weights".to_owned(),
            tokenizer: text::ClipTokenizer::embedded(text::PadToken::EndOfText)?,
            text: (architecture.text_encoder(), architecture.text),
            unet: (architecture.unet(), architecture.unet.clone()),
            vae: Some((architecture.vae(), architecture.vae)),
            scaling_factor: 0.18215,
            shift_factor: 0.0,
            scheduler: SchedulerFile::stable_diffusion(),
            scheduler_path: PathBuf::new(),
            defaults: Defaults::default(),
            native_latents: 64,
            guess: None,
            elem: Elem::F16,
            weights: Box::new(RandomWeights { seed }),
        })
    }

    /// The settings and the program of a run of so many steps: the choice's where it says something, else the checkpoint's.
    ///
    /// # Errors
    /// [`DiffusionError::Scheduler`] if the checkpoint's settings are at fault, [`DiffusionError::Sampler`] if the choice is.
    pub fn sampler(&self, choice: &SamplerChoice, steps: usize) -> Result<(SamplerConfig, Run), DiffusionError> {
        self.sampler_for_strength(choice, steps, 1.0)
    }

    /// The same for a run that starts from a picture: only the last `steps * strength` of the steps are run, rounded down.
    ///
    /// # Errors
    /// As for [`Model::sampler`]; a strength that leaves no step.
    pub fn sampler_for_strength(
        &self,
        choice: &SamplerChoice,
        steps: usize,
        strength: f64,
    ) -> Result<(SamplerConfig, Run), DiffusionError> {
        let with = |file: &SchedulerFile| {
            let config = SamplerConfig::resolve(file, choice)?;
            let run = plan(&config, steps, start_for_strength(steps, strength))?;
            Ok((config, run))
        };
        with(&self.scheduler).map_err(|source| match with(&SchedulerFile::stable_diffusion()) {
            Ok(_) => DiffusionError::Scheduler { path: self.scheduler_path.clone(), source: Box::new(source) },
            // what does not go with Stable Diffusion's own settings either is not this checkpoint's fault
            Err(_) => source.into(),
        })
    }

    /// Channels of a prompt's embedding.
    pub fn context_channels(&self) -> usize {
        self.text.0.get("final_layer_norm.weight").map_or(1, Shape::last)
    }

    /// The same UNet for pictures in place of latents: as many channels on every level, but three going in and out. Nobody
    /// has trained it, so its weights are random; it is for planning and measuring what image space costs.
    pub fn on_pixels(mut self) -> Self {
        let axes = [("conv_in.weight", 1), ("conv_out.weight", 0), ("conv_out.bias", 0)];
        for (key, axis) in axes {
            if let Some(shape) = self.unet.0.get_mut(key) {
                let mut extents = shape.to_vec();
                extents[axis] = 3;
                *shape = Shape::new(&extents);
            }
        }
        let native_latents = self.native_latents * self.latent_scale();
        let (name, weights) = (format!("{} on pixels", self.name), Box::new(RandomWeights { seed: 0 }));
        Model { name, vae: None, scaling_factor: 1.0, shift_factor: 0.0, native_latents, weights, ..self }
    }

    /// What it adds noise to, and takes it from.
    pub fn space(&self) -> Space {
        if self.vae.is_some() { Space::Latent } else { Space::Image }
    }

    /// Its VAE's tensors and the rest of its description.
    fn autoencoder(&self) -> Result<&(Catalogue, VaeConfig), DiffusionError> {
        self.vae.as_ref().ok_or_else(|| DiffusionError::NoVae { model: self.name.clone() })
    }

    /// Pixels of a picture to one latent, in each direction: the VAE's decoder doubles so often. 8 for Stable Diffusion, 1
    /// in image space.
    pub fn latent_scale(&self) -> usize {
        let Some((catalogue, _)) = &self.vae else { return 1 };
        let doubles = |i: &u32| catalogue.contains_key(&format!("decoder.up_blocks.{i}.upsamplers.0.conv.weight"));
        1 << (0..16).take_while(doubles).count()
    }

    /// Channels of latents, in image space of pictures.
    pub fn latent_channels(&self) -> usize {
        self.unet.0.get("conv_out.weight").and_then(|shape| shape.first().copied()).unwrap_or(1)
    }

    /// The text encoder over `batch` prompts: input `ids` `(batch, T)`, output `context` `(batch, T, C)`. The last
    /// `clip_skip - 1` layers are left out.
    ///
    /// # Errors
    /// A checkpoint that lacks tensors, has others, or has misfits.
    pub fn text_graph(&self, batch: usize, clip_skip: usize) -> Result<Finished, DiffusionError> {
        let (catalogue, config) = &self.text;
        let layers =
            (0..).take_while(|i| catalogue.contains_key(&format!("encoder.layers.{i}.layer_norm1.weight"))).count();
        let used = config.layers.min(layers).saturating_sub(clip_skip.saturating_sub(1));
        if used == 0 {
            return Err(DiffusionError::ClipSkip { clip_skip, layers });
        }
        let bound = catalogue.get("embeddings.token_embedding.weight").map_or(0, |shape| shape[0]);
        let graph = Graph::new("text_encoder", catalogue.clone());
        let ids = graph.input("ids", [batch, self.tokenizer.max_length()], Role::Ids { bound: bound as u32 });
        text_encoder(ids, &TextConfig { layers: used, ..*config }, &graph.root()).output("context");
        let skipped = |key: &str| {
            let layer =
                key.strip_prefix("encoder.layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
            layer.is_some_and(|layer| layer >= used)
        };
        Ok(graph.finish(skipped)?)
    }

    /// The UNet over a batch of latents (in image space, pictures) of `h` by `w`: inputs `sample` `(batch, h, w, C)`, `timestep`
    /// `(batch)` and, given once for many runs, `context` `(batch, T, C')`; output `noise`, like the sample.
    ///
    /// # Errors
    /// A checkpoint that lacks tensors, has others, or has misfits.
    pub fn unet_graph(&self, batch: usize, h: usize, w: usize) -> Result<Finished, DiffusionError> {
        self.build_unet([batch, h, w], |graph| graph.input("timestep", [batch], Role::Vector).into())
    }

    /// The same for so many calls one after the other. Their timesteps are given together and once, as `timestep` `(calls)`,
    /// so that all of them can be embedded before the first call; at each call `row` `(batch)` says which is each image's.
    ///
    /// # Errors
    /// As for [`Model::unet_graph`].
    pub fn unet_graph_of_calls(
        &self,
        calls: usize,
        batch: usize,
        h: usize,
        w: usize,
    ) -> Result<Finished, DiffusionError> {
        self.build_unet([batch, h, w], |graph| Timesteps {
            values: graph.constant("timestep", [calls], Role::Vector),
            row: Some(graph.input("row", [batch], Role::Ids { bound: calls as u32 })),
        })
    }

    fn build_unet(
        &self,
        [batch, h, w]: [usize; 3],
        timesteps: impl Fn(&Graph) -> Timesteps,
    ) -> Result<Finished, DiffusionError> {
        let (catalogue, config) = &self.unet;
        let graph = Graph::new("unet", catalogue.clone());
        let sample = graph.input("sample", [batch, h, w, self.latent_channels()], Role::Activation);
        let tokens = self.tokenizer.max_length();
        let context = graph.constant("context", [batch, tokens, self.context_channels()], Role::Activation);
        unet(sample, timesteps(&graph), context, config, &graph.root()).output("noise");
        Ok(graph.finish(|_| false)?)
    }

    /// The VAE's decoder over `batch` latents of `h` by `w`, already scaled: input `latents` `(batch, h, w, C)`; output
    /// `picture` `(batch, H, W, 3)`, in bytes.
    ///
    /// # Errors
    /// A model of image space; a checkpoint that lacks tensors, has others, or has misfits.
    pub fn vae_graph(&self, batch: usize, h: usize, w: usize) -> Result<Finished, DiffusionError> {
        let (catalogue, config) = self.autoencoder()?;
        let graph = Graph::new("vae", catalogue.clone());
        let latents = graph.input("latents", [batch, h, w, self.latent_channels()], Role::Activation);
        vae_decoder(latents, config, &graph.root()).rgb8().output("picture");
        Ok(graph.finish(|key| key.starts_with("encoder.") || key.starts_with("quant_conv."))?)
    }

    /// The VAE's encoder over one picture of `height` by `width` pixels: input `picture` `(1, height, width, 3)` in -1 to
    /// 1; output `moments` `(1, h, w, 2 C)`, the means and then the logarithms of the variances.
    ///
    /// # Errors
    /// A model of image space; a checkpoint without an encoder; one that lacks tensors, has others, or has misfits.
    pub fn vae_encoder_graph(&self, height: usize, width: usize) -> Result<Finished, DiffusionError> {
        let (catalogue, config) = self.autoencoder()?;
        if !self.has_encoder() {
            return Err(DiffusionError::NoEncoder { model: self.name.clone() });
        }
        let graph = Graph::new("vae", catalogue.clone());
        let picture = graph.input("picture", [1, height, width, 3], Role::Activation);
        vae_encoder(picture, config, &graph.root()).output("moments");
        Ok(graph.finish(|key| key.starts_with("decoder.") || key.starts_with("post_quant_conv."))?)
    }

    /// Whether the VAE can turn pictures into latents. Some files hold its decoder alone.
    pub fn has_encoder(&self) -> bool {
        self.vae.iter().any(|(catalogue, _)| catalogue.keys().any(|key| key.starts_with("encoder.")))
    }

    /// Builds every component's graph once, so that what does not fit is found before anything is computed. The VAE's
    /// encoder is among them, if there is one.
    ///
    /// # Errors
    /// The first tensor that is missing, left over, or of a shape that does not fit.
    pub fn check(&self) -> Result<(), DiffusionError> {
        self.text_graph(1, 1)?;
        self.unet_graph(1, 8, 8)?;
        if self.vae.is_some() {
            self.vae_graph(1, 8, 8)?;
        }
        if self.has_encoder() {
            let side = 8 * self.latent_scale();
            self.vae_encoder_graph(side, side)?;
        }
        Ok(())
    }
}
