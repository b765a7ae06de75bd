//! The flags that say what is done to columns before a flow sees them.

use clap::builder::PossibleValuesParser;
use moonflow::data::{
    Bounds, ColumnDomain, Grid, Margins, PreprocessingPlan, Selection, Standardise, unknown_column,
};
use moonflow::{Error, Result};

use moonflow::shown::shown;

use super::grids::{Item, Open, OpenPlan};

/// Flags of `moonflow train` that change columns. All of it is kept in the model and undone at sampling.
#[derive(clap::Args)]
pub struct PreprocessArgs {
    /// Columns that are given and not modelled, written like --columns: the density is that of the others given these
    #[arg(long, value_name = "LIST")]
    pub context: Option<String>,
    /// Columns of numbers that are categories, written like --columns; texts, true and false are without it
    #[arg(long, value_name = "LIST")]
    pub categorical: Option<String>,
    /// Columns of whole numbers, and of values in steps, as in count,price=0.01; auto for every column whose values are:
    /// the flow sees them with uniform noise, a score is the log of a probability, and samples lie on the steps
    #[arg(long, value_name = "LIST")]
    dequantize: Option<String>,
    /// Values that have a probability of their own, as in rain=0: a score has its logarithm, and samples hold the value itself.
    /// Can be given for several values and columns
    #[arg(long, value_name = "COLUMN=VALUE", value_delimiter = ',', value_parser = atom)]
    atom: Vec<(String, f64)>,
    /// Where a column's values may lie, as in share=0:1, price=0: or rest=:9; of a --dequantize column, its least and
    /// greatest value. Can be given for several columns
    #[arg(long, value_name = "COLUMN=LOW:HIGH", value_delimiter = ',', value_parser = bounds)]
    bounds: Vec<(String, Bounds)>,
    /// The logarithm of a column, as in price=log: the same as --bounds price=0:
    #[arg(long, value_name = "COLUMN=log", value_delimiter = ',', value_parser = transform)]
    transform: Vec<(String, Bounds)>,
    /// How columns are standardised: by mean and deviation, by median and quartiles, or by mean and deviation and then
    /// freed of their correlations
    #[arg(long, default_value = "mean", value_parser = PossibleValuesParser::new(["mean", "robust", "whiten"]))]
    standardise: String,
    /// Bend each column to a normal shape, after --standardise and, where that whitens, before and after it: by Johnson's
    /// curve, for heavy tails, skewed columns and rows far out; or by that and a kernel density, for any shape
    #[arg(long, value_parser = PossibleValuesParser::new(Margins::ALL.map(|(name, _)| name)))]
    margins: Option<String>,
    /// The same as --margins johnson
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", conflicts_with = "margins")]
    gaussianise: Option<bool>,
    /// Shift and scale columns by the category of their row, before their margins: those whose shape is the same in each of
    /// its levels, as far as the rows tell, if these are fewer than 3,000 [default: true for tables]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    category_moments: Option<bool>,
    /// What the margins are where no flag says.
    #[arg(skip)]
    usual_margins: Margins,
    /// Whether columns are shifted and scaled by categories where no flag says.
    #[arg(skip)]
    usual_category_moments: bool,
}

impl PreprocessArgs {
    /// Does with columns what is usual for tables where no flag says otherwise.
    pub fn set_usual_of_tables(&mut self) {
        (self.usual_margins, self.usual_category_moments) = (Margins::Kernel, true);
    }

    /// Takes `margins` where no flag says what they are.
    pub fn set_usual_margins(&mut self, margins: Margins) {
        self.usual_margins = margins;
    }

