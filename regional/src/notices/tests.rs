//! Who is told what, and who is not; and that it comes to `global`.

use common::UserId;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::audit::worth_telling;
use crate::host::tests::database;
use crate::show::tests::{Stage, Wanted};
use crate::show::{Asked, Cancel, ChangeShow, Command, Contact, Method};
use crate::testing::{FakeGlobal, TestRegion, until};

fn told(stage: &Stage, notices_wanted: bool) -> Vec<Notice> {
    let entries = (1..).zip(&stage.journal);
    let groups =
        entries.flat_map(|(seq, groups)| worth_telling(seq, groups, notices_wanted).collect::<Vec<_>>());
    groups.flat_map(|group| notices(&stage.show, &group)).collect()
}

/// Kind, whom, which seats.
fn seen(notices: &[Notice]) -> Vec<(&'static str, Hearer, Value)> {
    notices.iter().map(|n| (n.kind, n.hearer.clone(), json!(n.seats))).collect()
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
    let expected = [
        ("order_confirmed", Hearer::Customer(ann), json!(["A3", "A4"])),
        ("order_confirmed", Hearer::Customer(bob), json!(["B1"])),
        ("show_canceled", Hearer::Customer(ann), json!(["A3", "A4"])),
    ];
    assert_eq!(seen(&notices), expected);
    let notice = &notices[0];
    assert_eq!(notice.reservation, first);
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

#[test]
fn another_time_is_told_to_each_who_had_paid_for_each_reservation_once() {
    let (ann, bob, eve, late) = (UserId::new(), UserId::new(), UserId::new(), UserId::new());
    let mut stage = Stage::new();
    let (first, _) = stage.buy(ann, &["A3", "A4"]);
    let (second, _) = stage.buy(ann, &["B1"]);
    let (canceled, _) = stage.buy(bob, &["B2"]);
    stage.cancel(canceled, None, true).unwrap();
    stage.reserve(eve, &["B3"]).unwrap();
    // Part of it given up: told of the rest.
    stage.cancel(first, Some(&["A4"]), true).unwrap();
    let was = stage.show.starts_at;
    let at = was + SignedDuration::from_hours(1);
    let reschedule =
        |starts_at| Command::ChangeShow(ChangeShow { starts_at: Some(starts_at), on_sale_at: None });
    stage.tell(reschedule(at));
    stage.now += SignedDuration::from_secs(1);
    stage.buy(late, &["B4"]);
    stage.now += SignedDuration::from_secs(1);
    stage.tell(reschedule(was));

    let all = told(&stage, true);
    let times: Vec<&Notice> = all.iter().filter(|notice| notice.kind == "show_rescheduled").collect();
    let (to_ann, to_late) = (Hearer::Customer(ann), Hearer::Customer(late));
    let who: Vec<_> = times.iter().map(|n| (n.hearer.clone(), n.reservation, json!(n.seats))).collect();
    let third = times.last().unwrap().reservation;
    let expected = [
        (to_ann.clone(), first, json!(["A3"])),
        (to_ann.clone(), second, json!(["B1"])),
        (to_ann.clone(), first, json!(["A3"])),
        (to_ann, second, json!(["B1"])),
        (to_late, third, json!(["B4"])),
    ];
    assert_eq!(who, expected);
    // As it was then, whatever came after.
    let (old, new) = ("2027-03-02T13:00:00+01:00", "2027-03-02T14:00:00+01:00");
    let told_times: Vec<_> =
        times.iter().map(|n| (n.was_starts_at.as_deref().unwrap(), &*n.starts_at)).collect();
    assert_eq!(told_times, [(old, new), (old, new), (new, old), (new, old), (new, old)]);
    let ids: std::collections::BTreeSet<_> = all.iter().map(|notice| notice.id).collect();
    assert_eq!(ids.len(), all.len(), "one of each event and reservation");
    assert_eq!(told(&stage, true), all, "under the same ids");
}

#[test]
fn who_has_no_account_is_told_where_an_address_was_given() {
    let mut stage = Stage::new();
    let contact = Contact::new([7; 6], &[2, 0, 0, 1]);
    for (seat, contact) in [("B3", Some(contact.clone())), ("B4", None)] {
        let held = stage.wish(Wanted { contact, ..Wanted::seats(&[seat]) }).unwrap();
        stage.start_payment(held, Method::Cash).unwrap();
    }
    let expected = [("order_confirmed", Hearer::Guest(contact), json!(["B3"]))];
    assert_eq!(seen(&told(&stage, true)), expected);
}

#[tokio::test]
async fn what_waits_comes_to_global_with_the_addresses_that_can_be_opened() {
    let global = FakeGlobal::start().await;
    let test = TestRegion::start(Some(&global)).await;
    let client = test.app.pool.get().await.unwrap();
    let mut stage = Stage::new();
    let ann = UserId::new();
    stage.buy(ann, &["A3"]);
    let paid = Notice { at: Timestamp::now(), ..told(&stage, true).remove(0) };
    let unopened = Contact::new([7; 6], &[2, 0, 0, 1]);
    let guest = Notice { id: Uuid::now_v7(), hearer: Hearer::Guest(unopened), ..paid.clone() };
    put(&client, std::slice::from_ref(&paid)).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(test.app.clone(), stop.clone()));
    until("the notice", async || !global.notices().is_empty()).await;
    // Too early to say that nobody can open it.
    put(&client, std::slice::from_ref(&guest)).await.unwrap();
    until("only the guest's", async || outbox::waiting(&client, 10).await.unwrap().len() == 1).await;
    test.hear_months();
    until("none", async || outbox::waiting(&client, 10).await.unwrap().is_empty()).await;
    let contacts = &test.app.contacts;
    let sealed = contacts.seal("ada@example.org", guest.reservation, guest.at, None).await.unwrap();
    let guest = Notice { id: Uuid::now_v7(), hearer: Hearer::Guest(sealed), ..guest };
    put(&client, std::slice::from_ref(&guest)).await.unwrap();
    until("the guest's", async || global.notices().len() == 2).await;
    stop.cancel();
    running.await.unwrap();
    let told = global.notices();
    let facts: Vec<_> = told.iter().map(|n| (n.user_id.as_str(), n.address.as_str())).collect();
    assert_eq!(facts, [(ann.to_string().as_str(), ""), ("", "ada@example.org")]);
    assert!(told.iter().all(|n| n.reservation_id == paid.reservation.to_string() && n.seats == ["A3"]));
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
