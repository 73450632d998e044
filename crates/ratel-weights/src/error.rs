use ratel_tensor::Shape;
use std::path::PathBuf;

/// Why a checkpoint could not be read. Every message is one line that names the file.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The system refused.
    #[error("{}: can't be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {}", path.display(), one_line(problem))]
    Invalid {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// A tensor that is not what it should be.
    #[error("{}: {}: {}", path.display(), one_line(key), one_line(problem))]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        key: String,
        /// What is wrong.
        problem: String,
    },
    /// A tensor that was asked for and is not there.
    #[error("{}: no tensor {key}", path.display())]
    Missing {
        /// The checkpoint.
        path: PathBuf,
        /// Its key.
        key: String,
    },
    /// A tensor that can't be laid out as asked.
    #[error("{}: {key} is {shape}, which is no matrix", path.display())]
    Layout {
        /// The checkpoint.
        path: PathBuf,
        /// Its key.
        key: String,
        /// Its shape.
        shape: Shape,
    },
    /// Whoever took the values failed.
    #[error("{0}")]
    Sink(Box<dyn std::error::Error + Send + Sync>),
}

/// What a file says, fit to be shown: at most some lines' length, and nothing in it that a terminal would obey.
fn one_line(text: &str) -> String {
    const MOST: usize = 400;
    let mut shown = String::new();
    for c in text.chars() {
        if shown.len() >= MOST {
            shown += "...";
            break;
        }
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}
