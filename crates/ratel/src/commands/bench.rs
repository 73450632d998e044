use super::setup;
use crate::args::{BenchArgs, BenchPart, Format, Tune};
use crate::units::{percent, seconds, si};
use crate::{Failure, progress};
use cpu_time::ThreadTime;
use indicatif::ProgressBar;
use ratel_diffusion::DiffusionError;
use ratel_diffusion::model::{Model, Space};
use ratel_diffusion::pipeline::{self, Event, Request, Watcher, calls_together, latent_size};
use ratel_diffusion::random::RandomSource;
use ratel_diffusion::sampling::SamplerChoice;
use ratel_engine::{Engine, Hooks, Roof, Session, Summary};
use ratel_graph::{Finished, Plan, PlanOptions};
use ratel_kernels::{Role, Target};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What was measured, at one size.
struct Row {
    test: &'static str,
    /// Pixels; `None` for what does not depend on them.
    size: Option<(usize, usize)>,
    /// Of one run.
    time: Summary,
    /// Seconds that the calling thread computed in one run: recording and submitting. `None` where the twins ran on it.
    cpu: Option<Summary>,
    /// Of one run, where one plan is run once.
    work: Option<Work>,
}

/// What a plan does in a run.
struct Work {
    dispatches: usize,
    flops: f64,
    /// The sum of each dispatch's least time on the device.
    attainable: f64,
}

/// Everything that the parts need.
struct Bench<'a> {
    args: &'a BenchArgs,
    engine: &'a Engine,
    model: &'a Model,
    target: Target,
    roof: &'a Roof,
    spinner: &'a ProgressBar,
    stop: &'a Arc<AtomicBool>,
}

/// Times a model's parts.
pub(crate) fn run(args: BenchArgs) -> Result<(), Failure> {
    if !(1..=1000).contains(&args.runs) {
        return Err(Failure::Usage("--runs takes 1 to 1000".to_owned()));
    }
    let begun = Instant::now();
    let model = setup::model_or_architecture(&args.model, &args.arch)?;
    let opened = begun.elapsed();
    let sizes = sizes(&args, &model)?;
    let begun = Instant::now();
    let stop = setup::stop_on_ctrl_c()?;
    let engine = setup::tuned(engine_of(&args)?, args.tune.tune).stopped_by(stop.clone());
    let started = [("open the model", opened), ("open the device", begun.elapsed())];
    let target = pipeline::target(&engine, setup::precision(&args.run), model.elem)?;

    let spinner = progress::spinner();
    let result = (|| {
        let roof = Roof::cached(&engine, &mut |what| spinner.set_message(format!("the roof: {what}")))?;
        let bench =
            Bench { args: &args, engine: &engine, model: &model, target, roof: &roof, spinner: &spinner, stop: &stop };
        bench.all(&sizes, &started)
    })();
    spinner.finish_and_clear();
    let rows = result?;
    let head = Head { model: &model.name, device: engine.name(), target };
    match args.format {
        Format::Md => head.markdown(&rows),
        Format::Csv => head.csv(&rows),
        Format::Json => println!("{}", head.json(&rows)),
    }
    Ok(())
}

fn engine_of(args: &BenchArgs) -> Result<Engine, Failure> {
    setup::engine_to_time(&args.run.device, args.run.shaders.as_deref())
}

/// What was tuned anew in this run need not be tuned again.
fn kept(tune: Tune) -> Tune {
    if tune == Tune::Force { Tune::Auto } else { tune }
}

/// Widths and heights, each of which the model must be able to draw.
fn sizes(args: &BenchArgs, model: &Model) -> Result<Vec<(usize, usize)>, Failure> {
    let native = model.native_latents * model.latent_scale();
    let width = if args.width.is_empty() { vec![native] } else { args.width.clone() };
    let height = if args.height.is_empty() { width.clone() } else { args.height.clone() };
    let count = width.len().max(height.len());
    if [&width, &height].iter().any(|all| all.len() != count && all.len() != 1) {
        let counts = (width.len(), height.len());
        return Err(Failure::Usage(format!("{} widths and {} heights don't make pairs", counts.0, counts.1)));
    }
    let at = |all: &[usize], i: usize| all[i.min(all.len() - 1)];
    let sizes: Vec<_> = (0..count).map(|i| (at(&width, i), at(&height, i))).collect();
    for (width, height) in &sizes {
        latent_size(model, *width, *height)?;
    }
    Ok(sizes)
}

