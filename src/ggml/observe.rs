//! Statistics of the inputs of weight matrices while a model runs, for the importance matrix.
//!
//! Inside [`observe`], a graph that this thread computes on the CPU is computed in pieces. Each piece ends before a
//! matrix product with a weight; the squares of the product's input are then summed by column.

use std::cell::RefCell;
use std::ops::Range;

use super::weights::Weights;
use crate::error::{Error, Result};
use crate::memory::{collected, copied, filled, push};

/// Statistics of one matrix's inputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observed {
    /// The matrix's name.
    pub(crate) name: String,
    /// Sum of the squared inputs, by column.
    pub(crate) squares: Vec<f64>,
    /// Number of inputs (rows).
    pub(crate) rows: u64,
}

/// The matrices by the addresses of their bytes, sorted.
type Table = Vec<(Range<usize>, Observed)>;

thread_local! {
    static TABLE: RefCell<Option<Table>> = const { RefCell::new(None) };
}

/// Calls `run` and returns its result with the inputs of each matrix of `weights` that its graphs had on this thread.
/// Calls do not nest.
///
/// # Errors
/// [`Error::Unsupported`] if the weights are not on the CPU; what `run` returns.
pub(crate) fn observe<T>(weights: &Weights, run: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Observed>)> {
    /// Ends the observation, also if `run` fails or panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            TABLE.take();
        }
    }

    let mut table = Table::new();
    for tensor in weights.tensors().iter().filter(|t| t.dims.len() > 1) {
        let Some(addresses) = weights.addresses(tensor) else {
            return Err(Error::Unsupported("the inputs of matrices can be observed on the CPU only".into()));
        };
        let columns = tensor.row_len()?;
        let observed = Observed { name: copied(&tensor.name)?, squares: filled(columns, 0.0)?, rows: 0 };
        push(&mut table, (addresses, observed))?;
    }
    table.sort_by_key(|(addresses, _)| addresses.start);
    TABLE.set(Some(table));
    let end = End;
    let result = run()?;
    let table = TABLE.take().ok_or_else(|| Error::internal("two observations at once"))?;
    drop(end);
    Ok((result, collected(table.into_iter().map(|(_, observed)| observed))?))
}

/// Whether this thread's graphs are observed.
pub(super) fn is_on() -> bool {
    TABLE.with_borrow(Option::is_some)
}

/// The matrix that contains `address`.
fn find(table: &mut Table, address: usize) -> Option<&mut Observed> {
    let after = table.partition_point(|(addresses, _)| addresses.start <= address);
    let (addresses, observed) = table.get_mut(after.checked_sub(1)?)?;
    addresses.contains(&address).then_some(observed)
}

/// Whether `node` is a product with an observed matrix.
///
/// # Safety
/// `node` is a node of a complete graph.
pub(super) unsafe fn is_watched(node: *const ggml_sys::ggml_tensor) -> bool {
    // SAFETY: the caller vouches for the node, and a product has two operands.
    let weight = unsafe {
        if (*node).op != ggml_sys::GGML_OP_MUL_MAT {
            return false;
        }
        (*(*node).src[0]).data.addr()
    };
    TABLE.with_borrow_mut(|table| table.as_mut().is_some_and(|table| find(table, weight).is_some()))
}

/// Adds the input of a product to the statistics of its matrix.
///
/// # Safety
/// [`is_watched`] returned true for `node`, and its operands have been computed.
///
/// # Errors
/// [`Error::Internal`] if the input does not fit the matrix.
pub(super) unsafe fn look_at(node: *const ggml_sys::ggml_tensor) -> Result<()> {
    // SAFETY: the caller vouches for the node, and a product has two operands.
    let (weight, input) = unsafe { (&*(*node).src[0], &*(*node).src[1]) };
    TABLE.with_borrow_mut(|table| {
        let observed = table.as_mut().and_then(|table| find(table, weight.data.addr()));
        let observed = observed.ok_or_else(|| Error::internal("the matrix of a product is not observed"))?;
        let [columns, rows, planes, cubes] = input.ne.map(|n| n as usize);
        if observed.squares.len() != columns {
            return Err(Error::internal(format!("'{}' has an input of {columns} columns", observed.name)));
        }
        for row in 0..rows * planes * cubes {
            let (row, plane, cube) = (row % rows, row / rows % planes, row / rows / planes);
            let [element, row_bytes, plane_bytes, cube_bytes] = input.nb;
            let offset = row * row_bytes + plane * plane_bytes + cube * cube_bytes;
            debug_assert_eq!(element, size_of::<f32>());
            // SAFETY: a product's input is f32 with contiguous rows (`Graph::mul_mat` checks), it is in the CPU's
            // memory like the weights, and `row` is one of its rows.
            let values = unsafe {
                std::slice::from_raw_parts(input.data.cast::<u8>().add(offset).cast::<f32>(), columns)
            };
            for (sum, &value) in observed.squares.iter_mut().zip(values) {
                *sum += f64::from(value).powi(2);
            }
            observed.rows += 1;
        }
        Ok(())
    })
}
