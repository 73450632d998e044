//! What a device costs the host: the time that the thread computes which records and submits, waiting not counted.
//!
//! `cargo bench -p ratel-benches --bench host`. The throughput is in dispatches.

use cpu_time::ThreadTime;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ratel_diffusion::model::Model;
use ratel_engine::{Buffer, DeviceChoice, Engine, EngineOptions, Hooks, Session};
use ratel_graph::PlanOptions;
use ratel_kernels::add::Add;
use ratel_kernels::{Op, Role};
use ratel_models::Architecture;
use ratel_tensor::Elem;
use std::time::Duration;

/// A UNet of Stable Diffusion's architecture, small enough that hardly anything is computed.
fn unet(engine: &Engine) -> Session {
    let toy = Model::of_architecture(&Architecture::toy(), 0).expect("the toy");
    let target = engine.target(Elem::F32, Elem::F16).expect("every device has these");
    let graph = toy.unet_graph(2, 8, 8).expect("a graph");
    let plan = graph.plan(&target, &PlanOptions::default()).expect("a plan");
    engine.load(plan, &*toy.weights, &mut |_| {}).expect("it fits every device")
}

/// Seconds of this thread in which `work` is done so many times.
fn computed(engine: &Engine, times: u64, mut work: impl FnMut()) -> Duration {
    let begun = ThreadTime::now();
    (0..times).for_each(|_| work());
    let computed = begun.elapsed();
    engine.finish().expect("the device is there");
    computed
}

fn host(criterion: &mut Criterion) {
    let options = EngineOptions { checks: false, ..EngineOptions::default() };
    let engine = Engine::open(&DeviceChoice::Auto, options).expect("the twins are always there");
    if engine.device().is_none() {
        return; // the twins compute on this thread
    }
    let mut group = criterion.benchmark_group("host");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));

    let session = unet(&engine);
    group.throughput(Throughput::Elements(session.plan().steps.len() as u64));
    let run = || session.run(&mut Hooks::default()).expect("it ran before");
    group.bench_function("a UNet's plan, in few submissions", |b| b.iter_custom(|times| computed(&engine, times, run)));

    let target = session.plan().target;
    let buffer = || engine.buffer(Role::Activation, 64, &target).expect("a small buffer");
    let (a, b, sum): (Buffer, Buffer, Buffer) = (buffer(), buffer(), buffer());
    let op = Op::from(Add { count: 64, span: 64, period: 64 });
    let run = || engine.run_op(&op, None, &[&a, &b], &sum).expect("it ran before");
    group.throughput(Throughput::Elements(1));
    group.bench_function("one op, bound and submitted by itself", |b| {
        b.iter_custom(|times| computed(&engine, times, run))
    });
    group.finish();
}

criterion_group!(benches, host);
criterion_main!(benches);
