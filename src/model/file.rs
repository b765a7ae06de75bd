//! The model file: safetensors with one JSON entry, `moonflow`, in its metadata.
//!
//! Weights, biases and masks are `F32`, the standardiser is `F64`; names and shapes are those of [`Layout`], plus
//! `transforms.{i}.mask` `[D]` and `standardiser.mean`, `standardiser.std` `[D]`. The domains of columns are in the JSON,
//! which calls them `steps`; the whitening after the standardiser is `standardiser.whitening` `[D, D]`. A file has version 2
//! when there are any of these or a context, else version 1; and version 3 when columns are gaussianised, by
//! `standardiser.johnson` `[D, 4]` and, after a whitening, `standardiser.whitened_johnson` `[D, 4]`, a row ξ, λ, γ, δ
//! for each column. Version 4 has a flow that is a list of transforms, in the JSON, and the tensors of each. Version 5 has
//! `standardiser.kernel` and, after a whitening, `standardiser.whitened_kernel` `[K, 3]`: place, score and slope of each
//! knot of the curves that follow Johnson's, column by column; the JSON has their number for each column. Version 6 is an
//! ensemble: its JSON has that of each member, of an earlier version, in `members`, and the members' tensors begin with
//! `members.{k}.`. Version 7 has dequantised columns whose values are not whole numbers, by step and offset in `steps`, and
//! `atoms` of columns; an ensemble of such models has version 7 too. Version 8 is a table with categories
//! ([`table_file`](super::table_file)). Version 9 has `category_moments`: the mean and deviation of columns for each level
//! of a category; a table or an ensemble of such models has version 9 too. Beside the JSON there is the checksum of
//! [`container`](super::container). The bytes depend on the model alone, so equal models are equal files.

use std::path::Path;

use safetensors::tensor::Metadata;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::container::{Container, Parsed, StoredTensor, Tensors, Version, entry, serialise};
use super::preprocessing::{
    knot_counts, read_curves, read_kernel, read_standardiser, read_whitening, stored,
};
use super::table_file::{TABLE_VERSION, TableHeader};
use super::{Ensemble, Model, TableModel, TrainingRecord};
use crate::data::{
    Atoms, CategoryMoments, ColumnDomain, Grid, MonotoneCurve, Preprocessing, Standardise, repeated,
};
use crate::error::{Error, Result};
use crate::flow::Flow;
use crate::layout::Layout;
use crate::shown::shown;

/// The newest version of the file's format. It grows when an older reader would misread a file: version 2 has maps
/// before the standardiser, a whitening after it, or a context; version 3 has curves that gaussianise columns; version 4
/// has a flow that is a list of transforms; version 5 has curves by kernel densities; version 6 is an ensemble; version 7
/// has columns on a grid of other than whole numbers, or with atoms; version 8 has categories; version 9 has columns that are
/// shifted and scaled by them.
pub const FORMAT_VERSION: u32 = 9;

/// The metadata entry that holds the [`Header`].
pub(super) const ENTRY: &str = "moonflow";

/// The version of a file that holds several models, where none of them needs a later one.
const ENSEMBLE_VERSION: u32 = 6;

/// The version of a file with columns on a grid of other than whole numbers, or with atoms.
const GRID_VERSION: u32 = 7;

/// The version of a file with columns that are shifted and scaled by a category.
const MOMENTS_VERSION: u32 = 9;

/// What the tensors do not say of a model.
#[derive(Serialize, Deserialize)]
pub(super) struct Header {
    format_version: u32,
    pub(super) flow: Flow,
    pub(super) columns: Vec<String>,
    /// Of version 2: what is done to each column before it is standardised.
    #[serde(default, rename = "steps", skip_serializing_if = "Vec::is_empty")]
    domains: Vec<ColumnDomain>,
    /// Of version 7: values of columns that have probabilities of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    atoms: Vec<Atoms>,
    /// Of version 9: mean and deviation of columns for each level of a category.
    #[serde(default, skip_serializing_if = "is_default")]
    category_moments: CategoryMoments,
    /// How the standardiser was fitted, and of version 2 whether there is a whitening.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) standardise: Standardise,
    /// Of version 3: whether there are curves.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(super) gaussianise: bool,
    /// Of version 5: how many knots the curve of each column has, for the curves of standardised columns and, after a
    /// whitening, for those of whitened columns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) kernel_knots: Vec<Vec<usize>>,
    training: TrainingRecord,
}