    /// Gives the flag `name` another value, written as in [`PreprocessArgs::entries`]; `false` where it is not among these.
    ///
    /// # Errors
    /// [`Error::Argument`] for a value that the flag does not take.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool> {
        match name {
            "categorical" => self.categorical = Some(value.to_owned()),
            "dequantize" => self.dequantize = Some(value.to_owned()),
            "atom" => {
                let parsed: std::result::Result<Vec<_>, String> = value.split(',').map(atom).collect();
                self.atom = parsed.map_err(Error::Argument)?;
            }
            "bounds" => {
                let parsed: std::result::Result<Vec<_>, String> = value.split(',').map(bounds).collect();
                self.bounds = parsed.map_err(Error::Argument)?;
                // Its bounds are among them.
                self.transform.clear();
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether a flag says that the column `name` has atoms.
    pub fn names_atoms(&self, name: &str) -> bool {
        self.atom.iter().any(|(column, _)| column == name)
    }

    /// Whether a flag says what the margins are.
    pub fn names_margins(&self) -> bool {
        self.margins.is_some() || self.gaussianise.is_some()
    }

    /// Whether columns are shifted and scaled by categories, where that suits them.
    pub fn has_category_moments(&self) -> bool {
        self.category_moments.unwrap_or(self.usual_category_moments)
    }

    /// The flags that take a text as a configuration has them: key and value, where one was given. A transformation
    /// stands among the bounds, which say the same, and so does --gaussianise among the margins.
    pub fn entries(&self) -> [(&'static str, Option<String>); 7] {
        let margins = self.margins();
        let atoms: Vec<String> =
            self.atom.iter().map(|(column, value)| format!("{column}={value}")).collect();
        let bounds: Vec<String> = self
            .bounds
            .iter()
            .chain(&self.transform)
            .map(|(column, bounds)| format!("{column}={bounds}"))
            .collect();
        [
            ("context", self.context.clone()),
            ("categorical", self.categorical.clone()),
            ("dequantize", self.dequantize.clone()),
            ("atom", (!self.atom.is_empty()).then(|| atoms.join(","))),
            ("bounds", (!bounds.is_empty()).then(|| bounds.join(","))),
            ("standardise", Some(self.standardise.clone())),
            (
                "margins",
                Margins::ALL.iter().find(|(_, known)| *known == margins).map(|(name, _)| (*name).into()),
            ),
        ]
    }

    /// How columns are bent to a normal shape.
    fn margins(&self) -> Margins {
        let named = self.margins.as_deref().and_then(|wanted| {
            Margins::ALL.into_iter().find(|(name, _)| *name == wanted).map(|(_, margins)| margins)
        });
        named.unwrap_or(match self.gaussianise {
            None => self.usual_margins,
            Some(true) => Margins::Johnson,
            Some(false) => Margins::None,
        })
    }

    /// What the flags say of a table called `name` with `columns`, the last `context` of which are given.
    ///
    /// # Errors
    /// [`Error::Data`] for a column that is not there or has two bounds; those of the bounds' rules and of a step that is none.
    pub fn plan(&self, name: &str, columns: &[String], context: usize) -> Result<OpenPlan> {
        let place = |wanted: &str| {
            let found = columns.iter().position(|column| column == wanted);
            found.ok_or_else(|| Error::data(name, unknown_column(wanted, columns)))
        };
        let mut domains = vec![ColumnDomain::default(); columns.len()];
        let (mut steps, mut auto) = (Vec::new(), false);
        for item in Selection::split(self.dequantize.as_deref().unwrap_or_default()) {
            match Item::parse(&item, columns)? {
                Item::Auto => auto = true,
                Item::Whole(column) => domains[place(column)?].grid = Some(Grid::WHOLE),
                Item::Step(column, step) => steps.push((place(column)?, step)),
            }
        }
        for (column, bounds) in self.bounds.iter().chain(&self.transform) {
            let domain = &mut domains[place(column)?];
            if domain.bounds.replace(*bounds).is_some() {
                let column = shown(column);
                return Err(Error::Argument(format!("column `{column}` has two bounds; expected one")));
            }
        }
        let standardise = match self.standardise.as_str() {
            "robust" => Standardise::Robust,
            "whiten" => Standardise::Whiten,
            _ => Standardise::Mean,
        };
        let margins = self.margins();
        let plan = PreprocessingPlan { domains, standardise, margins, context, ..Default::default() };
        let mut atoms = vec![Vec::new(); columns.len()];
        for (column, value) in &self.atom {
            atoms[place(column)?].push(*value);
        }
        OpenPlan::new(plan, Open { steps, auto, atoms }, columns)
    }
}

/// Parses `share=0:1`, `price=0:` or `rest=:9`.
fn bounds(text: &str) -> std::result::Result<(String, Bounds), String> {
    let rule = || "expected a column and its bounds, such as share=0:1, price=0: or rest=:9".to_owned();
    let (column, ends) = text.rsplit_once('=').ok_or_else(rule)?;
    let (low, high) = ends.split_once(':').ok_or_else(rule)?;
    let end = |text: &str| match text.trim() {
        "" => Ok(None),
        text => text.parse::<f64>().ok().filter(|end| end.is_finite()).map(Some).ok_or_else(rule),
    };
    let bounds = Bounds { low: end(low)?, high: end(high)? };
    match bounds {
        Bounds { low: None, high: None } => Err(rule()),
        Bounds { low: Some(low), high: Some(high) } if low >= high => {
            Err(format!("{}; bounds ascend", rule()))
        }
        bounds => Ok((column.to_owned(), bounds)),
    }
}

/// Parses `rain=0`.
fn atom(text: &str) -> std::result::Result<(String, f64), String> {
    let parts = text.rsplit_once('=').and_then(|(column, value)| Some((column, value.trim().parse().ok()?)));
    match parts {
        Some((column, value)) if f64::is_finite(value) => Ok((column.to_owned(), value)),
        _ => Err("expected a column and one of its values, such as rain=0".into()),
    }
}

/// Parses `price=log`.
fn transform(text: &str) -> std::result::Result<(String, Bounds), String> {
    match text.rsplit_once('=') {
        Some((column, "log")) => Ok((column.to_owned(), Bounds { low: Some(0.0), high: None })),
        _ => Err("expected a column and log, such as price=log".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_have_one_end_or_two_that_ascend() {
        for (text, column, low, high) in [
            ("a=0:1", "a", Some(0.0), Some(1.0)),
            ("a b=-2.5:", "a b", Some(-2.5), None),
            ("a=b=:9", "a=b", None, Some(9.0)),
        ] {
            assert_eq!(bounds(text), Ok((column.to_owned(), Bounds { low, high })), "{text}");
        }
        for text in ["a", "a=", "a=:", "a=1", "a=1:0", "a=0:x", "a=0:inf", "a=NaN:1", "a=1:1"] {
            assert!(bounds(text).is_err(), "{text}");
        }
        assert!(transform("a=log").is_ok() && transform("a=exp").is_err() && transform("log").is_err());
    }
}
