//! A ticket to print: one page of A5 with what people read and the QR that the door reads.
//!
//! The fonts are those that every reader has (Helvetica), so letters beyond Windows-1252 are printed as `?`;
//! what counts at the door is in the code.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};

use super::http::TicketView;
use super::qr;

/// Points, 1/72 inch.
const WIDTH: f32 = 419.53;
const HEIGHT: f32 = 595.28;
const MARGIN: f32 = 42.0;
const CODE_SIDE: f32 = 210.0;
const PLAIN: Name<'static> = Name(b"F1");
const BOLD: Name<'static> = Name(b"F2");
/// Of a title's lines; more are left away.
const TITLE_LINES: usize = 3;
const TITLE_COLUMNS: usize = 26;

pub fn pdf(ticket: &TicketView) -> anyhow::Result<Vec<u8>> {
    let [catalog, pages, page, plain, bold, contents, info] = std::array::from_fn(id);
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(pages);
    pdf.pages(pages).kids([page]).count(1);
    pdf.document_info(info).title(TextStr(&format!("{}, {}", ticket.show.title, ticket.seat)));
    let mut sheet = pdf.page(page);
    sheet.parent(pages).media_box(Rect::new(0.0, 0.0, WIDTH, HEIGHT)).contents(contents);
    sheet.resources().fonts().pair(PLAIN, plain).pair(BOLD, bold);
    sheet.finish();
    for (font, name) in [(plain, "Helvetica"), (bold, "Helvetica-Bold")] {
        pdf.type1_font(font).base_font(Name(name.as_bytes())).encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&drawn(ticket)?)?;
    pdf.stream(contents, &packed.finish()?).filter(Filter::FlateDecode);
    Ok(pdf.finish())
}

fn id(index: usize) -> Ref {
    Ref::new(i32::try_from(index + 1).expect("there are seven"))
}

fn drawn(ticket: &TicketView) -> anyhow::Result<Vec<u8>> {
    let mut content = Content::new();
    let mut at = HEIGHT - MARGIN;
    let mut line = |font: Name<'_>, size: f32, text: &str| {
        at -= size * 1.35;
        content.begin_text().set_font(font, size).next_line(MARGIN, at);
        content.show(Str(&windows_1252(text))).end_text();
    };
    let show = &ticket.show;
    line(PLAIN, 11.0, &show.cinema_name);
    for part in wrapped(&show.title) {
        line(BOLD, 22.0, &part);
    }
    line(PLAIN, 13.0, &format!("{}, {}", when(&show.starts_at_local), show.hall_name));
    line(BOLD, 20.0, &format!("Seat {}", ticket.seat));
    line(PLAIN, 11.0, &format!("{}. Booking {}", ticket.category, ticket.reference));
    code(&mut content, &ticket.token)?;
    content.begin_text().set_font(PLAIN, 7.0).next_line(MARGIN, MARGIN / 2.0);
    content.show(Str(&windows_1252(&ticket.id.to_string()))).end_text();
    Ok(content.finish().to_vec())
}

/// The code in the middle of the lower half, with the quiet zone that paper gives by itself.
fn code(content: &mut Content, token: &str) -> anyhow::Result<()> {
    let modules = qr::modules(token)?;
    let (left, bottom) = ((WIDTH - CODE_SIDE) / 2.0, MARGIN * 1.5);
    #[expect(clippy::cast_precision_loss, reason = "a code has at most 177 modules a side")]
    let side = CODE_SIDE / modules.len() as f32;
    content.set_fill_gray(0.0);
    for (row, dark) in modules.iter().rev().enumerate() {
        for (column, _) in dark.iter().enumerate().filter(|(_, dark)| **dark) {
            #[expect(clippy::cast_precision_loss, reason = "a code has at most 177 modules a side")]
            let (x, y) = (left + column as f32 * side, bottom + row as f32 * side);
            content.rect(x, y, side, side);
        }
    }
    content.fill_nonzero();
    Ok(())
}

/// By the clock on the cinema's wall: `2027-03-01 20:15`.
fn when(local: &str) -> String {
    local.chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// A title in lines of about the page's width.
fn wrapped(title: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in title.split_whitespace() {
        match lines.last_mut() {
            Some(last) if last.chars().count() + word.chars().count() < TITLE_COLUMNS => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.chars().take(TITLE_COLUMNS).collect()),
        }
    }
    lines.truncate(TITLE_LINES);
    lines
}

/// As `WinAnsiEncoding` has it (PDF 32000-1, annex D).
fn windows_1252(text: &str) -> Vec<u8> {
    const FROM_80: [char; 32] = [
        '€', '?', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '?', 'Ž', '?', '?', '‘', '’', '“',
        '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '?', 'ž', 'Ÿ',
    ];
    let byte = |c: char| match u8::try_from(c) {
        Ok(byte @ (0x20..=0x7e | 0xa0..)) => byte,
        _ => FROM_80.iter().position(|known| *known == c).map_or(b'?', |place| 0x80 + place as u8),
    };
    text.chars().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_those_of_windows_1252() {
        assert_eq!(windows_1252("Aé€–"), [b'A', 0xe9, 0x80, 0x96]);
        assert_eq!(windows_1252("映\n?"), *b"???");
    }

    #[test]
    fn a_title_ends_on_the_page() {
        assert_eq!(wrapped("Casablanca"), ["Casablanca"]);
        let long = wrapped(&"The Assassination of Jesse James ".repeat(9));
        assert_eq!(long.len(), TITLE_LINES);
        assert!(long.iter().all(|line| line.chars().count() <= TITLE_COLUMNS), "{long:?}");
        assert_eq!(wrapped(&"x".repeat(99))[0].len(), TITLE_COLUMNS);
    }
}
