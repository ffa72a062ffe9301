//! A pickle read as data. No class is looked up and nothing is called: where Python would call something, the
//! tree keeps a [`Node::Object`] that says what would have been called with what.
//!
//! Pickles share values and may even contain themselves (omegaconf's nodes point to their parents), so values
//! live in one list and refer to each other by index. That also makes shared values cost nothing, however
//! often they are used, and lets a deeply nested tree be dropped without recursion.
//!
//! `machine` makes the values from the pickle's program.

mod machine;
mod opcode;

use crate::error::{Error, Result};

/// The index of a value in its [`Pickle`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(u32);

/// One value. Text and bytes are slices of the pickle.
#[derive(Debug)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer beyond 64 bits; nothing needs its value.
    BigInt,
    Float(f64),
    Str(&'a str),
    /// Bytes, or text that is not UTF-8.
    Bytes(&'a [u8]),
    /// A list or a set.
    List(Vec<NodeId>),
    Tuple(Vec<NodeId>),
    Dict(Vec<(NodeId, NodeId)>),
    Global {
        module: &'a str,
        name: &'a str,
    },
    Object(Box<Object>),
    /// A value kept outside the pickle, with its identifier: a tensor's storage.
    Persistent(NodeId),
}

/// What a call or an instantiation would have made.
#[derive(Debug)]
pub(super) struct Object {
    /// What would have been called.
    pub class: NodeId,
    /// The arguments, a tuple as a rule.
    pub args: NodeId,
    /// What `__setstate__` would have been given.
    pub state: Option<NodeId>,
    /// The entries of a class that derives from `dict`.
    pub entries: Vec<(NodeId, NodeId)>,
    /// The elements of a class that derives from `list`.
    pub elements: Vec<NodeId>,
}

/// A whole pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: NodeId,
}

impl<'a> Pickle<'a> {
    /// Reads one pickle of protocol 2 to 5 from the start of `bytes`. `file` names it in errors.
    ///
    /// # Errors
    /// [`Error::BadFile`] with the offset, whatever the bytes are.
    pub fn parse(bytes: &'a [u8], file: &str) -> Result<Self> {
        let (nodes, root) = machine::run(bytes)
            .map_err(|(what, offset)| Error::bad_file(file, format!("pickle: {what} (offset {offset})")))?;
        Ok(Self { nodes, root })
    }

    /// The value that the pickle stands for.
    pub fn root(&self) -> NodeId {
        self.root
    }

    /// The value with this index.
    pub fn node(&self, id: NodeId) -> &Node<'a> {
        self.nodes.get(id.0 as usize).unwrap_or(&Node::None)
    }

    /// The entries of a dictionary or of an object that derives from one; else none.
    pub fn entries(&self, id: NodeId) -> &[(NodeId, NodeId)] {
        match self.node(id) {
            Node::Dict(entries) => entries,
            Node::Object(object) => &object.entries,
            _ => &[],
        }
    }

    /// The elements of a list, a tuple or an object that derives from a list; else none.
    pub fn elements(&self, id: NodeId) -> &[NodeId] {
        match self.node(id) {
            Node::List(elements) | Node::Tuple(elements) => elements,
            Node::Object(object) => &object.elements,
            _ => &[],
        }
    }

    /// The value under a text key of a dictionary. A later entry wins over an earlier one, as in Python.
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

    /// The integer, if the value is one that is not negative.
    pub fn unsigned(&self, id: NodeId) -> Option<u64> {
        match *self.node(id) {
            Node::Int(int) => u64::try_from(int).ok(),
            _ => None,
        }
    }

    /// Module and name of an object's class; `None` for everything else.
    pub fn class(&self, id: NodeId) -> Option<(&'a str, &'a str, &Object)> {
        let Node::Object(object) = self.node(id) else { return None };
        match *self.node(object.class) {
            Node::Global { module, name } => Some((module, name, object)),
            _ => None,
        }
    }

    /// The bytes of a bytes value. Protocol 2 has none: it writes a call that encodes text as Latin-1.
    pub fn bytes(&self, id: NodeId) -> Option<Vec<u8>> {
        if let Node::Bytes(bytes) = *self.node(id) {
            return Some(bytes.to_vec());
        }
        let ("_codecs", "encode", object) = self.class(id)? else { return None };
        let [text, encoding] = *self.elements(object.args) else { return None };
        if self.text(encoding)? != "latin1" {
            return None;
        }
        self.text(text)?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
    }
}

#[cfg(test)]
mod tests;
