//! Contact sheets: pictures in rows and columns, with words beside them.

use font8x8::{BASIC_FONTS, UnicodeFonts};
use ratel_diffusion::autoencoder::Picture;
use ratel_tensor::HostTensor;

/// Pixels that a picture is made larger to at least, by a whole factor, so that it can be looked at.
const LEAST: usize = 128;
/// Pixels between pictures.
const GAP: usize = 8;
/// Pixels of a letter's square.
const LETTER: usize = 8;
/// Pixels from one line of words to the next.
const LINE: usize = LETTER + 4;
const PAPER: [u8; 3] = [255; 3];
const INK: [u8; 3] = [40, 40, 48];

/// A row: words to its left, a line each, and its pictures from left to right.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    pub words: Vec<String>,
    pub pictures: Vec<Picture>,
}

/// Pictures in rows under the headings of columns. All become as large as the largest, by whole factors, so that every
/// pixel stays a square; what does not fill its place lies in the middle of it. Words too long for theirs are cut off.
pub(crate) fn sheet(headings: &[String], rows: &[Row]) -> Picture {
    let all = || rows.iter().flat_map(|row| &row.pictures);
    let largest = |side: fn(&Picture) -> usize| all().map(side).max().unwrap_or(0).max(LEAST);
    let (wide, high) = (largest(|picture| picture.width), largest(|picture| picture.height));
    let columns = rows.iter().map(|row| row.pictures.len()).max().unwrap_or(0).max(headings.len());
    let letters = rows.iter().flat_map(|row| &row.words).map(|line| line.chars().count()).max().unwrap_or(0);
    let words = if letters == 0 { 0 } else { letters * LETTER + GAP };
    let lines = rows.iter().map(|row| row.words.len()).max().unwrap_or(0);
    let row_height = high.max(lines * LINE);
    let fold = |heading: &String| folded(heading, wide / LETTER);
    let folded: Vec<Vec<String>> = headings.iter().map(fold).collect();
    let head = folded.iter().map(Vec::len).max().unwrap_or(0) * LINE;

    let width = GAP + words + columns * (wide + GAP);
    let height = GAP + head + rows.len() * (row_height + GAP);
    let mut page = Picture { width, height, rgb: PAPER.repeat(width * height) };
    for (column, lines) in folded.iter().enumerate() {
        for (line, text) in lines.iter().enumerate() {
            write(&mut page, GAP + words + column * (wide + GAP), GAP / 2 + line * LINE, text);
        }
    }
    for (number, row) in rows.iter().enumerate() {
        let y = GAP + head + number * (row_height + GAP);
        let top = y + (row_height - row.words.len() * LINE) / 2;
        for (line, text) in row.words.iter().enumerate() {
            write(&mut page, GAP, top + line * LINE, text);
        }
        for (column, picture) in row.pictures.iter().enumerate() {
            let x = GAP + words + column * (wide + GAP);
            let factor = (wide / picture.width.max(1)).min(high / picture.height.max(1)).max(1);
            let (left, above) = ((wide - picture.width * factor) / 2, (row_height - picture.height * factor) / 2);
            place(&mut page, x + left, y + above, picture, factor);
        }
    }
    page
}

/// Words in lines of at most `letters`, broken where they are and at spaces.
fn folded(text: &str, letters: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for given in text.lines() {
        if given.chars().count() <= letters {
            lines.push(given.to_owned());
            continue;
        }
        let mut line = String::new();
        for word in given.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > letters {
                lines.push(std::mem::take(&mut line));
            }
            let space = if line.is_empty() { "" } else { " " };
            line = line + space + word;
        }
        lines.push(line);
    }
    lines.into_iter().map(|line| line.chars().take(letters.max(1)).collect()).collect()
}

/// Puts a picture on a page, each of its pixels a square of `factor`; what is off the page is left out.
fn place(page: &mut Picture, x: usize, y: usize, picture: &Picture, factor: usize) {
    for row in 0..picture.height * factor {
        for column in 0..picture.width * factor {
            let from = (row / factor * picture.width + column / factor) * 3;
            if let Some(pixel) = picture.rgb.get(from..from + 3) {
                set(page, x + column, y + row, pixel);
            }
        }
    }
}

fn set(page: &mut Picture, x: usize, y: usize, pixel: &[u8]) {
    let at = (y * page.width + x) * 3;
    if x < page.width && y < page.height {
        page.rgb[at..at + 3].copy_from_slice(pixel);
    }
}

