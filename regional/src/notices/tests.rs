//! Who is told what, and who is not.

use common::UserId;
use serde_json::json;

use super::*;
use crate::audit::worth_telling;
use crate::host::tests::database;
use crate::show::tests::{Stage, Wanted};
use crate::show::{Asked, Cancel, Command, Contact};

fn told(stage: &Stage, notices_wanted: bool) -> Vec<Notice> {
    let entries = (1..).zip(&stage.journal);
    let groups =
        entries.flat_map(|(seq, groups)| worth_telling(seq, groups, notices_wanted).collect::<Vec<_>>());
    groups.flat_map(|group| notices(&stage.show, &group)).collect()
}

#[test]
fn who_paid_is_told_and_told_again_when_the_show_is_called_off() {
    let (ann, bob, eve) = (UserId::new(), UserId::new(), UserId::new());
    let mut stage = Stage::new();
    let (first, _) = stage.buy(ann, &["A3", "A4"]);
    // Canceled by himself, before.
    let (second, _) = stage.buy(bob, &["B1"]);
    let refund = common::RefundId::new(second.show(), stage.now, 1);
    let command = Command::Cancel(Cancel { reservation: second, seats: None, by_staff: false, refund });
    stage.ask(Asked { command, by: Some(bob), key: None, trace: None, from: None });
    assert!(stage.reservation(second).seats.is_empty());
    // Never paid, and nobody's account.
    stage.reserve(eve, &["B2"]).unwrap();
    stage
        .wish(Wanted { contact: Some(Contact::counted("x@example.org")), ..Wanted::seats(&["B3"]) })
        .unwrap();
    let reference = stage.reservation(first).reference.to_string();
    stage.tell(Command::CancelShow { reason: "flood".into() });
    stage.tell(Command::CancelRest { limit: 10, chance: 77 });
    let notices = told(&stage, true);
    let seen: Vec<_> = notices.iter().map(|n| (n.kind, n.customer, json!(n.seats))).collect();
    let expected = [
        ("order_confirmed", ann, json!(["A3", "A4"])),
        ("order_confirmed", bob, json!(["B1"])),
        ("show_canceled", ann, json!(["A3", "A4"])),
    ];
    assert_eq!(seen, expected);
    let notice = &notices[0];
    assert_eq!((&notice.reference, notice.title.as_str()), (&reference, "The Wizard of Oz"));
    assert_eq!(
        (notice.starts_at.as_str(), notice.cinema.as_str()),
        ("2027-03-02T13:00:00+01:00", "Lichtburg")
    );
    assert_eq!(told(&stage, true), notices, "under the same ids");
    let ids: std::collections::BTreeSet<_> = notices.iter().map(|notice| notice.id).collect();
    assert_eq!(ids.len(), 3);
    assert!(told(&stage, false).is_empty(), "nobody wants them");
}

#[tokio::test]
async fn what_is_no_news_is_not_written_and_nothing_is_written_twice() {
    let (_server, url) = database(false).await;
    let pool = migrations::pool(&url, 1).unwrap();
    let client = pool.get().await.unwrap();
    let mut stage = Stage::new();
    stage.buy(UserId::new(), &["A3"]);
    let mut notice = told(&stage, true).remove(0);
    notice.at = Timestamp::now();
    let old = Notice { id: Uuid::now_v7(), at: notice.at - NEWS, ..notice.clone() };
    for _ in 0..2 {
        put(&client, &[notice.clone(), old.clone()]).await.unwrap();
    }
    let waiting = outbox::waiting(&client, 10).await.unwrap();
    assert_eq!(waiting.iter().map(|row| row.get::<_, Uuid>("id")).collect::<Vec<_>>(), [notice.id]);
    client.execute("UPDATE notice_outbox SET at = at - interval '73 hours'", &[]).await.unwrap();
    outbox::forget_old(&client).await.unwrap();
    assert!(outbox::waiting(&client, 10).await.unwrap().is_empty());
}
