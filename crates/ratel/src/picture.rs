//! Pictures from files: of any size, perhaps transparent, perhaps not meant well.

use crate::Failure;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage, imageops};
use ratel_diffusion::autoencoder::Picture;
use ratel_diffusion::pipeline::MAX_SIZE;
use std::path::Path;

/// Files beyond this are not opened.
const MOST_FILE_BYTES: u64 = 256 << 20;
/// Pictures that would take more memory than this are not decoded.
const MOST_BYTES: u64 = 512 << 20;

/// What to do with a picture whose proportions are not those that are needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Fit {
    /// Keep its proportions and cut off what hangs over, the same on both sides
    #[default]
    Crop,
    /// Stretch it
    #[value(alias = "resize")]
    Stretch,
}

/// The size that is wanted: both sides, one whose other follows from the picture's proportions, or neither.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wanted {
    pub width: Option<usize>,
    pub height: Option<usize>,
    pub fit: Fit,
}

/// A file's picture.
#[derive(Clone, Debug)]
pub(crate) struct Read {
    /// In the size that was wanted.
    pub picture: Picture,
    /// The size it has in the file, across and down.
    pub own: [usize; 2],
    /// What had to be done to it, if anything.
    pub note: Option<String>,
}

/// Reads a PNG or JPEG file, turned as its EXIF data says, its transparent parts on white, in the size that is wanted; when
/// none is, in its own, less what a multiple of `step` pixels leaves over.
///
/// # Errors
/// A file that can't be read, is no picture, or is too large; a picture of fewer than `step` pixels; a wanted size of 0.
pub(crate) fn read(path: &Path, wanted: Wanted, step: usize) -> Result<Read, Failure> {
    let picture = decode(path)?;
    let (own_width, own_height) = (picture.width() as usize, picture.height() as usize);
    let wrong = |what: String| Failure::Read { path: path.to_owned(), source: std::io::Error::other(what) };
    let (width, height) = size(own_width, own_height, wanted, step);
    let own = [own_width, own_height];
    let limits = step..=MAX_SIZE;
    if !limits.contains(&width) || !limits.contains(&height) {
        return Err(wrong(format!(
            "a picture of {own_width}x{own_height} can't be used as {width}x{height}: each side must be from {step} to \
             {MAX_SIZE} pixels; give -W and -H"
        )));
    }
    if (width, height) == (own_width, own_height) {
        return Ok(Read { picture: Picture { width, height, rgb: picture.into_raw() }, own, note: None });
    }
    let scaled = wanted.width.is_some() || wanted.height.is_some();
    let (fitted, done) = match wanted.fit {
        Fit::Stretch => (resize(&picture, width, height), "resized"),
        Fit::Crop if scaled => {
            // cut first, so that what is resized is never larger than the file's picture or the wanted one
            let part = |own: usize, other: usize, side: usize, other_side: usize| {
                ((other as f64 * side as f64 / other_side as f64).round() as usize).clamp(1, own)
            };
            let (w, h) = (part(own_width, own_height, width, height), part(own_height, own_width, height, width));
            let cut = (w, h) != (own_width, own_height);
            (resize(&centre(&picture, w, h), width, height), if cut { "cropped and resized" } else { "resized" })
        }
        Fit::Crop => (centre(&picture, width, height), "cropped"),
    };
    let note = format!("{}: {done} from {own_width}x{own_height} to {width}x{height}", path.display());
    Ok(Read { picture: Picture { width, height, rgb: fitted.into_raw() }, own, note: Some(note) })
}

/// The wanted size of a picture; without one its own, rounded down to multiples of `step`.
fn size(own_width: usize, own_height: usize, wanted: Wanted, step: usize) -> (usize, usize) {
    let follows = |given: usize, own: usize, other: usize| {
        let side = given as f64 * other as f64 / own as f64;
        ((side / step as f64).round().max(1.0) as usize).saturating_mul(step)
    };
    match (wanted.width, wanted.height) {
        (Some(width), Some(height)) => (width, height),
        (Some(width), None) => (width, follows(width, own_width, own_height)),
        (None, Some(height)) => (follows(height, own_height, own_width), height),
        (None, None) => (own_width / step * step, own_height / step * step),
    }
}

/// Lanczos, which diffusers' pipelines take too.
fn resize(picture: &RgbImage, width: usize, height: usize) -> RgbImage {
    imageops::resize(picture, width as u32, height as u32, imageops::FilterType::Lanczos3)
}

/// The middle of a picture that is at least as large.
fn centre(picture: &RgbImage, width: usize, height: usize) -> RgbImage {
    let (x, y) = ((picture.width() - width as u32) / 2, (picture.height() - height as u32) / 2);
    imageops::crop_imm(picture, x, y, width as u32, height as u32).to_image()
}

