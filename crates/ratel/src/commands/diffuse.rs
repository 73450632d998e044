use super::encode::{finite, latents_of};
use super::setup::{self, Parts};
use crate::args::{DiffuseArgs, Space};
use crate::output::{Place, write_png, write_whole};
use crate::plot::{Panel, svg};
use crate::progress::Progress;
use crate::sheet::{Row, channels, sheet};
use crate::{Failure, tensors};
use ratel_diffusion::DiffusionError;
use ratel_diffusion::autoencoder::Picture;
use ratel_diffusion::sampling::SamplerChoice;
use ratel_diffusion::schedule::NoiseSchedule;
use ratel_tensor::HostTensor;
use serde_json::json;

/// How much of a picture, and how much noise, there is at a timestep.
struct Level {
    /// `None` is the picture itself.
    timestep: Option<usize>,
    alpha_bar: f64,
}

impl Level {
    fn signal(&self) -> f64 {
        self.alpha_bar.sqrt()
    }

    fn noise(&self) -> f64 {
        (1.0 - self.alpha_bar).sqrt()
    }

    fn sigma(&self) -> f64 {
        self.noise() / self.signal()
    }

    fn snr(&self) -> f64 {
        self.alpha_bar / (1.0 - self.alpha_bar)
    }

    /// How it is called on a strip.
    fn heading(&self) -> String {
        let name = self.timestep.map_or("x0".to_owned(), |t| format!("t {t}"));
        format!("{name}\nsignal {:.3}\nnoise  {:.3}", self.signal(), self.noise())
    }

    fn name(&self) -> String {
        self.timestep.map_or("x0".to_owned(), |t| format!("t{t:04}"))
    }
}

/// What a level's picture looks like.
#[derive(Default)]
struct Shown {
    /// The picture with noise.
    image: Option<Picture>,
    /// The latents with noise, decoded and as they are.
    latent: Option<(Picture, HostTensor)>,
}

