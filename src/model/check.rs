//! What the self-check of a fitted model measures, and what it finds: data and a sentence each.
//! It is part of the training's record. How to mend what was found is said by whoever shows it, in words of its own.

use serde::{Deserialize, Serialize};

use super::record::null_as_nan;
use crate::data::SharedValues;
use crate::shown::{shown, shown_list};

/// What a model was found to be worth after its training: whether it is one to one, whether its densities are right,
/// whether it does better than simple densities and as well on rows it has not seen, whether its latent variable is
/// normal, and whether its networks are alive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SelfCheck {
    /// Largest error of a feature, in standardised units, after a pass to the latent variable and back.
    #[serde(deserialize_with = "null_as_nan")]
    pub round_trip: f64,
    /// Largest difference between a row's log-determinant and that of finite differences, in nats; `None` where
    /// there are too many features for it.
    pub log_det: Option<f64>,
    /// Validation loss less training loss, nats per row; `None` without validation rows.
    pub gap: Option<f64>,
    /// Standard error of that gap.
    pub gap_error: Option<f64>,
    /// Median of −log p over the validation rows, in nats and the user's units, which rows far out do not move; `None` without
    /// validation rows, and in the records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_median: Option<f64>,
    /// The model beside simple densities; `None` in the records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// Rows whose latent variable was looked at: validation rows, or training rows where there are none.
    pub latent_rows: usize,
    /// The latent features `[M]` over these rows.
    pub latent: Vec<LatentFeature>,
    /// What the latent variable of training rows has beyond a standard normal; `None` in the records of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<Structure>,
    /// The hidden units of each coupling, where the activation is one by which units can die.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<CouplingUnits>,
    /// A sentence on everything that is suspicious; empty when nothing is.
    pub suspicious: Vec<String>,
    /// The same as data, one for each sentence; none in the records of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
}

/// How normal one latent feature is over a sample: mean 0, deviation 1 and distance 0 if it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatentFeature {
    /// Mean.
    #[serde(deserialize_with = "null_as_nan")]
    pub mean: f64,
    /// Standard deviation.
    #[serde(deserialize_with = "null_as_nan")]
    pub std: f64,
    /// Kolmogorov–Smirnov distance from the standard normal: largest difference of the distribution functions.
    #[serde(deserialize_with = "null_as_nan")]
    pub distance: f64,
}

/// Mean log-densities of the model and of the simple densities that a fit begins from, over the same rows, in nats per
/// row and the user's units.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Rows: validation rows, or training rows where there are none.
    pub rows: usize,
    /// The model.
    #[serde(deserialize_with = "null_as_nan")]
    pub model: f64,
    /// Columns as the preprocessing leaves them, independent and standard normal: a flow that has learnt nothing.
    #[serde(deserialize_with = "null_as_nan")]
    pub independent: f64,
    /// The Gaussian, of the columns as the preprocessing leaves them, that fits the training rows; given the context,
    /// where there is one. `None` where there are too many features for it.
    pub gaussian: Option<f64>,
    /// How much better the model is than the better of them, row by row.
    #[serde(deserialize_with = "null_as_nan")]
    pub gain: f64,
    /// Standard error of that gain; NaN for one row.
    #[serde(deserialize_with = "null_as_nan")]
    pub gain_error: f64,
    /// What training rows have beyond the Gaussian, in nats, as [`Structure::total`] has it: 0 where they are one.
    #[serde(deserialize_with = "null_as_nan")]
    pub beyond: f64,
    /// How much better the model is than kernel densities of the columns, dependent as a Gaussian is; `None` where the
    /// preprocessing has kernel margins, so that the simple densities above begin from them, where there are no
    /// validation rows, and in the records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelGain>,
}

/// How much better a model is than kernel densities, row by row, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelGain {
    /// Over training rows, which both have seen.
    #[serde(deserialize_with = "null_as_nan")]
    pub training: f64,
    /// Standard error of that.
    #[serde(deserialize_with = "null_as_nan")]
    pub training_error: f64,
    /// Over validation rows.
    #[serde(deserialize_with = "null_as_nan")]
    pub validation: f64,
}

