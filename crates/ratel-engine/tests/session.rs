//! Sessions on the device at hand and on the CPU twins: same plan, same numbers.
#![allow(clippy::print_stderr)] // a skipped test must be seen

use ratel_engine::{
    DeviceChoice, Engine, EngineError, EngineOptions, Hooks, Progress, Roof, Session, Tape, TapeOptions, Tuning,
    WeightSink, WeightSource,
};
use ratel_graph::{Graph, Plan, PlanOptions, Stride, Weight};
use ratel_kernels::add::Add;
use ratel_kernels::{Op, Role, Target};
use ratel_tensor::{Elem, Layout, Shape, panel_index};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Numbers made up from the key, given in pieces that end within elements' groups but not within words.
struct MadeUp {
    piece: usize,
}

fn made_up(key: &str, i: usize) -> f32 {
    let seed = key.bytes().fold(7u32, |h, b| h.wrapping_mul(31).wrapping_add(u32::from(b)));
    let hash = (i as u32).wrapping_add(seed).wrapping_mul(2_654_435_761);
    // eleven bits: the same in half precision
    ((hash >> 21) as f32 / 1024.0 - 1.0) / 4.0
}

/// The values of a weight in its layout on the device.
fn laid_out(weight: &Weight) -> Vec<f32> {
    let in_file = (0..weight.shape.count()).map(|i| made_up(&weight.key, i));
    let (out, inputs) = match (weight.layout, &*weight.shape) {
        (Layout::AsIs, _) => return in_file.collect(),
        (_, &[out, inputs, ..]) => (out, inputs),
        _ => panic!("no such layout of {}", weight.shape),
    };
    let rows = weight.shape.count() / out;
    let taps = rows / inputs;
    let mut values = vec![f32::NAN; weight.shape.count()];
    for (i, value) in in_file.enumerate() {
        let (n, c, tap) = (i / rows, i % rows / taps, i % taps);
        values[panel_index(tap * inputs + c, n, rows, out)] = value;
    }
    values
}

impl WeightSource for MadeUp {
    fn read(
        &self,
        weight: &Weight,
        elem: Elem,
        sink: &mut WeightSink,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let values = laid_out(weight).into_iter();
        let bytes: Vec<u8> = match elem {
            Elem::F16 => values.flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect(),
            _ => values.flat_map(f32::to_le_bytes).collect(),
        };
        for (i, piece) in bytes.chunks(self.piece).enumerate() {
            sink((i * self.piece) as u64, piece)?;
        }
        Ok(())
    }
}

/// A small network with what a model has: a convolution, a norm, activations, linear layers, a residual.
fn plan(engine: &Engine, elem: Elem, weight: Elem, observe: &[&str]) -> Plan {
    let shapes = [
        ("conv1.weight", vec![32, 3, 3, 3]),
        ("conv1.bias", vec![32]),
        ("norm.weight", vec![32]),
        ("norm.bias", vec![32]),
        ("fc1.weight", vec![96, 32]),
        ("fc1.bias", vec![96]),
        ("fc2.weight", vec![32, 96]),
    ];
    let catalogue: BTreeMap<_, _> = shapes.into_iter().map(|(k, s)| (k.to_owned(), Shape::new(&s))).collect();
    let graph = Graph::new("net", catalogue);
    let w = graph.root();
    let x = graph.input("x", [2, 9, 7, 3], Role::Activation);
    let h = x.conv2d(&w.at("conv1"), Stride::SAME).group_norm(&w.at("norm"), 8, 1e-5);
    let y = h + h.silu().linear(&w.at("fc1")).silu().linear_without_bias(&w.at("fc2"));
    y.output("y");
    let finished = graph.finish(|_| false).expect("the graph is whole");
    let options = PlanOptions { observe: observe.iter().map(ToString::to_string).collect(), ..PlanOptions::default() };
    let target = engine.target(elem, weight).expect("the device has the types");
    finished.plan(&target, &options).expect("every op has a kernel")
}

fn input() -> Vec<f32> {
    (0..2 * 9 * 7 * 3).map(|i| made_up("x", i) * 4.0).collect()
}

