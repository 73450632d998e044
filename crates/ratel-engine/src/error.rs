use ratel_kernels::LinkError;

/// Why something could not be run. Every message is one line.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No device by that index or name.
    #[error("no device matches `{wanted}`; there is {known}")]
    NoSuchDevice {
        /// What was asked for.
        wanted: String,
        /// What there is.
        known: String,
    },
    /// The driver refused to open the device.
    #[error("{device}: cannot be opened: {why}")]
    Open {
        /// The device's name.
        device: String,
        /// What the driver said.
        why: String,
    },
    /// The device lacks something that was asked for.
    #[error("{device} has no {what}")]
    Unsupported {
        /// The device's name.
        device: String,
        /// What it lacks, and the way out.
        what: String,
    },
    /// A kernel's WGSL could not be put together.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A kernel's WGSL is wrong, or the driver refused it.
    #[error("{0}")]
    Shader(String),
    /// No kernel can do an op on the device.
    #[error("no kernel can do {op} on {device}")]
    NoKernel {
        /// The op with its sizes.
        op: String,
        /// The device's name.
        device: String,
    },
    /// An op was given operands that don't fit it.
    #[error("{op}: {what}")]
    Operands {
        /// The op's name.
        op: String,
        /// What does not fit.
        what: String,
    },
    /// A buffer was read or written as something it does not hold.
    #[error("{0}")]
    Buffer(String),
    /// A buffer or a binding is larger than the device allows.
    #[error("{what} takes {bytes} bytes, and the device allows {limit}; a smaller picture or a smaller tile fits")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Bytes it takes.
        bytes: u64,
        /// Bytes there may be.
        limit: u64,
    },
    /// The device's memory is full.
    #[error("out of device memory at {what} ({live} bytes were in use): {why}")]
    OutOfMemory {
        /// What was being done.
        what: String,
        /// Bytes in use by this engine at that time.
        live: u64,
        /// What the driver said.
        why: String,
    },
    /// The device is gone: unplugged, reset by the system's watchdog, or its driver failed.
    #[error("the device was lost: {0}; open it again to go on")]
    Lost(String),
    /// wgpu found a mistake in what it was told to do: a defect of this program.
    #[error("{what}: {why}")]
    Validation {
        /// What was being done.
        what: String,
        /// wgpu's description.
        why: String,
    },
    /// A kernel's result is not its twin's.
    #[error("{op}: its result is wrong on this device; `ratel selftest` shows which kernels are")]
    Wrong {
        /// The op with its sizes.
        op: String,
    },
    /// A plan names something that is not there.
    #[error("plan: {0}")]
    Plan(String),
    /// The source of weights failed.
    #[error("{0}")]
    Source(Box<dyn std::error::Error + Send + Sync>),
    /// The user asked to stop.
    #[error("stopped")]
    Cancelled,
}

/// A message of wgpu's on one line.
pub(crate) fn one_line(message: &str) -> String {
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}
