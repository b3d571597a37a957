//! What is told: a table of changes through HTTP, a show's story through its journal, orders to the registry; and
//! that it comes to `global`, whatever happens to it.

use std::collections::BTreeSet;

use common::UserId;
use common::proto::audit::Line as Told;
use raft::client::{Refused, RegistryError};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::app::App;
use crate::host::tests::{database, owned_by, process_with, show};
use crate::host::{Answer, HostError};
use crate::show::tests::{Stage, facts};
use crate::show::{
    Asked, Cancel, ChangeShow, CheckIn, Command, Contact, Created, Decision, NewRefund, Reserve, Wish,
};
use crate::testing::{FakeGlobal, TestRegion, until};

/// What waits in the outbox: action, target, before, after, address, in order.
async fn waiting(app: &App) -> Vec<(String, String, Value, Value, String)> {
    let select = "SELECT action, target, before, after, address FROM audit_outbox ORDER BY id";
    let rows = app.pool.get().await.unwrap().query(select, &[]).await.unwrap();
    let json = |text: Option<&str>| text.map_or(Value::Null, |text| serde_json::from_str(text).unwrap());
    let read =
        |row: &tokio_postgres::Row| (row.get(0), row.get(1), json(row.get(2)), json(row.get(3)), row.get(4));
    rows.iter().map(read).collect()
}

/// By a manager of `eu`, from an address.
async fn write(test: &TestRegion, method: &str, path: &str, body: Value) -> Value {
    let token = format!("Bearer {}", test.manager("eu"));
    let headers = [("authorization", token.as_str()), ("x-real-ip", "203.0.113.9"), ("if-match", "*")];
    let answer = test.send(method, path, &headers, Some(body)).await;
    json!({ "status": answer.status.as_u16(), "id": answer.body["id"] })
}

#[tokio::test]
async fn each_change_of_cinemas_and_halls_is_a_line_and_nothing_else_is() {
    let test = TestRegion::start(None).await;
    let cinema = json!({"name": "Rex", "address": "Main Street 1", "latitude": 48.0, "longitude": 2.0,
        "time_zone": "Europe/Paris", "currency": "EUR"});
    let made = write(&test, "POST", "/v1/cinemas", cinema.clone()).await;
    let cinema_id = made["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/cinemas/{cinema_id}");
    let hall =
        write(&test, "POST", &format!("{path}/halls"), json!({"name": "1", "grid": {"rows": 2, "seats": 3}}))
            .await;
    let hall_id = hall["id"].as_str().unwrap().to_owned();
    let layout = format!("/v1/halls/{hall_id}/layout");
    let missing = format!("/v1/cinemas/{}", common::CinemaId::new(test.app.region()));

    let facts = |name: &str, version: i64| {
        let mut facts = cinema.clone();
        (facts["name"], facts["version"]) = (json!(name), json!(version));
        facts
    };
    let seats = |version: i64, seats: i64| json!({"version": version, "rows": 2, "seats": seats});
    // What is asked, how it is answered, and the line that it leaves.
    let table = [
        (
            "PATCH",
            path.clone(),
            json!({"name": "Le Rex"}),
            200,
            Some(("cinema.update", &cinema_id, facts("Rex", 1), facts("Le Rex", 2))),
        ),
        ("PATCH", path.clone(), json!({"name": "Le Rex"}), 200, None),
        ("PATCH", path.clone(), json!({"latitude": 91}), 422, None),
        ("PATCH", missing.clone(), json!({"name": "x"}), 404, None),
        (
            "POST",
            format!("{missing}/halls"),
            json!({"name": "1", "grid": {"rows": 2, "seats": 3}}),
            404,
            None,
        ),
        (
            "PUT",
            layout.clone(),
            json!({"grid": {"rows": 2, "seats": 4}}),
            200,
            Some(("hall.layout", &hall_id, seats(1, 6), seats(2, 8))),
        ),
        ("PUT", layout.clone(), json!({"grid": {"rows": 2, "seats": 4}}), 200, None),
        ("PUT", layout, json!({"grid": {"rows": 0, "seats": 4}}), 422, None),
        ("POST", "/v1/cinemas".into(), json!({"name": ""}), 422, None),
    ];
    let mut lines = vec![
        ("cinema.create", &cinema_id, Value::Null, facts("Rex", 1)),
        (
            "hall.create",
            &hall_id,
            Value::Null,
            json!({"cinema_id": cinema_id, "name": "1", "layout": seats(1, 6)}),
        ),
    ];
    for (method, path, body, status, line) in table {
        let answer = write(&test, method, &path, body.clone()).await;
        assert_eq!(answer["status"], status, "{method} {path} {body}");
        lines.extend(line);
    }
    let expected: Vec<_> = lines
        .into_iter()
        .map(|(action, target, before, after)| {
            (action.into(), target.clone(), before, after, "203.0.113.9".into())
        })
        .collect();
    assert_eq!(waiting(&test.app).await, expected);
}

