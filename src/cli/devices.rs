//! `moonflow devices`: what can compute here, and which of it `--device auto` takes.

use moonflow::Result;

use super::{device, output};

/// Lists the devices, the default one marked.
///
/// # Errors
/// Those of the engines and of standard output.
pub async fn run() -> Result<()> {
    let (devices, default) = device::devices().await?;
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
