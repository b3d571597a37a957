//! The routing table: every public path and who answers it. Nothing else in the gateway decides that.
//!
//! The first row whose pattern and method fit holds; within one path the rows for a method stand before
//! the row for any. A service's new sub-path needs no row where its prefix ends in `{*rest}`; paths with a
//! row of their own are told apart in the metrics.

use http::Method;

use crate::proxy::Lane;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The global service.
    Global,
    /// The region that the caller pins with `X-Region`, else the gateway's own.
    Region,
    /// The home of the cinema or hall in the path, else in `cinema_id` or `hall_id` of the query; without
    /// either as [`Target::Region`].
    Home,
    /// The owner of the show whose id the path carries.
    Show,
    /// The gateway itself.
    Gateway,
}

use Target::{Gateway, Global, Home, Region, Show};

const ANY: &str = "*";

/// (method or `*`, pattern, target)
const TABLE: &[(&str, &str, Target)] = &[
    // Accounts, sessions, policy: one service for the world.
    (ANY, "/.well-known/jwks.json", Global),
    (ANY, "/v1/auth/signup", Global),
    (ANY, "/v1/auth/token", Global),
    (ANY, "/v1/auth/verify", Global),
    (ANY, "/v1/auth/{*rest}", Global),
    (ANY, "/v1/me", Global),
    (ANY, "/v1/me/{*rest}", Global),
    (ANY, "/v1/users", Global),
    (ANY, "/v1/users/{id}", Global),
    (ANY, "/v1/users/{id}/{*rest}", Global),
    (ANY, "/v1/policies", Global),
    (ANY, "/v1/audit", Global),
    // The catalogue is written globally and read from every region's copy.
    (ANY, "/v1/movies/import", Global),
    ("GET", "/v1/movies", Region),
    (ANY, "/v1/movies", Global),
    ("GET", "/v1/movies/{id}", Region),
    (ANY, "/v1/movies/{id}", Global),
    // Cinemas and halls live in their home region.
    (ANY, "/v1/cinemas", Region),
    (ANY, "/v1/cinemas/{id}", Home),
    (ANY, "/v1/cinemas/{id}/halls", Home),
    (ANY, "/v1/cinemas/{id}/{*rest}", Home),
    (ANY, "/v1/halls", Home),
    (ANY, "/v1/halls/{id}", Home),
    (ANY, "/v1/halls/{id}/{*rest}", Home),
    // A show and all under it: its owner.
    (ANY, "/v1/shows", Home),
    (ANY, "/v1/shows/{id}", Show),
    (ANY, "/v1/shows/{id}/seats", Show),
    (ANY, "/v1/shows/{id}/seats/events", Show),
    (ANY, "/v1/shows/{id}/reservations", Show),
    (ANY, "/v1/shows/{id}/check-ins", Show),
    (ANY, "/v1/shows/{id}/{*rest}", Show),
    ("GET", "/v1/reservations", Gateway),
    (ANY, "/v1/reservations", Region),
    (ANY, "/v1/reservations/{id}", Show),
    (ANY, "/v1/reservations/{id}/payments", Show),
    (ANY, "/v1/reservations/{id}/cancel", Show),
    (ANY, "/v1/reservations/{id}/{*rest}", Show),
    ("GET", "/v1/payments", Gateway),
    (ANY, "/v1/payments", Region),
    (ANY, "/v1/payments/{id}", Show),
    (ANY, "/v1/payments/{id}/refunds", Show),
    (ANY, "/v1/payments/{id}/{*rest}", Show),
    (ANY, "/v1/tickets/keys", Region),
    (ANY, "/v1/tickets/{id}", Show),
    (ANY, "/v1/tickets/{id}/{*rest}", Show),
    (ANY, "/v1/webhooks/{*rest}", Region),
    // What operators see and steer: any region answers for the whole platform.
    (ANY, "/v1/cluster", Region),
    (ANY, "/v1/regions/{name}/drain", Region),
    (ANY, "/v1/regions/{name}/undrain", Region),
    (ANY, "/v1/regions/{name}/restored", Region),
    (ANY, "/v1/regions/{name}/give-up", Region),
    // What only the edge knows.
    ("GET", "/v1/regions", Gateway),
    ("GET", "/v1/regions/nearest", Gateway),
    ("GET", "/v1/openapi.json", Gateway),
    ("GET", "/docs", Gateway),
    ("GET", "/account/verify", Gateway),
    ("GET", "/account/reset", Gateway),
    ("GET", "/account/tickets", Gateway),
];