/// A simple density.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Baseline {
    /// [`Comparison::independent`].
    Independent,
    /// [`Comparison::gaussian`].
    Gaussian,
}

impl Comparison {
    /// The better of the simple densities.
    pub fn baseline(&self) -> Baseline {
        match self.gaussian {
            Some(gaussian) if gaussian > self.independent => Baseline::Gaussian,
            _ => Baseline::Independent,
        }
    }
}

impl Baseline {
    /// Its name with an article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Independent => "independent normal columns",
            Self::Gaussian => "a Gaussian",
        }
    }
}

/// What a smooth test (Neyman 1937) sees in the latent variable of training rows: about how many nats a row would gain
/// from its removal, as far as the first six moments of each feature's distribution function, and the first two of each
/// pair's, show it. 0 where it is no more than chance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Structure {
    /// Rows.
    pub rows: usize,
    /// Of each latent feature by itself `[M]`.
    pub margins: Vec<f64>,
    /// The pair of features with the most dependence, the second of which may be context; `None` where none is
    /// dependent.
    pub pair: Option<PairStructure>,
}

impl Structure {
    /// The structure of all features and of the pair, in nats.
    pub fn total(&self) -> f64 {
        self.margins.iter().sum::<f64>() + self.pair.map_or(0.0, |pair| pair.nats)
    }
}

/// The dependence of two features.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairStructure {
    /// Their places among the D features.
    pub features: [usize; 2],
    /// About how many nats it is worth.
    pub nats: f64,
}

/// The hidden units of one coupling, and how many of them are dead: they are off at every row that was looked at, so
/// that training never changes them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CouplingUnits {
    /// Place of the coupling among the transforms.
    pub transform: usize,
    /// Units of all its networks.
    pub units: usize,
    /// How many of them are dead.
    pub dead: usize,
    /// The layer with the largest share of dead units.
    pub worst: LayerUnits,
}

/// The units of one hidden layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerUnits {
    /// Name of the network, such as `scale`.
    pub network: String,
    /// Number of the hidden layer in it, from 1.
    pub layer: usize,
    /// Units.
    pub units: usize,
    /// How many of them are dead.
    pub dead: usize,
}

/// A column in which many rows share a value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedColumn {
    /// Its place among the D features.
    pub feature: usize,
    /// What they share.
    #[serde(flatten)]
    pub shared: SharedValues,
}

/// Something suspicious, with the numbers that show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Finding {
    /// Scores, samples or latent values are not finite; then nothing else is said.
    NotFinite,
    /// [`SelfCheck::round_trip`] is large.
    RoundTrip {
        /// The error, in standardised units.
        error: f64,
    },
    /// [`SelfCheck::log_det`] is large.
    LogDet {
        /// The error, in nats.
        error: f64,
    },
    /// A few rows have losses so large that they move the mean.
    FarRows {
        /// Whether they are validation rows; else they are training rows.
        validation: bool,
        /// How many of the rows that were looked at.
        rows: usize,
        /// What they add to the mean loss, in nats.
        nats: f64,
    },
    /// Training rows are likelier than validation rows.
    LearntByHeart {
        /// [`SelfCheck::gap`].
        gap: f64,
        /// Its standard error.
        error: f64,
    },
    /// Validation rows are likelier than training rows.
    UnlikeSplit {
        /// [`SelfCheck::gap`], which is negative.
        gap: f64,
        /// Its standard error.
        error: f64,
    },
    /// A simple density is better than the flow.
    WorseThanSimple {
        /// The simple density.
        baseline: Baseline,
        /// [`Comparison::gain`], which is negative.
        gain: f64,
        /// Its standard error.
        error: f64,
    },
    /// The flow is no better than a simple density, and the rows are not as simple.
    NoBetterThanSimple {
        /// The simple density.
        baseline: Baseline,
        /// [`Comparison::gain`].
        gain: f64,
        /// Its standard error.
        error: f64,
        /// The features in which structure is left, at least one.
        features: Vec<usize>,
    },
    /// Kernel densities of the columns are better than the flow, on rows that it was trained on and on others.
    WorseThanKernels {
        /// By how much less likely the flow holds training rows, in nats.
        nats: f64,
        /// Its standard error.
        error: f64,
    },
    /// Many rows share a value, where a density grows without end.
    SharedValues {
        /// The columns and what they share.
        columns: Vec<SharedColumn>,
    },
    /// Latent features are not normal.
    NotNormal {
        /// Which.
        features: Vec<usize>,
        /// Those of them whose column repeats its values.
        repeating: Vec<usize>,
    },
    /// Latent features depend on each other, or on the context.
    Dependent {
        /// The pair.
        pair: PairStructure,
    },
    /// Most units of a hidden layer are dead.
    DeadUnits {
        /// The coupling with the worst layer.
        transform: usize,
        /// That layer.
        layer: LayerUnits,
        /// How many couplings have such a layer.
        couplings: usize,
    },
    /// What a later version found.
    #[serde(other)]
    Unknown,
}

