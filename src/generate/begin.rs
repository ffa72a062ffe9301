//! Beginning and going on: prompts and parameters become sequences with an order and a schedule.

use super::request::{GenerateParams, Prompt};
use super::rules::{Beginning, SequenceRules};
use super::sequence::Sequence;
use super::session::Session;
use super::start::Start;
use super::window_size::WindowSize;
use crate::error::{Error, Result};
use crate::forward::ModelRunner;
use crate::memory::reserve;
use crate::model::Variant;
use crate::plan::{Order, Plan, arrange};
use crate::rng::{Purpose, Rng};
use crate::sample::SamplingParams;
use crate::simd::DefaultFloats;

impl Session {
    /// Begins a generation of one sequence per prompt; see [`Context::begin`](crate::Context::begin).
    pub(crate) fn begin(
        &mut self,
        runner: &mut ModelRunner,
        prompts: &[Prompt],
        params: &GenerateParams<'_>,
    ) -> Result<()> {
        self.prepare(runner, prompts, params, Start { first: 0, resume: false, keep: None, beside: false })
    }

    /// Goes on from the known tokens; see [`Context::extend`](crate::Context::extend).
    pub(crate) fn extend(
        &mut self,
        runner: &mut ModelRunner,
        prompts: &[Prompt],
        params: &GenerateParams<'_>,
    ) -> Result<()> {
        runner.model.config().variant.check_keeps_cache("extended")?;
        let count = self.active().len();
        if prompts.len() != count {
            let given = prompts.len();
            return Err(Error::invalid(format!("{given} prompts to go on with {count} sequences")));
        }
        // One that has left stays away.
        let left =
            self.active().iter().zip(prompts).position(|(of, prompt)| !of.in_use && !prompt.known.is_empty());
        if let Some(number) = left {
            return Err(Error::invalid(format!(
                "a prompt to go on with sequence {number}, which was removed"
            )));
        }
        self.prepare(runner, prompts, params, Start { first: 0, resume: true, keep: None, beside: false })
    }

    /// Begins sequences or goes on with them.
    pub(super) fn prepare(
        &mut self,
        runner: &mut ModelRunner,
        prompts: &[Prompt],
        params: &GenerateParams<'_>,
        start: Start,
    ) -> Result<()> {
        let _floats = DefaultFloats::set();
        let total = if params.length == 0 { runner.length } else { params.length };
        check_begin(runner, prompts.len(), total)?;
        // Everything is checked before anything changes.
        params.validate(runner.model.config(), prompts.len())?;
        self.check_all(runner, prompts, params, total, start)?;
        if start.beside {
            self.clear_damaged_cache(runner);
            self.forget_step();
        } else {
            self.start_anew(runner);
        }
        let shared = if start.beside && !start.resume { self.share_prefix(runner, start.first)? } else { 0 };
        let mut beginnings = std::mem::take(&mut self.beginnings);
        let each = beginnings.drain(..).zip(prompts).enumerate();
        let begin = |(stream, (beginning, prompt)): (usize, (Beginning, _))| match beginning.length {
            0 => Ok(()),
            _ => self.begin_sequence(runner, (start, stream), prompt, params, beginning, shared),
        };
        let begun = { each }.try_for_each(begin);
        // With its memory.
        self.beginnings = beginnings;
        if let Err(error) = begun {
            // Room was made for all that is usual. What is half begun is of no use.
            match self.sequences.get_mut(start.first).filter(|_| start.beside) {
                Some(sequence) => sequence.leave(),
                None => self.reset(),
            }
            return Err(error);
        }
        if !start.beside {
            self.together = self.arrivals;
        }
        self.count_steps(runner.model.config());
        Ok(())
    }