fn fits(row: &str, method: &Method) -> bool {
    row == ANY || row == method.as_str() || (row == "GET" && method == Method::HEAD)
}

/// The target of a request that matched `pattern`. None: the path has no such method.
pub fn target(method: &Method, pattern: &str) -> Option<Target> {
    TABLE.iter().find(|(m, p, _)| *p == pattern && fits(m, method)).map(|(_, _, target)| *target)
}

/// The methods of a path that another target answers than the one asked for `method`; a service behind knows
/// nothing of them.
pub fn elsewhere(method: &Method, pattern: &str) -> &'static [&'static str] {
    let named = TABLE.iter().any(|(m, p, _)| *p == pattern && *m == "GET" && !fits(m, method));
    if named { &["GET", "HEAD"] } else { &[] }
}

/// The patterns that are proxied, each once. Those of the gateway's own handlers are not among them.
pub fn proxied() -> impl Iterator<Item = &'static str> {
    let mut before = "";
    TABLE.iter().filter_map(move |(_, pattern, _)| {
        let first = *pattern != before;
        before = pattern;
        let own = TABLE.iter().any(|(_, p, t)| p == pattern && *t == Gateway);
        (first && !own).then_some(*pattern)
    })
}

/// The target of a documented path such as `/v1/halls/{hall_id}`: which service's word on it counts.
pub fn documented(method: &Method, path: &str) -> Option<Target> {
    TABLE.iter().find(|(m, pattern, _)| matches(pattern, path) && fits(m, method)).map(|row| row.2)
}

fn matches(pattern: &str, path: &str) -> bool {
    let mut wanted = pattern.split('/');
    let mut given = path.split('/');
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(part), Some(_)) if part.starts_with("{*") => return true,
            // A fixed part of the pattern is not met by a parameter of the document, nor the reverse.
            (Some(part), Some(segment)) if part.starts_with('{') && segment.starts_with('{') => {}
            (Some(part), Some(segment)) if part == segment => {}
            _ => return false,
        }
    }
}

/// How a request's body goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// Held whole, so that the request can be repeated elsewhere.
    Buffered { max_bytes: usize },
    /// Passed on as it comes; such a request is sent once.
    Streamed { max_bytes: usize },
}

pub fn body_rule(pattern: &str) -> BodyRule {
    match pattern {
        "/v1/movies/import" => BodyRule::Streamed { max_bytes: 64 * 1024 * 1024 },
        _ => BodyRule::Buffered { max_bytes: common::http::MAX_BODY_BYTES },
    }
}

/// Which limit a request counts against, and which lane it goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    Auth,
    /// What an on-sale is about: seats, money, the door.
    Sell,
    Write,
    Read,
    /// Lists over many shows or people, which cost the databases most.
    Report,
}

impl Class {
    pub const ALL: [Self; 5] = [Self::Auth, Self::Sell, Self::Write, Self::Read, Self::Report];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Sell => "sell",
            Self::Write => "write",
            Self::Read => "read",
            Self::Report => "report",
        }
    }
}

pub fn class(method: &Method, pattern: &str) -> Class {
    let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| pattern.starts_with(prefix));
    let is_read = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    match pattern {
        "/v1/audit" | "/v1/payments" | "/v1/users" if is_read => Class::Report,
        "/v1/shows/{id}/reservations" if is_read => Class::Report,
        _ if begins(&["/v1/reports"]) => Class::Report,
        _ if is_read => Class::Read,
        _ if begins(&["/v1/auth/"]) => Class::Auth,
        "/v1/shows/{id}/reservations" | "/v1/shows/{id}/check-ins" => Class::Sell,
        // What providers tell of payments is selling too.
        _ if begins(&["/v1/reservations", "/v1/payments", "/v1/webhooks/"]) => Class::Sell,
        _ => Class::Write,
    }
}

/// Calls that remember a key but need none: such a request gets one here, and so can be settled when its show
/// changes hands under it.
pub fn takes_key(method: &Method, path: &str) -> bool {
    let part = |prefix: &str, rest: &str| {
        let id = path.strip_prefix(prefix).and_then(|path| path.strip_suffix(rest));
        id.is_some_and(|id| !id.is_empty() && !id.contains('/'))
    };
    match *method {
        Method::POST => {
            part("/v1/reservations/", "/cancel")
                || part("/v1/shows/", "/cancel")
                || part("/v1/shows/", "/blocks")
        }
        Method::PATCH => part("/v1/reservations/", ""),
        _ => false,
    }
}