/// Adds noise to a picture, at several levels of the model's schedule.
pub(crate) fn run(args: DiffuseArgs) -> Result<(), Failure> {
    if !(2..=64).contains(&args.steps_shown) {
        return Err(Failure::Usage("--steps-shown takes 2 to 64 levels of noise, with that of none".to_owned()));
    }
    let mut model = setup::model(&args.model)?;
    if let Some(schedule) = &args.schedule {
        model.scheduler.beta_schedule = Some(schedule.clone());
    }
    let betas = model.sampler(&SamplerChoice::default(), 1)?.0.betas;
    let schedule = NoiseSchedule::new(&betas).map_err(|error| Failure::Usage(error.to_string()))?;
    if args.space == Some(Space::Latent) && model.vae.is_none() {
        return Err(DiffusionError::NoVae { model: model.name }.into());
    }
    let picture = setup::picture(&args.image, args.fit.wanted(), &model)?;
    let place = Place::new(&args.output, "diffuse")?;
    let parts = Parts::open(model, &args.run)?;
    let seed = args.seed.unwrap_or_else(setup::random_seed);
    let levels = levels(&schedule, args.steps_shown);

    let mut progress = Progress::default();
    let shown = show(&args, &parts, &picture, &levels, seed, &mut progress);
    progress.finish();
    let shown = shown?;

    let about = |level: Option<&Level>| {
        let mut settings = vec![("Picture", args.image.display().to_string()), ("Seed", seed.to_string())];
        settings.extend(level.and_then(|level| level.timestep).map(|t| ("Timestep", t.to_string())));
        setup::plain_parameters(&parts.model, settings)
    };
    let strip = strip(&levels, &shown);
    write_png(&place.picture, strip.width as u32, strip.height as u32, &strip.rgb, &about(None))?;
    let marks = levels.iter().filter_map(|level| Some(level.timestep? as f64)).collect();
    let plot = plot(&schedule, marks);
    write_whole(&place.beside("svg"), |out| out.write_all(plot.as_bytes()))?;
    let table = table(&schedule);
    write_whole(&place.beside("csv"), |out| out.write_all(table.as_bytes()))?;
    let mut written = vec![place.picture.clone(), place.beside("svg"), place.beside("csv")];
    if let Some(folder) = &place.folder {
        let mut kept = Vec::new();
        for (level, shown) in levels.iter().zip(shown) {
            let named = |space: &str| folder.join(format!("{space}_{}.png", level.name()));
            let pictures =
                [("image", shown.image), ("latent", shown.latent.as_ref().map(|(decoded, _)| decoded.clone()))];
            for (space, picture) in pictures {
                if let Some(picture) = picture {
                    super::encode::write(&named(space), &picture, &picture.rgb, &about(Some(level)))?;
                    written.push(named(space));
                }
            }
            kept.extend(shown.latent.map(|(_, latents)| (level.name(), latents.channels_first())));
        }
        if !kept.is_empty() {
            let all: Vec<_> = kept.iter().map(|(name, latents)| (name.as_str(), latents)).collect();
            tensors::save(&place.beside("safetensors"), &all)?;
            written.push(place.beside("safetensors"));
        }
    }

    if args.json {
        let row = |level: &Level| {
            json!({
                "timestep": level.timestep, "alpha_bar": level.alpha_bar, "signal": level.signal(), "noise": level.noise(),
                "sigma": finite(level.sigma()), "snr": finite(level.snr()),
            })
        };
        let rows: Vec<_> = levels.iter().map(row).collect();
        println!("{}", json!({ "seed": seed, "levels": rows, "files": written, "device": parts.engine.name() }));
        return Ok(());
    }
    println!("seed {seed} on {}", parts.engine.name());
    println!("{:>8} {:>10} {:>8} {:>8} {:>10} {:>12}", "timestep", "alpha-bar", "signal", "noise", "sigma", "SNR");
    for level in &levels {
        let timestep = level.timestep.map_or("-".to_owned(), |t| t.to_string());
        let (signal, noise, sigma, snr) = (level.signal(), level.noise(), level.sigma(), level.snr());
        println!("{timestep:>8} {:>10.6} {signal:>8.4} {noise:>8.4} {sigma:>10.4} {snr:>12.5}", level.alpha_bar);
    }
    for path in written {
        println!("{}", path.display());
    }
    Ok(())
}

/// No noise, then `count - 1` levels evenly from the first timestep to the last.
fn levels(schedule: &NoiseSchedule, count: usize) -> Vec<Level> {
    let last = schedule.train_steps() - 1;
    let at =
        |timestep: usize| Level { timestep: Some(timestep), alpha_bar: f64::from(schedule.alphas_cumprod[timestep]) };
    let mut timesteps: Vec<usize> = (1..count).map(|i| (last * i + (count - 1) / 2) / (count - 1)).collect();
    timesteps.dedup();
    [Level { timestep: None, alpha_bar: 1.0 }].into_iter().chain(timesteps.into_iter().map(at)).collect()
}

