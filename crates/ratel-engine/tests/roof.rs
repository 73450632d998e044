//! The roof of the device at hand and of the CPU twins: measured once, found again, measured anew where what was kept is
//! no good. No figure is held against a number: machines differ.
#![allow(clippy::print_stderr)] // a skipped test must be seen

use ratel_engine::{DeviceChoice, Engine, EngineOptions, Roof};
use std::fs;
use std::path::Path;

/// The roof, and what was said while it was measured.
fn cached(folder: &Path, engine: &Engine) -> (Roof, Vec<String>) {
    let mut said = Vec::new();
    let roof = Roof::cached_in(Some(folder), engine, &mut |what| said.push(what.to_owned()));
    (roof.expect("it can be measured"), said)
}

#[test]
fn measured_once_and_anew_when_what_was_kept_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::twins();
    let (roof, said) = cached(folder.path(), &engine);
    assert!(said.len() >= 4, "what is measured is said: {said:?}");
    let figures = [roof.f32_flops, roof.copy_bytes, roof.workgroup_bytes, roof.dispatch_seconds];
    assert!(figures.iter().all(|figure| figure.is_finite() && *figure > 0.0), "{roof:?}");
    assert_eq!((roof.f16_flops, roof.matrix_flops), (None, None), "the twins compute in f32");
    assert!(roof.probes.iter().all(|probe| probe.runs > 0 && probe.spread >= 0.0), "{:?}", roof.probes);

    let (again, said) = cached(folder.path(), &engine);
    assert!(said.is_empty(), "it was kept: {said:?}");
    // numbers in JSON are read to the last bit but one
    assert!((again.f32_flops / roof.f32_flops - 1.0).abs() < 1e-12 && again.probes.len() == roof.probes.len());
    let files: Vec<_> = fs::read_dir(folder.path()).expect("the folder").map(|e| e.expect("an entry").path()).collect();
    let [file] = &files[..] else { panic!("one file, and nothing beside it: {files:?}") };
    fs::write(file, "not JSON").expect("damage");
    assert!(!cached(folder.path(), &engine).1.is_empty(), "a damaged file counts for nothing");
    assert!(cached(folder.path(), &engine).1.is_empty(), "and is replaced");
}

#[test]
fn a_device_has_a_roof_that_checks_keep_out_of_the_cache() {
    let open = |checks| {
        let options = EngineOptions { checks, ..EngineOptions::default() };
        Engine::open(&DeviceChoice::Auto, options).expect("an automatic choice falls back to the twins")
    };
    let engine = open(true);
    let Some(info) = engine.device() else {
        eprintln!("SKIPPED for want of a device");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (roof, _) = cached(folder.path(), &engine);
    assert_eq!((&roof.device, &roof.driver), (&engine.name(), &info.driver));
    assert_eq!(roof.f16_flops.is_some(), info.f16);
    let files = || fs::read_dir(folder.path()).expect("the folder").count();
    assert_eq!(files(), 0, "what kernels with checks reach is not the device's roof");
    cached(folder.path(), &open(false));
    assert_eq!(files(), 1);
    assert!(cached(folder.path(), &engine).1.is_empty(), "it is good for engines with checks, too");
}
