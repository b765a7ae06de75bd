//! Anomaly scoring: `cargo run --release --example anomaly`.
//!
//! Fits a density to ordinary rows and calls a row strange when it is less likely than all but 1 % of the rows that
//! training kept aside.

use moonflow::data::{Dataset, Toy, ToyDensity};
use moonflow::{Recipe, Trainer};

pub fn main() -> moonflow::Result<()> {
    let ordinary = ToyDensity::new(Toy::Moons);
    let dataset = Dataset::split(&ordinary.table(2_000, 1), 0.2, 1)?;
    let recipe = Recipe { epochs: 12, layers: 4, hidden: vec![32, 32], ..Recipe::default() };
    let mut density = Trainer::new(recipe).fit(&dataset)?.density;

    let mut scores = density.log_prob(&dataset.validation)?;
    scores.sort_by(f64::total_cmp);
    let threshold = scores[scores.len() / 100];

    let mut share_of_strange = |rows: &[f64]| -> moonflow::Result<f64> {
        let log_prob = density.log_prob(rows)?;
        let strange = log_prob.iter().filter(|&&value| value < threshold).count();
        Ok(strange as f64 / log_prob.len() as f64)
    };
    let false_alarms = share_of_strange(&ordinary.sample(2_000, 2))?;
    // Points of another density about the same place.
    let found = share_of_strange(&ToyDensity::new(Toy::Circles).sample(2_000, 3))?;
    println!(
        "below {threshold:.2} nats: {:.1} % of ordinary rows, {:.1} % of strange ones",
        100.0 * false_alarms,
        100.0 * found
    );
    assert!(false_alarms < 0.05 && found > 0.3, "the density tells them apart");
    Ok(())
}
