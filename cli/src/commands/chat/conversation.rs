//! A conversation and the model's memory of it.

use std::time::{Duration, Instant};

use esolm::{ChatTemplate, Context, Error, Feature, GenerateParams, Message, Prompt, Result, StopReason};

use super::history::Entry;
use crate::allocation::{append, collected, copy_of, push, reserve};
use crate::input::longest_prompt;
use crate::progress::ReadingBar;
use crate::signals::CancelOnInterrupt;

const SYSTEM: &str = "system";

/// Bytes that a template writes around a message, more or less.
const AROUND: u64 = 64;

/// A conversation. The context's only sequence has its tokens, as far as they were computed.
pub struct Conversation<'a> {
    context: Context,
    template: &'a ChatTemplate,
    /// Texts with which the template ends a message, as far as they are no tokens.
    ends: &'a [String],
    /// Those of the next answer.
    params: GenerateParams<'a>,
    messages: Vec<Entry>,
    /// How many of the messages at the beginning the model does not see any more, behind the system's.
    dropped: usize,
    /// How many messages the sequence has, the last of which is an answer; 0 if it has other ones.
    in_sequence: usize,
    /// The last answer of this conversation.
    last: Option<Answer>,
}

/// What an answer took.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// Turns that had to be left out for it.
    pub dropped: usize,
    /// Tokens of the conversation before the answer, and how many of them had keys and values already.
    prompt: usize,
    cached: usize,
    /// Tokens of the answer.
    tokens: usize,
    steps: usize,
    time: Duration,
    seed: u64,
}

impl<'a> Conversation<'a> {
    /// A conversation without a message. `ends` are texts with which the template ends one, as far as they are no tokens.
    pub fn new(
        context: Context,
        template: &'a ChatTemplate,
        ends: &'a [String],
        params: GenerateParams<'a>,
    ) -> Self {
        Self { context, template, ends, params, messages: Vec::new(), dropped: 0, in_sequence: 0, last: None }
    }

    pub fn messages(&self) -> &[Entry] {
        &self.messages
    }

    /// Forgets all messages but the system's.
    pub fn reset(&mut self) {
        self.messages.retain(|entry| entry.role == SYSTEM);
        self.forget();
    }

    /// Begins anew with this text of the system; none if it is empty.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; the conversation is as before.
    pub fn set_system(&mut self, text: &str) -> Result<()> {
        let begun = if text.is_empty() { Vec::new() } else { collected([Entry::new(SYSTEM, text)])? };
        self.begin_with(begun);
        Ok(())
    }

    /// Continues another conversation; if `keep_system` is set, with what the system says in this one.
    pub fn load(&mut self, mut messages: Vec<Entry>, keep_system: bool) {
        if keep_system {
            let systems = systems(&messages);
            messages.splice(..systems, self.messages.drain(..).filter(|entry| entry.role == SYSTEM));
        }
        self.begin_with(messages);
    }

    fn begin_with(&mut self, messages: Vec<Entry>) {
        self.messages = messages;
        self.forget();
    }

    /// Forgets what is not true of other messages.
    fn forget(&mut self) {
        (self.dropped, self.in_sequence, self.last) = (0, 0, None);
    }

    /// Has the model answer a message; `show` gets the answer as it grows and says whether it shall go on. After an error the
    /// conversation is as before.
    pub fn answer(&mut self, message: &str, show: impl FnMut(&str) -> bool) -> Result<Answer> {
        // An interrupt may have come as the last answer ended.
        self.context.cancel_token().reset();
        push(&mut self.messages, Entry::new("user", message)?)?;
        let dropped = self.dropped;
        let answered = self.begin().and_then(|began| {
            let (text, answer) = self.write(began, show)?;
            reserve(&mut self.messages, 1)?;
            Ok((Entry::new("assistant", &text)?, answer))
        });
        match answered {
            Ok((entry, answer)) => {
                self.messages.push(entry);
                let as_shown = self.ends_as_shown(answer).unwrap_or(false);
                self.in_sequence = if as_shown { self.messages.len() } else { 0 };
                self.last = Some(answer);
                self.params.seed = answer.seed.wrapping_add(1);
                Ok(answer)
            }
            Err(error) => {
                self.messages.pop();
                (self.dropped, self.in_sequence) = (dropped, 0);
                if self.context.has_sequence(0) {
                    self.context.remove_sequence(0)?;
                }
                Err(error)
            }
        }
    }

