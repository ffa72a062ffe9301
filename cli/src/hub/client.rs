//! Requests to the hub.
//!
//! `hf-hub` has requests, too, but sends the token to whatever host a large file lies on (`Api::metadata` follows the
//! redirect with all its headers), appends what a server sends that ignores `Range`, checks neither sizes nor hashes, and
//! takes a file's name and the names in its cache from the server. Used of it are the addresses and the cache.

use esolm::{Error, Result};
use hf_hub::Repo;
use hf_hub::api::RepoInfo;
use serde_json::Value;
use ureq::http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LOCATION, RANGE,
};
use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use super::files::is_safe;
use super::hash::Hash;
use super::name::{Name, is_commit};
use super::pace::{Paced, Patience};

const MAX_REDIRECTS: usize = 5;
/// Longest description of a repository that is read, in bytes.
const MAX_LISTING: u64 = 4 << 20;

/// A request that failed.
#[derive(Debug)]
pub struct Failure {
    /// What to tell the user.
    pub error: Error,
    /// Whether it may work another time: there is no network, or the hub is busy.
    pub passing: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, passing: false }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// A connection to the hub.
pub struct Client {
    agent: Agent,
    /// `https://huggingface.co`, or what HF_ENDPOINT says.
    endpoint: String,
    token: Option<String>,
    pub patience: Patience,
}

/// What the hub says about a repository at a revision.
pub struct Listing {
    pub commit: String,
    pub files: Vec<String>,
    pub licence: Option<String>,
}

/// What the hub says about a file.
pub struct RemoteFile {
    pub url: String,
    pub size: u64,
    pub hash: Hash,
}

impl Client {
    /// A client with the hub and the token of the environment; `saved_token` is used without HF_TOKEN.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for variables that hold nothing of the kind.
    pub fn from_environment(saved_token: Option<String>) -> Result<Self> {
        let variable = |name| std::env::var(name).ok().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let endpoint = variable("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        if endpoint.parse::<Uri>().ok().and_then(|uri| origin(&uri)).is_none() {
            return Err(Error::InvalidArgument(format!(
                "HF_ENDPOINT: {endpoint:?} is no http or https address"
            )));
        }
        let token = variable("HF_TOKEN").or(saved_token);
        if token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::InvalidArgument("the hub's token has characters that no token has".into()));
        }
        let patience = Patience::from_environment()?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // Redirects are followed below, where it is seen who may have the token.
            .max_redirects(0)
            // Sizes, ranges and hashes are those of the file as it is stored.
            .accept_encoding("identity")
            .user_agent(concat!("esolm/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(patience.0))
            .timeout_recv_response(Some(patience.0))
            .timeout_per_read(Some(patience.0))
            .build();
        Ok(Self { agent: Agent::new_with_config(config), endpoint, token, patience })
    }

    /// The page of a repository, for people.
    pub fn page(&self, name: &Name) -> String {
        format!("{}/{}", self.endpoint, name.repository)
    }

    /// Asks which commit the revision is, which files it has, and what the licence is.
    pub fn listing(&self, name: &Name) -> Result<Listing, Failure> {
        let repo =
            Repo::with_revision(name.repository.clone(), hf_hub::RepoType::Model, name.revision.clone());
        let url = format!("{}/api/{}", self.endpoint, repo.api_url());
        let mut response = self.request(name, &url, false, 0)?;
        let reader = Paced::new(response.body_mut().with_config().limit(MAX_LISTING).reader(), self.patience);
        let bad = |what: String| Failure::from(name.bad(format!("{url}: {what}")));
        let json: Value = serde_json::from_reader(reader).map_err(|error| match error.is_io() {
            true => unreachable(&url, &error),
            false => bad(format!("the description is not JSON: {error}")),
        })?;
        let licence = licence(&json);
        let info: RepoInfo =
            serde_json::from_value(json).map_err(|e| bad(format!("no description of a repository: {e}")))?;
        if !is_commit(&info.sha) {
            return Err(bad(format!("{:?} is no commit", info.sha)));
        }
        let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
        match files.iter().find(|file| !is_safe(file)) {
            Some(file) => Err(bad(format!("the file name {file:?} is not safe; nothing was downloaded"))),
            None => Ok(Listing { commit: info.sha, files, licence }),
        }
    }

    /// Asks for the size and the hash of a file at a commit.
    pub fn describe(&self, name: &Name, commit: &str, file: &str) -> Result<RemoteFile, Failure> {
        let repo = Repo::with_revision(name.repository.clone(), hf_hub::RepoType::Model, commit.into());
        let (path, revision) = (repo.url(), repo.url_revision());
        let url = format!("{}/{path}/resolve/{revision}/{}", self.endpoint, escape(file));
        let response = self.request(name, &url, true, 0)?;
        let headers = response.headers();
        let text = |key: &str| headers.get(key).and_then(|value| value.to_str().ok());
        // A large file lies elsewhere: the hub says in these headers what is to come from there.
        let size = text("x-linked-size").or(text(CONTENT_LENGTH.as_str())).and_then(|size| size.parse().ok());
        let hash = text("x-linked-etag").or(text(ETAG.as_str())).and_then(Hash::from_etag);
        match (size, hash) {
            (Some(size), Some(hash)) => Ok(RemoteFile { url, size, hash }),
            (None, _) => Err(name.bad(format!("{url}: the hub does not say how large the file is")).into()),
            (_, None) => Err(name.bad(format!("{url}: the hub does not say the file's hash")).into()),
        }
    }

    /// Asks for a file from byte `start` on. The answer begins there (206) or at the beginning of the file (200).
    pub fn read(&self, name: &Name, url: &str, start: u64) -> Result<Response<Body>, Failure> {
        let response = self.request(name, url, false, start)?;
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        let begins = |range: &str| range.starts_with(&format!("bytes {start}-"));
        match response.status().as_u16() {
            206 if range.is_none_or(|range| !begins(range)) => {
                Err(name.bad(format!("{url}: asked for bytes from {start}, the hub sends {range:?}")).into())
            }
            _ => Ok(response),
        }
    }

    /// Sends a request and follows redirects; with `head` only those within a host, as the answers in between describe
    /// the file.
    fn request(&self, name: &Name, url: &str, head: bool, start: u64) -> Result<Response<Body>, Failure> {
        let own = self.endpoint.parse().ok().and_then(|uri| origin(&uri));
        let mut at: Uri = url.parse().map_err(|e| name.bad(format!("{url}: {e}")))?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = if head { self.agent.head(&at) } else { self.agent.get(&at) };
            // To the hub itself and to nobody else.
            if let Some(token) = &self.token
                && origin(&at) == own
            {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            if start > 0 {
                request = request.header(RANGE, format!("bytes={start}-"));
            }
            let response = request.call().map_err(|e| unreachable(url, &e))?;
            if !response.status().is_redirection() {
                return self.accept(name, url, response);
            }
            let next = response.headers().get(LOCATION).and_then(|to| target(to, &at));
            let next = next.ok_or_else(|| name.bad(format!("{url}: a redirect to nowhere")))?;
            if head && origin(&next) != origin(&at) {
                return Ok(response);
            }
            at = next;
        }
        Err(name.bad(format!("{url}: more than {MAX_REDIRECTS} redirects")).into())
    }

    /// The response if it is one to go on with, else what it means.
    fn accept(&self, name: &Name, url: &str, response: Response<Body>) -> Result<Response<Body>, Failure> {
        let status = response.status().as_u16();
        let page = self.page(name);
        let what = match (status, self.token.is_some()) {
            (200 | 206, _) => return Ok(response),
            (401 | 403, _) if is_gated(response.headers()) => format!(
                "is gated ({status}): ask for access at {page}, and set HF_TOKEN to a token of that account"
            ),
            (401 | 403, false) => format!(
                "the hub refuses access ({status}): the repository does not exist, or is private or gated; for the \
                 latter, set HF_TOKEN to a token that may read it ({page})"
            ),
            (401 | 403, true) => format!(
                "the hub refuses access ({status}): the repository does not exist, or the token in HF_TOKEN is not \
                 valid or may not read it ({page})"
            ),
            (404, _) => format!("the hub has no such repository, revision or file (404): {url}"),
            _ => format!("the hub answers with status {status}: {url}"),
        };
        Err(Failure { error: name.bad(what), passing: status == 429 || status >= 500 })
    }
}