/// Whether the column lies on a grid that is not the whole numbers.
fn has_other_grid(domain: &ColumnDomain) -> bool {
    domain.grid.is_some_and(|grid| grid != Grid::WHOLE)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// What the tensors do not say of an ensemble.
#[derive(Serialize, Deserialize)]
struct EnsembleHeader {
    format_version: u32,
    members: Vec<Header>,
    /// The training of all members together.
    training: TrainingRecord,
}

/// Whether there are members, and categories.
#[derive(Deserialize)]
struct Kind {
    members: Option<IgnoredAny>,
    discrete: Option<IgnoredAny>,
}

/// What the names of a member's tensors begin with.
pub(super) fn prefix(member: usize) -> String {
    format!("members.{member}.")
}

impl Model {
    /// The version of the format that its file has: the oldest that can hold it.
    pub fn format_version(&self) -> u32 {
        let Preprocessing { domains, atoms, category_moments, whitening, context, kernel, .. } =
            &self.preprocessing;
        if !category_moments.columns.is_empty() {
            return MOMENTS_VERSION;
        }
        if domains.iter().any(has_other_grid) || !atoms.is_empty() {
            return GRID_VERSION;
        }
        if !kernel.is_empty() {
            return 5;
        }
        if !self.flow.is_uniform() {
            return 4;
        }
        if self.preprocessing.is_gaussianised() {
            return 3;
        }
        if self.preprocessing.is_plain() && whitening.is_none() && *context == 0 { 1 } else { 2 }
    }

    /// The model as the bytes of its file.
    ///
    /// # Panics
    /// When [`Model::parameters`] has fewer numbers than the flow.
    pub fn to_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_string(&self.header()).expect("invariant: a header is plain data");
        serialise(self.tensors(), ENTRY, &json)
    }

    pub(super) fn header(&self) -> Header {
        Header {
            format_version: self.format_version(),
            flow: self.flow.clone(),
            columns: self.columns.clone(),
            domains: if self.format_version() == 1 { Vec::new() } else { self.preprocessing.domains.clone() },
            atoms: self.preprocessing.atoms.clone(),
            category_moments: self.preprocessing.category_moments.clone(),
            standardise: self.preprocessing.standardise,
            gaussianise: self.preprocessing.is_gaussianised(),
            kernel_knots: knot_counts(&self.preprocessing),
            training: self.record.clone(),
        }
    }

    pub(super) fn tensors(&self) -> Vec<StoredTensor> {
        let mut tensors = Vec::new();
        for tensor in Layout::new(&self.flow).tensors {
            tensors.push(StoredTensor::f32(
                tensor.name.clone(),
                tensor.shape.clone(),
                &self.parameters[tensor.range()],
            ));
        }
        for (name, values) in constants(&self.flow) {
            tensors.push(StoredTensor::f32(name, vec![values.len()], &values));
        }
        tensors.extend(stored(&self.preprocessing));
        tensors
    }

    /// The model in the bytes of a model file. `name` is used in messages.
    ///
    /// # Errors
    /// [`Error::Model`] that says what is wrong: truncated, foreign, from a newer format, a tensor that is missing,
    /// misshaped, not finite or there twice, a mask that is not 0 or 1, a deviation that is no positive normal number, two
    /// columns of one name, another checksum than the contents', or parts that contradict each other.
    pub fn from_bytes(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        Ensemble::from_bytes(name.as_ref(), bytes)?.only(name.as_ref())
    }
}

impl Ensemble {
    /// The version of the format that its file has: the oldest that can hold it.
    pub fn format_version(&self) -> u32 {
        let versions = self.members.iter().map(Model::format_version);
        match self.members.len() {
            1 => self.first().format_version(),
            _ => versions.fold(ENSEMBLE_VERSION, u32::max),
        }
    }

    /// The ensemble as the bytes of its file; that of a single model is the model's own.
    ///
    /// # Panics
    /// As [`Model::to_bytes`].
    pub fn to_bytes(&self) -> Vec<u8> {
        if let [only] = self.members.as_slice() {
            return only.to_bytes();
        }
        let header = EnsembleHeader {
            format_version: self.format_version(),
            members: self.members.iter().map(Model::header).collect(),
            training: self.record().clone(),
        };
        let json = serde_json::to_string(&header).expect("invariant: a header is plain data");
        let tensors = self.members.iter().enumerate().flat_map(|(index, member)| {
            member.tensors().into_iter().map(move |tensor| tensor.behind(&prefix(index)))
        });
        serialise(tensors.collect(), ENTRY, &json)
    }

