//! Expressions of a template.

use minijinja::machinery::ast::{
    BinOp, BinOpKind, Call, CallArg, CompareOpKind, Const, Expr, Slice, UnaryOpKind,
};
use minijinja::value::ValueKind;

use super::budget::{Fault, Outcome, fault};
use super::functions::{filter, function, test};
use super::methods::method;
use super::run::Run;
use super::text::print;
use super::value::{Datum, Entries};

/// The arguments of a call: by position, and by name.
pub(super) type Arguments<'s> = (Vec<Datum>, Vec<(&'s str, Datum)>);

impl<'t, 's> Run<'t, 's> {
    /// The value of an expression. A fault gets the line of the innermost expression that has it.
    pub(super) fn expression(&mut self, expression: &'t Expr<'s>) -> Outcome<Datum> {
        self.budget.items(1)?;
        self.evaluate(expression).map_err(|fault| Fault {
            line: fault.line.or(Some(expression.span().start_line as usize)),
            ..fault
        })
    }

    fn evaluate(&mut self, expression: &'t Expr<'s>) -> Outcome<Datum> {
        match expression {
            Expr::Const(constant) => self.constant(constant),
            Expr::Var(name) => Ok(self.lookup(name.id).unwrap_or(Datum::Undefined)),
            Expr::GetAttr(get) => self.expression(&get.expr)?.attribute(get.name, self.budget),
            Expr::GetItem(get) => {
                let from = self.expression(&get.expr)?;
                from.item(&self.expression(&get.subscript_expr)?, self.budget)
            }
            Expr::Slice(slice) => self.slice(slice),
            Expr::UnaryOp(unary) => {
                let value = self.expression(&unary.expr)?;
                match (&unary.op, value) {
                    (UnaryOpKind::Not, value) => Ok(Datum::Bool(!value.is_true())),
                    (UnaryOpKind::Neg, Datum::Int(value)) => Ok(Datum::Int(value.wrapping_neg())),
                    (UnaryOpKind::Neg, Datum::Float(value)) => Ok(Datum::Float(-value)),
                    (UnaryOpKind::Neg, other) => fault(format!("minus {}", other.kind())),
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
                filter(step.name, &value, &positional, &named, self.budget)
            }
            Expr::Test(asked) => {
                let value = self.expression(&asked.expr)?;
                let (positional, _) = self.arguments(&asked.args)?;
                test(asked.name, &value, positional.first(), self.budget).map(Datum::Bool)
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let items = self.each(&list.items)?;
                Datum::list(items, self.budget)
            }
            Expr::Tuple(tuple) => {
                let items = self.each(&tuple.items)?;
                Datum::list(items, self.budget)
            }
            Expr::Map(map) => {
                let mut entries = Entries::new();
                for (key, value) in map.keys.iter().zip(&map.values) {
                    let key = print(&self.expression(key)?, self.budget)?;
                    self.budget.items(entries.len())?;
                    entries.retain(|(known, _)| **known != *key);
                    entries.push((key.as_str().into(), self.expression(value)?));
                }
                Datum::map(entries, self.budget)
            }
        }
    }

    fn each(&mut self, expressions: &'t [Expr<'s>]) -> Outcome<Vec<Datum>> {
        expressions.iter().map(|expression| self.expression(expression)).collect()
    }

    fn constant(&self, constant: &Const) -> Outcome<Datum> {
        let value = &constant.value;
        match value.kind() {
            ValueKind::None => Ok(Datum::None),
            ValueKind::Bool => Ok(Datum::Bool(value.is_true())),
            ValueKind::String => Datum::text(value.as_str().unwrap_or_default(), self.budget),
            ValueKind::Number if value.is_integer() => {
                value.as_i64().map(Datum::Int).ok_or_else(|| Fault::new("a number is too large"))
            }
            ValueKind::Number => f64::try_from(value.clone())
                .map(Datum::Float)
                .map_err(|_| Fault::new("a number that is none")),
            other => fault(format!("a constant that is a {other}")),
        }
    }

