//! The thread that computes: texts join a running context, and leave it when they are complete or nobody waits for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::Instant;

use esolm::{Context, Error, GenerateParams, Model, Result, Step, StopReason};

use super::failure::Failure;
use super::held::HeldBytes;
use super::job::{End, Event, Job, Piece, TokenReport};
use crate::allocation::{append, collected, extend, push};
use crate::signals;

/// How requests reach the thread. Clones are of one thread, which ends with the last of them.
#[derive(Clone)]
pub struct Engine {
    jobs: Sender<Job>,
    /// Texts that wait for a place, and how many may.
    waiting: Arc<AtomicUsize>,
    queue: usize,
    /// Texts that are being written, and how many may be.
    running: Arc<AtomicUsize>,
    places: usize,
    /// Answers that clients have not taken, and how many bytes of them there may be.
    pub unread: HeldBytes,
    most_unread: usize,
}

impl Engine {
    /// Starts the thread, which writes with `params` where a request says nothing else.
    pub fn start(
        context: Context,
        params: GenerateParams<'static>,
        places: usize,
        queue: usize,
        most_unread: usize,
    ) -> Result<(Self, std::thread::JoinHandle<()>)> {
        let (jobs, incoming) = channel();
        let (waiting, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let unread = HeldBytes::default();
        let own = Self {
            jobs,
            waiting: waiting.clone(),
            queue,
            running: running.clone(),
            places,
            unread: unread.clone(),
            most_unread,
        };
        let (queue, texts) = (VecDeque::new(), Vec::new());
        let mut work = Work { context, params, places, incoming, queue, texts, waiting, running, unread };
        let thread = std::thread::Builder::new().name("engine".into()).spawn(move || {
            let _at_the_end = EndsServer;
            work.run();
        });
        let thread =
            thread.map_err(|error| Error::OutOfMemory(format!("a thread that computes: {error}")))?;
        Ok((own, thread))
    }

    /// Hands texts over, all or none.
    pub fn submit(&self, jobs: Vec<Job>) -> std::result::Result<(), Failure> {
        if self.unread.bytes() > self.most_unread {
            return Err(Failure::unread());
        }
        let (count, room) = (jobs.len(), self.queue.saturating_add(self.places));
        if count > room {
            return Err(Failure::too_many_texts(count, room));
        }
        let free = self.places.saturating_sub(self.running.load(Ordering::Relaxed));
        let most = self.queue.saturating_add(free);
        let fits = |waiting: usize| Some(waiting + count).filter(|&all| all <= most);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_err() {
            return Err(Failure::busy());
        }
        for job in jobs {
            self.jobs.send(job).map_err(|_| Failure::ending())?;
        }
        Ok(())
    }

    /// Texts that are written and that wait.
    pub fn load(&self) -> (usize, usize) {
        (self.running.load(Ordering::Relaxed), self.waiting.load(Ordering::Relaxed))
    }
}

/// Ends the server with the thread that computes, which otherwise ends after it: a fault of the library.
struct EndsServer;

impl Drop for EndsServer {
    fn drop(&mut self) {
        signals::end();
    }
}

/// What the thread has.
struct Work {
    context: Context,
    params: GenerateParams<'static>,
    places: usize,
    incoming: Receiver<Job>,
    queue: VecDeque<Job>,
    texts: Vec<Text>,
    waiting: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    unread: HeldBytes,
}

/// A text that is being written.
struct Text {
    job: Job,
    sequence: usize,
    /// Tokens of the prompt that another text had.
    cached: usize,
    /// Reports of tokens behind a gap, by position, and the position of the gap.
    reports: HashMap<u32, TokenReport>,
    gap: u32,
    /// What the last step made final of it.
    fresh: String,
}

impl Text {
    /// Whether its client still waits; whoever does not read events does not.
    fn send(&self, event: Event) -> bool {
        self.job.events.send((self.job.choice, event)).is_ok()
    }

