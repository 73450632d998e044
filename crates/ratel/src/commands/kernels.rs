use super::setup;
use crate::args::{KernelBenchArgs, KernelListArgs, KernelsArgs, KernelsCommand};
use crate::units::{percent, seconds, si};
use crate::{Failure, progress, shape};
use ratel_diffusion::DiffusionError;
use ratel_diffusion::model::{Model, Space};
use ratel_diffusion::pipeline::{Precision, latent_size, target};
use ratel_engine::{Engine, Entrant, Roof, race};
use ratel_graph::{Plan, PlanOptions, Rule};
use ratel_kernels::{Kernel, Op, Target};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

/// Lists ops and kernels, or times those of one op.
pub(crate) fn run(args: KernelsArgs) -> Result<(), Failure> {
    match args.bench {
        Some(KernelsCommand::Bench(args)) => bench(args),
        None => list(args.list),
    }
}

/// The ops there are: one of each, in their order.
fn ops() -> Vec<Op> {
    let mut all = Op::all_cases();
    all.dedup_by_key(|op| op.name());
    all
}

fn list(args: KernelListArgs) -> Result<(), Failure> {
    let model = setup::model_or_architecture(&args.model, &args.arch)?;
    let (width, height) = setup::size(&args.size, &model)?;
    let engine = setup::engine(&args.run.device, args.run.shaders.as_deref())?;
    let target = target(&engine, setup::precision(&args.run), model.elem)?;
    let options = PlanOptions { rules: setup::rules(&args.run)?, observe: vec![] };
    let mut uses: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (component, plan) in plans(&model, width, height, &target, &options)? {
        for (name, count) in counts(&plan) {
            uses.entry(name).or_default().push(format!("{component} {count}"));
        }
    }
    let used = |name: &str| uses.get(name).map_or(String::new(), |uses| uses.join(", "));
    let ops = ops();
    if args.json {
        let kernel = |kernel: &&'static Kernel| {
            let (name, dispatches) = (kernel.name, used(kernel.name));
            json!({ "name": name, "file": file(kernel), "needs": kernel.needs(), "dispatches": dispatches })
        };
        let all: Vec<_> = ops
            .iter()
            .map(|op| {
                let kernels: Vec<_> = op.kernels().iter().map(kernel).collect();
                json!({ "op": op.name(), "computes": maths(op), "shape": shape::takes(op.name()), "kernels": kernels })
            })
            .collect();
        println!("{}", json!({ "device": engine.name(), "model": model.name, "ops": all }));
        return Ok(());
    }
    println!("dispatches in a guided run of {} at {width}x{height} on {}", model.name, engine.name());
    for op in &ops {
        println!("\n{}: {}", op.name(), maths(op));
        println!("  shape: {}", shape::takes(op.name()));
        if target.twins {
            println!("  {:26} {:48} {:32} {}", "twin", "", "no device", used(op.name()));
        }
        for kernel in op.kernels() {
            let used = if target.twins { String::new() } else { used(kernel.name) };
            println!("  {:26} {:48} {:32} {used}", kernel.name, file(kernel), kernel.needs());
        }
    }
    Ok(())
}

/// Where a kernel's text lies in the repository.
fn file(kernel: &Kernel) -> String {
    format!("shaders/{}", kernel.path)
}

/// What an op computes, as its plain kernel's file says in its first lines.
fn maths(op: &Op) -> String {
    let source = op.kernels().first().map_or("", |kernel| kernel.source);
    let lines = source.lines().map_while(|line| line.strip_prefix("// ")).map(str::trim);
    let text = lines.collect::<Vec<_>>().join(" ");
    text.split_once(": ").map_or(text.clone(), |(_, maths)| maths.to_owned())
}