#[tokio::test]
async fn global_has_each_line_once_whatever_happened_to_it_meanwhile() {
    let global = FakeGlobal::start().await;
    let test = TestRegion::start(Some(&global)).await;
    let stop = CancellationToken::new();
    global.audit().away = true;
    let running = tokio::spawn(run(test.app.clone(), stop.clone()));
    let cinema = |name: &str| {
        json!({"name": name, "address": "1", "latitude": 48.0, "longitude": 2.0, "time_zone": "Europe/Paris",
            "currency": "EUR"})
    };
    let mut wanted = BTreeSet::new();
    for name in ["a", "b", "c"] {
        let made = write(&test, "POST", "/v1/cinemas", cinema(name)).await;
        wanted.insert(made["id"].as_str().unwrap().to_owned());
    }
    // This process goes; the next one finds what is there.
    stop.cancel();
    running.await.unwrap();
    assert!(global.audit().told.is_empty());
    assert_eq!(waiting(&test.app).await.len(), 3);
    global.audit().away = false;
    global.audit().mute_once = true;
    global.audit().refuses = "x".into();
    let odd = Line::now(test.app.region(), None, String::new(), "x", "y".into());
    put(&test.app.pool.get().await.unwrap(), &[odd]).await.unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(run(test.app.clone(), stop.clone()));
    until("only what was refused is left", async || {
        let left = waiting(&test.app).await;
        left.len() == 1 && left[0].0 == "x"
    })
    .await;
    stop.cancel();
    running.await.unwrap();
    let told: Vec<Told> = global.audit().told.clone();
    assert_eq!(told.len(), 6, "the answer was lost, so all were told twice");
    let ids: BTreeSet<&str> = told.iter().map(|line| line.id.as_str()).collect();
    let targets: BTreeSet<String> = told.iter().map(|line| line.target.clone()).collect();
    assert_eq!((ids.len(), targets), (3, wanted), "under the same ids");
    assert!(
        told.iter().all(|line| line.actor.starts_with("usr_")
            && line.address == "203.0.113.9"
            && line.region == "eu")
    );
    assert_eq!(test.app.metrics.audit.refused.get(), 1);
}

#[tokio::test]
async fn an_order_is_told_with_its_outcome_and_a_refused_one_not_at_all() {
    let test = TestRegion::start(None).await;
    let app = &test.app;
    let line =
        |action| Line::now(app.region(), Some(UserId::new()), "203.0.113.9".into(), action, "eu".into());
    let refused = RegistryError::Refused(Refused { code: "last-region".into(), reason: "no".into() });
    let results = [
        ("region.drain", Ok(7)),
        ("region.undrain", Err(refused)),
        ("region.restored", Err(RegistryError::Unavailable("gone".into()))),
    ];
    for (action, result) in results {
        let order = Order::begin(app, line(action)).await.unwrap();
        order.end(app, &result, |n| json!({ "n": n })).await;
    }
    // Its process died before it heard.
    drop(Order::begin(app, line("show.move")).await.unwrap());
    let told: Vec<_> =
        waiting(app).await.into_iter().map(|(action, _, _, after, _)| (action, after)).collect();
    let unknown = json!({ "outcome": "unknown" });
    let expected =
        [("region.drain", json!({"n": 7})), ("region.restored", unknown.clone()), ("show.move", unknown)];
    assert_eq!(told, expected.map(|(action, after)| (action.to_owned(), after)));
    // Those of unknown outcome wait for it a while.
    let client = app.pool.get().await.unwrap();
    assert_eq!(outbox::due(&client, 10).await.unwrap().len(), 1);
    client.execute("UPDATE audit_outbox SET due_at = due_at - interval '1 minute'", &[]).await.unwrap();
    assert_eq!(outbox::due(&client, 10).await.unwrap().len(), 3);
}

/// A command of staff, with their address.
fn by_staff(staff: UserId, command: Command) -> Asked {
    Asked { command, by: Some(staff), key: None, trace: None, from: Some("203.0.113.9".into()) }
}

