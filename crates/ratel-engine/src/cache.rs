//! What was measured or compiled on a device, kept between runs in the user's cache directory. Nothing there is needed: what
//! is missing, damaged or of another device is made anew, and what can't be written is left out.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The largest file that is read. Ratel's own are far smaller.
const LARGEST: u64 = 4 << 20;

/// The folder that Ratel keeps what it measured in: `ratel` in the user's cache directory (`$XDG_CACHE_HOME`,
/// `~/Library/Caches`, `%LOCALAPPDATA%`). `None` where the system names no such directory.
pub fn cache_folder() -> Option<PathBuf> {
    dirs::cache_dir().map(|folder| folder.join("ratel"))
}

/// What a file holds, if it is one.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&read_bytes(path, LARGEST)?).ok()
}

/// The bytes of a file of at most so many.
pub(crate) fn read_bytes(path: &Path, most: u64) -> Option<Vec<u8>> {
    read_whole(File::open(path).ok()?, most)
}

/// The same of a file that is this user's, and to which nobody else may write.
pub(crate) fn read_private(path: &Path, most: u64) -> Option<Vec<u8>> {
    let file = File::open(path).ok()?;
    is_private(&file).then(|| read_whole(file, most))?
}

fn read_whole(file: File, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most).then_some(bytes)
}

#[cfg(unix)]
fn is_private(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::geteuid().as_raw();
    file.metadata().is_ok_and(|data| data.is_file() && data.mode() & 0o022 == 0 && data.uid() == own)
}

/// Elsewhere the user's cache directory is the user's alone.
#[cfg(not(unix))]
fn is_private(file: &File) -> bool {
    file.metadata().is_ok_and(|data| data.is_file())
}

/// Writes a value as a file.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T) -> std::io::Result<()> {
    write_bytes(path, &serde_json::to_vec_pretty(value)?)
}

/// Writes a file whole or not at all: beside its place, then renamed, so that no other process sees a part of it.
pub(crate) fn write_bytes(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().ok_or(std::io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".ratel-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// A file's name for these words: readable, and another one for other words.
pub(crate) fn file_name(kind: &str, words: &[&str]) -> String {
    let readable: String = words.join(" ").chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let readable: Vec<&str> = readable.split('-').filter(|part| !part.is_empty()).collect();
    let mut readable = readable.join("-").to_lowercase();
    readable.truncate(60);
    format!("{kind}-{readable}-{:016x}.json", hash(words))
}

/// FNV-1a (Fowler, Noll & Vo), 64 bits: the same on every machine and in every version.
pub(crate) fn hash(words: &[&str]) -> u64 {
    fnv(words.iter().flat_map(|word| word.bytes().chain([0])))
}

/// The same of bytes.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    fnv(bytes.iter().copied())
}

fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep").join("file.json");
        assert_eq!(read::<Vec<u32>>(&path), None, "there is none yet");
        write(&path, &vec![1u32, 2, 3]).expect("it can be written");
        assert_eq!(read::<Vec<u32>>(&path), Some(vec![1, 2, 3]));
        assert_eq!(read::<String>(&path), None, "it holds something else");
        let beside = fs::read_dir(folder.path().join("deep")).expect("the folder").count();
        assert_eq!(beside, 1, "nothing is left beside it");

        fs::write(&path, b"[1, 2").expect("damage");
        assert_eq!(read::<Vec<u32>>(&path), None);
        fs::write(&path, vec![b' '; LARGEST as usize + 1]).expect("a large file");
        assert_eq!(read::<Vec<u32>>(&path), None);
        assert!(write(&folder.path().join("deep/file.json/under"), &1).is_err(), "a file is no folder");
    }

    #[cfg(unix)]
    #[test]
    fn what_others_may_write_is_not_private() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        write_bytes(&path, b"own").expect("it can be written");
        assert_eq!(read_private(&path, 10).as_deref(), Some(&b"own"[..]));
        assert_eq!(read_private(&path, 2), None, "too long");
        assert_eq!(read_private(folder.path(), 10), None, "no file");
        for mode in [0o622, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            assert_eq!(read_private(&path, 10), None, "{mode:o}");
        }
    }

    #[test]
    fn names_tell_words_apart() {
        let names =
            [&["a b", "c"][..], &["a", "b c"], &["a", "b", "c"], &["a-b", "c"]].map(|words| file_name("x", words));
        for (i, name) in names.iter().enumerate() {
            assert!(name.starts_with("x-a-b-c-") && !names[..i].contains(name), "{names:?}");
        }
        let long = "é/\\..".repeat(100);
        assert!(file_name("x", &[&long]).len() < 100);
    }
}