fn load(engine: &Engine, elem: Elem, weight: Elem, observe: &[&str]) -> Session {
    let plan = plan(engine, elem, weight, observe);
    let session = engine.load(plan, &MadeUp { piece: 100 }, &mut |_| {}).expect("it loads");
    session.input("x").expect("x").write_f32(&input()).expect("x is written");
    session
}

fn run(session: &Session) -> Vec<f32> {
    session.run(&mut Hooks::default()).expect("it runs");
    session.output("y").expect("y").read_f32().expect("y is read")
}

/// The device at hand; `None`, loudly, where there is none.
fn device(options: EngineOptions) -> Option<Engine> {
    let engine = Engine::open(&DeviceChoice::Auto, options).expect("an automatic choice falls back to the twins");
    if engine.device().is_none() {
        eprintln!("SKIPPED for want of a device: {}", engine.note().unwrap_or_default());
        return None;
    }
    Some(engine)
}

fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum();
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    assert!(norm > 0.0 && difference.is_finite());
    (difference / norm).sqrt()
}

#[test]
fn device_equals_twins() {
    let twins = Engine::twins();
    let expected = run(&load(&twins, Elem::F32, Elem::F32, &[]));
    assert_eq!(run(&load(&twins, Elem::F32, Elem::F16, &[])), expected, "the weights are the same in half precision");
    for immediates in [true, false] {
        let Some(engine) = device(EngineOptions { checks: true, immediates, ..EngineOptions::default() }) else {
            return;
        };
        let f16 = engine.device().is_some_and(|info| info.f16);
        for (elem, weight, bound) in
            [(Elem::F32, Elem::F32, 1e-6), (Elem::F32, Elem::F16, 1e-6), (Elem::F16, Elem::F16, 2e-3)]
        {
            if elem == Elem::F16 && !f16 {
                continue;
            }
            let session = load(&engine, elem, weight, &[]);
            let error = relative_error(&run(&session), &expected);
            assert!(error < bound, "{elem} over {weight} weights: off by {error:e}");
            assert_eq!(run(&session), run(&session), "a run changes nothing that the next one reads");
        }
    }
}

#[test]
fn unchecked_shaders_give_the_same() {
    let [checked, unchecked] = [true, false].map(|checks| {
        let engine = device(EngineOptions { checks, ..EngineOptions::default() })?;
        Some(run(&load(&engine, Elem::F32, Elem::F32, &[])))
    });
    assert_eq!(checked, unchecked);
}

/// What a GPU gets, on whatever device is at hand: products with small results and long sums in parts.
#[test]
fn products_in_parts_give_the_same() {
    let plan = |target: &Target| {
        let shapes = [
            ("conv.weight", vec![576, 64, 3, 3]),
            ("conv.bias", vec![576]),
            ("fc.weight", vec![64, 576]),
            ("fc.bias", vec![64]),
        ];
        let catalogue: BTreeMap<_, _> = shapes.into_iter().map(|(k, s)| (k.to_owned(), Shape::new(&s))).collect();
        let graph = Graph::new("net", catalogue);
        let w = graph.root();
        let x = graph.input("x", [1, 8, 8, 64], Role::Activation);
        let h = x.conv2d(&w.at("conv"), Stride::SAME).silu();
        (h.linear(&w.at("fc")) + x).output("y");
        let options = PlanOptions { observe: vec!["net.conv".to_owned()], ..PlanOptions::default() };
        graph.finish(|_| false).expect("the graph is whole").plan(target, &options).expect("every op has a kernel")
    };
    let run_with = |engine: &Engine, target: &Target| {
        let plan = plan(target);
        let sums = plan.steps.iter().filter(|step| matches!(step.op, Op::SumParts(_))).count();
        let session = engine.load(plan, &MadeUp { piece: 100 }, &mut |_| {}).expect("it loads");
        let x: Vec<f32> = (0..8 * 8 * 64).map(|i| made_up("x", i)).collect();
        session.input("x").expect("x").write_f32(&x).expect("x is written");
        let mut seen = vec![];
        session.run_observed(&mut Hooks::default(), &mut |_, values| seen.extend(values)).expect("it runs");
        (sums, seen, session.output("y").expect("y").read_f32().expect("y is read"))
    };
    let twins = Engine::twins();
    let target = twins.target(Elem::F32, Elem::F32).expect("twins have f32");
    let (sums, expected_seen, expected) = run_with(&twins, &target);
    assert_eq!(sums, 0, "the twins gain nothing by parts");
    let Some(engine) = device(EngineOptions { checks: true, ..EngineOptions::default() }) else { return };
    let target = engine.target(Elem::F32, Elem::F32).expect("every device has f32");
    let (sums, seen, found) = run_with(&engine, &Target { software: false, ..target });
    assert_eq!(sums, 2, "both products are in parts");
    // sums of 576 products, rounded in another order
    assert!(relative_error(&seen, &expected_seen) < 5e-6);
    assert!(relative_error(&found, &expected) < 5e-6);
}

