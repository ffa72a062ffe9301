//! Expressions of a template.

use minijinja::machinery::ast::{
    BinOp, BinOpKind, Call, CallArg, CompareOpKind, Const, Expr, Slice, UnaryOpKind,
};
use minijinja::value::ValueKind;

use super::budget::{Fault, Outcome, fault};
use super::functions::{filter, function, test};
use super::methods::method;
use super::rewrite::{concatenated, repeated};
use super::run::Run;
use super::text::print;
use super::value::{Datum, Entries};
use crate::memory::{push, try_collected, with_room};

/// The arguments of a call: by position, and by name.
pub(super) type Arguments<'a> = (Vec<Datum<'a>>, Entries<'a>);

impl<'a> Run<'a> {
    /// The value of an expression. A fault gets the line of the innermost expression that has it.
    pub(super) fn expression(&mut self, expression: &'a Expr<'a>) -> Outcome<Datum<'a>> {
        self.store.budget.items(1)?;
        self.inside(|run| run.evaluate(expression)).map_err(|fault| fault.at(expression.span().start_line))
    }

    fn evaluate(&mut self, expression: &'a Expr<'a>) -> Outcome<Datum<'a>> {
        match expression {
            Expr::Const(constant) => self.constant(constant),
            Expr::Var(name) => Ok(self.lookup(name.id)?.unwrap_or(Datum::Undefined)),
            Expr::GetAttr(get) => self.expression(&get.expr)?.attribute(get.name, &self.store.budget),
            Expr::GetItem(get) => {
                let from = self.expression(&get.expr)?;
                from.item(&self.expression(&get.subscript_expr)?, &self.store.budget)
            }
            Expr::Slice(slice) => self.slice(slice),
            Expr::UnaryOp(unary) => {
                let value = self.expression(&unary.expr)?;
                match (&unary.op, value) {
                    (UnaryOpKind::Not, value) => Ok(Datum::Bool(!value.is_true())),
                    (UnaryOpKind::Neg, Datum::Int(value)) => Ok(Datum::Int(value.wrapping_neg())),
                    (UnaryOpKind::Neg, Datum::Float(value)) => Ok(Datum::Float(-value)),
                    (UnaryOpKind::Neg, other) => fault(format_args!("minus {}", other.kind())),
                }
            }
            Expr::BinOp(binary) => self.binary(binary),
            Expr::Compare(chain) => {
                let mut left = self.expression(&chain.expr)?;
                for next in &chain.ops {
                    let right = self.expression(&next.expr)?;
                    if !self.compare(next.op, &left, &right)? {
                        return Ok(Datum::Bool(false));
                    }
                    left = right;
                }
                Ok(Datum::Bool(true))
            }
            Expr::IfExpr(choice) => match (self.expression(&choice.test_expr)?.is_true(), &choice.false_expr)
            {
                (true, _) => self.expression(&choice.true_expr),
                (false, Some(other)) => self.expression(other),
                (false, None) => Ok(Datum::Undefined),
            },
            Expr::Filter(step) => {
                let Some(of) = &step.expr else { return fault("a filter of nothing") };
                let value = self.expression(of)?;
                let (positional, named) = self.arguments(&step.args)?;
                filter(step.name, &value, &positional, &named, self.store)
            }
            Expr::Test(asked) => {
                let value = self.expression(&asked.expr)?;
                let (positional, _) = self.arguments(&asked.args)?;
                test(asked.name, &value, positional.first(), &self.store.budget).map(Datum::Bool)
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let items = self.each(&list.items)?;
                Datum::list(items, self.store)
            }
            Expr::Tuple(tuple) => {
                let items = self.each(&tuple.items)?;
                Datum::list(items, self.store)
            }
            Expr::Map(map) => {
                let mut entries: Entries<'a> = with_room(map.keys.len())?;
                for (key, value) in map.keys.iter().zip(&map.values) {
                    let key = print(&self.expression(key)?, self.store)?;
                    self.store.budget.items(entries.len())?;
                    entries.retain(|(known, _)| *known != key);
                    push(&mut entries, (key, self.expression(value)?))?;
                }
                Datum::map(entries, self.store)
            }
        }
    }

    fn each(&mut self, expressions: &'a [Expr<'a>]) -> Outcome<Vec<Datum<'a>>> {
        try_collected(expressions.iter().map(|expression| self.expression(expression)))
    }

    fn constant(&self, constant: &'a Const) -> Outcome<Datum<'a>> {
        let value = &constant.value;
        match value.kind() {
            ValueKind::None => Ok(Datum::None),
            ValueKind::Bool => Ok(Datum::Bool(value.is_true())),
            ValueKind::String => Datum::text(value.as_str().unwrap_or_default(), &self.store.budget),
            ValueKind::Number if value.is_integer() => {
                value.as_i64().map(Datum::Int).ok_or_else(|| Fault::new("a number is too large"))
            }
            ValueKind::Number => f64::try_from(value.clone())
                .map(Datum::Float)
                .map_err(|_| Fault::new("a number that is none")),
            other => fault(format_args!("a constant that is a {other}")),
        }
    }

    fn slice(&mut self, slice: &'a Slice<'a>) -> Outcome<Datum<'a>> {
        let from = self.expression(&slice.expr)?;
        let mut bounds = [None; 3];
        for (bound, given) in bounds.iter_mut().zip([&slice.start, &slice.stop, &slice.step]) {
            if let Some(given) = given {
                *bound = match self.expression(given)? {
                    Datum::None => None,
                    Datum::Int(value) => Some(value),
                    other => return fault(format_args!("a slice to {}", other.kind())),
                };
            }
        }
        from.slice(bounds, self.store)
    }

    fn binary(&mut self, binary: &'a BinOp<'a>) -> Outcome<Datum<'a>> {
        use BinOpKind as Op;
        let left = self.expression(&binary.left)?;
        match binary.op {
            Op::ScAnd if !left.is_true() => return Ok(left),
            Op::ScOr if left.is_true() => return Ok(left),
            _ => (),
        }
        let right = self.expression(&binary.right)?;
        let compared = match binary.op {
            Op::ScAnd | Op::ScOr => return Ok(right),
            Op::Concat => {
                let parts = [print(&left, self.store)?, print(&right, self.store)?];
                return Datum::made(concatenated(&parts)?, self.store);
            }
            Op::Eq => CompareOpKind::Eq,
            Op::Ne => CompareOpKind::Ne,
            Op::Lt => CompareOpKind::Lt,
            Op::Lte => CompareOpKind::Lte,
            Op::Gt => CompareOpKind::Gt,
            Op::Gte => CompareOpKind::Gte,
            Op::In => CompareOpKind::In,
            op => return self.arithmetic(op, &left, &right),
        };
        self.compare(compared, &left, &right).map(Datum::Bool)
    }

    fn compare(&self, op: CompareOpKind, left: &Datum<'a>, right: &Datum<'a>) -> Outcome<bool> {
        use CompareOpKind as Op;
        let ordering = match op {
            Op::Eq => return left.equals(right, &self.store.budget),
            Op::Ne => return left.equals(right, &self.store.budget).map(|same| !same),
            Op::In => return right.contains(left, &self.store.budget),
            Op::NotIn => return right.contains(left, &self.store.budget).map(|there| !there),
            _ => match (left, right) {
                (Datum::Text(a), Datum::Text(b)) => {
                    self.store.budget.compare(a, b)?;
                    Some(a.cmp(b))
                }
                _ => match (left.as_number(), right.as_number()) {
                    (Some(a), Some(b)) => a.partial_cmp(&b),
                    _ => return fault(format_args!("{} compared with {}", left.kind(), right.kind())),
                },
            },
        };
        Ok(ordering.is_some_and(|ordering| match op {
            Op::Lt => ordering.is_lt(),
            Op::Lte => ordering.is_le(),
            Op::Gt => ordering.is_gt(),
            _ => ordering.is_ge(),
        }))
    }

    fn arithmetic(&self, op: BinOpKind, left: &Datum<'a>, right: &Datum<'a>) -> Outcome<Datum<'a>> {
        use BinOpKind as Op;
        let (store, budget) = (self.store, &self.store.budget);
        let overflow = || Fault::new("a number is too large");
        match (op, left, right) {
            (Op::Add, Datum::Text(a), Datum::Text(b)) => {
                budget.bytes(a.len() + b.len())?;
                store.text(concatenated(&[a, b])?).map(Datum::Text)
            }
            (Op::Add, Datum::List(a), Datum::List(b)) => {
                budget.items(a.items.len() + b.items.len())?;
                let mut items = with_room(a.items.len() + b.items.len())?;
                items.extend(a.items.iter().chain(&b.items));
                Datum::list(items, store)
            }
            (Op::Mul, Datum::Text(text), Datum::Int(count)) => {
                let count = usize::try_from(*count).unwrap_or(0);
                budget.product(count, text.len().max(1))?;
                store.text(repeated(text, count)?).map(Datum::Text)
            }
            (Op::Add, Datum::Int(a), Datum::Int(b)) => a.checked_add(*b).map(Datum::Int).ok_or_else(overflow),
            (Op::Sub, Datum::Int(a), Datum::Int(b)) => a.checked_sub(*b).map(Datum::Int).ok_or_else(overflow),
            (Op::Mul, Datum::Int(a), Datum::Int(b)) => a.checked_mul(*b).map(Datum::Int).ok_or_else(overflow),
            (Op::Pow, Datum::Int(a), Datum::Int(b @ 0..)) => {
                let exponent = u32::try_from(*b).ok();
                exponent.and_then(|b| a.checked_pow(b)).map(Datum::Int).ok_or_else(overflow)
            }
            (Op::Rem | Op::FloorDiv | Op::Div, _, Datum::Int(0)) => fault("a division by 0"),
            // Python's go towards minus infinity.
            (Op::Rem, Datum::Int(a), Datum::Int(b)) => {
                let rest = a.wrapping_rem(*b);
                Ok(Datum::Int(if rest != 0 && (rest < 0) != (*b < 0) { rest + b } else { rest }))
            }
            (Op::FloorDiv, Datum::Int(a), Datum::Int(b)) => {
                let (quotient, rest) = (a.wrapping_div(*b), a.wrapping_rem(*b));
                Ok(Datum::Int(if rest != 0 && (rest < 0) != (*b < 0) { quotient - 1 } else { quotient }))
            }
            _ => match (left.as_number(), right.as_number()) {
                (Some(a), Some(b)) => Ok(Datum::Float(match op {
                    Op::Add => a + b,
                    Op::Sub => a - b,
                    Op::Mul => a * b,
                    Op::Div => a / b,
                    Op::FloorDiv => (a / b).floor(),
                    Op::Rem => a.rem_euclid(b),
                    _ => a.powf(b),
                })),
                _ => fault(format_args!("an operation on {} and {}", left.kind(), right.kind())),
            },
        }
    }

    /// Calls a function, a method or a macro.
    pub(super) fn call(&mut self, call: &'a Call<'a>) -> Outcome<Datum<'a>> {
        if let Expr::GetAttr(get) = &call.expr {
            let of = self.expression(&get.expr)?;
            let (positional, named) = self.arguments(&call.args)?;
            return method(get.name, &of, &positional, &named, self.store);
        }
        let Expr::Var(name) = &call.expr else { return fault("a call of what is no name") };
        let (positional, named) = self.arguments(&call.args)?;
        match self.lookup(name.id)? {
            Some(Datum::Macro(number)) => self.call_macro(number, positional, &named),
            Some(other) => fault(format_args!("'{}' is {}, which cannot be called", name.id, other.kind())),
            None => function(name.id, &positional, named, self.store),
        }
    }

    /// The values of a call's arguments.
    pub(super) fn arguments(&mut self, given: &'a [CallArg<'a>]) -> Outcome<Arguments<'a>> {
        let (mut positional, mut named) = (Vec::new(), Vec::new());
        for argument in given {
            match argument {
                CallArg::Pos(value) => push(&mut positional, self.expression(value)?)?,
                CallArg::Kwarg(name, value) => push(&mut named, (*name, self.expression(value)?))?,
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                    return fault("arguments with '*' are not supported");
                }
            }
        }
        Ok((positional, named))
    }
}
