//! Serving many: 1, 4 and 16 clients that ask again as soon as they are answered, as sequences of one context that join and
//! leave, and with a context each on one pool of threads. `cargo bench --bench serving [-- MODEL [TOKENS PER STEP]]`
//! And how long the steps of some clients take while prompts of 900 tokens join them, by the rows of prompts that a step feeds:
//! `cargo bench --bench serving -- --long-prompts MODEL`
//! (`--clients=16`: with so many alone; `--profile`: where the time of the one context's steps goes)
//!
//! A request has a prompt of 32 to 95 tokens and gets 128 tokens behind it, in random order if a step writes several. Tokens
//! per second are those that steps wrote; the delay is the time between two steps of a client's request (the first counts
//! from its being asked); operations are the products' (two per weight and row), to be compared with what the processor can do.

#![allow(clippy::expect_used, clippy::indexing_slicing)]

use std::time::{Duration, Instant};

use esolm::{
    Config, Context, ContextParams, GenerateParams, LoadOptions, Model, Order, Prompt, Schedule, ThreadPool,
    ThreadPoolParams,
};

const ANSWER: usize = 128;
/// Tokens of a long prompt.
const LONG: usize = 900;
const WARM_UP: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(12);

/// What was measured, of one client or of all.
#[derive(Default)]
struct Measured {
    tokens: usize,
    /// Rows of the network, and those of the vocabulary's matrix.
    rows: usize,
    outputs: usize,
    delays: Vec<Duration>,
    requests: Vec<Duration>,
}

/// A client, and the request that it waits for.
struct Client {
    seed: u64,
    prompt: usize,
    asked: Instant,
    last_step: Instant,
    first_step: bool,
}

impl Client {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self { seed, prompt: 0, asked: now, last_step: now, first_step: true }
    }

    /// The next request.
    fn ask(&mut self, config: &Config) -> Prompt {
        self.advance();
        let tokens = 32 + (self.seed >> 40) as usize % 64;
        self.ask_with(tokens, config)
    }

    /// The seed of the next request.
    fn advance(&mut self) {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    }

    /// A request with a prompt of `tokens` tokens, which are different each time.
    fn ask_with(&mut self, tokens: usize, config: &Config) -> Prompt {
        self.prompt = tokens;
        self.asked = Instant::now();
        (self.last_step, self.first_step) = (self.asked, true);
        let below = config.mask_token_id.min(config.vocab_size as u32 - 1).max(3);
        let token =
            |place: usize| 2 + ((self.seed >> 20) as u32).wrapping_add(place as u32 * 7919) % (below - 2);
        Prompt::prefix(&(0..self.prompt).map(token).collect::<Vec<_>>()).expect("memory for a prompt")
    }

    /// Notes a step of the request that wrote `tokens` tokens.
    fn note(&mut self, tokens: usize, measured: &mut Measured) {
        let now = Instant::now();
        measured.delays.push(now - self.last_step);
        measured.tokens += tokens;
        measured.outputs += tokens;
        // The tokens of the last step are fed with the masks of this one.
        measured.rows += tokens + if self.first_step { self.prompt } else { tokens };
        (self.last_step, self.first_step) = (now, false);
    }
}

fn params(seed: u64, per_step: &[u32]) -> GenerateParams<'_> {
    GenerateParams {
        seed,
        max_tokens: ANSWER,
        ignore_eos: true,
        alpha_0: if per_step == [1] { 0.0 } else { 1.0 },
        order: Order::Random,
        schedule: Schedule::Custom(per_step),
        ..GenerateParams::default()
    }
}

