//! The container of model files and checkpoints: safetensors with one JSON entry in its metadata, and a checksum.
//!
//! The metadata's entry `checksum` is `crc32:` and eight hexadecimal digits: the CRC-32 of gzip and zlib over the UTF-8
//! text of the JSON entry and then, in the order of their names' bytes, each tensor's name and bytes. A file without it
//! is read unchecked, so that another program may write one or leave it out where it changes a file. The bytes of a
//! container depend on its contents alone.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fmt;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::shown::shown;

/// Result whose error says what is wrong with a file.
pub(crate) type Parsed<T> = std::result::Result<T, String>;

/// Bytes before the safetensors header: its length as a little-endian `u64`.
const LENGTH_BYTES: usize = 8;

/// Most bytes of a header, as the safetensors format has it.
const MOST_HEADER: u64 = 100_000_000;

/// The metadata entry that holds the checksum, and what its value begins with.
const CHECKSUM: &str = "checksum";
const ALGORITHM: &str = "crc32:";

/// Characters of the JSON parser's own messages that are shown; they quote the file.
const LONGEST_ERROR: usize = 300;

/// The part of an entry that every version of a format has.
#[derive(Deserialize)]
pub(crate) struct Version {
    pub format_version: u32,
}

/// A tensor to be written.
pub(crate) struct StoredTensor {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl StoredTensor {
    pub(crate) fn f32(name: impl Into<String>, shape: Vec<usize>, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F32, shape, bytes }
    }

    pub(crate) fn f64(name: impl Into<String>, shape: Vec<usize>, values: &[f64]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self { name: name.into(), dtype: Dtype::F64, shape, bytes }
    }

    /// The same with `prefix` before its name.
    pub(crate) fn behind(mut self, prefix: &str) -> Self {
        self.name.insert_str(0, prefix);
        self
    }
}