/// The failure of a request that got no answer.
pub fn unreachable(url: &str, error: &dyn std::fmt::Display) -> Failure {
    let source = std::io::Error::other(format!("the hub cannot be reached or broke off: {error}"));
    Failure { error: Error::Io { file: url.into(), source }, passing: true }
}

fn is_gated(headers: &HeaderMap) -> bool {
    headers.get("x-error-code").is_some_and(|code| code == "GatedRepo")
}

/// Scheme, host and port.
fn origin(uri: &Uri) -> Option<(String, String, u16)> {
    let port = match uri.scheme_str()? {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = uri.host()?.to_ascii_lowercase();
    Some((uri.scheme_str()?.to_owned(), host, uri.port_u16().unwrap_or(port)))
}

/// Where a redirect from `at` leads.
fn target(location: &HeaderValue, at: &Uri) -> Option<Uri> {
    let location = location.to_str().ok()?;
    let (scheme, authority) = (at.scheme_str()?, at.authority()?);
    let absolute = match location {
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => location.to_owned(),
    };
    absolute.parse().ok().filter(|uri| origin(uri).is_some())
}

/// The licence in a description: from the card, else from the tags.
fn licence(json: &Value) -> Option<String> {
    let in_card = json.get("cardData").and_then(|card| card.get("license")).and_then(Value::as_str);
    let tags = json.get("tags").and_then(Value::as_array);
    let in_tags = || tags?.iter().filter_map(Value::as_str).find_map(|tag| tag.strip_prefix("license:"));
    // Of a server's words, what can go to a terminal.
    Some(in_card.or_else(in_tags)?.chars().filter(|c| !c.is_control()).take(100).collect())
}

/// A file's name as part of an address.
fn escape(name: &str) -> String {
    let byte = |b: u8| match b {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
            char::from(b).to_string()
        }
        _ => format!("%{b:02X}"),
    };
    name.bytes().map(byte).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn redirect_leads_where_its_location_says() {
        let at: Uri = "http://a:1/x/y".parse().unwrap();
        for (location, to) in
            [("/z?q=1", "http://a:1/z?q=1"), ("//b/z", "http://b/z"), ("https://c/", "https://c/")]
        {
            let location = HeaderValue::from_static(location);
            assert_eq!(target(&location, &at).unwrap().to_string(), to);
        }
        for location in ["z", "", "file:///etc/passwd", "ftp://a/b"] {
            assert_eq!(target(&HeaderValue::from_static(location), &at), None, "{location}");
        }
    }

    #[test]
    fn origin_is_scheme_host_and_port() {
        let origin = |text: &str| origin(&text.parse().unwrap()).unwrap();
        assert_eq!(origin("https://A.b/x"), origin("https://a.b:443/y"));
        for other in ["http://a.b/x", "https://a.b:444/x", "https://a.b.c/x", "https://b/x"] {
            assert_ne!(origin(other), origin("https://a.b/x"));
        }
        assert_eq!(escape("a b/c?#%.gguf"), "a%20b/c%3F%23%25.gguf");
    }
}
