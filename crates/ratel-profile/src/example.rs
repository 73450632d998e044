//! A made-up profile for tests, with numbers that are easy to add up.

use crate::{Clock, Dispatch, Profile, Run, Span, Unit};
use ratel_engine::Roof;

/// A device whose ridge lies at ten operations a byte.
pub(crate) fn roof() -> Roof {
    Roof {
        device: "Some GPU".to_owned(),
        driver: "1.0".to_owned(),
        f32_flops: 1e12,
        f16_flops: None,
        matrix_flops: None,
        copy_bytes: 1e11,
        workgroup_bytes: 1e12,
        dispatch_seconds: 5e-6,
        probes: vec![],
    }
}

/// Two steps of a UNet of a convolution and a norm, and a sampler's update; three runs.
pub(crate) fn profile() -> Profile {
    let run = Run {
        version: 1,
        program: "ratel 0.0.0".to_owned(),
        device: "Some GPU".to_owned(),
        driver: "1.0".to_owned(),
        clock: Clock::Device,
        model: "a \"model\", <b>bold</b>".to_owned(),
        width: 64,
        height: 64,
        batch: 1,
        sampler: "euler".to_owned(),
        steps: 2,
        recorded_steps: [0, 2],
        cfg_scale: 7.5,
        precision: "f32 activations, f32 weights".to_owned(),
        rules: vec!["bias".to_owned()],
        peak_bytes: 4000,
        first_step_ns: Some(12_000_000),
        roof: Some(roof()),
    };
    let span = |stage: &str, step, begin_ns, ns: [u64; 3]| Span {
        stage: stage.to_owned(),
        step,
        begin_ns,
        ns: ns.to_vec(),
        plain_ns: ns.iter().map(|ns| ns * 9 / 10).collect(),
        cpu_ns: ns.iter().map(|ns| ns / 20).collect(),
    };
    let mut spans = vec![span("loading", None, 0, [1_000_000; 3])];
    let mut dispatches = Vec::new();
    for step in 0..2 {
        let begin = 1_000_000 + 5_000_000 * step as u64;
        spans.push(span("unet", Some(step), begin, [4_000_000, 4_200_000, 4_100_000]));
        spans.push(span("sampler", Some(step), begin + 4_000_000, [1_000_000; 3]));
        let dispatch = |module: &str, kernel: &str, flops, bytes, begin_ns, ns: [u64; 3]| Dispatch {
            stage: module.split('.').next().unwrap_or_default().to_owned(),
            step: Some(step),
            module: module.to_owned(),
            op: kernel.split('_').next().unwrap_or_default().to_owned(),
            shape: "1x8x8x32 3x3 -> 32".to_owned(),
            kernel: kernel.to_owned(),
            variant: "f32 activations, f32 weights, ACT=1 BIAS=1".to_owned(),
            file: Some(format!("shaders/conv/{kernel}.wgsl")),
            workgroups: Some([8, 2, 1]),
            flops,
            bytes,
            unit: Unit::F32,
            begin_ns,
            ns: ns.to_vec(),
            held_bytes: 4000,
            used_bytes: module.starts_with("unet").then_some(3000 + 100 * step as u64),
        };
        dispatches.extend([
            // at half of the compute roof, at a quarter of the memory's, and far too small
            dispatch(
                "unet.down_blocks.0.resnets.0.conv1",
                "conv2d_tiled",
                1e9,
                1e7,
                begin,
                [2_000_000, 2_200_000, 2_100_000],
            ),
            dispatch("unet.down_blocks.0.resnets.0.norm1", "group_norm", 1e6, 2.5e7, begin + 2_000_000, [1_000_000; 3]),
            // begins before the norm has ended
            dispatch("sampler.combine", "combine", 100.0, 1000.0, begin + 2_900_000, [200_000; 3]),
        ]);
    }
    Profile { run, spans, dispatches }
}
