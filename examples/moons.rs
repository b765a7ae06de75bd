//! Two moons from the library: `cargo run --release --example moons [EPOCHS]`.
//!
//! Fits a flow to 4,000 noisy points, measures how far it is from the true density on fresh ones, and keeps it.

use moonflow::data::{Dataset, Toy, ToyDensity};
use moonflow::{Density, Device, Model, Recipe, Trainer};

pub fn main() -> moonflow::Result<()> {
    let epochs = std::env::args().nth(1).and_then(|epochs| epochs.parse().ok()).unwrap_or(10);
    let moons = ToyDensity::new(Toy::Moons);
    let dataset = Dataset::split(&moons.table(4_000, 1), 0.1, 1)?;

    let recipe = Recipe { epochs, ..Recipe::default() };
    let trained = Trainer::new(recipe).fit(&dataset)?;
    let file = std::env::temp_dir().join("moons.safetensors");
    trained.density.model().save(&file)?;

    // Elsewhere, later.
    let mut density = Density::new(Model::load(&file)?, &Device::Auto)?;
    let fresh = moons.sample(5_000, 2);
    let log_prob = density.log_prob(&fresh)?;
    let mean = log_prob.iter().sum::<f64>() / log_prob.len() as f64;
    let floor = moons.entropy().unwrap_or(f64::NAN);
    println!("NLL {:.3} nats on fresh rows; the true density has {floor:.3}", -mean);
    for row in density.sample(5, 7)?.chunks_exact(2) {
        println!("{:8.3} {:8.3}", row[0], row[1]);
    }
    Ok(())
}
