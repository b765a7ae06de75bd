//! Real tables, one split each: what a flow says of rows that it has not seen, beside the Gaussian that it begins as. On
//! another split one row far out may cost a flow its mean (see the README); this holds what one split shows.

use moonflow::data::{Dataset, PreprocessingPlan, Standardise, Table};
use moonflow::flow::Activation;
use moonflow::optimiser::State;
use moonflow::{Density, Device, Model, Recipe, Trainer};

use crate::common::root;

fn table(name: &str) -> Table {
    Table::read(&root().join("tests/data").join(name)).expect("a table")
}

/// Mean log-likelihood of test rows under a fitted flow, and under the same model without training: whitened rows under
/// the identity, which is the Gaussian with the training rows' mean and covariance.
fn against_gaussian(name: &str, seed: u64, epochs: u32) -> [f64; 2] {
    let plan = PreprocessingPlan { standardise: Standardise::Whiten, ..Default::default() };
    let (rest, test) = table(name).without_test_rows(0.2, seed).expect("enough rows");
    let dataset = Dataset::split_with(&rest, 0.1, seed, &plan).expect("splits");
    let recipe = Recipe {
        epochs,
        batch: 32,
        layers: 4,
        hidden: vec![32],
        activation: Activation::Tanh,
        learning_rate: 1e-3,
        weight_decay: 0.5,
        ema: Some(0.9),
        patience: Some(40),
        seed,
        ..Recipe::default()
    };
    let mut trained = Trainer::new(recipe).on(Device::Cpu).fit(&dataset).expect("trains");
    let model = trained.density.ensemble().expect("numbers").first().clone();
    let untrained = Model { parameters: State::initial(&model.flow, 0).parameters, ..model };
    let mut gaussian = Density::new(untrained, &Device::Cpu).expect("the same flow");
    [&mut trained.density, &mut gaussian].map(|density| {
        let log_prob = density.log_prob(&test.values).expect("scores");
        log_prob.iter().sum::<f64>() / log_prob.len() as f64
    })
}

#[test]
fn a_flow_beats_the_gaussian_on_a_split_of_breast_cancer() {
    let [flow, gaussian] = against_gaussian("breast_cancer.csv", 1, 120);
    assert!(flow > gaussian + 2.0, "{flow} against {gaussian} nats");
}

#[test]
fn a_flow_is_not_much_worse_than_the_gaussian_on_a_split_of_wine() {
    let [flow, gaussian] = against_gaussian("wine.csv", 1, 120);
    assert!(flow > gaussian - 1.0, "{flow} against {gaussian} nats");
}
