use super::encode::finite;
use super::setup;
use crate::args::DenoiseArgs;
use crate::output::{Place, write_png, write_whole};
use crate::progress::Progress;
use crate::sheet::{Row, channels, sheet};
use crate::{Failure, tensors};
use ratel_diffusion::DiffusionError;
use ratel_diffusion::autoencoder::Picture;
use ratel_diffusion::model::Space;
use ratel_diffusion::pipeline::{Guess, Seen, denoise};
use ratel_diffusion::stage::Stage;
use ratel_tensor::HostTensor;
use serde_json::json;

/// A step as it is shown, all latents `(1, h, w, C)`.
struct Shown {
    seen: Seen,
    /// The latents as the model sees them: of unit variance, whatever the sampler's scaling.
    x: HostTensor,
    x_decoded: Picture,
    x0_decoded: Picture,
    /// The noise of each guess: the channels of latents; in image space as the picture it is, grey where there is none.
    noises: Vec<Picture>,
}

impl Shown {
    /// A number of the step for each column of the table, with the column's name.
    fn numbers(&self) -> Vec<(&'static str, Option<f64>)> {
        let Seen { step, timestep, level, .. } = &self.seen;
        let norm = |name: &str| self.guess(name).map(|guess| size(&guess.noise));
        vec![
            ("step", Some(*step as f64 + 1.0)),
            ("timestep", Some(f64::from(*timestep))),
            ("sigma", finite(level.sigma())),
            ("x", Some(size(&self.x))),
            ("noise_unconditional", norm("unconditional")),
            ("noise_conditional", norm("conditional")),
            ("noise_guided", norm("guided")),
            ("x0", self.guess("guided").map(|guess| size(&guess.x0))),
        ]
    }

    fn guess(&self, name: &str) -> Option<&Guess> {
        self.seen.guesses.iter().find(|guess| guess.name == name)
    }
}

/// The root of the mean square: 1 for standard normal noise.
pub(super) fn size(values: &HostTensor) -> f64 {
    let squares: f64 = values.data.iter().map(|value| f64::from(*value).powi(2)).sum();
    (squares / values.data.len().max(1) as f64).sqrt()
}

/// Draws a picture and shows every step from within.
pub(crate) fn run(args: DenoiseArgs) -> Result<(), Failure> {
    if args.draw.batch != 1 {
        return Err(Failure::Usage("--batch: one picture at a time is shown from within".to_owned()));
    }
    if args.steps_shown == Some(0) {
        return Err(Failure::Usage("--steps-shown takes 1 step or more".to_owned()));
    }
    let model = setup::model_to_draw_with(&args.draw)?;
    let (mut request, origin) = setup::request(&args.draw, &model)?;
    request.reveal = Some(origin.sampler.prediction);
    let place = Place::new(&args.output, "denoise")?;
    let engine = setup::engine(&args.draw.run.device, args.draw.run.shaders.as_deref())?;
    let stop = setup::stop_on_ctrl_c()?;

    let mut progress = Progress::default();
    let made = denoise(&engine, &model, &request, &stop, &mut progress).and_then(|made| {
        let seen = some_of(std::mem::take(&mut progress.seen), args.steps_shown);
        let shown = show(&request.stage(&engine, &model, &stop), seen, &made.latents, &mut progress)?;
        Ok((made, shown))
    });
    progress.finish();
    let (made, (shown, last)) = made?;
    setup::say_what_was_cut(&made.cut);

    let about = setup::parameters(&args.draw, &request, &origin, &model, 0);
    let page = page(model.space(), &shown, request.run.steps.len(), &last, &made.latents);
    write_png(&place.picture, page.width as u32, page.height as u32, &page.rgb, &about)?;
    let table = table(&shown);
    write_whole(&place.beside("csv"), |out| out.write_all(table.as_bytes()))?;
    let mut named = Vec::new();
    for Shown { seen, x, .. } in shown.iter() {
        let step = seen.step + 1;
        named.push((format!("step{step:03}.x"), x.clone().channels_first()));
        for Guess { name, noise, x0 } in &seen.guesses {
            named.push((format!("step{step:03}.noise.{name}"), noise.clone().channels_first()));
            named.push((format!("step{step:03}.x0.{name}"), x0.clone().channels_first()));
        }
    }
    named.push(("latents".to_owned(), made.latents.channels_first()));
    let all: Vec<_> = named.iter().map(|(name, latents)| (name.as_str(), latents)).collect();
    tensors::save(&place.beside("safetensors"), &all)?;
    let mut written = vec![place.picture.clone(), place.beside("csv"), place.beside("safetensors")];
    if let Some(folder) = &place.folder {
        let steps = shown.iter().flat_map(|Shown { seen, x_decoded, x0_decoded, noises, .. }| {
            let noise = noises.last().filter(|_| model.space() == Space::Image);
            let all = [Some(("x", x_decoded)), Some(("x0", x0_decoded)), noise.map(|noise| ("noise", noise))];
            let named = |(what, picture)| (format!("step{:03}_{what}", seen.step + 1), picture);
            all.into_iter().flatten().map(named)
        });
        for (name, picture) in steps.chain([("picture".to_owned(), &last)]) {
            let path = folder.join(format!("{name}.png"));
            super::encode::write(&path, picture, &picture.rgb, &about)?;
            written.push(path);
        }
    }

    if args.json {
        let row =
            |shown: &Shown| serde_json::Map::from_iter(shown.numbers().into_iter().map(|(k, v)| (k.into(), json!(v))));
        let rows: Vec<_> = shown.iter().map(row).collect();
        println!("{}", json!({ "seed": request.seed, "steps": rows, "files": written, "device": engine.name() }));
        return Ok(());
    }
    println!("seed {} on {}", request.seed, engine.name());
    print_table(&shown);
    written.iter().for_each(|path| println!("{}", path.display()));
    Ok(())
}

