//! The microkernels of `shaders/roofline`, each checked, then timed at a size that fills the device.

use super::{Probe, Roof};
use crate::check::{Random, compare};
use crate::time::{Summary, Timing};
use crate::{Buffer, DeviceKind, Engine, EngineError};
use half::f16;
use ratel_kernels::roof_copy::RoofCopy;
use ratel_kernels::roof_empty::RoofEmpty;
use ratel_kernels::roof_fma::RoofFma;
use ratel_kernels::roof_matrix::RoofMatrix;
use ratel_kernels::roof_workgroup::RoofWorkgroup;
use ratel_kernels::{Op, Target, Values, ValuesMut, WeightStorage};
use ratel_tensor::Elem;
use std::time::Duration;

/// The time that each microkernel is measured for, and that each number of chains is tried for.
const BUDGET: Duration = Duration::from_millis(400);
const TRIAL: Duration = Duration::from_millis(60);
/// Seconds that one dispatch is to take: many times what a dispatch costs by itself, and no watchdog's business.
const DISPATCH: f64 = 10e-3;
/// Rounds of a microkernel before it is known how many fill that time.
const FIRST_ROUNDS: usize = 64;
/// The largest buffers to copy: twice so much is several times the largest cache.
const COPIED: u64 = 256 << 20;
/// The smallest ones that say anything.
const COPIED_AT_LEAST: u64 = 16 << 20;
/// Chains, in fours, of which the best number is taken: it depends on how many registers there are.
const CHAINS: [usize; 4] = [2, 3, 4, 6];

/// Measures every figure of a roof.
pub(super) fn measure(engine: &Engine, progress: &mut dyn FnMut(&str)) -> Result<Roof, EngineError> {
    let (device, driver) = Roof::owner(engine);
    let mut probes = Vec::new();
    let mut rate = |op: &Op, what: String, timing: Timing, units: f64| {
        let Summary { median, spread, runs } = timing.seconds;
        let rate = units / median;
        probes.push(Probe { kernel: op.name().to_owned(), what, median: rate, spread, runs });
        rate
    };
    let full = engine.target_stored(Elem::F32, WeightStorage::F32)?;
    // on the twins f16 is computed as f32
    let f16 = engine.device().is_some_and(|info| info.f16);
    let half = f16.then(|| engine.target_stored(Elem::F16, WeightStorage::F16)).transpose()?;

    progress("copying");
    let (op, timing) = copy(engine, &full)?;
    let bytes = op.cost(&full).bytes;
    let copy_bytes = rate(&op, format!("{} MiB to as many", bytes as u64 >> 21), timing, bytes);

    progress("multiplying and adding in f32");
    let mut fma = |target: &Target| {
        let (op, timing) = multiply_add(engine, target)?;
        let what = format!("{} in {} chains of {}", target.elem, 4 * op.chains, op.rounds);
        let op = Op::from(op);
        Ok::<_, EngineError>(rate(&op, what, timing, op.flops()))
    };
    let f32_flops = fma(&full)?;
    let f16_flops = match half {
        Some(target) => {
            progress("multiplying and adding in f16");
            Some(fma(&target)?)
        }
        None => None,
    };

    let matrix_flops = match half.and_then(|target| Some((target, target.cooperative?))) {
        Some((target, edge)) => {
            progress("multiplying cooperative matrices");
            let (op, timing) = matrix(engine, &target, edge as usize)?;
            let what = format!("{edge}x{edge}, {} chains of {}", op.chains, op.rounds);
            let op = Op::from(op);
            Some(rate(&op, what, timing, op.flops()))
        }
        None => None,
    };

    progress("reading workgroup memory");
    let (op, timing) = workgroup(engine, &full)?;
    let bytes = op.workgroup_bytes();
    let what = format!("{} KiB in each workgroup", RoofWorkgroup::SIZE * 4 / 1024);
    let workgroup_bytes = rate(&op.into(), what, timing, bytes);

    progress("dispatching");
    let timing = empty(engine, &full)?;
    let Summary { median: dispatch_seconds, spread, runs } = timing.seconds;
    let (kernel, what) = ("roof_empty".to_owned(), "one after the other".to_owned());
    probes.push(Probe { kernel, what, median: dispatch_seconds, spread, runs });

    Ok(Roof {
        device,
        driver,
        f32_flops,
        f16_flops,
        matrix_flops,
        copy_bytes,
        workgroup_bytes,
        dispatch_seconds,
        probes,
    })
}

