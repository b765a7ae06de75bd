//! The model file of a table with categories, of version 8 or later: what its columns are, the conditionals of its discrete variables,
//! and the members of its density as [`file`](super::file) has them.
//!
//! The conditional of discrete variable i is `discrete.{i}.probabilities` `[cells, levels]` in `F64`, or
//! `discrete.{i}.weights` `[levels, inputs]` with `discrete.{i}.mean` and `discrete.{i}.std` `[C]`.

use serde::{Deserialize, Serialize};

use super::container::{Parsed, StoredTensor, Tensors, serialise};
use super::discrete::{ConditionalTable, Discrete, Link, MOST_CELLS, Regression, cells, inputs};
use super::encoding::Encoding;
use super::file::{ENTRY, Header, prefix};
use super::{Ensemble, TableModel, TrainingRecord};
use crate::data::{ColumnType, Grid, Levels, TableColumn, TimeFormat, ValueKind, repeated};
use crate::error::Error;
use crate::shown::shown;

/// The first version of a file that has categories.
pub(super) const TABLE_VERSION: u32 = 8;

/// What the tensors do not say of a table with categories.
#[derive(Serialize, Deserialize)]
pub(super) struct TableHeader {
    format_version: u32,
    columns: Vec<StoredColumn>,
    /// How many of them, the last ones, are given.
    #[serde(default)]
    context: usize,
    /// The conditional of each modelled category.
    discrete: Vec<StoredLink>,
    /// The flows; none where all modelled columns are categories.
    members: Vec<Header>,
    /// The training of several members together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    together: Option<TrainingRecord>,
    /// The training of all.
    training: TrainingRecord,
}

#[derive(Serialize, Deserialize)]
struct StoredColumn {
    name: String,
    kind: StoredKind,
    /// Of truths: their names, where these are not false and true in small letters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    levels: Vec<String>,
    /// How times are written; where it lacks, as numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<TimeFormat>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    atoms: Vec<f64>,
    /// The grid that samples of it are rounded to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rounded: Option<Grid>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StoredKind {
    Number,
    Time,
    Category,
    Truth,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum StoredLink {
    /// The places of the variables that it is given.
    Table {
        parents: Vec<usize>,
    },
    Regression,
}

impl StoredColumn {
    fn of(column: &TableColumn) -> Self {
        let (kind, levels) = match &column.cells {
            ColumnType::Number { kind: ValueKind::Time(_) } => (StoredKind::Time, Vec::new()),
            ColumnType::Number { .. } => (StoredKind::Number, Vec::new()),
            ColumnType::Category { levels } if *levels == Levels::truths() => (StoredKind::Truth, Vec::new()),
            ColumnType::Category { levels } if levels.is_truth() => {
                (StoredKind::Truth, levels.names().to_vec())
            }
            ColumnType::Category { levels } => (StoredKind::Category, levels.names().to_vec()),
        };
        let time = match column.kind() {
            ValueKind::Time(format) => Some(format),
            _ => None,
        };
        let TableColumn { name, atoms, rounded, .. } = column.clone();
        Self { name, kind, levels, time, atoms, rounded }
    }

    fn column(&self) -> Parsed<TableColumn> {
        let fail = |error: Error| format!("its column `{}`: {error}", shown(&self.name));
        let cells = match self.kind {
            StoredKind::Number => ColumnType::Number { kind: ValueKind::Number },
            StoredKind::Time => {
                ColumnType::Number { kind: self.time.map_or(ValueKind::Number, ValueKind::Time) }
            }
            StoredKind::Truth => {
                let like = self.levels.last().map_or("true", String::as_str);
                ColumnType::Category { levels: Levels::truths_like(like) }
            }
            StoredKind::Category => {
                ColumnType::Category { levels: Levels::new(self.levels.clone()).map_err(fail)? }
            }
        };
        if self.rounded.is_some_and(|grid| !(grid.step.is_normal() && grid.offset.is_finite())) {
            return Err(format!("its column `{}` is rounded to steps that are none", shown(&self.name)));
        }
        let (name, atoms, rounded) = (self.name.clone(), self.atoms.clone(), self.rounded);
        Ok(TableColumn { name, cells, atoms, rounded })
    }
}

impl TableModel {
    /// The model as the bytes of its file; that of a table of nothing but numbers is the ensemble's own.
    ///
    /// # Panics
    /// As [`Model::to_bytes`](super::Model::to_bytes).
    pub fn to_bytes(&self) -> Vec<u8> {
        if !self.has_types() {
            return self.density().map(Ensemble::to_bytes).unwrap_or_default();
        }
        let discrete = self.categories();
        let members = self.density().map_or(&[][..], Ensemble::members);
        let header = TableHeader {
            format_version: self.format_version(),
            columns: self.columns().iter().map(StoredColumn::of).collect(),
            context: self.context(),
            discrete: discrete.map_or(&[][..], Discrete::links).iter().map(StoredLink::of).collect(),
            members: members.iter().map(super::Model::header).collect(),
            together: self.density().filter(|_| members.len() > 1).map(|density| density.record().clone()),
            training: self.record().clone(),
        };
        let json = serde_json::to_string(&header).expect("invariant: a header is plain data");
        let of_members = members.iter().enumerate().flat_map(|(index, member)| {
            member.tensors().into_iter().map(move |tensor| tensor.behind(&prefix(index)))
        });
        let tensors = discrete.map(stored).unwrap_or_default().into_iter().chain(of_members);
        serialise(tensors.collect(), ENTRY, &json)
    }
}

impl StoredLink {
    fn of(link: &Link) -> Self {
        match link {
            Link::Table(table) => Self::Table { parents: table.parents.clone() },
            Link::Regression(_) => Self::Regression,
        }
    }
}

/// The tensors of the conditionals.
fn stored(discrete: &Discrete) -> Vec<StoredTensor> {
    let mut tensors = Vec::new();
    for (variable, link) in discrete.links().iter().enumerate() {
        let levels = discrete.levels()[variable];
        let mut tensor = |name: &str, shape, values: &[f64]| {
            tensors.push(StoredTensor::f64(format!("discrete.{variable}.{name}"), shape, values));
        };
        match link {
            Link::Table(table) => {
                let shape = vec![table.probabilities.len() / levels, levels];
                tensor("probabilities", shape, &table.probabilities);
            }
            Link::Regression(regression) => {
                let shape = vec![levels, regression.weights.len() / levels];
                tensor("weights", shape, &regression.weights);
                tensor("mean", vec![regression.mean.len()], &regression.mean);
                tensor("std", vec![regression.std.len()], &regression.std);
            }
        }
    }
    tensors
}

impl TableHeader {
    /// The headers of the members, and their record together.
    pub(super) fn take_members(&mut self) -> (Vec<Header>, Option<TrainingRecord>) {
        (std::mem::take(&mut self.members), self.together.take())
    }

