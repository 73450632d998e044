//! Files that appear whole or not at all: written beside their place, then renamed.

use crate::Failure;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Creates `path` with what `write` writes; what was there before stays until then.
///
/// # Errors
/// Whatever keeps it from being written, with the path.
pub(crate) fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<(), std::io::Error>,
) -> Result<(), Failure> {
    let failed = |source: std::io::Error| Failure::Write { path: path.to_owned(), source };
    let mut file = file_beside(path)?;
    {
        let mut buffered = std::io::BufWriter::new(file.as_file_mut());
        write(&mut buffered).map_err(failed)?;
        buffered.flush().map_err(failed)?;
    }
    #[cfg(unix)]
    {
        // temporary files are private; what a user asked for is not
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
    }
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Fails early, before hours of work, if `path` could not be written later.
///
/// # Errors
/// A missing or unwritable folder, or a folder in the file's place.
pub(crate) fn check_writable(path: &Path) -> Result<(), Failure> {
    let failed = |source: std::io::Error| Failure::Write { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(failed(std::io::Error::other("it is a folder; name a file in it")));
    }
    if path.exists() && !path.is_file() {
        return Err(failed(std::io::Error::other("it is a device or a pipe, and a file would take its place")));
    }
    file_beside(path)?;
    Ok(())
}

/// A file without a name of its own in the folder of `path`.
fn file_beside(path: &Path) -> Result<tempfile::NamedTempFile, Failure> {
    let failed = |source: std::io::Error| Failure::Write { path: path.to_owned(), source };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(failed(std::io::Error::other(format!("there is no folder {}", folder.display()))));
    }
    // the error names the temporary file, which means nothing to anyone; its kind says why
    let file = tempfile::Builder::new().prefix(".ratel-").tempfile_in(folder);
    file.map_err(|error| failed(error.kind().into()))
}

/// Writes a picture of `width * height * 3` bytes, with `parameters` as the text chunk that the field's programs read.
///
/// # Errors
/// Whatever keeps it from being written.
pub(crate) fn write_png(path: &Path, width: u32, height: u32, rgb: &[u8], parameters: &str) -> Result<(), Failure> {
    write_whole(path, |out| {
        let mut encoder = png::Encoder::new(out, width, height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        // a tEXt chunk holds Latin-1 only; readers of `parameters` take iTXt for the rest
        if parameters.chars().all(|c| (c as u32) < 256) {
            encoder.add_text_chunk("parameters".to_owned(), parameters.to_owned())?;
        } else {
            encoder.add_itxt_chunk("parameters".to_owned(), parameters.to_owned())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(rgb)?;
        writer.finish()?;
        Ok(())
    })
}

/// What made a picture, in the form that the field's programs write and read.
pub(crate) struct Parameters<'a> {
    pub prompt: &'a str,
    pub negative_prompt: &'a str,
    /// `Steps`, `20` and so on, in order.
    pub settings: Vec<(&'static str, String)>,
}

impl Parameters<'_> {
    /// The prompt, the negative prompt, and the settings on one line; values that hold a comma are quoted.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}\n", self.prompt);
        if !self.negative_prompt.is_empty() {
            text += &format!("Negative prompt: {}\n", self.negative_prompt);
        }
        let settings = self.settings.iter().map(|(name, value)| {
            let quoted = value.contains([',', '\n', ':']);
            if quoted {
                format!("{name}: {}", serde_json::Value::from(value.as_str()))
            } else {
                format!("{name}: {value}")
            }
        });
        text + &settings.collect::<Vec<_>>().join(", ")
    }
}

/// The path of picture `i` of `count`: `name.png` alone, else `name_1.png`, `name_2.png` ...
pub(crate) fn numbered(path: &Path, i: usize, count: usize) -> PathBuf {
    if count == 1 { path.to_owned() } else { with_suffix(path, &format!("_{}", i + 1)) }
}

/// `name.png` with `suffix` before its extension.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().map_or(String::new(), |e| format!(".{}", e.to_string_lossy()));
    path.with_file_name(format!("{stem}{suffix}{extension}"))
}

/// Where the files of a command go that writes several: a picture and others beside it under its name, or a folder.
pub(crate) struct Place {
    /// The picture.
    pub picture: PathBuf,
    /// Whether there is a folder, and so room for more.
    pub folder: Option<PathBuf>,
}

impl Place {
    /// `output` as a PNG file if it ends so, else as a folder, which is made, with `NAME.png` in it.
    ///
    /// # Errors
    /// A place that can't be written to; a file with another ending.
    pub(crate) fn new(output: &Path, name: &str) -> Result<Self, Failure> {
        let ending = output.extension().map(|e| e.to_string_lossy().to_lowercase());
        let place = match ending.as_deref() {
            Some("png") if !output.is_dir() => Place { picture: output.to_owned(), folder: None },
            Some(ending) if !output.is_dir() => {
                let what = format!("-o {}: pictures are written as .png, not .{ending}", output.display());
                return Err(Failure::Usage(what));
            }
            _ => {
                let failed = |source| Failure::Write { path: output.to_owned(), source };
                std::fs::create_dir_all(output).map_err(failed)?;
                Place { picture: output.join(format!("{name}.png")), folder: Some(output.to_owned()) }
            }
        };
        check_writable(&place.picture)?;
        Ok(place)
    }

    /// The file beside the picture that has another ending.
    pub(crate) fn beside(&self, ending: &str) -> PathBuf {
        self.picture.with_extension(ending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_read_like_the_fields() {
        let parameters = Parameters {
            prompt: "a cat",
            negative_prompt: "dog, rain",
            settings: vec![("Steps", "20".into()), ("Sampler", "Euler a".into()), ("Model", "one, two".into())],
        };
        let expected = "a cat\nNegative prompt: dog, rain\nSteps: 20, Sampler: Euler a, Model: \"one, two\"";
        assert_eq!(parameters.text(), expected);
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.png");
        std::fs::write(&path, "before").expect("a file");
        let result = write_whole(&path, |out| {
            out.write_all(b"half")?;
            Err(std::io::Error::other("no more room"))
        });
        assert!(result.is_err());
        assert_eq!(std::fs::read_to_string(&path).expect("the file"), "before");
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 1);
    }
}