#[test]
fn what_staff_do_to_a_show_is_told_and_what_customers_do_is_not() {
    let (staff, customer) = (UserId::new(), UserId::new());
    let mut stage = Stage::new();
    let (first, payment) = stage.buy(customer, &["A3", "A4"]);
    let (second, _) = stage.buy(customer, &["B1"]);
    stage.cancel(second, None, false).unwrap();
    let lapses = stage.reserve(customer, &["B2"]).unwrap();
    let ticket = stage.ticket(first);
    let id = stage.show.plan.facts.show;
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let later = stage.show.starts_at + jiff::SignedDuration::from_hours(1);
    let was = stage.show.starts_at;
    let waived = common::ReservationId::new(id, stage.now, 1);
    let [refund, second_refund] = [2, 3].map(|chance| common::RefundId::new(id, stage.now, chance));
    let reserve = Reserve {
        id: waived,
        reference: "REF".into(),
        customer: None,
        contact: Some(Contact::new([1; 6], b"somebody@example.org")),
        wish: Wish::Best { count: 3, kind: Some(crate::halls::layout::SeatType::Premium), category: None },
        origin: None,
        by_staff: true,
    };
    // A rule to waive: nobody may have more than one seat.
    let strict = Created { max_seats_per_customer: Some(1), ..facts() };
    let mut strict = Stage::of(strict);

    let table: Vec<(Command, &str, String, Value, Value)> = vec![
        (
            Command::Block { seats: names(&["B3", "B4"]), reason: "bro\0ken".into() },
            "show.block",
            id.to_string(),
            json!({"status": "free"}),
            json!({"seats": ["B3", "B4"], "status": "blocked", "reason": "bro ken"}),
        ),
        (
            Command::Unblock { seats: names(&["B4"]) },
            "show.unblock",
            id.to_string(),
            json!({"status": "blocked"}),
            json!({"seats": ["B4"], "status": "free"}),
        ),
        (
            Command::ChangeShow(ChangeShow { starts_at: Some(later), on_sale_at: None }),
            "show.reschedule",
            id.to_string(),
            json!({"starts_at": was}),
            json!({"starts_at": later}),
        ),
        (
            Command::ChangeShow(ChangeShow { starts_at: None, on_sale_at: Some(None) }),
            "show.on_sale",
            id.to_string(),
            json!({"on_sale_at": stage.show.on_sale_at}),
            json!({"on_sale_at": null}),
        ),
        (
            Command::CheckIn(CheckIn { ticket, nonce: "1".into(), at: None, force: true }),
            "ticket.force_check_in",
            ticket.to_string(),
            Value::Null,
            json!({"admitted_at": stage.now}),
        ),
        (
            Command::Refund(NewRefund {
                id: refund,
                payment,
                amount: Some(500),
                reason: "Mr. Smith was ill".into(),
            }),
            "payment.refund",
            payment.to_string(),
            json!({"refunded": {"amount": 0, "currency": "EUR"}}),
            json!({"refund_id": refund, "amount": {"amount": 500, "currency": "EUR"}, "frees_seats": false}),
        ),
        (
            Command::Refund(NewRefund { id: second_refund, payment, amount: Some(1), reason: "more".into() }),
            "payment.refund",
            payment.to_string(),
            json!({"refunded": {"amount": 500, "currency": "EUR"}}),
            json!({"refund_id": second_refund, "amount": {"amount": 1, "currency": "EUR"}, "frees_seats": false}),
        ),
        (
            Command::Cancel(Cancel { reservation: lapses, seats: None, by_staff: true, refund }),
            "reservation.cancel",
            lapses.to_string(),
            json!({"status": "reserved", "seats": ["B2"]}),
            json!({"seats_given_up": ["B2"], "refund": null}),
        ),
        (
            Command::CancelShow { reason: "flood".into() },
            "show.cancel",
            id.to_string(),
            json!({"status": "scheduled"}),
            json!({"status": "canceled", "reason": "flood"}),
        ),
    ];
    let mut expected = Vec::new();
    for (command, action, target, before, after) in table {
        let decision = stage.ask(by_staff(staff, command.clone()));
        assert!(matches!(decision, Decision::Do(_)), "{command:?}: {decision:?}");
        expected.push((action, target, before, after));
    }
    // What is left is canceled by the system, as the show's cancellation said.
    stage.tell(Command::CancelRest { limit: 10, chance: 77 });
    let decision = strict.ask(by_staff(staff, Command::Reserve(reserve)));
    assert!(matches!(decision, Decision::Do(_)), "{decision:?}");

    let told = |stage: &Stage| -> Vec<Line> {
        let entries = (1..).zip(&stage.journal);
        let audited: Vec<Audited> =
            entries.flat_map(|(seq, groups)| worth_telling(seq, groups, true).collect::<Vec<_>>()).collect();
        audited.iter().flat_map(|audited| lines(&stage.show, audited)).collect()
    };
    let lines = told(&stage);
    let seen: Vec<_> =
        lines.iter().map(|l| (l.action, l.target.clone(), json!(l.before), json!(l.after))).collect();
    assert_eq!(seen, expected);
    assert!(lines.iter().all(|line| line.actor == Some(staff) && line.at == stage.now));
    let text = format!("{lines:?}");
    assert!(!text.contains("Smith"), "{text}");
    let ids: BTreeSet<_> = lines.iter().map(|line| line.id.0).collect();
    assert_eq!(ids.len(), lines.len());
    assert_eq!(told(&stage), lines, "the same lines under the same ids, whoever reads the journal");

    let waived_lines = told(&strict);
    assert_eq!(waived_lines.len(), 1, "{waived_lines:?}");
    assert_eq!((waived_lines[0].action, &waived_lines[0].target), ("reservation.waive", &waived.to_string()));
    assert_eq!(waived_lines[0].after.as_ref().unwrap()["waived"], json!(["seat-limit"]));
    assert!(!format!("{waived_lines:?}").contains("example.org"));
}

