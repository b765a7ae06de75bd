//! The model file: safetensors with one JSON entry, `moonflow`, in its metadata.
//!
//! Weights, biases and masks are `F32`, the standardiser is `F64`; names and shapes are those of
//! [`Layout`], plus `transforms.{i}.mask` `[D]` and `standardiser.mean`, `standardiser.std` `[D]`. The steps before the
//! standardiser are in the JSON, and the whitening behind it is `standardiser.whitening` `[D, D]`. A file has version 2
//! when there are any of these or a context, else version 1; and version 3 when columns are gaussianised, by
//! `standardiser.johnson` `[D, 4]` and, behind a whitening, `standardiser.whitened_johnson` `[D, 4]`, a row ξ, λ, γ, δ
//! for each column. Version 4 has a flow that is a list of transforms, in the JSON, and the tensors of each. The bytes depend
//! on the model alone, so equal models are equal files.

use std::collections::HashMap;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use serde::{Deserialize, Serialize};

use super::{Model, TrainingRecord};
use crate::data::{Johnson, Preprocessing, Standardise, Standardiser, Steps, Whitening};
use crate::error::{Error, Result};
use crate::flow::Flow;
use crate::layout::Layout;

/// The newest version of the file's format. It grows when an older reader would misread a file: version 2 has steps
/// before the standardiser, a whitening behind it, or a context; version 3 has curves that gaussianise columns; version 4
/// has a flow that is a list of transforms.
pub const FORMAT_VERSION: u32 = 4;

/// The metadata entry that holds the [`Header`].
const ENTRY: &str = "moonflow";

/// Name of the whitening's factor.
const WHITENING: &str = "standardiser.whitening";

/// Names of the curves of standardised and of whitened columns.
const CURVES: [&str; 2] = ["standardiser.johnson", "standardiser.whitened_johnson"];

/// Bytes before the safetensors header: its length as a little-endian `u64`.
const LENGTH_BYTES: usize = 8;

/// The part of the header that every version has.
#[derive(Serialize, Deserialize)]
struct Version {
    format_version: u32,
}

/// What the tensors do not say.
#[derive(Serialize, Deserialize)]
struct Header {
    format_version: u32,
    flow: Flow,
    columns: Vec<String>,
    /// Of version 2: what is done to each column before it is standardised.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    steps: Vec<Steps>,
    /// How the standardiser was fitted, and of version 2 whether there is a whitening.
    #[serde(default, skip_serializing_if = "is_default")]
    standardise: Standardise,
    /// Of version 3: whether there are curves.
    #[serde(default, skip_serializing_if = "is_default")]
    gaussianise: bool,
    training: TrainingRecord,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Model {
    /// The version of the format that its file has: the oldest that can hold it.
    pub fn format_version(&self) -> u32 {
        let Preprocessing { whitening, context, .. } = &self.preprocessing;
        if !self.flow.is_uniform() {
            return 4;
        }
        if self.preprocessing.is_gaussianised() {
            return 3;
        }
        if self.preprocessing.is_plain() && whitening.is_none() && *context == 0 { 1 } else { 2 }
    }

    /// The model as the bytes of its file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let header = Header {
            format_version: self.format_version(),
            flow: self.flow.clone(),
            columns: self.columns.clone(),
            steps: if self.format_version() == 1 { Vec::new() } else { self.preprocessing.steps.clone() },
            standardise: self.preprocessing.standardise,
            gaussianise: self.preprocessing.is_gaussianised(),
            training: self.record.clone(),
        };
        let standardiser = &self.preprocessing.standardiser;
        let json = serde_json::to_string(&header).expect("invariant: a header is plain data");

        let mut tensors = Vec::new();
        for tensor in Layout::new(&self.flow).tensors {
            tensors.push(Tensor::f32(
                tensor.name.clone(),
                tensor.shape.clone(),
                &self.parameters[tensor.range()],
            ));
        }
        for (name, values) in constants(&self.flow) {
            tensors.push(Tensor::f32(name, vec![values.len()], &values));
        }
        for (name, values) in [("mean", &standardiser.mean), ("std", &standardiser.std)] {
            tensors.push(Tensor::f64(format!("standardiser.{name}"), vec![values.len()], values));
        }
        if let Some(whitening) = &self.preprocessing.whitening {
            let features = whitening.features();
            tensors.push(Tensor::f64(WHITENING, vec![features, features], whitening.factor()));
        }
        let Preprocessing { curves, whitened_curves, .. } = &self.preprocessing;
        for (name, curves) in CURVES.into_iter().zip([curves, whitened_curves]) {
            if !curves.is_empty() {
                let numbers: Vec<f64> = curves.iter().flat_map(Johnson::numbers).collect();
                tensors.push(Tensor::f64(name, vec![curves.len(), 4], &numbers));
            }
        }
        serialise(&tensors, ENTRY, json)
    }

    /// The model in the bytes of a model file. `name` is used in messages.
    ///
    /// # Errors
    /// [`Error::Model`] that says what is wrong: truncated, foreign, from a newer format, a tensor that is missing,
    /// misshaped or not finite, a mask that is not 0 or 1, or parts that contradict each other.
    pub fn from_bytes(name: impl AsRef<Path>, bytes: &[u8]) -> Result<Self> {
        parse(bytes).map_err(|message| Error::Model { path: name.as_ref().to_owned(), message })
    }
}