/// A file of `tensors` with `json` as the metadata's `entry`, and the checksum of both.
pub(crate) fn serialise(mut tensors: Vec<StoredTensor>, entry: &str, json: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Header<'a> {
        #[serde(rename = "__metadata__")]
        metadata: BTreeMap<&'a str, &'a str>,
        #[serde(flatten)]
        tensors: InOrder<'a>,
    }

    /// Tensors in the order of their bytes. (safetensors' own writer puts the metadata's entries in an order that changes
    /// from run to run.)
    struct InOrder<'a>(Vec<(&'a str, TensorInfo)>);

    impl Serialize for InOrder<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_map(self.0.iter().map(|(name, info)| (name, info)))
        }
    }

    let checksum = checksum(json, tensors.iter().map(|tensor| (tensor.name.as_str(), &*tensor.bytes)));
    // Wide types first, so that every tensor lies where its type may lie in memory.
    tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
    let mut end = 0;
    let infos = tensors.iter().map(|tensor| {
        let start = end;
        end += tensor.bytes.len();
        let (dtype, shape) = (tensor.dtype, tensor.shape.clone());
        (tensor.name.as_str(), TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let tensors_in_order = InOrder(infos.collect());
    let metadata = BTreeMap::from([(CHECKSUM, checksum.as_str()), (entry, json)]);
    let header = Header { metadata, tensors: tensors_in_order };
    let mut header = serde_json::to_string(&header).expect("invariant: a header is plain data");
    let length = header.len().next_multiple_of(LENGTH_BYTES);
    header.extend(std::iter::repeat_n(' ', length - header.len()));

    let mut bytes = Vec::with_capacity(LENGTH_BYTES + length + end);
    bytes.extend((length as u64).to_le_bytes());
    bytes.extend(header.into_bytes());
    for tensor in tensors {
        bytes.extend(tensor.bytes);
    }
    bytes
}

/// The checksum of a JSON entry and tensors, each a name and its bytes.
fn checksum<'a>(json: &str, tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(json.as_bytes());
    let mut tensors: Vec<(&str, &[u8])> = tensors.collect();
    tensors.sort_unstable_by_key(|(name, _)| *name);
    for (name, bytes) in tensors {
        hasher.update(name.as_bytes());
        hasher.update(bytes);
    }
    format!("{ALGORITHM}{:08x}", hasher.finalize())
}

/// The header of a file of `length` bytes that begins with `bytes`, and where its data begin.
///
/// `SafeTensors::deserialize` adds lengths that a header may lie about without checking for overflow, and takes the last
/// of two tensors of one name; this does neither.
fn head(bytes: &[u8], length: u64) -> Parsed<(Metadata, usize)> {
    if bytes.is_empty() {
        return Err("the file is empty".into());
    }
    let foreign = "it is not a safetensors file, or only the beginning of one";
    let (claimed, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or_else(|| {
        format!("{foreign}: {} bytes are fewer than the {LENGTH_BYTES} of a header length", bytes.len())
    })?;
    let claimed = u64::from_le_bytes(*claimed);
    let there = length - LENGTH_BYTES as u64;
    if claimed > there {
        return Err(format!("{foreign}: its header claims {claimed} bytes, {there} are there"));
    }
    if claimed > MOST_HEADER {
        return Err(format!("{foreign}: its header claims {claimed} bytes, expected at most {MOST_HEADER}"));
    }
    let header = rest.get(..claimed as usize).ok_or_else(|| format!("{foreign}: its header is cut short"))?;
    let invalid = |error| format!("{foreign}: its header is invalid: {}", parser_message(&error));
    serde_json::from_slice::<DistinctKeys>(header).map_err(invalid)?;
    let metadata: Metadata = serde_json::from_slice(header).map_err(invalid)?;
    let data = there - claimed;
    if metadata.data_len() as u64 != data {
        return Err(format!(
            "it is truncated or damaged: its tensors claim {} bytes, {data} are there",
            metadata.data_len()
        ));
    }
    Ok((metadata, LENGTH_BYTES + claimed as usize))
}

/// What a parser says of a file, on one line and not all of what it quotes.
fn parser_message(error: &serde_json::Error) -> String {
    shown(&error.to_string()).at_most(LONGEST_ERROR).to_string()
}

/// The JSON of the metadata's `entry`; `None` where there is none.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn entry<'a, T: Deserialize<'a>>(metadata: &'a Metadata, entry: &str) -> Parsed<Option<T>> {
    let Some(json) = metadata.metadata().as_ref().and_then(|entries| entries.get(entry)) else {
        return Ok(None);
    };
    let invalid = |error| format!("its metadata entry `{entry}` is invalid: {}", parser_message(&error));
    serde_json::from_str(json).map(Some).map_err(invalid)
}

/// The regular file `path`, of which nothing but the header is read before that and `fits` agree to the rest.
///
/// # Errors
/// Those of [`open_regular`](crate::files::open_regular) and of reading; `damaged` of what is wrong with the header.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn read(
    path: &std::path::Path,
    fits: impl Fn(&Metadata) -> Parsed<()>,
    damaged: impl Fn(String) -> crate::Error,
) -> crate::Result<Vec<u8>> {
    use std::io::Read;

    let fail = |error| crate::Error::io(path, error);
    let (file, length) = crate::files::open_regular(path)?;
    let mut file = std::io::BufReader::new(file);
    let mut bytes = Vec::new();
    file.by_ref().take(LENGTH_BYTES as u64).read_to_end(&mut bytes).map_err(fail)?;
    if let Some(claimed) = bytes.first_chunk::<LENGTH_BYTES>() {
        let claimed = u64::from_le_bytes(*claimed).min(MOST_HEADER);
        file.by_ref().take(claimed).read_to_end(&mut bytes).map_err(fail)?;
    }
    let (metadata, _) = head(&bytes, length.max(bytes.len() as u64)).map_err(&damaged)?;
    fits(&metadata).map_err(&damaged)?;
    bytes.reserve_exact(metadata.data_len());
    file.take(metadata.data_len() as u64).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// A whole file taken apart, with access to its tensors by name, checked for type, shape and finite values.
pub(crate) struct Container<'a> {
    pub(crate) metadata: Metadata,
    data: &'a [u8],
}

impl<'a> Container<'a> {
    /// Takes `bytes` apart.
    ///
    /// # Errors
    /// What is wrong with the header or the number of bytes.
    pub(crate) fn new(bytes: &'a [u8]) -> Parsed<Self> {
        let (metadata, start) = head(bytes, bytes.len() as u64)?;
        Ok(Self { metadata, data: &bytes[start..] })
    }

