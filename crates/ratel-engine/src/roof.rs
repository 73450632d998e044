//! The roof of a device: how fast it computes and copies when a kernel does nothing else. Kernels are measured against
//! it: of a kernel's operations and bytes one takes longer than the other at the device's best, and nothing is faster
//! than that (Williams, Waterman & Patterson 2009, doi:10.1145/1498765.1498785).

mod measure;

use crate::engine::Where;
use crate::{Engine, EngineError, cache};
use ratel_kernels::{Shaders, kernels};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::{Path, PathBuf};

/// A device's own rates, all of them per second, as microkernels reached them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Roof {
    /// The device, as [`Engine::name`] gives it.
    pub device: String,
    /// Its driver and the driver's version; of the CPU twins, the processor's kind and number of cores.
    pub driver: String,
    /// Operations in `f32`; a multiply-add is two.
    pub f32_flops: f64,
    /// Operations in `f16`, where the device has the type.
    pub f16_flops: Option<f64>,
    /// Operations of cooperative matrices, `f16` factors and `f32` sums, where the device has them.
    pub matrix_flops: Option<f64>,
    /// Bytes of memory, those read and those written together, far beyond any cache.
    pub copy_bytes: f64,
    /// Bytes read of workgroup memory; of the CPU twins, of the cache nearest to each core.
    pub workgroup_bytes: f64,
    /// Seconds that one dispatch takes in which nothing is done.
    pub dispatch_seconds: f64,
    /// The measurements that the figures above come from, for a table.
    pub probes: Vec<Probe>,
}

/// One measurement of a [`Roof`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// The microkernel.
    pub kernel: String,
    /// What it did.
    pub what: String,
    /// The median, in units a second; in seconds for an empty dispatch.
    pub median: f64,
    /// Half the distance between the first and the third quartile, as a share of the median.
    pub spread: f64,
    /// How often it was measured.
    pub runs: usize,
}

/// The least time of some work on a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Attainable {
    /// Seconds.
    pub seconds: f64,
    /// What they are spent on.
    pub bound: Bound,
}

/// What keeps work from being done faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// Its operations.
    Compute,
    /// Its bytes.
    Memory,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Compute => "compute",
            Bound::Memory => "memory",
        })
    }
}

impl Roof {
    /// The rate that products can hope for: sums are kept in `f32`, so that of cooperative matrices where there are
    /// any, else that of `f32`.
    pub fn flops(&self) -> f64 {
        self.matrix_flops.map_or(self.f32_flops, |matrix| matrix.max(self.f32_flops))
    }

    /// The least time in which the device could do so many operations on so many bytes, and which of the two take it.
    pub fn attainable(&self, flops: f64, bytes: f64) -> Attainable {
        let (compute, memory) = (flops / self.flops(), bytes / self.copy_bytes);
        if compute > memory {
            Attainable { seconds: compute, bound: Bound::Compute }
        } else {
            Attainable { seconds: memory, bound: Bound::Memory }
        }
    }

    /// The roof of an engine's device: from [`crate::cache_folder`], else measured and kept there.
    ///
    /// # Errors
    /// Those of [`Roof::measure`].
    pub fn cached(engine: &Engine, progress: &mut dyn FnMut(&str)) -> Result<Roof, EngineError> {
        Self::cached_in(cache::cache_folder().as_deref(), engine, progress)
    }