/// A file's picture as it is meant to be seen.
fn decode(path: &Path) -> Result<RgbImage, Failure> {
    let unreadable = |source| Failure::Read { path: path.to_owned(), source };
    let wrong = |what: String| unreadable(std::io::Error::other(what));
    // some of the decoders' messages have several lines
    let line = |error: image::ImageError| error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let no_picture = |error| wrong(format!("not a PNG or JPEG picture that can be read: {}", line(error)));
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MOST_FILE_BYTES {
        return Err(wrong(format!("its {bytes} bytes are more than the {MOST_FILE_BYTES} a picture may have")));
    }
    let mut reader = ImageReader::open(path).map_err(unreadable)?.with_guessed_format().map_err(unreadable)?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIZE as u32), Some(MAX_SIZE as u32));
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(no_picture)?;
    let (width, height) = decoder.dimensions();
    if decoder.total_bytes() > MOST_BYTES {
        return Err(wrong(format!("a picture of {width}x{height} would take more than {} MiB", MOST_BYTES >> 20)));
    }
    let orientation = decoder.orientation().map_err(no_picture)?;
    let mut picture = DynamicImage::from_decoder(decoder).map_err(no_picture)?;
    picture.apply_orientation(orientation);
    Ok(on_white(picture))
}

/// Without transparency: what is behind is white.
fn on_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let picture = picture.into_rgba8();
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let [r, g, b, alpha] = picture.get_pixel(x, y).0.map(u32::from);
        image::Rgb([r, g, b].map(|value| ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8))
    })
}

/// How far two pictures of one size are apart, in decibels: the peak signal-to-noise ratio over all their bytes, infinite
/// where they are the same.
pub(crate) fn psnr(a: &[u8], b: &[u8]) -> f64 {
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) * a.len() as f64 / squares).log10()
}

/// What two pictures of one size differ by, made so much brighter that it can be seen: each byte's distance times the
/// factor that is returned, the largest whole number that keeps all of them under 256.
pub(crate) fn difference(a: &[u8], b: &[u8]) -> (Vec<u8>, u8) {
    let apart: Vec<u8> = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).collect();
    let factor = 255 / apart.iter().copied().max().unwrap_or(0).max(1);
    (apart.iter().map(|value| value * factor).collect(), factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(width: Option<usize>, height: Option<usize>) -> Wanted {
        Wanted { width, height, fit: Fit::Crop }
    }

    #[test]
    fn sizes_follow_the_picture() {
        assert_eq!(size(131, 77, wanted(None, None), 8), (128, 72));
        assert_eq!(size(400, 300, wanted(Some(128), None), 8), (128, 96));
        assert_eq!(size(400, 300, wanted(None, Some(96)), 8), (128, 96));
        assert_eq!(size(4000, 3, wanted(Some(128), None), 8), (128, 8));
        assert_eq!(size(400, 300, wanted(Some(64), Some(64)), 8), (64, 64));
    }

    #[test]
    fn files_become_pictures_of_the_wanted_size() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.png");
        // half of it transparent, over black
        let half = image::RgbaImage::from_fn(30, 20, |x, _| image::Rgba([0, 0, 0, if x < 15 { 0 } else { 255 }]));
        half.save(&path).expect("a file");
        let Read { picture, note, .. } = read(&path, wanted(None, None), 8).expect("a picture");
        assert_eq!((picture.width, picture.height, picture.rgb.len()), (24, 16, 24 * 16 * 3));
        assert_eq!((picture.rgb[0], picture.rgb[24 * 3 - 1]), (255, 0), "white shows through");
        assert!(note.is_some_and(|note| note.contains("cropped from 30x20 to 24x16")));
        let Read { picture, note, .. } = read(&path, wanted(Some(16), Some(16)), 8).expect("a picture");
        assert_eq!((picture.width, picture.height), (16, 16));
        assert!(note.is_some_and(|note| note.contains("cropped and resized")));
        let stretched = Wanted { fit: Fit::Stretch, ..wanted(Some(64), Some(8)) };
        let Read { picture, .. } = read(&path, stretched, 8).expect("a picture");
        assert_eq!((picture.width, picture.height), (64, 8));

        image::RgbImage::new(4, 40).save(&path).expect("a file");
        let error = read(&path, wanted(None, None), 8).expect_err("too small").to_string();
        assert!(error.contains("4x40") && error.contains("-W"), "{error}");
        std::fs::write(&path, "GIF89a, or so it says").expect("a file");
        let error = read(&path, wanted(None, None), 8).expect_err("no picture").to_string();
        assert!(error.contains("x.png") && error.contains("PNG or JPEG"), "{error}");
    }

    #[test]
    fn distances() {
        assert_eq!(psnr(&[1, 2, 3], &[1, 2, 3]), f64::INFINITY);
        assert!((psnr(&[0, 0], &[255, 255])).abs() < 1e-12);
        assert!((psnr(&[10, 10], &[11, 9]) - 48.130_803_6).abs() < 1e-6);
        assert_eq!(difference(&[0, 50, 7], &[0, 0, 8]), (vec![0, 250, 5], 5));
        assert_eq!(difference(&[9], &[9]), (vec![0], 255));
    }
}
