//! Runs the statements of a template.

use minijinja::machinery::ast::{Expr, ForLoop, Macro, Stmt};

use super::budget::{Fault, Outcome, fault};
use super::functions::filter;
use super::text::print;
use super::value::{Datum, Entries, Store, find, set};
use crate::memory::{append, collected, push};

/// How deep macros may call each other.
const MAX_CALLS: usize = 24;
/// How deep statements and expressions may be nested, macros' included: the stack holds several times as many.
const MAX_NESTED: usize = 2000;

/// The frames that everything sees: the variables, and what is defined outside of all loops.
const GLOBAL: usize = 2;

/// What comes after a statement.
#[derive(PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// A template that runs.
pub(super) struct Run<'a> {
    pub(super) store: &'a Store<'a>,
    /// Most bytes of text.
    most: usize,
    /// Names and their values, the innermost last.
    frames: Vec<Entries<'a>>,
    /// The first frame of the macro that is running: it does not see those of its caller, but for the [`GLOBAL`] ones.
    own: usize,
    macros: Vec<&'a Macro<'a>>,
    /// Macros that are running.
    calls: usize,
    /// Statements and expressions that are inside each other.
    nested: usize,
    /// The text, and those of macros and `set` blocks that are being made.
    texts: Vec<String>,
}

/// The text of a template with these variables, which has at most `most` bytes.
pub(super) fn run<'a>(
    template: &'a Stmt<'a>,
    variables: Entries<'a>,
    most: usize,
    store: &'a Store<'a>,
) -> Outcome<String> {
    let frames = collected([variables, Vec::new()].into_iter())?;
    let texts = collected([String::new()].into_iter())?;
    let mut run = Run { store, most, frames, own: GLOBAL, macros: Vec::new(), calls: 0, nested: 0, texts };
    run.statement(template)?;
    Ok(run.texts.pop().unwrap_or_default())
}