impl Finding {
    /// What is suspicious, as a sentence without its stop. `columns` are the names of the D features.
    pub fn sentence(&self, columns: &[String]) -> String {
        let named = |features: &[usize]| names(features, columns);
        match self {
            Self::NotFinite => {
                "scores, samples or latent values of some rows are not finite: the model cannot be used"
                    .into()
            }
            Self::RoundTrip { error } => format!(
                "a pass to the latent variable and back is off by {error:.1e}: the flow stretches more than single \
                 precision resolves, so its samples and scores are rough"
            ),
            Self::LogDet { error } => format!(
                "the log-determinant differs from finite differences by {error:.1e} nats: densities are wrong or the \
                 flow is very steep"
            ),
            &Self::FarRows { validation, rows, nats } => {
                let side = if validation { "validation" } else { "training" };
                let (rows, verb) =
                    if rows == 1 { ("1 row".into(), "adds") } else { (format!("{rows} rows"), "add") };
                format!(
                    "{rows} far from the others {verb} {nats:.2} nats to the mean {side} loss and decide it"
                )
            }
            Self::LearntByHeart { gap, error } => format!(
                "validation rows lose {gap:.3} ± {error:.3} nats against training rows: the flow has learnt rows by heart"
            ),
            Self::UnlikeSplit { gap, error } => format!(
                "training rows lose {:.3} ± {error:.3} nats against validation rows: the two are not alike",
                -gap
            ),
            Self::WorseThanSimple { baseline, gain, error } => format!(
                "the flow is worse than {}: by {:.3} ± {error:.3} nats on rows that training did not see",
                baseline.name(),
                -gain
            ),
            Self::NoBetterThanSimple { baseline, gain, error, features } => format!(
                "the flow is no better than {}: {gain:+.3} ± {error:.3} nats, though the rows are not so simple in {}",
                baseline.name(),
                named(features)
            ),
            Self::WorseThanKernels { nats, error } => format!(
                "the flow has not learnt the shape of the columns: kernel densities of them are better by {nats:.3} ± \
                 {error:.3} nats on training rows, and on validation rows too"
            ),
            Self::SharedValues { columns: shared } => {
                let described = shared.iter().map(|column| {
                    let name = columns.get(column.feature).cloned();
                    let name = name.unwrap_or_else(|| format!("column {}", column.feature));
                    format!("{name} ({})", column.shared)
                });
                format!(
                    "many rows share a value, where a density grows without end: {}",
                    shown_list(&described.collect::<Vec<_>>())
                )
            }
            Self::NotNormal { features, .. } => {
                format!(
                    "the latent variable is not normal in {}: the flow does not fit there",
                    named(features)
                )
            }
            Self::Dependent { pair } => format!(
                "the flow has not learnt how {} depend on each other: some {:.2} nats of it are left",
                named(&pair.features),
                pair.nats
            ),
            Self::DeadUnits { transform, layer, couplings } => {
                let LayerUnits { network, layer, units, dead } = layer;
                let others = match couplings.saturating_sub(1) {
                    0 => String::new(),
                    1 => ", and 1 more coupling is like it".into(),
                    more => format!(", and {more} more couplings are like it"),
                };
                format!(
                    "{dead} of {units} units of hidden layer {layer} in the {} network of transform {transform} are dead\
                     {others}",
                    shown(network)
                )
            }
            Self::Unknown => "a later version of the program found something".into(),
        }
    }
}

