use super::encode::{latents_of, write};
use super::setup::{self, Parts, Prepared};
use crate::args::{InterpolateArgs, Path as Way};
use crate::output::{Place, write_png};
use crate::picture::Wanted;
use crate::progress::Progress;
use crate::sheet::{Row, channels, sheet};
use crate::{Failure, tensors};
use ratel_diffusion::DiffusionError;
use ratel_diffusion::autoencoder::Picture;
use ratel_diffusion::latents::slerp;
use ratel_diffusion::model::Space;
use ratel_diffusion::pipeline::{Request, Variation, denoise_variations};
use ratel_tensor::HostTensor;
use serde_json::json;
use std::path::Path;

/// What the strip is called in a folder.
const NAME: &str = "interpolate";

/// The pictures between two, in order.
struct Frames {
    /// Where they were drawn.
    space: Space,
    /// How far along each is, 0 to 1.
    shares: Vec<f64>,
    pictures: Vec<Picture>,
    /// `(1, h, w, C)` each.
    latents: Vec<HostTensor>,
    /// What the same mixture of the pixels would be, where there are pixels to mix.
    faded: Vec<Picture>,
    /// What goes into the files about each.
    about: Vec<String>,
    device: String,
}

/// Goes from one picture to another through their latents, or from one seed to another through noise.
pub(crate) fn run(args: InterpolateArgs) -> Result<(), Failure> {
    if !(2..=64).contains(&args.frames) {
        return Err(Failure::Usage("--frames takes 2 to 64 pictures, both ends among them".to_owned()));
    }
    let made = match (args.from.parse::<u64>(), args.to.parse::<u64>()) {
        (Ok(from), Ok(to)) => between_seeds(&args, from, to)?,
        (Err(_), Err(_)) => between_pictures(&args)?,
        _ => {
            let what = format!(
                "{} and {}: give two pictures, or two seeds (a file whose name is a number: ./{})",
                args.from, args.to, args.from
            );
            return Err(Failure::Usage(what));
        }
    };
    let (place, frames) = made;
    let strip = strip(&frames);
    let about = frames.about.first().map_or("", String::as_str);
    write_png(&place.picture, strip.width as u32, strip.height as u32, &strip.rgb, about)?;
    let mut written = vec![place.picture.clone()];
    if let Some(folder) = &place.folder {
        for (i, (picture, about)) in frames.pictures.iter().zip(&frames.about).enumerate() {
            let path = folder.join(format!("frame_{:03}.png", i + 1));
            write(&path, picture, &picture.rgb, about)?;
            written.push(path);
        }
        let named: Vec<_> = (1..).map(|i| format!("frame_{i:03}")).zip(&frames.latents).collect();
        let first: Vec<_> = named.iter().map(|(name, latents)| (name, (*latents).clone().channels_first())).collect();
        let all: Vec<_> = first.iter().map(|(name, latents)| (name.as_str(), latents)).collect();
        tensors::save(&place.beside("safetensors"), &all)?;
        written.push(place.beside("safetensors"));
    }
    if args.json {
        println!("{}", json!({ "shares": frames.shares, "files": written, "device": frames.device }));
    } else {
        println!("{} pictures from {} to {} on {}", frames.pictures.len(), args.from, args.to, frames.device);
        written.iter().for_each(|path| println!("{}", path.display()));
    }
    Ok(())
}

/// 0 to 1 in so many places.
fn shares(frames: usize) -> Vec<f64> {
    (0..frames).map(|i| i as f64 / (frames - 1) as f64).collect()
}

fn between_pictures(args: &InterpolateArgs) -> Result<(Place, Frames), Failure> {
    if args.draw.positional.is_some() || args.draw.prompt.is_some() {
        return Err(Failure::Usage("a prompt is for going from seed to seed; pictures are only decoded".to_owned()));
    }
    let model = setup::model_to_draw_with(&args.draw)?;
    if model.space() == Space::Image {
        return Err(DiffusionError::NoVae { model: model.name }.into());
    }
    let wanted = Wanted { width: args.draw.size.width, height: args.draw.size.height, fit: args.draw.fit };
    let from = setup::picture(Path::new(&args.from), wanted, &model)?;
    let same_size = Wanted { width: Some(from.width), height: Some(from.height), fit: args.draw.fit };
    let to = setup::picture(Path::new(&args.to), same_size, &model)?;
    let place = Place::new(&args.output, NAME)?;
    let parts = Parts::open(model, &args.draw.run)?;
    let shares = shares(args.frames);
    let mut progress = Progress::default();
    let made = mix(&parts, args.path, [&from, &to], &shares, &mut progress);
    progress.finish();
    let (latents, rgb, faded) = made?;
    let sized = |rgb| Picture { rgb, ..from };
    let about = |share: &f64| {
        let ends = format!("{} to {}", args.from, args.to);
        setup::plain_parameters(&parts.model, vec![("Between", ends), ("Share", format!("{share:.4}"))])
    };
    let frames = Frames {
        space: parts.model.space(),
        about: shares.iter().map(about).collect(),
        pictures: rgb.into_iter().map(sized).collect(),
        faded: faded.into_iter().map(sized).collect(),
        shares,
        latents,
        device: parts.engine.name(),
    };
    Ok((place, frames))
}