/// The clients are sequences of one context.
fn joined(model: &Model, clients: usize, per_step: &[u32]) -> Measured {
    let limits = ContextParams { sequences: clients, batch_rows: 512, ..ContextParams::default() };
    let mut context = Context::new(model, &limits).expect("a context");
    let mut clients: Vec<Client> = (0..clients as u64).map(Client::new).collect();
    let mut measured = Measured::default();
    let start = Instant::now();
    let mut warm = false;
    while start.elapsed() < WARM_UP + MEASURED {
        if !warm && start.elapsed() > WARM_UP {
            (measured, warm) = (Measured::default(), true);
        }
        // Sequences have the numbers of their clients, as each leaves before the next one joins.
        for (number, client) in clients.iter_mut().enumerate() {
            if context.has_sequence(number) && context.stop_reason(number).expect("a sequence").is_some() {
                measured.requests.push(client.asked.elapsed());
                context.remove_sequence(number).expect("a sequence");
            }
            if !context.has_sequence(number) {
                let prompt = client.ask(model.config());
                let joined = context.add_sequence(&prompt, &params(client.seed, per_step));
                assert_eq!(joined.expect("a place"), number);
            }
        }
        let step = context.step().expect("a step").expect("sequences are left");
        for written in step.updates.chunk_by(|a, b| a.sequence == b.sequence) {
            clients[written[0].sequence as usize].note(written.len(), &mut measured);
        }
    }
    if std::env::args().any(|argument| argument == "--profile") {
        println!("{:?}", context.profile());
    }
    measured
}

/// Clients of one context that get a token a step, and now and then a prompt of 900 tokens that joins them: the delays of the
/// clients meanwhile, and the times until the long ones have their first token.
fn with_long_prompts(model: &Model, clients: usize, prompt_rows: usize) -> Measured {
    let limits = ContextParams { sequences: clients + 1, prompt_rows, ..ContextParams::default() };
    let mut context = Context::new(model, &limits).expect("a context");
    // The last one has the long prompts. With the number of each one's sequence.
    let mut all: Vec<(Client, Option<usize>)> =
        (0..=clients as u64).map(|seed| (Client::new(seed), None)).collect();
    let mut measured = Measured::default();
    let (start, mut pause) = (Instant::now(), Instant::now());
    while start.elapsed() < WARM_UP + MEASURED {
        for (number, (client, sequence)) in all.iter_mut().enumerate() {
            let long = number == clients;
            if let Some(done) = sequence.filter(|&s| context.stop_reason(s).expect("a sequence").is_some()) {
                context.remove_sequence(done).expect("a sequence");
                (*sequence, pause) = (None, if long { Instant::now() } else { pause });
            }
            if sequence.is_none() && (!long || pause.elapsed() > WARM_UP / 8) {
                let prompt = if long {
                    client.advance();
                    client.ask_with(LONG, model.config())
                } else {
                    client.ask(model.config())
                };
                let max_tokens = if long { 8 } else { ANSWER };
                let params = GenerateParams { max_tokens, ..params(client.seed, &[1]) };
                *sequence = Some(context.add_sequence(&prompt, &params).expect("a place"));
            }
        }
        let step = context.step().expect("a step").expect("sequences are left");
        let (long, others) = all.split_last_mut().expect("a client");
        let joins = long.1.is_some() && long.0.first_step;
        let mut unused = Measured::default();
        for update in step.updates {
            let is_its =
                |(_, sequence): &&mut (Client, Option<usize>)| *sequence == Some(update.sequence as usize);
            if let Some((client, _)) = others.iter_mut().find(is_its) {
                client.note(1, if joins && start.elapsed() > WARM_UP { &mut measured } else { &mut unused });
            } else {
                if joins {
                    measured.requests.push(long.0.asked.elapsed());
                }
                long.0.note(1, &mut unused);
            }
        }
    }
    measured
}

fn long_prompts(model: &Model) {
    println!(
        "clients, rows of prompts a step: delay p50    p95    p99    max ms   first token of the long p50 ms"
    );
    for clients in [4, 15] {
        for rows in [16, 64, 256, usize::MAX] {
            let mut got = with_long_prompts(model, clients, rows);
            let [p50, p95, p99, max] = [0.5, 0.95, 0.99, 1.0].map(|part| percentile(&mut got.delays, part));
            let rows = if rows == usize::MAX { "all".into() } else { rows.to_string() };
            let first = percentile(&mut got.requests, 0.5);
            println!("{clients:>7} {rows:>24} {p50:>15.1} {p95:>6.1} {p99:>6.1} {max:>6.1} {first:>23.0}");
        }
    }
}