    /// The ensemble in the bytes of a model file, of any version. `name` is used in messages.
    ///
    /// # Errors
    /// Those of [`Model::from_bytes`], and of [`Ensemble::average`].
    pub fn from_bytes(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        let no_ensemble = "it has categories; read it as a table's model, with `TableModel::load`";
        parse(bytes)
            .and_then(|model| model.into_ensemble().ok_or_else(|| no_ensemble.to_owned()))
            .map_err(|message| Error::Model { path: name.as_ref().to_owned(), message })
    }

    /// The single member of the ensemble that `path` holds.
    fn only(mut self, path: &Path) -> Result<Model> {
        match self.members.len() {
            1 => Ok(self.members.remove(0)),
            members => Err(Error::Model {
                path: path.to_owned(),
                message: format!(
                    "it is an ensemble of {members} models; read it as one, with `Ensemble::load`"
                ),
            }),
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Ensemble {
    /// Writes the model file. Either the whole file is there afterwards or what was there before.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let bytes = self.to_bytes();
        crate::files::write_atomically(path.as_ref(), |writer| writer.write_all(&bytes))
    }

    /// Reads a model file of any version. No more is read than models of what its header says can have.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read or is no regular one, and those of [`Ensemble::from_bytes`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes(path.as_ref(), &read(path.as_ref())?)
    }
}

/// The bytes of a model file, no more than models of what its header says can have.
#[cfg(not(target_arch = "wasm32"))]
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let damaged = |message| Error::Model { path: path.to_owned(), message };
    super::container::read(path, |metadata| Headers::read(metadata).map(drop), damaged)
}

#[cfg(not(target_arch = "wasm32"))]
impl Model {
    /// Writes the model file. Either the whole file is there afterwards or what was there before.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let bytes = self.to_bytes();
        crate::files::write_atomically(path.as_ref(), |writer| writer.write_all(&bytes))
    }

    /// Reads a model file that holds a single model, as [`Ensemble::load`].
    ///
    /// # Errors
    /// Those of [`Ensemble::load`]; [`Error::Model`] when the file holds several models.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Ensemble::load(path.as_ref())?.only(path.as_ref())
    }
}

/// The tensors that say what a flow is beside its parameters: the masks of couplings `[D]`. They repeat the JSON for readers
/// that have only tensors.
fn constants(flow: &Flow) -> Vec<(String, Vec<f32>)> {
    let transforms = flow.transforms.iter().enumerate();
    transforms
        .filter_map(|(index, transform)| {
            let mask = &transform.coupling()?.mask;
            let values = mask.iter().map(|&kept| f32::from(u8::from(kept))).collect();
            Some((format!("transforms.{index}.mask"), values))
        })
        .collect()
}

/// What the JSON of a file says, whatever its version.
struct Headers {
    members: Vec<Header>,
    /// Of an ensemble.
    training: Option<TrainingRecord>,
    /// Of a table with categories.
    table: Option<TableHeader>,
}

impl Headers {
    /// The headers, of a version that is known, and flows of a size that the file can hold.
    fn read(metadata: &Metadata) -> Parsed<Self> {
        let Version { format_version } = entry(metadata, ENTRY)?.ok_or_else(|| {
            format!("it is a safetensors file, but no moonflow model: its metadata has no entry `{ENTRY}`")
        })?;
        if format_version > FORMAT_VERSION {
            return Err(format!(
                "it has format version {format_version}, and this moonflow reads up to version {FORMAT_VERSION}; update \
                 moonflow"
            ));
        }
        if format_version == 0 {
            return Err("its format version is 0, which never existed".into());
        }
        let there = "invariant: the entry was read above";
        // What a file holds is known by its version up to version 8, and by its parts after that.
        let kind: Option<Kind> =
            if format_version > ENSEMBLE_VERSION { entry(metadata, ENTRY)? } else { None };
        let has =
            |part: fn(&Kind) -> &Option<IgnoredAny>| kind.as_ref().is_some_and(|kind| part(kind).is_some());
        let is_table =
            format_version == TABLE_VERSION || (format_version > TABLE_VERSION && has(|kind| &kind.discrete));
        let headers = if is_table {
            let mut table: TableHeader = entry(metadata, ENTRY)?.expect(there);
            let (members, training) = table.take_members();
            Self { members, training, table: Some(table) }
        } else if format_version == ENSEMBLE_VERSION || has(|kind| &kind.members) {
            let EnsembleHeader { members, training, .. } = entry(metadata, ENTRY)?.expect(there);
            Self { members, training: Some(training), table: None }
        } else {
            Self { members: vec![entry(metadata, ENTRY)?.expect(there)], training: None, table: None }
        };
        headers.check_members()?;
        headers.check_size(metadata.data_len())?;
        Ok(headers)
    }

