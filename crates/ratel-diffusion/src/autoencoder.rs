//! Between pictures and latents: the VAE's two halves; and between pictures in memory and pictures on a device.

use crate::DiffusionError;
use crate::denoise::combine;
use crate::model::Space;
use crate::pipeline::{Event, Watcher, target};
use crate::stage::Stage;
use ratel_engine::Buffer;
use ratel_kernels::combine::Combine;
use ratel_kernels::posterior::Posterior;
use ratel_kernels::rgb8::Rgb8;
use ratel_kernels::scale_latents::ScaleLatents;
use ratel_kernels::{Op, Role};
use ratel_tensor::HostTensor;

/// A picture in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// Red, green and blue of each pixel, row by row: `height * width * 3` bytes.
    pub rgb: Vec<u8>,
}

impl Picture {
    /// `(1, H, W, 3)`, in -1 to 1 (diffusers' `VaeImageProcessor.preprocess`).
    ///
    /// # Errors
    /// Bytes that are more or fewer than the size says.
    pub fn tensor(&self) -> Result<HostTensor, DiffusionError> {
        let needed = self.width * self.height * 3;
        if self.rgb.len() != needed {
            let (given, expected) = (format!("{} bytes", self.rgb.len()), format!("{needed} bytes"));
            return Err(DiffusionError::Mismatch { what: "the picture", given, expected });
        }
        let values = self.rgb.iter().map(|byte| f32::from(*byte) / 255.0 * 2.0 - 1.0).collect();
        Ok(HostTensor::new([1, self.height, self.width, 3], values))
    }
}

/// What the encoder says of a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The means and then the logarithms of the variances of the latents, unscaled, `(1, h, w, 2 C)`.
    pub moments: HostTensor,
    /// Latents as the UNet sees them, scaled, one picture for each noise: `(N, h, w, C)`.
    pub latents: HostTensor,
}

