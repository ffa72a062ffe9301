//! The network's weights to a model file and back, and the library's model of them.

use esolm::gguf::{Gguf, TensorInfo, TensorType, Value, Writer};
use esolm::{Config, LoadOptions, Model};

use super::Network;

impl Network {
    /// A GGUF file's weights, which have to be f32.
    pub fn from_gguf(bytes: &[u8]) -> Self {
        let gguf = Gguf::parse(bytes, "the reference network").unwrap();
        let values = |tensor: &TensorInfo| {
            assert_eq!(tensor.ty, TensorType::F32);
            let values = bytes[tensor.range.clone()].as_chunks::<4>().0.iter();
            (tensor.name.clone(), values.map(|b| f32::from_le_bytes(*b)).collect())
        };
        let tensors = gguf.tensors().iter().map(values).collect();
        Self { config: Config::from_gguf(&gguf).unwrap(), tensors }
    }

    /// The weights as a GGUF file.
    pub fn to_gguf(&self) -> Vec<u8> {
        self.to_gguf_with(None)
    }

    /// The same, with more keys.
    pub fn to_gguf_with<'k>(&self, more: impl IntoIterator<Item = (&'k str, Value)>) -> Vec<u8> {
        let mut writer = Writer::new();
        self.config.write(&mut writer).unwrap();
        for (key, value) in more {
            writer.set(key, value);
        }
        for spec in self.config.tensors().unwrap() {
            writer.declare(&spec.name, TensorType::F32, &spec.dims).unwrap();
        }
        let mut out = Vec::new();
        let fill = |name: &str, bytes: &mut Vec<u8>| {
            bytes.extend(self.tensors[name].iter().flat_map(|v| v.to_le_bytes()));
            Ok(())
        };
        writer.write(&mut out, fill).unwrap();
        out
    }

    /// The library's model of the same weights, on the CPU.
    pub fn model(&self) -> Model {
        open(&self.to_gguf())
    }

    /// The same model with a tokenizer (`tokenizer.json`).
    pub fn model_with_tokenizer(&self, json: &str) -> Model {
        open(&self.to_gguf_with(Some((Config::TOKENIZER_KEY, Value::Str(json.into())))))
    }

    /// The same model with these keys.
    pub fn model_with<'k>(&self, keys: impl IntoIterator<Item = (&'k str, Value)>) -> Model {
        open(&self.to_gguf_with(keys))
    }

    /// The tensor of a name, to be changed.
    pub fn tensor_mut(&mut self, name: &str) -> &mut Vec<f32> {
        self.tensors.get_mut(name).unwrap()
    }
}

fn open(bytes: &[u8]) -> Model {
    let options = LoadOptions { device: "cpu".into(), ..LoadOptions::default() };
    Model::from_bytes(bytes, &options).unwrap()
}
