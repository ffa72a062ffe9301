//! The stack machine that executes a pickle's opcodes.
//!
//! Opcodes: <https://github.com/python/cpython/blob/main/Lib/pickletools.py>.

use std::collections::HashMap;

use super::node::{Fault, MEMO_BYTES, Node, NodeId, Nodes, REFERENCE_BYTES};
use super::opcode as op;
use crate::memory::{self, collected};

/// Executes the pickle at the start of `bytes`. Returns all values, and which of them is the result.
///
/// # Errors
/// Why it is not read, and at which byte.
pub(super) fn run(bytes: &[u8]) -> Result<(Nodes<'_>, NodeId), (Fault, usize)> {
    let (nodes, stack, marks) = (Nodes::new(bytes.len()), Vec::new(), Vec::new());
    let mut machine = Machine { bytes, at: 0, nodes, stack, marks, memo: HashMap::new() };
    match machine.run() {
        Ok(root) => Ok((machine.nodes, root)),
        Err(fault) => Err((fault, machine.at)),
    }
}

/// The machine's state. Its methods return the fault; `run` adds the offset.
struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Nodes<'a>,
    stack: Vec<NodeId>,
    /// The stack's height at each open mark.
    marks: Vec<usize>,
    memo: HashMap<u32, NodeId>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<NodeId, Fault> {
        if self.u8()? != op::PROTO {
            return Err("not a pickle of protocol 2 or later".into());
        }
        let version = self.u8()?;
        if !(2..=5).contains(&version) {
            return Err(format!("protocol {version} is not 2 to 5").into());
        }
        loop {
            match self.u8()? {
                op::STOP => return self.pop(),
                code => self.step(code)?,
            }
        }
    }

    fn step(&mut self, code: u8) -> Result<(), Fault> {
        match code {
            // A frame is only a hint for reading ahead.
            op::FRAME => self.take(8).map(|_| ()),
            op::MARK => {
                self.nodes.charge(REFERENCE_BYTES)?;
                Ok(memory::push(&mut self.marks, self.stack.len())?)
            }
            op::POP if self.marks.last() == Some(&self.stack.len()) => self.pop_mark().map(|_| ()),
            op::POP => self.pop().map(|_| ()),
            op::POP_MARK => self.pop_mark().map(|_| ()),
            op::DUP => {
                let top = self.top()?;
                self.refer(top)
            }
            op::NONE => self.push(Node::None),
            op::NEWTRUE => self.push(Node::Bool(true)),
            op::NEWFALSE => self.push(Node::Bool(false)),
            op::BININT => self.fixed().map(i32::from_le_bytes).and_then(|v| self.push(Node::Int(v.into()))),
            op::BININT1 => self.u8().and_then(|v| self.push(Node::Int(v.into()))),
            op::BININT2 => self.fixed().map(u16::from_le_bytes).and_then(|v| self.push(Node::Int(v.into()))),
            op::LONG1 => self.u8().and_then(|len| self.long(len.into())),
            op::LONG4 => self.u32().and_then(|len| self.long(len as usize)),
            op::BINFLOAT => self.fixed().map(f64::from_be_bytes).and_then(|v| self.push(Node::Float(v))),
            op::SHORT_BINUNICODE | op::SHORT_BINSTRING => self.u8().and_then(|len| self.text(len.into())),
            op::BINUNICODE | op::BINSTRING => self.u32().and_then(|len| self.text(len.into())),
            op::BINUNICODE8 => self.u64().and_then(|len| self.text(len)),
            op::SHORT_BINBYTES => self.u8().and_then(|len| self.byte_string(len.into())),
            op::BINBYTES => self.u32().and_then(|len| self.byte_string(len.into())),
            op::BINBYTES8 | op::BYTEARRAY8 => self.u64().and_then(|len| self.byte_string(len)),
            op::EMPTY_LIST | op::EMPTY_SET => self.push(Node::List(Vec::new())),
            op::EMPTY_TUPLE => self.push(Node::Tuple(Vec::new())),
            op::EMPTY_DICT => self.push(Node::Dict(Vec::new())),
            op::LIST | op::FROZENSET => self.pop_mark().and_then(|e| self.push(Node::List(e))),
            op::TUPLE => self.pop_mark().and_then(|e| self.push(Node::Tuple(e))),
            op::TUPLE1 | op::TUPLE2 | op::TUPLE3 => self.short_tuple(usize::from(code - op::TUPLE1) + 1),
            op::DICT => self.pop_mark().and_then(pairs).and_then(|e| self.push(Node::Dict(e))),
            op::APPEND => self.pop().and_then(|element| self.extend(&[element])),
            op::APPENDS | op::ADDITEMS => self.pop_mark().and_then(|elements| self.extend(&elements)),
            op::SETITEM => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.insert(&[(key, value)])
            }
            op::SETITEMS => self.pop_mark().and_then(pairs).and_then(|entries| self.insert(&entries)),
            op::GLOBAL => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Node::Global { module, name })
            }
            op::STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.nodes.get(module), self.nodes.get(name)) {
                    (&Node::Str(module), &Node::Str(name)) => self.push(Node::Global { module, name }),
                    _ => Err("a class is named by something that is not text".into()),
                }
            }
            op::REDUCE | op::NEWOBJ => {
                let (args, class) = (self.pop()?, self.pop()?);
                self.object(class, args)
            }
            op::NEWOBJ_EX => {
                let (_keywords, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                self.object(class, args)
            }
            op::BUILD => self.build(),
            op::BINPERSID => self.pop().and_then(|id| self.push(Node::Persistent(id))),
            op::BINPUT => self.u8().and_then(|index| self.memorize(index.into())),
            op::LONG_BINPUT => self.u32().and_then(|index| self.memorize(index)),
            op::MEMOIZE => {
                let index = u32::try_from(self.memo.len()).map_err(|_| "too many memo entries")?;
                self.memorize(index)
            }
            op::BINGET => self.u8().and_then(|index| self.recall(index.into())),
            op::LONG_BINGET => self.u32().and_then(|index| self.recall(index)),
            _ => Err(format!("opcode {code:#04x} does not occur in checkpoints and is not supported").into()),
        }
    }

    fn push(&mut self, node: Node<'a>) -> Result<(), Fault> {
        let id = self.nodes.push(node)?;
        self.refer(id)
    }

    /// Puts a value on the stack, from where it may get into a list.
    fn refer(&mut self, id: NodeId) -> Result<(), Fault> {
        self.nodes.charge(REFERENCE_BYTES)?;
        Ok(memory::push(&mut self.stack, id)?)
    }

    fn top(&self) -> Result<NodeId, Fault> {
        // Values below the last mark cannot be taken before it.
        let floor = self.marks.last().map_or(0, |&height| height);
        match self.stack.last() {
            Some(&top) if self.stack.len() > floor => Ok(top),
            _ => Err("a value is taken from the empty stack".into()),
        }
    }

    fn pop(&mut self) -> Result<NodeId, Fault> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<NodeId>, Fault> {
        let height = self.marks.pop().ok_or("a mark is taken that was not set")?;
        let taken = collected(self.stack.get(height..).unwrap_or_default().iter().copied())?;
        self.stack.truncate(height);
        Ok(taken)
    }

    fn short_tuple(&mut self, len: usize) -> Result<(), Fault> {
        let mut elements = memory::with_room(len)?;
        for _ in 0..len {
            elements.push(self.pop()?);
        }
        elements.reverse();
        self.push(Node::Tuple(elements))
    }

    fn extend(&mut self, new: &[NodeId]) -> Result<(), Fault> {
        let top = self.top()?;
        let elements = self.nodes.list_mut(top).ok_or("elements are added to something that is no list")?;
        Ok(memory::extend(elements, new)?)
    }

    fn insert(&mut self, new: &[(NodeId, NodeId)]) -> Result<(), Fault> {
        let top = self.top()?;
        let entries = self.nodes.dictionary_mut(top);
        let entries = entries.ok_or("entries are added to something that is no dictionary")?;
        Ok(memory::extend(entries, new)?)
    }

    fn object(&mut self, class: NodeId, args: NodeId) -> Result<(), Fault> {
        let id = self.nodes.push_object(class, args)?;
        self.refer(id)
    }

    fn build(&mut self) -> Result<(), Fault> {
        let state = self.pop()?;
        let top = self.top()?;
        let object = self.nodes.object_mut(top).ok_or("a state is given to something that is no object")?;
        object.state = Some(state);
        Ok(())
    }

    fn memorize(&mut self, index: u32) -> Result<(), Fault> {
        let top = self.top()?;
        self.nodes.charge(MEMO_BYTES)?;
        memory::insert(&mut self.memo, index, top)?;
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), Fault> {
        let id = self.memo.get(&index).ok_or_else(|| format!("memo entry {index} was never stored"))?;
        self.refer(*id)
    }

    /// A little-endian integer in two's complement of any length.
    fn long(&mut self, len: usize) -> Result<(), Fault> {
        let bytes = self.take(len)?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let fill = if negative { 0xff } else { 0 };
        let mut all = [fill; 8];
        let fits = bytes.iter().skip(8).all(|&b| b == fill);
        all.iter_mut().zip(bytes).for_each(|(to, &from)| *to = from);
        let value = i64::from_le_bytes(all);
        self.push(if fits && (value < 0) == negative { Node::Int(value) } else { Node::BigInt })
    }

    fn text(&mut self, len: u64) -> Result<(), Fault> {
        let bytes = self.take_long(len)?;
        // Python allows lone surrogates in text, which UTF-8 does not; no text that is needed here has them.
        self.push(std::str::from_utf8(bytes).map_or(Node::Bytes(bytes), Node::Str))
    }

    fn byte_string(&mut self, len: u64) -> Result<(), Fault> {
        let bytes = self.take_long(len)?;
        self.push(Node::Bytes(bytes))
    }

    fn line(&mut self) -> Result<&'a str, Fault> {
        let rest = self.bytes.get(self.at..).ok_or("the pickle ends")?;
        let len = rest.iter().position(|&b| b == b'\n').ok_or("a class name has no end")?;
        let line = self.take(len)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| "a class name is not UTF-8".into())
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.fixed().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        self.fixed().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Fault> {
        self.fixed().map(u64::from_le_bytes)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn take_long(&mut self, len: u64) -> Result<&'a [u8], Fault> {
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(len);
        let slice = end.and_then(|end| self.bytes.get(self.at..end));
        let slice = slice.ok_or_else(|| format!("{len} more bytes are announced than there are"))?;
        self.at += len;
        Ok(slice)
    }
}

/// Alternating keys and values as pairs.
fn pairs(flat: Vec<NodeId>) -> Result<Vec<(NodeId, NodeId)>, Fault> {
    match flat.as_chunks::<2>() {
        (pairs, []) => Ok(collected(pairs.iter().map(|&[key, value]| (key, value)))?),
        _ => Err("a dictionary has a key without a value".into()),
    }
}
