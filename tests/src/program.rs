//! The program as its users run it, in a folder of its own.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The program. Cargo names the programs of a test's own package only (`CARGO_BIN_EXE_*`), and these tests lie in another,
/// so the program is built here, once, as this test was: into the same folder and with the same profile. That costs
/// nothing where it is built already, and never tests one that is out of date.
///
/// # Panics
/// If it can't be built.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // .../target/PROFILE/deps/cli-HASH
        let test = std::env::current_exe().expect("this test's own path");
        let folder = test.ancestors().nth(2).expect("the profile's folder");
        let profile = match folder.file_name().and_then(OsStr::to_str) {
            Some("debug") | None => "dev",
            Some(name) => name,
        };
        let target = folder.parent().expect("the target folder");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--package", "ratel", "--profile", profile, "--target-dir"])
            .arg(target)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status();
        assert!(built.expect("cargo").success(), "ratel is built");
        folder.join(format!("ratel{}", std::env::consts::EXE_SUFFIX))
    })
}

/// A folder to run in, which nothing but the test's own files is left in.
#[derive(Debug)]
pub struct Place(tempfile::TempDir);

impl Place {
    /// An empty one.
    ///
    /// # Panics
    /// If there is no room for a folder.
    pub fn new() -> Self {
        Place(tempfile::tempdir().expect("a folder"))
    }

    /// The program with these arguments, in the folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        // without the variable, some drivers' libraries write about it where only the program should
        command.args(arguments).current_dir(self.0.path()).env("XDG_RUNTIME_DIR", self.0.path());
        // what is measured is kept here, and not among the user's own files
        command.env("XDG_CACHE_HOME", self.0.path().join("cache"));
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it does not start.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// Runs what must succeed, and returns what it prints.
    ///
    /// # Panics
    /// If it does otherwise.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Draws in 64x64 and two steps on the CPU.
    ///
    /// # Panics
    /// If it does otherwise.
    #[track_caller]
    pub fn draw(&self, prompt: &str, more: &[&str]) -> String {
        self.succeed(&[&["generate", prompt, "-m", TINY], SMALL, more].concat())
    }

    /// Runs what must fail: with one line that names the cause, beside notes on how the arguments were understood, and
    /// without a file left behind. Returns that line.
    ///
    /// # Panics
    /// If it does otherwise.
    #[track_caller]
    pub fn refuse(&self, arguments: &[&str], code: i32, parts: &[&str]) -> String {
        let before = self.files();
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        let lines: Vec<&str> = errors.lines().filter(|line| !line.starts_with("note: ")).collect();
        let [line] = lines[..] else { panic!("{arguments:?}: one line expected: {errors}") };
        assert!(line.starts_with("ratel: "), "{arguments:?}: {line}");
        assert!(line.len() < 1000, "{arguments:?}: {} bytes of message", line.len());
        for part in parts {
            assert!(line.contains(part), "{arguments:?}: {line:?} should name {part:?}");
        }
        assert_eq!(self.files(), before, "{arguments:?} left files behind");
        line.to_owned()
    }

    /// The names of the files in it, and in its folders.
    ///
    /// # Panics
    /// If they can't be listed.
    pub fn files(&self) -> Vec<String> {
        fn collect(folder: &Path, all: &mut Vec<String>) {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                all.push(path.file_name().expect("a name").to_string_lossy().into_owned());
                if path.is_dir() && !path.is_symlink() {
                    collect(&path, all);
                }
            }
        }
        let mut all = Vec::new();
        collect(self.0.path(), &mut all);
        all.sort();
        all
    }

    /// Of a file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What a file holds.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Copies the folder of [`TINY`] to `model`.
    ///
    /// # Panics
    /// If it can't be copied.
    pub fn copy_model(&self) {
        for (part, files) in [
            ("", &["model_index.json"][..]),
            ("scheduler", &["scheduler_config.json"]),
            ("tokenizer", &["vocab.json", "merges.txt"]),
            ("text_encoder", &["config.json", "model.safetensors"]),
            ("unet", &["config.json", "diffusion_pytorch_model.safetensors"]),
            ("vae", &["config.json", "diffusion_pytorch_model.safetensors"]),
        ] {
            let to = self.path("model").join(part);
            fs::create_dir_all(&to).expect("a folder");
            for file in files {
                fs::copy(Path::new(TINY).join(part).join(file), to.join(file)).expect("a copy");
            }
        }
    }

    /// A picture's width and height.
    ///
    /// # Panics
    /// If it is none.
    pub fn size(&self, name: &str) -> (u32, u32) {
        let picture = image::load_from_memory(&self.bytes(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        (picture.width(), picture.height())
    }
}

/// A small model of random weights: what these tests are about does not depend on what is drawn.
pub const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/models/tiny");

/// Where and how small these tests draw.
pub const SMALL: &[&str] = &["--device", "cpu", "-W", "64", "-H", "64", "--steps", "2"];

impl Default for Place {
    fn default() -> Self {
        Place::new()
    }
}