/// Names of features, the first ones of many.
fn names(features: &[usize], columns: &[String]) -> String {
    let name =
        |&feature: &usize| columns.get(feature).cloned().unwrap_or_else(|| format!("column {feature}"));
    shown_list(&features.iter().map(name).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_earlier_versions_load_and_stay_as_they_are() {
        let old = r#"{"round_trip":1e-6,"log_det":null,"gap":0.5,"gap_error":0.25,"latent_rows":10,"latent":[{"mean":0.5,"std":1.0,"distance":null}],"suspicious":["the latent variable is not normal in a"]}"#;
        let check: SelfCheck = serde_json::from_str(old).expect("loads");
        assert_eq!((check.suspicious.len(), check.findings.len()), (1, 0));
        assert!(check.latent[0].distance.is_nan() && check.comparison.is_none() && check.structure.is_none());
        let again = serde_json::to_string(&check).expect("plain data");
        assert_eq!(again.replace("0.000001", "1e-6"), old);
    }

    #[test]
    fn findings_of_later_versions_load() {
        let found = r#"[{"kind":"round-trip","error":0.5},{"kind":"moon-phase","phase":[1,{"full":true}]}]"#;
        let found: Vec<Finding> = serde_json::from_str(found).expect("loads");
        assert_eq!(found, [Finding::RoundTrip { error: 0.5 }, Finding::Unknown]);
    }

    #[test]
    fn sentences_name_columns_and_no_flags() {
        let columns = ["width".to_owned(), "b\u{1b}".to_owned()];
        let layer = LayerUnits { network: "scale".into(), layer: 2, units: 48, dead: 44 };
        for (finding, want) in [
            (Finding::NotFinite, "not finite"),
            (
                Finding::FarRows { validation: false, rows: 1, nats: 0.5 },
                "1 row far from the others adds 0.50 nats",
            ),
            (Finding::UnlikeSplit { gap: -0.5, error: 0.1 }, "training rows lose 0.500 ± 0.100 nats"),
            (
                Finding::NoBetterThanSimple {
                    baseline: Baseline::Gaussian,
                    gain: 0.001,
                    error: 0.002,
                    features: vec![0, 7],
                },
                "no better than a Gaussian: +0.001 ± 0.002 nats, though the rows are not so simple in width, column 7",
            ),
            (
                Finding::WorseThanKernels { nats: 0.05, error: 0.004 },
                "kernel densities of them are better by 0.050 ± 0.004 nats",
            ),
            (
                Finding::SharedValues {
                    columns: vec![SharedColumn {
                        feature: 1,
                        shared: SharedValues { different: 300, whole: false, value: 0.0, share: 0.45 },
                    }],
                },
                "where a density grows without end: b\\u{1b} (0 in 45 % of the rows)",
            ),
            (Finding::NotNormal { features: vec![1], repeating: Vec::new() }, "not normal in b\\u{1b}"),
            (
                Finding::DeadUnits { transform: 3, layer, couplings: 5 },
                "44 of 48 units of hidden layer 2 in the scale network of transform 3 are dead, and 4 more couplings",
            ),
        ] {
            let sentence = finding.sentence(&columns);
            assert!(sentence.contains(want) && !sentence.contains("--"), "{sentence}");
        }
    }
}
