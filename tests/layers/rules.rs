//! The rules of the layout. Each gives a line for each place that breaks it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::source::{Files, Kind, Reference, Source};

/// The folders and files of `src/`, from the top. A line of several is one floor, whose members do not know each
/// other.
pub const FLOORS: &[&[&str]] = &[
    &["lib"],
    // `fuzzing` is for the targets of `fuzz/` alone.
    &["capi", "fuzzing"],
    &["convert"],
    &["quantize"],
    &["evaluate"],
    &["chat"],
    &["context"],
    &["score"],
    &["generate"],
    &["plan", "sample", "forward"],
    &["model"],
    &["ggml"],
    &["gguf", "json"],
    &["memory"],
    GROUND,
];

/// The lowest floor. Its members may use one another, since all of them need `error`.
const GROUND: &[&str] = &["simd", "atomic_file", "rng", "log", "error"];

/// Where `unsafe` may stand.
pub const UNSAFE: [&str; 5] = ["ggml/", "capi/", "forward/cpu/", "memory/", "simd/"];

pub const MAX_LINES: usize = 400;

/// An import of one file from another of the crate.
struct Edge<'a> {
    reference: &'a Reference,
    to: String,
    /// The path leads to a module, whose items are named elsewhere.
    to_module: bool,
}

fn edges(source: &Source) -> Vec<Edge<'_>> {
    let mut edges = Vec::new();
    for reference in &source.references {
        if let Some((to, to_module)) = source.resolve(&reference.module, &reference.path)
            && to != reference.file
        {
            edges.push(Edge { reference, to, to_module });
        }
    }
    edges
}

/// The folder of `src/` that a file is in, or its own name.
fn folder(file: &str) -> &str {
    file.split('/').next().unwrap_or(file).trim_end_matches(".rs")
}

fn floor(folder: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&folder))
}

fn place(reference: &Reference) -> String {
    format!("{}:{}: {}", reference.file, reference.line, reference.path.join("::"))
}

/// A folder imports only from folders below it. Tests may look into their own floor, too.
pub fn upward_imports(source: &Source) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let files: BTreeSet<&str> = source.modules.values().map(|module| folder(&module.file)).collect();
    // A module without a file is the compiler's affair.
    for unknown in files.iter().filter(|folder| !folder.is_empty() && floor(folder).is_none()) {
        found.push(format!("{unknown}: not in the list of floors"));
    }
    for Edge { reference, to, .. } in edges(source) {
        let (from, to) = (folder(&reference.file), folder(&to).to_owned());
        // Code that uses what an import brought in: the import is reported.
        if reference.kind == Kind::Code
            && source.modules[&reference.module].imports.contains_key(&reference.path[0])
        {
            continue;
        }
        let (Some(own), Some(other)) = (floor(from), floor(&to)) else { continue };
        let same_floor = own == other && (reference.in_test || GROUND.contains(&from));
        if from != to && own >= other && !same_floor {
            found.push(format!("{}: {to} is not below {from}", place(reference)));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// No file imports from itself by way of others. A `pub use` counts where the file itself uses the name. Tests do not
/// count.
pub fn circles(source: &Source) -> Vec<String> {
    let mut graph: BTreeMap<&str, BTreeMap<String, &Reference>> = BTreeMap::new();
    for Edge { reference, to, to_module } in edges(source) {
        let named = source.named.get(&reference.file);
        let is_used =
            || reference.path.last().is_some_and(|name| named.is_some_and(|all| all.contains(name)));
        if reference.in_test || to_module || reference.kind == Kind::Reexport && !is_used() {
            continue;
        }
        graph.entry(&reference.file).or_default().entry(to).or_insert(reference);
    }
    let mut found = Vec::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    for &start in graph.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(path) = shortest_circle(&graph, start) {
            seen.extend(path.iter().map(|reference| reference.file.clone()));
            let steps: Vec<String> = path.iter().map(|reference| place(reference)).collect();
            found.push(format!("{} -> {start}", steps.join(" -> ")));
        }
    }
    found
}

/// The shortest way from a file back to itself.
fn shortest_circle<'a>(
    graph: &BTreeMap<&str, BTreeMap<String, &'a Reference>>,
    start: &str,
) -> Option<Vec<&'a Reference>> {
    let mut came_by: BTreeMap<&str, &Reference> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(file) = queue.pop_front() {
        for (to, &reference) in graph.get(file).into_iter().flatten() {
            if came_by.contains_key(to.as_str()) {
                continue;
            }
            came_by.insert(to, reference);
            if to == start {
                let mut path = vec![reference];
                while path[0].file != start {
                    path.insert(0, came_by[path[0].file.as_str()]);
                }
                return Some(path);
            }
            queue.push_back(to);
        }
    }
    None
}

