use super::setup::{self, Parts};
use crate::args::EncodeArgs;
use crate::output::{check_writable, write_png};
use crate::picture::{difference, psnr};
use crate::progress::Progress;
use crate::{Failure, tensors};
use ratel_diffusion::DiffusionError;
use ratel_diffusion::autoencoder::Picture;
use ratel_diffusion::model::{Model, Space};
use ratel_tensor::HostTensor;
use serde_json::json;
use std::path::Path;

/// Turns a picture into latents, and back, to say what that cost.
pub(crate) fn run(args: EncodeArgs) -> Result<(), Failure> {
    for path in [Some(&args.output), args.round_trip.as_ref(), args.difference.as_ref()].into_iter().flatten() {
        check_writable(path)?;
    }
    let model = setup::model(&args.model)?;
    if model.space() == Space::Image {
        return Err(DiffusionError::NoVae { model: model.name }.into());
    }
    let picture = setup::picture(&args.image, args.fit.wanted(), &model)?;
    let parts = Parts::open(model, &args.run)?;
    let [c, h, w] = latents_of(&parts.model, &picture);
    let deviation =
        if args.sample { setup::noise(args.rng, args.seed, [h, w, c]) } else { HostTensor::zeros([1, h, w, c]) };

    let mut progress = Progress::default();
    let made = parts.stage().encode(&picture, &deviation, &mut progress).and_then(|encoded| {
        let back = parts.stage().decode(&[&encoded.latents], &mut progress)?;
        Ok((encoded, back))
    });
    progress.finish();
    let (encoded, back) = made?;
    let back = back.into_iter().flatten().next().unwrap_or_default();

    let latents = encoded.latents.channels_first();
    tensors::save(&args.output, &[("latents", &latents)])?;
    let about = |what: &str| {
        setup::plain_parameters(
            &parts.model,
            vec![("Picture", args.image.display().to_string()), ("Shown", what.into())],
        )
    };
    if let Some(path) = &args.round_trip {
        write(path, &picture, &back, &about("decoded latents"))?;
    }
    let db = psnr(&picture.rgb, &back);
    let (apart, factor) = difference(&picture.rgb, &back);
    if let Some(path) = &args.difference {
        write(path, &picture, &apart, &about(&format!("difference x {factor}")))?;
    }

    let (before, after) = (picture.rgb.len(), latents.data.len());
    let times = before as f64 / after as f64;
    if args.json {
        let said = json!({
            "latents": args.output, "picture_shape": [3, picture.height, picture.width], "latents_shape": [c, h, w],
            "picture_values": before, "latents_values": after, "times_fewer": times,
            "psnr_db": finite(db), "difference_factor": factor, "device": parts.engine.name(),
        });
        println!("{said}");
        return Ok(());
    }
    println!("{}: {}", args.image.display(), compression(&picture, [c, h, w]));
    println!("round trip: {}", distance(db));
    println!("{}", args.output.display());
    for (path, what) in [(&args.round_trip, String::new()), (&args.difference, format!(" (times {factor})"))] {
        if let Some(path) = path {
            println!("{}{what}", path.display());
        }
    }
    Ok(())
}

/// Channels, height and width of a picture's latents.
pub(super) fn latents_of(model: &Model, picture: &Picture) -> [usize; 3] {
    let scale = model.latent_scale();
    [model.latent_channels(), picture.height / scale, picture.width / scale]
}

/// What latents save, in words.
pub(super) fn compression(picture: &Picture, [c, h, w]: [usize; 3]) -> String {
    let (before, after) = (picture.rgb.len(), c * h * w);
    let times = format!("{:.1}", before as f64 / after as f64);
    format!(
        "3x{}x{} = {before} numbers become {c}x{h}x{w} = {after}, {} times fewer",
        picture.height,
        picture.width,
        times.trim_end_matches(".0")
    )
}

/// A distance in words.
pub(super) fn distance(db: f64) -> String {
    if db.is_finite() { format!("PSNR {db:.2} dB") } else { "no difference".to_owned() }
}

/// JSON has no infinity.
pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Writes pixels of a picture's size.
pub(super) fn write(path: &Path, size: &Picture, rgb: &[u8], parameters: &str) -> Result<(), Failure> {
    write_png(path, size.width as u32, size.height as u32, rgb, parameters)
}