/// The clients have a context and a thread each; the contexts share the threads that compute.
fn apart(model: &Model, clients: usize, per_step: &[u32]) -> Measured {
    let pool = ThreadPool::new(&ThreadPoolParams::default()).expect("a pool");
    let limits = ContextParams { batch_rows: 512, ..ContextParams::default() };
    let start = Instant::now();
    let serve = |seed: u64| {
        let mut context = Context::with_pool(model, &limits, &pool).expect("a context");
        let (mut client, mut measured, mut warm) = (Client::new(seed), Measured::default(), false);
        while start.elapsed() < WARM_UP + MEASURED {
            let prompt = client.ask(model.config());
            context.begin(&[prompt], &params(client.seed, per_step)).expect("a generation");
            while start.elapsed() < WARM_UP + MEASURED {
                if !warm && start.elapsed() > WARM_UP {
                    (measured, warm) = (Measured::default(), true);
                }
                let Some(step) = context.step().expect("a step") else {
                    measured.requests.push(client.asked.elapsed());
                    break;
                };
                client.note(step.updates.len(), &mut measured);
            }
        }
        measured
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients as u64).map(|seed| scope.spawn(move || serve(seed))).collect();
        threads.into_iter().fold(Measured::default(), |mut all, thread| {
            let one = thread.join().expect("no panic");
            all.tokens += one.tokens;
            all.rows += one.rows;
            all.outputs += one.outputs;
            all.delays.extend(one.delays);
            all.requests.extend(one.requests);
            all
        })
    })
}

/// The time that the fraction `part` of the times are below, in milliseconds.
fn percentile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    times
        .get(((times.len() as f64 * part) as usize).min(times.len().saturating_sub(1)))
        .map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let path = arguments.next().unwrap_or_else(|| "models/stories-q8_0.gguf".into());
    let per_step: Vec<u32> = arguments.map(|count| count.parse().expect("a number of tokens")).collect();
    let per_step = if per_step.is_empty() { vec![1, 16] } else { per_step };
    let model =
        Model::open(path, &LoadOptions { device: "cpu".into(), ..LoadOptions::default() }).expect("a model");
    let config = model.config();
    if std::env::args().any(|argument| argument == "--long-prompts") {
        assert!(config.context_length > LONG + 8, "a context of {} tokens", config.context_length);
        return long_prompts(&model);
    }
    let block = 4 * config.embedding_length + 2 * config.feed_forward_length;
    let of_blocks = 2 * config.block_count * config.embedding_length * block;
    let of_vocabulary = 2 * config.embedding_length * config.vocab_size;
    for count in per_step {
        println!(
            "{count} tokens a step            tokens/s   delay p50    p95    p99 ms   request p50    p95 ms   Gop/s"
        );
        let only = std::env::args().find_map(|argument| argument.strip_prefix("--clients=")?.parse().ok());
        for clients in only.map_or(vec![1, 4, 16], |clients: usize| vec![clients]) {
            for (name, serve) in [("one context", joined as fn(&_, _, &_) -> _), ("a context each", apart)] {
                let mut got = serve(&model, clients, &[count]);
                let seconds = MEASURED.as_secs_f64();
                let operations = got.rows * of_blocks + got.outputs * of_vocabulary;
                let delays = [0.5, 0.95, 0.99].map(|part| percentile(&mut got.delays, part));
                let requests = [0.5, 0.95].map(|part| percentile(&mut got.requests, part));
                println!(
                    "{clients:>2} clients, {name:14} {:9.0} {:11.1} {:6.1} {:6.1} {:14.0} {:6.0} {:12.0}",
                    got.tokens as f64 / seconds,
                    delays[0],
                    delays[1],
                    delays[2],
                    requests[0],
                    requests[1],
                    operations as f64 / seconds / 1e9,
                );
            }
        }
    }
}
