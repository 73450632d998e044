//! What diffusion costs in image space and in latent space, for pictures of the same size.

use super::bench::fill;
use super::setup;
use crate::args::CompareSpacesArgs;
use crate::units::{seconds, si};
use crate::{Failure, progress};
use clap::ValueEnum;
use indicatif::ProgressBar;
use ratel_diffusion::DiffusionError;
use ratel_diffusion::model::{Model, Space};
use ratel_diffusion::pipeline::{self, calls_together, latent_size};
use ratel_engine::{Engine, EngineError, Hooks, Progress, Summary};
use ratel_graph::{Finished, Plan, PlanError, PlanOptions, Step};
use ratel_kernels::{Limits, Target};
use serde_json::json;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A network that draws in one of the two spaces.
struct Network {
    name: String,
    model: Model,
    /// Sides of the pictures that it was trained on; `None` if nobody trained it.
    trained_on: Option<usize>,
    /// Operations a second at the last size, where that is known.
    rate: Option<f64>,
}

/// Work that is done once for a picture or once for a step of it.
#[derive(Clone, Copy, Default)]
struct Work {
    flops: f64,
    /// What has to be moved at least: every operand of every dispatch once.
    bytes: f64,
    /// What it takes in memory.
    memory: u64,
    /// Whether a tensor in it is larger than any buffer of the device.
    too_large: bool,
    time: Option<Time>,
}

/// Seconds.
#[derive(Clone, Copy)]
enum Time {
    Measured(f64),
    /// From the work, at the rate of the part of it that ran in time, or of another size of the same network.
    Expected(f64),
}

/// A network at one size.
struct Row {
    network: usize,
    side: usize,
    /// Channels, height and width of what is denoised.
    sample: [usize; 3],
    parameters: usize,
    step: Work,
    /// Text encoder, what the UNet computes once for all steps, and, of latents, decoder.
    once: Work,
}

/// Everything that a row is made with.
struct Bench<'a> {
    args: &'a CompareSpacesArgs,
    engine: &'a Engine,
    /// Steps of a picture.
    steps: usize,
    target: Target,
    /// The same without limits on buffers.
    unlimited: Target,
    options: PlanOptions,
    spinner: ProgressBar,
    stop: &'a AtomicBool,
}

/// Plans and times a step of each network at each size.
pub(crate) fn run(args: CompareSpacesArgs) -> Result<(), Failure> {
    let fits = (1..=100).contains(&args.runs) && (0.0..=3600.0).contains(&args.seconds);
    if !fits {
        return Err(Failure::Usage("--runs takes 1 to 100, and --seconds 0 to 3600".to_owned()));
    }
    let mut networks = networks(&args)?;
    let mut sizes = args.sizes.clone();
    sizes.sort_unstable();
    sizes.dedup();
    for side in &sizes {
        latent_size(&networks[0].model, *side, *side)?;
    }
    let latent = &networks[0].model;
    let steps = args.steps.unwrap_or(latent.defaults.steps);
    if !(1..=1000).contains(&steps) {
        return Err(Failure::Usage("--steps takes 1 to 1000".to_owned()));
    }
    let engine = setup::engine_to_time(&args.run.device, args.run.shaders.as_deref())?;
    let target = pipeline::target(&engine, setup::precision(&args.run), latent.elem)?;
    let options = PlanOptions { rules: setup::rules(&args.run)?, observe: vec![] };
    let stop = setup::stop_on_ctrl_c()?;
    let spinner = progress::spinner();
    let limits = Limits { binding_bytes: u64::MAX, buffer_bytes: u64::MAX, ..target.limits };
    let unlimited = Target { limits, ..target };
    let bench = Bench { args: &args, engine: &engine, steps, target, unlimited, options, spinner, stop: &stop };
    let rows = bench.rows(&mut networks, &sizes);
    bench.spinner.finish_and_clear();
    let rows = rows?;
    let precision = format!("{} over {:?}", target.elem, target.weight);
    if args.json {
        let rows: Vec<_> = rows.iter().map(|row| row.json(&networks[row.network], steps)).collect();
        println!("{}", json!({ "device": engine.name(), "precision": precision, "steps": steps, "rows": rows }));
        return Ok(());
    }
    println!("on {}, {precision}\n", engine.name());
    print(&networks, &rows, steps);
    Ok(())
}

