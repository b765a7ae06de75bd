//! The self-check in the words of the command line: its numbers in a line, and with everything that it found what to do
//! about it, by flags of `train`.

use std::collections::HashSet;

use moonflow::data::{Margins, SharedValues, Standardise};
use moonflow::flow::{Activation, Base, Bijector};
use moonflow::model::{Baseline, Finding, Model, SelfCheck, SharedColumn};
use moonflow::shown::shown;

/// Most characters of a sentence in a model file.
const SENTENCE: usize = 800;

/// The self-check of `model`: its numbers in one line, then a line for everything that is suspicious.
pub fn describe_check(check: &SelfCheck, model: &Model) -> Vec<String> {
    let mut text = format!("round trip within {:.1e}", check.round_trip);
    if let Some(error) = check.log_det {
        text += &format!(", log-determinant within {error:.1e} nats");
    }
    if let (Some(gap), Some(error)) = (check.gap, check.gap_error) {
        text += &format!(", validation {gap:+.4} ± {error:.4} nats from training");
        text +=
            &check.validation_median.map_or_else(String::new, |median| format!(" (median loss {median:.4})"));
    }
    if let Some(comparison) = &check.comparison {
        let (gain, error) = (comparison.gain, comparison.gain_error);
        let side = if gain < 0.0 { "worse" } else { "better" };
        text +=
            &format!(", {:.3} ± {error:.3} nats {side} than {}", gain.abs(), comparison.baseline().name());
    }
    let distances = check.latent.iter().map(|feature| feature.distance);
    let distance = distances.fold(0.0, |most: f64, next| if next.is_nan() { next } else { most.max(next) });
    text += &format!(", latent variable within {distance:.3} of normal");
    let (units, dead) = check.units.iter().fold((0, 0), |sum, next| (sum.0 + next.units, sum.1 + next.dead));
    if units > 0 {
        text += &format!(", {:.0} % of hidden units dead", 100.0 * dead as f64 / units as f64);
    }
    if check.suspicious.is_empty() {
        return vec![text + "; nothing is suspicious"];
    }
    let mut given = HashSet::new();
    let findings = check.findings.iter().map(Some).chain(std::iter::repeat(None));
    let sentences = std::iter::zip(&check.suspicious, findings).map(|(sentence, finding)| {
        let advice = finding.and_then(|finding| advice(finding, check, model));
        // The same is not said twice.
        let advice = advice.filter(|advice| given.insert(advice.clone()));
        let advice = advice.map(|advice| format!(". {advice}")).unwrap_or_default();
        format!("suspicious: {}{advice}", shown(sentence).at_most(SENTENCE))
    });
    std::iter::once(text).chain(sentences).collect()
}

/// What to do about a finding; nothing about one of a later version, or where other advice comes first.
fn advice(finding: &Finding, check: &SelfCheck, model: &Model) -> Option<String> {
    // A flow that has learnt rows by heart is not made better by more freedom.
    let by_heart = check
        .findings
        .iter()
        .any(|finding| matches!(finding, Finding::LearntByHeart { .. } | Finding::WorseThanSimple { .. }));
    Some(match finding {
        Finding::NotFinite => {
            format!("Train with a lower rate, such as {}, and look for extreme values in the data", lower_rate(model))
        }
        Finding::RoundTrip { .. } | Finding::LogDet { .. } => gentler(model),
        Finding::FarRows { .. } => {
            let bend = match model.preprocessing.margins() {
                Margins::None => ", or train with --margins kernel, which brings them near",
                _ => "",
            };
            format!("`moonflow score` shows which they are: leave them out if they are errors{bend}")
        }
        Finding::LearntByHeart { .. } => {
            let average = if model.record.recipe.ema.is_some() { "--weight-decay 0.1" } else { "--ema 0.9" };
            format!("On other rows it is worth what its validation loss says. Train with {average}, or on more rows")
        }
        Finding::UnlikeSplit { .. } => {
            "Train with another --seed, which splits the rows anew. If that does not help, look for rows that are there \
             many times"
                .into()
        }
        Finding::WorseThanSimple { baseline: Baseline::Gaussian, .. } if !is_whitened(model) => {
            "Train with --standardise whiten: the flow then begins as that Gaussian".into()
        }
        Finding::WorseThanSimple { .. } => {
            format!("Train with {} --weight-decay 0.1, with fewer --epochs, or on more rows", lower_rate(model))
        }
        Finding::SharedValues { columns } => shared_values(columns, model),
        // Shared values come first; in records of earlier versions these columns are all that is known of them.
        Finding::NotNormal { features, repeating }
            if repeating.len() == features.len() && check.findings.iter().any(is_shared) =>
        {
            return None;
        }
        Finding::NotNormal { repeating, .. } if !repeating.is_empty() && !check.findings.iter().any(is_shared) => {
            repeated(repeating, model)
        }
        Finding::NoBetterThanSimple { .. } | Finding::WorseThanKernels { .. } => more_able(check, model),
        Finding::NotNormal { .. } | Finding::Dependent { .. } | Finding::DeadUnits { .. } if !by_heart => {
            more_able(check, model)
        }
        _ => return None,
    })
}