    /// Holds the contents, whose JSON is in the metadata's `entry`, against the checksum, where there is one.
    ///
    /// # Errors
    /// That they differ, or that the checksum is none.
    pub(crate) fn verify(&self, entry: &str) -> Parsed<()> {
        let entries = self.metadata.metadata().as_ref();
        let Some(kept) = entries.and_then(|entries| entries.get(CHECKSUM)) else { return Ok(()) };
        if kept.strip_prefix(ALGORITHM).is_none_or(|digits| digits.len() != 8) {
            return Err(format!(
                "its checksum is `{}`, expected `{ALGORITHM}` and eight hexadecimal digits, or no `{CHECKSUM}` at all",
                shown(kept)
            ));
        }
        let json = entries.and_then(|entries| entries.get(entry)).map_or("", String::as_str);
        let names = self.metadata.offset_keys();
        let mut tensors = Vec::with_capacity(names.len());
        for name in &names {
            tensors.push((name.as_str(), self.raw(name)?.1));
        }
        let found = checksum(json, tensors.into_iter());
        if found == kept.to_ascii_lowercase() {
            return Ok(());
        }
        Err(format!(
            "it is damaged: its checksum is {}, and its contents have {found}. Take an undamaged copy; a program that \
             changes such a file leaves the metadata's entry `{CHECKSUM}` out",
            shown(kept)
        ))
    }

    /// Those whose names begin with `prefix`.
    pub(crate) fn tensors<'b>(&'b self, prefix: &'b str) -> Tensors<'b> {
        Tensors { container: self, prefix }
    }

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

    fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Parsed<&'a [u8]> {
        let (info, bytes) = self.raw(name)?;
        if info.dtype != dtype {
            return Err(format!("tensor `{name}` has type {}, expected {dtype}", info.dtype));
        }
        if info.shape != shape {
            return Err(format!("tensor `{name}` has shape {:?}, expected {shape:?}", info.shape));
        }
        Ok(bytes)
    }

    fn raw(&self, name: &str) -> Parsed<(&TensorInfo, &'a [u8])> {
        let info = self.metadata.info(name).ok_or_else(|| format!("tensor `{name}` is missing"))?;
        let (start, end) = info.data_offsets;
        // `Metadata` has checked that offsets ascend to `data_len` and span the shape, and `head` that this is here.
        let bytes = self.data.get(start..end);
        Ok((info, bytes.ok_or_else(|| format!("tensor `{}` lies outside of the file", shown(name)))?))
    }
}

/// The tensors of a container whose names begin with `prefix`, which is left out of the names here.
pub(crate) struct Tensors<'a> {
    container: &'a Container<'a>,
    prefix: &'a str,
}

impl Tensors<'_> {
    pub(crate) fn f32(&self, name: &str, shape: &[usize]) -> Parsed<Vec<f32>> {
        self.container.f32(&self.whole(name), shape)
    }

    pub(crate) fn f64(&self, name: &str, shape: &[usize]) -> Parsed<Vec<f64>> {
        self.container.f64(&self.whole(name), shape)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        let names = self.container.metadata.offset_keys();
        names.iter().filter(|name| name.starts_with(self.prefix)).count()
    }

    fn whole(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// JSON in which no object has a key twice. A parser may take the first or the last of two, so that two programs read two
/// models from one file.
struct DistinctKeys;

impl<'de> Deserialize<'de> for DistinctKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;

        #[derive(Deserialize)]
        struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

        impl<'de> Visitor<'de> for Keys {
            type Value = DistinctKeys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DistinctKeys, A::Error> {
                let mut seen = HashSet::new();
                while let Some(Key(key)) = map.next_key()? {
                    if seen.contains(&key) {
                        return Err(de::Error::custom(format!("it has `{}` twice", shown(&key))));
                    }
                    seen.insert(key);
                    map.next_value::<DistinctKeys>()?;
                }
                Ok(DistinctKeys)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<DistinctKeys, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(DistinctKeys)
            }

            fn visit_bool<E>(self, _: bool) -> Result<DistinctKeys, E> {
                Ok(DistinctKeys)
            }

            fn visit_u64<E>(self, _: u64) -> Result<DistinctKeys, E> {
                Ok(DistinctKeys)
            }

            fn visit_i64<E>(self, _: i64) -> Result<DistinctKeys, E> {
                Ok(DistinctKeys)
            }

            fn visit_f64<E>(self, _: f64) -> Result<DistinctKeys, E> {
                Ok(DistinctKeys)
            }

            fn visit_str<E>(self, _: &str) -> Result<DistinctKeys, E> {
                Ok(DistinctKeys)
            }

            fn visit_unit<E>(self) -> Result<DistinctKeys, E> {
                Ok(DistinctKeys)
            }
        }

        deserializer.deserialize_any(Keys)
    }
}