    /// Whether the sequence ends with the answer that was shown, and perhaps the template's own end. Other stop strings are in
    /// it, too.
    fn ends_as_shown(&self, answer: Answer) -> Result<bool> {
        if self.context.stop_reason(0)? != Some(StopReason::StopString) {
            return Ok(true);
        }
        let written = self.known()?.get(answer.prompt..).unwrap_or_default();
        let text = self.context.model().tokenizer()?.decode(written)?;
        Ok(self.ends.iter().any(|end| text.ends_with(end.as_str())))
    }

    /// Puts the conversation up to the next answer into the sequence.
    fn begin(&mut self) -> Result<Answer> {
        let seed = self.params.seed;
        let began = |dropped, prompt, cached| Answer {
            dropped,
            prompt,
            cached,
            tokens: 0,
            steps: 0,
            time: Duration::ZERO,
            seed,
        };
        let most = self.context.length().saturating_sub(self.least_room());
        if self.in_sequence > 0
            && let Some(behind) = self.behind()?
        {
            let there = self.known()?.len();
            if there + behind.len() <= most {
                self.context.append_sequence(0, None, &Prompt::prefix(&behind)?, &self.params)?;
                return Ok(began(0, there + behind.len(), self.context.cached_tokens(0)?));
            }
        }
        let (tokens, dropped) = self.fitting(most)?;
        let can_keep = self.context.has_sequence(0) && self.context.model().supports(Feature::Extend);
        if !can_keep {
            if self.context.has_sequence(0) {
                self.context.remove_sequence(0)?;
            }
            // As one that joins, which is read in several steps if it is long.
            self.context.add_sequence(&Prompt::prefix(&tokens)?, &self.params)?;
            return Ok(began(dropped, tokens.len(), self.context.cached_tokens(0)?));
        }
        let same = self.known()?.iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        let rest = Prompt::prefix(&tokens[same..])?;
        self.context.append_sequence(0, Some(same), &rest, &self.params)?;
        Ok(began(dropped, tokens.len(), self.context.cached_tokens(0)?))
    }

