//! `ratel lesson` and `ratel show`: that rungs are right, that a reader who edits one is told what went wrong and where, and
//! that what is shown is what runs.
#![allow(clippy::print_stderr)] // a skipped test must be seen

use ratel_engine::{DeviceChoice, Engine, EngineOptions};
use ratel_kernels::lessons::{LESSONS, choices};
use ratel_kernels::{WeightStorage, kernels, twin_text};
use ratel_tensor::Elem;
use ratel_tests::program::Place;
use ratel_tests::repository::root;
use serde_json::Value;
use std::fs;

/// Whether there is a device; says so where there is none.
fn has_device() -> bool {
    let engine = Engine::open(&DeviceChoice::Auto, EngineOptions::default()).expect("it falls back to the twins");
    if engine.device().is_none() {
        eprintln!("SKIPPED: no kernel was run, for want of a device ({})", engine.note().unwrap_or_default());
    }
    engine.device().is_some()
}

#[test]
fn rungs_equal_their_twins() {
    let options = EngineOptions { checks: true, ..EngineOptions::default() };
    let engine = Engine::open(&DeviceChoice::Auto, options).expect("an automatic choice falls back to the twins");
    if engine.device().is_none() {
        eprintln!("SKIPPED: no rung was run, for want of a device ({})", engine.note().unwrap_or_default());
        return;
    }
    let target = engine.target_stored(Elem::F32, WeightStorage::F32).expect("every device has f32");
    let mut rows = 0;
    for (number, op) in (0..).zip(LESSONS.iter().flat_map(|lesson| (lesson.cases)())) {
        for choice in choices(&op, &target) {
            let check = engine.check(&op, Some(&choice), Elem::F32, WeightStorage::F32, number);
            let check = check.unwrap_or_else(|error| panic!("{} on {op:?}: {error}", choice.kernel.name));
            assert!(check.passed() && check.wrong.is_none(), "{} on {op:?}: {check:?}", choice.kernel.name);
            rows += 1;
        }
    }
    assert!(rows > 30, "{rows} rows");
}

/// A small shape of each lesson, on which everything is done in a moment.
fn small(lesson: &str) -> [&'static str; 4] {
    let shape = match lesson {
        "matmul" => "m=70,n=64,k=32",
        "conv" => "batch=1,h=8,w=8,c=16,n=16",
        "attention" => "batch=1,heads=2,dim=8,queries=20",
        _ => "batch=1,pixels=64,c=64",
    };
    ["--shape", shape, "--seconds", "0.001"]
}

#[test]
fn lessons_are_climbed() {
    if !has_device() {
        return;
    }
    let place = Place::new();
    for lesson in LESSONS {
        let said = place.succeed(&[&["lesson", lesson.name, "--json"], &small(lesson.name)[..]].concat());
        let told: Value = serde_json::from_str(&said).expect("JSON");
        let rungs = told["rungs"].as_array().expect("rungs");
        assert!(rungs.len() > lesson.rungs.len(), "{}: what Ratel runs stands on top", lesson.name);
        let mut timed = 0;
        for (number, rung) in (1..).zip(rungs) {
            assert_eq!(rung["rung"], number);
            assert_eq!(rung["shipped"], number > lesson.rungs.len(), "{rung}");
            assert!(rung["text"].as_str().is_some_and(|text| text.len() > 40), "{rung}");
            if rung.get("skipped").is_some() {
                continue;
            }
            let figure = |name: &str| rung[name].as_f64().unwrap_or_else(|| panic!("{name} of {rung}"));
            assert!(figure("nmse") < 1e-4 && figure("seconds") > 0.0 && figure("of_roof") > 0.0, "{rung}");
            let ratio = &rung["times_as_fast"];
            assert_eq!(ratio.is_null(), timed == 0, "each is compared with the one before: {rung}");
            timed += 1;
        }
        assert!(timed >= 3, "{said}");
    }

    let page = place.succeed(&[&["lesson", "matmul"], &small("matmul")[..]].concat());
    for part in
        ["matmul_1_naive", "What changed from matmul_1_naive", "+ var<workgroup> inputs", "Checked: ", "of the roof"]
    {
        assert!(page.contains(part), "{part} in:\n{page}");
    }
    assert!(!page.contains('\u{1b}'), "no colours but on a terminal");
    let one = place.succeed(&[&["lesson", "matmul", "--rung", "3"], &small("matmul")[..]].concat());
    assert!(one.contains("3. matmul_3_registers") && !one.contains("1. matmul_1_naive"), "{one}");
}

