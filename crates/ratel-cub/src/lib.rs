//! Cub: the small model that ships inside the program, so that the first command draws what was asked; a ratel's young is a
//! cub. And beside it a still smaller one of image space, which shows why Stable Diffusion draws in latents. Their folders
//! are `models/cub/` and `models/cub-pixels/`, as diffusers writes them, and their model cards say how they were trained.
//!
//! `build.rs` writes the table of files.

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Cub's name: the folder that the paths of its files begin with.
pub const NAME: &str = "cub";

/// The name of the model of image space. It has a UNet of its own, and cub's text encoder and tokenizer.
pub const PIXELS: &str = "cub-pixels";

/// Every file that is read when these models draw: its path, with forward slashes, and what is in it.
pub static FILES: &[(&str, &[u8])] = TABLE;

/// Whether the model of this name is inside. A program that was built without the folder `models/cub-pixels/` has cub alone.
pub fn has(name: &str) -> bool {
    FILES.iter().any(|(path, _)| path.split('/').next() == Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// What may lie in the folder beside what is read.
    const FOR_PEOPLE: [&str; 2] = ["md", "png"];

    /// The paths of files below a folder, with forward slashes, beginning with `name`.
    fn paths(folder: &Path, name: &str, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = format!("{name}/{}", path.file_name().expect("a name").to_string_lossy());
            if path.is_dir() {
                paths(&path, &name, found);
            } else if !FOR_PEOPLE.iter().any(|ending| path.extension().is_some_and(|e| e == *ending)) {
                found.insert(name);
            }
        }
    }

    fn bytes(path: &str) -> Option<&'static [u8]> {
        FILES.iter().find(|(name, _)| *name == path).map(|(_, bytes)| *bytes)
    }

    #[test]
    fn the_whole_folders_are_inside() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
        let mut found = BTreeSet::new();
        paths(&models.join(NAME), NAME, &mut found);
        assert!(has(NAME) && !has("cu"));
        assert_eq!(has(PIXELS), models.join(PIXELS).is_dir());
        if has(PIXELS) {
            let shared = |path: &&String| path.starts_with("cub/text_encoder/") || path.starts_with("cub/tokenizer/");
            let shared: Vec<String> = found.iter().filter(shared).cloned().collect();
            paths(&models.join(PIXELS), PIXELS, &mut found);
            for path in shared {
                let again = path.replacen(NAME, PIXELS, 1);
                let (once, twice) = (bytes(&path).expect("cub's"), bytes(&again).expect("the other's"));
                assert!(std::ptr::eq(once, twice), "{path} is in the program once");
                found.insert(again);
            }
        }
        let inside: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(inside, found);
        for (path, bytes) in FILES {
            assert!(!bytes.is_empty(), "{path}");
        }
    }

    #[test]
    fn they_are_small() {
        for (name, most) in [(NAME, 24_000_000), (PIXELS, 10_000_000)] {
            let own = |path: &str| Path::new(path).starts_with(name) && (name == NAME || path.contains("/unet/"));
            let bytes: usize = FILES.iter().filter(|(path, _)| own(path)).map(|(_, bytes)| bytes.len()).sum();
            assert!(bytes <= most, "{name}: {bytes} bytes are more than {most}");
        }
    }
}
