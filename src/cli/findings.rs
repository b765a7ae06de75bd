//! What was found in a table, in words and in flags of `train`. `inspect` prints all of it, `train` what concerns the
//! density that it is about to fit, and `train --auto` takes the flags.

use moonflow::data::{
    Atom, ColumnFindings, ColumnKind, Dependence, Inspection, Levels, Margins, PreprocessingPlan, Shape,
    Table, Tails, TimeFormat,
};
use moonflow::shown::shown;
use serde::Serialize;

use super::output::grouped;

/// A flag of `train` that suits a table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The flag without its hyphens.
    pub flag: &'static str,
    /// The columns that it is for.
    pub columns: Vec<String>,
    /// What the flag takes.
    pub value: String,
    /// Why.
    pub reason: &'static str,
    /// What of it each column has, without those that are there before.
    #[serde(skip)]
    items: Vec<String>,
    /// The columns as a sentence has them, with what is to be said of each.
    #[serde(skip)]
    named: Vec<String>,
    #[serde(skip)]
    rule: &'static Rule,
}

/// What flags say of a column already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settled {
    /// It is given, and not modelled.
    context: bool,
    dequantized: bool,
    bounded: bool,
    /// It has atoms.
    atoms: bool,
    /// It is a category.
    categorical: bool,
    /// A flag says what becomes of rows without a value.
    missing: bool,
}

impl Settled {
    /// What `plan` says of the column `name` among `columns`.
    pub fn by(plan: &PreprocessingPlan, columns: &[String], name: &str) -> Self {
        let Some(place) = columns.iter().position(|column| column == name) else { return Self::default() };
        let domain = plan.domains.get(place).copied().unwrap_or_default();
        Self {
            context: place + plan.context >= columns.len(),
            dequantized: domain.grid.is_some(),
            bounded: domain.bounds.is_some(),
            atoms: plan.atoms.iter().any(|atoms| atoms.column == place),
            ..Self::default()
        }
    }

    /// The same where a flag says that the column is a category, or `is_said` not.
    pub fn with_category(self, is_said: bool) -> Self {
        Self { categorical: is_said, ..self }
    }

    /// The same where a flag says that it has atoms, which the plan knows only when they have indicators, or `is_said` not.
    pub fn with_atoms(self, is_said: bool) -> Self {
        Self { atoms: self.atoms || is_said, ..self }
    }

    /// The same where a flag says what becomes of rows without a value, or `is_said` not.
    pub fn with_missing(self, is_said: bool) -> Self {
        Self { missing: is_said, ..self }
    }

    /// Whether a flag names the column, which is then to be kept.
    fn is_named(self) -> bool {
        self.context || self.dequantized || self.bounded || self.atoms || self.categorical
    }
}