#[test]
fn an_edited_rung_is_run_and_its_mistakes_are_found() {
    if !has_device() {
        return;
    }
    let place = Place::new();
    let said = place.succeed(&["lesson", "matmul", "--copy", "mine"]);
    assert!(said.contains("ratel lesson matmul --shaders mine"), "{said}");
    place.refuse(&["lesson", "matmul", "--copy", "mine"], 2, &["is there already", "nothing was copied"]);

    let file = place.path("mine/lessons/matmul_1_naive.wgsl");
    let original = fs::read_to_string(&file).expect("the copy");
    let line = original.lines().position(|line| line.contains("sum +=")).expect("the sum") + 1;
    let edit = |from: &str, to: &str| {
        assert!(original.contains(from), "the rung has {from}");
        fs::write(&file, original.replace(from, to)).expect("a file");
        let arguments = [&["lesson", "matmul", "--shaders", "mine"], &small("matmul")[..]].concat();
        let output = place.run(&arguments);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let place_of_line = format!("lessons/matmul_1_naive.wgsl:{line}:");

    // a name that there is not, and a type that does not go: the reader's file and line
    for (from, to) in [("sum += x[", "sum += xs["), ("sum += x[", "sum += p.m * x[")] {
        let (code, said, errors) = edit(from, to);
        assert_eq!(code, Some(1), "{errors}");
        assert!(said.contains(&place_of_line) && said.contains("mine"), "{place_of_line} in:\n{said}");
        assert!(said.contains("does not run") && said.contains("matmul_2_shared"), "the others run:\n{said}");
        assert!(errors.contains("not right: matmul_1_naive"), "{errors}");
    }

    // a wrong result: how wrong, and where
    let (code, said, _) = edit("k < p.k; k++", "k + 1u < p.k; k++");
    assert_eq!(code, Some(1));
    for part in ["not the twin's", "values are off", "y[0, ", "What you changed", "k + 1u < p.k"] {
        assert!(said.contains(part), "{part} in:\n{said}");
    }
    let (_, said, _) = edit("if i >= p.m * p.n { return; }", "if i >= p.m * p.n || i == 131u { return; }");
    assert!(said.contains("y[2, 3] is not a number, or not written"), "{said}");

    // and one that is right
    let (code, said, errors) = edit("var sum = 0.0;", "var sum: f32;");
    assert_eq!(code, Some(0), "{said}{errors}");
    assert!(said.contains("with bounds checks"), "{said}");
}

#[test]
fn what_there_is_not_is_refused() {
    let place = Place::new();
    place.refuse(&["lesson", "matmuls"], 2, &["no lesson", "did you mean matmul?", "attention"]);
    place.refuse(&["lesson", "conv", "-d", "cpu"], 2, &["the CPU twins have none"]);
    place.refuse(&["show", "matmul_tield"], 2, &["did you mean matmul_tiled"]);
    place.refuse(&["show", "xyzzy"], 2, &["ratel kernels"]);
    place.refuse(&["show", "matmul", "--shaders", "nowhere"], 2, &["nowhere"]);
    place.refuse(&["lesson", "conv", "--rung", "7"], 2, &["6 rungs at most"]);
    place.refuse(&["lesson", "matmul", "--shape", "m=1"], 2, &["`n` is missing"]);
}

/// Every line of a file that `show` prints has the number that it has there.
#[test]
fn lines_are_shown_with_their_numbers() {
    let place = Place::new();
    for name in ["matmul", "conv2d_tiled", "attention_2_one_pass"] {
        let said = place.succeed(&["show", name, "--layout", "below", "--width", "200"]);
        let mut checked = 0;
        let mut files: Vec<String> = Vec::new();
        let is_file = |line: &str| ["shaders/", "crates/"].iter().any(|folder| line.starts_with(folder));
        let mut text = String::new();
        for line in said.lines() {
            if is_file(line) {
                text = fs::read_to_string(root().join(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
                files.push(line.to_owned());
            } else if let (false, Some((number, rest))) = (files.is_empty(), line.split_at_checked(6)) {
                let Ok(number) = number.trim().parse::<usize>() else { continue };
                assert_eq!(text.lines().nth(number - 1), Some(rest), "{name}: line {number} of {:?}", files.last());
                checked += 1;
            }
        }
        assert!(checked > 60 && files.len() >= 3, "{name}: {checked} lines of {files:?}");
    }
}

#[test]
fn kernels_are_shown_in_every_way() {
    let place = Place::new();
    let side = place.succeed(&["show", "group_norm", "--layout", "side", "--width", "160"]);
    assert!(side.lines().all(|line| line.chars().count() <= 160), "it fits");
    let row = side.lines().find(|line| line.contains("shaders/norm/group_norm.wgsl") && line.contains(" | "));
    assert!(row.is_some_and(|row| row.contains("crates/ratel-kernels/src/group_norm.rs")), "{side}");
    assert!(side.contains("gamma[c] (x - mean) / sqrt(square / V + eps)"), "the mathematics: {side}");
    let narrow = place.succeed(&["show", "group_norm", "--width", "60"]);
    assert!(narrow.lines().skip_while(|line| !line.starts_with("shaders/")).all(|line| line.chars().count() <= 60));

    for kernel in kernels() {
        let told: Value = serde_json::from_str(&place.succeed(&["show", kernel.name, "--json"])).expect("JSON");
        assert_eq!(
            told["wgsl"][0]["text"].as_str().map(str::trim_end),
            Some(kernel.source.trim_end()),
            "{}",
            kernel.name
        );
        let op = told["op"].as_str().expect("an op");
        let twin: String = told["twin"].as_array().expect("a list").iter().filter_map(|e| e["text"].as_str()).collect();
        assert_eq!(twin, twin_text(op).iter().map(|e| e.text).collect::<String>(), "{}", kernel.name);
    }
}

#[test]
fn variants_are_filled_in() {
    let place = Place::new();
    let filled = |arguments: &[&str]| -> Value {
        let said = place.succeed(&[&["show"], arguments, &["-d", "cpu", "--json"]].concat());
        serde_json::from_str(&said).expect("JSON")
    };
    let shape = ["--shape", "m=64,n=64,k=64,bias,act=silu"];
    let told = filled(&[&["matmul", "--variant"], &shape[..]].concat());
    let text = told["wgsl"][0]["text"].as_str().expect("text");
    assert!(text.contains("override BIAS: bool = true;   // filled in") && text.contains("ACT: u32 = 1u;"), "{text}");
    let files: Vec<&str> = told["wgsl"].as_array().expect("files").iter().filter_map(|f| f["file"].as_str()).collect();
    assert!(files.contains(&"shaders/lib/spec/elem_f32.wgsl") && files.contains(&"shaders/lib/act.wgsl"), "{files:?}");

    let told = filled(&["matmul_subgroup", "--variant", "f16", "--shape", "m=64,n=64,k=64"]);
    let files = told["wgsl"].as_array().expect("files");
    assert!(files.iter().any(|file| file["file"] == "shaders/lib/spec/elem_f16.wgsl"), "{told}");
    let extents = files.last().and_then(|file| file["text"].as_str()).expect("the extents");
    assert!(extents.contains("const LANES = 8u;"), "{extents}");
    place.refuse(&["show", "matmul_4_subgroup", "--variant", "f16", "-d", "cpu"], 2, &["it needs subgroups"]);
}