    /// The tokens that follow the last answer, but for its end, which the sequence has; nothing if they cannot be told.
    fn behind(&self) -> Result<Option<Vec<u32>>> {
        if !self.context.model().supports(Feature::Extend) {
            return Ok(None);
        }
        let seen = self.seen()?;
        let in_sequence = seen.len() - (self.messages.len() - self.in_sequence);
        let tokenizer = self.context.model().tokenizer()?;
        let behind = match self.template.encode_behind(tokenizer, &seen, in_sequence) {
            Ok(behind) => behind,
            // A template may write what came before in another way once an answer follows.
            Err(Error::Unsupported(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let there = self.known()?;
        let both = (0..=behind.len().min(there.len())).rev().find(|&count| there.ends_with(&behind[..count]));
        copy_of(&behind[both.unwrap_or(0)..]).map(Some)
    }

    /// The tokens of as much of the conversation as fits, and how many turns more than before had to be left out.
    fn fitting(&mut self, most: usize) -> Result<(Vec<u32>, usize)> {
        let begins_turn = |&(index, entry): &(usize, &Entry)| index > self.dropped && entry.role == "user";
        let messages = self.messages.iter().skip(self.systems()).enumerate();
        let turns: Vec<usize> = collected(messages.filter(begins_turn).map(|(index, _)| Ok(index)))?;
        let whole = match self.encoded(self.dropped)? {
            Some(tokens) if tokens.len() <= most => return Ok((tokens, 0)),
            whole => whole,
        };
        // If turns have to go, then so many that the next ones do not make others go at once: the rest is computed again. A
        // conversation that was loaded may have a great many of them.
        let enough = most / 4 * 3;
        let (mut low, mut high) = (0, turns.len().saturating_sub(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.encoded(turns[middle])? {
                Some(tokens) if tokens.len() <= enough => high = middle,
                _ => low = middle + 1,
            }
        }
        let (dropped, tokens) = match turns.get(low) {
            Some(&dropped) => (dropped, self.encoded(dropped)?),
            None => (self.dropped, whole),
        };
        match tokens {
            Some(tokens) if tokens.len() <= most => {
                self.dropped = dropped;
                Ok((tokens, low + 1))
            }
            tokens => {
                let has = tokens.map_or("too many".into(), |tokens| tokens.len().to_string());
                Err(Error::InvalidArgument(format!(
                    "the message is too long: with what comes before it, it has {has} tokens, and at most {most} leave room \
                     for an answer"
                )))
            }
        }
    }

    /// The tokens of the conversation without so many messages behind the system's; nothing if it is too long to be tokenized.
    fn encoded(&self, dropped: usize) -> Result<Option<Vec<u32>>> {
        let model = self.context.model();
        let seen = self.seen_without(dropped)?;
        let bytes: u64 = seen.iter().map(|message| message.content.len() as u64 + AROUND).sum();
        if bytes > longest_prompt(model) {
            return Ok(None);
        }
        self.template.encode(model.tokenizer()?, &seen).map(Some)
    }

    /// The tokens of the sequence up to its first gap.
    fn known(&self) -> Result<&[u32]> {
        let mask = self.context.model().config().mask_token_id;
        let tokens = self.context.tokens(0)?;
        let gap = tokens.iter().position(|&token| token == mask).unwrap_or(tokens.len());
        Ok(&tokens[..gap])
    }

    /// The messages that the model sees.
    fn seen(&self) -> Result<Vec<Message<'_>>> {
        self.seen_without(self.dropped)
    }

    fn seen_without(&self, dropped: usize) -> Result<Vec<Message<'_>>> {
        let systems = self.systems();
        let (system, rest) = self.messages.split_at(systems);
        let rest = rest.get(dropped..).unwrap_or_default();
        collected(system.iter().chain(rest).map(|entry| Ok(entry.as_message())))
    }

    /// Number of messages of the system's at the beginning.
    fn systems(&self) -> usize {
        systems(&self.messages)
    }

    /// Tokens that an answer has at least: as many as it may have, or a quarter of the context.
    fn least_room(&self) -> usize {
        let quarter = self.context.length() / 4;
        if self.params.max_tokens == 0 { quarter } else { quarter.min(self.params.max_tokens) }
    }

    /// Runs the steps of an answer.
    fn write(&mut self, began: Answer, mut show: impl FnMut(&str) -> bool) -> Result<(String, Answer)> {
        let started = Instant::now();
        let cancel = self.context.cancel_token();
        let interrupt = CancelOnInterrupt::new(cancel.clone());
        let (mut text, mut tokens, mut steps) = (String::new(), 0, 0);
        let mut reading = Some(ReadingBar::new());
        let ended = loop {
            let step = match self.context.step() {
                Ok(Some(step)) => step,
                Ok(None) | Err(Error::Cancelled) => break Ok(()),
                Err(error) => break Err(error),
            };
            let written = step.updates.len();
            if written > 0 {
                reading = None;
            }
            // Those that read the prompt write nothing.
            steps += usize::from(reading.is_none());
            tokens += written;
            if let Err(error) = append(&mut text, step.text(0)) {
                break Err(error);
            }
            if !show(step.text(0)) {
                break Ok(());
            }
            if let (Some(bar), Ok(read @ 1..)) = (&reading, self.context.cached_tokens(0)) {
                bar.show(read, began.prompt);
            }
        };
        drop(reading);
        drop(interrupt);
        cancel.reset();
        ended.map(|()| (text, Answer { tokens, steps, time: started.elapsed(), ..began }))
    }

    /// What the last answer took, and what the context holds, in lines.
    pub fn stats(&self) -> Result<String> {
        let held = match self.last {
            Some(_) if self.context.has_sequence(0) => self.known()?.len(),
            _ => 0,
        };
        let s = if self.messages.len() == 1 { "" } else { "s" };
        let mut lines = format!(
            "{} message{s}, of which the model does not see {}; {held} of {} tokens in the context\n",
            self.messages.len(),
            self.dropped,
            self.context.length()
        );
        if let Some(Answer { prompt, cached, tokens, steps, time, seed, .. }) = self.last {
            let seconds = time.as_secs_f64();
            lines += &format!(
                "last answer: {tokens} tokens in {steps} steps, {seconds:.2} s ({:.0} tokens/s); {prompt} tokens before it, of \
                 which {} were computed for it; seed {seed}\n",
                tokens as f64 / seconds.max(1e-9),
                prompt - cached.min(prompt),
            );
        }
        Ok(lines)
    }
}

/// Number of messages of the system's at the beginning.
fn systems(messages: &[Entry]) -> usize {
    messages.iter().take_while(|entry| entry.role == SYSTEM).count()
}
