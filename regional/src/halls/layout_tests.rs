use super::*;

fn seat(number: u16, kind: SeatType) -> LayoutSeat {
    LayoutSeat { number, kind, x: number.into(), y: 1.0 }
}

fn row(label: &str, seats: &[(u16, SeatType)]) -> LayoutRow {
    LayoutRow { row: label.into(), seats: seats.iter().map(|(n, kind)| seat(*n, *kind)).collect() }
}

fn grid(rows: u16, seats: u16) -> Grid {
    Grid {
        rows,
        seats,
        premium_rows: Vec::new(),
        vip_rows: Vec::new(),
        accessible: Vec::new(),
        companion: Vec::new(),
    }
}

/// The fields at fault.
fn fields(result: Result<Layout, Vec<FieldError>>) -> Vec<String> {
    result.err().unwrap_or_default().into_iter().map(|fault| fault.field).collect()
}

use SeatType::{Accessible, Companion, Premium, Standard, Vip};

#[test]
fn a_grid_names_rows_and_places_seats() {
    let layout = Grid {
        premium_rows: vec!["B".into()],
        vip_rows: vec!["AB".into()],
        accessible: vec!["A1".into(), "B3".into()],
        companion: vec!["A2".into()],
        ..grid(28, 3)
    }
    .layout()
    .unwrap();
    assert_eq!(layout.capacity(), 84);
    let names: Vec<&str> = layout.rows.iter().map(|r| r.row.as_str()).collect();
    assert_eq!(names[..2], ["A", "B"]);
    assert_eq!(names[25..], ["Z", "AA", "AB"]);
    let kinds = |i: usize| layout.rows[i].seats.iter().map(|s| s.kind).collect::<Vec<_>>();
    assert_eq!(kinds(0), [Accessible, Companion, Standard]);
    assert_eq!(kinds(1), [Premium, Premium, Accessible]);
    assert_eq!(kinds(27), [Vip, Vip, Vip]);
    assert_eq!((layout.rows[27].seats[2].x, layout.rows[27].seats[2].y), (3.0, 28.0));
}

#[test]
fn rows_are_named_on_past_two_letters() {
    for (index, name) in [(0, "A"), (25, "Z"), (26, "AA"), (701, "ZZ"), (702, "AAA"), (4999, "GJH")] {
        assert_eq!(row_name(index), name);
    }
}

#[test]
fn a_grid_says_what_is_wrong_with_it() {
    assert_eq!(fields(grid(0, 0).layout()), ["grid.rows", "grid.seats"]);
    assert_eq!(fields(grid(1, 1000).layout()), ["grid.seats"]);
    assert_eq!(fields(grid(65535, 65535).layout()), ["grid.rows", "grid.seats"]);
    assert_eq!(fields(grid(51, 99).layout()), ["grid"]);
    assert!(grid(50, 100).layout().is_ok());
    let rows = Grid { premium_rows: vec!["A".into(), "Q".into()], vip_rows: vec!["A".into()], ..grid(2, 2) };
    assert_eq!(fields(rows.layout()), ["grid.premium_rows[1]", "grid.vip_rows[0]"]);
    let seats = Grid { accessible: vec!["A9".into()], companion: vec!["A9".into()], ..grid(2, 2) };
    assert_eq!(fields(seats.layout()), ["grid.companion[0]", "grid.companion[0]"]);
    let alone = Grid { accessible: vec!["A1".into()], companion: vec!["B2".into()], ..grid(2, 2) };
    assert_eq!(fields(alone.layout()), ["rows[1].seats[1].type"]);
}

#[test]
fn explicit_rows_keep_the_invariant() {
    let layout = |rows: Vec<LayoutRow>| checked(Layout { rows });
    assert!(layout(vec![row("A", &[(1, Standard), (3, Vip)]), row("B2", &[(1, Premium)])]).is_ok());
    assert_eq!(fields(layout(vec![])), ["rows"]);
    assert_eq!(fields(layout(vec![row("A", &[])])), ["rows", "rows[0].seats"]);
    assert_eq!(fields(layout(vec![row("A", &[(1, Standard)]), row("A", &[(2, Standard)])])), ["rows[1].row"]);
    for bad in ["", "a", "A B", "ABCDE", "Ä"] {
        assert_eq!(fields(layout(vec![row(bad, &[(1, Standard)])])), ["rows[0].row"], "{bad}");
    }
    for bad in [0, 1000, u16::MAX] {
        assert_eq!(fields(layout(vec![row("A", &[(bad, Standard)])])), ["rows[0].seats[0].number"]);
    }
    assert_eq!(fields(layout(vec![row("A", &[(1, Standard), (1, Standard)])])), ["rows[0].seats[1].number"]);
}

#[test]
fn two_seats_never_share_a_label() {
    let rows = vec![row("A", &[(11, Standard)]), row("A1", &[(1, Standard)])];
    assert_eq!(fields(checked(Layout { rows })), ["rows[1].seats[0].number"]);
}

#[test]
fn companions_stand_beside_accessible_seats_of_their_row() {
    let one = |seats: &[(u16, SeatType)]| fields(checked(Layout { rows: vec![row("A", seats)] }));
    assert!(one(&[(1, Companion), (2, Accessible), (3, Companion)]).is_empty());
    // Neighbours are told by number, not by the order in which they are listed.
    assert!(one(&[(2, Companion), (9, Standard), (1, Accessible)]).is_empty());
    assert_eq!(one(&[(1, Accessible), (3, Companion)]), ["rows[0].seats[1].type"]);
    assert_eq!(one(&[(1, Companion), (2, Companion), (3, Accessible)]), ["rows[0].seats[0].type"]);
    let rows = vec![row("A", &[(1, Accessible)]), row("B", &[(1, Standard), (2, Companion)])];
    assert_eq!(fields(checked(Layout { rows })), ["rows[1].seats[1].type"]);
}

#[test]
fn coordinates_are_finite_and_near() {
    for (x, y, fault) in [
        (f64::NAN, 0.0, "rows[0].seats[0].x"),
        (0.0, f64::INFINITY, "rows[0].seats[0].y"),
        (-1e300, 0.0, "rows[0].seats[0].x"),
    ] {
        let seats = vec![LayoutSeat { number: 1, kind: Standard, x, y }];
        let rows = vec![LayoutRow { row: "A".into(), seats }];
        assert_eq!(fields(checked(Layout { rows })), [fault]);
    }
}

#[test]
fn the_largest_hall_passes_and_one_seat_more_does_not() {
    let hall = |seats: u16| {
        let mut rows: Vec<LayoutRow> = (0..10)
            .map(|r| row(&row_name(r), &(1..=500).map(|n| (n, Standard)).collect::<Vec<_>>()))
            .collect();
        rows.push(row("ZZ", &(1..=seats).map(|n| (n, Standard)).collect::<Vec<_>>()));
        rows.retain(|r| !r.seats.is_empty());
        checked(Layout { rows })
    };
    assert_eq!(hall(0).unwrap().capacity(), MAX_SEATS);
    assert_eq!(fields(hall(1)), ["rows"]);
}

#[test]
fn faults_are_bounded() {
    let rows = (0..5000).map(|_| row("A", &[(0, Standard)])).collect();
    assert_eq!(checked(Layout { rows }).unwrap_err().len(), MAX_FAULTS);
}
