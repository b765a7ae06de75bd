//! `moonflow devices`: what can compute here, and which of it `--device auto` takes.

use moonflow::Result;
use moonflow::device::{Found, devices};
use serde_json::{Value, json};

use super::output;

/// Arguments of `moonflow devices`.
#[derive(clap::Args)]
pub struct DevicesArgs {
    /// Print JSON, with the driver, features and limits of each adapter
    #[arg(long)]
    json: bool,
}

/// Lists the devices, the default one marked.
///
/// # Errors
/// Those of the engines and of standard output.
pub async fn run(args: &DevicesArgs) -> Result<()> {
    let (devices, default) = devices().await?;
    if args.json {
        let list = devices.iter().enumerate().map(|(index, device)| as_json(device, index == default));
        return output::write_json(&list.collect());
    }
    output::write(None, |out| {
        for (index, device) in devices.iter().enumerate() {
            writeln!(out, "{} {}", if index == default { '*' } else { ' ' }, device.info)?;
        }
        writeln!(
            out,
            "\n* is what --device auto takes: a hardware GPU where there is one, else the CPU engine"
        )
    })
}

fn as_json(Found { info, adapter }: &Found, default: bool) -> Value {
    let mut value = json!({
        "name": info.name, "backend": info.backend, "software": info.software, "default": default,
    });
    if let Some(adapter) = adapter {
        value["driver"] = adapter.driver().into();
        value["features"] = adapter.features().iter_names().map(|(name, _)| name).collect();
        value["limits"] = limits(&adapter.limits());
    }
    value
}

/// The limits that compute shaders and their buffers meet, by the names that WebGPU has for them.
fn limits(limits: &wgpu::Limits) -> Value {
    macro_rules! named {
        ($($name:ident)*) => { json!({ $(stringify!($name): limits.$name,)* }) };
    }
    named! {
        max_bind_groups
        max_bindings_per_bind_group
        max_buffer_size
        max_compute_invocations_per_workgroup
        max_compute_workgroup_size_x
        max_compute_workgroup_size_y
        max_compute_workgroup_size_z
        max_compute_workgroup_storage_size
        max_compute_workgroups_per_dimension
        max_storage_buffer_binding_size
        max_storage_buffers_per_shader_stage
        max_uniform_buffer_binding_size
        max_uniform_buffers_per_shader_stage
        min_storage_buffer_offset_alignment
        min_uniform_buffer_offset_alignment
    }
}
