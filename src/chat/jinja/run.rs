//! Runs the statements of a template.

use std::rc::Rc;

use minijinja::machinery::ast::{Expr, ForLoop, Macro, Stmt};

use super::budget::{Budget, Fault, Outcome, fault};
use super::functions::filter;
use super::text::print;
use super::value::{Datum, Entries};

/// How deep macros may call each other.
const MAX_CALLS: usize = 24;

/// What comes after a statement.
#[derive(PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// A template that runs.
pub(super) struct Run<'t, 's> {
    pub(super) budget: &'t Budget,
    /// Most bytes of text.
    most: usize,
    /// Names and their values, the innermost last.
    frames: Vec<Vec<(Rc<str>, Datum)>>,
    macros: Vec<&'t Macro<'s>>,
    /// Macros that are running.
    calls: usize,
    /// The text, and those of macros and `set` blocks that are being made.
    texts: Vec<String>,
}

/// The text of a template with these variables, which has at most `most` bytes.
pub(super) fn run<'t>(
    template: &'t Stmt<'_>,
    variables: Entries,
    most: usize,
    budget: &'t Budget,
) -> Outcome<String> {
    let (frames, texts) = (vec![variables, Vec::new()], vec![String::new()]);
    let mut run = Run { budget, most, frames, macros: Vec::new(), calls: 0, texts };
    run.statement(template)?;
    Ok(run.texts.pop().unwrap_or_default())
}

