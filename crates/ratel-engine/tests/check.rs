//! That a check fails when it must: kernels spoilt on purpose, through a shader directory.
#![allow(clippy::print_stderr)] // a skipped test must be seen

use ratel_engine::{Check, DeviceChoice, Engine, EngineError, EngineOptions};
use ratel_kernels::add::Add;
use ratel_kernels::{Op, Shaders, WeightStorage};
use ratel_tensor::Elem;
use std::fs;

const SUM: &str = "y[i] = Elem(f32(a[i]) + f32(b[i / p.span * p.period + i % p.period]));";

/// Checks `add` with the line that computes the sum replaced. `None`, loudly, where there is no device.
fn check(line: &str, elem: Elem) -> Option<Result<Check, EngineError>> {
    let shaders = tempfile::tempdir().expect("a temporary directory");
    let original = include_str!("../../../shaders/pointwise/add.wgsl");
    assert!(original.contains(SUM), "this test knows the kernel's line");
    fs::create_dir(shaders.path().join("pointwise")).expect("a folder");
    fs::write(shaders.path().join("pointwise/add.wgsl"), original.replace(SUM, line)).expect("a file");

    let options = EngineOptions { shaders: Shaders::Directory(shaders.path().to_owned()), ..EngineOptions::default() };
    let engine = Engine::open(&DeviceChoice::Auto, options).expect("an automatic choice falls back to the twins");
    let f16 = engine.device().map(|info| info.f16);
    if f16.is_none() || (elem == Elem::F16 && f16 == Some(false)) {
        eprintln!("SKIPPED: {} can't be tested on {}", elem, engine.name());
        return None;
    }
    let op = Op::from(Add { count: 35, span: 35, period: 7 });
    let weight = if elem == Elem::F16 { WeightStorage::F16 } else { WeightStorage::F32 };
    Some(engine.check(&op, None, elem, weight, 1))
}

fn checked(line: &str, elem: Elem) -> Option<Check> {
    check(line, elem).map(|result| result.expect("it runs"))
}

#[test]
fn the_kernel_passes() {
    for elem in [Elem::F32, Elem::F16] {
        if let Some(check) = checked(SUM, elem) {
            assert!(check.passed() && check.compared == 35 && check.scale > 1.0, "{check:?}");
        }
    }
}

#[test]
fn a_wrong_value_fails() {
    let wrong = SUM.replace("y[i] =", "if i == 3u { y[i] = 0; return; } y[i] =");
    if let Some(check) = checked(&wrong, Elem::F32) {
        assert!(!check.passed() && check.nmse > 1e-4 && check.stray == 0, "{check:?}");
    }
}

#[test]
fn a_value_left_out_fails() {
    let wrong = SUM.replace("y[i] =", "if i == 3u { return; } y[i] =");
    if let Some(check) = checked(&wrong, Elem::F32) {
        assert!(!check.passed() && check.nmse.is_infinite(), "{check:?}");
    }
}

#[test]
fn a_write_outside_fails() {
    // 35 halves end within a word: the 36th place is there, and not the kernel's
    let wrong = format!("{SUM} y[p.count] = Elem(1.0);");
    if let Some(check) = checked(&wrong, Elem::F16) {
        assert!(!check.passed() && check.nmse < 1e-6 && check.stray > 0, "{check:?}");
    }
}

#[test]
fn a_mistake_is_shown_at_its_line() {
    for (wrong, why) in [("y[i] = ;", "expected"), ("y[i] = 1u;", "convert"), ("y[i] = z;", "z")] {
        let Some(result) = check(wrong, Elem::F32) else { return };
        let error = result.expect_err("it does not compile").to_string();
        let (file, says) = error.split_once(":34:").unwrap_or_else(|| panic!("{error}"));
        assert!(file.ends_with("pointwise/add.wgsl") && says.contains(why) && !error.contains('\n'), "{error}");
    }
}