    /// Takes what a step made of it.
    fn take(&mut self, step: &Step<'_>, model: &Model) -> Result<()> {
        append(&mut self.fresh, step.text(self.sequence))?;
        if step.stop_reason(self.sequence).is_some()
            && let Some(suffix) = &self.job.wanted.suffix
            && self.fresh.ends_with(&suffix.text)
        {
            // All of it became final with the last token of the gap.
            self.fresh.truncate(self.fresh.len() - suffix.text.len());
        }
        let Some(top) = self.job.wanted.log_probs else { return Ok(()) };
        // It is there: otherwise nothing is served.
        let tokenizer = model.tokenizer()?;
        let bytes = |token| tokenizer.token_piece(token).map(Option::unwrap_or_default);
        let per_update = step.top_log_probs.len() / step.updates.len().max(1);
        for (index, update) in step.updates.iter().enumerate() {
            if update.sequence as usize != self.sequence {
                continue;
            }
            let likely = step.top_log_probs.get(index * per_update..).unwrap_or_default();
            let likely = likely.iter().take(per_update.min(top));
            let report = TokenReport {
                bytes: bytes(update.token)?,
                log_prob: step.log_probs.get(index).copied().unwrap_or(f64::NEG_INFINITY),
                top: collected(likely.map(|entry| Ok((bytes(entry.token)?, f64::from(entry.log_prob)))))?,
            };
            self.reports.insert(update.position, report);
        }
        Ok(())
    }

    /// What the last step made final, of a text of `length` tokens: behind its end there may be others, which are none of it.
    fn piece(&mut self, length: usize, unread: &HeldBytes) -> Result<Piece> {
        let text = std::mem::take(&mut self.fresh);
        // Beside the text, what passes it on.
        let held = unread.hold(text.len() + 2 * size_of::<Event>());
        let mut piece = Piece { text, tokens: Vec::new(), held };
        while (self.gap as usize) < length
            && let Some(report) = self.reports.remove(&self.gap)
        {
            piece.held.join(unread.hold(report.memory()));
            push(&mut piece.tokens, report)?;
            self.gap += 1;
        }
        Ok(piece)
    }
}

impl Work {
    fn run(&mut self) {
        while self.take_in() {
            self.drop_unwanted();
            self.admit();
            self.running.store(self.texts.len(), Ordering::Relaxed);
            if !self.texts.is_empty() {
                self.step();
            }
            self.running.store(self.texts.len(), Ordering::Relaxed);
        }
    }

    /// Takes in what has come; waits for it if there is nothing else to do. Returns false at the end.
    fn take_in(&mut self) -> bool {
        if self.texts.is_empty() && self.queue.is_empty() {
            let Ok(job) = self.incoming.recv() else { return false };
            self.queue.push_back(job);
        }
        loop {
            match self.incoming.try_recv() {
                Ok(job) => self.queue.push_back(job),
                Err(TryRecvError::Empty) => return true,
                // What is there is still written.
                Err(TryRecvError::Disconnected) => return !(self.texts.is_empty() && self.queue.is_empty()),
            }
        }
    }

    /// Frees the places of those that nobody waits for, or that are out of time.
    fn drop_unwanted(&mut self) {
        let now = Instant::now();
        let is_wanted = |job: &Job| {
            if now > job.deadline {
                let _ = job.events.send((job.choice, Event::Failed(Failure::out_of_time())));
            }
            now <= job.deadline && !job.events.is_closed()
        };
        self.keep_waiting(is_wanted);
        for text in std::mem::take(&mut self.texts) {
            if is_wanted(&text.job) { self.texts.push(text) } else { self.remove(text.sequence) }
        }
    }

    /// Keeps those in the queue that are wanted.
    fn keep_waiting(&mut self, is_wanted: impl Fn(&Job) -> bool) {
        let before = self.queue.len();
        self.queue.retain(is_wanted);
        self.waiting.fetch_sub(before - self.queue.len(), Ordering::Relaxed);
    }