/// When a flag suits a column, and the words for it.
#[derive(Debug)]
struct Rule {
    flag: &'static str,
    /// Of the column; columns follow it.
    reason: &'static str,
    /// What comes of it without the flag.
    consequence: &'static str,
    /// What the flag does with columns.
    effect: &'static str,
    /// What the flag takes for a column.
    item: fn(&Subject<'_>) -> Option<String>,
    /// What there is to say of the column behind its name.
    detail: fn(&Subject<'_>) -> Option<String>,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        (self.flag, self.reason) == (other.flag, other.reason)
    }
}

/// Rows below which two whole numbers may be chance.
const PAIR_ROWS: u64 = 20;

const UNBOUNDED: &str = "A density grows without end there";
const LEFT_OUT: &str = "leaves it out";

/// Every rule. A column that one of them drops is none of the later ones' business.
static RULES: [Rule; 13] = [
    Rule {
        flag: "drop",
        reason: "counts the rows, as an index does",
        consequence: "It would be learned",
        effect: LEFT_OUT,
        item: |of| of.column.is_index.then(|| of.field()),
        detail: |_| None,
    },
    Rule {
        flag: "drop",
        reason: "no values",
        consequence: "There is nothing to fit",
        effect: LEFT_OUT,
        item: |of| (of.column.kind == ColumnKind::Empty).then(|| of.field()),
        detail: |_| None,
    },
    Rule {
        flag: "drop",
        reason: "missing in most rows",
        consequence: "Without these rows little is left",
        effect: LEFT_OUT,
        item: |of| (2 * of.column.missing > of.found.rows).then(|| of.field()),
        detail: |_| None,
    },
    Rule {
        flag: "drop",
        reason: "always the same",
        consequence: "There is nothing to fit",
        effect: LEFT_OUT,
        item: |of| (of.column.different == Some(1)).then(|| of.field()),
        detail: |_| None,
    },
    Rule {
        flag: "drop",
        reason: "a text of its own in most rows",
        consequence: "It names rows and is no category",
        effect: LEFT_OUT,
        item: |of| of.is_name().then(|| of.field()),
        detail: |_| None,
    },
    Rule {
        flag: "drop",
        reason: "a sum of other columns",
        consequence: UNBOUNDED,
        effect: LEFT_OUT,
        item: |of| of.dependence().map(|_| of.field()),
        detail: |of| of.dependence().map(|dependence| format!("= {}", sum(dependence))),
    },
    Rule {
        flag: "categorical",
        reason: "two whole numbers only",
        consequence: UNBOUNDED,
        effect: "gives each a probability",
        item: |of| of.is_pair().then(|| of.field()),
        detail: |_| None,
    },
    Rule {
        flag: "dequantize",
        reason: "whole numbers only",
        consequence: UNBOUNDED,
        effect: "models them as counts, --categorical as categories",
        item: |of| of.step().filter(|step| of.is_whole(*step)).map(|_| of.field()),
        detail: |of| of.shared(),
    },
    Rule {
        flag: "dequantize",
        reason: "values in steps",
        consequence: UNBOUNDED,
        effect: "gives them probabilities",
        item: |of| {
            let step = of.step().filter(|step| !of.is_whole(*step))?;
            Some(csv_field(&format!("{}={step}", of.column.name)))
        },
        detail: |of| of.shared(),
    },
    Rule {
        flag: "atom",
        reason: "values that stand out of others",
        consequence: UNBOUNDED,
        effect: "gives them probabilities",
        item: |of| of.atoms(),
        detail: |of| of.shared(),
    },
    Rule {
        flag: "bounds",
        reason: "near an end that no value reaches",
        consequence: "Samples may lie beyond it",
        effect: "keeps them inside",
        item: |of| {
            let bounds = of.column.bounds.filter(|_| !of.settled.is_named())?;
            // The flag's list has no quotes.
            (!of.column.name.contains([',', '"'])).then(|| format!("{}={bounds}", of.column.name))
        },
        detail: |of| {
            let ends = of.column.bounds.map(|bounds| [bounds.low, bounds.high]);
            let ends: Vec<String> = ends.into_iter().flatten().flatten().map(|end| end.to_string()).collect();
            Some(format!("({})", ends.join(" and ")))
        },
    },
    Rule {
        flag: "bounds",
        reason: "0 is the least value",
        consequence: "Samples may lie beyond it",
        effect: "keeps them inside",
        item: |of| of.is_from_zero().then(|| format!("{}=0:", of.column.name)),
        detail: |_| None,
    },
    Rule {
        flag: "missing",
        reason: "missing values",
        consequence: "They are refused",
        effect: "leaves out their rows",
        item: |of| (of.column.missing > 0 && !of.settled.missing).then(|| "drop".to_owned()),
        detail: |of| Some(format!("({})", grouped(of.column.missing))),
    },
];

/// A column before the rules.
struct Subject<'a> {
    found: &'a Inspection,
    column: &'a ColumnFindings,
    settled: Settled,
}