#[test]
fn what_staff_cancel_is_told_as_it_was_also_where_it_went_on_changing() {
    let (staff, customer) = (UserId::new(), UserId::new());
    let mut stage = Stage::new();
    let (paid, payment) = stage.buy(customer, &["A3", "A4"]);
    let id = stage.show.plan.facts.show;
    for (seat, chance) in [("A4", 1), ("A3", 2)] {
        let refund = common::RefundId::new(id, stage.now, chance);
        let seats = Some(vec![seat.to_owned()]);
        let decision = stage.ask(by_staff(
            staff,
            Command::Cancel(Cancel { reservation: paid, seats, by_staff: true, refund }),
        ));
        assert!(matches!(decision, Decision::Do(_)), "{decision:?}");
    }
    // Of all that came later the state knows when the lines are made.
    let entries = (1..).zip(&stage.journal);
    let audited = entries.flat_map(|(seq, groups)| worth_telling(seq, groups, false).collect::<Vec<_>>());
    let lines: Vec<Line> = audited.flat_map(|audited| lines(&stage.show, &audited)).collect();
    let before: Vec<Value> = lines.iter().map(|line| json!(line.before)).collect();
    assert_eq!(
        before,
        [json!({"status": "paid", "seats": ["A3", "A4"]}), json!({"status": "paid", "seats": ["A3"]})]
    );
    let refund = &lines[0].after.as_ref().unwrap()["refund"];
    assert_eq!(refund["payment_id"], json!(payment));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shows_events_wait_in_the_outbox_with_the_read_models_and_survive_their_loss() {
    let (_server, url) = database(false).await;
    let app = process_with(&url, 1, "").await;
    let id = show(&app).await;
    let stop = CancellationToken::new();
    let projector = tokio::spawn(crate::projector(&app).run(stop.clone()));
    let staff = UserId::new();
    let block = |seat: &str| Command::Block { seats: vec![seat.into()], reason: "broken".into() };
    let done =
        |answer: Result<(_, Answer), HostError>| assert!(matches!(answer.unwrap().1, Answer::Done { .. }));
    done(app.hosts.ask(id, by_staff(staff, block("A3"))).await);
    let taken = app.hosts.ask(id, crate::host::tests::wish(id, "A4", None)).await;
    done(taken);
    // Refused: the seat is held.
    let refused = app.hosts.ask(id, by_staff(staff, block("A4"))).await.unwrap().1;
    assert!(matches!(refused, Answer::Refused { .. }), "{refused:?}");
    until("the first line", async || waiting(&app).await.len() == 1).await;
    assert_eq!(waiting(&app).await[0].4, "203.0.113.9");

    // The process goes before it has folded the next in; one that never led the show reads the journal.
    stop.cancel();
    projector.await.unwrap();
    done(app.hosts.ask(id, by_staff(staff, Command::Unblock { seats: vec!["A3".into()] })).await);
    let next = process_with(&url, 2, "").await;
    owned_by(&next, id, "us", 2);
    let stop = CancellationToken::new();
    let projector = tokio::spawn(crate::projector(&next).run(stop.clone()));
    next.projector.nudge(id);
    until("the second line", async || waiting(&app).await.len() == 2).await;
    let ids = "SELECT array_agg(id ORDER BY id) FROM audit_outbox";
    let client = app.pool.get().await.unwrap();
    let before: Vec<uuid::Uuid> = client.query_one(ids, &[]).await.unwrap().get(0);

    // Read models that are lost are folded anew, and tell the same lines.
    stop.cancel();
    projector.await.unwrap();
    client.batch_execute("TRUNCATE projected; DELETE FROM audit_outbox").await.unwrap();
    let stop = CancellationToken::new();
    let again = process_with(&url, 3, "").await;
    owned_by(&again, id, "eu", 1);
    again.hosts.get(id).await.unwrap();
    let projector = tokio::spawn(crate::projector(&again).run(stop.clone()));
    again.projector.nudge(id);
    until("both lines again", async || waiting(&app).await.len() == 2).await;
    let after: Vec<uuid::Uuid> = client.query_one(ids, &[]).await.unwrap().get(0);
    assert_eq!(before, after);
    stop.cancel();
    projector.await.unwrap();
}