    /// Gives free places to those that wait.
    fn admit(&mut self) {
        while self.texts.len() < self.places
            && let Some(job) = self.queue.pop_front()
        {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            let takes_time = job.wanted.has_grammar();
            let added = job.with_params(&self.params, |prompt, params| {
                // (Before there is a sequence that an error would leave behind.)
                let echo = match job.wanted.echo {
                    true => whole_characters(self.context.model(), &job.prompt)?,
                    false => String::new(),
                };
                let sequence = self.context.add_sequence(prompt, params)?;
                Ok((sequence, self.context.cached_tokens(sequence)?, echo))
            });
            match added {
                Ok((sequence, cached, fresh)) => {
                    let gap = job.prompt.len() as u32;
                    let reports = HashMap::new();
                    self.texts.push(Text { job, sequence, cached, reports, gap, fresh });
                }
                Err(error) => {
                    let _ = job.events.send((job.choice, Event::Failed(error.into())));
                    // A request fails as a whole.
                    self.keep_waiting(|other| !other.events.same_channel(&job.events));
                }
            }
            // A grammar takes its time to be made; those that write go on meanwhile.
            if takes_time {
                break;
            }
        }
    }

    fn step(&mut self) {
        let model = self.context.model().clone();
        let mut ended = Vec::new();
        match self.context.step() {
            Ok(Some(step)) => {
                let take = |text: &mut Text| {
                    text.take(&step, &model).map(|()| step.stop_reason(text.sequence).is_some())
                };
                let taken: Vec<_> = self.texts.iter_mut().map(take).collect();
                for (number, (text, taken)) in self.texts.iter_mut().zip(taken).enumerate() {
                    let piece = taken.and_then(|has_ended| {
                        let length = self.context.tokens(text.sequence)?.len();
                        Ok((text.piece(length, &self.unread)?, has_ended))
                    });
                    let goes_on = match piece {
                        Ok((piece, has_ended)) => {
                            let is_empty = piece.text.is_empty() && piece.tokens.is_empty();
                            (is_empty || text.send(Event::Piece(piece))) && !has_ended
                        }
                        Err(error) => {
                            text.send(Event::Failed(error.into()));
                            false
                        }
                    };
                    if !goes_on {
                        ended.push(number);
                    }
                }
            }
            // All are finished.
            Ok(None) => ended.extend(0..self.texts.len()),
            Err(error) => {
                let failure = Failure::from(error);
                let is_its = |text: &Text| {
                    matches!(self.context.stop_reason(text.sequence), Ok(Some(StopReason::Error)))
                };
                let of_one = self.texts.iter().any(is_its);
                for (number, text) in self.texts.iter().enumerate() {
                    if !of_one || is_its(text) {
                        text.send(Event::Failed(failure.clone()));
                        ended.push(number);
                    }
                }
            }
        }
        for number in ended.into_iter().rev() {
            let text = self.texts.swap_remove(number);
            self.end(&text);
        }
    }

    /// Ends a text, and gives its place back.
    fn end(&mut self, text: &Text) {
        let sequence = text.sequence;
        let prompt_tokens = text.job.given_tokens();
        if let (Ok(Some(reason)), Ok(tokens)) =
            (self.context.stop_reason(sequence), self.context.tokens(sequence))
            && reason != StopReason::Error
        {
            let written_tokens = tokens.len().saturating_sub(prompt_tokens);
            text.send(Event::End(End { reason, prompt_tokens, written_tokens, cached_tokens: text.cached }));
        }
        self.remove(sequence);
    }

    fn remove(&mut self, sequence: usize) {
        // It is there: only this thread removes sequences.
        let _ = self.context.remove_sequence(sequence);
    }
}

/// The text of tokens, without a beginning of a character at their end: it comes with the text behind them.
fn whole_characters(model: &Model, tokens: &[u32]) -> Result<String> {
    let tokenizer = model.tokenizer()?;
    let mut text = tokenizer.decode(tokens)?;
    // A character has four bytes at most, and a token one at least.
    let mut last = Vec::new();
    for &token in tokens.get(tokens.len().saturating_sub(4)..).unwrap_or_default() {
        extend(&mut last, &tokenizer.token_piece(token)?.unwrap_or_default())?;
    }
    let rest = last.utf8_chunks().last().map(|chunk| chunk.invalid()).unwrap_or_default();
    if str::from_utf8(rest).is_err_and(|error| error.error_len().is_none()) {
        // All of it is one sign for what is no character.
        text.pop();
    }
    Ok(text)
}