impl Stage<'_> {
    /// A picture's latents: the mode of what the encoder says plus its deviation times each of the noises, which are
    /// `(N, h, w, C)`; zeros give the mode.
    ///
    /// # Errors
    /// A model without an encoder, a size that it can't take, a device that fails.
    pub fn encode(
        &self,
        picture: &Picture,
        noises: &HostTensor,
        watcher: &mut dyn Watcher,
    ) -> Result<Encoded, DiffusionError> {
        let [h, w] = crate::pipeline::latent_size(self.model, picture.width, picture.height)?;
        let channels = self.model.latent_channels();
        let values = picture.tensor()?;
        let plan = self.plan(self.model.vae_encoder_graph(picture.height, picture.width)?)?;
        let target = plan.target;
        let session = self.load(plan, "VAE encoder", watcher)?;
        self.engine.mark("vae_encoder", None);
        session.input("picture")?.write_f32(&values.data)?;
        self.run(&session, None, "", watcher)?;

        let moments = session.output("moments")?;
        let (scale, shift) = (self.model.scaling_factor, self.model.shift_factor);
        let op = Op::from(Posterior { pixels: h * w, channels, scale, shift });
        let count = h * w * channels;
        let (noise, out) =
            (self.engine.buffer(Role::Vector, count, &target)?, self.engine.buffer(Role::Vector, count, &target)?);
        let mut latents = Vec::with_capacity(noises.data.len());
        for one in noises.data.chunks(count) {
            noise.write_f32(one)?;
            self.engine.run_op(&op, None, &[moments, &noise], &out)?;
            latents.extend(out.read_f32()?);
        }
        let moments = HostTensor::new([1, h, w, 2 * channels], moments.read_f32()?);
        Ok(Encoded { moments, latents: HostTensor::new([noises.data.len() / count, h, w, channels], latents) })
    }

    /// The pictures of each of these latents `(N, h, w, C)`, all of one shape: the bytes of one picture after the other.
    /// In image space they are pictures already.
    ///
    /// # Errors
    /// A device that fails.
    pub fn decode(&self, all: &[&HostTensor], watcher: &mut dyn Watcher) -> Result<Vec<Vec<Vec<u8>>>, DiffusionError> {
        let [batch, h, w, c] = match all.first().map(|first| &*first.shape) {
            Some(&[n, h, w, c]) => [n, h, w, c],
            _ => return Ok(vec![]),
        };
        let count = h * w * c;
        if self.model.space() == Space::Image {
            self.engine.mark("sampler", None);
            let picture = |one: &[f32]| self.to_bytes(&HostTensor::new([1, h, w, c], one.to_vec()));
            let pictures = all.iter().map(|pictures| pictures.data.chunks(count).map(&picture).collect());
            return pictures.collect();
        }
        let plan = self.plan(self.model.vae_graph(1, h, w)?)?;
        let target = plan.target;
        let session = self.load(plan, "VAE", watcher)?;
        self.engine.mark("vae_decoder", None);
        let unscaled = self.engine.buffer(Role::Vector, count, &target)?;
        let (scale, shift) = (1.0 / self.model.scaling_factor, self.model.shift_factor);
        let op = Op::from(ScaleLatents { count, copies: 1, scale, shift });
        let mut pictures = Vec::new();
        for (i, latents) in all.iter().enumerate() {
            let mut images = Vec::new();
            for (j, one) in latents.data.chunks(count).enumerate() {
                unscaled.write_f32(one)?;
                self.engine.run_op(&op, None, &[&unscaled], session.input("latents")?)?;
                // a trace shows the first picture's
                if i + j == 0 {
                    self.run(&session, None, "", watcher)?
                } else {
                    self.run_plainly(&session)?
                }
                images.push(session.output("picture")?.read_bytes()?);
                watcher.event(Event::Picture(i * batch + j + 1, all.len() * batch));
            }
            pictures.push(images);
        }
        Ok(pictures)
    }

    /// A sum of tensors of one shape, each with its factor: what adds noise to a picture or to latents, and what lies
    /// between two latents.
    ///
    /// # Errors
    /// None or more than six terms, terms of different shapes, a device that fails.
    pub fn sum(&self, terms: &[(HostTensor, f64)]) -> Result<HostTensor, DiffusionError> {
        let shape = terms.first().map_or([1].into(), |(first, _)| first.shape);
        if !(1..=Combine::MAX_TERMS).contains(&terms.len()) {
            let (given, expected) = (format!("{} terms", terms.len()), format!("1 to {}", Combine::MAX_TERMS));
            return Err(DiffusionError::Mismatch { what: "a sum", given, expected });
        }
        let odd = terms.iter().find(|(term, _)| term.shape != shape);
        if let Some((odd, _)) = odd {
            let (given, expected) = (odd.shape.to_string(), shape.to_string());
            return Err(DiffusionError::Mismatch { what: "a term of a sum", given, expected });
        }
        let sum = combine(self.engine, &target(self.engine, self.precision, self.model.elem)?, terms)?;
        Ok(HostTensor::new(shape, sum.read_f32()?))
    }

    /// The bytes of a picture `(1, H, W, 3)` in -1 to 1; what is beyond is cut off.
    ///
    /// # Errors
    /// A device that fails.
    pub fn to_bytes(&self, picture: &HostTensor) -> Result<Vec<u8>, DiffusionError> {
        let target = target(self.engine, self.precision, self.model.elem)?;
        let count = picture.data.len();
        let buffer = |role| -> Result<Buffer, DiffusionError> { Ok(self.engine.buffer(role, count, &target)?) };
        let (values, bytes) = (buffer(Role::Activation)?, buffer(Role::Bytes)?);
        values.write_f32(&picture.data)?;
        self.engine.run_op(&Op::from(Rgb8 { count }), None, &[&values], &bytes)?;
        Ok(bytes.read_bytes()?)
    }
}