impl Bench<'_> {
    fn wants(&self, part: BenchPart) -> bool {
        self.args.only.is_empty() || self.args.only.contains(&part)
    }

    fn all(&self, sizes: &[(usize, usize)], started: &[(&'static str, Duration)]) -> Result<Vec<Row>, Failure> {
        let mut rows: Vec<Row> = started.iter().map(|(test, time)| once(test, None, *time)).collect();
        if self.wants(BenchPart::TextEncoder) {
            let (session, times) = self.load(self.model.text_graph(2, 1)?)?;
            rows.extend(times.rows(
                ["text encoder: plan", "text encoder: kernels", "text encoder: weights", "text encoder: load"],
                None,
            ));
            rows.extend(self.time("text encoder", None, &session)?);
        }
        for (i, &(width, height)) in sizes.iter().enumerate() {
            let [h, w] = latent_size(self.model, width, height)?;
            let size = Some((width, height));
            let parts = [
                (BenchPart::Unet, "UNet step", ["UNet: plan", "UNet: kernels", "UNet: weights", "UNet: load"]),
                (BenchPart::Vae, "VAE decode", ["VAE: plan", "VAE: kernels", "VAE: weights", "VAE: load"]),
            ];
            let has = |part: BenchPart| part != BenchPart::Vae || self.model.space() == Space::Latent;
            for (part, test, loading) in parts.into_iter().filter(|(part, ..)| self.wants(*part) && has(*part)) {
                let graph = match part {
                    BenchPart::Unet => {
                        let calls = calls_together(self.model.defaults.steps, &setup::rules(&self.args.run)?);
                        self.model.unet_graph_of_calls(calls, 2, h, w)?
                    }
                    _ => self.model.vae_graph(1, h, w)?,
                };
                let (session, times) = self.load(graph)?;
                // later sizes find most kernels compiled: that is not what a start costs
                if i == 0 {
                    rows.extend(times.rows(loading, size));
                }
                rows.extend(self.time(test, size, &session)?);
            }
            if self.wants(BenchPart::Picture) {
                rows.extend(self.pictures(width, height, i == 0)?);
            }
        }
        Ok(rows)
    }

    /// Puts a component in memory, with random inputs, and says what that took.
    fn load(&self, graph: Finished) -> Result<(Session, Loading), Failure> {
        let options = PlanOptions { rules: setup::rules(&self.args.run)?, observe: vec![] };
        let begun = Instant::now();
        let plan = graph.plan(&self.target, &options).map_err(DiffusionError::from)?;
        let planned = begun.elapsed();
        self.spinner.set_message(format!("loading {} steps", plan.steps.len()));
        let session = self.engine.load(plan, &*self.model.weights, &mut |_| {})?;
        fill(&session)?;
        let loading = session.loading();
        Ok((session, Loading([planned, loading.pipelines, loading.weights, loading.whole])))
    }

    /// The first run by itself, and then as many as were asked for.
    fn time(&self, test: &'static str, size: Option<(usize, usize)>, session: &Session) -> Result<Vec<Row>, Failure> {
        let (mut times, mut cpu) = (Vec::new(), Vec::new());
        session.prepare(&mut Hooks { cancel: Some(self.stop), ..Hooks::default() })?;
        for run in 0..=self.args.runs {
            self.spinner.set_message(format!("{test}, {run} of {} runs", self.args.runs));
            let (begun, thread) = (Instant::now(), ThreadTime::now());
            session.run_again(&mut Hooks { cancel: Some(self.stop), ..Hooks::default() })?;
            cpu.push(thread.elapsed().as_secs_f64());
            times.push(begun.elapsed().as_secs_f64());
        }
        let cpu = self.engine.device().map(|_| Summary::of(&cpu[1..]));
        let work = Some(Work::of(session.plan(), self.roof));
        Ok(vec![Row { test, size, time: Summary::of(&times[1..]), cpu, work }])
    }

    /// Whole pictures, and the time to their first step: on a `fresh` device, which has no kernels yet, and later.
    fn pictures(&self, width: usize, height: usize, fresh: bool) -> Result<Vec<Row>, Failure> {
        let opened = fresh.then(|| engine_of(self.args)).transpose()?;
        let opened = opened.map(|engine| setup::tuned(engine, kept(self.args.tune.tune)).stopped_by(self.stop.clone()));
        let engine = opened.as_ref().unwrap_or(self.engine);
        let steps = self.args.steps.unwrap_or(self.model.defaults.steps);
        let (_, run) = self.model.sampler(&SamplerChoice::default(), steps)?;
        let request = Request {
            prompt: "a honey badger under a red star".to_owned(),
            negative_prompt: String::new(),
            width,
            height,
            run,
            cfg_scale: self.model.defaults.guidance_scale,
            guidance_rescale: self.model.defaults.guidance_rescale,
            seed: 1,
            noise: RandomSource::Torch,
            batch: 1,
            clip_skip: 1,
            precision: setup::precision(&self.args.run),
            rules: setup::rules(&self.args.run)?,
            observe: vec![],
            observe_steps: vec![],
            keep_steps: false,
            init: None,
            variation: None,
            reveal: None,
        };
        let (mut times, mut firsts) = (Vec::new(), Vec::new());
        for run in 0..=self.args.runs {
            self.spinner.set_message(format!("picture of {steps} steps, {run} of {} runs", self.args.runs));
            let begun = Instant::now();
            let mut watcher = FirstStep { begun, after: None };
            pipeline::draw(engine, self.model, &request, self.stop, &mut watcher)?;
            times.push(begun.elapsed().as_secs_f64());
            firsts.extend(watcher.after.map(|after| after.as_secs_f64()));
        }
        let row = |test, times: &[f64]| Row {
            test,
            size: Some((width, height)),
            time: Summary::of(times),
            cpu: None,
            work: None,
        };
        let mut rows =
            vec![row("to the first step, warm", firsts.get(1..).unwrap_or_default()), row("picture", &times[1..])];
        if fresh {
            rows.insert(0, row("to the first step, cold", firsts.get(..1).unwrap_or_default()));
        }
        Ok(rows)
    }
}

/// Gives a component random inputs.
pub(super) fn fill(session: &Session) -> Result<(), Failure> {
    // SplitMix64's increment, as a walk through the numbers from -1 to 1
    let noise = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    for port in &session.plan().inputs {
        let (buffer, count) = (session.input(&port.name)?, port.shape.count());
        match port.role {
            Role::Ids { bound } => {
                buffer.write_u32(&(0..count).map(|i| noise(i) as u32 % bound.max(1)).collect::<Vec<_>>())?;
            }
            _ if port.name == "timestep" => buffer.write_f32(&vec![500.0; count])?,
            _ => buffer.write_f32(&(0..count).map(|i| noise(i) as f32 / (1 << 23) as f32 - 1.0).collect::<Vec<_>>())?,
        }
    }
    Ok(())
}

/// When the first step of a run was done.
struct FirstStep {
    begun: Instant,
    after: Option<Duration>,
}

impl Watcher for FirstStep {
    fn event(&mut self, event: Event) {
        if let Event::Step(..) = event {
            self.after.get_or_insert_with(|| self.begun.elapsed());
        }
    }
}

/// What it took to plan a component, to build its kernels' pipelines, to upload its weights at the same time, and to load it
/// in all.
struct Loading([Duration; 4]);

impl Loading {
    fn rows(&self, tests: [&'static str; 4], size: Option<(usize, usize)>) -> Vec<Row> {
        tests.into_iter().zip(self.0).map(|(test, time)| once(test, size, time)).collect()
    }
}

/// What can be measured only once.
fn once(test: &'static str, size: Option<(usize, usize)>, time: Duration) -> Row {
    Row { test, size, time: Summary::of(&[time.as_secs_f64()]), cpu: None, work: None }
}

impl Work {
    fn of(plan: &Plan, roof: &Roof) -> Work {
        // what is computed once for many runs is not timed
        let steps = &plan.steps[plan.prologue..];
        let costs: Vec<_> = steps.iter().map(|step| step.op.cost(&plan.target)).collect();
        let attainable = costs.iter().map(|cost| roof.attainable(cost.flops, cost.bytes).seconds).sum();
        Work { dispatches: steps.len(), flops: costs.iter().map(|cost| cost.flops).sum(), attainable }
    }
}

/// What all rows have in common.
struct Head<'a> {
    model: &'a str,
    device: String,
    target: Target,
}

impl Head<'_> {
    fn precision(&self) -> String {
        format!("{} over {:?}", self.target.elem, self.target.weight)
    }

    fn markdown(&self, rows: &[Row]) {
        println!("{} on {}, {}\n", self.model, self.device, self.precision());
        println!(
            "| {:23} | {:>9} | {:>9} | {:>6} | {:>4} | {:>13} | {:>7} | {:>10} | {:>8} | {:>12} |",
            "test", "size", "time", "+-", "runs", "arithmetic", "of roof", "dispatches", "CPU", "CPU/dispatch"
        );
        println!(
            "|{:-<25}|{2:->10}:|{2:->10}:|{2:->7}:|{2:->5}:|{2:->14}:|{2:->8}:|{1:->11}:|{2:->9}:|{2:->13}:|",
            "", "", ""
        );
        for row in rows {
            let size = row.size.map_or(String::new(), |(width, height)| format!("{width}x{height}"));
            let Summary { median, spread, runs } = row.time;
            let spread = if runs > 1 { percent(spread) } else { String::new() };
            let rate = row.work.as_ref().map_or(String::new(), |work| si(work.flops / median, "FLOP/s"));
            let share = row.work.as_ref().map_or(String::new(), |work| percent(work.attainable / median));
            let dispatches = row.work.as_ref().map_or(String::new(), |work| work.dispatches.to_string());
            let cpu = row.cpu.map_or(String::new(), |cpu| seconds(cpu.median));
            let each = row.cpu_per_dispatch().map_or(String::new(), seconds);
            let time = seconds(median);
            let times = format!("{time:>9} | {spread:>6} | {runs:>4} | {rate:>13} | {share:>7}");
            println!("| {:23} | {size:>9} | {times} | {dispatches:>10} | {cpu:>8} | {each:>12} |", row.test);
        }
    }

    fn csv(&self, rows: &[Row]) {
        let measured = "seconds,spread,runs,flops,attainable_seconds,dispatches,cpu_seconds";
        println!("model,device,precision,test,width,height,{measured}");
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let (model, device, precision) = (quoted(self.model), quoted(&self.device), quoted(&self.precision()));
        for row in rows {
            let (width, height) = row.size.map_or_else(Default::default, |(w, h)| (w.to_string(), h.to_string()));
            let Summary { median, spread, runs } = row.time;
            let (flops, attainable, dispatches) = row.work.as_ref().map_or_else(Default::default, |work| {
                (work.flops.to_string(), work.attainable.to_string(), work.dispatches.to_string())
            });
            let cpu = row.cpu.map_or(String::new(), |cpu| cpu.median.to_string());
            let test = quoted(row.test);
            let measured = format!("{median},{spread},{runs},{flops},{attainable},{dispatches},{cpu}");
            println!("{model},{device},{precision},{test},{width},{height},{measured}");
        }
    }

    fn json(&self, rows: &[Row]) -> serde_json::Value {
        let row = |row: &Row| {
            json!({
                "test": row.test,
                "width": row.size.map(|(width, _)| width),
                "height": row.size.map(|(_, height)| height),
                "seconds": row.time.median,
                "spread": row.time.spread,
                "runs": row.time.runs,
                "flops": row.work.as_ref().map(|work| work.flops),
                "attainable_seconds": row.work.as_ref().map(|work| work.attainable),
                "dispatches": row.work.as_ref().map(|work| work.dispatches),
                "cpu_seconds": row.cpu.map(|cpu| cpu.median),
                "cpu_seconds_per_dispatch": row.cpu_per_dispatch(),
            })
        };
        let rows: Vec<_> = rows.iter().map(row).collect();
        json!({ "model": self.model, "device": self.device, "precision": self.precision(), "rows": rows })
    }
}

impl Row {
    fn cpu_per_dispatch(&self) -> Option<f64> {
        self.cpu.zip(self.work.as_ref()).map(|(cpu, work)| cpu.median / work.dispatches.max(1) as f64)
    }
}