/// The pictures of every level: `sqrt(alpha-bar) x0 + sqrt(1 - alpha-bar) noise`, with the same noise at every level, as
/// it would be if more and more of it were let in (Ho, Jain & Abbeel 2020, arXiv:2006.11239, equation 4).
fn show(
    args: &DiffuseArgs,
    parts: &Parts,
    picture: &Picture,
    levels: &[Level],
    seed: u64,
    progress: &mut Progress,
) -> Result<Vec<Shown>, DiffusionError> {
    let stage = parts.stage();
    let noised = |x0: &HostTensor, noise: &HostTensor, level: &Level| {
        stage.sum(&[(x0.clone(), level.signal()), (noise.clone(), level.noise())])
    };
    let mut all: Vec<Shown> = levels.iter().map(|_| Shown::default()).collect();
    if args.space != Some(Space::Latent) {
        let x0 = picture.tensor()?;
        let noise = setup::noise(args.rng, seed, [picture.height, picture.width, 3]);
        for (shown, level) in all.iter_mut().zip(levels) {
            let rgb = stage.to_bytes(&noised(&x0, &noise, level)?)?;
            shown.image = Some(Picture { rgb, ..*picture });
        }
    }
    if args.space != Some(Space::Image) && parts.model.vae.is_some() {
        let [c, h, w] = latents_of(&parts.model, picture);
        let x0 = stage.encode(picture, &HostTensor::zeros([1, h, w, c]), progress)?.latents;
        let noise = setup::noise(args.rng, seed, [h, w, c]);
        let latents: Vec<_> = levels.iter().map(|level| noised(&x0, &noise, level)).collect::<Result<_, _>>()?;
        let decoded = stage.decode(&latents.iter().collect::<Vec<_>>(), progress)?;
        for ((shown, latents), rgb) in all.iter_mut().zip(latents).zip(decoded.into_iter().flatten()) {
            shown.latent = Some((Picture { rgb, ..*picture }, latents));
        }
    }
    Ok(all)
}

/// All levels from left to right.
fn strip(levels: &[Level], shown: &[Shown]) -> Picture {
    let words = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    let mut rows = Vec::new();
    let images: Vec<_> = shown.iter().filter_map(|shown| shown.image.clone()).collect();
    if !images.is_empty() {
        rows.push(Row { words: words(&["image", "space"]), pictures: images });
    }
    let latents: Vec<_> = shown.iter().filter_map(|shown| shown.latent.as_ref()).collect();
    if !latents.is_empty() {
        let decoded = latents.iter().map(|(picture, _)| picture.clone()).collect();
        rows.push(Row { words: words(&["latent", "space,", "decoded"]), pictures: decoded });
        let seen =
            latents.iter().map(|(picture, latents)| channels(latents, picture.width / latents.shape[2])).collect();
        rows.push(Row { words: words(&["its", "channels"]), pictures: seen });
    }
    let headings: Vec<String> = levels.iter().map(Level::heading).collect();
    sheet(&headings, &rows)
}

fn all_levels(schedule: &NoiseSchedule) -> impl Iterator<Item = (usize, Level)> {
    let level = |alpha_bar: &f32| Level { timestep: None, alpha_bar: f64::from(*alpha_bar) };
    schedule.alphas_cumprod.iter().map(level).enumerate()
}

/// The schedule as curves.
fn plot(schedule: &NoiseSchedule, marks: Vec<f64>) -> String {
    let curve = |of: fn(&Level) -> f64| all_levels(schedule).map(|(t, level)| (t as f64, of(&level))).collect();
    let shares = Panel {
        title: "How much of the picture is left, and how much noise there is",
        across: "timestep (dotted: on the strip)",
        logarithmic: false,
        curves: vec![
            ("alpha-bar", curve(|level| level.alpha_bar)),
            ("signal", curve(Level::signal)),
            ("noise", curve(Level::noise)),
        ],
        marks: marks.clone(),
    };
    let ratios = Panel {
        title: "Noise against picture",
        across: "timestep (dotted: on the strip)",
        logarithmic: true,
        curves: vec![("sigma", curve(Level::sigma)), ("SNR", curve(Level::snr))],
        marks,
    };
    svg("Forward diffusion's schedule", &[shares, ratios])
}

/// The schedule as numbers.
fn table(schedule: &NoiseSchedule) -> String {
    let lines = all_levels(schedule).map(|(t, level)| {
        let Level { alpha_bar, .. } = level;
        format!("{t},{alpha_bar},{},{},{},{}\n", level.signal(), level.noise(), level.sigma(), level.snr())
    });
    ["timestep,alpha_bar,signal,noise,sigma,snr\n".to_owned()].into_iter().chain(lines).collect()
}
