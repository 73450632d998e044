//! Every kernel in every variant is valid WGSL within a device's limits, and translates to what drivers take. No device
//! is needed.

use naga::back::pipeline_constants::process_overrides;
use naga::back::{PipelineConstants, hlsl, msl, spv};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, ShaderStage};
use ratel_kernels::lessons::LESSONS;
use ratel_kernels::{Language, Reflection, WeightStorage, kernels, reflect};
use ratel_tensor::Elem;
use ratel_tests::variants::{Variant, every_variant};
use std::collections::BTreeSet;
use std::thread;

/// WebGPU's `maxStorageBuffersPerShaderStage`.
const STORAGE_BUFFERS: usize = 8;
/// The least immediate data that Vulkan and Ratel's other devices have.
const PARAMS_BYTES: u32 = 128;

#[test]
fn every_variant_is_valid_and_translates() {
    let variants = every_variant();
    let used: BTreeSet<_> = variants.iter().map(|variant| variant.choice.kernel.name).collect();
    let rungs = LESSONS.iter().flat_map(|lesson| lesson.rungs.iter().copied());
    let all: BTreeSet<_> = kernels().into_iter().chain(rungs).map(|kernel| kernel.name).collect();
    assert_eq!(used, all, "every kernel is chosen for some case on some target");

    let workers = thread::available_parallelism().map_or(1, usize::from);
    let failures: Vec<String> = thread::scope(|scope| {
        let all = &variants;
        let share = |first| move || all.iter().skip(first).step_by(workers).filter_map(failure).collect::<Vec<_>>();
        let handles: Vec<_> = (0..workers).map(|first| scope.spawn(share(first))).collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("a worker that does not panic")).collect()
    });
    assert!(failures.is_empty(), "{} of {} variants:\n{}", failures.len(), variants.len(), failures.join("\n"));
}

/// What is wrong with a variant, if anything is.
fn failure(variant: &Variant) -> Option<String> {
    let why = check(variant).err()?;
    let Variant { op, target, choice, immediates, .. } = variant;
    Some(format!("{}, immediates {immediates}, {op:?} on {target:?}: {why}", choice.kernel.path))
}

fn check(variant: &Variant) -> Result<(), String> {
    let reflection = reflect(variant.choice.kernel.path, &variant.wgsl)?;
    fits_the_op(variant, &reflection)?;
    let (module, info) = specialised(variant, &reflection.module)?;
    fits_the_device(variant, &module)?;
    translates(variant, &module, &info)
}

/// Bindings and `Params` are what the op offers, and few enough.
fn fits_the_op(variant: &Variant, reflection: &Reflection) -> Result<(), String> {
    let Variant { op, choice, .. } = variant;
    reflection.pack_params(&op.params())?;
    demand(reflection.params_bytes <= PARAMS_BYTES, || format!("Params of {} bytes", reflection.params_bytes))?;
    let bindings = &reflection.bindings;
    demand(bindings.len() <= STORAGE_BUFFERS, || format!("{} storage buffers", bindings.len()))?;
    for operand in op.operands() {
        let binding = bindings.iter().find(|binding| binding.name == operand.name);
        let written = operand == op.output();
        let fits = binding.is_some_and(|binding| binding.writes == written);
        demand(fits, || format!("no binding for {} {}", if written { "output" } else { "input" }, operand.name))?;
    }
    for (name, _) in &choice.schedule.constants {
        demand(reflection.overrides.iter().any(|known| known == name), || format!("no override {name}"))?;
    }
    let entries: Vec<_> = reflection.module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
    demand(entries == [choice.kernel.name], || format!("entry points {entries:?}"))?;
    let (grid, limit) = (choice.schedule.workgroups, variant.target.limits.workgroups);
    demand(grid.iter().all(|n| (1..=limit).contains(n)), || format!("a grid of {grid:?} workgroups"))
}

/// The module with its `override`s replaced by the schedule's values, valid with no more than the variant's features.
fn specialised(variant: &Variant, module: &Module) -> Result<(Module, ModuleInfo), String> {
    let mut features = Capabilities::SHADER_FLOAT16_IN_FLOAT32; // unpack2x16float, which every WebGPU device has
    features.set(Capabilities::IMMEDIATES, variant.immediates);
    features.set(Capabilities::SHADER_FLOAT16, wants_f16(variant));
    features.set(Capabilities::SUBGROUP, variant.target.subgroup.is_some());
    features.set(Capabilities::COOPERATIVE_MATRIX, variant.target.cooperative.is_some());
    let mut validator = Validator::new(ValidationFlags::all(), features);
    let info = validator.validate(module).map_err(|error| error.emit_to_string(&variant.wgsl))?;
    let constants: PipelineConstants =
        variant.choice.schedule.constants.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
    let entry = Some((ShaderStage::Compute, variant.choice.kernel.name));
    let (module, info) = process_overrides(module, &info, entry, &constants).map_err(|e| format!("{e:?}"))?;
    Ok((module.into_owned(), info.into_owned()))
}

