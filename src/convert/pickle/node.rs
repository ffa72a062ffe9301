//! The values of a pickle. They refer to each other by index.

use crate::error::Error;
use crate::memory::push;

/// Why a pickle is not read.
#[derive(Debug)]
pub(super) enum Fault {
    /// What is wrong with it.
    Damaged(String),
    /// There is no memory for its values.
    Memory(Error),
}

impl From<String> for Fault {
    fn from(what: String) -> Self {
        Self::Damaged(what)
    }
}

impl From<&str> for Fault {
    fn from(what: &str) -> Self {
        Self::Damaged(what.into())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Memory(error)
    }
}

/// The index of a value. Only [`Nodes::push`] makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::convert) struct NodeId(u32);

/// One value. Text and bytes are slices of the pickle.
#[derive(Debug)]
pub(in crate::convert) enum Node<'a> {
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
    /// A class or function, by name.
    Global {
        module: &'a str,
        name: &'a str,
    },
    /// The result of a call that was not made: [`Pickle::object`](super::Pickle::object).
    Object(ObjectId),
    /// A value outside the pickle, by its identifier: a tensor's storage.
    Persistent(NodeId),
}

/// The index of an object.
#[derive(Debug, Clone, Copy)]
pub(in crate::convert) struct ObjectId(u32);

/// The result of a call that was not made.
#[derive(Debug)]
pub(in crate::convert) struct Object {
    /// What would be called.
    pub class: NodeId,
    /// The arguments, usually a tuple.
    pub args: NodeId,
    /// The argument of `__setstate__`.
    pub state: Option<NodeId>,
    /// The entries, if the class derives from `dict`.
    pub entries: Vec<(NodeId, NodeId)>,
    /// The elements, if the class derives from `list`.
    pub elements: Vec<NodeId>,
}

/// Memory that the values of any pickle may take, in bytes, and the memory for each byte of it. A checkpoint has some ten
/// thousand values, with a slow tokenizer a few hundred thousand.
const BASE_MEMORY: usize = 48 << 20;
const MEMORY_PER_BYTE: usize = 2;
/// What is charged for a value with a small list, for an object, for a reference to a value, and for an entry of the memo:
/// their size with the spare room of what holds them.
const VALUE_BYTES: usize = 80;
const OBJECT_BYTES: usize = 104;
pub(super) const REFERENCE_BYTES: usize = 16;
pub(super) const MEMO_BYTES: usize = 32;

/// All values of a pickle.
#[derive(Debug)]
pub(super) struct Nodes<'a> {
    nodes: Vec<Node<'a>>,
    objects: Vec<Object>,
    /// The memory that is left for values and references to them, in bytes.
    memory_left: usize,
}

impl<'a> Nodes<'a> {
    /// No values yet, for a pickle of so many bytes.
    pub fn new(pickle_bytes: usize) -> Self {
        Self {
            nodes: Vec::new(),
            objects: Vec::new(),
            memory_left: BASE_MEMORY + MEMORY_PER_BYTE * pickle_bytes,
        }
    }

    /// # Errors
    /// If the values take too much memory for the size of the pickle.
    pub fn push(&mut self, node: Node<'a>) -> Result<NodeId, Fault> {
        self.charge(VALUE_BYTES)?;
        push(&mut self.nodes, node)?;
        Ok(NodeId(self.nodes.len() as u32 - 1))
    }

    /// # Errors
    /// As [`Nodes::push`].
    pub fn push_object(&mut self, class: NodeId, args: NodeId) -> Result<NodeId, Fault> {
        self.charge(OBJECT_BYTES)?;
        let object = Object { class, args, state: None, entries: Vec::new(), elements: Vec::new() };
        push(&mut self.objects, object)?;
        self.push(Node::Object(ObjectId(self.objects.len() as u32 - 1)))
    }

    /// Accounts for memory that values take.
    ///
    /// # Errors
    /// As [`Nodes::push`].
    pub fn charge(&mut self, bytes: usize) -> Result<(), Fault> {
        let left = self.memory_left.checked_sub(bytes);
        self.memory_left = left.ok_or_else(|| format!("too many values ({} so far)", self.nodes.len()))?;
        Ok(())
    }

    pub fn get(&self, id: NodeId) -> &Node<'a> {
        let node = self.nodes.get(id.0 as usize);
        debug_assert!(node.is_some(), "{id:?} belongs to another pickle");
        node.unwrap_or(&Node::None)
    }

    /// The value, if it is an object.
    pub fn object(&self, id: NodeId) -> Option<&Object> {
        match *self.get(id) {
            Node::Object(object) => self.objects.get(object.0 as usize),
            _ => None,
        }
    }

    /// The value, if it is a list, a set, or an object whose class may derive from one.
    pub fn list_mut(&mut self, id: NodeId) -> Option<&mut Vec<NodeId>> {
        match self.nodes.get_mut(id.0 as usize)? {
            Node::List(elements) => Some(elements),
            Node::Object(object) => {
                self.objects.get_mut(object.0 as usize).map(|object| &mut object.elements)
            }
            _ => None,
        }
    }

    /// The value, if it is a dictionary, or an object whose class may derive from it.
    pub fn dictionary_mut(&mut self, id: NodeId) -> Option<&mut Vec<(NodeId, NodeId)>> {
        match self.nodes.get_mut(id.0 as usize)? {
            Node::Dict(entries) => Some(entries),
            Node::Object(object) => self.objects.get_mut(object.0 as usize).map(|object| &mut object.entries),
            _ => None,
        }
    }

    /// The value, if it is an object.
    pub fn object_mut(&mut self, id: NodeId) -> Option<&mut Object> {
        match *self.get(id) {
            Node::Object(object) => self.objects.get_mut(object.0 as usize),
            _ => None,
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
}