#[test]
fn observed_tensors_are_those_of_their_step() {
    let names = ["net.conv1", "net.fc1", "net.fc2", "net.norm"];
    let observe = |engine: &Engine| {
        let session = load(engine, Elem::F32, Elem::F32, &names);
        let mut seen = BTreeMap::new();
        let mut keep = |name: &str, shape: Shape, values: Vec<f32>| {
            assert_eq!(values.len(), shape.count());
            seen.insert(name.to_owned(), values);
        };
        session
            .run_observed(&mut Hooks::default(), &mut |observed, values| keep(&observed.name, observed.shape, values))
            .expect("it runs");
        (seen, session.output("y").expect("y").read_f32().expect("y is read"))
    };
    let (expected, y) = observe(&Engine::twins());
    assert_eq!(expected.keys().collect::<Vec<_>>(), names);
    assert_eq!(y, run(&load(&Engine::twins(), Elem::F32, Elem::F32, &[])), "observing changes nothing");
    let Some(engine) = device(EngineOptions::default()) else { return };
    let (found, found_y) = observe(&engine);
    for (name, values) in &expected {
        assert!(relative_error(&found[name], values) < 1e-6, "{name}");
    }
    assert!(relative_error(&found_y, &y) < 1e-6);
}

#[test]
fn memory_is_what_the_plan_says() {
    for engine in [Some(Engine::twins()), device(EngineOptions::default())].into_iter().flatten() {
        let session = load(&engine, Elem::F32, Elem::F32, &[]);
        run(&session);
        let planned = session.plan().activation_bytes() + session.plan().weight_bytes();
        let memory = engine.memory();
        // beside it, weights start at aligned offsets, and reading back takes a copy
        let most = planned + 256 * session.plan().weights.len() as u64 + session.output("y").expect("y").bytes();
        assert!((planned..=most).contains(&memory.peak), "{planned} planned, {memory:?}");
        drop(session);
        assert_eq!(engine.memory().live, 0);
        engine.reset_peak();
        assert_eq!(engine.memory().peak, 0);
    }
}

#[test]
fn every_step_takes_time() {
    for engine in [Some(Engine::twins()), device(EngineOptions::default())].into_iter().flatten() {
        let session = load(&engine, Elem::F32, Elem::F32, &[]);
        let expected = run(&session);
        let profile = session.profile(&mut Hooks::default()).expect("it runs");
        assert_eq!(profile.nanoseconds.len(), session.plan().steps.len());
        assert!(profile.nanoseconds.iter().all(|ns| (1..10_000_000_000).contains(ns)), "{profile:?}");
        assert_eq!(session.output("y").expect("y").read_f32().expect("y is read"), expected);
    }
}

