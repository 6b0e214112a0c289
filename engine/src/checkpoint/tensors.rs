//! Tensors in mapped safetensors files.

use super::CheckpointError;
use super::fields::{Fields, brief, read_json};
use crate::models::{Model, TensorSpec};
use baton_kernels::{DType, MappedFile, Matrix, map_file};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata, SafeTensorError};
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The mapped files of a checkpoint. Clones share the maps.
#[derive(Clone)]
pub(crate) struct Tensors(Arc<Vec<MappedFile>>);

/// A verified tensor.
#[derive(Clone, Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    /// It has one dimension; `rows` is 1.
    pub(crate) vector: bool,
    file: usize,
    range: Range<usize>,
}

impl Tensors {
    /// Maps the files and finds every tensor of the model in them.
    pub(crate) fn open(
        dir: &Path,
        model: Model<TensorSpec>,
    ) -> Result<(Self, Model<Tensor>), CheckpointError> {
        let mut shards = Shards::of(dir)?;
        let model = model.try_map(&mut |spec| shards.find(spec))?;
        Ok((Self(Arc::new(shards.maps)), model))
    }

    /// The tensor's numbers.
    pub(crate) fn matrix(&self, tensor: &Tensor) -> Matrix<'_> {
        Matrix::new(self.bytes(tensor), tensor.dtype, tensor.rows, tensor.cols)
            .expect("verified when the checkpoint was opened")
    }

    /// The tensor's bytes in the file.
    pub(crate) fn bytes(&self, tensor: &Tensor) -> &[u8] {
        &self.0[tensor.file][tensor.range.clone()]
    }
}

/// The files while tensors are looked up.
struct Shards {
    dir: PathBuf,
    /// Which file holds a tensor; `None`: all are in one.
    index: Option<HashMap<String, String>>,
    /// Files mapped so far, by name: their number, where their data begin, what they hold.
    known: HashMap<String, (usize, usize, Metadata)>,
    maps: Vec<MappedFile>,
}

impl Shards {
    fn of(dir: &Path) -> Result<Self, CheckpointError> {
        let index_file = dir.join(INDEX);
        let single = dir.join(SINGLE).exists();
        let index = match read_json(&index_file)? {
            Some(map) if !single => Some(weight_map(&Fields::new(&index_file, &map))?),
            None if !single => {
                let needed = format!("expected it or {INDEX}");
                return Err(CheckpointError::MissingFile { file: dir.join(SINGLE), needed });
            }
            _ => None,
        };
        Ok(Self { dir: dir.to_owned(), index, known: HashMap::new(), maps: Vec::new() })
    }

    fn find(&mut self, spec: TensorSpec) -> Result<Tensor, CheckpointError> {
        let name = match &self.index {
            None => SINGLE.to_owned(),
            Some(index) => {
                index.get(&spec.name).cloned().ok_or_else(|| CheckpointError::MissingTensor {
                    file: self.dir.join(INDEX),
                    tensor: spec.name.clone(),
                    expected: spec.shape.clone(),
                })?
            }
        };
        let file = self.dir.join(&name);
        if !self.known.contains_key(&name) {
            let (map, data, metadata) = map_tensors(&file, &spec.name)?;
            self.known.insert(name.clone(), (self.maps.len(), data, metadata));
            self.maps.push(map);
        }
        let (number, data, metadata) = &self.known[&name];
        let Some(info) = metadata.info(&spec.name) else {
            let (tensor, expected) = (spec.name, spec.shape);
            return Err(CheckpointError::MissingTensor { file, tensor, expected });
        };
        if info.shape != spec.shape {
            let (tensor, expected) = (spec.name, spec.shape);
            let found = info.shape.clone();
            return Err(CheckpointError::Shape { file, tensor, expected, found });
        }
        let dtype = match info.dtype {
            Dtype::BF16 => DType::Bf16,
            Dtype::F16 => DType::F16,
            Dtype::F32 => DType::F32,
            other => {
                let (tensor, found) = (spec.name, format!("{other:?}"));
                return Err(CheckpointError::DType { file, tensor, found });
            }
        };
        let (rows, cols, vector) = match spec.shape[..] {
            [rows, cols] => (rows, cols, false),
            _ => (1, spec.shape.iter().product(), true),
        };
        let (from, to) = info.data_offsets;
        let range = data + from..data + to;
        Ok(Tensor { name: spec.name, dtype, rows, cols, vector, file: *number, range })
    }
}

