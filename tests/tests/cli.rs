//! The program as its users run it: what it writes, what it says, and what it returns when it is asked for nonsense.

#[path = "cli/pictures.rs"]
mod pictures;
#[path = "cli/spaces.rs"]
mod spaces;

use ratel_tests::fixtures::fixture;
use ratel_tests::program::{Place, SMALL, TINY};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::process::Command;

/// The text under `parameters` in a PNG file, from its tEXt or iTXt chunk (PNG, third edition, 11.3.3).
fn parameters(png: &[u8]) -> String {
    let mut rest = &png[8..];
    while let [a, b, c, d, kind @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (kind, data) = (&kind[..4], &kind[4..4 + length]);
        if let Some(text) = data.strip_prefix(b"parameters\0") {
            return match kind {
                b"tEXt" => text.iter().map(|b| char::from(*b)).collect(),
                // not compressed, and without language and translated keyword
                b"iTXt" => String::from_utf8(text.strip_prefix(&[0; 4]).expect("plain text").to_vec()).expect("UTF-8"),
                other => panic!("parameters in {other:?}"),
            };
        }
        rest = &rest[12 + length..];
    }
    panic!("no parameters in the file")
}

#[test]
fn a_picture_is_made_of_its_seed() {
    let place = Place::new();
    let said = place.draw("a lighthouse", &["-s", "7", "-o", "a.png", "-n", "fog"]);
    assert!(said.starts_with("seed 7 on ") && said.contains("a.png"), "{said}");
    assert_eq!(place.size("a.png"), (64, 64));
    let text = parameters(&place.bytes("a.png"));
    let (prompts, settings) = text.rsplit_once('\n').expect("prompts and settings");
    assert_eq!(prompts, "a lighthouse\nNegative prompt: fog");
    for setting in ["Steps: 2", "Seed: 7", "Size: 64x64", "CFG scale: 7.5"] {
        assert!(settings.split(", ").any(|s| s == setting), "{settings} has {setting}");
    }

    place.draw("a lighthouse", &["-s", "7", "-o", "b.png", "-n", "fog"]);
    assert!(place.bytes("a.png") == place.bytes("b.png"), "the same seed gives the same file");
    place.draw("a lighthouse", &["-s", "8", "-o", "c.png", "-n", "fog"]);
    let pixels = |name: &str| image::load_from_memory(&place.bytes(name)).expect("a picture").into_rgb8().into_raw();
    assert!(pixels("a.png") != pixels("c.png"), "another seed gives another picture");
    place.draw("a windmill", &["-s", "7", "-o", "d.png", "-n", "fog"]);
    assert!(pixels("a.png") != pixels("d.png"), "another prompt gives another picture");
    assert_eq!(place.files(), ["a.png", "b.png", "c.png", "d.png"], "nothing else is left");
}

#[test]
fn several_pictures_latents_and_steps() {
    let place = Place::new();
    let more =
        ["-s", "7", "-b", "2", "-o", "x.png", "--latents-out", "l.safetensors", "--steps-dir", "steps", "--json"];
    let said: Value = serde_json::from_str(&place.draw("two", &more)).expect("JSON");
    assert_eq!(said["pictures"][1]["seed"], 8, "{said}");
    let [first, all] = [&said["times"]["first_step_seconds"], &said["seconds"]].map(|seconds| seconds.as_f64());
    assert!(first > Some(0.0) && first < all.map(|all| all + 60.0), "{said}");
    let stages = said["times"]["stages"].as_array().expect("stages");
    let names: Vec<_> = stages.iter().filter_map(|stage| stage["stage"].as_str()).collect();
    assert_eq!(names, ["loading", "text_encoder", "sampler", "unet", "vae_decoder"], "{said}");
    let steps = ["step_001_1.png", "step_001_2.png", "step_002_1.png", "step_002_2.png"];
    let mut expected = [&["l.safetensors", "steps", "x_1.png", "x_2.png"][..], &steps].concat();
    expected.sort_unstable();
    assert_eq!(place.files(), expected);
    for name in ["x_1.png", "x_2.png"].map(str::to_owned).into_iter().chain(steps.map(|name| format!("steps/{name}"))) {
        assert_eq!(place.size(&name), (64, 64), "{name}");
    }
    assert!(place.bytes("steps/step_001_1.png") != place.bytes("steps/step_002_1.png"), "steps differ");
    let file = place.bytes("l.safetensors");
    let latents = SafeTensors::deserialize(&file).expect("tensors");
    assert_eq!(latents.tensor("latents").expect("the latents").shape(), [2, 4, 8, 8]);

    // each picture of a batch is the one that its seed gives alone
    let said = place.draw("two", &["-v", "-s", "8", "-o", "alone.png", "--latents-out", "one.safetensors"]);
    assert!(["opening ", "loading ", "unet ", "first step "].iter().all(|part| said.contains(part)), "{said}");
    let pixels = |name: &str| image::load_from_memory(&place.bytes(name)).expect("a picture").into_rgb8().into_raw();
    assert!(pixels("alone.png") == pixels("x_2.png"), "the second of a batch is the next seed's");
    let file = place.bytes("one.safetensors");
    let one = SafeTensors::deserialize(&file).expect("tensors");
    assert_eq!(one.tensor("latents").expect("the latents").shape(), [1, 4, 8, 8]);
}

