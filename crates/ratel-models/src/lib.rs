//! CLIP text encoder, UNet and VAE as functions that build a graph.
