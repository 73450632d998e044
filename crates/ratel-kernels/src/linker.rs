//! Makes one WGSL module of a kernel's file and what it imports.
//!
//! A kernel is plain WGSL plus lines in WESL's syntax, `import package::lib::NAME::ITEM;` and
//! `import package::spec::{Elem, TM};`. Module scope in WGSL has no order, so the imported files are appended, each once:
//! every line of the kernel keeps its number, and an error or a lesson points at the real file. `spec` is the module
//! that differs from variant to variant: types of elements and of cooperative matrices from `shaders/lib/spec/`, and the
//! extents of arrays in functions, which WGSL wants constant when parsed.
//!
//! Two more things change between devices and are done here, in place: `var<immediate>` becomes a uniform buffer where
//! the device has no immediates, and a loop under a `// unroll` line is written out, since naga's output is not
//! unrolled by drivers.

mod unroll;

use crate::{Kernel, Schedule, WeightStorage};
use ratel_tensor::Elem;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Why a kernel could not be linked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A file of `--shaders DIR` could not be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An import that leads nowhere.
    #[error(
        "{path}:{line}: nothing to import as `{import}`; it must be package::spec::... or package::lib::FILE::ITEM with FILE in shaders/lib"
    )]
    Import {
        /// The importing file.
        path: String,
        /// Its line, from 1.
        line: usize,
        /// What was written.
        import: String,
    },
    /// A `// unroll` line above something that can't be written out.
    #[error(
        "{path}:{line}: `// unroll` needs a loop of the form `for (var i = 0u; i < BOUND; i++) {{` below it, BOUND a number or an extent"
    )]
    Unroll {
        /// The file.
        path: String,
        /// The line of the directive, from 1.
        line: usize,
    },
}

/// Where the text of shaders comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shaders {
    /// The texts compiled into the program.
    #[default]
    Embedded,
    /// A copy of `shaders/` on disk, so that a reader edits a kernel and runs it again. Files it lacks come from the
    /// program.
    Directory(PathBuf),
}

impl Shaders {
    /// The file that a text is read from: `path` below the directory where it is there, else below `shaders/`.
    pub fn file(&self, path: &str) -> String {
        match self {
            Shaders::Directory(root) if root.join(path).exists() => root.join(path).display().to_string(),
            _ => format!("shaders/{path}"),
        }
    }

    /// A kernel's own text.
    ///
    /// # Errors
    /// An unreadable file of a shader directory.
    pub fn of_kernel(&self, kernel: &Kernel) -> Result<Cow<'static, str>, LinkError> {
        Ok(self.text(kernel.path, Some(kernel.source))?.unwrap_or_default())
    }

    fn text(&self, path: &str, embedded: Option<&'static str>) -> Result<Option<Cow<'static, str>>, LinkError> {
        if let Shaders::Directory(root) = self {
            let file = root.join(Path::new(path));
            if file.exists() {
                let text = std::fs::read_to_string(&file).map_err(|source| LinkError::Read { path: file, source })?;
                return Ok(Some(Cow::Owned(text)));
            }
        }
        Ok(embedded.map(Cow::Borrowed))
    }
}

/// What a kernel is linked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The type of activations.
    pub elem: Elem,
    /// The storage of layers' matrices.
    pub weight: WeightStorage,
    /// Whether `Params` come as immediates; as a uniform buffer, group 1 binding 0, otherwise.
    pub immediates: bool,
    /// Whether loops under `// unroll` are written out.
    pub unroll: bool,
    /// Where texts come from.
    pub shaders: Shaders,
}

/// The files of `shaders/lib`, by name.
const LIB: &[(&str, &str)] = &[
    ("act", include_str!("../../../shaders/lib/act.wgsl")),
    ("grid", include_str!("../../../shaders/lib/grid.wgsl")),
    ("block_tile", include_str!("../../../shaders/lib/block_tile.wgsl")),
    ("cooperative_tile", include_str!("../../../shaders/lib/cooperative_tile.wgsl")),
    ("panels", include_str!("../../../shaders/lib/panels.wgsl")),
    ("subgroup_tile", include_str!("../../../shaders/lib/subgroup_tile.wgsl")),
    ("spec/elem_f16", include_str!("../../../shaders/lib/spec/elem_f16.wgsl")),
    ("spec/elem_f32", include_str!("../../../shaders/lib/spec/elem_f32.wgsl")),
    ("spec/fragment_16", include_str!("../../../shaders/lib/spec/fragment_16.wgsl")),
    ("spec/fragment_8", include_str!("../../../shaders/lib/spec/fragment_8.wgsl")),
    ("spec/out_elem", include_str!("../../../shaders/lib/spec/out_elem.wgsl")),
    ("spec/out_f32", include_str!("../../../shaders/lib/spec/out_f32.wgsl")),
    ("spec/weight_f16", include_str!("../../../shaders/lib/spec/weight_f16.wgsl")),
    ("spec/weight_f32", include_str!("../../../shaders/lib/spec/weight_f32.wgsl")),
    ("spec/weight_packed_f16", include_str!("../../../shaders/lib/spec/weight_packed_f16.wgsl")),
    ("workgroup_max", include_str!("../../../shaders/lib/workgroup_max.wgsl")),
    ("workgroup_sum", include_str!("../../../shaders/lib/workgroup_sum.wgsl")),
];