impl Subject<'_> {
    /// The column in a flag's list: its name, or its position where it has none.
    fn field(&self) -> String {
        let name = &self.column.name;
        if name.is_empty() { self.column.place.to_string() } else { csv_field(name) }
    }

    /// Whether the column has two whole numbers, whose order says nothing: as a category each has its exact probability, and
    /// the other columns may depend on it in any way.
    fn is_pair(&self) -> bool {
        let Self { found, column, settled } = self;
        let numbers = found.rows - column.missing;
        let is_open = !settled.categorical && !settled.dequantized && !settled.context && !settled.atoms;
        column.kind == ColumnKind::Whole && column.different == Some(2) && numbers >= PAIR_ROWS && is_open
    }

    /// Whether the column has a few whole numbers, which may be codes: nothing tells whether their order means something.
    fn may_be_codes(&self) -> bool {
        const CODES: std::ops::RangeInclusive<usize> = 3..=10;
        let is_few = self.column.different.is_some_and(|different| CODES.contains(&different));
        is_few && self.step() == Some(1.0) && self.column.kind == ColumnKind::Whole
    }

    /// The step between the few values that the rows share, where they are to have probabilities.
    fn step(&self) -> Option<f64> {
        let Self { found, column, settled } = self;
        let numbers = (found.rows - column.missing) as usize;
        let few = column.shared.is_some_and(|shared| shared.is_of_few(numbers));
        let is_number = column.kind != ColumnKind::Truth && !settled.categorical && !self.is_pair();
        column.grid.filter(|_| few && is_number && !settled.dequantized && !settled.context)
    }

    /// Whether the values that are `step` apart are all whole numbers: those at 0.5, 1.5 and so on are not.
    fn is_whole(&self, step: f64) -> bool {
        step == 1.0 && self.column.kind != ColumnKind::Number
    }

    /// Whether the column names rows: a text that comes again in few of them.
    fn is_name(&self) -> bool {
        let Self { found, column, .. } = self;
        let texts = (found.rows - column.missing) as usize;
        column.kind == ColumnKind::Text
            && column.different.is_none_or(|different| Levels::are_names(different, texts))
    }

    /// The values that stand out of a column of others, where they are to have probabilities.
    fn atoms(&self) -> Option<String> {
        let Self { column, settled, .. } = self;
        // The flag's list has no quotes.
        let is_free = self.step().is_none() && !settled.is_named() && !column.name.contains([',', '"']);
        let atom = |atom: &Atom| format!("{}={}", column.name, atom.value);
        let atoms: Vec<String> = column.atoms.iter().filter(|_| is_free).map(atom).collect();
        (!atoms.is_empty()).then(|| atoms.join(","))
    }

    /// Whether 0 is the least of a column that is on a grid or has it as an atom, which nothing else bounds.
    fn is_from_zero(&self) -> bool {
        let Self { column, settled, .. } = self;
        let has_zero = self.step().is_some() || self.atoms().is_some();
        let is_open = !settled.is_named() && column.bounds.is_none() && !column.name.contains([',', '"']);
        has_zero && is_open && column.range.is_some_and(|[least, _]| least == 0.0)
    }

    /// What many rows share.
    fn shared(&self) -> Option<String> {
        self.column.shared.map(|shared| format!("({shared})"))
    }

    /// The sum that the column is.
    fn dependence(&self) -> Option<&Dependence> {
        let named = |dependence: &&Dependence| dependence.exact && dependence.column == self.column.name;
        self.found.dependences.iter().find(named)
    }
}

/// The flags that suit the table of which this was `found`, where `settled` says what flags there are for a column.
pub fn advice(found: &Inspection, settled: impl Fn(&str) -> Settled) -> Vec<Advice> {
    let mut advice: Vec<Advice> = Vec::new();
    let subjects =
        found.columns.iter().map(|column| Subject { found, column, settled: settled(&column.name) });
    for subject in subjects {
        for rule in RULES.iter().filter(|rule| rule.flag != "drop" || !subject.settled.is_named()) {
            let Some(item) = (rule.item)(&subject) else { continue };
            let place = advice.iter().position(|advice| advice.rule == rule).unwrap_or_else(|| {
                advice.push(Advice::new(rule));
                advice.len() - 1
            });
            advice[place].add(&subject, item);
            if rule.flag == "drop" {
                break;
            }
        }
    }
    let order = |rule: &Rule| RULES.iter().position(|known| known == rule);
    advice.sort_by_key(|advice| order(advice.rule));
    advice
}

/// The columns for which `--categorical` may be right and nothing in the table tells: a few whole numbers. `--auto` takes them
/// as counts.
pub fn codes(found: &Inspection) -> Vec<String> {
    let subjects = found.columns.iter().map(|column| Subject { found, column, settled: Settled::default() });
    let codes = subjects.filter(|of| of.may_be_codes() && !of.column.is_index);
    codes.map(|of| of.field()).collect()
}

impl Advice {
    fn new(rule: &'static Rule) -> Self {
        let (flag, reason, value) = (rule.flag, rule.reason, String::new());
        Self { flag, columns: Vec::new(), value, reason, items: Vec::new(), named: Vec::new(), rule }
    }

    /// Takes in another column, for which the flag takes `item`.
    fn add(&mut self, subject: &Subject<'_>, item: String) {
        let detail = (self.rule.detail)(subject).map(|detail| format!(" {detail}")).unwrap_or_default();
        self.named.push(format!("`{}`{detail}", shown(&subject.column.name)));
        self.columns.push(subject.column.name.clone());
        if !self.items.contains(&item) {
            self.items.push(item);
            self.value = self.items.join(",");
        }
    }

    /// The flag with what it takes, as a shell has it.
    pub fn flag(&self) -> String {
        flag(self.flag, &self.value)
    }