    fn columns(&self) -> Parsed<Vec<TableColumn>> {
        let columns: Vec<TableColumn> =
            self.columns.iter().map(StoredColumn::column).collect::<Parsed<_>>()?;
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        if let Some([first, second]) = repeated(&names) {
            let (first, second, name) = (first + 1, second + 1, shown(&names[first]));
            return Err(format!("its columns {first} and {second} are both named `{name}`"));
        }
        if self.context >= columns.len() {
            return Err(format!("it has {} columns, {} of them context", columns.len(), self.context));
        }
        Ok(columns)
    }

    /// How many numbers each conditional has in its tensors.
    fn sizes(&self) -> Parsed<Vec<usize>> {
        let encoding = Encoding::new(&self.columns()?, self.context);
        let (levels, modelled) = (encoding.levels(), encoding.modelled_categories().count());
        if self.discrete.len() != modelled {
            return Err(format!("it has {} conditionals of {modelled} categories", self.discrete.len()));
        }
        let numbers = encoding.given_numbers().len();
        let size = |(variable, link): (usize, &StoredLink)| match link {
            StoredLink::Table { parents } => {
                if parents.iter().any(|place| *place >= levels.len()) {
                    return Err(format!("category {} depends on one that is not there", variable + 1));
                }
                Ok(cells(&levels, variable, parents))
            }
            StoredLink::Regression => {
                Ok(levels[variable] * inputs(&levels, modelled, numbers, variable) + 2 * numbers)
            }
        };
        let sizes: Vec<usize> = self.discrete.iter().enumerate().map(size).collect::<Parsed<_>>()?;
        match self
            .discrete
            .iter()
            .zip(&sizes)
            .find(|(link, size)| matches!(link, StoredLink::Table { .. }) && **size > MOST_CELLS)
        {
            Some((_, size)) => {
                Err(format!("it has a table of {size} probabilities, expected at most {MOST_CELLS}"))
            }
            None => Ok(sizes),
        }
    }

    /// Bytes of the conditionals' tensors.
    pub(super) fn bytes(&self) -> Parsed<u128> {
        Ok(self.sizes()?.into_iter().map(|size| 8 * size as u128).sum())
    }

    /// The conditionals, where there are any, and the number of their tensors.
    pub(super) fn read_discrete(&self, tensors: &Tensors) -> Parsed<(Option<Discrete>, usize)> {
        let encoding = Encoding::new(&self.columns()?, self.context);
        let (levels, modelled) = (encoding.levels(), encoding.modelled_categories().count());
        let numbers = encoding.given_numbers().len();
        let sizes = self.sizes()?;
        let (mut links, mut count) = (Vec::with_capacity(modelled), 0);
        for (variable, (link, size)) in self.discrete.iter().zip(sizes).enumerate() {
            let own = levels[variable];
            let read =
                |name: &str, shape: &[usize]| tensors.f64(&format!("discrete.{variable}.{name}"), shape);
            links.push(match link {
                StoredLink::Table { parents } => {
                    count += 1;
                    let probabilities = read("probabilities", &[size / own, own])?;
                    Link::Table(ConditionalTable { parents: parents.clone(), probabilities })
                }
                StoredLink::Regression => {
                    count += 3;
                    Link::Regression(Regression {
                        weights: read("weights", &[own, (size - 2 * numbers) / own])?,
                        mean: read("mean", &[numbers])?,
                        std: read("std", &[numbers])?,
                    })
                }
            });
        }
        if modelled == 0 {
            return Ok((None, 0));
        }
        let discrete =
            Discrete::of_links(levels, modelled, numbers, links).map_err(|error| error.to_string())?;
        Ok((Some(discrete), count))
    }

    /// The model of these parts.
    pub(super) fn model(self, discrete: Option<Discrete>, density: Option<Ensemble>) -> Parsed<TableModel> {
        let columns = self.columns()?;
        TableModel::new(columns, self.context, discrete, density, self.training)
            .map_err(|error| error.to_string())
    }
}
