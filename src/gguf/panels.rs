//! Panels: quantized matrices with sixteen rows interleaved, as the CPU's kernels read them.
//!
//! A matrix in panels has the bytes of one in rows, in another order, so that nothing is lost from one to the other. Its rows
//! are filled up to a multiple of sixteen with zeros. Sixteen rows are a panel; it has their blocks in order, the first of all
//! rows, then the second of all rows, and so on. The bytes of a block are cut in fours, and the first four of each row come
//! first, then the second four of each row. Of types whose blocks are not a multiple of four bytes long, the two bytes of
//! the scale are taken out before and stand in front: those of the first row, of the second, and so on.

use super::tensor_type::TensorType;
use crate::error::{Error, Result};
use crate::memory::with_room;

/// Rows of a panel.
pub(crate) const PANEL_ROWS: usize = 16;
/// What is added to a type's number in files if its rows are in panels. Readers that do not know panels refuse such numbers.
const IN_PANELS: u32 = 1600;

/// How the rows of a matrix lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// One after the other, as ggml has them.
    #[default]
    Plain,
    /// Sixteen interleaved.
    Panels,
}

impl Layout {
    /// Its name: `plain` or `panels`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Panels => "panels",
        }
    }

    /// The rows that a matrix of so many rows takes memory for.
    pub(crate) fn padded(self, rows: usize) -> usize {
        match self {
            Self::Plain => rows,
            Self::Panels => rows.next_multiple_of(PANEL_ROWS),
        }
    }

    /// The number in files of a type in this layout.
    pub(crate) fn code(self, ty: TensorType) -> u32 {
        match self {
            Self::Plain => ty.code(),
            Self::Panels => ty.code() + IN_PANELS,
        }
    }

    /// The type and layout with this number in files.
    pub(crate) fn from_code(code: u32) -> Option<(TensorType, Self)> {
        let in_rows = TensorType::from_code(code).map(|ty| (ty, Self::Plain));
        let in_panels = || {
            let ty = TensorType::from_code(code.checked_sub(IN_PANELS)?)?;
            ty.is_quantized().then_some((ty, Self::Panels))
        };
        in_rows.or_else(in_panels)
    }
}

/// Bytes of a tensor of this type, layout and shape, fastest dimension first; `None` as for [`TensorType::tensor_bytes`], or
/// if what lies in panels is no matrix.
pub(crate) fn tensor_bytes(ty: TensorType, layout: Layout, dims: &[usize]) -> Option<usize> {
    match (layout, dims) {
        (Layout::Plain, _) => ty.tensor_bytes(dims),
        (Layout::Panels, &[columns, rows]) if ty.is_quantized() => {
            ty.row_bytes(columns)?.checked_mul(rows.checked_next_multiple_of(PANEL_ROWS)?)
        }
        (Layout::Panels, _) => None,
    }
}

/// Brings a matrix of a quantized type, of which there are `from`, into the layout `to` from the other one.
///
/// # Errors
/// [`Error::Internal`] unless there are as many bytes as the shape says; [`Error::OutOfMemory`].
pub(crate) fn convert(ty: TensorType, dims: &[usize], from: &[u8], to: Layout) -> Result<Vec<u8>> {
    let bytes = |layout| tensor_bytes(ty, layout, dims);
    let row_bytes = dims.first().and_then(|&columns| ty.row_bytes(columns)).filter(|&bytes| bytes > 0);
    let (Some(row_bytes), Some(plain), Some(panels)) =
        (row_bytes, bytes(Layout::Plain), bytes(Layout::Panels))
    else {
        return Err(Error::internal(format!("the shape {dims:?} of {} in panels", ty.name())));
    };
    let order = Order::new(ty, row_bytes);
    let (len, expected) = match to {
        Layout::Plain => (plain, panels),
        Layout::Panels => (panels, plain),
    };
    if from.len() != expected {
        return Err(Error::internal(format!("{} bytes of a matrix, not {expected}", from.len())));
    }
    let mut out = with_room(len)?;
    out.resize(len, 0);
    let panel = row_bytes * PANEL_ROWS;
    for (to_panel, from) in out.chunks_mut(panel).zip(from.chunks(panel)) {
        match to {
            Layout::Plain => {
                for (number, row) in to_panel.chunks_exact_mut(row_bytes).enumerate() {
                    order.each(number, |in_row, in_panel, len| copy(row, in_row, from, in_panel, len));
                }
            }
            Layout::Panels => {
                for (number, row) in from.chunks_exact(row_bytes).enumerate() {
                    order.each(number, |in_row, in_panel, len| copy(to_panel, in_panel, row, in_row, len));
                }
            }
        }
    }
    Ok(out)
}

/// Copies the block of row `number` out of a block of a panel.
#[inline]
pub(crate) fn copy_block(ty: TensorType, number: usize, panel: &[u8], to: &mut [u8]) {
    Order::new(ty, ty.block_bytes())
        .each(number, |in_row, in_panel, len| copy(to, in_row, panel, in_panel, len));
}

/// Copies two or four bytes.
#[inline(always)]
fn copy(to: &mut [u8], at: usize, from: &[u8], from_at: usize, len: usize) {
    if let (Some(to), Some(from)) = (to.get_mut(at..at + len), from.get(from_at..from_at + len)) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }
}

/// Where a row's bytes are in a panel.
struct Order {
    row_bytes: usize,
    block_bytes: usize,
    /// Where a block has the two bytes that stand in front in a panel.
    half: Option<usize>,
}

impl Order {
    fn new(ty: TensorType, row_bytes: usize) -> Self {
        Self { row_bytes, block_bytes: ty.block_bytes(), half: ty.half_field() }
    }

    /// Calls `each` with every piece of row `number` of a panel: where it is in the row, where in the panel, its length.
    #[inline(always)]
    fn each(&self, number: usize, mut each: impl FnMut(usize, usize, usize)) {
        for block in (0..self.row_bytes).step_by(self.block_bytes) {
            let mut panel = block * PANEL_ROWS;
            if let Some(half) = self.half {
                each(block + half, panel + 2 * number, 2);
                panel += 2 * PANEL_ROWS;
            }
            let start = block + if self.half == Some(0) { 2 } else { 0 };
            for four in 0..self.block_bytes / 4 {
                each(start + 4 * four, panel + 4 * (four * PANEL_ROWS + number), 4);
            }
        }
    }
}