    fn slice(&mut self, slice: &'t Slice<'s>) -> Outcome<Datum> {
        let from = self.expression(&slice.expr)?;
        let mut bounds = [None; 3];
        for (bound, given) in bounds.iter_mut().zip([&slice.start, &slice.stop, &slice.step]) {
            if let Some(given) = given {
                *bound = match self.expression(given)? {
                    Datum::None => None,
                    Datum::Int(value) => Some(value),
                    other => return fault(format!("a slice to {}", other.kind())),
                };
            }
        }
        from.slice(bounds, self.budget)
    }

    fn binary(&mut self, binary: &'t BinOp<'s>) -> Outcome<Datum> {
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
                let mut text = print(&left, self.budget)?;
                text.push_str(&print(&right, self.budget)?);
                return Datum::text(&text, self.budget);
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

    fn compare(&self, op: CompareOpKind, left: &Datum, right: &Datum) -> Outcome<bool> {
        use CompareOpKind as Op;
        let ordering = match op {
            Op::Eq => return left.equals(right, self.budget),
            Op::Ne => return left.equals(right, self.budget).map(|same| !same),
            Op::In => return right.contains(left, self.budget),
            Op::NotIn => return right.contains(left, self.budget).map(|there| !there),
            _ => match (left, right) {
                (Datum::Text(a), Datum::Text(b)) => {
                    self.budget.bytes(a.len().min(b.len()))?;
                    Some(a.cmp(b))
                }
                _ => match (left.as_number(), right.as_number()) {
                    (Some(a), Some(b)) => a.partial_cmp(&b),
                    _ => return fault(format!("{} compared with {}", left.kind(), right.kind())),
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

    fn arithmetic(&self, op: BinOpKind, left: &Datum, right: &Datum) -> Outcome<Datum> {
        use BinOpKind as Op;
        let budget = self.budget;
        let overflow = || Fault::new("a number is too large");
        match (op, left, right) {
            (Op::Add, Datum::Text(a), Datum::Text(b)) => {
                budget.bytes(a.len() + b.len())?;
                Ok(Datum::Text([&**a, &**b].concat().into()))
            }
            (Op::Add, Datum::List(a), Datum::List(b)) => {
                budget.items(a.items.len() + b.items.len())?;
                Datum::list(a.items.iter().chain(&b.items).cloned().collect(), budget)
            }
            (Op::Mul, Datum::Text(text), Datum::Int(count)) => {
                let count = usize::try_from(*count).unwrap_or(0);
                budget.product(count, text.len().max(1))?;
                Ok(Datum::Text(text.repeat(count).into()))
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
                _ => fault(format!("an operation on {} and {}", left.kind(), right.kind())),
            },
        }
    }

    /// Calls a function, a method or a macro.
    pub(super) fn call(&mut self, call: &'t Call<'s>) -> Outcome<Datum> {
        if let Expr::GetAttr(get) = &call.expr {
            let of = self.expression(&get.expr)?;
            let (positional, named) = self.arguments(&call.args)?;
            return method(get.name, &of, &positional, &named, self.budget);
        }
        let Expr::Var(name) = &call.expr else { return fault("a call of what is no name") };
        let (positional, named) = self.arguments(&call.args)?;
        match self.lookup(name.id) {
            Some(Datum::Macro(number)) => self.call_macro(number, positional, named),
            Some(other) => fault(format!("'{}' is {}, which cannot be called", name.id, other.kind())),
            None => function(name.id, positional, named, self.budget),
        }
    }

    /// The values of a call's arguments.
    pub(super) fn arguments(&mut self, given: &'t [CallArg<'s>]) -> Outcome<Arguments<'s>> {
        let (mut positional, mut named) = (Vec::new(), Vec::new());
        for argument in given {
            match argument {
                CallArg::Pos(value) => positional.push(self.expression(value)?),
                CallArg::Kwarg(name, value) => named.push((*name, self.expression(value)?)),
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                    return fault("arguments with '*' are not supported");
                }
            }
        }
        Ok((positional, named))
    }
}
