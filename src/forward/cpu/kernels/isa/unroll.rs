//! Loops that are unrolled for certain.

/// Runs the block for each of the numbers, which is a constant in it: what depends on it is no branch.
macro_rules! each {
    ($name:ident in $($number:literal)*, $block:block) => {
        each!(@ $name, $block, $($number)*)
    };
    (@ $name:ident, $block:block, $($number:literal)*) => {
        $({
            const $name: usize = $number;
            $block
        })*
    };
}

pub(super) use each;