    fn check_members(&self) -> Parsed<()> {
        if self.training.is_some() && !(2..=Ensemble::MOST).contains(&self.members.len()) {
            let (count, most) = (self.members.len(), Ensemble::MOST);
            return Err(format!("it is an ensemble of {count} members, expected 2 to {most}"));
        }
        if self.training.is_none() && self.members.len() > 1 {
            return Err(format!("it has {} members and no record of them together", self.members.len()));
        }
        for header in &self.members {
            let version = header.format_version;
            let of_a_model = [1, 2, 3, 4, 5, GRID_VERSION, MOMENTS_VERSION].contains(&version);
            if (self.training.is_some() || self.table.is_some()) && !of_a_model {
                return Err(format!("a member of it has format version {version}, expected 1 to 5, 7 or 9"));
            }
            header.flow.validate().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// That the flows' tensors need about `bytes` bytes. Layouts follow from a few numbers of the headers, so these are
    /// held against the file before any is made.
    fn check_size(&self, bytes: usize) -> Parsed<()> {
        let discrete = self.table.as_ref().map_or(Ok(0), TableHeader::bytes)?;
        let needed: u128 = self.members.iter().map(|header| 4 * header.flow.parameter_count()).sum();
        let needed = needed + discrete;
        if needed > SMALL.max(bytes as u128) {
            return Err(format!("its flow needs {needed} bytes of parameters, but its tensors have {bytes}"));
        }
        let most = needed + self.members.iter().map(Header::other_bytes).sum::<u128>();
        if bytes as u128 > most + SMALL {
            return Err(format!("its tensors have {bytes} bytes, but its flow needs {most} at most"));
        }
        Ok(())
    }
}

impl Header {
    /// Most bytes of the tensors besides the flow's parameters.
    fn other_bytes(&self) -> u128 {
        let features = self.flow.features as u128;
        let factor = if self.standardise == Standardise::Whiten { 8 * features * features } else { 0 };
        let knots = self
            .kernel_knots
            .iter()
            .flatten()
            .map(|&knots| 3 * 8 * knots.min(MonotoneCurve::MOST_KNOTS) as u128)
            .sum::<u128>();
        let columns = features * (4 * self.flow.transforms.len() as u128 + 8 * (2 + 2 * 4));
        columns + factor + knots
    }
}

impl Header {
    /// That a list of transforms, gaussianised columns or kernel densities are in a file of a version that has them.
    fn check_version_of_parts(&self) -> Parsed<()> {
        let version = self.format_version;
        if version < 4 && !self.flow.is_uniform() {
            return Err(format!("it has format version {version}, but a list of transforms"));
        }
        if version < 3 && self.gaussianise {
            return Err(format!("it has format version {version}, but gaussianised columns"));
        }
        if version < 5 && !self.kernel_knots.is_empty() {
            return Err(format!("it has format version {version}, but curves by kernel densities"));
        }
        if version < GRID_VERSION && self.domains.iter().any(has_other_grid) {
            return Err(format!("it has format version {version}, but columns on a grid of its own"));
        }
        if version < GRID_VERSION && !self.atoms.is_empty() {
            return Err(format!("it has format version {version}, but atoms of columns"));
        }
        if version < MOMENTS_VERSION && !self.category_moments.columns.is_empty() {
            return Err(format!("it has format version {version}, but moments by category"));
        }
        Ok(())
    }

    /// That there is a name for each feature, and none twice.
    fn check_columns(&self) -> Parsed<()> {
        let (columns, features) = (&self.columns, self.flow.features);
        if columns.len() != features {
            return Err(format!("it names {} columns, but its flow has {features} features", columns.len()));
        }
        match repeated(columns) {
            Some([first, second]) => Err(format!(
                "its columns {} and {} are both named `{}`",
                first + 1,
                second + 1,
                shown(&columns[first])
            )),
            None => Ok(()),
        }
    }

    /// The domain of each column `[D]`, which a file of version 1 does not have.
    fn domains_of_columns(&self) -> Parsed<Vec<ColumnDomain>> {
        let features = self.flow.features;
        if self.format_version == 1 && (self.standardise == Standardise::Whiten || self.flow.context > 0) {
            return Err("it has format version 1, but a whitening or a context".into());
        }
        let domains = match (self.format_version, self.domains.len()) {
            (1, 0) => vec![ColumnDomain::default(); features],
            (1, _) => return Err("it has format version 1, but maps before its standardiser, `steps`".into()),
            (_, length) if length == features => self.domains.clone(),
            (_, length) => {
                return Err(format!(
                    "it has `steps` of {length} columns, but its flow has {features} features"
                ));
            }
        };
        for (domain, name) in domains.iter().zip(&self.columns) {
            domain.validate(name).map_err(|error| error.to_string())?;
        }
        Ok(domains)
    }
}

/// Bytes up to which a layout is made without a look at the file's size, and more than needed let pass. Below it, a tensor
/// that is not there or of no use can be named.
const SMALL: u128 = 1 << 20;

/// The model in the bytes of a file of any version.
pub(super) fn parse(bytes: &[u8]) -> Parsed<TableModel> {
    let container = Container::new(bytes)?;
    let Headers { members: headers, training, table } = Headers::read(&container.metadata)?;
    container.verify(ENTRY)?;
    let (mut members, mut known) = (Vec::with_capacity(headers.len()), 0);
    for (index, header) in headers.into_iter().enumerate() {
        let several = training.is_some() || table.is_some();
        let prefix = if several { prefix(index) } else { String::new() };
        let tensors = container.tensors(&prefix);
        members.push(member(&tensors, header)?);
        known += tensors.count();
    }
    let all = container.tensors("");
    let discrete = table.as_ref().map(|table| table.read_discrete(&all)).transpose()?;
    known += discrete.as_ref().map_or(0, |(_, tensors)| *tensors);
    check_count(all.count(), known)?;
    let ensemble = match training {
        None => members.pop().map(Ensemble::from),
        Some(training) => Some(Ensemble::with_record(members, training).map_err(|error| error.to_string())?),
    };
    match (table, discrete, ensemble) {
        (Some(table), Some((discrete, _)), ensemble) => table.model(discrete, ensemble),
        (_, _, Some(ensemble)) => Ok(ensemble.into()),
        _ => Err("it has no member".into()),
    }
}

/// The model that `header` tells of, which all of `tensors` are of.
fn member(tensors: &Tensors, header: Header) -> Parsed<Model> {
    let layout = Layout::new(&header.flow);
    let standardiser = read_standardiser(tensors, header.flow.features)?;
    let constants = check_constants(tensors, &header.flow)?;
    let parameters = read_parameters(tensors, &layout)?;
    let whitening = read_whitening(tensors, &header)?;
    header.check_version_of_parts()?;
    let [curves, whitened_curves] = read_curves(tensors, &header)?;
    let optional = [whitening.is_some(), !curves.is_empty(), !whitened_curves.is_empty()];
    let optional = optional.into_iter().filter(|&there| there).count() + header.kernel_knots.len();
    // Besides these, mean and deviation of the standardiser.
    check_count(tensors.count(), layout.tensors.len() + constants + 2 + optional)?;
    header.check_columns()?;
    let [kernel, whitened_kernel] = read_kernel(tensors, &header)?;
    let domains = header.domains_of_columns()?;
    Atoms::validate(&header.atoms, &domains, &header.columns, header.flow.context)
        .map_err(|error| error.to_string())?;
    header
        .category_moments
        .validate(&domains, &header.atoms, &header.columns, header.flow.context)
        .map_err(|error| error.to_string())?;
    let Header { flow, columns, standardise, atoms, category_moments, training: record, .. } = header;
    let context = flow.context;
    let preprocessing = Preprocessing {
        domains,
        standardise,
        standardiser,
        category_moments,
        whitening,
        curves,
        kernel,
        whitened_curves,
        whitened_kernel,
        context,
        atoms,
    };
    Ok(Model { flow, parameters, preprocessing, columns, record })
}

/// That the tensors which repeat the JSON say the same; gives their number.
fn check_constants(tensors: &Tensors, flow: &Flow) -> Parsed<usize> {
    let constants = constants(flow);
    for (name, want) in &constants {
        let values = tensors.f32(name, &[want.len()])?;
        if name.ends_with(".mask")
            && let Some(value) = values.iter().find(|&&value| value != 0.0 && value != 1.0)
        {
            return Err(format!("tensor `{name}` must hold 0 and 1 only, got {value}"));
        }
        if values != *want {
            return Err(format!("tensor `{name}` contradicts the flow in the metadata"));
        }
    }
    Ok(constants.len())
}

/// Flat parameters `[P]`.
fn read_parameters(tensors: &Tensors, layout: &Layout) -> Parsed<Vec<f32>> {
    let mut parameters = vec![0.0; layout.total];
    for tensor in &layout.tensors {
        parameters[tensor.range()].copy_from_slice(&tensors.f32(&tensor.name, &tensor.shape)?);
    }
    Ok(parameters)
}

/// That of `there` tensors all are `known`.
fn check_count(there: usize, known: usize) -> Parsed<()> {
    if there == known {
        return Ok(());
    }
    Err(format!("it has {there} tensors, but its flow has {known}; it may come from another program"))
}
