//! Refusals without a registry; what it says is tested with real voters in `raft`, and the calls with the platform.

use raft::client::Refused;

use super::*;

fn problem(code: &str) -> (u16, String) {
    let refused = RegistryError::Refused(Refused { code: code.into(), reason: "because".into() });
    let problem = super::refused(refused);
    (problem.status.as_u16(), problem.code.to_owned())
}

#[test]
fn the_registrys_refusals_are_conflicts_under_its_own_codes() {
    for code in [
        "unknown-region",
        "region-not-up",
        "region-not-down",
        "not-a-replica",
        "last-region",
        "epoch-passed",
        "change-under-way",
    ] {
        assert_eq!(problem(code), (409, code.to_owned()));
    }
    assert_eq!(problem("unknown-show").0, 404);
    assert_eq!(problem(""), (409, "refused".into()));
    let silent = super::refused(RegistryError::Unavailable("gone".into()));
    assert_eq!((silent.status.as_u16(), silent.code), (503, "registry-unavailable"));
}

#[tokio::test]
async fn orders_are_for_operators_and_about_known_regions() {
    let region = crate::testing::TestRegion::start(None).await;
    for order in ["drain", "undrain", "restored", "give-up"] {
        let path = &format!("/v1/regions/eu/{order}");
        let answer = region.write("POST", path, serde_json::json!({})).await;
        assert_eq!(answer.status, 403, "{path}");
        assert_eq!(region.send("POST", path, &[], None).await.status, 401, "{path}");
    }
}