impl<'a> Run<'a> {
    fn statements(&mut self, all: &'a [Stmt<'a>]) -> Outcome<Flow> {
        for statement in all {
            let flow = self.statement(statement)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &'a Stmt<'a>) -> Outcome<Flow> {
        self.store.budget.items(1)?;
        self.inside(|run| run.execute(statement))
    }

    /// Does something that is nested one deeper.
    pub(super) fn inside<T>(&mut self, run: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        if self.nested == MAX_NESTED {
            return fault(format_args!("more than {MAX_NESTED} operations inside each other"));
        }
        self.nested += 1;
        let done = run(self);
        self.nested -= 1;
        done
    }

    fn execute(&mut self, statement: &'a Stmt<'a>) -> Outcome<Flow> {
        match statement {
            Stmt::Template(template) => return self.statements(&template.children),
            Stmt::EmitRaw(raw) => self.emit(raw.raw)?,
            Stmt::EmitExpr(emit) => {
                let text = print(&self.expression(&emit.expr)?, self.store)?;
                self.emit(text)?;
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
                let text = print(&self.filtered(Some(&block.filter), text)?, self.store)?;
                self.emit(text)?;
            }
            Stmt::WithBlock(with) => {
                push(&mut self.frames, Vec::new())?;
                for (target, expression) in &with.assignments {
                    let value = self.expression(expression)?;
                    self.assign(target, value)?;
                }
                let flow = self.statements(&with.body)?;
                self.frames.pop();
                return Ok(flow);
            }
            Stmt::Macro(made) => {
                push(&mut self.macros, made)?;
                self.define(made.name, Datum::Macro(self.macros.len() - 1))?;
            }
            Stmt::Do(call) => {
                self.call(&call.call)?;
            }
            Stmt::AutoEscape(block) => return self.statements(&block.body),
            Stmt::Break(_) => return Ok(Flow::Break),
            Stmt::Continue(_) => return Ok(Flow::Continue),
            Stmt::CallBlock(block) => {
                return Err(Fault::new("call blocks are not supported").at(block.span().start_line));
            }
        }
        Ok(Flow::Next)
    }

    /// Runs the body of a loop for each item.
    fn for_loop(&mut self, each: &'a ForLoop<'a>) -> Outcome<()> {
        if each.recursive {
            return fault("recursive loops are not supported");
        }
        let mut items = self.expression(&each.iter)?.elements(self.store)?;
        if let Some(condition) = &each.filter_expr {
            let mut kept = Vec::new();
            for item in items {
                push(&mut self.frames, Vec::new())?;
                self.assign(&each.target, item)?;
                if self.expression(condition)?.is_true() {
                    push(&mut kept, item)?;
                }
                self.frames.pop();
            }
            items = kept;
        }
        if items.is_empty() {
            push(&mut self.frames, Vec::new())?;
            self.statements(&each.else_body)?;
            self.frames.pop();
            return Ok(());
        }
        for (index, item) in items.iter().enumerate() {
            push(&mut self.frames, Vec::new())?;
            self.assign(&each.target, *item)?;
            let state = self.loop_state(&items, index)?;
            self.define("loop", state)?;
            let flow = self.statements(&each.body)?;
            self.frames.pop();
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// The variable `loop`.
    fn loop_state(&self, items: &[Datum<'a>], index: usize) -> Outcome<Datum<'a>> {
        let beside = |at: Option<usize>| {
            at.and_then(|at| items.get(at)).map_or(Datum::Undefined, |&item| match item {
                // It would be nested in the loop's state.
                Datum::Namespace(_) => Datum::Undefined,
                other => other,
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
        Datum::map(collected(entries.into_iter())?, self.store)
    }

    /// Assigns to a name, several names, or an attribute of a namespace.
    fn assign(&mut self, target: &'a Expr<'a>, value: Datum<'a>) -> Outcome<()> {
        match target {
            Expr::Var(name) => self.define(name.id, value)?,
            Expr::GetAttr(attribute) => {
                self.expression(&attribute.expr)?.set(attribute.name, value, &self.store.budget)?;
            }
            Expr::List(list) => self.assign_each(&list.items, value)?,
            Expr::Tuple(tuple) => self.assign_each(&tuple.items, value)?,
            other => return fault(format_args!("{} cannot be assigned to", other.description())),
        }
        Ok(())
    }

    fn assign_each(&mut self, targets: &'a [Expr<'a>], value: Datum<'a>) -> Outcome<()> {
        let values = value.elements(self.store)?;
        if values.len() != targets.len() {
            return fault(format_args!("{} values for {} names", values.len(), targets.len()));
        }
        for (target, value) in targets.iter().zip(values) {
            self.store.budget.items(1)?;
            self.assign(target, value)?;
        }
        Ok(())
    }

    /// Gives a name of the innermost frame a value.
    pub(super) fn define(&mut self, name: &'a str, value: Datum<'a>) -> Outcome<()> {
        let Some(frame) = self.frames.last_mut() else { return fault("there is no frame") };
        set(frame, name, value, &self.store.budget)
    }

    /// The value of a name.
    pub(super) fn lookup(&self, name: &str) -> Outcome<Option<Datum<'a>>> {
        let own = self.frames.iter().skip(self.own).rev();
        for frame in own.chain(self.frames.iter().take(GLOBAL).rev()) {
            if let Some(value) = find(frame, name, &self.store.budget)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Calls a macro: its text.
    pub(super) fn call_macro(
        &mut self,
        number: usize,
        positional: Vec<Datum<'a>>,
        named: &[(&str, Datum<'a>)],
    ) -> Outcome<Datum<'a>> {
        let Some(&made) = self.macros.get(number) else { return fault("a macro that is not there") };
        if self.calls == MAX_CALLS {
            return fault(format_args!("macros call each other more than {MAX_CALLS} deep"));
        }
        if positional.len() > made.args.len() {
            return fault(format_args!("macro '{}' takes {} arguments", made.name, made.args.len()));
        }
        let (outer, height) = (self.own, self.frames.len());
        self.own = height;
        push(&mut self.frames, Vec::new())?;
        self.calls += 1;
        let first_default = made.args.len() - made.defaults.len();
        let mut positional = positional.into_iter();
        for (index, argument) in made.args.iter().enumerate() {
            let by_name =
                named.iter().find(|(name, _)| matches!(argument, Expr::Var(var) if var.id == *name));
            let given = positional.next().or_else(|| by_name.map(|&(_, value)| value));
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
        self.frames.truncate(height);
        self.own = outer;
        Ok(text)
    }

    /// The text that `body` writes.
    fn capture(&mut self, body: impl FnOnce(&mut Self) -> Outcome<Flow>) -> Outcome<Datum<'a>> {
        push(&mut self.texts, String::new())?;
        body(self)?;
        self.store.text(self.texts.pop().unwrap_or_default()).map(Datum::Text)
    }

    /// A value that goes through a chain of filters, whose innermost has none of its own.
    fn filtered(&mut self, chain: Option<&'a Expr<'a>>, value: Datum<'a>) -> Outcome<Datum<'a>> {
        match chain {
            None => Ok(value),
            Some(Expr::Filter(step)) => {
                let value = self.filtered(step.expr.as_ref(), value)?;
                let (positional, named) = self.arguments(&step.args)?;
                filter(step.name, &value, &positional, &named, self.store)
            }
            Some(other) => fault(format_args!("{} is no filter", other.description())),
        }
    }

    /// Appends to the text.
    fn emit(&mut self, text: &str) -> Outcome<()> {
        self.store.budget.bytes(text.len())?;
        let Some(to) = self.texts.last_mut() else { return fault("there is no text to write to") };
        if to.len().saturating_add(text.len()) > self.most {
            return fault(format_args!("it writes more than {} bytes", self.most));
        }
        Ok(append(to, text)?)
    }
}
