//! A chat template for which an allocation fails, alone or with all behind it: an error, each in a process of its own. Only
//! the template's parser, the thread and the first call end the process, however many messages there are.

use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;

use esolm::{ChatTemplate, Error, Message};

use super::{ALLOCATIONS, FAILING, FOR_GOOD};

/// Says to a process of its own how many messages there are, which allocation fails, and whether those behind it do, too.
const CASE: &str = "ESOLM_FAILING_ALLOCATION";
/// Most allocations that may end the process: the first ones, of the thread and the parser. (136 with minijinja 3.1.)
const MOST: usize = 140;
/// Allocations that are tried of those of more messages.
const TRIED: usize = 60;

/// Makes values of all kinds, of each message.
const TEMPLATE: &str = "{% macro shown(m) %}{{ m.role|upper }}: {{ m['content'].replace('a', 'bb')|trim }}{% endmacro %}\
    {% set n = namespace(all=[], last={}) %}{% for m in messages %}{% set n.all = n.all + [m.content ~ loop.index] %}\
    {% set n.last = {'text': m.content, 'parts': m.content.split(' ')} %}{{ shown(m) }}{{ n.last|tojson(indent=1) }}\
    {% for c in m.content[::-1][:3] %}{{ c * 2 }}{% endfor %}{{ m.content.title() + m.content|lower }}{% endfor %}\
    {% for x in range(messages|length) if x is odd %}{{ x }}{% endfor %}{{ n.all|join(', ') }}{{ n.last|dictsort }}";

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What `main` does first: in a process that is to try a case, nothing else. Whether it is one.
pub(super) fn in_its_own_process() -> Result<bool> {
    let Ok(case) = std::env::var(CASE) else { return Ok(false) };
    let numbers: std::result::Result<Vec<usize>, _> = case.split(' ').map(str::parse).collect();
    let &[messages, failing, for_good] = numbers?.as_slice() else { return Err("three numbers".into()) };
    let template = ChatTemplate::from_text(TEMPLATE)?;
    let contents: Vec<String> = (0..messages).map(|n| format!("a message 'number' {n} ").repeat(3)).collect();
    let all: Vec<Message<'_>> = contents.iter().map(|content| Message::user(content)).collect();
    ALLOCATIONS.store(0, Ordering::Relaxed);
    FOR_GOOD.store(for_good > 0, Ordering::Relaxed);
    FAILING.store(failing, Ordering::Relaxed);
    let made = template.apply(&all, true);
    FAILING.store(0, Ordering::Relaxed);
    println!("{}", ALLOCATIONS.load(Ordering::Relaxed));
    match made {
        Ok(text) => assert!(text.len() > 100 * messages, "{text}"),
        Err(Error::OutOfMemory(_)) if failing > 0 => (),
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

/// The allocations of a case; `None` if it ended the process.
fn run(messages: usize, failing: usize, for_good: bool) -> Result<Option<usize>> {
    let mut command = Command::new(std::env::current_exe()?);
    let case = format!("{messages} {failing} {}", u8::from(for_good));
    let output = command.env(CASE, case).stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(Some(String::from_utf8(output.stdout)?.trim().parse()?));
    }
    // Anything else would be a fault of the template's.
    assert!(said.contains("memory allocation of"), "{failing}: {said}");
    Ok(None)
}

pub(super) fn templates_are_refused_without_memory() -> Result<()> {
    let mut last = 0;
    // More messages add none that end the process; some of those are tried.
    for (messages, tried) in [(2, usize::MAX), (60, TRIED)] {
        let all = run(messages, 0, false)?.ok_or("it ends without a fault")?;
        for failing in (last + 1..=all).step_by(all / tried + 1) {
            for for_good in [false, true] {
                if run(messages, failing, for_good)?.is_none() {
                    last = failing;
                }
            }
        }
        println!("{messages} messages, {all} allocations: the last that ends the process is number {last}");
        assert!(last <= MOST && all > 2 * MOST);
    }
    Ok(())
}