/// Tensor names and the files that hold them.
fn weight_map(fields: &Fields<'_>) -> Result<HashMap<String, String>, CheckpointError> {
    let Some(Value::Object(map)) = fields.get("weight_map") else {
        let found = fields.get("weight_map").map_or_else(|| "nothing".to_owned(), brief);
        return Err(fields.wrong("weight_map", "an object of tensor names and files", found));
    };
    map.iter()
        .map(|(tensor, file)| {
            // A plain file name: an index does not get to open files elsewhere.
            let plain = file.as_str().filter(|name| {
                Path::new(name).file_name().is_some_and(|f| f.as_encoded_bytes() == name.as_bytes())
            });
            let name = plain.ok_or_else(|| {
                let field = format!("weight_map.{tensor}");
                fields.wrong(&field, "the name of a file in the directory", brief(file))
            })?;
            Ok((tensor.clone(), name.to_owned()))
        })
        .collect()
}

/// Maps a safetensors file and reads its header.
fn map_tensors(
    file: &Path,
    tensor: &str,
) -> Result<(MappedFile, usize, Metadata), CheckpointError> {
    let read = |source| CheckpointError::Read { file: file.to_owned(), source };
    let header = |problem: String| CheckpointError::Header { file: file.to_owned(), problem };
    let handle = File::open(file).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => CheckpointError::MissingFile {
            file: file.to_owned(),
            needed: format!("tensor `{tensor}` is expected in it"),
        },
        _ => read(source),
    })?;
    if !handle.metadata().map_err(read)?.is_file() {
        return Err(header("not a regular file".to_owned()));
    }
    let map = map_file(&handle).map_err(read)?;
    let (length, metadata) = SafeTensors::read_metadata(&map).map_err(|error| match error {
        SafeTensorError::HeaderTooSmall => {
            header(format!("expected at least 8 bytes, found {}", map.len()))
        }
        SafeTensorError::InvalidHeaderLength => header(format!(
            "the header is said to have {} bytes, but the file has {}",
            map.first_chunk().map_or(0, |n| u64::from_le_bytes(*n)),
            map.len()
        )),
        SafeTensorError::MetadataIncompleteBuffer => wrong_length(file, &map),
        SafeTensorError::InvalidOffset(tensor) => {
            header(format!("tensor `{tensor}` does not begin where the one before it ends"))
        }
        SafeTensorError::TensorInvalidInfo => {
            header("a tensor's offsets do not fit its shape and type".to_owned())
        }
        other => header(other.to_string()),
    })?;
    Ok((map, 8 + length, metadata))
}

/// A well-formed header that promises another length than the file has: which tensor is cut off?
fn wrong_length(file: &Path, map: &[u8]) -> CheckpointError {
    let data = 8 + map.first_chunk().map_or(0, |n| u64::from_le_bytes(*n));
    let header: Option<Value> =
        map.get(8..data as usize).and_then(|header| serde_json::from_slice(header).ok());
    let end = |info: &Value| info.get("data_offsets")?.get(1)?.as_u64()?.checked_add(data);
    let mut ends: Vec<(u64, &String)> = header
        .as_ref()
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, info)| Some((end(info)?, name)))
        .collect();
    ends.sort_unstable();
    let found = map.len() as u64;
    CheckpointError::Length {
        file: file.to_owned(),
        tensor: ends.iter().find(|(end, _)| *end > found).map(|(_, name)| (*name).clone()),
        expected: ends.last().map_or(data, |(end, _)| *end),
        found,
    }
}
