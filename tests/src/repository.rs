//! The repository's own files, for tests of how it is written.

use std::path::{Path, PathBuf};

/// The repository's root.
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests lie in a folder of the repository").to_owned()
}

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct Text {
    /// Its path from the root, with forward slashes.
    pub path: String,
    /// What it holds.
    pub text: String,
}

impl Text {
    /// The file name without its ending.
    pub fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map_or(name, |(stem, _)| stem)
    }

    /// The lines that say something, with their numbers: without comments, and without the unit tests at the end.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        numbered.take_while(|(_, line)| *line != "#[cfg(test)]").filter(|(_, line)| !line.starts_with("//"))
    }
}

/// The files with this ending in a folder of the repository and in the folders below it, by path.
pub fn files(folder: &str, ending: &str) -> Vec<Text> {
    let mut found = Vec::new();
    collect(&root().join(folder), ending, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(folder: &Path, ending: &str, found: &mut Vec<Text>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder's entry").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, ending, found);
            }
        } else if path.extension().is_some_and(|e| e == ending) {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let below = path.strip_prefix(root()).expect("a path below the root");
            let path = below.to_string_lossy().replace('\\', "/");
            found.push(Text { path, text });
        }
    }
}
