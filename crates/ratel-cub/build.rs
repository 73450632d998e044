//! Writes the table of the files that the program holds: those of `models/cub/` and, where it is there, of
//! `models/cub-pixels/`, which shares cub's text encoder and tokenizer.
#![allow(clippy::print_stdout)] // how a build script speaks to cargo

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Folders of `models/` in which nothing may be missing, and those that may not be there at all.
const NEEDED: &str = "cub";
const OPTIONAL: &str = "cub-pixels";
/// Parts that [`OPTIONAL`] has from [`NEEDED`].
const SHARED: [&str; 2] = ["text_encoder", "tokenizer"];
/// Endings of files that no program reads.
const FOR_PEOPLE: [&str; 2] = ["md", "png"];

fn main() -> Result<(), Box<dyn Error>> {
    let models = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("../../models");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={}", models.join(NEEDED).display());
    // what is not there can't be watched: where it would be is
    let optional = models.join(OPTIONAL);
    println!("cargo::rerun-if-changed={}", if optional.is_dir() { &optional } else { &models }.display());

    let mut files = BTreeMap::new();
    collect(&models.join(NEEDED), NEEDED, &mut files)?;
    if optional.is_dir() {
        collect(&optional, OPTIONAL, &mut files)?;
        for part in SHARED {
            let (own, shared) = (format!("{OPTIONAL}/{part}/"), format!("{NEEDED}/{part}/"));
            if !files.keys().any(|name| name.starts_with(&own)) {
                let of_needed = files.iter().filter(|(name, _)| name.starts_with(&shared));
                let again = of_needed.map(|(name, path)| (name.replacen(NEEDED, OPTIONAL, 1), path.clone()));
                let again: Vec<_> = again.collect();
                files.extend(again);
            }
        }
    }

    // a file that two names lead to is in the program once
    let mut numbers: BTreeMap<&PathBuf, usize> = BTreeMap::new();
    let (mut contents, mut table) = (String::new(), String::new());
    for (name, path) in &files {
        let next = numbers.len();
        let number = *numbers.entry(path).or_insert(next);
        if number == next {
            writeln!(contents, "static FILE_{number}: &[u8] = include_bytes!({path:?});")?;
        }
        writeln!(table, "    ({name:?}, FILE_{number}),")?;
    }
    let text = format!("{contents}static TABLE: &[(&str, &[u8])] = &[\n{table}];\n");
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("files.rs"), text)?;
    Ok(())
}

/// The files below a folder that programs read: their names, with forward slashes, beginning with `name`, and their paths.
fn collect(folder: &Path, name: &str, files: &mut BTreeMap<String, PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry?.path();
        let name = format!("{name}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            collect(&path, &name, files)?;
        } else if !FOR_PEOPLE.iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
            files.insert(name, path);
        }
    }
    Ok(())
}
