//! Commands that take pictures and latents in: what they make of good ones, and that bad ones do no harm.

use super::{Place, SMALL, TINY, parameters};
use image::{Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;

const CPU: &[&str] = &["-m", TINY, "--device", "cpu"];

/// A slope of colour with an edge.
fn slope(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([(255 * x / width) as u8, (255 * y / height) as u8, if x * 2 < width { 40 } else { 230 }])
    })
}

/// Writes a picture of this size.
fn draw_slope(place: &Place, name: &str, width: u32, height: u32) {
    slope(width, height).save(place.path(name)).expect("a picture");
}

/// The shape and the values of a tensor in a file.
fn tensor(place: &Place, file: &str, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = place.bytes(file);
    let tensors = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
    let view = tensors.tensor(name).unwrap_or_else(|error| panic!("{file}: {name}: {error}"));
    let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    (view.shape().to_vec(), values)
}

#[test]
fn pictures_become_latents_and_come_back() {
    let place = Place::new();
    draw_slope(&place, "in.png", 64, 40);
    let encode = [&["encode", "in.png", "-o", "z.safetensors", "--difference", "d.png", "--json"], CPU].concat();
    let said: Value = serde_json::from_str(&place.succeed(&encode)).expect("JSON");
    assert_eq!(said["picture_shape"], serde_json::json!([3, 40, 64]));
    assert_eq!(said["latents_shape"], serde_json::json!([4, 5, 8]));
    assert_eq!(said["times_fewer"], 48.0);
    let (shape, values) = tensor(&place, "z.safetensors", "latents");
    assert_eq!((shape, values.iter().all(|value| value.is_finite())), (vec![1, 4, 5, 8], true));
    assert_eq!(place.size("d.png"), (64, 40));

    // what the round trip said is what decoding gives
    let decode = ["decode", "z.safetensors", "-o", "out.png", "--compare", "in.png", "--json"];
    let again: Value = serde_json::from_str(&place.succeed(&[&decode, CPU].concat())).expect("JSON");
    assert_eq!(place.size("out.png"), (64, 40));
    let (before, after) = (slope(64, 40), image::load_from_memory(&place.bytes("out.png")).expect("PNG").into_rgb8());
    let squares = before.iter().zip(after.iter()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    let db = 10.0 * (255.0f64.powi(2) * before.len() as f64 / squares.sum::<f64>()).log10();
    assert!((said["psnr_db"].as_f64().expect("a number") - db).abs() < 1e-6, "{said} for {db}");
    assert!(again.to_string().contains(&format!("{db:.3}")[..5]), "{again} for {db}");

    // the mode is always the same; a sample depends on its seed
    let z = |more: &[&str]| {
        place.succeed(&[&["encode", "in.png", "-o", "s.safetensors"], more, CPU].concat());
        tensor(&place, "s.safetensors", "latents").1
    };
    assert_eq!(z(&[]), values);
    let sample = z(&["--sample", "--seed", "1"]);
    assert!(sample != values && sample != z(&["--sample", "--seed", "2"]) && sample == z(&["--sample", "--seed", "1"]));
}

#[test]
fn a_picture_is_drawn_from_a_picture() {
    let place = Place::new();
    draw_slope(&place, "in.png", 131, 77);
    let from = |more: &[&str]| {
        let fixed = ["generate", "a fox", "-s", "5", "--steps", "4", "--sampler", "ddim", "-i", "in.png"];
        place.succeed(&[&fixed, more, CPU].concat())
    };
    from(&["--strength", "0.5", "-o", "a.png", "--latents-out", "a.safetensors"]);
    assert_eq!(place.size("a.png"), (128, 72), "the picture's own size, in whole latents");
    let text = parameters(&place.bytes("a.png"));
    for part in ["Denoising strength: 0.5", "131x77", "Size: 128x72", "Steps: 4"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    from(&["--denoising-strength", "0.5", "-o", "b.png"]);
    assert!(place.bytes("a.png") == place.bytes("b.png"), "the field's other name of it");
    from(&["--strength", "1", "-o", "c.png"]);
    assert!(place.bytes("a.png") != place.bytes("c.png"));
    from(&["-W", "64", "-H", "64", "-o", "d.png", "-b", "2"]);
    assert_eq!((place.size("d_1.png"), place.size("d_2.png")), ((64, 64), (64, 64)));

    let refuse = |more: &[&str], code, parts: &[&str]| {
        place.refuse(&[&["generate", "a fox", "--steps", "4"], more, CPU].concat(), code, parts)
    };
    refuse(&["-i", "in.png", "--strength", "0.1"], 2, &["--strength 0.1", "0.25"]);
    refuse(&["-i", "in.png", "--strength", "1.5"], 2, &["--strength 1.5"]);
    refuse(&["-i", "in.png", "--strength", "nan"], 2, &["--strength"]);
    refuse(&["-i", "none.png"], 1, &["none.png"]);
    refuse(&["-i", "in.png", "-W", "60"], 1, &["60x", "8"]);
}

#[test]
fn every_step_is_seen() {
    let place = Place::new();
    let denoise = [&["denoise", "a fox", "-s", "5", "-m", TINY], SMALL].concat();
    let said = place.succeed(&[&denoise[..], &["--sampler", "ddim", "-o", "see", "--json"]].concat());
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let steps = said["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), 2);
    assert!(steps[0]["sigma"].as_f64() > steps[1]["sigma"].as_f64(), "{said}");
    for file in said["files"].as_array().expect("files") {
        assert!(place.path(file.as_str().expect("a path")).is_file(), "{file}");
    }
    let table = String::from_utf8(place.bytes("see/denoise.csv")).expect("UTF-8");
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table.starts_with("step,timestep,sigma,x,noise_unconditional,noise_conditional,noise_guided,x0"),
        "{table}"
    );

    // guidance is what it says: uncond + 7.5 (cond - uncond); and the run is the one that generate makes
    let noise = |name: &str| tensor(&place, "see/denoise.safetensors", &format!("step001.noise.{name}")).1;
    let (without, with, guided) = (noise("unconditional"), noise("conditional"), noise("guided"));
    for ((u, c), g) in without.iter().zip(&with).zip(&guided) {
        assert!((u + 7.5 * (c - u) - g).abs() < 1e-3 * g.abs().max(1.0), "{u} {c} {g}");
    }
    let generate = [&["generate", "a fox", "-s", "5", "-m", TINY], SMALL].concat();
    place.succeed(&[&generate[..], &["--sampler", "ddim", "--latents-out", "z.safetensors"]].concat());
    assert_eq!(tensor(&place, "z.safetensors", "latents"), tensor(&place, "see/denoise.safetensors", "latents"));

    // from a picture, and without guidance
    draw_slope(&place, "in.png", 64, 64);
    let more = ["-i", "in.png", "--strength", "0.5", "--cfg-scale", "1", "-o", "one.png"];
    place.succeed(&[&denoise[..], &more].concat());
    let table = String::from_utf8(place.bytes("one.csv")).expect("UTF-8");
    assert!(table.lines().count() == 2 && table.contains(",,,"), "one step, with one prediction: {table}");
    place.refuse(&[&denoise[..], &["--batch", "2"]].concat(), 2, &["--batch"]);
    place.refuse(&[&denoise[..], &["-o", "x.jpg"]].concat(), 2, &["x.jpg", ".png"]);
}

#[test]
fn transparent_grey_and_jpeg_pictures_are_read() {
    let place = Place::new();
    RgbaImage::from_pixel(16, 16, Rgba([0, 0, 0, 0])).save(place.path("clear.png")).expect("a picture");
    RgbImage::from_pixel(16, 16, Rgb([255; 3])).save(place.path("white.png")).expect("a picture");
    image::ImageBuffer::from_pixel(16, 16, image::Luma([u16::MAX])).save(place.path("grey.png")).expect("a picture");
    let latents = |name: &str| {
        place.succeed(&[&["encode", name, "-o", "z.safetensors"], CPU].concat());
        tensor(&place, "z.safetensors", "latents").1
    };
    let white = latents("white.png");
    assert_eq!(latents("clear.png"), white, "what is transparent is white");
    assert_eq!(latents("grey.png"), white, "sixteen bits of grey");
    fs::write(place.path("wrong-name.jpg"), place.bytes("white.png")).expect("a copy");
    assert_eq!(latents("wrong-name.jpg"), white, "what a file holds counts, not what it is called");
}

/// A PNG file of a header alone, whose checksum is right: it claims to be of this size.
fn claims(width: u32, height: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    image::ImageEncoder::write_image(encoder, &[0; 3], 1, 1, image::ExtendedColorType::Rgb8).expect("a picture");
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = file[12..29].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    file[29..33].copy_from_slice(&(!crc).to_be_bytes());
    file
}

#[test]
fn what_is_no_picture_is_refused() {
    let place = Place::new();
    let refuse = |bytes: &[u8], parts: &[&str]| {
        fs::write(place.path("bad.png"), bytes).expect("a file");
        place.refuse(
            &[&["encode", "bad.png", "-o", "z.safetensors"], CPU].concat(),
            1,
            &[&["bad.png"], parts].concat(),
        );
    };
    refuse(b"", &[]);
    refuse(b"GIF89a", &[]);
    refuse(&[0xFF, 0xD8, 0xFF, 0xE0], &[]);
    for (width, height) in [(u32::MAX, u32::MAX), (1 << 20, 1), (16_384, 16_384), (0, 5), (30_000, 30_000)] {
        refuse(&claims(width, height), &[]);
    }
    draw_slope(&place, "small.png", 7, 64);
    place.refuse(&[&["encode", "small.png"], CPU].concat(), 1, &["small.png", "7x64", "8"]);
    place.refuse(&[&["encode", "."], CPU].concat(), 1, &["."]);

    // latents that are none
    place.refuse(&[&["decode", "small.png"], CPU].concat(), 1, &["small.png", "safetensors"]);
    let latents = |shape: &[usize], value: f32| {
        let data: Vec<u8> = (0..shape.iter().product()).flat_map(|_| value.to_le_bytes()).collect();
        let view = safetensors::tensor::TensorView::new(super::Dtype::F32, shape.to_vec(), &data).expect("a tensor");
        fs::write(place.path("z.safetensors"), safetensors::serialize([("latents", view)], None).expect("bytes"))
            .expect("a file");
        place.refuse(&[&["decode", "z.safetensors"], CPU].concat(), 1, &["z.safetensors"]);
    };
    latents(&[1, 3, 8, 8], 0.0);
    latents(&[4], 0.0);
    latents(&[0, 4, 8, 8], 0.0);
    latents(&[1, 4, 0, 8], 0.0);
    latents(&[1, 4, 1, 5000], 0.0);
    latents(&[1, 4, 2, 2], f32::NAN);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// A file with bytes changed or cut off is a picture still or is refused in a line; never more.
    #[test]
    fn damaged_files_do_no_harm(jpeg: bool, cut in 0.0..1.0f64, changes in prop::collection::vec((0.0..1.0f64, any::<u8>()), 0..8)) {
        let place = Place::new();
        draw_slope(&place, if jpeg { "in.jpg" } else { "in.png" }, 24, 16);
        let mut bytes = place.bytes(if jpeg { "in.jpg" } else { "in.png" });
        for (at, value) in changes {
            let at = (at * bytes.len() as f64) as usize;
            bytes[at] = value;
        }
        if cut < 0.5 {
            bytes.truncate((2.0 * cut * bytes.len() as f64) as usize);
        }
        fs::write(place.path("x"), bytes).expect("a file");
        let output = place.run(&[&["encode", "x", "-o", "z.safetensors"], CPU].concat());
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        prop_assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}: {errors}", output.status);
        prop_assert!(!errors.contains("panicked"), "{errors}");
        prop_assert_eq!(errors.lines().filter(|line| line.starts_with("ratel: ")).count(), usize::from(!output.status.success()));
    }
}

#[test]
fn noise_is_added_by_the_schedule() {
    let place = Place::new();
    draw_slope(&place, "in.png", 64, 40);
    let diffuse = [&["diffuse", "in.png", "-s", "3", "--steps-shown", "4"], CPU].concat();
    let said = place.succeed(&[&diffuse[..], &["-o", "out", "--json"]].concat());
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let timesteps: Vec<_> =
        said["levels"].as_array().expect("levels").iter().map(|level| level["timestep"].as_u64()).collect();
    assert_eq!(timesteps, [None, Some(333), Some(666), Some(999)]);
    for file in said["files"].as_array().expect("files") {
        assert!(place.path(file.as_str().expect("a path")).is_file(), "{file}");
    }
    let table = String::from_utf8(place.bytes("out/diffuse.csv")).expect("UTF-8");
    let last: Vec<f64> =
        table.lines().last().expect("a line").split(',').map(|v| v.parse().expect("a number")).collect();
    let expected = [999.0, 0.0046601, 0.0046601f64.sqrt(), 0.9953399f64.sqrt(), 14.614641, 0.0046819];
    assert!(last.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4 * b), "{last:?}: Stable Diffusion's own");
    assert!(place.bytes("out/diffuse.svg").starts_with(b"<svg"));
    let pixels = |name: &str| image::load_from_memory(&place.bytes(name)).expect("a picture").into_rgb8().into_raw();
    assert_eq!(pixels("out/image_x0.png"), slope(64, 40).into_raw(), "no noise leaves the picture as it is");

    // x = sqrt(abar) x0 + sqrt(1 - abar) noise: of two levels' latents the noise follows, and is standard normal
    let latents = |name: &str| tensor(&place, "out/diffuse.safetensors", name).1;
    let (x0, x) = (latents("x0"), latents("t0999"));
    let noise: Vec<f64> =
        x.iter().zip(&x0).map(|(x, x0)| (f64::from(*x) - f64::from(*x0) * last[2]) / last[3]).collect();
    let variance = noise.iter().map(|value| value * value).sum::<f64>() / noise.len() as f64;
    assert!((variance - 1.0).abs() < 0.3, "{variance}");
    let other: Vec<f64> = latents("t0333").iter().map(|x| f64::from(*x)).collect();
    let level = &said["levels"][1];
    let of = |key: &str| level[key].as_f64().expect("a number");
    for ((x, x0), noise) in other.iter().zip(&x0).zip(&noise) {
        assert!(
            (of("signal") * f64::from(*x0) + of("noise") * noise - x).abs() < 1e-3,
            "the same noise at every level"
        );
    }

    place.succeed(&[&diffuse[..], &["--space", "image", "--schedule", "linear", "-o", "strip.png"]].concat());
    assert!(place.path("strip.csv").is_file() && !place.path("strip.safetensors").is_file());
    let linear = String::from_utf8(place.bytes("strip.csv")).expect("UTF-8");
    assert!(linear != table && linear.lines().count() == 1001);
    place.refuse(&[&["diffuse", "in.png", "--steps-shown", "1"], CPU].concat(), 2, &["--steps-shown"]);
    place.refuse(&[&["diffuse", "in.png", "--schedule", "cosine"], CPU].concat(), 1, &["cosine"]);
    place.refuse(&[&["diffuse", "in.png", "-o", "nowhere/x.png"], CPU].concat(), 1, &["nowhere"]);
}