    /// What a training says that has not been given the flag.
    pub fn note(&self) -> String {
        let Rule { reason, consequence, effect, .. } = self.rule;
        let columns = listed(&self.named, ", ");
        let items: Vec<String> = self.items.iter().map(|item| shown(item).to_string()).collect();
        let flag = flag(self.flag, &listed(&items, ","));
        format!("note: {reason}: {columns}. {consequence}: {flag} {effect}")
    }
}

/// Each flag with all that it takes: what `given` has of it, by name and value, and what is advised.
pub fn flags(advice: &[Advice], given: &[(&'static str, String)]) -> Vec<(&'static str, String)> {
    let mut flags: Vec<(&'static str, String)> = Vec::new();
    for advice in advice {
        match flags.iter_mut().find(|(flag, _)| *flag == advice.flag) {
            Some((_, value)) => *value = format!("{value},{}", advice.value),
            None => {
                let before = given.iter().find(|(flag, _)| *flag == advice.flag);
                let before = before.map(|(_, value)| format!("{value},")).unwrap_or_default();
                flags.push((advice.flag, before + &advice.value));
            }
        }
    }
    flags
}

/// A flag as a shell has it.
pub fn flag(name: &str, value: &str) -> String {
    format!("--{name} {}", quoted(value))
}

/// What a training says of `table` before it is learned under `plan`.
pub fn of_training(table: &Table, plan: &PreprocessingPlan) -> Vec<String> {
    let modelled = table.features() - plan.context;
    // What is given comes first: a column that follows from it is the one to be left out.
    let places: Vec<usize> = (modelled..table.features()).chain(0..modelled).collect();
    let found = Inspection::of_table(table, &places);
    let settled = |name: &str| Settled::by(plan, &table.columns, name);
    let tails = if plan.margins == Margins::None { heavy_tails(&found) } else { None };
    let advice = advice(&found, settled);
    let advised = advice.iter().map(Advice::note);
    advised.chain(shared_values(&found, settled, plan.margins)).chain(tails).collect()
}

/// The note on columns in which many rows share a value, where no flag helps.
fn shared_values(found: &Inspection, settled: impl Fn(&str) -> Settled, margins: Margins) -> Option<String> {
    let others = found.columns.iter().filter_map(|column| {
        let subject = Subject { found, column, settled: settled(&column.name) };
        let is_helped =
            column.is_index || subject.step().is_some() || subject.is_pair() || subject.atoms().is_some();
        let shared = column.shared.filter(|_| !is_helped)?;
        let Settled { context, dequantized, atoms, .. } = subject.settled;
        (!context && !dequantized && !atoms).then(|| format!("`{}` ({shared})", shown(&column.name)))
    });
    let others: Vec<String> = others.collect();
    let margins = match margins {
        Margins::Kernel => "--margins kernel, in use here, keeps scores finite",
        _ => "--margins kernel keeps scores finite",
    };
    (!others.is_empty()).then(|| {
        format!(
            "note: many rows share a value: {}. {UNBOUNDED}: {margins}, --drop leaves such columns out",
            listed(&others, ", ")
        )
    })
}

/// The note on columns with heavy tails.
fn heavy_tails(found: &Inspection) -> Option<String> {
    let heavy = |column: &&ColumnFindings| column.shape.is_some_and(|shape| shape.tails == Tails::Heavy);
    let names: Vec<String> =
        found.columns.iter().filter(heavy).map(|column| format!("`{}`", shown(&column.name))).collect();
    (!names.is_empty()).then(|| {
        format!("note: heavy tails: {}. --margins kernel brings them within reach", listed(&names, ", "))
    })
}

/// What there is to say of a column.
pub fn described(column: &ColumnFindings) -> String {
    let mut parts = vec![match column.kind {
        ColumnKind::Number => "numbers".to_owned(),
        ColumnKind::Whole => "whole numbers".to_owned(),
        ColumnKind::Truth => "true or false".to_owned(),
        ColumnKind::Time => "dates or times".to_owned(),
        ColumnKind::Text => "text".to_owned(),
        _ => "no values".to_owned(),
    }];
    if let Some([least, greatest]) = column.range {
        parts.push(match column.kind {
            ColumnKind::Time => between_times(least, greatest),
            _ => format!("{least} to {greatest}"),
        });
    }
    match column.different {
        Some(0) => {}
        Some(1) => parts.push("always the same".into()),
        Some(different) => parts.push(format!("{} different", grouped(different as u64))),
        None => parts.push("very many different".into()),
    }
    if let Some(grid) = column.grid.filter(|_| column.kind != ColumnKind::Time) {
        parts.push(format!("in steps of {grid}"));
    }
    if !column.atoms.is_empty() {
        let atom = |atom: &Atom| format!("{} in {:.1} %", atom.value, 100.0 * atom.share);
        let atoms: Vec<String> = column.atoms.iter().map(atom).collect();
        parts.push(format!("{} of the rows", atoms.join(" and ")));
    }
    parts.extend(column.shape.into_iter().flat_map(shape).map(str::to_owned));
    if let Some(bounds) = column.bounds {
        let between = |low, high| format!("near {low} and {high} and never on them");
        parts.push(match (bounds.low, bounds.high) {
            (Some(low), Some(high)) => between(low, high),
            (Some(end), None) => format!("near {end} and always above"),
            (None, end) => format!("near {} and always below", end.unwrap_or_default()),
        });
    }
    if column.missing > 0 {
        parts.push(format!("{} missing", grouped(column.missing)));
    }
    if let Some(odd) = &column.odd {
        parts.push(format!("unlike most is `{}` in {} {}", shown(&odd.cell), odd.unit, odd.place));
    }
    if let Some(far) = &column.far_out {
        let places: Vec<String> = far.places.iter().map(u64::to_string).collect();
        let more = if far.rows > places.len() { ", …" } else { "" };
        parts.push(format!("{} far out: {}{more}", far.rows, places.join(", ")));
    }
    if column.counts_rows {
        parts.push("counts the rows, as an index does".into());
    }
    parts.join(", ")
}

/// From when to when a column of seconds since 1970 is; as dates where both are whole days.
fn between_times(first: f64, last: f64) -> String {
    const DAY: f64 = 86_400.0;
    let is_date = [first, last].iter().all(|seconds| seconds % DAY == 0.0);
    let format = if is_date { TimeFormat::DATE } else { TimeFormat::default() };
    let zone = if is_date { "" } else { " in UTC" };
    format!("{} to {}{zone}", format.text(first), format.text(last))
}

/// Tails and skewness, where there is something to say.
fn shape(shape: Shape) -> impl Iterator<Item = &'static str> {
    /// Skewness of an exponential column is 0.56.
    const STRONGLY: f64 = 0.5;
    let tails = match shape.tails {
        Tails::Light => Some("light tails"),
        Tails::Normal => None,
        Tails::Heavy => Some("heavy tails"),
    };
    let skewed = match shape.skewness {
        skewness if skewness > STRONGLY => Some("strongly skewed to the right"),
        skewness if skewness < -STRONGLY => Some("strongly skewed to the left"),
        skewness if skewness > Shape::SKEWED => Some("skewed to the right"),
        skewness if skewness < -Shape::SKEWED => Some("skewed to the left"),
        _ => None,
    };
    tails.into_iter().chain(skewed)
}

/// `c` = 1·`a` + 2·`b` + 3, or where that is only nearly so with what is left.
pub fn equation(dependence: &Dependence) -> String {
    let (column, sum) = (shown(&dependence.column), sum(dependence));
    if dependence.exact {
        format!("`{column}` = {sum}")
    } else {
        let left = 100.0 * dependence.left.sqrt();
        format!("`{column}` ≈ {sum}, but for {} % of its spread", rounded(left, 1))
    }
}

/// 1·`a` + 2·`b` + 3.
fn sum(dependence: &Dependence) -> String {
    /// Digits after the first, of factors that are exact and of others.
    const DIGITS: [usize; 2] = [5, 2];
    let digits = DIGITS[usize::from(!dependence.exact)];
    let terms =
        dependence.terms.iter().map(|term| format!("{}·`{}`", rounded(term.factor, digits), shown(&term.of)));
    let constant = rounded(dependence.constant, digits);
    let constant = (constant != "0").then_some(constant);
    terms.chain(constant).collect::<Vec<String>>().join(" + ")
}

/// `value` with so many digits after the first.
fn rounded(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$e}").parse::<f64>().unwrap_or(value);
    if text.abs() < 1e-9 { "0".into() } else { text.to_string() }
}

/// The first of `items`, and an ellipsis if there are more.
pub fn listed(items: &[String], separator: &str) -> String {
    const MOST: usize = 12;
    let more = if items.len() > MOST { format!("{separator}…") } else { String::new() };
    items[..items.len().min(MOST)].join(separator) + &more
}

/// A name as a field of a list.
fn csv_field(name: &str) -> String {
    if name.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

/// `text` as a word of a shell.
pub fn quoted(text: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "_-./,:=".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