/// What a tape records of a run is the plan, in order and within the time of its stage, and the run computes the same.
#[test]
fn a_tape_records_every_dispatch() {
    let options = || TapeOptions { dispatches: true, steps: 0..2 };
    for engine in [Some(Engine::twins()), device(EngineOptions::default())].into_iter().flatten() {
        let expected = run(&load(&engine, Elem::F32, Elem::F32, &[]));
        let tape = Tape::new(options());
        let taped = engine.taped(&tape);
        taped.mark("loading", None);
        let session = load(&taped, Elem::F32, Elem::F32, &[]);
        let y = session.output("y").expect("y");
        let (sum, target) = (taped.buffer(Role::Activation, y.count(), &session.plan().target), session.plan().target);
        let (sum, add) = (sum.expect("a buffer"), Add { count: y.count(), span: y.count(), period: y.count() });
        for step in 0..4 {
            taped.mark("net", Some(step));
            assert_eq!(run(&session), expected, "a tape changes no number");
            taped.mark("sum", Some(step));
            taped.run_op(&add.into(), None, &[y, y], &sum).expect("it runs");
        }
        let recording = tape.take(&taped).expect("it was recorded");
        let stages: Vec<_> = recording.spans.iter().map(|span| (span.stage, span.step)).collect();
        let steps = (0..4).flat_map(|step| [("net", Some(step)), ("sum", Some(step))]);
        assert_eq!(stages, [("loading", None)].into_iter().chain(steps).collect::<Vec<_>>());
        for pair in recording.spans.windows(2) {
            assert_eq!(pair[0].begin + pair[0].nanoseconds, pair[1].begin, "spans follow each other");
        }

        let plan = &session.plan().steps;
        let of_step = plan.iter().map(|step| step.label.as_str()).chain(["sum.add"]);
        let twice: Vec<_> = of_step.clone().map(|label| (label, 0)).chain(of_step.map(|label| (label, 1))).collect();
        let recorded: Vec<_> =
            recording.dispatches.iter().map(|d| (d.module.as_str(), d.step.expect("all belong to a step"))).collect();
        assert_eq!(recorded, twice, "the steps asked for, and no others");
        assert_eq!(recording.device_clock, engine.device().is_some_and(|info| info.timestamps));
        let end = recording.spans.last().map(|span| span.begin + span.nanoseconds).expect("spans");
        let held = session.plan().activation_bytes() + session.plan().weight_bytes();
        for (timed, step) in recording.dispatches.iter().zip(plan) {
            assert_eq!(timed.op, step.op, "the first pass is the plan");
            assert!(timed.held >= held && timed.used.is_some_and(|used| 0 < used && used <= held), "{timed:?}");
            assert!(timed.nanoseconds > 0 && timed.begin + timed.nanoseconds <= end, "{timed:?} ends by {end}");
        }
        for pair in recording.dispatches.windows(2) {
            assert!(pair[0].begin <= pair[1].begin, "in order");
        }
        assert_eq!(recording.dispatches[0].target, target);

        let plain = Tape::new(TapeOptions { dispatches: false, ..options() });
        let engine = engine.taped(&plain);
        engine.mark("net", Some(0));
        run(&load(&engine, Elem::F32, Elem::F32, &[]));
        let recording = plain.take(&engine).expect("it was recorded");
        assert!(recording.dispatches.is_empty() && recording.spans.len() == 1, "spans alone");
    }
}

#[test]
fn stops_when_told_and_tells_how_far_it_is() {
    for engine in [Some(Engine::twins()), device(EngineOptions::default())].into_iter().flatten() {
        let session = load(&engine, Elem::F32, Elem::F32, &[]);
        let stop = AtomicBool::new(true);
        let stopped = session.run(&mut Hooks { cancel: Some(&stop), progress: None });
        assert!(matches!(stopped, Err(EngineError::Cancelled)), "{stopped:?}");
        let mut last = None;
        let mut progress = |progress: Progress| last = Some(progress);
        session.run(&mut Hooks { cancel: None, progress: Some(&mut progress) }).expect("it runs");
        let total = session.plan().steps.len() as u64;
        assert_eq!(last, Some(Progress { done: total, total }));
    }
}