/// So many of the steps, evenly from the first to the last.
pub(super) fn some_of(seen: Vec<Seen>, count: Option<usize>) -> Vec<Seen> {
    let (steps, wanted) = (seen.len(), count.unwrap_or(seen.len()));
    if wanted >= steps {
        return seen;
    }
    // a single one is the last: its picture is the result's
    let kept =
        |i: usize| (0..wanted).any(|k| if wanted == 1 { i == steps - 1 } else { k * (steps - 1) / (wanted - 1) == i });
    seen.into_iter().enumerate().filter(|(i, _)| kept(*i)).map(|(_, seen)| seen).collect()
}

/// Decodes what was seen, and the last latents.
fn show(
    stage: &Stage,
    all: Vec<Seen>,
    latents: &HostTensor,
    progress: &mut Progress,
) -> Result<(Vec<Shown>, Picture), DiffusionError> {
    let mut scaled = Vec::new();
    for seen in &all {
        let size = seen.level.signal.hypot(seen.level.noise);
        scaled.push(stage.sum(&[(seen.x.clone(), 1.0 / size)])?);
    }
    let guided = |seen: &Seen| seen.guesses.last().map(|guess| guess.x0.clone());
    let x0s: Vec<HostTensor> = all.iter().map(|seen| guided(seen).unwrap_or_else(|| seen.x.clone())).collect();
    let everything: Vec<&HostTensor> = scaled.iter().chain(&x0s).chain([latents]).collect();
    let scale = stage.model.latent_scale();
    let (h, w) = (latents.shape[1], latents.shape[2]);
    let decoded = stage.decode(&everything, progress)?.into_iter().flatten();
    let sized = |rgb| Picture { width: w * scale, height: h * scale, rgb };
    let mut pictures = decoded.map(sized);
    // black and white are three deviations from grey
    let noise = |guess: &Guess| match stage.model.space() {
        Space::Image => Ok(sized(stage.to_bytes(&stage.sum(&[(guess.noise.clone(), 1.0 / 3.0)])?)?)),
        Space::Latent => Ok(channels(&guess.noise, scale)),
    };
    let noises: Vec<Vec<Picture>> =
        all.iter().map(|seen| seen.guesses.iter().map(noise).collect()).collect::<Result<_, DiffusionError>>()?;
    let empty = || Picture { width: 0, height: 0, rgb: vec![] };
    let xs: Vec<Picture> = pictures.by_ref().take(all.len()).collect();
    let x0_pictures: Vec<Picture> = pictures.by_ref().take(all.len()).collect();
    let shown = all.into_iter().zip(scaled).zip(noises).zip(xs.into_iter().zip(x0_pictures));
    let shown =
        shown.map(|(((seen, x), noises), (x_decoded, x0_decoded))| Shown { seen, x, x_decoded, x0_decoded, noises });
    Ok((shown.collect(), pictures.next().unwrap_or_else(empty)))
}

