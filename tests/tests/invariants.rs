//! What ARCHITECTURE.md promises of the repository's own text and structure.

use ratel_kernels::kernels;
use ratel_kernels::lessons::LESSONS;
use ratel_tests::repository::{Text, files, root};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

/// The crates, and which of them each may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("ratel-tensor", &[]),
    ("ratel-kernels", &["ratel-tensor"]),
    ("ratel-graph", &["ratel-tensor", "ratel-kernels"]),
    ("ratel-models", &["ratel-tensor", "ratel-kernels", "ratel-graph"]),
    ("ratel-weights", &["ratel-tensor"]),
    ("ratel-engine", &["ratel-tensor", "ratel-kernels", "ratel-graph"]),
    ("ratel-diffusion", LIBRARIES),
    ("ratel-profile", &["ratel-tensor", "ratel-kernels", "ratel-graph", "ratel-engine"]),
    ("ratel-teach", &["ratel-tensor", "ratel-kernels", "ratel-graph", "ratel-profile"]),
    ("ratel-cub", &[]),
    ("ratel", ALL),
    ("ratel-tests", ALL),
    ("ratel-benches", ALL),
];
const LIBRARIES: &[&str] =
    &["ratel-tensor", "ratel-kernels", "ratel-graph", "ratel-models", "ratel-weights", "ratel-engine"];
const ALL: &[&str] = &[
    "ratel-tensor",
    "ratel-kernels",
    "ratel-graph",
    "ratel-models",
    "ratel-weights",
    "ratel-engine",
    "ratel-diffusion",
    "ratel-profile",
    "ratel-teach",
    "ratel-cub",
];

/// The folders of `shaders/` that hold kernels.
const FAMILIES: &[&str] = &["matmul", "conv", "norm", "attention", "pointwise", "sampling", "roofline"];

/// Each package of the workspace with the names of its dependencies.
fn packages() -> Vec<(String, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo, which runs this test");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let name = |value: &Value| value["name"].as_str().expect("packages and dependencies have names").to_owned();
    let list = |value: &Value| value.as_array().expect("packages and dependencies are lists").clone();
    list(&metadata["packages"])
        .iter()
        .map(|package| (name(package), list(&package["dependencies"]).iter().map(name).collect()))
        .collect()
}

#[test]
fn dependencies_point_only_one_way() {
    let packages = packages();
    let own: BTreeSet<_> = packages.iter().map(|(name, _)| name.clone()).collect();
    let known: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(own, known, "the table of arrows and the workspace");
    for (package, dependencies) in &packages {
        let (_, allowed) = ARROWS.iter().find(|(name, _)| name == package).expect("it is in the table");
        for dependency in dependencies.intersection(&own) {
            assert!(allowed.contains(&dependency.as_str()), "{package} must not use {dependency}");
        }
        let gpu = dependencies.contains("wgpu");
        assert!(!gpu || package == "ratel-engine", "{package} uses wgpu, which only ratel-engine may");
    }
}

/// Rust files of crates, without their tests.
fn sources() -> Vec<Text> {
    let mut all = files("crates", "rs");
    all.retain(|file| file.path.contains("/src/"));
    assert!(all.len() > 20, "the crates' sources are found");
    all
}

/// Fails for each line of code with one of `words` in it.
fn forbid(files: &[Text], words: &[&str], why: &str) {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.code() {
            if words.iter().any(|word| contains_word(line, word)) {
                found.push(format!("{}:{number}: {line}", file.path));
            }
        }
    }
    assert!(found.is_empty(), "{why}:\n{}", found.join("\n"));
}

/// Whether `word` is in the line and is not the end of a longer name.
fn contains_word(line: &str, word: &str) -> bool {
    let longer = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(longer))
}

fn in_crates(file: &Text, names: &[&str]) -> bool {
    names.iter().any(|name| file.path.starts_with(&format!("crates/{name}/")))
}

#[test]
fn only_the_engine_names_wgpu() {
    let mut others = sources();
    others.retain(|file| !in_crates(file, &["ratel-engine"]));
    forbid(&others, &["wgpu"], "only ratel-engine may name wgpu");
}

#[test]
fn only_the_program_prints() {
    let mut others = sources();
    others.retain(|file| !in_crates(file, &["ratel"]));
    let words = ["println!", "print!", "eprintln!", "eprint!", "dbg!", "stdout()", "stderr()"];
    forbid(&others, &words, "only the crate ratel may print");
}

