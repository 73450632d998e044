//! Diffusion in image space: a model without a VAE, and what it costs beside one of latents.

use super::{Place, SMALL, TINY, json, parameters};
use ratel_diffusion::autoencoder::Picture;
use ratel_tests::repository::root;
use safetensors::SafeTensors;

/// Random weights, 16x16.
const PIXELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/models/tiny-pixels");
const CPU: &[&str] = &["-m", PIXELS, "--device", "cpu"];

/// A PNG file's pixels.
fn picture(place: &Place, name: &str) -> Picture {
    let pixels = image::load_from_memory(&place.bytes(name)).expect("a picture").into_rgb8();
    Picture { width: pixels.width() as usize, height: pixels.height() as usize, rgb: pixels.into_raw() }
}

/// The shape and the values of a tensor in a file.
fn tensor(place: &Place, file: &str, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = place.bytes(file);
    let tensors = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
    let view = tensors.tensor(name).unwrap_or_else(|error| panic!("{file}: {name}: {error}"));
    let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (view.shape().to_vec(), values)
}

/// Whether a picture is what a `(1, 3, H, W)` sample shows of it, -1 being black and 1 white.
#[track_caller]
fn shows(picture: &Picture, sample: &[f32], scale: f32) {
    let pixels = picture.width * picture.height;
    assert_eq!(sample.len(), 3 * pixels);
    for (i, byte) in picture.rgb.iter().enumerate() {
        let value = sample[i % 3 * pixels + i / 3] * scale;
        let shade = 255.0 * (value / 2.0 + 0.5).clamp(0.0, 1.0);
        assert!((f32::from(*byte) - shade).abs() < 0.51, "byte {i} is {byte} for {value}");
    }
}

#[test]
fn pictures_are_drawn_without_a_vae() {
    let place = Place::new();
    let generate = [&["generate", "a fox", "-s", "5", "--steps", "2"], CPU].concat();
    let more = ["--space", "image", "-o", "a.png", "--latents-out", "a.safetensors", "--steps-dir", "steps"];
    place.succeed(&[&generate[..], &more].concat());
    assert_eq!(place.size("a.png"), (16, 16), "what the model was trained on");
    assert_eq!(place.size("steps/step_001.png"), (16, 16));
    let text = parameters(&place.bytes("a.png"));
    assert!(text.contains("Size: 16x16") && text.contains("Model: tiny-pixels"), "{text}");
    let (shape, sample) = tensor(&place, "a.safetensors", "latents");
    assert_eq!(shape, [1, 3, 16, 16]);
    shows(&picture(&place, "a.png"), &sample, 1.0);
    place.succeed(&[&["decode", "a.safetensors", "-o", "b.png"], CPU].concat());
    assert!(picture(&place, "a.png") == picture(&place, "b.png"), "there is nothing to decode");

    // any size, and from a picture
    place.succeed(&[&generate[..], &["-W", "13", "-H", "7", "-b", "2", "-o", "odd.png"]].concat());
    assert_eq!((place.size("odd_1.png"), place.size("odd_2.png")), ((13, 7), (13, 7)));
    place.succeed(&[&generate[..], &["-i", "odd_1.png", "--strength", "0.5", "-o", "from.png"]].concat());
    assert_eq!(place.size("from.png"), (13, 7));
    place.refuse(&[&generate[..], &["-W", "0"]].concat(), 1, &["0x16"]);
}

#[test]
fn the_steps_of_image_space_are_pictures() {
    let place = Place::new();
    let denoise = [&["denoise", "a fox", "-s", "5", "--steps", "3", "--sampler", "ddim"], CPU].concat();
    let said = json(&place.succeed(&[&denoise[..], &["--space", "image", "-o", "see", "--json"]].concat()));
    assert_eq!(said["steps"].as_array().map(Vec::len), Some(3), "{said}");
    for file in said["files"].as_array().expect("files") {
        assert!(place.path(file.as_str().expect("a path")).is_file(), "{file}");
    }
    for step in ["step001", "step003"] {
        let of = |name: &str| tensor(&place, "see/denoise.safetensors", &format!("{step}.{name}")).1;
        shows(&picture(&place, &format!("see/{step}_x.png")), &of("x"), 1.0);
        shows(&picture(&place, &format!("see/{step}_x0.png")), &of("x0.guided"), 1.0);
        shows(&picture(&place, &format!("see/{step}_noise.png")), &of("noise.guided"), 1.0 / 3.0);
    }
    // of the last picture, nothing is left to guess
    place.succeed(
        &[&["generate", "a fox", "-s", "5", "--steps", "3", "--sampler", "ddim", "-o", "a.png"], CPU].concat(),
    );
    assert!(picture(&place, "a.png") == picture(&place, "see/picture.png"));
    // x, three noises, x0: five columns where latents have seven
    let (wide, _) = place.size("see/denoise.png");
    place.succeed(&[&["denoise", "a fox", "-m", TINY, "-o", "latent.png"], SMALL].concat());
    let (wider, _) = place.size("latent.png");
    assert!(wider > wide, "{wider} and {wide}");
}