    /// Begins the `stream`th sequence of `start`, or goes on with it, as was checked. The first `shared` of its slots have keys and
    /// values already.
    fn begin_sequence(
        &mut self,
        runner: &ModelRunner,
        (start, stream): (Start, usize),
        prompt: &Prompt,
        params: &GenerateParams<'_>,
        Beginning { length, rules }: Beginning,
        shared: usize,
    ) -> Result<()> {
        let (model, mask) = (&runner.model, self.mask);
        let config = model.config();
        let missing = || Error::internal("a sequence without a place");
        let sequence = self.sequences.get_mut(start.first + stream).ok_or_else(missing)?;
        match start.resume {
            true => sequence.end_window(mask),
            false => sequence.reset(),
        }
        if let Some(keep) = start.keep {
            sequence.truncate(keep);
        }
        sequence.begin(rules);
        if config.variant.keeps_cache() {
            self.arrivals += 1;
            sequence.joining = self.arrivals;
        }
        sequence.set_known(length, mask, prompt.known.iter().copied())?;
        if sequence.predicts_next(config) {
            sequence.put_in_order();
        }
        // The step needs a row for the first token that it writes.
        let due = sequence.revealed - sequence.given_tokens(config);
        sequence.committed = sequence.committed.max(shared).min(due);
        let tokenizer = sequence.rules.tokenizer(model)?;
        sequence.begin_text(mask, tokenizer)?;
        sequence.rng = Rng::new(params.seed, stream, Purpose::Token);
        sequence.ahead.begin(sequence.rules.depth, params.seed, stream);
        let adaptive = sequence.rules.adaptive;
        sequence.window_size = WindowSize::new(adaptive, model, self.pass_overhead);
        sequence.window = sequence.window_size.next();
        let Sequence { order, tokens, counts, revealed, .. } = sequence;
        let unknown = |p: &u32| tokens.get(*p as usize) == Some(&mask);
        match params.order {
            Order::Custom(given) => order.extend(given.iter().copied().filter(unknown)),
            _ => order.extend((0..length as u32).filter(unknown)),
        }
        if adaptive.is_some_and(|adaptive| adaptive.in_order) {
            counts.clear();
            sequence.diffused = length;
            return sequence.begin_window(runner.length, mask);
        }
        let tail = order.get_mut(*revealed..).unwrap_or_default();
        let plan = params.plan_params(config);
        sequence.diffused = *revealed + arrange(&plan, stream, tail, counts, &mut self.rows);
        Ok(())
    }

    /// Checks the prompts, and works out the lengths and the rules of their sequences.
    fn check_all(
        &mut self,
        runner: &ModelRunner,
        prompts: &[Prompt],
        params: &GenerateParams<'_>,
        total: usize,
        start: Start,
    ) -> Result<()> {
        let config = runner.model.config();
        self.beginnings.clear();
        for (prompt, number) in prompts.iter().zip(start.first..) {
            let is_there = !start.resume || self.has(number);
            let length = if is_there { self.length_of(number, prompt, params, total, start) } else { 0 };
            self.beginnings.push(Beginning { length, rules: SequenceRules::default() });
        }
        let longest = self.beginnings.iter().map(|beginning| beginning.length).max().unwrap_or(total);
        for (index, prompt) in prompts.iter().enumerate() {
            let length = self.beginnings.get(index).map_or(total, |beginning| beginning.length);
            if length == 0 {
                continue;
            }
            params.order.validate(length)?;
            let prefix_only = match config.variant {
                Variant::Ar => true,
                Variant::WeDlm => params.is_left_to_right(config),
                _ => false,
            };
            let numbers = (start.first + index, index);
            self.check_prompt(runner, numbers, prompt, length, start, prefix_only)?;
            let mut rules = SequenceRules::new(params, &runner.model, self.pass_overhead)?;
            rules.depth.check(runner)?;
            if let Some(sequence) = self.sequences.get_mut(start.first + index) {
                sequence.finished.make_room(length, &rules.stop, rules.tokenizer(&runner.model)?)?;
                sequence.ahead.make_room(&rules.depth)?;
            }
            if let Some(constraints) = params.constraints_of(index) {
                let known = |position: u32| {
                    self.known.get(position as usize).copied().filter(|&token| token != self.mask)
                };
                constraints
                    .validate(config, longest, known)
                    .map_err(|error| error.at(format_args!("sequence {index}")))?;
                rules.grammar = self.grammar(runner, constraints, params)?;
                rules.constraints = Some(constraints.sorted()?);
            }
            if let Some(beginning) = self.beginnings.get_mut(index) {
                beginning.rules = rules;
            }
        }
        let others = self.sequences.iter().filter(|sequence| start.beside && sequence.in_use);
        let others: usize = others.map(|sequence| sequence.order.len() - sequence.revealed).sum();
        let most = longest.saturating_mul(prompts.len()).saturating_add(others);
        let others = if start.beside { self.wants.top_log_probs } else { 0 };
        reserve(&mut self.buffers.top_log_probs, params.top_log_probs.max(others).saturating_mul(most))
    }