#[test]
fn building_a_graph_does_no_io() {
    let mut pure = sources();
    pure.retain(|file| in_crates(file, &["ratel-tensor", "ratel-kernels", "ratel-graph", "ratel-models"]));
    pure.retain(|file| file.path != "crates/ratel-kernels/src/linker.rs"); // which reads `--shaders DIR`
    let words = ["std::fs", "std::net", "std::env", "std::process", "std::io", "fs::", "File::"];
    forbid(&pure, &words, "these crates do no I/O");
}

#[test]
fn shaders_are_wgsl_and_rust_is_rust() {
    let mut rust = sources();
    rust.extend(files("benches", "rs"));
    forbid(&rust, &["@compute", "var<storage", "var<workgroup"], "WGSL belongs in shaders/");
    for file in files("shaders", "wgsl") {
        let mut lines = file.text.lines().enumerate();
        let found = lines.find(|(_, line)| line.trim_start().starts_with('#') || line.contains("{{"));
        assert!(found.is_none(), "{}: no preprocessor: {found:?}", file.path);
    }
}

#[test]
fn every_kernel_file_is_registered_under_its_name() {
    let kernels = kernels();
    let modules = files("crates/ratel-kernels/src", "rs");
    let mut paths = BTreeSet::new();
    for family in FAMILIES {
        for file in files(&format!("shaders/{family}"), "wgsl") {
            let path = file.path.trim_start_matches("shaders/").to_owned();
            let kernel = kernels.iter().find(|kernel| kernel.path == path);
            let kernel = kernel.unwrap_or_else(|| panic!("{}: no op has it among its kernels", file.path));
            assert_eq!(kernel.name, file.stem(), "{}: a kernel has its file's name", file.path);
            assert_eq!(kernel.source, file.text, "{}: the program holds the file", file.path);
            let entry = format!("fn {}(", file.stem());
            assert!(file.text.contains(&entry), "{}: the entry point has the file's name", file.path);
            // in its own module, or in that of the op whose name it goes on from
            let declaration = format!("kernel!(\"{family}\", \"{}\"", file.stem());
            let module = modules.iter().find(|module| module.text.contains(&declaration));
            let module = module.unwrap_or_else(|| panic!("{}: no module declares it", file.path));
            let stem = module.stem();
            let fits = stem == file.stem() || file.stem().starts_with(&format!("{stem}_"));
            assert!(fits, "{} is declared in {}", file.path, module.path);
            paths.insert(path);
        }
    }
    let registered: BTreeSet<_> = kernels.iter().map(|kernel| kernel.path.to_owned()).collect();
    assert_eq!(registered, paths, "kernels that have no file in a family's folder");
}

/// A lesson's rungs are files of a folder of their own, and no op has one of them among its kernels.
#[test]
fn every_file_of_a_lesson_is_one_of_its_rungs() {
    let kernels = kernels();
    let mut files: Vec<Text> = files("shaders/lessons", "wgsl");
    for lesson in LESSONS {
        assert_eq!(lesson.text, std::fs::read_to_string(root().join("shaders").join(lesson.path)).expect(lesson.path));
        for (number, rung) in (1..).zip(lesson.rungs) {
            let at = files.iter().position(|file| file.path == format!("shaders/{}", rung.path));
            let file = files.swap_remove(at.unwrap_or_else(|| panic!("{}: no such file", rung.path)));
            assert_eq!((rung.name, rung.source), (file.stem(), file.text.as_str()), "{}", file.path);
            assert!(file.text.contains(&format!("fn {}(", rung.name)), "{}: the entry point has its name", file.path);
            assert!(rung.name.starts_with(&format!("{}_{number}_", lesson.name)), "{}: its place", file.path);
            assert!(kernels.iter().all(|kernel| kernel.name != rung.name), "{}: a plan could choose it", file.path);
        }
    }
    assert!(files.is_empty(), "no lesson has {}", files[0].path);
}

#[test]
fn lib_declares_no_bindings() {
    let linker = files("crates/ratel-kernels/src", "rs").into_iter().find(|file| file.path.ends_with("src/linker.rs"));
    let linker = linker.expect("the linker").text;
    for file in files("shaders/lib", "wgsl") {
        for word in ["@group", "@binding", "var<storage", "var<uniform", "var<immediate", "@compute"] {
            assert!(!file.code().any(|(_, line)| line.contains(word)), "{}: {word}", file.path);
        }
        assert!(linker.contains(&file.path), "{} is not among the linker's files", file.path);
    }
}

#[test]
fn files_stay_short() {
    let mut all = sources();
    all.extend(files("shaders", "wgsl"));
    for file in all {
        let lines = file.text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.path);
    }
}
