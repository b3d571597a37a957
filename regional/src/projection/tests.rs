//! Read models are the fold of the journal, however they came to be.

use common::{RefundId, ShowId};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::host::Answer;
use crate::host::tests::{database, process_with, show, wish};
use crate::show::{Asked, Cancel, Command, Event};

#[tokio::test(flavor = "multi_thread")]
async fn read_models_are_the_fold_of_the_journal_and_can_be_rebuilt() {
    let (_server, url) = database(false).await;
    let app = process_with(&url, 1, "").await;
    let stop = CancellationToken::new();
    tokio::spawn(crate::projector(&app).run(stop.clone()));
    let id = show(&app).await;
    for seat in ["A1", "A2", "A3", "B1"] {
        app.hosts.ask(id, wish(id, seat, None)).await.unwrap();
    }
    let before = reservation_rows(&app, id).await;
    assert_eq!(before.len(), 4);
    let client = app.pool.get().await.unwrap();
    client.batch_execute(FORGET_READ_MODELS).await.unwrap();
    app.projector.nudge(id);
    assert_eq!(reservation_rows(&app, id).await, before);
    stop.cancel();
}

const FORGET_READ_MODELS: &str = "TRUNCATE reservations, payments, refunds, tickets, shows, projected";

/// The rows of a show's reservations, once all is folded in.
async fn reservation_rows(app: &App, show: ShowId) -> Vec<(Vec<u8>, String, String)> {
    app.projector.caught_up().await;
    let client = app.pool.get().await.unwrap();
    let select = "SELECT own, status, rest FROM reservations WHERE show_id = $1 ORDER BY own";
    let rows = client.query(select, &[&show.0]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// What began with the entries of a pass is written without looking for an older row of it; what did not is
/// replaced.
#[tokio::test(flavor = "multi_thread")]
async fn read_models_folded_in_by_steps_are_those_folded_at_once() {
    let (_server, url) = database(false).await;
    let app = process_with(&url, 1, "").await;
    let id = show(&app).await;
    let reserve = async |seat: &str| match app.hosts.ask(id, wish(id, seat, None)).await.unwrap().1 {
        Answer::Done { group, .. } => match &group.events[0] {
            Event::Reserved { reservation, .. } => *reservation,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let cancel = async |reservation| {
        let refund = RefundId::new(id, Timestamp::now(), rand::random());
        let command = Cancel { reservation, seats: None, by_staff: false, refund };
        let asked = Asked { command: Command::Cancel(command), by: None, key: None, trace: None, from: None };
        let (_, answer) = app.hosts.ask(id, asked).await.unwrap();
        assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    };
    let stop = CancellationToken::new();
    tokio::spawn(crate::projector(&app).run(stop.clone()));
    assert_eq!(reservation_rows(&app, id).await.len(), 0, "all of the show was written");
    let first = reserve("A1").await;
    assert_eq!(reservation_rows(&app, id).await.len(), 1);
    // One that is there already, one that comes and goes in one pass, and one that stays.
    cancel(first).await;
    cancel(reserve("A2").await).await;
    reserve("A1").await;
    let by_steps = reservation_rows(&app, id).await;
    let mut states: Vec<&str> = by_steps.iter().map(|(_, status, _)| status.as_str()).collect();
    states.sort_unstable();
    assert_eq!(states, ["canceled", "canceled", "reserved"]);
    app.pool.get().await.unwrap().batch_execute(FORGET_READ_MODELS).await.unwrap();
    app.projector.nudge(id);
    assert_eq!(reservation_rows(&app, id).await, by_steps);
    stop.cancel();
}