#[test]
fn noise_and_seeds_in_image_space() {
    let place = Place::new();
    let generate = |seed: &str, name: &str| {
        place.succeed(&[&["generate", "a fox", "--steps", "2", "-s", seed, "-o", name], CPU].concat());
    };
    generate("1", "one.png");
    generate("2", "two.png");
    let between = ["interpolate", "1", "2", "a fox", "--steps", "2", "--frames", "3", "-o", "out"];
    place.succeed(&[&between[..], CPU].concat());
    for (frame, name) in [("out/frame_001.png", "one.png"), ("out/frame_003.png", "two.png")] {
        assert!(picture(&place, frame) == picture(&place, name), "{frame} is {name}");
    }
    place.succeed(&[&["diffuse", "one.png", "-s", "3", "--steps-shown", "3", "-o", "noise"], CPU].concat());
    assert_eq!(picture(&place, "noise/image_x0.png"), picture(&place, "one.png"));
    assert!(!place.path("noise/latent_x0.png").exists());
}

#[test]
fn what_has_no_latents_is_refused() {
    let place = Place::new();
    image::RgbImage::new(16, 16).save(place.path("in.png")).expect("a picture");
    let refuse = |arguments: &[&str], parts: &[&str]| place.refuse(&[arguments, CPU].concat(), 1, parts);
    for command in [&["encode", "in.png"][..], &["diffuse", "in.png", "--space", "latent"]] {
        refuse(command, &["tiny-pixels", "no VAE"]);
    }
    refuse(&["interpolate", "in.png", "in.png"], &["tiny-pixels", "no VAE"]);
    refuse(&["plan", "--component", "vae"], &["tiny-pixels", "no VAE"]);
    // a model is of one space
    for (model, asked, own) in [(PIXELS, "latent", "image"), (TINY, "image", "latent")] {
        let generate = ["generate", "x", "-m", model, "--space", asked, "--device", "cpu"];
        place.refuse(&generate, 2, &[&format!("--space {asked}"), &format!("draws in {own} space")]);
    }
}

#[test]
fn models_of_image_space_are_described() {
    let place = Place::new();
    let info = json(&place.succeed(&["info", PIXELS, "--json"]));
    assert!(info["space"] == "image" && info["problem"].is_null() && info["sample_size"] == 16, "{info}");
    let names: Vec<_> = info["components"].as_array().expect("a list").iter().map(|part| &part["name"]).collect();
    assert_eq!(names, ["text_encoder", "unet"], "{info}");
    assert!(place.succeed(&["info", PIXELS]).contains("pictures of 16x16"));
    let plan = place.succeed(&["plan", "-m", PIXELS]);
    assert!(
        plan.contains("unet.mid_block.attentions.0") && plan.contains("sample 2x16x16x3") && !plan.contains("vae.")
    );
    assert!(place.succeed(&[&["kernels"], CPU].concat()).contains("conv2d"));
    let bench = ["bench", "--runs", "1", "--steps", "1", "--only", "unet,vae,picture"];
    let bench = place.succeed(&[&bench[..], CPU].concat());
    assert!(bench.contains("UNet step") && bench.contains("picture") && !bench.contains("VAE"), "{bench}");
    place.succeed(&[&["trace", "x", "--steps", "1", "-o", "t.safetensors"], CPU].concat());
    assert_eq!(tensor(&place, "t.safetensors", "unet.conv_out").0, [2, 3, 16, 16]);
    // as in diffusers, every image has its timestep, though they are all the same
    assert_eq!(tensor(&place, "t.safetensors", "unet.time_embedding").0[0], 2);
}

