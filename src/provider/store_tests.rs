use super::*;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("books.redb")).unwrap();
    (folder, store)
}

fn charge(created: Created) -> Charge {
    match created {
        Created::Charge(charge) | Created::AnswerLate(charge) => charge,
        other => panic!("no charge but {other:?}"),
    }
}

#[test]
fn one_id_is_one_charge_and_survives_a_restart() {
    let (folder, store) = store();
    let first = charge(store.create("pay_1", 1250, "EUR", "tok_ok").unwrap());
    assert_eq!(first.status, ChargeStatus::Succeeded);
    drop(store);
    let store = Store::open(&folder.path().join("books.redb")).unwrap();
    assert_eq!(charge(store.create("pay_1", 1250, "EUR", "tok_declined").unwrap()), first);
    assert_eq!(store.create("pay_1", 1251, "EUR", "tok_ok").unwrap(), Created::Mismatch);
    assert_eq!(store.list(None, 10).unwrap(), vec![first]);
}

#[test]
fn a_cancel_defeats_a_late_create() {
    let (_folder, store) = store();
    assert_eq!(store.cancel("pay_1", 900, "USD").unwrap().status, ChargeStatus::Canceled);
    assert_eq!(charge(store.create("pay_1", 900, "USD", "tok_ok").unwrap()).status, ChargeStatus::Canceled);
    store.create("pay_2", 900, "USD", "tok_ok").unwrap();
    assert_eq!(store.cancel("pay_2", 900, "USD").unwrap().status, ChargeStatus::Succeeded);
}

#[test]
fn late_charges_succeed_once_and_canceled_ones_never() {
    let (_folder, store) = store();
    store.create("pay_1", 100, "EUR", "tok_late").unwrap();
    store.create("pay_2", 100, "EUR", "tok_late").unwrap();
    store.cancel("pay_2", 100, "EUR").unwrap();
    let now_ms = Timestamp::now().as_millisecond();
    assert!(store.settle_late(now_ms).unwrap().is_some());
    assert_eq!(store.charge("pay_1").unwrap().unwrap().status, ChargeStatus::Pending);
    assert_eq!(store.settle_late(now_ms + LATE_MS + 1000).unwrap(), None);
    assert_eq!(store.charge("pay_1").unwrap().unwrap().status, ChargeStatus::Succeeded);
    assert_eq!(store.charge("pay_2").unwrap().unwrap().status, ChargeStatus::Canceled);
    let messages = store.messages().unwrap();
    assert_eq!(messages.len(), 1);
    assert!(messages[0].body.contains("pay_1"), "{}", messages[0].body);
    store.delivered(&messages[0].id).unwrap();
    assert!(store.messages().unwrap().is_empty());
}

#[test]
fn refunds_never_exceed_the_charge() {
    let (_folder, store) = store();
    store.create("pay_1", 1000, "EUR", "tok_ok").unwrap();
    let status = |refunded| match refunded {
        Refunded::Refund(refund) => refund.status,
        _ => panic!("no refund"),
    };
    assert_eq!(status(store.refund("ref_1", "pay_1", 600).unwrap()), RefundStatus::Succeeded);
    assert_eq!(status(store.refund("ref_1", "pay_1", 600).unwrap()), RefundStatus::Succeeded);
    assert_eq!(status(store.refund("ref_2", "pay_1", 600).unwrap()), RefundStatus::Failed);
    assert!(matches!(store.refund("ref_1", "pay_1", 1).unwrap(), Refunded::Mismatch));
    assert!(matches!(store.refund("ref_3", "pay_9", 1).unwrap(), Refunded::NoSuchCharge));
    assert_eq!(store.charge("pay_1").unwrap().unwrap().refunded, 600);
}

#[test]
fn fail_once_fails_once_and_lost_is_never_recorded() {
    let (_folder, store) = store();
    assert_eq!(store.create("pay_1", 5, "EUR", "tok_fail_once").unwrap(), Created::FailedOnce);
    assert_eq!(store.charge("pay_1").unwrap(), None);
    let second = charge(store.create("pay_1", 5, "EUR", "tok_fail_once").unwrap());
    assert_eq!(second.status, ChargeStatus::Succeeded);
    assert_eq!(store.create("pay_2", 5, "EUR", "tok_timeout_lost").unwrap(), Created::Lost);
    assert_eq!(store.charge("pay_2").unwrap(), None);
}

#[test]
fn every_change_is_listed_after_the_one_before_with_the_charge_as_it_is() {
    let (_folder, store) = store();
    let began = Timestamp::now().as_millisecond();
    store.create("pay_1", 1000, "EUR", "tok_ok").unwrap();
    store.create("pay_2", 100, "EUR", "tok_late").unwrap();
    store.cancel("pay_3", 7, "EUR").unwrap();
    let ids = |page: &[(i64, Charge)]| page.iter().map(|(_, charge)| charge.id.clone()).collect::<Vec<_>>();
    let all = store.changes(began, None, 10).unwrap();
    assert_eq!(ids(&all), ["pay_1", "pay_2", "pay_3"]);
    let (mut paged, mut after) = (Vec::new(), None::<(i64, String)>);
    loop {
        let from = after.as_ref().map(|(ms, id)| (*ms, id.as_str()));
        let page = store.changes(began, from, 1).unwrap();
        let Some((ms, charge)) = page.first() else { break };
        after = Some((*ms, charge.id.clone()));
        paged.extend(page);
    }
    assert_eq!(paged, all);
    store.settle_late(began + LATE_MS + 1000).unwrap();
    let _ = store.refund("ref_1", "pay_1", 400).unwrap();
    let later = store.changes(began, None, 10).unwrap();
    let now = |id: &str| later.iter().rfind(|(_, charge)| charge.id == id).unwrap().1.clone();
    assert_eq!((now("pay_1").refunded, now("pay_2").status), (400, ChargeStatus::Succeeded));
    assert!(store.changes(later.last().unwrap().0 + 1, None, 10).unwrap().is_empty());
}