/// The latents between two pictures', what they decode to, and what mixing the pixels would give.
type Mixed = (Vec<HostTensor>, Vec<Vec<u8>>, Vec<Vec<u8>>);

fn mix(
    parts: &Parts,
    way: Way,
    [from, to]: [&Picture; 2],
    shares: &[f64],
    progress: &mut Progress,
) -> Result<Mixed, ratel_diffusion::DiffusionError> {
    let stage = parts.stage();
    let [c, h, w] = latents_of(&parts.model, from);
    let mode = HostTensor::zeros([1, h, w, c]);
    let a = stage.encode(from, &mode, progress)?.latents;
    let b = stage.encode(to, &mode, progress)?.latents;
    let (pixels_a, pixels_b) = (from.tensor()?, to.tensor()?);
    let (mut latents, mut faded) = (Vec::new(), Vec::new());
    for share in shares {
        let [of_a, of_b] = match way {
            Way::Slerp => slerp(&a.data, &b.data, *share),
            Way::Linear => [1.0 - share, *share],
        };
        latents.push(stage.sum(&[(a.clone(), of_a), (b.clone(), of_b)])?);
        let pixels = stage.sum(&[(pixels_a.clone(), 1.0 - share), (pixels_b.clone(), *share)])?;
        faded.push(stage.to_bytes(&pixels)?);
    }
    let decoded = stage.decode(&latents.iter().collect::<Vec<_>>(), progress)?;
    Ok((latents, decoded.into_iter().flatten().collect(), faded))
}

fn between_seeds(args: &InterpolateArgs, from: u64, to: u64) -> Result<(Place, Frames), Failure> {
    if args.draw.seed.is_some() || args.draw.batch != 1 {
        return Err(Failure::Usage("the two seeds are all that is drawn: leave out --seed and --batch".to_owned()));
    }
    let model = setup::model_to_draw_with(&args.draw)?;
    let (mut request, origin) = setup::request(&args.draw, &model)?;
    request.seed = from;
    let place = Place::new(&args.output, NAME)?;
    let engine = setup::engine(&args.draw.run.device, args.draw.run.shaders.as_deref())?;
    let prepared = Prepared { engine, model, request, stop: setup::stop_on_ctrl_c()? };
    let Prepared { engine, model, request, stop } = &prepared;
    let shares = shares(args.frames);
    let variations: Vec<_> = shares.iter().map(|share| Variation { seed: to, strength: *share }).collect();
    let mut progress = Progress::default();
    let made = denoise_variations(engine, model, request, &variations, stop, &mut progress).and_then(|made| {
        let latents: Vec<_> = made.iter().map(|made| &made.latents).collect();
        let decoded = request.stage(engine, model, stop).decode(&latents, &mut progress)?;
        Ok((made, decoded))
    });
    progress.finish();
    let (made, decoded) = made?;
    setup::say_what_was_cut(made.first().map_or(&[], |made| &made.cut));
    let about = |variation: &Variation| {
        let request = Request { variation: Some(*variation), ..request.clone() };
        setup::parameters(&args.draw, &request, &origin, model, 0)
    };
    let sized = |rgb| Picture { width: request.width, height: request.height, rgb };
    let frames = Frames {
        space: model.space(),
        pictures: decoded.into_iter().flatten().map(sized).collect(),
        shares,
        latents: made.into_iter().map(|made| made.latents).collect(),
        faded: vec![],
        about: variations.iter().map(about).collect(),
        device: engine.name(),
    };
    Ok((place, frames))
}

fn strip(frames: &Frames) -> Picture {
    let row = |words: &[&str], pictures: Vec<Picture>| Row {
        words: words.iter().map(|line| (*line).to_owned()).collect(),
        pictures,
    };
    let seen = |(picture, latents): (&Picture, &HostTensor)| channels(latents, picture.width / latents.shape[2]);
    let mut rows = vec![row(if frames.space == Space::Latent { &["decoded"] } else { &[] }, frames.pictures.clone())];
    if frames.space == Space::Latent {
        rows.push(row(&["latents"], frames.pictures.iter().zip(&frames.latents).map(seen).collect()));
    }
    if !frames.faded.is_empty() {
        rows.push(row(&["pixels", "mixed", "instead"], frames.faded.clone()));
    }
    let headings: Vec<String> = frames.shares.iter().map(|share| format!("{share:.2}")).collect();
    sheet(&headings, &rows)
}