/// Runs that are started one after the other compute what runs that are waited for do, and points tell how far they are.
#[test]
fn the_host_runs_ahead() {
    for engine in [Some(Engine::twins()), device(EngineOptions::default())].into_iter().flatten() {
        let session = load(&engine, Elem::F32, Elem::F32, &[]);
        let expected = run(&session);
        let y = session.output("y").expect("y");
        let target = session.plan().target;
        let sums = [0, 1].map(|_| engine.buffer(Role::Activation, y.count(), &target).expect("a buffer"));
        let add = Op::from(Add { count: y.count(), span: y.count(), period: y.count() });
        let zeros = vec![0.0; y.count()];
        sums[0].write_f32(&zeros).expect("it is written");
        let mut points = vec![];
        for step in 0..6 {
            // the device takes what is written here after what it was given before
            session.input("x").expect("x").write_f32(&input()).expect("x is written");
            session.start_again(&mut Hooks::default()).expect("it starts");
            session.input("x").expect("x").write_f32(&[0.0; 378]).expect("x is written");
            engine.run_op(&add, None, &[&sums[step % 2], y], &sums[(step + 1) % 2]).expect("it runs");
            points.push(engine.point().expect("a point"));
        }
        engine.reach(points.last().expect("six")).expect("the device gets there");
        assert!(points.iter().all(ratel_engine::Point::is_reached), "in order");
        let six: Vec<f32> = (0..6).fold(zeros, |sum, _| sum.iter().zip(&expected).map(|(s, y)| s + y).collect());
        assert_eq!(sums[0].read_f32().expect("it is read"), six);

        let stop = AtomicBool::new(true);
        let stopped = session.start_again(&mut Hooks { cancel: Some(&stop), progress: None });
        assert!(matches!(stopped, Err(EngineError::Cancelled)), "{stopped:?}");
    }
}

/// A flag that is set stops whatever takes long, and what it stopped works again.
#[test]
fn everything_long_can_be_stopped() {
    for engine in [Some(Engine::twins()), device(EngineOptions::default())].into_iter().flatten() {
        let stop = Arc::new(AtomicBool::new(false));
        let engine = engine.stopped_by(stop.clone());
        let session = load(&engine, Elem::F32, Elem::F32, &[]);
        let plan = || plan(&engine, Elem::F32, Elem::F32, &[]);
        stop.store(true, Ordering::Relaxed);
        let cancelled =
            |result: Result<(), EngineError>| assert!(matches!(result, Err(EngineError::Cancelled)), "{result:?}");
        cancelled(session.run(&mut Hooks::default()));
        cancelled(engine.load(plan(), &MadeUp { piece: 100 }, &mut |_| {}).map(drop));
        cancelled(Roof::measure(&engine, &mut |_| {}).map(drop));
        let folder = tempfile::tempdir().expect("a folder");
        let budget = Duration::from_secs(60);
        let tuning = Tuning { folder: Some(folder.path().to_owned()), force: false, budget };
        let tuned = engine.clone().tuned(tuning, |_| {});
        cancelled(tuned.load(plan(), &MadeUp { piece: 100 }, &mut |_| {}).map(drop));
        stop.store(false, Ordering::Relaxed);
        session.run(&mut Hooks::default()).expect("it runs");
    }
}

/// Set in the middle of a tuning, the flag ends it there.
#[test]
fn tuning_stops_in_the_middle() {
    let Some(engine) = device(EngineOptions::default()) else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let (setter, shapes) = (stop.clone(), Arc::new(Mutex::new(0)));
    let count = shapes.clone();
    let tuning = Tuning { folder: None, force: false, budget: Duration::from_secs(60) };
    let engine = engine.stopped_by(stop).tuned(tuning, move |progress| {
        setter.store(progress.done == 1, Ordering::Relaxed);
        *count.lock().expect("one thread") += 1;
    });
    let stopped = engine.load(plan(&engine, Elem::F32, Elem::F32, &[]), &MadeUp { piece: 100 }, &mut |_| {});
    assert!(matches!(stopped, Err(EngineError::Cancelled)), "{:?}", stopped.map(drop));
    assert_eq!(*shapes.lock().expect("one thread"), 3, "two shapes begun, and the end");
}

