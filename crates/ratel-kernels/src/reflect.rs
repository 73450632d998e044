use crate::linker::{Linked, Options, link_with_places};
use crate::{Kernel, Schedule};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ScalarKind, StorageAccess, TypeInner};

/// One storage buffer of a linked kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The variable's name, which is its operand's.
    pub name: String,
    /// `@binding`.
    pub index: u32,
    /// Whether the kernel writes it.
    pub writes: bool,
}

/// What a linked kernel takes, read off its WGSL by naga so that it is listed nowhere else.
#[derive(Clone, Debug)]
pub struct Reflection {
    /// The storage buffers of group 0, by `@binding`.
    pub bindings: Vec<Binding>,
    /// The members of `Params`: name, byte offset, kind.
    pub params: Vec<(String, u32, ScalarKind)>,
    /// Bytes of `Params`.
    pub params_bytes: u32,
    /// The names of the `override`s.
    pub overrides: Vec<String>,
    /// The module, for validation and translation.
    pub module: Module,
}

/// Parses a linked kernel.
///
/// # Errors
/// What is wrong with it, one line per place, with `path:line:column`. Lines of the kernel's own file have their numbers.
pub fn reflect(path: &str, wgsl: &str) -> Result<Reflection, String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|error| {
        let place = error.location(wgsl).map(|at| format!(":{}:{}", at.line_number, at.line_position));
        format!("{path}{}: {}", place.unwrap_or_default(), error.message())
    })?;
    let mut reflection =
        Reflection { bindings: vec![], params: vec![], params_bytes: 0, overrides: vec![], module: Module::default() };
    for (_, variable) in module.global_variables.iter() {
        let name = variable.name.clone().unwrap_or_default();
        match (variable.space, variable.binding) {
            (AddressSpace::Storage { access }, Some(at)) => {
                let writes = access.contains(StorageAccess::STORE);
                reflection.bindings.push(Binding { name, index: at.binding, writes });
            }
            (AddressSpace::Immediate | AddressSpace::Uniform, _) => {
                if let TypeInner::Struct { members, span } = &module.types[variable.ty].inner {
                    reflection.params_bytes = *span;
                    for member in members {
                        let kind = match module.types[member.ty].inner {
                            TypeInner::Scalar(scalar) => scalar.kind,
                            _ => return Err(format!("{path}: Params hold scalars only")),
                        };
                        reflection.params.push((member.name.clone().unwrap_or_default(), member.offset, kind));
                    }
                }
            }
            _ => {}
        }
    }
    reflection.bindings.sort_by_key(|binding| binding.index);
    reflection.overrides = module.overrides.iter().filter_map(|(_, o)| o.name.clone()).collect();
    reflection.module = module;
    Ok(reflection)
}

/// What is wrong with a kernel's text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The file, below `shaders/`.
    pub path: String,
    /// The line in it, from 1.
    pub line: usize,
    /// The place in the line, from 1.
    pub column: usize,
    /// What the line says.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

/// The first mistake in a kernel's text, in the file that it is in; `None` where naga finds none, or none with a place.
/// Loops are not written out for it, so that every line is where it was written.
pub fn whats_wrong(kernel: &Kernel, schedule: &Schedule, options: &Options) -> Option<Wrong> {
    let linked = link_with_places(kernel, schedule, &Options { unroll: false, ..options.clone() }).ok()?;
    let wgsl = &linked.wgsl;
    match naga::front::wgsl::parse_str(wgsl) {
        Err(error) => Some(wrong(&linked, error.location(wgsl)?, error.message().to_owned())),
        Ok(module) => {
            let error = Validator::new(ValidationFlags::all(), Capabilities::all()).validate(&module).err()?;
            // what goes wrong in a function is told from the outside in; where that is, the place says
            let mut causes = vec![error.to_string()];
            let mut cause = std::error::Error::source(error.as_inner());
            while let Some(next) = cause {
                causes.push(next.to_string());
                cause = next.source();
            }
            let told = causes.len().saturating_sub(2);
            let why = causes[told..].join(": ").lines().map(str::trim).collect::<Vec<_>>().join(" ");
            Some(wrong(&linked, error.location(wgsl)?, why))
        }
    }
}

fn wrong(linked: &Linked, at: naga::SourceLocation, why: String) -> Wrong {
    let (path, line) = linked.place(at.line_number as usize);
    let text = linked.wgsl.lines().nth(at.line_number as usize - 1).unwrap_or_default().to_owned();
    Wrong { path: path.to_owned(), line, column: at.line_position as usize, text, why }
}

impl Reflection {
    /// The bytes of `Params`, each member taken by name from `params`.
    ///
    /// # Errors
    /// The name of a member that the op does not offer or offers as another type.
    pub fn pack_params(&self, params: &[(&'static str, crate::Param)]) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; self.params_bytes as usize];
        for (name, offset, kind) in &self.params {
            let found = params.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
            let fits = matches!(
                (found, kind),
                (Some(crate::Param::U32(_)), ScalarKind::Uint)
                    | (Some(crate::Param::I32(_)), ScalarKind::Sint)
                    | (Some(crate::Param::F32(_)), ScalarKind::Float)
            );
            match found {
                Some(value) if fits => {
                    bytes[*offset as usize..*offset as usize + 4].copy_from_slice(&value.to_bytes());
                }
                _ => return Err(format!("Params.{name}: the op offers no such {kind:?}")),
            }
        }
        Ok(bytes)
    }
}