/// Who goes first where many wait.
pub fn lane(method: &Method, pattern: &str, is_staff: bool) -> Lane {
    match class(method, pattern) {
        Class::Sell => Lane::Selling,
        Class::Report => Lane::Reporting,
        _ if is_staff => Lane::Staff,
        Class::Auth | Class::Write => Lane::Writing,
        Class::Read => Lane::Reading,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_goes_somewhere_whatever_its_method() {
        for pattern in proxied() {
            for method in [Method::GET, Method::POST, Method::TRACE, Method::from_bytes(b"QUERY").unwrap()] {
                assert!(target(&method, pattern).is_some(), "{method} {pattern}");
            }
        }
    }

    #[test]
    fn every_path_goes_where_the_contract_says() {
        for (method, path, expected) in [
            (Method::POST, "/v1/auth/password/forgot", Some(Global)),
            (Method::GET, "/v1/users/{id}", Some(Global)),
            (Method::GET, "/v1/movies", Some(Region)),
            (Method::POST, "/v1/movies", Some(Global)),
            (Method::HEAD, "/v1/movies/{id}", Some(Region)),
            (Method::PATCH, "/v1/movies/{movie_id}", Some(Global)),
            (Method::POST, "/v1/movies/import", Some(Global)),
            (Method::POST, "/v1/cinemas", Some(Region)),
            (Method::PUT, "/v1/halls/{id}/layout", Some(Home)),
            (Method::GET, "/v1/shows", Some(Home)),
            (Method::GET, "/v1/shows/{id}/seats/events", Some(Show)),
            (Method::GET, "/v1/reservations", Some(Gateway)),
            (Method::GET, "/v1/reservations/{id}", Some(Show)),
            (Method::GET, "/v1/payments", Some(Gateway)),
            (Method::GET, "/v1/tickets/keys", Some(Region)),
            (Method::GET, "/v1/tickets/{id}", Some(Show)),
            (Method::POST, "/v1/webhooks/payments/{provider}", Some(Region)),
            (Method::POST, "/v1/shows/{id}/moves", Some(Show)),
            (Method::GET, "/v1/cluster", Some(Region)),
            (Method::POST, "/v1/regions/{name}/drain", Some(Region)),
            (Method::POST, "/v1/regions", None),
            (Method::GET, "/openapi.json", None),
        ] {
            assert_eq!(documented(&method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn rows_of_one_path_stand_together_and_specific_ones_first() {
        let mut seen: Vec<&str> = Vec::new();
        for (i, (_, pattern, _)) in TABLE.iter().enumerate() {
            let again = i > 0 && TABLE[i - 1].1 == *pattern;
            assert!(again || !seen.contains(pattern), "{pattern} stands in two places");
            assert!(!seen.iter().any(|p| p != pattern && matches(p, pattern)), "{pattern} is never reached");
            seen.push(pattern);
        }
    }

    #[test]
    fn keys_are_made_where_they_are_remembered() {
        assert!(takes_key(&Method::POST, "/v1/reservations/rsv_1/cancel"));
        assert!(takes_key(&Method::POST, "/v1/shows/shw_1/blocks"));
        assert!(takes_key(&Method::PATCH, "/v1/reservations/rsv_1"));
        assert!(!takes_key(&Method::PATCH, "/v1/shows/shw_1"), "it has If-Match");
        assert!(!takes_key(&Method::POST, "/v1/shows/shw_1/reservations"), "the caller's to choose");
        assert!(!takes_key(&Method::POST, "/v1/reservations//cancel"));
    }

    #[test]
    fn only_calls_that_change_something_under_auth_are_of_its_class() {
        assert_eq!(class(&Method::POST, "/v1/auth/token"), Class::Auth);
        assert_eq!(class(&Method::GET, "/v1/auth/verify"), Class::Read);
        assert_eq!(class(&Method::POST, "/v1/shows/{id}/reservations"), Class::Sell);
        assert_eq!(class(&Method::GET, "/v1/shows/{id}/reservations"), Class::Report);
        assert_eq!(class(&Method::PATCH, "/v1/reservations/{id}"), Class::Sell);
        assert_eq!(class(&Method::GET, "/v1/reservations/{id}"), Class::Read);
        assert_eq!(class(&Method::POST, "/v1/cinemas"), Class::Write);
        assert_eq!(lane(&Method::POST, "/v1/payments/{id}/refunds", true), Lane::Selling);
        assert_eq!(lane(&Method::GET, "/v1/shows/{id}", true), Lane::Staff);
        assert_eq!(lane(&Method::GET, "/v1/audit", true), Lane::Reporting);
    }
}
