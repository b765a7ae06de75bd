//! Argument values with rules of their own, parsed so that a refusal names the rule.

use moonflow::flow::{Base, MAX_WIDTH};

/// Hidden widths, as in `64,64`.
#[derive(Clone, Debug, PartialEq)]
pub struct Widths(pub Vec<usize>);

/// Parses `64,64`.
///
/// # Errors
/// The rule, when a part is not a whole number in range.
pub fn widths(text: &str) -> Result<Widths, String> {
    let width = |part: &str| part.trim().parse().ok().filter(|width| (1..=MAX_WIDTH).contains(width));
    text.split(',').map(width).collect::<Option<Vec<usize>>>().map(Widths).ok_or_else(|| {
        format!("expected whole numbers from 1 to {MAX_WIDTH} with commas between them, such as 64,64")
    })
}

/// Components of a base density, or of those of an ensemble's fits in turns, as in `0,1,5`; 0 is the standard normal.
#[derive(Clone, Debug, PartialEq)]
pub struct Components(pub Vec<usize>);

/// Parses `5` or `0,1,5`.
///
/// # Errors
/// The rule, when a part is not a whole number in range.
pub fn components(text: &str) -> Result<Components, String> {
    let most = *Base::COMPONENTS.end();
    let count = |part: &str| part.trim().parse().ok().filter(|count| (0..=most).contains(count));
    match text.split(',').map(count).collect::<Option<Vec<usize>>>() {
        Some(counts) if counts != [0] => Ok(Components(counts)),
        _ => Err(format!(
            "expected a whole number from 1 to {most}, or several from 0 with commas between them, such as 0,1,5"
        )),
    }
}

/// Parses a learning rate.
///
/// # Errors
/// The rule, when it is not a number above 0 and at most 1.
pub fn learning_rate(text: &str) -> Result<f32, String> {
    number(text, "a number above 0 and at most 1", |value: &f32| *value > 0.0 && *value <= 1.0)
}

/// Parses a standard deviation of noise.
///
/// # Errors
/// The rule, when it is negative or not finite.
pub fn noise(text: &str) -> Result<f64, String> {
    number(text, "a finite number of at least 0", |value: &f64| *value >= 0.0 && value.is_finite())
}

/// Parses a sampling temperature.
///
/// # Errors
/// The rule, when it is negative or not finite.
pub fn temperature(text: &str) -> Result<f32, String> {
    number(text, "a finite number of at least 0", |value: &f32| *value >= 0.0 && value.is_finite())
}

/// Parses a number above 0.
///
/// # Errors
/// The rule, when it is not a finite number above 0.
pub fn positive(text: &str) -> Result<f32, String> {
    number(text, "a finite number above 0", |value: &f32| *value > 0.0 && value.is_finite())
}

/// Parses a number of at least 0.
///
/// # Errors
/// The rule, when it is negative or not finite.
pub fn at_least_zero(text: &str) -> Result<f32, String> {
    number(text, "a finite number of at least 0", |value: &f32| *value >= 0.0 && value.is_finite())
}

/// Parses a share that may be the whole.
///
/// # Errors
/// The rule, when it does not lie between 0 and 1.
pub fn share_or_whole(text: &str) -> Result<f32, String> {
    number(text, "a number from 0 to 1", |value: &f32| (0.0..=1.0).contains(value))
}

/// Parses a share of rows.
///
/// # Errors
/// The rule, when it is negative or not below 1.
pub fn share(text: &str) -> Result<f64, String> {
    number(text, "a number of at least 0 and below 1", |value: &f64| (0.0..1.0).contains(value))
}

/// Parses the decay of an average.
///
/// # Errors
/// The rule, when it does not lie between 0 and 1.
pub fn decay(text: &str) -> Result<f64, String> {
    number(text, "a number above 0 and below 1, such as 0.9", |value: &f64| *value > 0.0 && *value < 1.0)
}

/// Parses a share of the rows that is not empty.
///
/// # Errors
/// The rule, when it does not lie between 0 and 1.
pub fn share_above_zero(text: &str) -> Result<f64, String> {
    number(text, "a number above 0 and below 1, such as 0.2", |value: &f64| *value > 0.0 && *value < 1.0)
}

/// Parses a number of seconds.
///
/// # Errors
/// The rule, when it is not a finite number above 0.
pub fn seconds(text: &str) -> Result<f64, String> {
    number(text, "a finite number of seconds above 0", |value: &f64| *value > 0.0 && value.is_finite())
}

/// Parses a rate, such as operations or bytes a second.
///
/// # Errors
/// The rule, when it is not a finite number above 0.
pub fn rate(text: &str) -> Result<f64, String> {
    number(text, "a finite number above 0, such as 1e12", |value: &f64| *value > 0.0 && value.is_finite())
}

/// Parses a cost in microseconds.
///
/// # Errors
/// The rule, when it is negative or not finite.
pub fn microseconds(text: &str) -> Result<f64, String> {
    number(text, "a finite number of at least 0", |value: &f64| *value >= 0.0 && value.is_finite())
}

fn number<T: std::str::FromStr>(text: &str, rule: &str, holds: impl Fn(&T) -> bool) -> Result<T, String> {
    text.trim().parse().ok().filter(holds).ok_or_else(|| format!("expected {rule}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_take_lists_and_refuse_gaps_words_zeros_and_giants() {
        assert_eq!(widths("64"), Ok(Widths(vec![64])));
        assert_eq!(widths("64, 32,8"), Ok(Widths(vec![64, 32, 8])));
        for text in ["", "64,,8", "64,x", "0", "64,-1", "65537", "99999999999999999999", "64,"] {
            assert!(widths(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn components_are_one_number_or_several_of_which_some_may_be_none() {
        assert_eq!(components("5"), Ok(Components(vec![5])));
        assert_eq!(components("0, 1,256"), Ok(Components(vec![0, 1, 256])));
        for text in ["", "0", "1,", "257", "-1", "1,x"] {
            assert!(components(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_outside_of_their_rule_are_refused() {
        assert_eq!(learning_rate("1e-3"), Ok(1e-3));
        assert_eq!(temperature("0"), Ok(0.0));
        assert_eq!((share("0.1"), decay("0.9"), seconds("0.5")), (Ok(0.1), Ok(0.9), Ok(0.5)));
        assert_eq!((positive("2"), at_least_zero("2"), share_or_whole("1")), (Ok(2.0), Ok(2.0), Ok(1.0)));
        assert!(share("1").is_err() && decay("0").is_err() && decay("1").is_err() && seconds("0").is_err());
        assert!(positive("0").is_err() && at_least_zero("0") == Ok(0.0));
        assert_eq!((rate("1e12"), microseconds("0")), (Ok(1e12), Ok(0.0)));
        assert!(rate("0").is_err());
        for text in ["NaN", "-1", "inf", "x", "", "-0.001"] {
            assert!(
                learning_rate(text).is_err() && noise(text).is_err() && temperature(text).is_err(),
                "{text}"
            );
            assert!(rate(text).is_err() && microseconds(text).is_err(), "{text}");
            assert!(share(text).is_err() && decay(text).is_err() && seconds(text).is_err(), "{text}");
            assert!(positive(text).is_err() && at_least_zero(text).is_err(), "{text}");
            assert!(share_or_whole(text).is_err(), "{text}");
        }
        assert!(
            learning_rate("0").is_err() && learning_rate("1.5").is_err() && learning_rate("1e-60").is_err()
        );
    }
}