/// The model of latents, the same UNet on pixels, and the model of image space, if there is one.
fn networks(args: &CompareSpacesArgs) -> Result<Vec<Network>, Failure> {
    let open = || setup::model_or_architecture(&args.model, &args.arch);
    let latent = open()?;
    if latent.space() == Space::Image {
        let what = format!("{} draws in image space: name a model of latents by -m, and this by --pixels", latent.name);
        return Err(Failure::Usage(what));
    }
    let trained_on = |model: &Model| Some(model.native_latents * model.latent_scale());
    let known = args.arch.arch.as_ref().and_then(ValueEnum::to_possible_value);
    let name = known.map_or(latent.name.clone(), |known| known.get_name().to_owned());
    let trained = trained_on(&latent);
    let pixels = format!("{name}'s UNet, on pixels");
    let mut all = vec![
        Network { name, trained_on: trained.filter(|_| args.arch.arch.is_none()), model: latent, rate: None },
        Network { name: pixels, trained_on: None, model: open()?.on_pixels(), rate: None },
    ];
    let path = args.pixels.as_deref().unwrap_or(Path::new(ratel_cub::PIXELS));
    if args.pixels.is_none() && !ratel_cub::has(ratel_cub::PIXELS) {
        eprintln!("note: this program was built without {}; --pixels names another model", ratel_cub::PIXELS);
        return Ok(all);
    }
    let model = setup::checked(setup::open(Some(path))?)?;
    if model.space() == Space::Latent {
        return Err(Failure::Usage(format!("--pixels {}: it draws in latent space", path.display())));
    }
    all.push(Network { name: model.name.clone(), trained_on: trained_on(&model), model, rate: None });
    Ok(all)
}