fn is_shared(finding: &Finding) -> bool {
    matches!(finding, Finding::SharedValues { .. })
}

/// What to do about columns in which many rows share a value.
fn shared_values(columns: &[SharedColumn], model: &Model) -> String {
    let listed = |is_chosen: fn(&SharedValues) -> bool, item: fn(&str, &SharedValues) -> String| {
        let columns = columns.iter().filter(|column| is_chosen(&column.shared));
        let named = columns.filter_map(|column| Some((model.columns.get(column.feature)?, &column.shared)));
        named.map(|(name, shared)| item(&shown(name).to_string(), shared)).collect::<Vec<String>>().join(",")
    };
    let name = |name: &str, _: &SharedValues| name.to_owned();
    let whole = listed(|shared| shared.whole, name);
    let atoms = listed(SharedValues::stands_out, |name, shared| format!("{name}={}", shared.value));
    let others = listed(|shared| !shared.whole && !shared.stands_out(), name);
    let mut advice = Vec::new();
    if !whole.is_empty() {
        advice.push(format!("--dequantize {whole} models whole numbers as counts"));
    }
    if !atoms.is_empty() {
        advice.push(format!("--atom {atoms} gives such values a probability"));
    }
    if model.preprocessing.margins() != Margins::Kernel {
        advice.push("--margins kernel keeps scores finite".to_owned());
    } else if !others.is_empty() {
        advice.push(format!("--drop {others} leaves columns out whose scores tell how values are rounded"));
    }
    advice.join("; ")
}

/// What to do about columns that repeat their values.
fn repeated(columns: &[usize], model: &Model) -> String {
    let names = names(columns.iter().copied(), model);
    let verb = if columns.len() == 1 { "repeats" } else { "repeat" };
    format!(
        "{names} {verb} values, where a density grows without end: --dequantize {names} if they are whole numbers, else \
         --drop {names}"
    )
}

/// Names of columns as a flag takes them.
fn names(columns: impl Iterator<Item = usize>, model: &Model) -> String {
    let names = columns.filter_map(|column| model.columns.get(column));
    names.map(|name| shown(name).to_string()).collect::<Vec<_>>().join(",")
}

fn is_whitened(model: &Model) -> bool {
    model.preprocessing.standardise == Standardise::Whiten
}

/// Flags that make a fit more able: those that it does not have yet.
fn more_able(check: &SelfCheck, model: &Model) -> String {
    let affine = |bijector: &Bijector| matches!(bijector, Bijector::Affine { .. });
    let is_dead = check.findings.iter().any(|finding| matches!(finding, Finding::DeadUnits { .. }));
    let is_relu = model.flow.activation == Activation::Relu;
    let mut flags = Vec::new();
    if model.preprocessing.margins() != Margins::Kernel {
        flags.push("--margins kernel".to_owned());
    }
    if model.flow.couplings().any(|coupling| affine(&coupling.bijector)) {
        flags.push("--preset spline".to_owned());
    }
    if is_relu && (is_dead || flags.is_empty()) {
        flags.push("--activation silu".to_owned());
    }
    if flags.is_empty() && model.flow.base == Base::StandardNormal {
        flags.push("--base mixture".to_owned());
    }
    if flags.is_empty() {
        flags.push(lower_rate(model));
    }
    format!("Train with {}", flags.join(" "))
}

