//! `moonflow devices`: what can compute here, and which of it `--device auto` takes.

use moonflow::Result;
use moonflow::device::devices;
use serde_json::json;

use super::output;

/// Arguments of `moonflow devices`.
#[derive(clap::Args)]
pub struct DevicesArgs {
    /// Print JSON
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
        let list = devices.iter().enumerate().map(|(index, device)| {
            json!({
                "name": device.name, "backend": device.backend, "software": device.software,
                "default": index == default,
            })
        });
        return output::write_json(&list.collect());
    }
    output::write(None, |out| {
        for (index, device) in devices.iter().enumerate() {
            writeln!(out, "{} {device}", if index == default { '*' } else { ' ' })?;
        }
        writeln!(
            out,
            "\n* is what --device auto takes: a hardware GPU where there is one, else the CPU engine"
        )
    })
}
