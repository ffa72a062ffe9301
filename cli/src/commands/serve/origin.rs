//! Pages of sites that ask: which may, and how their browser is told (CORS).

use std::net::IpAddr;

use hyper::body::Incoming;
use hyper::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderValue, ORIGIN, VARY,
};
use hyper::http::uri::Authority;
use hyper::{Method, Request};

use super::failure::Failure;

/// Where a request comes from.
pub enum Page {
    /// No page, or one of its own.
    None,
    /// A page that may ask and read the answer: where there are keys any, as it has to give one; otherwise those of this machine.
    Permitted(HeaderValue),
    /// A page of another site. A browser asks first before it sends JSON elsewhere, but takes a name that its site has since given
    /// this machine's address for the site itself.
    Other,
}

impl Page {
    pub fn of(headers: &HeaderMap, has_keys: bool) -> Self {
        match headers.get(ORIGIN) {
            None => Self::None,
            Some(origin) if has_keys || is_this_machine(origin) => Self::Permitted(origin.clone()),
            Some(_) => Self::Other,
        }
    }

    /// Whether a browser asks if a page may send a request.
    pub fn is_asking_first(&self, request: &Request<Incoming>) -> bool {
        request.method() == Method::OPTIONS
            && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            && !matches!(self, Self::None)
    }

    /// Refuses what pages of other sites send, or ask to send.
    pub fn check(&self) -> Result<(), Failure> {
        if matches!(self, Self::Other) { Err(Failure::other_site()) } else { Ok(()) }
    }

    /// Tells the browser that the page may read the answer.
    pub fn permit(self, headers: &mut HeaderMap) {
        let Self::Permitted(origin) = self else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(VARY, HeaderValue::from_static("Origin"));
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Authorization, *"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }
}

/// Whether a page's origin names no site: an address, or this machine.
fn is_this_machine(origin: &HeaderValue) -> bool {
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    let Some(authority) = authority.and_then(|text| text.parse::<Authority>().ok()) else { return false };
    let host = authority.host().trim_matches(['[', ']']);
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok()
}
