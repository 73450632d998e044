//! `--from-file`: a picture of each line of a file, a prompt as it stands or a JSON object with settings of its own.

use crate::Failure;
use crate::args::DrawArgs;
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What a line asks for.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its number in the file, from 1.
    pub number: usize,
    /// The command line's arguments, with the line's own in their place.
    pub draw: DrawArgs,
}

/// Files beyond this are no lists of prompts.
const MOST_BYTES: u64 = 64 << 20;

/// The lines of a file that aren't blank; `-` is standard input.
///
/// # Errors
/// A file that can't be read, is no UTF-8, holds no prompt, or a line that begins with `{` and is no object of these settings.
pub(crate) fn read(path: &Path, draw: &DrawArgs) -> Result<Vec<Line>, Failure> {
    let failed = |source| Failure::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let limited = |from: &mut dyn Read, into: &mut Vec<u8>| from.take(MOST_BYTES + 1).read_to_end(into);
    if path == Path::new("-") {
        limited(&mut std::io::stdin().lock(), &mut bytes).map_err(failed)?;
    } else {
        limited(&mut std::fs::File::open(path).map_err(failed)?, &mut bytes).map_err(failed)?;
    }
    if bytes.len() as u64 > MOST_BYTES {
        let what = format!("more than {} MiB are no list of prompts", MOST_BYTES >> 20);
        return Err(failed(std::io::Error::other(what)));
    }
    parse(&bytes, draw, path)
}

fn parse(bytes: &[u8], draw: &DrawArgs, path: &Path) -> Result<Vec<Line>, Failure> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let wrong = |what: String| of_line(path, number, Failure::Usage(what));
        let text = std::str::from_utf8(line).map_err(|_| wrong("not UTF-8 text".to_owned()))?.trim();
        if text.starts_with('{') {
            let settings: Settings = serde_json::from_str(text).map_err(|error| wrong(reason(&error)))?;
            lines.push(Line { number, draw: settings.over(draw) });
        } else if !text.is_empty() {
            lines.push(Line { number, draw: DrawArgs { prompt: Some(text.to_owned()), ..draw.clone() } });
        }
    }
    if lines.is_empty() {
        return Err(Failure::Usage(format!("{}: there is no prompt in it; write one a line", path.display())));
    }
    Ok(lines)
}

/// A failure of a line, with its place in front.
pub(crate) fn of_line(path: &Path, number: usize, source: Failure) -> Failure {
    Failure::Line { path: path.to_owned(), number, source: Box::new(source) }
}

/// What serde_json has to say, with the column alone: its line is always the first.
fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("column {}: {what}; a line that begins with {{ is a JSON object", error.column())
}

/// A line's own settings, under the names of the command line or of diffusers' pipelines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    prompt: String,
    negative_prompt: Option<String>,
    seed: Option<u64>,
    width: Option<usize>,
    height: Option<usize>,
    #[serde(alias = "num_inference_steps")]
    steps: Option<usize>,
    #[serde(alias = "guidance_scale")]
    cfg_scale: Option<f32>,
    guidance_rescale: Option<f32>,
    sampler: Option<String>,
    schedule: Option<String>,
    clip_skip: Option<usize>,
    init_image: Option<PathBuf>,
    strength: Option<f64>,
}

impl Settings {
    /// The arguments `draw`, but for what is set here.
    fn over(self, draw: &DrawArgs) -> DrawArgs {
        let mut draw = draw.clone();
        draw.prompt = Some(self.prompt);
        draw.seed = self.seed.or(draw.seed);
        draw.size.width = self.width.or(draw.size.width);
        draw.size.height = self.height.or(draw.size.height);
        draw.steps = self.steps.or(draw.steps);
        draw.cfg_scale = self.cfg_scale.or(draw.cfg_scale);
        draw.guidance_rescale = self.guidance_rescale.or(draw.guidance_rescale);
        draw.sampler = self.sampler.or(draw.sampler);
        draw.schedule = self.schedule.or(draw.schedule);
        draw.clip_skip = self.clip_skip.unwrap_or(draw.clip_skip);
        draw.init_image = self.init_image.or(draw.init_image);
        draw.strength = self.strength.or(draw.strength);
        draw.negative_prompt = self.negative_prompt.unwrap_or(draw.negative_prompt);
        draw
    }
}