impl Bench<'_> {
    /// All networks at each size, from the smallest.
    fn rows(&self, networks: &mut [Network], sizes: &[usize]) -> Result<Vec<Row>, Failure> {
        let mut texts = Vec::new();
        for network in networks.iter_mut() {
            let model = &network.model;
            texts.push(self.work(model, || model.text_graph(2, 1), "text encoder", None)?[1]);
        }
        let mut rows = Vec::new();
        for side in sizes {
            for (i, network) in networks.iter_mut().enumerate() {
                let model = &network.model;
                let [h, w] = latent_size(model, *side, *side)?;
                // of the first size nothing is known, but that it is small
                let rate = network.rate;
                let name = format!("{} at {side}x{side}", network.name);
                let calls = calls_together(self.steps, &self.options.rules);
                let unet = || model.unet_graph_of_calls(calls, 2, h, w);
                let [before, step] = self.work(model, unet, &name, rate)?;
                let decoder = match model.space() {
                    Space::Image => Work::default(),
                    Space::Latent => self.work(model, || model.vae_graph(1, h, w), &name, step.rate().or(rate))?[1],
                };
                let once = texts[i].and(before, true).and(decoder, model.space() == Space::Latent);
                network.rate = step.rate().or(network.rate);
                rows.push(Row {
                    network: i,
                    side: *side,
                    sample: [model.latent_channels(), h, w],
                    parameters: model.unet.0.values().map(|shape| shape.count()).sum(),
                    step,
                    once,
                });
            }
        }
        Ok(rows)
    }

    /// Plans a component, and runs it, or as much of it as the time that it may take allows: its prologue, and the rest.
    /// What at this rate would take very much longer, or what the device can't hold, is not begun.
    fn work(
        &self,
        model: &Model,
        graph: impl Fn() -> Result<Finished, DiffusionError>,
        name: &str,
        rate: Option<f64>,
    ) -> Result<[Work; 2], Failure> {
        self.spinner.set_message(format!("{name}: planning"));
        let (plan, too_large) = match graph()?.plan(&self.target, &self.options) {
            Err(PlanError::TooLarge { .. }) => (graph()?.plan(&self.unlimited, &self.options), true),
            plan => (plan, false),
        };
        let plan = plan.map_err(DiffusionError::from)?;
        let memory = plan.activation_bytes() + plan.weight_bytes();
        let work = |steps: &[Step]| {
            let costs = steps.iter().map(|step| step.op.cost(&self.target));
            let (flops, bytes) = costs.fold((0.0, 0.0), |sum, cost| (sum.0 + cost.flops, sum.1 + cost.bytes));
            Work { flops, bytes, memory, too_large, time: None }
        };
        let (prologue, rest) = plan.steps.split_at(plan.prologue);
        let works = [work(prologue), work(rest)];
        let expected = rate.map(|rate| works.map(|work| work.flops / rate));
        // small sizes have a poor rate, so that it says little about large ones; but a single dispatch can't be interrupted
        let hopeless = |[_, rest]: [f64; 2]| rest > 30.0 * self.args.seconds;
        let runs = self.args.seconds > 0.0 && !expected.is_some_and(hopeless);
        let times = match () {
            _ if too_large => None,
            _ if runs => Some(self.time(model, plan, name)?),
            _ => expected.map(|expected| expected.map(Time::Expected)),
        };
        let [before, after] = works;
        Ok([Work { time: times.map(|[time, _]| time), ..before }, Work { time: times.map(|[_, time]| time), ..after }])
    }

    /// The medians of some runs on random inputs, after one to warm up, without loading: of the prologue, and of the rest.
    /// A run that takes too long is ended, and what it did by then tells how long all of it would have taken; the first,
    /// which compiles kernels on some drivers, tells only how far the second is to go.
    fn time(&self, model: &Model, plan: Plan, name: &str) -> Result<[Time; 2], Failure> {
        let flops = |steps: &[Step]| steps.iter().map(|step| step.op.flops()).sum::<f64>();
        let session = self.engine.load(plan, &*model.weights, &mut |_| {})?;
        fill(&session)?;
        let (prologue, rest) = session.plan().steps.split_at(session.plan().prologue);
        let [mut before, mut after] = [vec![], vec![]];
        let mut far_enough = usize::MAX;
        for run in 0..=self.args.runs {
            self.spinner.set_message(format!("{name}: {run} of {} runs", self.args.runs));
            let begun = Instant::now();
            session.prepare(&mut Hooks { cancel: Some(self.stop), ..Hooks::default() })?;
            before.push(begun.elapsed().as_secs_f64());

            let (begun, enough, mut last) = (Instant::now(), AtomicBool::new(false), (0, 0.0));
            let mut progress = |at: Progress| {
                last = (at.done as usize, begun.elapsed().as_secs_f64());
                if self.stop.load(Ordering::Relaxed) || last.1 > self.args.seconds || last.0 >= far_enough {
                    enough.store(true, Ordering::Relaxed);
                }
            };
            let ran = session.run_again(&mut Hooks { cancel: Some(&enough), progress: Some(&mut progress) });
            match ran {
                Err(EngineError::Cancelled) if !self.stop.load(Ordering::Relaxed) => {
                    let (done, seconds) = last;
                    if run > 0 {
                        let of_all = seconds / flops(&session.plan().steps[prologue.len()..done]).max(1.0);
                        return Ok([prologue, rest].map(|steps| Time::Expected(flops(steps) * of_all)));
                    }
                    far_enough = done;
                }
                ran => ran?,
            }
            after.push(begun.elapsed().as_secs_f64());
        }
        Ok([before, after].map(|times| Time::Measured(Summary::of(&times[1..]).median)))
    }
}

impl Work {
    /// Operations a second, if that is known.
    fn rate(&self) -> Option<f64> {
        match self.time {
            Some(Time::Measured(time) | Time::Expected(time)) if time > 0.0 => Some(self.flops / time),
            _ => None,
        }
    }

    /// Both, one after the other; the second is there if `two`.
    fn and(self, other: Work, two: bool) -> Work {
        let time = if two { self.time.zip(other.time).map(|(a, b)| a.plus(b)) } else { self.time };
        Work {
            flops: self.flops + other.flops,
            bytes: self.bytes + other.bytes,
            memory: self.memory.max(other.memory),
            too_large: self.too_large || other.too_large,
            time,
        }
    }

    /// So many of it, one after the other.
    fn times(self, count: usize) -> Work {
        let time = self.time.map(|time| match time {
            Time::Measured(time) => Time::Measured(time * count as f64),
            Time::Expected(time) => Time::Expected(time * count as f64),
        });
        Work { flops: self.flops * count as f64, bytes: self.bytes * count as f64, time, ..self }
    }
}

impl Time {
    fn value(self) -> f64 {
        match self {
            Time::Measured(time) | Time::Expected(time) => time,
        }
    }

    fn plus(self, other: Time) -> Time {
        match (self, other) {
            (Time::Measured(a), Time::Measured(b)) => Time::Measured(a + b),
            (a, b) => Time::Expected(a.value() + b.value()),
        }
    }
}

impl Row {
    /// A whole picture.
    fn picture(&self, steps: usize) -> Work {
        self.step.times(steps).and(self.once, true)
    }