#[cfg(not(target_arch = "wasm32"))]
impl Model {
    /// Writes the model file. Either the whole file is there afterwards or what was there before.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let bytes = self.to_bytes();
        crate::data::write_atomically(path.as_ref(), |writer| writer.write_all(&bytes))
    }

    /// Reads a model file.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, and those of [`Model::from_bytes`].
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|source| Error::io(path, source))?;
        Self::from_bytes(path, &bytes)
    }
}

/// A tensor on its way into a file.
pub(crate) struct Tensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    pub(crate) fn f32(name: impl Into<String>, shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F32, shape, bytes }
    }

    pub(crate) fn f64(name: impl Into<String>, shape: Vec<usize>, values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F64, shape, bytes }
    }
}

/// A safetensors file of `tensors` with `json` as the metadata's `entry`.
pub(crate) fn serialise(tensors: &[Tensor], entry: &str, json: String) -> Vec<u8> {
    let views = tensors.iter().map(|tensor| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes)
            .expect("invariant: shapes match lengths");
        (tensor.name.as_str(), view)
    });
    // A single entry, because a map of several would be written in an order that changes from run to run.
    safetensors::serialize(views, Some(HashMap::from([(entry.to_owned(), json)])))
        .expect("invariant: the header fits a safetensors file")
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

/// Result whose error says what is wrong with a file.
pub(crate) type Parsed<T> = std::result::Result<T, String>;

fn parse(bytes: &[u8]) -> Parsed<Model> {
    let (metadata, data) = split(bytes)?;
    let json = metadata.metadata().as_ref().and_then(|entries| entries.get(ENTRY)).ok_or_else(|| {
        format!("it is a safetensors file, but no moonflow model: its metadata has no entry `{ENTRY}`")
    })?;
    let version: Version = header_json(ENTRY, json)?;
    if version.format_version > FORMAT_VERSION {
        return Err(format!(
            "it has format version {}, and this moonflow reads up to version {FORMAT_VERSION}; update moonflow",
            version.format_version
        ));
    }
    if version.format_version == 0 {
        return Err("its format version is 0, which never existed".into());
    }
    let Header { flow, columns, steps, standardise, gaussianise, training, .. } = header_json(ENTRY, json)?;
    flow.validate().map_err(|error| error.to_string())?;
    let tensors = Tensors { metadata: &metadata, data };
    // The layout's size follows from a few numbers of the header: hold it against the file before it is made.
    let layout = layout_within(&flow, data.len())?;

    let features = flow.features;
    let standardiser = Standardiser {
        mean: tensors.f64("standardiser.mean", &[features])?,
        std: tensors.f64("standardiser.std", &[features])?,
    };
    if let Some(feature) = standardiser.std.iter().position(|&std| std <= 0.0) {
        return Err(format!(
            "tensor `standardiser.std` must be positive, got {} at {feature}",
            standardiser.std[feature]
        ));
    }
    let constants = constants(&flow);
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
    let mut parameters = vec![0.0; layout.total];
    for tensor in &layout.tensors {
        parameters[tensor.range()].copy_from_slice(&tensors.f32(&tensor.name, &tensor.shape)?);
    }
    let whitening = match standardise {
        Standardise::Mean | Standardise::Robust => None,
        Standardise::Whiten => {
            let factor = tensors.f64(WHITENING, &[features, features])?;
            let fail = |error: Error| format!("tensor `{WHITENING}`: {error}");
            Some(Whitening::from_factor(factor, features).map_err(fail)?)
        }
    };
    if version.format_version < 4 && !flow.is_uniform() {
        return Err(format!("it has format version {}, but a list of transforms", version.format_version));
    }
    if version.format_version < 3 && gaussianise {
        return Err(format!("it has format version {}, but gaussianised columns", version.format_version));
    }
    let curves = if gaussianise { johnson_curves(&tensors, CURVES[0], features)? } else { Vec::new() };
    let whitened_curves = if gaussianise && whitening.is_some() {
        johnson_curves(&tensors, CURVES[1], features)?
    } else {
        Vec::new()
    };
    let optional = [whitening.is_some(), !curves.is_empty(), !whitened_curves.is_empty()];
    let known =
        layout.tensors.len() + constants.len() + 2 + optional.into_iter().filter(|&there| there).count();
    if metadata.offset_keys().len() != known {
        return Err(format!(
            "it has {} tensors, but its flow has {known}; it may come from another program",
            metadata.offset_keys().len()
        ));
    }
    if columns.len() != features {
        return Err(format!("it names {} columns, but its flow has {features} features", columns.len()));
    }
    if version.format_version == 1 && (whitening.is_some() || flow.context > 0) {
        return Err("it has format version 1, but a whitening or a context".into());
    }
    let steps = match (version.format_version, steps.len()) {
        (1, 0) => vec![Steps::default(); features],
        (1, _) => return Err("it has format version 1, but steps before its standardiser".into()),
        (_, length) if length == features => steps,
        (_, length) => {
            return Err(format!("it has steps of {length} columns, but its flow has {features} features"));
        }
    };
    for (steps, name) in steps.iter().zip(&columns) {
        steps.validate(name).map_err(|error| error.to_string())?;
    }
    let context = flow.context;
    let preprocessing =
        Preprocessing { steps, standardise, standardiser, whitening, curves, whitened_curves, context };
    Ok(Model { flow, parameters, preprocessing, columns, record: training })
}

