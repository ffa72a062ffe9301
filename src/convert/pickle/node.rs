//! The values of a pickle. They refer to each other by index.

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
    Object(Box<Object>),
    /// A value outside the pickle, by its identifier: a tensor's storage.
    Persistent(NodeId),
}

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

/// Most values in one pickle. A checkpoint has some ten thousand, with a slow tokenizer a few hundred thousand.
pub(super) const MAX_NODES: usize = 1 << 21;

/// All values of a pickle.
#[derive(Debug, Default)]
pub(super) struct Nodes<'a>(Vec<Node<'a>>);

impl<'a> Nodes<'a> {
    /// # Errors
    /// If there are [`MAX_NODES`] already.
    pub fn push(&mut self, node: Node<'a>) -> Result<NodeId, String> {
        if self.0.len() >= MAX_NODES {
            return Err(format!("more than {MAX_NODES} values"));
        }
        self.0.push(node);
        Ok(NodeId(self.0.len() as u32 - 1))
    }

    pub fn get(&self, id: NodeId) -> &Node<'a> {
        let node = self.0.get(id.0 as usize);
        debug_assert!(node.is_some(), "{id:?} belongs to another pickle");
        node.unwrap_or(&Node::None)
    }

    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Node<'a>> {
        self.0.get_mut(id.0 as usize)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}
