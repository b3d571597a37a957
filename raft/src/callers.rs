//! Who may ask the registry for what, by the caller's certificate: raft's messages come from voters, a region's
//! signs of life and losses from its own processes, commands from regional processes; every process of the
//! platform may read. A call that a voter passes on was looked at where it came in.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Mutex;

use common::RegionName;
use common::tls::{Tls, address, names};
use prometheus::IntCounter;
use tonic::{Request, Status};

/// Callers that the log remembers; more are not expected and not logged.
const LOGGED: usize = 256;

pub struct Callers {
    tls: Tls,
    refused: IntCounter,
    logged: Mutex<HashSet<(Option<IpAddr>, String)>>,
}

impl Callers {
    pub fn new(tls: Tls, refused: IntCounter) -> Self {
        Self { tls, refused, logged: Mutex::default() }
    }

    pub fn voter<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.check(request, &[names::REGISTRY])
    }

    pub fn regional<T>(&self, request: &Request<T>) -> Result<(), Status> {
        self.check(request, &[names::REGIONAL, names::REGISTRY])
    }

    pub fn of_region<T>(&self, request: &Request<T>, region: &RegionName) -> Result<(), Status> {
        self.check(request, &[&names::regional(region), names::REGISTRY])
    }

    fn check<T>(&self, request: &Request<T>, names: &[&str]) -> Result<(), Status> {
        let caller = self.tls.caller(request);
        if names.iter().any(|name| caller.is(name)) {
            return Ok(());
        }
        self.refused.inc();
        let (address, wanted) = (address(request), names[0].to_owned());
        let why = format!("the caller's certificate is not one of {wanted}");
        let mut logged = self.logged.lock().expect("no code panics while holding it");
        if logged.len() < LOGGED && logged.insert((address, wanted)) {
            tracing::warn!(?address, why, "a call is refused");
        }
        Err(Status::permission_denied(why))
    }
}

#[cfg(test)]
mod tests {
    use common::tls::authority::{Authority, Holder};

    use super::*;

    #[test]
    fn refusals_are_counted_and_without_tls_there_are_none() {
        let refused = IntCounter::new("refused", "refused").unwrap();
        let eu: RegionName = "eu".parse().unwrap();
        let tls = Authority::new().unwrap().tls(&Holder::Raft(eu.clone())).unwrap();
        let callers = Callers::new(tls, refused.clone());
        let nobody = Request::new(());
        assert!(callers.voter(&nobody).is_err() && callers.regional(&nobody).is_err());
        assert_eq!(callers.of_region(&nobody, &eu).unwrap_err().code(), tonic::Code::PermissionDenied);
        assert_eq!(refused.get(), 3);
        let plain = Callers::new(Tls::plain(), refused.clone());
        assert!(plain.voter(&nobody).is_ok() && plain.of_region(&nobody, &eu).is_ok());
        assert_eq!(refused.get(), 3);
    }
}