/// Buffers as large as the device allows, but for those that would be larger than need be.
fn copy(engine: &Engine, target: &Target) -> Result<(Op, Timing), EngineError> {
    checked(engine, &RoofCopy { count: 4096 }.into(), target)?;
    let mut bytes = COPIED.min(target.limits.binding_bytes).min(target.limits.buffer_bytes) / 16 * 16;
    loop {
        match copy_of(engine, target, bytes as usize / 4) {
            Err(EngineError::OutOfMemory { .. }) if bytes >= 2 * COPIED_AT_LEAST => bytes = bytes / 32 * 16,
            result => return result,
        }
    }
}

fn copy_of(engine: &Engine, target: &Target, count: usize) -> Result<(Op, Timing), EngineError> {
    const PIECE: usize = 4 << 20;
    let op = Op::from(RoofCopy { count });
    let [x, y] = buffers(engine, &op, target)?;
    // random numbers, since what is easily compressed may be copied faster
    let piece = random(PIECE.min(count));
    for at in (0..count).step_by(PIECE) {
        let values = &piece[..PIECE.min(count - at)];
        x.allocation.write(4 * at as u64, bytemuck::cast_slice(values))?;
    }
    let timing = engine.time(&op, None, target, &[x.region(), y.region()], BUDGET)?;
    // some of the first piece, of one in the middle, and of the last
    for at in [0, count / 2 / PIECE * PIECE, (count - 1) / PIECE * PIECE] {
        let values = (count - at).min(256);
        let copied: Vec<f32> = bytemuck::pod_collect_to_vec(&y.allocation.read(4 * at as u64, 4 * values as u64)?);
        expect(&op, copied == piece[..values])?;
    }
    Ok((op, timing))
}

/// With as many chains as suit the device's registers.
fn multiply_add(engine: &Engine, target: &Target) -> Result<(RoofFma, Timing), EngineError> {
    let x: Vec<f32> = random(values(engine)).into_iter().map(|x| f16::from_f32(x).to_f32()).collect();
    let op = |chains, count, rounds| RoofFma { count, chains, rounds };
    let mut best: Option<(f64, RoofFma)> = None;
    for chains in CHAINS {
        let make = |count, rounds| op(chains, count, rounds).into();
        checked(engine, &make(300, 64), target)?;
        let rounds = rounds_to_fill(engine, target, &x, &make)?;
        let timing = time(engine, target, &x, &make, rounds, TRIAL)?;
        let flops = make(x.len(), rounds).flops() / timing.seconds.median;
        if best.as_ref().is_none_or(|(most, _)| flops > *most) {
            best = Some((flops, op(chains, x.len(), rounds)));
        }
    }
    let (_, best) = best.ok_or_else(|| EngineError::NoKernel { op: "roof_fma".to_owned(), device: engine.name() })?;
    let make = |count, rounds| op(best.chains, count, rounds).into();
    Ok((best, time(engine, target, &x, &make, best.rounds, BUDGET)?))
}

/// With as many chains as suit the device's registers.
fn matrix(engine: &Engine, target: &Target, edge: usize) -> Result<(RoofMatrix, Timing), EngineError> {
    let x = |op: &RoofMatrix| -> Vec<f32> {
        random((op.chains + 1) * edge * edge).into_iter().map(|x| f16::from_f32(x).to_f32()).collect()
    };
    let count = values(engine) / 1024;
    let mut best: Option<(f64, RoofMatrix, Timing)> = None;
    for chains in [2, 4, 8] {
        let of = |count, rounds| RoofMatrix { count, edge, chains, rounds };
        checked(engine, &of(9, 64).into(), target)?;
        let time = |rounds, budget| -> Result<Timing, EngineError> {
            let (op, few) = (Op::from(of(count, rounds)), Op::from(of(1, rounds)));
            let [x_buffer, y_buffer] = buffers(engine, &op, target)?;
            let x = x(&of(count, rounds));
            x_buffer.write_f32(&x)?;
            let timing = engine.time(&op, None, target, &[x_buffer.region(), y_buffer.region()], budget)?;
            let mut expected = vec![0.0; few.output().count];
            few.twin(&[Values::F32(&x)], ValuesMut::F32(&mut expected));
            let (nmse, ..) = compare(&y_buffer.read_f32()?[..expected.len()], &expected);
            expect(&op, nmse <= op.tolerance(target.elem))?;
            Ok(timing)
        };
        let once = time(FIRST_ROUNDS, Duration::ZERO)?.seconds.median;
        // sums grow all the time and lose bits: not more rounds than that
        let rounds = (FIRST_ROUNDS as f64 * (DISPATCH / once.max(1e-9)).clamp(1.0, 1e3)) as usize;
        let op = of(count, rounds.next_multiple_of(8));
        let timing = time(op.rounds, BUDGET / 2)?;
        let flops = Op::from(op).flops() / timing.seconds.median;
        if best.as_ref().is_none_or(|(most, ..)| flops > *most) {
            best = Some((flops, op, timing));
        }
    }
    let (_, op, timing) =
        best.ok_or_else(|| EngineError::NoKernel { op: "roof_matrix".to_owned(), device: engine.name() })?;
    Ok((op, timing))
}