impl<'t, 's> Run<'t, 's> {
    fn statements(&mut self, all: &'t [Stmt<'s>]) -> Outcome<Flow> {
        for statement in all {
            let flow = self.statement(statement)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'t Stmt<'s>) -> Outcome<Flow> {
        self.budget.items(1)?;
        match statement {
            Stmt::Template(template) => return self.statements(&template.children),
            Stmt::EmitRaw(raw) => self.emit(raw.raw)?,
            Stmt::EmitExpr(emit) => {
                let text = print(&self.expression(&emit.expr)?, self.budget)?;
                self.emit(&text)?;
            }
            Stmt::IfCond(branch) => {
                let holds = self.expression(&branch.expr)?.is_true();
                return self.statements(if holds { &branch.true_body } else { &branch.false_body });
            }
            Stmt::ForLoop(each) => self.for_loop(each)?,
            Stmt::Set(set) => {
                let value = self.expression(&set.expr)?;
                self.assign(&set.target, value)?;
            }
            Stmt::SetBlock(set) => {
                let text = self.capture(|run| run.statements(&set.body))?;
                let value = self.filtered(set.filter.as_ref(), text)?;
                self.assign(&set.target, value)?;
            }
            Stmt::FilterBlock(block) => {
                let text = self.capture(|run| run.statements(&block.body))?;
                let text = print(&self.filtered(Some(&block.filter), text)?, self.budget)?;
                self.emit(&text)?;
            }
            Stmt::WithBlock(with) => {
                self.frames.push(Vec::new());
                for (target, expression) in &with.assignments {
                    let value = self.expression(expression)?;
                    self.assign(target, value)?;
                }
                let flow = self.statements(&with.body)?;
                self.frames.pop();
                return Ok(flow);
            }
            Stmt::Macro(made) => {
                self.macros.push(made);
                self.define(made.name, Datum::Macro(self.macros.len() - 1));
            }
            Stmt::Do(call) => {
                self.call(&call.call)?;
            }
            Stmt::AutoEscape(block) => return self.statements(&block.body),
            Stmt::Break(_) => return Ok(Flow::Break),
            Stmt::Continue(_) => return Ok(Flow::Continue),
            Stmt::CallBlock(block) => {
                return Err(at(block.span().start_line, "call blocks are not supported"));
            }
        }
        Ok(Flow::Next)
    }

    /// Runs the body of a loop for each item.
    fn for_loop(&mut self, each: &'t ForLoop<'s>) -> Outcome<()> {
        if each.recursive {
            return fault("recursive loops are not supported");
        }
        let mut items = self.expression(&each.iter)?.elements(self.budget)?;
        if let Some(condition) = &each.filter_expr {
            let mut kept = Vec::new();
            for item in items {
                self.frames.push(Vec::new());
                self.assign(&each.target, item.clone())?;
                if self.expression(condition)?.is_true() {
                    kept.push(item);
                }
                self.frames.pop();
            }
            items = kept;
        }
        if items.is_empty() {
            self.frames.push(Vec::new());
            self.statements(&each.else_body)?;
            self.frames.pop();
            return Ok(());
        }
        for (index, item) in items.iter().enumerate() {
            self.frames.push(Vec::new());
            self.assign(&each.target, item.clone())?;
            let state = self.loop_state(&items, index)?;
            self.define("loop", state);
            let flow = self.statements(&each.body)?;
            self.frames.pop();
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// The variable `loop`.
    fn loop_state(&self, items: &[Datum], index: usize) -> Outcome<Datum> {
        let beside = |at: Option<usize>| {
            at.and_then(|at| items.get(at)).map_or(Datum::Undefined, |item| match item {
                // It would be nested in the loop's state.
                Datum::Namespace(_) => Datum::Undefined,
                other => other.clone(),
            })
        };
        let (count, number) = (items.len(), |value: usize| Datum::Int(value as i64));
        let entries = [
            ("index", number(index + 1)),
            ("index0", number(index)),
            ("revindex", number(count - index)),
            ("revindex0", number(count - index - 1)),
            ("first", Datum::Bool(index == 0)),
            ("last", Datum::Bool(index + 1 == count)),
            ("length", number(count)),
            ("previtem", beside(index.checked_sub(1))),
            ("nextitem", beside(Some(index + 1))),
        ];
        Datum::map(entries.into_iter().map(|(name, value)| (name.into(), value)).collect(), self.budget)
    }

    /// Assigns to a name, several names, or an attribute of a namespace.
    fn assign(&mut self, target: &'t Expr<'s>, value: Datum) -> Outcome<()> {
        match target {
            Expr::Var(name) => self.define(name.id, value),
            Expr::GetAttr(attribute) => self.expression(&attribute.expr)?.set(attribute.name, value)?,
            Expr::List(list) => self.assign_each(&list.items, value)?,
            Expr::Tuple(tuple) => self.assign_each(&tuple.items, value)?,
            other => return fault(format!("{} cannot be assigned to", other.description())),
        }
        Ok(())
    }

    fn assign_each(&mut self, targets: &'t [Expr<'s>], value: Datum) -> Outcome<()> {
        let values = value.elements(self.budget)?;
        if values.len() != targets.len() {
            return fault(format!("{} values for {} names", values.len(), targets.len()));
        }
        for (target, value) in targets.iter().zip(values) {
            self.budget.items(1)?;
            self.assign(target, value)?;
        }
        Ok(())
    }

    /// Gives a name of the innermost frame a value.
    pub(super) fn define(&mut self, name: &str, value: Datum) {
        let Some(frame) = self.frames.last_mut() else { return };
        match frame.iter_mut().find(|(known, _)| **known == *name) {
            Some((_, place)) => *place = value,
            None => frame.push((name.into(), value)),
        }
    }

    /// The value of a name.
    pub(super) fn lookup(&self, name: &str) -> Option<Datum> {
        let known = self.frames.iter().rev().flatten().find(|(known, _)| **known == *name);
        known.map(|(_, value)| value.clone())
    }

    /// Calls a macro: its text.
    pub(super) fn call_macro(
        &mut self,
        number: usize,
        positional: Vec<Datum>,
        named: Vec<(&str, Datum)>,
    ) -> Outcome<Datum> {
        let Some(&made) = self.macros.get(number) else { return fault("a macro that is not there") };
        if self.calls == MAX_CALLS {
            return fault(format!("macros call each other more than {MAX_CALLS} deep"));
        }
        if positional.len() > made.args.len() {
            return fault(format!("macro '{}' takes {} arguments", made.name, made.args.len()));
        }
        // A macro sees what is defined outside of all loops, and its arguments.
        let outer = self.frames.split_off(2.min(self.frames.len()));
        self.frames.push(Vec::new());
        self.calls += 1;
        let first_default = made.args.len() - made.defaults.len();
        let mut positional = positional.into_iter();
        for (index, argument) in made.args.iter().enumerate() {
            let by_name =
                named.iter().find(|(name, _)| matches!(argument, Expr::Var(var) if var.id == *name));
            let given = positional.next().or_else(|| by_name.map(|(_, value)| value.clone()));
            let default = index.checked_sub(first_default).and_then(|index| made.defaults.get(index));
            let value = match (given, default) {
                (Some(value), _) => value,
                (None, Some(default)) => self.expression(default)?,
                (None, None) => Datum::Undefined,
            };
            self.assign(argument, value)?;
        }
        let text = self.capture(|run| run.statements(&made.body))?;
        self.calls -= 1;
        self.frames.truncate(2);
        self.frames.extend(outer);
        Ok(text)
    }

    /// The text that `body` writes.
    fn capture(&mut self, body: impl FnOnce(&mut Self) -> Outcome<Flow>) -> Outcome<Datum> {
        self.texts.push(String::new());
        body(self)?;
        Ok(Datum::Text(self.texts.pop().unwrap_or_default().into()))
    }

    /// A value that goes through a chain of filters, whose innermost has none of its own.
    fn filtered(&mut self, chain: Option<&'t Expr<'s>>, value: Datum) -> Outcome<Datum> {
        match chain {
            None => Ok(value),
            Some(Expr::Filter(step)) => {
                let value = self.filtered(step.expr.as_ref(), value)?;
                let (positional, named) = self.arguments(&step.args)?;
                filter(step.name, &value, &positional, &named, self.budget)
            }
            Some(other) => fault(format!("{} is no filter", other.description())),
        }
    }

    /// Appends to the text.
    fn emit(&mut self, text: &str) -> Outcome<()> {
        self.budget.bytes(text.len())?;
        let Some(to) = self.texts.last_mut() else { return fault("there is no text to write to") };
        if to.len().saturating_add(text.len()) > self.most {
            return fault(format!("it writes more than {} bytes", self.most));
        }
        if to.try_reserve(text.len()).is_err() {
            return fault("there is no memory for its text");
        }
        to.push_str(text);
        Ok(())
    }
}

/// A fault at a line.
pub(super) fn at(line: impl Into<usize>, what: impl Into<String>) -> Fault {
    Fault { what: what.into(), line: Some(line.into()), raised: false }
}
