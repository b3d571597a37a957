//! Who the platform's processes are to each other: an authority that lives as long as the launcher and is
//! written nowhere, and the files that it gives each part, in the part's own folder.

use std::path::{Path, PathBuf};

use common::RegionName;
use common::tls::authority::{Authority, Holder};
use serde_json::{Value, json};

use super::files;
use super::parts::{Part, Place, Service};
use super::users::User;

const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";

/// None for those that are not ours.
fn holder(part: &Part) -> Option<Holder> {
    match (part.service, &part.place) {
        (Service::Global, _) => Some(Holder::Global),
        (Service::Raft, Place::Region(region)) => Some(Holder::Raft(region.clone())),
        (Service::Regional, Place::Region(region)) => Some(Holder::Regional(region.clone())),
        (Service::Gateway, Place::Region(region)) => Some(Holder::Gateway(region.clone())),
        _ => None,
    }
}

/// Writes the part's files into its folder.
pub fn write(authority: &Authority, part: &Part, folder: &Path, user: Option<&User>) -> anyhow::Result<()> {
    let Some(holder) = holder(part) else { return Ok(()) };
    write_for(authority, &holder, folder, user)
}

/// Writes the holder's files into a folder.
pub fn write_for(
    authority: &Authority,
    holder: &Holder,
    folder: &Path,
    user: Option<&User>,
) -> anyhow::Result<()> {
    let issued = authority.issue(holder)?;
    for (name, content) in
        [(AUTHORITY, authority.pem()), (CERTIFICATE, &issued.certificate), (KEY, &issued.key)]
    {
        files::write_private(&folder.join(name), content.as_bytes(), user)?;
    }
    Ok(())
}

/// `marquee certificates`: a folder for each process, `OUT/regional-eu` and so on.
pub fn make_certificates(regions: &[RegionName], out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut holders = vec![Holder::Global];
    for region in regions {
        let region = || region.clone();
        holders.extend([Holder::Raft(region()), Holder::Regional(region()), Holder::Gateway(region())]);
    }
    anyhow::ensure!(!out.exists(), "{} is there already", out.display());
    files::make_folder(out, 0o700, None)?;
    let authority = Authority::new()?;
    let mut folders = Vec::new();
    for holder in holders {
        let folder = out.join(holder.to_string());
        files::make_folder(&folder, 0o700, None)?;
        write_for(&authority, &holder, &folder, None)?;
        folders.push(folder);
    }
    Ok(folders)
}

/// The setting `peer_tls` of the part with this folder.
pub fn setting(folder: &Path) -> Value {
    json!({
        "ca_file": folder.join(AUTHORITY),
        "cert_file": folder.join(CERTIFICATE),
        "key_file": folder.join(KEY),
    })
}
