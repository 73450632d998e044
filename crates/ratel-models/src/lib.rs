//! CLIP text encoder, UNet and VAE, each a function that builds a graph.
//!
//! The checkpoint is the config wherever it can be: how many blocks there are, how many channels they have and which of
//! them attend follows from the keys and shapes. What weights can't tell (heads, groups, epsilons) is in a config.
//!
//! Feature maps are `(N, H, W, C)`, token sequences `(N, T, C)`; modules have diffusers' names.

mod architecture;
mod resnet;
mod text;
mod transformer;
mod unet;
mod vae;

pub use architecture::{Architecture, Catalogue};
pub use text::{TextConfig, text_encoder};
pub use unet::{Timesteps, UnetConfig, unet};
pub use vae::{VaeConfig, vae_decoder, vae_encoder};
