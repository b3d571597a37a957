//! A voter's metrics. Alone in its binary: a process has one set of them.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod support;

use support::{Group, new_show, region, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_voter_tells_how_it_stands() {
    let group = Group::started(1, |_| {});
    for _ in 0..3 {
        group.client().create_show(new_show("eu"), &region("eu")).await.unwrap();
    }
    let page = until("the shows to be counted", async || {
        let (_, page) = group.voters[0].ops("/metrics").await?;
        page.contains("\nmarquee_registry_shows 3\n").then_some(page)
    })
    .await;
    for line in [
        "marquee_raft_is_leader 1",
        "marquee_raft_has_leader 1",
        "marquee_raft_term 1",
        "marquee_raft_leader_changes_total 0",
        "marquee_raft_last_log_index",
        "marquee_raft_applied_index",
        "marquee_raft_quorum_ack_age_seconds",
        "marquee_raft_proposals_total{result=\"committed\"} 3",
        "marquee_raft_commit_duration_seconds_count",
    ] {
        // A line of its own: the help of one metric begins like a value of it.
        assert!(
            page.lines().any(|l| l.starts_with(line) && !l.starts_with('#')),
            "`{line}` is missing in {page}"
        );
    }
    assert_eq!(group.voters[0].ops("/readyz").await.unwrap().0, 200);
}