/// The plans of a guided run.
fn plans(
    model: &Model,
    width: usize,
    height: usize,
    target: &Target,
    options: &PlanOptions,
) -> Result<Vec<(&'static str, Plan)>, Failure> {
    let [h, w] = latent_size(model, width, height)?;
    let mut graphs = vec![("text_encoder", model.text_graph(2, 1)?), ("unet", model.unet_graph(2, h, w)?)];
    if model.space() == Space::Latent {
        graphs.push(("vae", model.vae_graph(1, h, w)?));
    }
    let plan = |(name, graph): (_, ratel_graph::Finished)| {
        Ok((name, graph.plan(target, options).map_err(DiffusionError::from)?))
    };
    graphs.into_iter().map(plan).collect()
}

/// How often each kernel is dispatched; on the twins, each op.
fn counts(plan: &Plan) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for step in &plan.steps {
        let name = step.choice.as_ref().map_or(step.op.name(), |choice| choice.kernel.name);
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn bench(args: KernelBenchArgs) -> Result<(), Failure> {
    if !(args.seconds > 0.0 && args.seconds <= 600.0) {
        return Err(Failure::Usage("--seconds takes a number above 0, and 600 at most".to_owned()));
    }
    // an op is found by its own name, and by that of any of its kernels
    let named = |op: &Op| op.name() == args.name || op.kernels().iter().any(|kernel| kernel.name == args.name);
    let first = ops().into_iter().find(named);
    let name = first.as_ref().map_or(args.name.as_str(), |op| op.name());
    let engine = setup::engine_to_time(&args.device, args.shaders.as_deref())?.stopped_by(setup::stop_on_ctrl_c()?);
    let op = match (&args.shape, &args.layer) {
        (None, Some(layer)) => of_layer(&args, &engine, name, layer)?,
        (Some(text), _) => shape::op(name, text)?,
        (None, None) => match first {
            Some(op) => op,
            None => shape::op(name, "")?, // which fails, and says what there is
        },
    };

    let spinner = progress::spinner();
    let result = Roof::cached(&engine, &mut |what| spinner.set_message(format!("the roof: {what}")));
    spinner.set_message(format!("the right answer, by the twin ({})", si(op.flops(), "FLOP")));
    let rows = result.and_then(|roof| {
        let budget = Duration::from_secs_f64(args.seconds);
        let row = |entrant: Result<Entrant, _>| {
            let entrant = entrant?;
            spinner.set_message(format!("{} in {}", entrant.kernel, entrant.elem));
            Ok(Row::of(entrant, &roof))
        };
        // the plain kernel's name is the op's: all of its kernels
        let only = (args.name != name).then_some(args.name.as_str());
        race(&engine, &op, only, budget).map(row).collect::<Result<Vec<_>, _>>()
    });
    spinner.finish_and_clear();
    let rows = rows?;
    if args.json {
        let all: Vec<_> = rows.iter().map(Row::json).collect();
        println!("{}", json!({ "device": engine.name(), "op": format!("{op:?}"), "rows": all }));
    } else {
        println!("{op:?}");
        println!("{}", engine.name());
        println!(
            "{:26} {:5} {:10} {:>8}  {:>9} {:>6}  {:>13} {:>10}  {:>8} {}",
            "kernel", "elem", "weights", "error", "median", "+-", "arithmetic", "memory", "of roof", "bound by"
        );
        rows.iter().for_each(Row::print);
        if rows.iter().any(|row| row.entrant.chosen && row.entrant.check.is_some()) {
            println!("* runs when nothing else is said");
        }
    }
    match rows.iter().filter(|row| row.entrant.timing.is_none()).count() {
        _ if rows.is_empty() => {
            Err(Failure::Check(format!("no kernel called {} can do this on {}", args.name, engine.name())))
        }
        0 => Ok(()),
        wrong => Err(Failure::Check(format!("{wrong} of {} results are not the twin's", rows.len()))),
    }
}

/// The costliest op of this name in a layer of the model.
fn of_layer(args: &KernelBenchArgs, engine: &Engine, name: &str, layer: &str) -> Result<Op, Failure> {
    let model = setup::model_or_architecture(&args.model, &args.arch)?;
    let (width, height) = setup::size(&args.size, &model)?;
    let target = target(engine, Precision::Auto, model.elem)?;
    // a layer by its own name, or several as they are joined
    let joined = |rule: &Rule| *rule != Rule::Projections || layer.contains('+');
    let rules = Rule::ALL.into_iter().filter(joined).collect();
    let plans = plans(&model, width, height, &target, &PlanOptions { rules, observe: vec![] })?;
    let steps = || plans.iter().flat_map(|(_, plan)| &plan.steps);
    let here = steps().filter(|step| step.label == layer && step.op.name() == name);
    here.max_by(|a, b| a.op.flops().total_cmp(&b.op.flops())).map(|step| step.op.clone()).ok_or_else(|| {
        let mut known: Vec<_> = steps().filter(|step| step.op.name() == name).map(|step| step.label.as_str()).collect();
        let count = known.len();
        known.truncate(3);
        let known = match known.len() {
            0 => "no layer has".to_owned(),
            _ => format!("{count} layers have, such as {}", known.join(", ")),
        };
        Failure::Usage(format!("--layer {layer}: no layer of {} by this name runs {name}; {known}", model.name))
    })
}

/// A line of the table.
struct Row {
    entrant: Entrant,
    /// Operations and bytes a second.
    rates: Option<(f64, f64)>,
    /// The share of what the device could do at best, and what binds it there.
    roof: Option<(f64, String)>,
}

impl Row {
    fn of(entrant: Entrant, roof: &Roof) -> Row {
        let median = entrant.timing.map(|timing| timing.seconds.median);
        let best = roof.attainable(entrant.cost.flops, entrant.cost.bytes);
        Row {
            rates: median.map(|median| (entrant.cost.flops / median, entrant.cost.bytes / median)),
            roof: median.map(|median| (best.seconds / median, best.bound.to_string())),
            entrant,
        }
    }

    fn print(&self) {
        let Entrant { kernel, elem, weight, chosen, check, timing, .. } = &self.entrant;
        let weight = weight.map_or(String::new(), |weight| format!("{weight:?}"));
        let error = check.as_ref().map_or(String::new(), |check| format!("{:.1e}", check.nmse));
        let mark = if *chosen && check.is_some() { '*' } else { ' ' };
        let head = format!("{:26} {:5} {weight:10} {error:>8}", format!("{kernel}{mark}"), elem.to_string());
        match (timing, &self.rates, &self.roof) {
            (Some(timing), Some((flops, bytes)), Some((share, bound))) => println!(
                "{head}  {:>9} {:>6}  {:>13} {:>10}  {:>8} {bound}",
                seconds(timing.seconds.median),
                percent(timing.seconds.spread),
                si(*flops, "FLOP/s"),
                si(*bytes, "B/s"),
                percent(*share),
            ),
            _ => {
                let stray = check.as_ref().map_or(0, |check| check.stray);
                println!("{head}  FAILED: not the twin's result ({stray} bytes beside the output)");
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        let Entrant { kernel, elem, weight, chosen, check, timing, cost } = &self.entrant;
        json!({
            "kernel": kernel,
            "elem": elem.to_string(),
            "weights": weight.map(|weight| format!("{weight:?}")),
            "chosen": chosen,
            "passed": check.as_ref().map(|check| check.passed()),
            "nmse": check.as_ref().map(|check| check.nmse),
            "seconds": timing.map(|timing| timing.seconds.median),
            "spread": timing.map(|timing| timing.seconds.spread),
            "runs": timing.map(|timing| timing.seconds.runs),
            "device_clock": timing.map(|timing| timing.device_clock),
            "flops": cost.flops,
            "bytes": cost.bytes,
            "of_roof": self.roof.as_ref().map(|(share, _)| share),
            "bound": self.roof.as_ref().map(|(_, bound)| bound),
        })
    }
}
