//! A table of one's own: `cargo run --release --example own_table [FILE.csv]`.
//!
//! Reads a table, fits a density to two thirds of its columns given the others where there are three or more, and draws
//! rows for a context of one's choice. Without a file it makes one: the height of a tide by the hour and the moon's age.

use std::fs;

use moonflow::data::{Dataset, PreprocessingPlan, Standardise, Table};
use moonflow::{Recipe, Trainer};

pub fn main() -> moonflow::Result<()> {
    let made = std::env::temp_dir().join("tides.csv");
    let given = std::env::args().nth(1).filter(|argument| argument.ends_with(".csv"));
    let path = given.map_or_else(
        || {
            fs::write(&made, tides()).map_err(|error| moonflow::Error::io(&made, error))?;
            Ok::<_, moonflow::Error>(made.clone())
        },
        |path| Ok(path.into()),
    )?;

    let table = Table::read(&path)?;
    let context = table.features() / 3;
    let plan = PreprocessingPlan { standardise: Standardise::Whiten, context, ..Default::default() };
    let dataset = Dataset::split_with(&table, 0.1, 0, &plan)?;
    let recipe = Recipe { epochs: 15, layers: 4, hidden: vec![32], patience: Some(5), ..Recipe::default() };
    let mut trained = Trainer::new(recipe).fit(&dataset)?;

    let record = trained.density.model().record();
    println!(
        "validation NLL {:.3} nats after {} epochs",
        record.validation_nll.unwrap_or(f64::NAN),
        record.epochs
    );
    for sentence in record.check.iter().flat_map(|check| &check.suspicious) {
        println!("suspicious: {sentence}");
    }
    // The context of the table's first row, ten times over.
    let context = table.values[table.features() - context..table.features()].repeat(10);
    let rows = trained.density.sample_given(&context, 1)?;
    println!("{}", table.columns.join("\t"));
    for row in rows.chunks_exact(table.features()) {
        println!("{}", row.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join("\t"));
    }
    Ok(())
}

/// Height and current of a tide given the hour.
fn tides() -> String {
    let mut text = "height,current,hour\n".to_owned();
    for i in 0..2000 {
        let hour = f64::from(i) * 0.37 % 24.0;
        let phase = std::f64::consts::TAU * hour / 12.42;
        let swell = 0.2 * (f64::from(i) * 1.7).sin() * (f64::from(i) * 0.13).cos();
        let (height, current) = (2.0 * phase.cos() + swell, -phase.sin() + 0.5 * swell * swell);
        text += &format!("{height},{current},{hour}\n");
    }
    text
}
