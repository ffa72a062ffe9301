//! A pickle read as data. No class is looked up and nothing is called: where Python would call something, there is a
//! [`Node::Object`] that records the function and its arguments.
//!
//! Values can be shared and can contain themselves (omegaconf's nodes point to their parents), so they are in one list
//! and refer to each other by index. Sharing therefore copies nothing, and a deeply nested value is dropped without
//! recursion.
//!
//! `machine` executes the pickle's opcodes, `node` has the values that it makes.

mod machine;
mod node;
mod opcode;

use crate::error::{Error, Result};
use crate::memory::{collected, with_room};
use node::{Fault, Nodes, Object};
pub(super) use node::{Node, NodeId};

/// A parsed pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    nodes: Nodes<'a>,
    root: NodeId,
}

impl<'a> Pickle<'a> {
    /// Parses the pickle, of protocol 2 to 5, at the start of `bytes`. `file` names it in errors.
    ///
    /// # Errors
    /// [`Error::BadFile`] with the offset of what is wrong; [`Error::OutOfMemory`].
    pub fn parse(bytes: &'a [u8], file: &str) -> Result<Self> {
        match machine::run(bytes) {
            Ok((nodes, root)) => Ok(Self { nodes, root }),
            Err((Fault::Memory(error), _)) => Err(error),
            Err((Fault::Damaged(what), offset)) => {
                Err(Error::bad_file(file, format!("pickle: {what} (offset {offset})")))
            }
        }
    }

    /// The pickled value.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// The value with this index.
    pub fn node(&self, id: NodeId) -> &Node<'a> {
        self.nodes.get(id)
    }

    /// The entries of a dictionary or of an object whose class derives from `dict`; empty for other values.
    pub fn entries(&self, id: NodeId) -> &[(NodeId, NodeId)] {
        match self.node(id) {
            Node::Dict(entries) => entries,
            _ => self.object(id).map_or(&[], |object| &object.entries),
        }
    }

    /// The elements of a list, a tuple or an object whose class derives from `list`; empty for other values.
    pub fn elements(&self, id: NodeId) -> &[NodeId] {
        match self.node(id) {
            Node::List(elements) | Node::Tuple(elements) => elements,
            _ => self.object(id).map_or(&[], |object| &object.elements),
        }
    }

    /// The value of a text key in a dictionary; of equal keys the last one's, as in Python.
    pub fn get(&self, id: NodeId, key: &str) -> Option<NodeId> {
        self.entries(id).iter().rev().find(|(k, _)| self.text(*k) == Some(key)).map(|(_, v)| *v)
    }

    /// The text, if the value is text.
    pub fn text(&self, id: NodeId) -> Option<&'a str> {
        match *self.node(id) {
            Node::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The integer, if the value is a non-negative integer.
    pub fn unsigned(&self, id: NodeId) -> Option<u64> {
        match *self.node(id) {
            Node::Int(int) => u64::try_from(int).ok(),
            _ => None,
        }
    }

    /// The value, if it is an object.
    pub fn object(&self, id: NodeId) -> Option<&Object> {
        self.nodes.object(id)
    }

    /// Module and name of an object's class, and the object; `None` for other values.
    pub fn class(&self, id: NodeId) -> Option<(&'a str, &'a str, &Object)> {
        let object = self.object(id)?;
        match *self.node(object.class) {
            Node::Global { module, name } => Some((module, name, object)),
            _ => None,
        }
    }

    /// The bytes, if the value is a bytes object. Protocol 2 has none and writes a call that encodes text as Latin-1.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn bytes(&self, id: NodeId) -> Result<Option<Vec<u8>>> {
        if let Node::Bytes(bytes) = *self.node(id) {
            return collected(bytes.iter().copied()).map(Some);
        }
        let Some(text) = self.latin1(id) else { return Ok(None) };
        let mut bytes = with_room(text.chars().count())?;
        for c in text.chars() {
            let Ok(byte) = u8::try_from(u32::from(c)) else { return Ok(None) };
            bytes.push(byte);
        }
        Ok(Some(bytes))
    }

    /// The text that a call encodes as Latin-1.
    fn latin1(&self, id: NodeId) -> Option<&'a str> {
        let ("_codecs", "encode", object) = self.class(id)? else { return None };
        let [text, encoding] = *self.elements(object.args) else { return None };
        if self.text(encoding)? == "latin1" { self.text(text) } else { None }
    }
}

#[cfg(test)]
mod tests;