    /// Begins a generation whose orders and schedules are given; see
    /// [`Context::begin_with_plans`](crate::Context::begin_with_plans).
    pub(crate) fn begin_with_plans(
        &mut self,
        runner: &mut ModelRunner,
        plans: &[Plan],
        sampling: SamplingParams,
        seed: u64,
    ) -> Result<()> {
        let _floats = DefaultFloats::set();
        sampling.validate()?;
        if plans.is_empty() {
            return Err(Error::invalid("no plan to begin"));
        }
        for plan in plans {
            check_begin(runner, plans.len(), plan.order.len())?;
            plan.validate(runner.model.config())?;
        }
        self.start_anew(runner);
        let mask = self.mask;
        for (number, (sequence, plan)) in self.sequences.iter_mut().zip(plans).enumerate() {
            let known = plan.order.iter().copied().zip(plan.known.iter().copied());
            let sampling = sampling.resolved(&runner.model.config().generation_defaults());
            sequence.reset();
            let one_by_one = true;
            sequence.begin(SequenceRules { sampling, one_by_one, ..SequenceRules::default() });
            sequence.set_known(plan.order.len(), mask, known)?;
            sequence.begin_text(mask, None)?;
            sequence.rng = Rng::new(seed, number, Purpose::Token);
            sequence.diffused = plan.known.len() + plan.diffusion;
            sequence.order.clone_from(&plan.order);
            sequence.counts.clone_from(&plan.counts);
        }
        self.count_steps(runner.model.config());
        Ok(())
    }

    /// Makes room for a generation in place of the last one.
    pub(super) fn start_anew(&mut self, runner: &mut ModelRunner) {
        self.clear_damaged_cache(runner);
        self.leave_all();
        runner.clear_profile();
    }

    /// Clears the cache if there may be numbers in it that are not finite.
    pub(super) fn clear_damaged_cache(&mut self, runner: &mut ModelRunner) {
        if std::mem::take(&mut self.cache_not_finite) {
            runner.clear_cache();
            self.lenders_found = 0;
            for sequence in &mut self.sequences {
                sequence.committed = 0;
                // It lies beside the cache.
                sequence.is_banned_there = false;
            }
        }
    }
}

/// Checks that a generation of so many sequences of `length` tokens fits the context.
pub(super) fn check_begin(runner: &ModelRunner, sequences: usize, length: usize) -> Result<()> {
    if runner.cancel.is_cancelled() {
        return Err(Error::Cancelled);
    }
    let most = runner.capacity.sequences;
    if sequences == 0 || sequences > most {
        return Err(Error::invalid(format!("{sequences} sequences; the context holds 1 to {most}")));
    }
    if length == 0 || length > runner.length {
        let longest = runner.length;
        return Err(Error::invalid(format!("length {length}; the context holds 1 to {longest} tokens")));
    }
    Ok(())
}