#[test]
fn the_model_of_image_space_is_inside_if_it_was_there() {
    let place = Place::new();
    let draw = ["generate", "a red dragon", "--space", "image", "--device", "cpu", "--steps", "1", "-o", "a.png"];
    if !ratel_cub::has(ratel_cub::PIXELS) {
        place.refuse(&draw, 1, &["cub-pixels", "built without"]);
        place.refuse(&["info", "cub-pixels"], 1, &["cub-pixels", "built without"]);
        return;
    }
    place.succeed(&draw);
    assert_eq!(place.size("a.png"), (32, 32));
    assert!(parameters(&place.bytes("a.png")).contains("Model: cub-pixels"));
    let by_name =
        ["generate", "a red dragon", "-m", "cub-pixels", "-d", "cpu", "--steps", "1", "-o", "b.png", "-s", "1"];
    place.succeed(&by_name);
    let info = json(&place.succeed(&["info", "cub-pixels", "--json"]));
    assert!(info["problem"].is_null() && info["sample_size"] == 32 && info["space"] == "image", "{info}");
    // what it has inside it shares with cub; by itself the folder is no whole model
    let folder = root().join("models/cub-pixels");
    let folder = folder.to_str().expect("UTF-8");
    place.refuse(&["info", folder], 1, &["text_encoder", "a whole model has it"]);
}

#[test]
fn spaces_are_compared_at_the_same_size() {
    let place = Place::new();
    let compare = ["compare-spaces", "-m", TINY, "--pixels", PIXELS, "--device", "cpu", "--runs", "1", "--steps", "10"];
    let compare = |more: &[&str]| place.succeed(&[&compare[..], more].concat());
    let all = json(&compare(&["--sizes", "32,16", "--seconds", "60", "--json"]));
    let rows = all["rows"].as_array().expect("rows");
    let told: Vec<_> = rows.iter().map(|row| (row["picture"][1].as_u64(), row["network"].as_str())).collect();
    let names = [Some("tiny"), Some("tiny's UNet, on pixels"), Some("tiny-pixels")];
    assert_eq!(told, [16, 32].map(|side| names.map(|name| (Some(side), name))).concat(), "{all}");
    for row in rows {
        let figure = |part: &str, key: &str| row[part][key].as_f64().unwrap_or_else(|| panic!("{part} {key}: {row}"));
        for key in ["flops", "bytes", "seconds"] {
            let whole = 10.0 * figure("step", key) + figure("once", key);
            assert!((figure("whole_picture", key) / whole - 1.0).abs() < 1e-9 && whole > 0.0, "{key}: {row}");
        }
        assert_eq!(row["step"]["measured"], true, "{row}");
    }
    let [latent, pixels] = [&rows[3], &rows[4]];
    assert_eq!(
        (&latent["sample"], &pixels["sample"]),
        (&serde_json::json!([4, 4, 4]), &serde_json::json!([3, 32, 32]))
    );
    let flops = |row: &serde_json::Value, part: &str| row[part]["flops"].as_f64().expect("a number");
    assert!(flops(pixels, "step") > 30.0 * flops(latent, "step"), "{all}");
    // the figures are those of the plan that runs
    let bench =
        ["bench", "-m", TINY, "--device", "cpu", "--runs", "1", "-W", "32", "--only", "unet", "--format", "json"];
    let bench = json(&place.succeed(&bench));
    let step = bench["rows"].as_array().expect("rows").iter().find(|row| row["test"] == "UNet step").expect("a step");
    assert_eq!(step["flops"].as_f64(), Some(flops(latent, "step")));

    let planned = json(&compare(&["--sizes", "64", "--seconds", "0", "--json"]));
    assert!(planned["rows"].as_array().expect("rows").iter().all(|row| row["step"]["seconds"].is_null()), "{planned}");
    let table = compare(&["--sizes", "16,128", "--seconds", "0.000001"]);
    for part in ["| 128x128 | image  | tiny's UNet, on pixels |", "3x128x128", "4x16x16", "48 times fewer", "~"] {
        assert!(table.contains(part), "{part}: {table}");
    }
    let refuse = |more: &[&str], code, parts: &[&str]| place.refuse(&[&["compare-spaces"], more].concat(), code, parts);
    refuse(&["-m", PIXELS], 2, &["tiny-pixels", "image space", "--pixels"]);
    refuse(&["-m", TINY, "--pixels", TINY], 2, &["--pixels", "latent space"]);
    refuse(&["-m", TINY, "--sizes", "12"], 1, &["12x12", "multiples of 8"]);
    refuse(&["-m", TINY, "--steps", "0"], 2, &["--steps"]);
}
