//! Which region calls, where one tells something: named by the call, and by the caller's certificate.

use common::RegionName;
use common::tls::{Caller, names};
use tonic::Status;

/// The region of that name, if the caller is one of its processes.
pub fn teller(caller: &Caller, name: &str) -> Result<RegionName, Status> {
    let teller: RegionName =
        name.parse().map_err(|_| Status::invalid_argument("this is no region's name"))?;
    if caller.is(&names::regional(&teller)) {
        return Ok(teller);
    }
    tracing::warn!(%teller, "a call from somebody who is not who he says");
    Err(Status::permission_denied(format!("the caller's certificate is not one of {teller}")))
}