    /// Like [`Roof::cached`], with the folder given.
    ///
    /// # Errors
    /// Those of [`Roof::measure`].
    pub fn cached_in(
        folder: Option<&Path>,
        engine: &Engine,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Roof, EngineError> {
        let (device, driver) = Self::owner(engine);
        let known = folder.filter(|_| own_shaders(engine)).and_then(|folder| Self::recall(folder, &device, &driver));
        known.map_or_else(|| Self::fresh_in(folder, engine, progress), Ok)
    }

    /// Measures, whatever was measured before, and keeps that in a folder: unless microkernels were edited or had
    /// bounds checks, since what they reach then is not the device's roof.
    ///
    /// # Errors
    /// Those of [`Roof::measure`].
    pub fn fresh_in(
        folder: Option<&Path>,
        engine: &Engine,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Roof, EngineError> {
        let roof = Roof::measure(engine, progress)?;
        let checks = matches!(&engine.place, Where::Device(gpu) if gpu.options.checks);
        if let Some(folder) = folder.filter(|_| own_shaders(engine) && !checks) {
            roof.keep(folder);
        }
        Ok(roof)
    }

    /// What was kept of a device and its driver. A file that is damaged, that another version wrote or that belongs to
    /// another device counts for nothing.
    fn recall(folder: &Path, device: &str, driver: &str) -> Option<Roof> {
        let Kept { version, roof } = cache::read(&Self::path(folder, device, driver))?;
        let fits = version == self::version() && roof.device == device && roof.driver == driver && roof.is_sound();
        fits.then_some(roof)
    }

    /// Keeps it in a folder for [`Roof::cached_in`]. Where that can't be written it is only measured again.
    pub fn keep(&self, folder: &Path) {
        let kept = Kept { version: version(), roof: self.clone() };
        cache::write(&Self::path(folder, &self.device, &self.driver), &kept).unwrap_or_default();
    }

    /// Measures, which takes a few seconds. `progress` is told what is being measured.
    ///
    /// # Errors
    /// What the device reports.
    pub fn measure(engine: &Engine, progress: &mut dyn FnMut(&str)) -> Result<Roof, EngineError> {
        measure::measure(engine, progress)
    }

    /// The names that a roof is kept under.
    fn owner(engine: &Engine) -> (String, String) {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let driver = engine
            .device()
            .map_or_else(|| format!("{}, {cores} cores", std::env::consts::ARCH), |info| info.driver.clone());
        (engine.name(), driver)
    }

    fn path(folder: &Path, device: &str, driver: &str) -> PathBuf {
        folder.join(cache::file_name("roof", &[device, driver]))
    }

    /// Whether every figure is one.
    fn is_sound(&self) -> bool {
        let needed = [self.f32_flops, self.copy_bytes, self.workgroup_bytes, self.dispatch_seconds];
        let all = needed.into_iter().chain(self.f16_flops).chain(self.matrix_flops);
        let sound = |figure: f64| figure.is_finite() && figure > 0.0;
        all.into_iter().all(sound)
    }
}

/// Whether an engine's kernels are the program's.
fn own_shaders(engine: &Engine) -> bool {
    match &engine.place {
        Where::Device(gpu) => gpu.options.shaders == Shaders::Embedded,
        Where::Twins(_) => true,
    }
}

/// A roof as it lies in a file.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Of the program that measured it: another one may have other microkernels.
    version: String,
    roof: Roof,
}

/// The program's version and its microkernels: with others, other figures come out.
fn version() -> String {
    let mut texts: Vec<&str> = kernels()
        .into_iter()
        .filter(|kernel| kernel.path.starts_with("roofline/"))
        .map(|kernel| kernel.source)
        .collect();
    texts.push(env!("CARGO_PKG_VERSION"));
    format!("{:016x}", cache::hash(&texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roof() -> Roof {
        Roof {
            device: "Some GPU (vulkan, discrete GPU)".to_owned(),
            driver: "1.2.3".to_owned(),
            f32_flops: 1e12,
            f16_flops: None,
            matrix_flops: None,
            copy_bytes: 1e11,
            workgroup_bytes: 1e12,
            dispatch_seconds: 1e-5,
            probes: vec![],
        }
    }

    #[test]
    fn the_slower_of_the_two_binds() {
        let roof = roof();
        // ten operations a byte are where the two meet
        assert_eq!(roof.attainable(4e12, 1e11), Attainable { seconds: 4.0, bound: Bound::Compute });
        assert_eq!(roof.attainable(5e11, 2e11), Attainable { seconds: 2.0, bound: Bound::Memory });
        assert_eq!(roof.attainable(0.0, 1e11).bound, Bound::Memory);
        assert_eq!(roof.attainable(0.0, 0.0).seconds, 0.0);

        let with_matrices = Roof { matrix_flops: Some(8e12), ..roof.clone() };
        assert_eq!(with_matrices.attainable(4e12, 1e10), Attainable { seconds: 0.5, bound: Bound::Compute });
        let slow_matrices = Roof { matrix_flops: Some(1e11), ..roof };
        assert_eq!(slow_matrices.flops(), 1e12, "nobody has to use them");
    }

    #[test]
    fn what_is_kept_is_found_again_and_nothing_else_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let mine = roof();
        let path = Roof::path(folder.path(), &mine.device, &mine.driver);
        let recall = || Roof::recall(folder.path(), &mine.device, &mine.driver);
        assert_eq!(recall(), None, "nothing was kept yet");
        mine.keep(folder.path());
        assert_eq!(recall().as_ref(), Some(&mine));
        std::fs::write(&path, b"{\"version\": ").expect("damage");
        assert_eq!(recall(), None, "damaged");
        for foreign in [
            Roof { driver: "another".to_owned(), ..mine.clone() },
            Roof { copy_bytes: 0.0, ..mine.clone() },
            Roof { matrix_flops: Some(-1.0), ..mine.clone() },
        ] {
            cache::write(&path, &Kept { version: version(), roof: foreign }).expect("it can be written");
            assert_eq!(recall(), None, "of another device, or with figures that are none");
        }
        cache::write(&path, &Kept { version: "0".to_owned(), roof: mine.clone() }).expect("it can be written");
        assert_eq!(recall(), None, "of another version");
        mine.keep(folder.path());
        assert_eq!(recall().as_ref(), Some(&mine), "kept again");
    }
}