/// One WGSL module: the kernel's own text with every line at its number, then what it imports.
///
/// # Errors
/// An import that leads nowhere, a `// unroll` that can't be obeyed, an unreadable file of a shader directory.
pub fn link(kernel: &Kernel, schedule: &Schedule, options: &Options) -> Result<String, LinkError> {
    Ok(link_with_places(kernel, schedule, options)?.wgsl)
}

/// A linked kernel, and where its lines are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The module.
    pub wgsl: String,
    /// The files it is made of, by their paths below `shaders/`, each with the module's line that its first line is, from
    /// 1. What comes after them all are the extents, under an empty path.
    pub files: Vec<(String, usize)>,
}

impl Linked {
    /// The file that a line of the module is from, and its number there; both count from 1.
    pub fn place(&self, line: usize) -> (&str, usize) {
        let file = self.files.iter().rev().find(|(_, first)| *first <= line);
        file.map_or(("", line), |(path, first)| (path.as_str(), line + 1 - first))
    }
}

/// Like [`link`], with where each line is from.
///
/// # Errors
/// Those of [`link`].
pub fn link_with_places(kernel: &Kernel, schedule: &Schedule, options: &Options) -> Result<Linked, LinkError> {
    let mut linker = Linker { options, schedule, out: String::new(), queue: Vec::new(), files: Vec::new() };
    let text = options.shaders.of_kernel(kernel)?;
    linker.append(kernel.path, &text)?;
    let mut seen = BTreeSet::new();
    while let Some(Import { name, importer, line }) = linker.queue.pop() {
        if seen.insert(name.clone()) {
            let path = format!("lib/{name}.wgsl");
            let embedded = LIB.iter().find(|(known, _)| *known == name).map(|(_, text)| *text);
            let text = options.shaders.text(&path, embedded)?;
            let text =
                text.ok_or(LinkError::Import { path: importer, line, import: format!("package::lib::{name}") })?;
            linker.append(&path, &text)?;
        }
    }
    linker.begin("");
    for (name, value) in &schedule.extents {
        linker.out.push_str(&format!("const {name} = {value}u;\n"));
    }
    Ok(Linked { wgsl: linker.out, files: linker.files })
}

struct Import {
    name: String,
    importer: String,
    line: usize,
}

struct Linker<'a> {
    options: &'a Options,
    schedule: &'a Schedule,
    out: String,
    queue: Vec<Import>,
    files: Vec<(String, usize)>,
}

impl Linker<'_> {
    /// Notes that the next line is the first of a file.
    fn begin(&mut self, path: &str) {
        self.files.push((path.to_owned(), self.out.lines().count() + 1));
    }

    /// Appends one file, its imports commented out and put on the queue.
    fn append(&mut self, path: &str, text: &str) -> Result<(), LinkError> {
        let text = if self.options.unroll {
            Cow::Owned(
                unroll::unroll(text, &self.schedule.extents)
                    .map_err(|line| LinkError::Unroll { path: path.to_owned(), line })?,
            )
        } else {
            Cow::Borrowed(text)
        };
        self.begin(path);
        let native_f16 = self.options.elem == Elem::F16 || self.options.weight == WeightStorage::F16;
        for (i, line) in text.lines().enumerate() {
            let import = |name: &str| Import { name: name.to_owned(), importer: path.to_owned(), line: i + 1 };
            match line.strip_prefix("import package::") {
                Some(items) if items.starts_with("spec::") => {
                    let files = self.spec_files(items);
                    self.queue.extend(files.into_iter().map(import));
                    // `enable` must come before any declaration, and this line is the first
                    self.out.push_str(if native_f16 && self.out_is_bare() { "enable f16; // " } else { "// " });
                    self.out.push_str(line);
                }
                Some(item) => {
                    match item.strip_prefix("lib::").and_then(|item| item.rsplit_once("::")) {
                        Some((name, _)) => self.queue.push(import(&name.replace("::", "/"))),
                        None => {
                            let import = line.trim_start_matches("import ").trim_end_matches(';').to_owned();
                            return Err(LinkError::Import { path: path.to_owned(), line: i + 1, import });
                        }
                    }
                    self.out.push_str("// ");
                    self.out.push_str(line);
                }
                None if !self.options.immediates && line.starts_with("var<immediate> ") => {
                    self.out.push_str("@group(1) @binding(0) var<uniform> ");
                    self.out.push_str(&line["var<immediate> ".len()..]);
                }
                None => self.out.push_str(line),
            }
            self.out.push('\n');
        }
        Ok(())
    }

    /// Whether only comments and blank lines have been written.
    fn out_is_bare(&self) -> bool {
        self.out.lines().all(|line| line.is_empty() || line.starts_with("//"))
    }

    /// The files of `shaders/lib/spec` that an import of these items needs.
    fn spec_files(&self, items: &str) -> Vec<&'static str> {
        let mut files = Vec::new();
        if items.contains("Elem") {
            files.push(match self.options.elem {
                Elem::F16 => "spec/elem_f16",
                _ => "spec/elem_f32",
            });
        }
        if items.contains("Weight") {
            files.push(match self.options.weight {
                WeightStorage::F32 => "spec/weight_f32",
                WeightStorage::F16 => "spec/weight_f16",
                WeightStorage::PackedF16 => "spec/weight_packed_f16",
            });
        }
        let extent = |name| self.schedule.extents.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        if items.contains("Fragment") {
            files.push(if extent("EDGE") == Some(16) { "spec/fragment_16" } else { "spec/fragment_8" });
        }
        if items.contains("Out4") {
            files.push(if extent("PARTS") > Some(1) { "spec/out_f32" } else { "spec/out_elem" });
        }
        files
    }
}