/// The command takes nothing from the library but what any program can: no file of it, and not ggml behind its back.
pub fn private_uses(source: &Source, files: &Files) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for reference in source.references.iter().filter(|r| r.path[0] == "ggml_sys") {
        found.push(format!("{}: not the public API of esolm", place(reference)));
    }
    for (file, text) in files {
        for (number, line) in text.lines().enumerate() {
            let code = line.trim_start();
            let takes_file = code.starts_with("#[path") || code.contains("include!(");
            if takes_file {
                found.push(format!("{file}:{}: {code}: not the public API of esolm", number + 1));
            }
        }
    }
    found
}

pub fn long_files(files: &Files) -> Vec<String> {
    let long = files.iter().map(|(file, text)| (file, text.lines().count()));
    let long = long.filter(|(_, lines)| *lines > MAX_LINES);
    long.map(|(file, lines)| format!("{file}: {lines} lines, more than {MAX_LINES}")).collect()
}

/// `unsafe` stands in the folders of [`UNSAFE`] alone.
pub fn misplaced_unsafe(source: &Source) -> Vec<String> {
    let outside = |file: &str| !UNSAFE.iter().any(|folder| file.starts_with(folder));
    let all = source.unsafes.iter().filter(|found| outside(&found.file));
    all.map(|found| format!("{}:{}: unsafe outside of {}", found.file, found.line, UNSAFE.join(", ")))
        .collect()
}

/// AVX2's vectors, whose methods are safe only where the processor has the instructions, are named in `simd/` alone.
pub fn uses_of_avx2(source: &Source) -> Vec<String> {
    let has = |path: &[String], names: &[&str]| path.iter().any(|part| names.contains(&part.as_str()));
    let outside = source.references.iter().filter(|found| !found.file.starts_with("simd/"));
    let all = outside.filter(|found| has(&found.path, &["simd"]) && has(&found.path, &["avx2", "Avx2"]));
    all.map(|found| format!("{}:{}: {}", found.file, found.line, found.path.join("::"))).collect()
}

/// Each `unsafe` says in a comment of its own why it is sound: `SAFETY:` for blocks and implementations, `# Safety`
/// for functions. What callers of the C functions promise is in the header's opening comment.
pub fn unexplained_unsafe(source: &Source, files: &Files) -> Vec<String> {
    let mut found = Vec::new();
    for item in &source.unsafes {
        let lines: Vec<&str> = files[&item.file].lines().collect();
        let is_c_function = item.file.starts_with("capi/") && lines[item.line - 1].contains("extern \"C\"");
        let comment = comment_above(&lines, item.line - 1);
        let wanted = if item.is_fn { "# Safety" } else { "SAFETY:" };
        let place = format!("{}:{}", item.file, item.line);
        if !comment.contains(wanted) && !(item.is_fn && (is_c_function || comment.contains("SAFETY:"))) {
            found.push(format!("{place}: unsafe without a comment that says {wanted}"));
        } else if comment.to_lowercase().contains("see above") {
            found.push(format!("{place}: the comment says only 'see above'"));
        }
    }
    found
}

/// The comment on line `at` or above the statement that it is part of.
fn comment_above(lines: &[&str], at: usize) -> String {
    let mut first = at;
    // To the statement's beginning: behind a line that ends another statement or opens a block.
    while first > 0
        && !is_comment(lines[first - 1])
        && !lines[first - 1].trim_end().ends_with([';', '{', '}'])
    {
        first -= 1;
    }
    let mut comment: Vec<&str> = Vec::new();
    let mut above = first;
    while above > 0 && (is_comment(lines[above - 1]) || lines[above - 1].trim_start().starts_with("#[")) {
        above -= 1;
        comment.insert(0, lines[above].trim_start().trim_start_matches('/').trim_start_matches('!').trim());
    }
    comment.join(" ")
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// No two visible types of one name, but for the subcommands' `Args` and definitions of which a `#[cfg]` picks one.
pub fn repeated_types(source: &Source) -> Vec<String> {
    let mut by_name: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for found in source.types.iter().filter(|found| found.name != "Args") {
        by_name.entry(&found.name).or_default().push(found);
    }
    by_name
        .iter()
        .filter(|(_, all)| all.len() > 1 && all.iter().any(|found| !found.conditional))
        .map(|(name, all)| {
            let places: Vec<String> = all.iter().map(|t| format!("{}:{}", t.file, t.line)).collect();
            format!("{}: types called {name}", places.join(", "))
        })
        .collect()
}
