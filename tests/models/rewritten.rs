//! A model file written again, changed.

use esolm::gguf::{TensorInfo, Value, Writer};

/// A file with these keys, of which the last of a name counts, and these tensors of `file`, in this order.
pub fn rewritten<'a>(
    file: &[u8],
    keys: impl IntoIterator<Item = &'a (String, Value)>,
    tensors: impl IntoIterator<Item = &'a TensorInfo>,
) -> Vec<u8> {
    let mut writer = Writer::new();
    keys.into_iter().for_each(|(key, value)| writer.set(key, value.clone()));
    let mut data = Vec::new();
    for tensor in tensors {
        writer.declare_in(&tensor.name, tensor.ty, tensor.layout, &tensor.dims).expect("a tensor");
        data.push(&file[tensor.range.clone()]);
    }
    let (mut out, mut data) = (Vec::new(), data.into_iter());
    let copy = |_: &str, bytes: &mut Vec<u8>| {
        bytes.extend_from_slice(data.next().expect("a tensor"));
        Ok(())
    };
    writer.write(&mut out, copy).expect("room");
    out
}