/// Flags for a flow that is steeper than single precision resolves.
fn gentler(model: &Model) -> String {
    let steep = match model.flow.couplings().next().map(|coupling| coupling.bijector) {
        Some(Bijector::Affine { bound }) if bound > 1.0 => "--bound 1".to_owned(),
        _ => lower_rate(model),
    };
    match model.preprocessing.margins() {
        Margins::Kernel => format!("Train with {steep}"),
        _ => format!("Train with --margins kernel {steep}"),
    }
}

/// A fifth of the rate, to one digit.
fn lower_rate(model: &Model) -> String {
    let rate = f64::from(model.record.recipe.learning_rate) / 5.0;
    let digit = 10f64.powf(rate.log10().floor());
    format!("--lr {}", (format!("{:.0}", rate / digit).parse::<f64>().unwrap_or(1.0) * digit) as f32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Args, Command};
    use moonflow::data::SharedValues;
    use moonflow::flow::{Activation, Base, Bijector, ConditionerForm};
    use moonflow::model::{LayerUnits, PairStructure};

    use super::super::train::TrainArgs;
    use super::*;

    /// A stored model of two columns, affine couplings and ReLU networks, with a check that has these findings.
    fn model_with(findings: Vec<Finding>) -> Model {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/version_1.safetensors");
        let mut model = Model::load(path).expect("a stored model");
        model.flow = model.flow.with_activation(Activation::Relu);
        let suspicious = findings.iter().map(|finding| finding.sentence(&model.columns)).collect();
        model.record.check = Some(SelfCheck { findings, suspicious, ..SelfCheck::default() });
        model
    }

    fn lines(model: &Model) -> Vec<String> {
        describe_check(model.record.check.as_ref().expect("a check"), model)
    }

    fn shared(whole: bool) -> Finding {
        let shared = SharedValues { different: 9, whole, value: 0.0, share: 0.5 };
        Finding::SharedValues { columns: vec![SharedColumn { feature: 1, shared }] }
    }

    fn all() -> Vec<Finding> {
        let (gain, gap, error) = (-0.5, 0.5, 0.1);
        let layer = LayerUnits { network: "scale".into(), layer: 2, units: 48, dead: 48 };
        let simple = [Baseline::Gaussian, Baseline::Independent];
        let worse = simple.map(|baseline| Finding::WorseThanSimple { baseline, gain, error });
        let others = vec![
            Finding::NotFinite,
            Finding::RoundTrip { error },
            Finding::LogDet { error },
            Finding::FarRows { validation: true, rows: 3, nats: 2.0 },
            Finding::LearntByHeart { gap, error },
            Finding::WorseThanKernels { nats: gap, error },
            Finding::UnlikeSplit { gap: -gap, error },
            Finding::NoBetterThanSimple { baseline: Baseline::Gaussian, gain, error, features: vec![0] },
            shared(true),
            shared(false),
            Finding::NotNormal { features: vec![0], repeating: Vec::new() },
            Finding::NotNormal { features: vec![0, 1], repeating: vec![1] },
            Finding::Dependent { pair: PairStructure { features: [0, 1], nats: 0.1 } },
            Finding::DeadUnits { transform: 0, layer, couplings: 2 },
        ];
        worse.into_iter().chain(others).collect()
    }

    #[test]
    fn every_finding_has_advice_in_flags_that_train_has() {
        let train = TrainArgs::augment_args(Command::new("train"));
        let known: BTreeSet<&str> =
            train.get_arguments().filter_map(|argument| argument.get_long()).collect();
        for finding in all() {
            for recipe in 0..3 {
                let mut model = model_with(vec![finding.clone()]);
                if recipe > 0 {
                    model.flow = model.flow.with_conditioner(ConditionerForm::Joint);
                    model.flow = model.flow.with_bijector(Bijector::Spline { bins: 4, bound: 3.0 });
                    model.flow = model.flow.with_activation(Activation::Silu);
                    model.record.recipe.ema = Some(0.9);
                    model.preprocessing.standardise = Standardise::Whiten;
                }
                if recipe > 1 {
                    model.flow = model.flow.with_base(Base::Mixture { components: 2 });
                }
                let line = lines(&model)[1].clone();
                let advice = line.strip_prefix("suspicious: ").and_then(|line| line.split_once(". "));
                let advice = advice.unwrap_or_else(|| panic!("no advice: {line}")).1;
                for flag in advice.split("--").skip(1) {
                    let end = flag.find(|letter: char| !(letter.is_ascii_lowercase() || letter == '-'));
                    let flag = &flag[..end.unwrap_or(flag.len())];
                    assert!(known.contains(flag), "--{flag} in: {line}");
                }
            }
        }
    }

    #[test]
    fn advice_names_what_the_fit_does_not_have_yet_and_is_given_once() {
        let [.., stalled, _, _, _, _, _, dead] = &all()[..] else { panic!("seven at least") };
        let both = lines(&model_with(vec![stalled.clone(), dead.clone()]));
        assert!(
            both[1].ends_with("in x0. Train with --margins kernel --preset spline --activation silu"),
            "{both:?}"
        );
        assert!(both[2].ends_with("and 1 more coupling is like it"), "{both:?}");
        let alone = lines(&model_with(vec![stalled.clone()]));
        assert!(alone[1].ends_with(". Train with --margins kernel --preset spline"), "{alone:?}");
        let not_normal = Finding::NotNormal { features: vec![0], repeating: Vec::new() };
        let by_heart = lines(&model_with(vec![Finding::LearntByHeart { gap: 0.5, error: 0.1 }, not_normal]));
        assert!(by_heart[1].contains("--ema 0.9") && !by_heart[2].contains("--"), "{by_heart:?}");
    }

    #[test]
    fn shared_values_have_advice_by_their_kind_and_margins_and_speak_for_what_is_not_normal_there() {
        let not_normal = |features| Finding::NotNormal { features, repeating: vec![1] };
        let told = |features| lines(&model_with(vec![shared(true), not_normal(features)]));
        let column = told(vec![1]);
        let want = "x1 (9 different). --dequantize x1 models whole numbers as counts; --margins kernel keeps scores finite";
        assert!(column[1].ends_with(want), "{column:?}");
        assert!(column[2].ends_with("does not fit there"), "{column:?}");
        assert!(
            told(vec![0, 1])[2].contains(". Train with --margins kernel"),
            "another column is not normal either"
        );
        let alone = lines(&model_with(vec![not_normal(vec![1])]));
        assert!(
            alone[1].contains("--dequantize x1 if they are whole"),
            "a record of an earlier version: {alone:?}"
        );
        let atom = lines(&model_with(vec![shared(false)]));
        assert!(atom[1].ends_with(". --margins kernel keeps scores finite"), "{atom:?}");
        let stands_out = SharedValues { different: 90, whole: false, value: 0.0, share: 0.5 };
        let columns = vec![SharedColumn { feature: 1, shared: stands_out }];
        let atom = lines(&model_with(vec![Finding::SharedValues { columns }]));
        assert!(atom[1].contains(". --atom x1=0 gives such values a probability; "), "{atom:?}");
    }

    #[test]
    fn sentences_of_earlier_and_later_versions_are_shown_as_they_are() {
        let mut model = model_with(vec![Finding::Unknown]);
        let check = model.record.check.as_mut().expect("a check");
        check.suspicious = vec!["the moon is full".into(), "and something else".into()];
        assert_eq!(lines(&model)[1..], ["suspicious: the moon is full", "suspicious: and something else"]);
    }

    #[test]
    fn a_lower_rate_has_one_digit() {
        let mut model = model_with(Vec::new());
        for (rate, want) in [(5e-3, "--lr 0.001"), (1e-3, "--lr 0.0002"), (3e-4, "--lr 0.00006")] {
            model.record.recipe.learning_rate = rate;
            assert_eq!(lower_rate(&model), want);
        }
    }
}