/// The curves `[D]` of the tensor `name` `[D, 4]`.
fn johnson_curves(tensors: &Tensors, name: &str, features: usize) -> Parsed<Vec<Johnson>> {
    let numbers = tensors.f64(name, &[features, 4])?;
    let curve = |numbers: &[f64; 4]| Johnson::from_numbers(*numbers);
    let curves: Result<Vec<Johnson>> = numbers.as_chunks::<4>().0.iter().map(curve).collect();
    curves.map_err(|error| format!("tensor `{name}`: {error}"))
}

/// The safetensors header and the bytes behind it.
///
/// `SafeTensors::deserialize` adds lengths that a header may lie about without checking for overflow; this does not.
pub(crate) fn split(bytes: &[u8]) -> Parsed<(Metadata, &[u8])> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let foreign = "it is not a safetensors file, or only the beginning of one";
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| {
        format!("{foreign}: {} bytes are fewer than the {LENGTH_BYTES} of a header length", bytes.len())
    })?;
    let length = u64::from_le_bytes(*length);
    let Some((header, data)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length))
    else {
        return Err(format!("{foreign}: its header claims {length} bytes, {} are there", rest.len()));
    };
    let metadata: Metadata = serde_json::from_slice(header)
        .map_err(|error| format!("{foreign}: its header is invalid: {error}"))?;
    if metadata.data_len() != data.len() {
        return Err(format!(
            "it is truncated or damaged: its tensors claim {} bytes, {} are there",
            metadata.data_len(),
            data.len()
        ));
    }
    Ok((metadata, data))
}

/// The JSON of the metadata's `entry`.
pub(crate) fn header_json<'a, T: Deserialize<'a>>(entry: &str, json: &'a str) -> Parsed<T> {
    serde_json::from_str(json).map_err(|error| format!("its metadata entry `{entry}` is invalid: {error}"))
}

/// Bytes of parameters up to which a layout is made without a look at the file's size. Below it, a tensor that is
/// not there can be named.
const SMALL: u128 = 1 << 20;

/// The layout of `flow`, refused when its parameters need much more than `bytes` bytes.
fn layout_within(flow: &Flow, bytes: usize) -> Parsed<Layout> {
    let needed = 4 * flow.parameter_count();
    if needed > SMALL.max(bytes as u128) {
        return Err(format!("its flow needs {needed} bytes of parameters, but its tensors have {bytes}"));
    }
    Ok(Layout::new(flow))
}

/// Access to tensors by name, checked for type, shape and finite values.
pub(crate) struct Tensors<'a> {
    pub(crate) metadata: &'a Metadata,
    pub(crate) data: &'a [u8],
}

impl Tensors<'_> {
    pub(crate) fn f32(&self, name: &str, shape: &[usize]) -> Parsed<Vec<f32>> {
        let bytes = self.bytes(name, Dtype::F32, shape)?;
        let (words, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(format!("tensor `{name}` is not finite: {} at {index}", values[index])),
            None => Ok(values),
        }
    }

    pub(crate) fn f64(&self, name: &str, shape: &[usize]) -> Parsed<Vec<f64>> {
        let values = self.any_f64(name, shape)?;
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(format!("tensor `{name}` is not finite: {} at {index}", values[index])),
            None => Ok(values),
        }
    }

    /// Values that need not be finite.
    pub(crate) fn any_f64(&self, name: &str, shape: &[usize]) -> Parsed<Vec<f64>> {
        let (words, _) = self.bytes(name, Dtype::F64, shape)?.as_chunks::<8>();
        Ok(words.iter().map(|word| f64::from_le_bytes(*word)).collect())
    }

    fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Parsed<&[u8]> {
        let Some(TensorInfo { dtype: got_dtype, shape: got_shape, data_offsets: (start, end) }) =
            self.metadata.info(name)
        else {
            return Err(format!("tensor `{name}` is missing"));
        };
        if *got_dtype != dtype {
            return Err(format!("tensor `{name}` has type {got_dtype}, expected {dtype}"));
        }
        if got_shape != shape {
            return Err(format!("tensor `{name}` has shape {got_shape:?}, expected {shape:?}"));
        }
        // `Metadata` has checked that offsets ascend to `data_len` and span the shape, and `split` that this is here.
        self.data.get(*start..*end).ok_or_else(|| format!("tensor `{name}` lies outside of the file"))
    }
}
