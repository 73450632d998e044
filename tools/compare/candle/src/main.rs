//! Times candle's Stable Diffusion 1.5 on the processor, in f32: a guided step of the UNet (a batch of two) and a decode
//! of the VAE. Prints `{"unet": [seconds, ...], "vae": [...]}`, without the first run of each, which warms up.
//!
//!     time-candle CHECKPOINT_FOLDER PIXELS RUNS

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::stable_diffusion::StableDiffusionConfig;
use std::path::Path;
use std::time::Instant;

const FILE: &str = "diffusion_pytorch_model.safetensors";
const TEXT_TOKENS: usize = 77;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, pixels, runs] = &arguments[..] else { anyhow::bail!("time-candle CHECKPOINT_FOLDER PIXELS RUNS") };
    let folder = Path::new(folder);
    let pixels: usize = pixels.parse().context("PIXELS")?;
    let runs: usize = runs.parse().context("RUNS")?;

    let config = StableDiffusionConfig::v1_5(None, Some(pixels), Some(pixels));
    let device = Device::Cpu;
    let side = pixels / 8;
    let unet = {
        let unet = config.build_unet(folder.join("unet").join(FILE), &device, 4, false, DType::F32)?;
        let latents = Tensor::randn(0f32, 1.0, (2, 4, side, side), &device)?;
        let context = Tensor::randn(0f32, 1.0, (2, TEXT_TOKENS, 768), &device)?;
        time(runs, || Ok(unet.forward(&latents, 500.0, &context)?))?
    };
    let vae = config.build_vae(folder.join("vae").join(FILE), &device, DType::F32)?;
    let latents = Tensor::randn(0f32, 1.0, (1, 4, side, side), &device)?;
    let vae = time(runs, || Ok(vae.decode(&latents)?))?;
    println!("{}", serde_json::json!({ "unet": unet, "vae": vae }));
    Ok(())
}

/// Seconds of each run but the first. A result that is not finite is an error: arithmetic on it may be faster.
fn time(runs: usize, run: impl Fn() -> Result<Tensor>) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..=runs {
        let begun = Instant::now();
        let result = run()?;
        times.push(begun.elapsed().as_secs_f64());
        let sum = result.abs()?.sum_all()?.to_scalar::<f32>()?;
        anyhow::ensure!(sum.is_finite(), "the result is not finite");
    }
    Ok(times.split_off(1))
}
