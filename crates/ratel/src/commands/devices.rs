use crate::Failure;
use crate::args::JsonArgs;
use ratel_engine::{DeviceInfo, Engine};
use serde_json::json;

/// Lists the devices.
pub(crate) fn run(args: JsonArgs) -> Result<(), Failure> {
    let devices = Engine::devices();
    if args.json {
        let all: Vec<_> = devices.iter().map(describe).collect();
        println!("{}", serde_json::Value::from(all));
        return Ok(());
    }
    for (i, device) in devices.iter().enumerate() {
        println!("{i}: {}", device.name);
        println!("   {} on {}, driver {}", device.kind, device.backend, device.driver);
        let subgroup = match device.subgroup {
            Some([min, max]) if min == max => format!("subgroups of {min}"),
            Some([min, max]) => format!("subgroups of {min} to {max}"),
            None => "no subgroups".to_owned(),
        };
        let has = |what: &str, has: bool| if has { what.to_owned() } else { format!("no {what}") };
        let features = [
            has("f16", device.f16),
            subgroup,
            has("timestamps", device.timestamps),
            has("pipeline cache", device.pipeline_cache),
            format!("{} bytes of immediates", device.immediate_bytes),
        ];
        println!("   {}", features.join(", "));
        let limits = &device.limits;
        println!(
            "   bindings up to {} MiB, buffers up to {} MiB, {} a stage; workgroups of {} with {} KiB",
            limits.binding_bytes >> 20,
            limits.buffer_bytes >> 20,
            device.storage_buffers,
            limits.invocations,
            limits.workgroup_bytes >> 10
        );
        let matrices: Vec<_> = device
            .cooperative
            .iter()
            .map(|m| format!("{}x{}x{} {} to {}", m.size[0], m.size[1], m.size[2], m.factors, m.sum))
            .collect();
        let matrices = if matrices.is_empty() { "none".to_owned() } else { matrices.join(", ") };
        println!("   cooperative matrices: {matrices}");
    }
    println!(
        "cpu: the kernels' twins on the processor, always there{}",
        if devices.is_empty() { NO_DRIVER } else { "" }
    );
    Ok(())
}

const NO_DRIVER: &str = " (no Vulkan, Metal or DX12 driver was found; on Debian and Ubuntu `apt install \
                         mesa-vulkan-drivers` adds a software one)";

fn describe(device: &DeviceInfo) -> serde_json::Value {
    let limits = &device.limits;
    json!({
        "name": device.name,
        "backend": device.backend,
        "driver": device.driver,
        "kind": device.kind.to_string(),
        "f16": device.f16,
        "subgroup": device.subgroup,
        "immediate_bytes": device.immediate_bytes,
        "timestamps": device.timestamps,
        "pipeline_cache": device.pipeline_cache,
        "storage_buffers": device.storage_buffers,
        "cooperative_matrices": device
            .cooperative
            .iter()
            .map(|m| json!({ "size": m.size, "factors": m.factors, "sum": m.sum }))
            .collect::<Vec<_>>(),
        "limits": {
            "binding_bytes": limits.binding_bytes,
            "buffer_bytes": limits.buffer_bytes,
            "workgroup_bytes": limits.workgroup_bytes,
            "invocations": limits.invocations,
            "workgroups": limits.workgroups,
            "offset_alignment": limits.offset_alignment,
        },
    })
}
