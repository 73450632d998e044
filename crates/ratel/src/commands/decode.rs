use super::encode::{compression, distance, finite, write};
use super::setup::{self, Parts};
use crate::args::DecodeArgs;
use crate::output::{check_writable, numbered};
use crate::picture::{Fit, Wanted, difference, psnr};
use crate::progress::Progress;
use crate::{Failure, tensors};
use ratel_diffusion::autoencoder::Picture;
use ratel_diffusion::model::{Model, Space};
use ratel_diffusion::pipeline::latent_size;
use ratel_tensor::HostTensor;
use serde_json::json;
use std::path::PathBuf;

/// Turns latents into pictures.
pub(crate) fn run(args: DecodeArgs) -> Result<(), Failure> {
    for path in [Some(&args.output), args.difference.as_ref()].into_iter().flatten() {
        check_writable(path)?;
    }
    let model = setup::model(&args.model)?;
    let latents = read(&args, &model)?;
    let [count, c, h, w] = match *latents.shape {
        [n, c, h, w] => [n, c, h, w],
        _ => [1; 4],
    };
    let scale = model.latent_scale();
    let size = Wanted { width: Some(w * scale), height: Some(h * scale), fit: Fit::Crop };
    let other = args.compare.as_deref().map(|path| setup::picture(path, size, &model)).transpose()?;
    let parts = Parts::open(model, &args.run)?;
    let mut progress = Progress::default();
    let decoded = parts.stage().decode(&[&latents.channels_last()], &mut progress);
    progress.finish();

    let from = args.latents.display().to_string();
    let mut said = Vec::new();
    for (i, rgb) in decoded?.into_iter().flatten().enumerate() {
        let picture = Picture { width: w * scale, height: h * scale, rgb };
        let path = numbered(&args.output, i, count);
        let about = |shown: &str| {
            setup::plain_parameters(&parts.model, vec![("Latents", from.clone()), ("Shown", shown.to_owned())])
        };
        write(&path, &picture, &picture.rgb, &about("decoded latents"))?;
        let db = other.as_ref().map(|other| psnr(&other.rgb, &picture.rgb));
        if let (Some(path), Some(other)) = (&args.difference, &other) {
            let (apart, factor) = difference(&other.rgb, &picture.rgb);
            let shown = about(&format!("difference x {factor}"));
            write(&numbered(path, i, count), &picture, &apart, &shown)?;
        }
        if args.json {
            said.push(json!({ "path": path, "psnr_db": db.and_then(finite) }));
            continue;
        }
        if i == 0 && parts.model.space() == Space::Latent {
            println!("{from}: {}", compression(&picture, [c, h, w]).replace("become", "come from"));
        }
        let apart = db.map_or(String::new(), |db| format!(": {}", distance(db)));
        println!("{}{apart}", path.display());
    }
    if args.json {
        println!("{}", json!({ "pictures": said, "latents_shape": [count, c, h, w], "device": parts.engine.name() }));
    }
    Ok(())
}

/// The latents of a file, `(N, C, h, w)`, fit for the model.
fn read(args: &DecodeArgs, model: &Model) -> Result<HostTensor, Failure> {
    let path = &args.latents;
    let wrong = |what: String| Failure::Read { path: PathBuf::from(path), source: std::io::Error::other(what) };
    let all = tensors::load(path)?;
    let names = || all.iter().map(|(name, _)| name.as_str()).take(8).collect::<Vec<_>>().join(", ");
    let named = |wanted: &str| all.iter().find(|(name, _)| name == wanted);
    let found = match (&args.key, &all[..]) {
        (Some(key), _) => named(key).ok_or_else(|| wrong(format!("there is no {key} in it; there are {}", names())))?,
        (None, [only]) => only,
        (None, _) => {
            named("latents").ok_or_else(|| wrong(format!("which tensor of it? --key takes one of {}", names())))?
        }
    };
    let (name, mut tensor) = found.clone();
    if let [c, h, w] = *tensor.shape {
        tensor.shape = [1, c, h, w].into();
    }
    let channels = model.latent_channels();
    let [n, c, h, w] = match *tensor.shape {
        [n, c, h, w] if c == channels && n > 0 => [n, c, h, w],
        _ => {
            let needed = format!("latents of {} are (N, {channels}, h, w)", model.name);
            return Err(wrong(format!("{name} is {}, and {needed}", tensor.shape)));
        }
    };
    if n * c * h * w == 0 || n > 64 {
        return Err(wrong(format!("{name} holds {n} latents; 1 to 64 can be decoded at a time")));
    }
    if tensor.data.iter().any(|value| !value.is_finite()) {
        return Err(wrong(format!("{name} holds values that are no numbers")));
    }
    let scale = model.latent_scale();
    latent_size(model, w.saturating_mul(scale), h.saturating_mul(scale)).map_err(|error| wrong(error.to_string()))?;
    Ok(tensor)
}