/// Writes a line; letters that the font lacks stay blank.
fn write(page: &mut Picture, x: usize, y: usize, text: &str) {
    for (number, letter) in text.chars().enumerate() {
        let Some(rows) = BASIC_FONTS.get(letter) else { continue };
        for (row, bits) in rows.iter().enumerate() {
            for column in (0..LETTER).filter(|column| bits >> column & 1 == 1) {
                set(page, x + number * LETTER + column, y + row, &INK);
            }
        }
    }
}

/// Latents of one picture, `(1, h, w, C)`, as large as the picture, `scale` pixels to a latent: their channels beside and
/// under each other, two across, blue below zero, white at it, red above. Full colour stands for 3, which is where a
/// standard normal number hardly ever goes.
pub(crate) fn channels(latents: &HostTensor, scale: usize) -> Picture {
    let [h, w, c] = match *latents.shape {
        [_, h, w, c] => [h, w, c],
        _ => [1, 1, 1],
    };
    let across = c.clamp(1, 2);
    let factor = (scale / across).max(1);
    let (width, height) = (across * w * factor, c.div_ceil(across) * h * factor);
    let mut picture = Picture { width, height, rgb: PAPER.repeat(width * height) };
    for y in 0..height {
        for x in 0..width {
            let (latent_x, latent_y) = (x / factor, y / factor);
            let channel = latent_y / h * across + latent_x / w;
            // two pixels of paper between channels
            let seam = |at: usize, whole: usize, end: usize| {
                let (before, after) = (at % whole == whole - 1 && at + 1 < end, at.is_multiple_of(whole) && at > 0);
                factor > 2 && (before || after)
            };
            if channel < c && !seam(x, w * factor, width) && !seam(y, h * factor, height) {
                let value = latents.data[(latent_y % h * w + latent_x % w) * c + channel];
                set(&mut picture, x, y, &colour(value / 3.0));
            }
        }
    }
    picture
}

/// -1 to 1 as blue, white, red, with the in-between as light as its distance from zero is small.
fn colour(value: f32) -> [u8; 3] {
    let strength = value.abs().min(1.0); // not a number becomes 1
    let end = if value < 0.0 { [24.0, 80.0, 168.0] } else { [176.0, 32.0, 40.0] };
    end.map(|end: f32| (255.0 + (end - 255.0) * strength).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(width: usize, height: usize, value: u8) -> Picture {
        Picture { width, height, rgb: vec![value; width * height * 3] }
    }

    #[test]
    fn pictures_lie_in_rows_and_columns() {
        let rows = [
            Row { words: vec!["one".into(), "1".into()], pictures: vec![plain(128, 128, 0), plain(16, 16, 9)] },
            Row { words: vec!["two".into()], pictures: vec![plain(100, 50, 7)] },
        ];
        let page = sheet(&["first".into(), "the second of two columns".into()], &rows);
        let left = GAP + 3 * LETTER + GAP;
        let head = 2 * LINE;
        assert_eq!((page.width, page.height), (left + 2 * (128 + GAP), GAP + head + 2 * (128 + GAP)));
        assert_eq!(page.rgb.len(), page.width * page.height * 3);
        let at = |x: usize, y: usize| page.rgb[(y * page.width + x) * 3];
        assert_eq!((at(left, GAP + head), at(left - 1, GAP + head)), (0, 255));
        assert_eq!(
            (at(left + 136, GAP + head), at(left + 136 + 127, GAP + head + 127)),
            (9, 9),
            "eight times as large"
        );
        assert_eq!(at(left + 14, GAP + head + 136 + 39), 7, "in the middle of its place");
        let ink = page.rgb.chunks(3).filter(|pixel| *pixel == INK).count();
        assert!(ink > 100, "{ink} pixels of words");
    }

    #[test]
    fn signs_are_colours() {
        let latents = HostTensor::new([1, 1, 2, 3], vec![0.0, 3.0, -3.0, 1.5, f32::NAN, -90.0]);
        let picture = channels(&latents, 2);
        assert_eq!((picture.width, picture.height), (4, 2));
        let at = |picture: &Picture, x: usize, y: usize| picture.rgb[(y * picture.width + x) * 3..][..3].to_vec();
        assert_eq!(at(&picture, 0, 0), [255, 255, 255]);
        assert_eq!(at(&picture, 2, 0), [176, 32, 40]);
        assert_eq!(at(&picture, 0, 1), [24, 80, 168]);
        assert_eq!(at(&picture, 1, 1), [24, 80, 168]);
        let large = channels(&latents, 8);
        assert_eq!((large.width, large.height), (16, 8));
        assert_eq!(at(&large, 10, 1), [176, 32, 40]);
        assert_eq!(at(&large, 8, 1), [255, 255, 255], "a seam");
    }
}
