use ratel_diffusion::DiffusionError;
use ratel_engine::EngineError;
use std::path::PathBuf;

/// Why a command failed, in one line that names the cause and the way out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A file could not be written.
    #[error("{}: can't be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be read.
    #[error("{}: can't be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An argument that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A line of a file of prompts could not be drawn.
    #[error("{} line {number}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        number: usize,
        /// Why not.
        source: Box<Failure>,
    },
    /// A checkpoint of which no model can be built.
    #[error("{}: {source}", path.display())]
    Misfit {
        /// The checkpoint.
        path: PathBuf,
        /// The first tensor that is missing, left over, or of a shape that does not fit.
        source: DiffusionError,
    },
    /// Drawing failed.
    #[error(transparent)]
    Diffusion(#[from] DiffusionError),
    /// The device failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A command that checks found something wrong, and has said what.
    #[error("{0}")]
    Check(String),
}

impl Failure {
    /// 130 when stopped by Ctrl-C, 2 for arguments, 1 for everything else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Diffusion(error) if error.is_stopped() => 130,
            Failure::Engine(EngineError::Cancelled) => 130,
            Failure::Usage(_) => 2,
            Failure::Line { source, .. } => source.exit_code(),
            _ => 1,
        }
    }
}
