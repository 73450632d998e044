//! Matrix products and convolutions of SD 1.5 at 256 px (a guided step, VAE decode): every kernel that can do them here,
//! beside the CPU twin. Weights in half precision, activations in `f32`.
//!
//! `cargo bench -p ratel-benches --bench kernels -- conv2d` runs a part. The throughput is in flop: Gelem/s are GFLOP/s.

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use ratel_engine::{Buffer, DeviceChoice, Engine, EngineError, EngineOptions};
use ratel_kernels::conv2d::Conv2d;
use ratel_kernels::matmul::Matmul;
use ratel_kernels::{Op, kernels_of};
use ratel_tensor::Elem;
use std::time::Duration;

/// The ops, by a name that says their sizes.
fn ops() -> Vec<(String, Op)> {
    let matmul = |m, n, k| {
        let op = Matmul { m, n, k, k1: k, bias: true, ..Matmul::default() };
        (format!("matmul {m}x{n}x{k}"), op.into())
    };
    let conv = |batch, size, c, n| {
        let (window, pad) = ([3, 3], [1, 1]);
        let op = Conv2d { batch, h: size, w: size, c, c1: c, n, window, stride: 1, pad, ..Conv2d::default() };
        let op = Conv2d { out_h: size, out_w: size, bias: true, ..op };
        (format!("conv2d {batch}x{size}x{size}x{c} to {n}"), op.into())
    };
    vec![
        matmul(1024, 1024, 1024),
        matmul(2048, 320, 320),
        matmul(2048, 2560, 320),
        matmul(2048, 320, 1280),
        matmul(512, 640, 640),
        matmul(128, 10240, 1280),
        matmul(2, 1280, 1280),
        conv(2, 32, 320, 320),
        conv(2, 16, 640, 640),
        conv(2, 8, 1280, 1280),
        conv(2, 4, 1280, 1280),
        conv(1, 64, 512, 512),
        conv(1, 128, 256, 256),
        conv(1, 128, 128, 128),
        conv(2, 32, 4, 320),
        conv(2, 32, 320, 4),
    ]
}

/// Times every kernel for `op` on `engine`, or its twin where the engine is the CPU twins.
fn time(group: &mut BenchmarkGroup<WallTime>, engine: &Engine, op: &Op) -> Result<(), EngineError> {
    let target = engine.target(Elem::F32, Elem::F16)?;
    let operands = op.operands();
    let mut buffers = Vec::new();
    for operand in &operands {
        let buffer = engine.buffer(operand.role, operand.count, &target)?;
        let noise: Vec<f32> = (0..operand.count).map(|i| (i * 7919 % 1013) as f32 / 1013.0 - 0.5).collect();
        buffer.write_f32(&noise)?;
        buffers.push(buffer);
    }
    let Some((output, inputs)) = buffers.split_last() else { return Ok(()) };
    let inputs: Vec<&Buffer> = inputs.iter().collect();
    let choices = kernels_of(op, &target).into_iter().map(Some);
    let choices: Vec<_> = if engine.device().is_some() { choices.collect() } else { vec![None] };
    for choice in choices {
        let run = || engine.run_op(op, choice.as_ref(), &inputs, output).and_then(|()| engine.finish());
        run()?; // compiles
        let name = choice.as_ref().map_or("twin", |choice| choice.kernel.name);
        group.bench_function(name, |bencher| bencher.iter(|| run().expect("it ran before")));
    }
    Ok(())
}

fn kernels(criterion: &mut Criterion) {
    let options = EngineOptions { checks: false, ..EngineOptions::default() };
    let device = Engine::open(&DeviceChoice::Auto, options).expect("the twins are always there");
    for (name, op) in ops() {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(op.flops() as u64));
        group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
        for engine in [&device, &Engine::twins()] {
            time(&mut group, engine, &op).expect("these sizes fit every device");
        }
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