/// The first load builds the pipelines; the second one finds them; a kept store of the driver's changes no number, whatever
/// became of its file.
#[test]
fn pipelines_are_built_once_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || device(EngineOptions { pipelines: Some(folder.path().to_owned()), ..EngineOptions::default() });
    let Some(engine) = open() else { return };
    let session = load(&engine, Elem::F32, Elem::F32, &[]);
    let expected = run(&session);
    let loading = session.loading();
    assert!(loading.built >= 3 && loading.whole >= loading.pipelines.max(loading.weights), "{loading:?}");
    assert_eq!(load(&engine, Elem::F32, Elem::F32, &[]).loading().built, 0);

    let files = || std::fs::read_dir(folder.path()).expect("the folder").map(|file| file.expect("a file").path());
    let kept = engine.device().is_some_and(|info| info.pipeline_cache);
    assert_eq!(files().count(), usize::from(kept), "one file where wgpu has pipeline caches");
    for damage in 0..3 {
        assert_eq!(run(&load(&open().expect("there was one"), Elem::F32, Elem::F32, &[])), expected, "{damage}");
        for file in files() {
            let mut bytes = std::fs::read(&file).expect("a file");
            assert!(bytes.starts_with(b"RATELPC1"));
            match damage {
                0 => bytes.truncate(bytes.len() / 2),
                _ => bytes.iter_mut().skip(8).for_each(|byte| *byte ^= 0x55),
            }
            std::fs::write(&file, bytes).expect("damage");
        }
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let engine = Engine::twins();
    let session = load(&engine, Elem::F32, Elem::F32, &[]);
    let error = |result: Result<(), EngineError>| result.expect_err("it does not fit").to_string();
    let x = session.input("x").expect("x");
    assert!(error(x.write_f32(&[1.0])).contains("378 values"));
    assert!(error(x.write_u32(&[1; 378])).contains("ids"));
    assert!(error(session.input("z").map(drop)).contains("no input `z`; it has x"));

    struct Short;
    impl WeightSource for Short {
        fn read(
            &self,
            _: &Weight,
            _: Elem,
            sink: &mut WeightSink,
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Ok(sink(0, &[0; 8])?)
        }
    }
    struct Long;
    impl WeightSource for Long {
        fn read(
            &self,
            weight: &Weight,
            _: Elem,
            sink: &mut WeightSink,
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Ok(sink(weight.bytes, &[0; 4])?)
        }
    }
    struct Broken;
    impl WeightSource for Broken {
        fn read(
            &self,
            _: &Weight,
            _: Elem,
            _: &mut WeightSink,
        ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
            Err("the file ends too early".into())
        }
    }
    let plan = || plan(&engine, Elem::F32, Elem::F32, &[]);
    for (source, message) in
        [(&Short as &dyn WeightSource, "gave 8"), (&Long, "gave 4 at"), (&Broken, "the file ends too early")]
    {
        assert!(error(engine.load(plan(), source, &mut |_| {}).map(drop)).contains(message));
    }
    if let Some(device) = device(EngineOptions::default()) {
        assert!(error(device.load(plan(), &Broken, &mut |_| {}).map(drop)).contains("made for the CPU twins"));
    }
}

#[test]
fn tuned_once_for_each_shape_and_the_same_within_rounding() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(engine) = device(EngineOptions::default()) else { return };
    let expected = run(&load(&engine, Elem::F32, Elem::F32, &[]));
    let tuned = |force, budget| {
        let said = Arc::new(Mutex::new(Vec::new()));
        let tuning = Tuning { folder: Some(folder.path().to_owned()), force, budget: Duration::from_secs(budget) };
        let hear = said.clone();
        let engine = device(EngineOptions::default()).expect("there was one");
        let engine = engine.tuned(tuning, move |progress| hear.lock().expect("one thread").push(progress));
        let result = run(&load(&engine, Elem::F32, Elem::F32, &[]));
        let error = relative_error(&result, &expected);
        assert!(error < 1e-6, "off by {error:e}");
        load(&engine, Elem::F32, Elem::F32, &[]); // once more: what is known is not timed again
        said.lock().expect("one thread").clone()
    };
    assert_eq!(tuned(false, 0).len(), 2, "no time, nothing timed: only the end is told, for each load");
    let said = tuned(false, 60);
    let total = said[0].total;
    let shapes: Vec<u64> = said.iter().map(|progress| progress.done).collect();
    assert_eq!(shapes, (0..=total).collect::<Vec<_>>(), "{total} shapes");
    assert!(total >= 2, "there is a choice for both linear layers");
    assert!(tuned(false, 60).is_empty(), "it was kept");
    assert_eq!(tuned(true, 60).len(), said.len(), "and timed anew when that is asked for");

    let file = std::fs::read_dir(folder.path()).expect("the folder").next().expect("a file").expect("an entry").path();
    std::fs::write(&file, "{").expect("damage");
    assert_eq!(tuned(false, 60).len(), said.len(), "a damaged file counts for nothing");
}