#[test]
fn sizes_and_prompts_of_every_kind() {
    let place = Place::new();
    for (width, height) in [(128, 64), (64, 128), (256, 64), (8, 8), (72, 40)] {
        let (w, h) = (width.to_string(), height.to_string());
        let size = ["-W", &w, "-H", &h];
        place.succeed(
            &[&["generate", "x", "-m", TINY, "-d", "cpu", "--steps", "2", "-o", "size.png"], &size[..]].concat(),
        );
        assert_eq!(place.size("size.png"), (width, height));
    }
    let long = "many words ".repeat(1000);
    for prompt in ["", "🦡 in 雪, naïve", &long, "two\nlines", "<|endoftext|> ((a:1.2)) \\ [b]"] {
        let output = place.run(&[&["generate", prompt, "-m", TINY, "-s", "1", "-o", "prompt.png"], SMALL].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{prompt:.40}: {errors}");
        assert_eq!(place.size("prompt.png"), (64, 64));
        let text = parameters(&place.bytes("prompt.png"));
        assert!(text.starts_with(&format!("{prompt}\nSteps: 2")), "{text:.80} has the whole prompt");
        assert_eq!(errors.contains("longer than the text encoder reads"), prompt == long, "{errors:.300}");
    }
}

#[test]
fn sizes_and_settings_that_cannot_be() {
    let place = Place::new();
    let with = |more: &[&'static str]| [&["generate", "x", "-m", TINY, "--device", "cpu"], more].concat();
    for size in ["0", "7", "12", "1000000", "12345678901234567890"] {
        place.refuse(&with(&["-W", size]), 1, &[size, "multiples of 8"]);
        place.refuse(&with(&["-H", size]), 1, &[size, "multiples of 8"]);
    }
    for (setting, parts) in [
        (["--steps", "0"], ["0", "steps"]),
        (["--steps", "1001"], ["1001", "1000"]),
        (["--steps", "18446744073709551615"], ["18446744073709551615", "1000"]),
        (["--sampler", "eulr"], ["eulr", "did you mean `euler`"]),
        (["--schedule", "karas"], ["karas", "karras"]),
        (["--spacing", "trialing"], ["trialing", "trailing"]),
        (["--prediction", "w"], ["w", "eps"]),
        (["--batch", "0"], ["--batch", "64"]),
        (["--batch", "18446744073709551615"], ["--batch", "64"]),
        (["--clip-skip", "0"], ["--clip-skip", "1"]),
        (["--cfg-scale", "nan"], ["--cfg-scale", "number"]),
        (["--guidance-rescale", "2"], ["--guidance-rescale", "0 to 1"]),
        (["--no-fuse", "bais"], ["bais", "bias"]),
        (["--shaders", "nowhere"], ["nowhere", "folder"]),
    ] {
        place.refuse(&with(&setting), 2, &parts);
    }
    place.refuse(&with(&["--clip-skip", "50"]), 1, &["--clip-skip 50"]);
    place.refuse(&["generate", "x", "-d", "no such device"], 1, &["no such device"]);
    place.refuse(&["generate"], 2, &["prompt"]);
    place.refuse(&["plan", "--arch", "sd15", "--batch", "0"], 2, &["--batch"]);
    place.refuse(&["plan", "--arch", "sd15", "--batch", "18446744073709551615"], 2, &["--batch"]);
    // what is not even of the right type is for the parser of arguments, which answers with the usage
    for arguments in [&["generate", "x", "-W", "123456789012345678901"][..], &["generate", "x", "-W", "-8"], &["paint"]]
    {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stderr.starts_with(b"error: "), "{arguments:?}");
        assert!(place.files().is_empty());
    }
}

#[test]
fn files_that_cannot_be() {
    let place = Place::new();
    fs::write(place.path("cat.txt"), "a cat sat on the mat, and sat").expect("a file");
    fs::create_dir(place.path("folder")).expect("a folder");
    let with = |more: &[&'static str]| [&["generate", "x"], SMALL, more].concat();
    place.refuse(&with(&["-m", "nothing.safetensors"]), 1, &["nothing.safetensors", "can't be read"]);
    place.refuse(&with(&["-m", "cat.txt"]), 1, &["cat.txt", "not a safetensors file"]);
    place.refuse(&with(&["-m", "folder"]), 1, &["folder", "model_index.json"]);
    place.refuse(&with(&["-o", "folder"]), 1, &["folder", "name a file in it"]);
    place.refuse(&with(&["-o", "nowhere/x.png"]), 1, &["nowhere/x.png", "no folder nowhere"]);
    place.refuse(&with(&["-o", "cat.txt/x.png"]), 1, &["cat.txt/x.png", "can't be written"]);
    place.refuse(&with(&["--latents-out", "nowhere/l.safetensors"]), 1, &["nowhere/l.safetensors"]);
    place.refuse(&with(&["--steps-dir", "cat.txt"]), 1, &["cat.txt", "can't be written"]);
    // a folder in which not even root makes files
    if cfg!(target_os = "linux") {
        let line = place.refuse(&with(&["-o", "/proc/x.png"]), 1, &["/proc/x.png", "can't be written"]);
        assert!(!line.contains(".ratel-"), "{line} names what the user named");
    }
    for command in ["info", "plan"] {
        let model: &[&str] = if command == "plan" { &["-m"] } else { &[] };
        place.refuse(&[&[command], model, &["cat.txt"]].concat(), 1, &["cat.txt"]);
        place.refuse(&[&[command], model, &["nothing"]].concat(), 1, &["nothing"]);
    }
    place.refuse(&["trace", "x", "-o", "nowhere/t.safetensors"], 1, &["nowhere/t.safetensors"]);
    place.refuse(&["trace", "diff", "cat.txt", "cat.txt"], 1, &["cat.txt"]);
    place.refuse(&["trace", "diff", "nothing", "cat.txt"], 1, &["nothing"]);
    // what was there before is still there after a failure
    fs::write(place.path("old.png"), "old").expect("a file");
    place.refuse(&with(&["-o", "old.png", "-m", "cat.txt"]), 1, &["cat.txt"]);
    assert_eq!(place.bytes("old.png"), b"old");
}

#[test]
fn prompts_of_a_file() {
    let place = Place::new();
    let settings = r#"{"prompt": "a lake", "negative_prompt": "fog", "seed": 9, "width": 72, "num_inference_steps": 3, "guidance_scale": 4}"#;
    let file = format!("\u{feff}a lighthouse\r\n\n   \n{settings}\n  a windmill");
    fs::write(place.path("prompts.txt"), &file).expect("a file");
    let from = |file, output| [&["generate", "-m", TINY, "-s", "7", "--from-file", file, "-o", output], SMALL].concat();

    let said = place.succeed(&from("prompts.txt", "x.png"));
    assert!(said.starts_with("3 prompts on "), "{said}");
    assert_eq!(place.files(), ["prompts.txt", "x_0001.png", "x_0004.png", "x_0005.png"]);
    let text = |name: &str| parameters(&place.bytes(name));
    assert!(text("x_0001.png").starts_with("a lighthouse\nSteps: 2,"), "{}", text("x_0001.png"));
    let own = text("x_0004.png");
    assert!(own.starts_with("a lake\nNegative prompt: fog\nSteps: 3,"), "{own}");
    for setting in ["Seed: 9", "Size: 72x64", "CFG scale: 4"] {
        assert!(own.contains(&format!("{setting},")), "{own} has {setting}");
    }
    // a line's picture is the one that its prompt gives alone, and lines without a seed share one
    place.draw("a windmill", &["-s", "7", "-o", "alone.png"]);
    assert!(place.bytes("alone.png") == place.bytes("x_0005.png"));
    assert!(text("x_0005.png").starts_with("a windmill\n") && text("x_0001.png").contains("Seed: 7,"));

    let said = place.succeed(&[&from("prompts.txt", "y.png")[..], &["--json", "-b", "2"]].concat());
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let numbers: Vec<&Value> = lines.iter().map(|line| &line["line"]).collect();
    assert_eq!(numbers, [1, 4, 5], "{said}");
    assert_eq!(lines[1]["prompt"], "a lake");
    assert_eq!(lines[1]["pictures"][1], serde_json::json!({ "path": "y_0004_2.png", "seed": 10 }));
    assert_eq!(place.size("y_0004_2.png"), (72, 64));

    // standard input
    let mut child = place
        .command(&from("-", "x.png"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("its input");
    std::io::Write::write_all(&mut input, b"a windmill\n").expect("a reader");
    drop(input);
    assert!(child.wait().expect("an end").success());
    assert!(place.bytes("x_0001.png") == place.bytes("alone.png"));
}

#[test]
fn lines_of_a_file_that_make_no_sense_are_named() {
    let place = Place::new();
    let refuse = |content: &[u8], code, parts: &[&str]| {
        fs::write(place.path("prompts.txt"), content).expect("a file");
        place.refuse(&[&["generate", "-m", TINY, "--from-file", "prompts.txt"], SMALL].concat(), code, parts);
    };
    refuse(b"\n  \n", 2, &["prompts.txt", "no prompt", "one a line"]);
    for (line, parts) in [
        (&br#"{"prompt": "x", "sede": 1}"#[..], &["sede", "`seed`"][..]),
        (br#"{"seed": 1}"#, &["missing field `prompt`"]),
        (br#"{"prompt": "x", "seed": -1}"#, &["-1", "u64"]),
        (br#"{"prompt": "x""#, &["column 14", "JSON"]),
        (br#"{"prompt": "x", "sampler": "eulr"}"#, &["did you mean `euler`"]),
        (br#"{"prompt": "x", "steps": 0}"#, &["0", "steps"]),
        (br#"{"prompt": "x", "clip_skip": 0}"#, &["--clip-skip"]),
        (b"\xff\xfe", &["UTF-8"]),
    ] {
        refuse(&[b"a cat\n\n", line, b"\n"].concat(), 2, &[&["prompts.txt line 3: "], parts].concat());
    }
    refuse(b"{\"prompt\": \"x\", \"width\": 7}", 1, &["prompts.txt line 1: ", "7", "multiples of 8"]);
    place.refuse(&["generate", "--from-file", "nothing.txt"], 1, &["nothing.txt", "can't be read"]);
    place.refuse(&["generate", "--from-file", "."], 1, &["can't be read"]);
    // a file and a prompt, or one file for the latents of many, is for the parser of arguments to refuse
    for more in [&["a cat"][..], &["--latents-out", "l.safetensors"], &["--steps-dir", "steps"]] {
        let output = place.run(&[&["generate", "--from-file", "prompts.txt"], more].concat());
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--from-file"), "{more:?}");
    }
}

#[test]
fn tensors_of_the_wrong_shape_are_named() {
    let place = Place::new();
    place.copy_model();
    place.succeed(&["info", "model"]);
    for (part, stem) in
        [("text_encoder", "model"), ("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")]
    {
        let name = format!("model/{part}/{stem}.safetensors");
        let original = place.bytes(&name);
        let tensors = SafeTensors::deserialize(&original).expect("the fixture");
        let mut names = tensors.names();
        names.sort_unstable();
        // flattened, and with one value in place of all: the model must notice every one
        let every = names.len() / 12;
        for changed in names.iter().step_by(every.max(1)) {
            for shorten in [false, true] {
                let views: BTreeMap<&str, TensorView<'_>> = names
                    .iter()
                    .map(|name| {
                        let view = tensors.tensor(name).expect("the tensor");
                        let (shape, data) = match (name == changed, shorten) {
                            (false, _) => (view.shape().to_vec(), view.data()),
                            (true, true) => (vec![1; view.shape().len()], &view.data()[..2]),
                            (true, false) => (vec![1, view.data().len() / 2, 1], view.data()),
                        };
                        (*name, TensorView::new(view.dtype(), shape, data).expect("sizes that fit"))
                    })
                    .collect();
                fs::write(place.path(&name), serialize(views, None).expect("tensors")).expect("a file");
                let line = place.refuse(&["info", "model"], 1, &[]);
                assert!(line.starts_with("ratel: model: "), "{line} names the checkpoint");
                assert!(line.contains(&format!("{part}.")), "{changed}: {line} names a tensor of the component");
            }
        }
        fs::write(place.path(&name), &original).expect("a file");
    }
}

#[test]
fn cub_is_drawn_when_no_model_is_named() {
    let place = Place::new();
    let quick = ["-d", "cpu", "--steps", "1", "-s", "1"];
    place.succeed(&[&["generate", "a red dragon", "-o", "a.png"], &quick[..]].concat());
    assert_eq!(place.size("a.png"), (128, 128));
    let text = parameters(&place.bytes("a.png"));
    assert!(text.contains("Model: cub,"), "{text}");
    // by its name; what has that name here is told apart
    fs::create_dir(place.path("cub")).expect("a folder");
    let output = place.run(&[&["generate", "a red dragon", "-m", "cub", "-o", "b.png"], &quick[..]].concat());
    assert!(output.status.success() && String::from_utf8_lossy(&output.stderr).contains("./cub"), "{output:?}");
    assert!(place.bytes("a.png") == place.bytes("b.png"), "it is the same model");
    place.refuse(&[&["generate", "x", "-m", "./cub"], SMALL].concat(), 1, &["./cub", "model_index.json"]);

    for arguments in [&["info", "--json"][..], &["info", "cub", "--json"]] {
        let info: Value = serde_json::from_str(&place.succeed(arguments)).expect("JSON");
        assert!(info["path"] == "cub" && info["problem"].is_null(), "{info}");
        assert_eq!((&info["prediction"], &info["sample_size"]), (&"v_prediction".into(), &16.into()), "{info}");
    }
    assert!(place.succeed(&["plan"]).contains("unet.mid_block.attentions.0"));
    place.succeed(&[&["trace", "x", "--only", "vae.decoder.conv_out", "-o", "t.safetensors"], &quick[..]].concat());
}

#[test]
fn a_model_says_what_it_is_drawn_with() {
    let place = Place::new();
    place.copy_model();
    let settings = |more: &[&str]| {
        let size = ["-m", "model", "-d", "cpu", "-W", "64", "-H", "64", "-o", "x.png"];
        place.succeed(&[&["generate", "x"], &size[..], more].concat());
        parameters(&place.bytes("x.png"))
    };
    fs::write(place.path("model/ratel.json"), r#"{"num_inference_steps": 3, "guidance_scale": 2.5}"#).expect("a file");
    let text = settings(&[]);
    assert!(text.contains("Steps: 3,") && text.contains("CFG scale: 2.5,"), "{text}");
    let text = settings(&["--steps", "2", "--cfg-scale", "4"]);
    assert!(text.contains("Steps: 2,") && text.contains("CFG scale: 4,"), "what is asked for wins: {text}");
    let info: Value = serde_json::from_str(&place.succeed(&["info", "model", "--json"])).expect("JSON");
    assert_eq!(info["defaults"]["num_inference_steps"], 3, "{info}");
    fs::write(place.path("model/ratel.json"), r#"{"num_inference_steps": 100000}"#).expect("a file");
    place.refuse(&["generate", "x", "-m", "model"], 1, &["model/ratel.json", "num_inference_steps", "1000"]);
    fs::remove_file(place.path("model/ratel.json")).expect("the file");
    let text = settings(&["--steps", "2"]);
    assert!(text.contains("CFG scale: 7.5,"), "{text}");
}

#[test]
fn what_is_wrong_with_a_scheduler_is_named_with_its_file() {
    let place = Place::new();
    place.copy_model();
    let file = "model/scheduler/scheduler_config.json";
    let draw = [&["generate", "x", "-m", "model"], SMALL].concat();
    for (config, part) in [
        (r#"{"_class_name": "DDIMScheduler", "thresholding": true}"#, "thresholding"),
        (r#"{"_class_name": "FlowMatchEulerDiscreteScheduler"}"#, "FlowMatchEulerDiscreteScheduler"),
        (r#"{"_class_name": "DDIMScheduler", "beta_start": 7}"#, "beta_start"),
        (r#"{"_class_name": "DDIMScheduler", "num_train_timesteps": 1}"#, "num_train_timesteps"),
        (r#"{"steps_offset": -1}"#, "-1"),
        ("{", "JSON"),
    ] {
        fs::write(place.path(file), config).expect("a file");
        place.refuse(&draw, 1, &[file, part]);
    }
    // what was asked for on the command line is no fault of the file
    fs::write(place.path(file), r#"{"_class_name": "DDIMScheduler"}"#).expect("a file");
    let line = place.refuse(&[&draw[..], &["--schedule", "karras"]].concat(), 2, &["ddim", "karras"]);
    assert!(!line.contains(file), "{line}");
    // and another sampler may do without what the file's can't
    fs::write(place.path(file), r#"{"_class_name": "DDIMScheduler", "thresholding": true}"#).expect("a file");
    place.succeed(&[&draw[..], &["--sampler", "euler"]].concat());
}

#[test]
fn checkpoints_plans_and_devices_are_described() {
    let place = Place::new();
    let said = place.succeed(&["plan", "--arch", "sd15", "-W", "1024", "-H", "512"]);
    assert!(said.lines().last().is_some_and(|line| line.starts_with("peak: ")), "{said:.200}");
    assert!(said.contains("unet.mid_block.attentions.0") && said.contains("vae.decoder.conv_out"));
    for (model, family, prediction) in
        [("tiny", "sd1", "epsilon"), ("tiny-v", "sd2", "v_prediction"), ("odd", "sd1", "")]
    {
        let path = fixture(&format!("models/{model}"));
        let path = path.to_str().expect("UTF-8");
        let info: Value = serde_json::from_str(&place.succeed(&["info", path, "--json"])).expect("JSON");
        assert_eq!(info["family"], family, "{info}");
        assert!(info["prediction"] == prediction || prediction.is_empty(), "{info}");
        assert!(info["problem"].is_null() && info["unknown_keys"] == serde_json::json!([]), "{info}");
        let names: Vec<&Value> =
            info["components"].as_array().expect("a list").iter().map(|part| &part["name"]).collect();
        assert_eq!(names, ["text_encoder", "unet", "vae"], "{info}");
        assert!(place.succeed(&["info", path]).contains("complete: every tensor"));
        assert!(place.succeed(&["plan", "-m", path]).contains("peak: "), "{model}");
    }
    let devices: Value = serde_json::from_str(&place.succeed(&["devices", "--json"])).expect("JSON");
    assert!(devices.as_array().is_some_and(|all| all.iter().all(|device| device["name"].is_string())), "{devices}");
    assert!(place.succeed(&["devices"]).lines().last().is_some_and(|line| line.starts_with("cpu: ")));
}

/// What `--json` printed.
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_roof_is_measured_and_remembered() {
    let place = Place::new();
    let roofline = |more: &[&str]| place.succeed(&[&["roofline", "--device", "cpu"], more].concat());
    let roof = json(&roofline(&["--json"]));
    assert_eq!(roof["device"], "CPU twins");
    for figure in ["f32_flops", "copy_bytes", "workgroup_bytes", "dispatch_seconds"] {
        assert!(roof[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {roof}");
    }
    assert!(roof["f16_flops"].is_null() && roof["matrix_flops"].is_null(), "{roof}");
    let remembered = roofline(&[]);
    assert!(remembered.contains("measured before") && remembered.contains("FLOP to a byte"), "{remembered}");
    assert!(!roofline(&["--fresh"]).contains("measured before"));
    place.refuse(&["roofline", "--device", "no such device"], 1, &["no such device", "`cpu`"]);
}

#[test]
fn kernels_are_listed_checked_and_timed() {
    let place = Place::new();
    let list = place.succeed(&["kernels", "-m", TINY, "--device", "cpu"]);
    for part in ["matmul: y[l, m, n]", "shaders/conv/conv2d_tiled.wgsl", "any device", "m, n, k", "unet "] {
        assert!(list.contains(part), "{part} is missing: {list}");
    }
    let list = json(&place.succeed(&["kernels", "-m", TINY, "--device", "cpu", "--json"]));
    for op in list["ops"].as_array().expect("ops") {
        for kernel in op["kernels"].as_array().expect("kernels") {
            let file = kernel["file"].as_str().expect("a file");
            assert!(ratel_tests::repository::root().join(file).is_file(), "{file}");
        }
    }

    let bench = |arguments: &[&str]| {
        json(&place.succeed(&[&["kernels", "bench", "--seconds", "0.01", "--json"], arguments].concat()))
    };
    // on the best device there is: each that is timed was checked, and a kernel's own name is for it alone
    let timed = bench(&["matmul_tiled", "--shape", "m=17,n=12,k=8,bias,act=silu"]);
    assert!(timed["op"].as_str().is_some_and(|op| op.contains("m: 17, n: 12, k: 8")), "{timed}");
    let rows = timed["rows"].as_array().expect("rows");
    assert!(!rows.is_empty());
    for row in rows {
        assert!(row["passed"] == true && row["kernel"] == "matmul_tiled" || row["kernel"] == "twin", "{row}");
        assert!(row["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{row}");
    }
    let layer = bench(&["conv2d", "--layer", "unet.conv_in", "-m", TINY, "--device", "cpu"]);
    assert!(layer["op"].as_str().is_some_and(|op| op.starts_with("Conv2d")), "{layer}");
    assert_eq!(layer["rows"][0]["kernel"], "twin");

    for (arguments, parts) in [
        (&["matmul", "--shape", "m=17,n=12"][..], &["`k` is missing", "takes m, n, k"][..]),
        (&["matmul", "--shape", "m=17,n=12,k=8,z=1"], &["`z`"]),
        (&["matmult"], &["`matmult`", "matmul, conv2d"]),
        (&["conv2d", "-m", TINY, "--layer", "unet.conv"], &["unet.conv", "such as unet.conv_in"]),
        (&["add", "--seconds", "0"], &["--seconds"]),
    ] {
        place.refuse(&[&["kernels", "bench", "--device", "cpu"], arguments].concat(), 2, parts);
    }
}

#[test]
fn parts_of_a_model_are_timed() {
    let place = Place::new();
    let bench = |more: &[&str]| {
        let common = ["bench", "-m", TINY, "--device", "cpu", "--runs", "1", "--steps", "1"];
        place.succeed(&[&common[..], more].concat())
    };
    let tests = ["open the device", "text encoder", "UNet step", "VAE decode", "to the first step, cold", "picture"];
    let table = bench(&["-W", "64,32", "-H", "32"]);
    for part in tests.iter().chain(&["64x32", "32x32", "FLOP/s", "|--"]) {
        assert!(table.contains(part), "{part} is missing: {table}");
    }
    let all = json(&bench(&["-W", "32", "--format", "json"]));
    let rows = all["rows"].as_array().expect("rows");
    for test in tests {
        let row = rows.iter().find(|row| row["test"] == test).unwrap_or_else(|| panic!("no {test}: {all}"));
        assert!(row["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{row}");
    }
    let unet = rows.iter().find(|row| row["test"] == "UNet step").expect("it is there");
    assert!(
        unet["dispatches"].as_u64().is_some_and(|count| count > 50) && unet["flops"].as_f64() > Some(1e6),
        "{unet}"
    );

    let lines = bench(&["-W", "32", "--only", "unet", "--format", "csv"]);
    let columns: Vec<_> = lines.lines().map(|line| line.split(',').count()).collect();
    assert!(columns.len() > 3 && columns.iter().all(|count| *count == columns[0]), "{lines}");
    assert!(!lines.contains("VAE") && lines.contains("\"UNet step\",32,32,"), "{lines}");

    place.refuse(&["bench", "-m", TINY, "--runs", "0"], 2, &["--runs"]);
    place.refuse(&["bench", "-m", TINY, "-W", "64,64", "-H", "64,64,64"], 2, &["2 widths and 3 heights"]);
    place.refuse(&["bench", "-m", TINY, "-W", "65"], 1, &["65"]);
}

#[test]
fn recordings_are_compared() {
    let place = Place::new();
    let model = TINY;
    place.succeed(&[&["trace", "x", "-m", model, "-s", "1", "-o", "a.safetensors"], SMALL].concat());
    let itself = ["trace", "diff", "a.safetensors", "a.safetensors"];
    assert!(!place.succeed(&itself).contains('<'), "no line is marked");
    let said: Value = serde_json::from_str(&place.succeed(&[&itself[..], &["--json"]].concat())).expect("JSON");
    assert!(said["first_different"].is_null(), "{}", said["first_different"]);
    let rows = said["rows"].as_array().expect("rows");
    assert!(rows.len() > 100 && rows.iter().all(|row| row["error"] == 0.0), "{} rows", rows.len());

    // one value of one layer, in the middle
    let bytes = place.bytes("a.safetensors");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("tensors");
    let order: HashMap<String, String> = header.metadata().clone().expect("the order");
    let tensors = SafeTensors::deserialize(&bytes).expect("tensors");
    let layer = "unet.mid_block.resnets.0.conv1";
    let mut changed = tensors.tensor(layer).expect("a layer").data().to_vec();
    changed[..4].copy_from_slice(&1e3f32.to_le_bytes());
    let views = tensors.tensors().into_iter().map(|(name, view)| {
        let data = if name == layer { &changed[..] } else { view.data() };
        (name, TensorView::new(Dtype::F32, view.shape().to_vec(), data).expect("sizes that fit"))
    });
    let file = serialize(views, Some(order)).expect("tensors");
    fs::write(place.path("b.safetensors"), file).expect("a file");
    place.refuse(&["trace", "diff", "a.safetensors", "b.safetensors"], 1, &["the first that differs", layer]);

    place.succeed(&[&["trace", "x", "-m", model, "--only", "vae", "-o", "v.safetensors"], SMALL].concat());
    place.succeed(&[&["trace", "x", "-m", model, "--only", "unet", "-o", "u.safetensors"], SMALL].concat());
    place.refuse(&["trace", "diff", "u.safetensors", "v.safetensors"], 2, &["share no tensor"]);
    let nothing = [&["trace", "x", "-m", model, "--only", "unet.nothing", "-o", "n.safetensors"], SMALL].concat();
    place.refuse(&nothing, 2, &["--only"]);
}

#[cfg(unix)]
#[test]
fn interrupted_and_unheard() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    let place = Place::new();
    let long = [&["generate", "x", "-m", TINY, "-o", "never.png"], &SMALL[..6], &["--steps", "900"]].concat();
    let mut command = place.command(&long);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let first = lines.next().expect("a line").expect("text");
    assert!(first.starts_with("seed "), "{first}");
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    let output = child.wait_with_output().expect("an end");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{errors}");
    assert_eq!(errors.lines().filter(|line| line.starts_with("ratel: ")).count(), 1, "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    assert!(place.files().is_empty(), "{:?}", place.files());

    // a reader that leaves, as `head` does
    let mut child = place
        .command(&["plan", "--arch", "sd15"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a start");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("an end");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1));
}
