//! What readers are told of shows led by quorum, over links that are cut: nothing that may be untrue, and something
//! wherever there is something to tell.

use super::platform::{Platform, strand};
use super::*;
use crate::replicas::copies::Copy;
use crate::testing::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_may_be_replaced_refuses_nothing_and_denies_nothing() {
    let platform = Platform::start().await;
    let show = platform.show().await;
    platform.booked("eu", show, "A1").await;
    let eu = platform.apps["eu"].hosts.get(show).await.unwrap();
    let missing = async || eu.unless_deposed(common::Problem::not_found("reservation")).await.status.as_u16();
    let stamped = || crate::asking::about(&eu, ()).headers().contains_key("x-may-be-stale");
    assert!(!stamped() && missing().await == 404);

    platform.part("eu", true);
    // By no lease, which may have begun before somebody else led: what is asked for may have come to be there, and
    // what is refused may have been done there under the same key.
    let refused = platform.book("eu", show, "A1", Some([1; 16]));
    assert!(eu.is_current());
    assert_eq!(missing().await, 503);
    let refused = refused.await.unwrap();
    assert!(matches!(refused, Err(HostError::Unavailable(_))), "{refused:?}");
    for name in ["us", "ap"] {
        Platform::tell(&platform.apps[name], show, "us", 2);
    }
    platform.booked("us", show, "A2").await;
    until("the lease is over", async || !eu.is_current()).await;
    assert!(stamped());
    let refused = platform.book("eu", show, "A1", Some([1; 16])).await.unwrap();
    assert!(matches!(refused, Err(HostError::Unavailable(_))), "{refused:?}");

    // Nobody replaced this one after all, of which it is not told before somebody answers.
    let (other, group) = new_show();
    platform.heal();
    platform.owned(other, "ap", 1);
    platform.apps["ap"].hosts.create(other, group).await.unwrap();
    platform.booked("ap", other, "A1").await;
    let ap = platform.apps["ap"].hosts.get(other).await.unwrap();
    platform.part("ap", true);
    until("the lease is over", async || !ap.is_current()).await;
    let asked = platform.book("ap", other, "A1", None);
    let waits = &platform.apps["ap"].metrics.commands;
    assert!(!asked.is_finished() && waits.refused.get() == 0);
    platform.heal();
    let refused = asked.await.unwrap();
    assert!(matches!(refused, Ok(Answer::Refused { .. })), "{refused:?}");
    assert!(ap.is_current(), "and the lease has begun anew");

    // It hears that it was replaced, and sends on who asks.
    Platform::tell(&platform.apps["eu"], show, "us", 2);
    let elsewhere = platform.book("eu", show, "A1", None).await.unwrap();
    assert!(matches!(elsewhere, Err(HostError::NotOwner { epoch: 2, .. })), "{elsewhere:?}");
    assert!(stamped() && missing().await == 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_regions_show_is_read_from_its_copy_as_far_as_it_is_committed() {
    let platform = Platform::start().await;
    let show = platform.show().await;
    platform.booked("eu", show, "A1").await;
    let us = &platform.apps["us"];
    let copy = us.copies.of(show).await;
    let copy = match copy {
        Some(copy) => copy,
        // The others have not heard of the show's first entry yet.
        None => {
            until("a copy", async || us.copies.of(show).await.is_some()).await;
            us.copies.of(show).await.unwrap()
        }
    };
    assert!(platform.apps["eu"].copies.of(show).await.is_none(), "it is led there");
    until("A1", async || copy.read(Show::counts) == [7, 1, 0, 0]).await;
    platform.booked("eu", show, "A2").await;
    until("A2", async || copy.read(Show::counts) == [6, 2, 0, 0]).await;
    let held =
        |copy: &Copy| copy.live.statuses().iter().filter(|status| **status == SeatStatus::Held).count();
    until("the map", async || held(&copy) == 2).await;
    let answer = copy.about(());
    assert_eq!(answer.headers()["x-show-epoch"], "1");
    let as_of = answer.headers()["x-as-of"].to_str().unwrap().to_owned();
    assert_eq!(as_of, copy.read(|show| show.last_at).to_string());
    assert_eq!(us.metrics.shows_active.get(), 0, "nobody led it for that");

    // What us holds and no majority is known to hold is not shown, nor is anything asked of anybody for a read.
    platform.part("ap", true);
    let open = strand(&platform, "us", show, "A3", [3; 16]).await;
    until("us holds it", async || platform.journal("us", show).await.1.len() == 4).await;
    let again = us.copies.of(show).await.unwrap();
    assert!(Arc::ptr_eq(&again, &copy) && held(&copy) == 2);
    assert_eq!(copy.read(Show::counts), [6, 2, 0, 0]);

    // It owns it now and cannot lead it without ap: it is read all the same.
    Platform::tell(us, show, "us", 2);
    let why = us.hosts.get(show).await.err().unwrap();
    assert!(us.copies.of(show).await.is_none());
    let kept = us.copy_instead(show, false, &why).await.unwrap();
    assert_eq!(kept.read(Show::counts), [6, 2, 0, 0]);
    assert!(us.copy_instead(show, true, &why).await.is_none(), "who wants the owner's word is told");

    // The next reign is told anew, with what it found to be committed.
    platform.part("ap", false);
    platform.part("eu", true);
    Platform::tell(&platform.apps["ap"], show, "us", 2);
    // It has been tried for long, so that the next try may be some time off.
    until("the way to ap", async || us.hosts.is_reachable(&region("ap"))).await;
    // A try that began before may end without it, and tells who joined it that nothing was done.
    let booked = async || platform.book("us", show, "B1", Some([4; 16])).await.unwrap();
    until("a sale of the next reign", async || matches!(booked().await, Ok(Answer::Done { .. }))).await;
    let ap = &platform.apps["ap"];
    let told = async || ap.copies.of(show).await.is_some_and(|c| c.read(Show::counts) == [4, 4, 0, 0]);
    until("the copy of the next reign", told).await;
    assert_eq!(ap.copies.of(show).await.unwrap().about(()).headers()["x-show-epoch"], "2");
    until("the old one is let go", async || us.metrics.replicas.copies.get() == 0).await;
    platform.heal();
    Platform::tell(&platform.apps["eu"], show, "us", 2);
    assert!(matches!(open.await.unwrap(), Err(HostError::OutcomeUnknown)));
}