fn workgroup(engine: &Engine, target: &Target) -> Result<(RoofWorkgroup, Timing), EngineError> {
    let make = |count, rounds| RoofWorkgroup { count, rounds }.into();
    checked(engine, &make(300, 1024), target)?;
    let x = random(RoofWorkgroup::SIZE);
    let rounds = rounds_to_fill(engine, target, &x, &make)?;
    let timing = time(engine, target, &x, &make, rounds, BUDGET)?;
    Ok((RoofWorkgroup { count: values(engine), rounds }, timing))
}

fn empty(engine: &Engine, target: &Target) -> Result<Timing, EngineError> {
    let op = Op::from(RoofEmpty);
    checked(engine, &op, target)?;
    let [y] = buffers(engine, &op, target)?;
    engine.time(&op, None, target, &[y.region()], BUDGET)
}

/// An op of so many values and rounds.
type Make<'a> = &'a dyn Fn(usize, usize) -> Op;

/// So many rounds that a dispatch takes [`DISPATCH`].
fn rounds_to_fill(engine: &Engine, target: &Target, x: &[f32], make: Make) -> Result<usize, EngineError> {
    let once = time(engine, target, x, make, FIRST_ROUNDS, Duration::ZERO)?.seconds.median;
    let rounds = FIRST_ROUNDS as f64 * (DISPATCH / once.max(1e-9)).clamp(1.0, 1e5);
    Ok((rounds as usize).next_multiple_of(8))
}

/// Times an op that fills the device, and looks at its first results.
fn time(
    engine: &Engine,
    target: &Target,
    x: &[f32],
    make: Make,
    rounds: usize,
    budget: Duration,
) -> Result<Timing, EngineError> {
    let op = make(values(engine), rounds);
    let [x_buffer, y_buffer] = buffers(engine, &op, target)?;
    x_buffer.write_f32(x)?;
    let timing = engine.time(&op, None, target, &[x_buffer.region(), y_buffer.region()], budget)?;

    let few = make(64, rounds);
    let mut expected = vec![0.0; 64];
    few.twin(&[Values::F32(&x[..few.operands()[0].count])], ValuesMut::F32(&mut expected));
    let (nmse, ..) = compare(&y_buffer.read_f32()?[..64], &expected);
    expect(&op, nmse <= op.tolerance(target.elem))?;
    Ok(timing)
}

/// Enough values to keep every core of any device busy.
fn values(engine: &Engine) -> usize {
    match engine.device() {
        Some(info) if info.kind != DeviceKind::Software => 4 << 20,
        _ => 16 << 10,
    }
}

/// An op's operands on the device, nothing in them yet.
fn buffers<const N: usize>(engine: &Engine, op: &Op, target: &Target) -> Result<[Buffer; N], EngineError> {
    let made = op.operands().iter().map(|o| engine.buffer(o.role, o.count, target)).collect::<Result<Vec<_>, _>>()?;
    made.try_into().map_err(|_| EngineError::Operands { op: op.name().to_owned(), what: format!("not {N} operands") })
}

/// Compares an op with its twin; on the twins there is nothing to compare.
fn checked(engine: &Engine, op: &Op, target: &Target) -> Result<(), EngineError> {
    match engine.device() {
        Some(_) => expect(op, engine.check(op, None, target.elem, target.weight, 0)?.passed()),
        None => Ok(()),
    }
}

fn expect(op: &Op, right: bool) -> Result<(), EngineError> {
    if right { Ok(()) } else { Err(EngineError::Wrong { op: format!("{op:?}") }) }
}

/// Uniform in -1 to 1.
fn random(count: usize) -> Vec<f32> {
    let mut random = Random(1);
    (0..count).map(|_| random.signed()).collect()
}