fn wants_f16(variant: &Variant) -> bool {
    variant.target.elem == Elem::F16 || variant.target.weight == WeightStorage::F16
}

/// Workgroup memory and invocations are within the target's limits.
fn fits_the_device(variant: &Variant, module: &Module) -> Result<(), String> {
    let limits = variant.target.limits;
    let shared = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    let bytes: u32 = shared.map(|(_, v)| module.types[v.ty].inner.size(module.to_ctx())).sum();
    demand(bytes <= limits.workgroup_bytes, || format!("{bytes} bytes of workgroup memory"))?;
    let size = module.entry_points[0].workgroup_size;
    let invocations: u32 = size.iter().product();
    demand(invocations <= limits.invocations, || format!("workgroups of {size:?}"))
}

/// The module in the languages that its kernel says it exists in; that what it leaves out can't be had is checked too.
fn translates(variant: &Variant, module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let languages = variant.choice.kernel.languages;
    for language in Language::ALL {
        match (language, languages.contains(language)) {
            (Language::Spirv, true) => to_spirv(variant, module, info)?,
            (Language::Msl, true) => to_msl(module, info)?,
            (Language::Hlsl, true) => to_hlsl(variant, module, info)?,
            (Language::Spirv, false) => return Err("SPIR-V is left out".to_owned()),
            (Language::Msl, false) => {
                // naga takes a pointer to vectors for one to scalars, which no compiler for Metal will
                let text = msl_text(module, info).map_err(|e| format!("MSL, if only the text: {e}"))?;
                let wrong = text.contains("NagaCooperativeLoad(const threadgroup half* ptr") && text.contains("half4");
                demand(wrong, || "MSL is left out, and may be right".to_owned())?;
            }
            (Language::Hlsl, false) => {
                let mut validator = Validator::new(ValidationFlags::all(), hlsl::supported_capabilities());
                demand(validator.validate(module).is_err(), || "HLSL is left out, and has what it takes".to_owned())?;
            }
        }
    }
    Ok(())
}

fn to_spirv(variant: &Variant, module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let entry = variant.choice.kernel.name.to_owned();
    let compute = spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: entry };
    spv::write_vec(module, info, &spv::Options::default(), Some(&compute)).map(drop).map_err(|e| format!("SPIR-V: {e}"))
}

fn to_msl(module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let text = msl_text(module, info)?;
    demand(text.contains("kernel void"), || "MSL: no kernel".to_owned())
}

fn msl_text(module: &Module, info: &ModuleInfo) -> Result<String, String> {
    let options = msl::Options { lang_version: (2, 4), ..Default::default() };
    let (text, translated) =
        msl::write_string(module, info, &options, &msl::PipelineOptions::default()).map_err(|e| format!("MSL: {e}"))?;
    demand(translated.entry_point_names.iter().all(Result::is_ok), || {
        format!("MSL: {:?}", translated.entry_point_names)
    })?;
    Ok(text)
}

fn to_hlsl(variant: &Variant, module: &Module, info: &ModuleInfo) -> Result<(), String> {
    // 6.0 has wave operations, 6.2 halves
    let plain = !wants_f16(variant) && variant.target.subgroup.is_none();
    let options = hlsl::Options {
        shader_model: if plain { hlsl::ShaderModel::V5_1 } else { hlsl::ShaderModel::V6_2 },
        immediates_target: Some(hlsl::BindTarget { space: 15, ..Default::default() }),
        ..Default::default()
    };
    let mut text = String::new();
    let pipeline = hlsl::PipelineOptions::default();
    let translated = hlsl::Writer::new(&mut text, &options, &pipeline)
        .write(module, info, None)
        .map_err(|e| format!("HLSL: {e}"))?;
    demand(translated.entry_point_names.iter().all(Result::is_ok) && text.contains("numthreads"), || {
        format!("HLSL: {:?}", translated.entry_point_names)
    })
}

fn demand(held: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if held { Ok(()) } else { Err(otherwise()) }
}