#[test]
fn between_two_pictures_and_two_seeds() {
    let place = Place::new();
    draw_slope(&place, "a.png", 64, 40);
    RgbImage::from_pixel(80, 80, Rgb([20, 200, 90])).save(place.path("b.png")).expect("a picture");
    let between = |more: &[&str]| place.succeed(&[&["interpolate"], more, CPU].concat());
    between(&["a.png", "b.png", "--frames", "3", "--path", "linear", "-o", "out"]);
    let frame = |name: &str| tensor(&place, "out/interpolate.safetensors", name).1;
    let (a, middle, b) = (frame("frame_001"), frame("frame_002"), frame("frame_003"));
    for ((a, middle), b) in a.iter().zip(&middle).zip(&b) {
        assert!(((a + b) / 2.0 - middle).abs() < 1e-4, "{a} {middle} {b}");
    }
    place.succeed(&[&["encode", "a.png", "-o", "z.safetensors"], CPU].concat());
    assert_eq!(tensor(&place, "z.safetensors", "latents").1, a, "the ends are the pictures themselves");
    assert_eq!(place.size("out/frame_003.png"), (64, 40), "the second in the first one's size");

    let small: Vec<&str> = SMALL[2..].to_vec();
    between(&[&["1", "2", "a fox", "--frames", "3", "-o", "seeds"], &small[..]].concat());
    place.draw("a fox", &["-s", "1", "-o", "one.png"]);
    place.draw("a fox", &["-s", "2", "-o", "two.png"]);
    let pixels = |name: &str| image::load_from_memory(&place.bytes(name)).expect("a picture").into_rgb8().into_raw();
    assert!(pixels("seeds/frame_001.png") == pixels("one.png") && pixels("seeds/frame_003.png") == pixels("two.png"));
    let middle = parameters(&place.bytes("seeds/frame_002.png"));
    assert!(middle.contains("Variation seed: 2, Variation seed strength: 0.5"), "{middle}");

    let refuse = |more: &[&str], parts: &[&str]| place.refuse(&[&["interpolate"], more, CPU].concat(), 2, parts);
    refuse(&["a.png", "2"], &["two pictures, or two seeds"]);
    refuse(&["a.png", "b.png", "a fox"], &["a prompt"]);
    refuse(&["1", "2"], &["prompt"]);
    refuse(&["1", "2", "a fox", "--frames", "1"], &["--frames"]);
    refuse(&["1", "2", "a fox", "-s", "3"], &["--seed"]);
}