/// A row per step, and the result below. Latents are shown decoded and as they are; in image space that is the same.
fn page(space: Space, shown: &[Shown], steps: usize, last: &Picture, latents: &HostTensor) -> Picture {
    let scale = last.width / latents.shape[2].max(1);
    let guesses = shown.first().map_or(&[][..], |shown| &shown.seen.guesses);
    let (x, x0): (&[&str], &[&str]) = match space {
        Space::Image => (&["x: the picture"], &["predicted x0"]),
        Space::Latent => {
            (&["x: the latents\ndecoded", "x: channels"], &["predicted x0\ndecoded", "predicted x0\nchannels"])
        }
    };
    let of_noise = guesses.iter().map(|guess| format!("predicted noise\n{}", guess.name));
    let owned = |headings: &[&str]| headings.iter().map(|heading| (*heading).to_owned()).collect::<Vec<_>>();
    let headings: Vec<String> = owned(x).into_iter().chain(of_noise).chain(owned(x0)).collect();
    // a picture and, of latents, their channels
    let both = |picture: &Picture, latents: &HostTensor| match space {
        Space::Image => vec![picture.clone()],
        Space::Latent => vec![picture.clone(), channels(latents, scale)],
    };
    let mut rows: Vec<Row> = shown
        .iter()
        .map(|shown| {
            let Seen { step, timestep, level, guesses, .. } = &shown.seen;
            let mut words = vec![
                format!("step {}/{steps}", step + 1),
                format!("t {timestep:.0}"),
                format!("sigma {:.3}", level.sigma()),
                String::new(),
                "sizes:".to_owned(),
                format!("x    {:.3}", size(&shown.x)),
            ];
            let short = |name: &str| match name {
                "unconditional" => "without",
                "conditional" => "with",
                _ => "guided",
            };
            words.extend(guesses.iter().map(|guess| format!("{:7} {:.3}", short(guess.name), size(&guess.noise))));
            let mut pictures = both(&shown.x_decoded, &shown.x);
            pictures.extend(shown.noises.iter().cloned());
            if let Some(guess) = guesses.last() {
                words.push(format!("x0   {:.3}", size(&guess.x0)));
                pictures.extend(both(&shown.x0_decoded, &guess.x0));
            }
            Row { words, pictures }
        })
        .collect();
    rows.push(Row { words: vec!["result".to_owned()], pictures: both(last, latents) });
    sheet(&headings, &rows)
}

/// The numbers as they are.
fn table(shown: &[Shown]) -> String {
    let mut lines: Vec<String> = Vec::new();
    for shown in shown {
        let numbers = shown.numbers();
        if lines.is_empty() {
            lines.push(numbers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(","));
        }
        let values = numbers.iter().map(|(_, value)| value.map_or(String::new(), |value| value.to_string()));
        lines.push(values.collect::<Vec<_>>().join(","));
    }
    lines.join("\n") + "\n"
}

/// The numbers as people read them.
fn print_table(shown: &[Shown]) {
    println!("{:>5} {:>8} {:>9} {:>7} {:>31} {:>9}", "", "", "", "", "size of the predicted noise", "");
    println!(
        "{:>5} {:>8} {:>9} {:>7} {:>9} {:>10} {:>10} {:>9}",
        "step", "timestep", "sigma", "x", "without", "with", "guided", "x0"
    );
    for shown in shown {
        let all: Vec<String> = shown
            .numbers()
            .into_iter()
            .enumerate()
            .map(|(i, (_, value))| match value {
                Some(value) if i < 2 => format!("{value:.0}"),
                Some(value) => format!("{value:.4}"),
                None => "-".to_owned(),
            })
            .collect();
        if let [step, timestep, sigma, x, without, with, guided, x0] = &all[..] {
            println!("{step:>5} {timestep:>8} {sigma:>9} {x:>7} {without:>9} {with:>10} {guided:>10} {x0:>9}");
        }
    }
}
