//! Cub: the small model that ships inside the program, so that the first command draws what was asked. Its folder is
//! `models/cub/`, as diffusers writes one, and its model card says how it was trained; a ratel's young is a cub.

/// Paths of `models/cub/` with their bytes.
macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$((concat!("cub/", $path), include_bytes!(concat!("../../../models/cub/", $path)))),*]
    };
}

/// Cub's name: the folder that the paths in [`FILES`] begin with.
pub const NAME: &str = "cub";

/// Every file of cub that is read when it draws: its path, with forward slashes, and what is in it.
pub static FILES: &[(&str, &[u8])] = files![
    "model_index.json",
    "ratel.json",
    "scheduler/scheduler_config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/special_tokens_map.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

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

    #[test]
    fn the_whole_folder_is_inside() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/cub");
        let mut found = BTreeSet::new();
        paths(&folder, NAME, &mut found);
        let inside: BTreeSet<String> = FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
        assert_eq!(inside, found);
    }

    #[test]
    fn it_is_small() {
        const MOST: usize = 24_000_000;
        let bytes: usize = FILES.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(bytes <= MOST, "{bytes} bytes are more than {MOST}");
    }
}