    fn json(&self, network: &Network, steps: usize) -> serde_json::Value {
        let work = |work: Work| {
            json!({
                "flops": work.flops, "bytes": work.bytes, "memory_bytes": work.memory, "fits_device": !work.too_large,
                "seconds": work.time.map(Time::value),
                "measured": work.time.map(|time| matches!(time, Time::Measured(_))),
            })
        };
        json!({
            "picture": [3, self.side, self.side], "space": network.model.space().name(), "network": network.name,
            "trained_on": network.trained_on, "sample": self.sample, "parameters": self.parameters,
            "step": work(self.step), "once": work(self.once), "whole_picture": work(self.picture(steps)),
        })
    }
}

const HEADINGS: [&str; 11] = [
    "picture",
    "space",
    "network",
    "sample",
    "parameters",
    "work/step",
    "moved/step",
    "time/step",
    "work/picture",
    "time/picture",
    "peak memory",
];

/// A table, and under it what it shows.
fn print(networks: &[Network], rows: &[Row], steps: usize) {
    let time = |work: &Work| match work.time {
        None => if work.too_large { "too large" } else { "-" }.to_owned(),
        Some(Time::Measured(time)) => seconds(time),
        Some(Time::Expected(time)) => format!("~{}", seconds(time)),
    };
    let mut table = vec![HEADINGS.map(str::to_owned)];
    for row in rows {
        let Network { name, model, .. } = &networks[row.network];
        let picture = row.picture(steps);
        table.push([
            format!("{0}x{0}", row.side),
            model.space().name().to_owned(),
            name.clone(),
            row.sample.map(|extent| extent.to_string()).join("x"),
            si(row.parameters as f64, "").trim().to_owned(),
            si(row.step.flops, "FLOP"),
            si(row.step.bytes, "B"),
            time(&row.step),
            si(picture.flops, "FLOP"),
            time(&picture),
            si(picture.memory as f64, "B"),
        ]);
    }
    let widths: [usize; 11] =
        std::array::from_fn(|i| table.iter().map(|cells| cells[i].chars().count()).max().unwrap_or(0));
    for (number, cells) in table.iter().enumerate() {
        let cell = |(i, cell): (usize, &String)| match i {
            1 | 2 => format!("{cell:0$}", widths[i]),
            _ => format!("{cell:>0$}", widths[i]),
        };
        println!("| {} |", cells.iter().enumerate().map(cell).collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rule = |(i, width): (usize, &usize)| "-".repeat(width + 1) + if matches!(i, 1 | 2) { "-" } else { ":" };
            println!("|{}|", widths.iter().enumerate().map(rule).collect::<Vec<_>>().join("|"));
        }
    }
    println!("");
    for pair in rows.windows(2) {
        if let [latent, pixels] = pair
            && (latent.network, pixels.network) == (0, 1)
        {
            let count = |row: &Row| row.sample.iter().product::<usize>() as f64;
            println!(
                "{0}x{0}: in latents, {1} times fewer numbers, the same UNet does {2} times less in a step, and {3} times \
                 less for a picture with its decoder",
                latent.side,
                ratio(count(pixels), count(latent)),
                ratio(pixels.step.flops, latent.step.flops),
                ratio(pixels.picture(steps).flops, latent.picture(steps).flops),
            );
        }
    }
    println!(
        "a picture: the text encoder, {steps} steps, each guided and so a batch of two, and the decoder; not loading"
    );
    let expected = |work: &Work| matches!(work.time, Some(Time::Expected(_)));
    if rows.iter().any(|row| expected(&row.picture(steps))) {
        println!(
            "~ did not run to its end, for its time (--seconds): it is the work at the rate of what ran of it, or of the \
             size before it"
        );
    }
    if rows.iter().any(|row| row.picture(steps).too_large) {
        println!(
            "too large: a tensor is beyond any buffer of this device; the figures are a plan's without that limit"
        );
    }
    for Network { name, trained_on, .. } in networks {
        match trained_on {
            Some(side) => println!("{name} was trained on {side}x{side}; at other sizes only its cost means something"),
            None => println!("{name} has random weights; only its cost means something"),
        }
    }
}

/// How many times as much, with a digit where it matters.
fn ratio(a: f64, b: f64) -> String {
    let times = a / b.max(1.0);
    if times < 9.95 { format!("{times:.1}") } else { format!("{times:.0}") }
}
