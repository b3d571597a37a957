//! Request framing that hyper settles by itself and we refuse: a message that two parsers may cut at
//! different places is how one request is smuggled inside another (RFC 9112 §11.2).
//!
//! Beside hyper, not instead of it: hyper alone decides where requests begin and end, and what goes on to a
//! service is framed anew. This only reads along and raises a flag, so that a mistake here can refuse a
//! request and never let one through.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, Ordering};

/// What is wrong with a request's head. Each is refused by 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Form {
    /// `Transfer-Encoding` and `Content-Length` in one request.
    BothLengths = 1,
    /// More than one `Content-Length`, alike or not.
    RepeatedLength,
    /// A transfer coding other than `chunked` alone, or the header twice.
    OddEncoding,
    /// A line that ends in a bare LF.
    BareLf,
    /// More bytes than a head may have.
    TooLarge,
}

impl Form {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BothLengths => "both-lengths",
            Self::RepeatedLength => "repeated-length",
            Self::OddEncoding => "odd-transfer-encoding",
            Self::BareLf => "bare-lf",
            Self::TooLarge => "head-too-large",
        }
    }

    fn of(number: u8) -> Option<Self> {
        [Self::BothLengths, Self::RepeatedLength, Self::OddEncoding, Self::BareLf, Self::TooLarge]
            .into_iter()
            .find(|form| *form as u8 == number)
    }
}

/// What was found on a connection; shared between its bytes and its requests.
#[derive(Debug, Default)]
pub struct Found(AtomicU8);

impl Found {
    pub fn form(&self) -> Option<Form> {
        Form::of(self.0.load(Ordering::Acquire))
    }

    fn set(&self, form: Form) {
        self.0.store(form as u8, Ordering::Release);
    }
}

/// As many as hyper takes, and some: it shall be hyper that refuses.
const MAX_HEADERS: usize = 256;
/// A head beyond this is hyper's to refuse.
const MAX_HEAD: usize = 128 * 1024;

#[derive(Debug)]
enum Next {
    /// A head, and what has come of it.
    Head(Vec<u8>),
    Body(u64),
    Chunks(Chunk),
    /// Not HTTP/1, or beyond our understanding: hyper's business.
    Blind,
}

#[derive(Debug)]
enum Chunk {
    /// In the line that tells a chunk's size; the size so far, and whether its digits are over.
    Size(u64, bool),
    /// In a chunk's data and the line end after it.
    Data(u64),
    /// In the lines after the last chunk; whether the present one is empty so far.
    Trailers(bool),
}

/// Reads along with one connection.
#[derive(Debug)]
pub struct Reader {
    next: Next,
    /// Of a head. hyper's limit is that of its buffer, and what comes in one piece may be longer.
    most_bytes: usize,
}

impl Reader {
    pub fn new(most_bytes: usize) -> Self {
        Self { next: Next::Head(Vec::new()), most_bytes }
    }

    pub fn read(&mut self, mut bytes: &[u8], found: &Found) {
        while !bytes.is_empty() {
            bytes = match &mut self.next {
                Next::Blind => return,
                Next::Head(before) => {
                    let mut before = std::mem::take(before);
                    let (next, rest) = head(&mut before, bytes, self.most_bytes, found);
                    self.next = next;
                    rest
                }
                Next::Body(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= taken as u64;
                    if *left == 0 {
                        self.next = Next::Head(Vec::new());
                    }
                    &bytes[taken..]
                }
                Next::Chunks(chunk) => match chunk.step(bytes) {
                    Step::More(rest) => rest,
                    Step::Over(rest) => {
                        self.next = Next::Head(Vec::new());
                        rest
                    }
                    Step::Broken => {
                        self.next = Next::Blind;
                        return;
                    }
                },
            };
        }
    }
}

fn head<'a>(before: &mut Vec<u8>, bytes: &'a [u8], most_bytes: usize, found: &Found) -> (Next, &'a [u8]) {
    let had = before.len();
    // Mostly a head comes in one piece and need not be copied.
    let whole: &[u8] = if had == 0 {
        bytes
    } else {
        before.extend_from_slice(bytes);
        before
    };
    // Not filled first: mostly a few of them are used.
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(whole, &mut headers) {
        Ok(httparse::Status::Complete(end)) => {
            let next = examine(&whole[..end], request.headers, most_bytes, found);
            (next, &bytes[end - had..])
        }
        Ok(httparse::Status::Partial) if whole.len() <= MAX_HEAD => {
            let kept = if had == 0 { bytes.to_vec() } else { std::mem::take(before) };
            (Next::Head(kept), &[])
        }
        _ => (Next::Blind, &[]),
    }
}

fn examine(head: &[u8], headers: &[httparse::Header<'_>], most_bytes: usize, found: &Found) -> Next {
    let (mut lengths, mut encodings) = (0, 0);
    let (mut length, mut chunked) = (None, false);
    for header in headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            lengths += 1;
            length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse::<u64>().ok());
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            encodings += 1;
            chunked = header.value.eq_ignore_ascii_case(b"chunked");
        }
    }
    let bare_lf = || head.iter().enumerate().any(|(i, b)| *b == b'\n' && (i == 0 || head[i - 1] != b'\r'));
    let form = match (lengths, encodings) {
        (1.., 1..) => Some(Form::BothLengths),
        (2.., _) => Some(Form::RepeatedLength),
        (_, 2..) => Some(Form::OddEncoding),
        (_, 1) if !chunked => Some(Form::OddEncoding),
        _ if head.len() > most_bytes => Some(Form::TooLarge),
        _ => bare_lf().then_some(Form::BareLf),
    };
    if let Some(form) = form {
        // The connection ends with this request; there is nothing more to read.
        found.set(form);
        return Next::Blind;
    }
    match (length, encodings) {
        (_, 1) => Next::Chunks(Chunk::Size(0, false)),
        (Some(length @ 1..), _) => Next::Body(length),
        // An unreadable length is hyper's to refuse.
        (None, _) if lengths > 0 => Next::Blind,
        _ => Next::Head(Vec::new()),
    }
}

enum Step<'a> {
    More(&'a [u8]),
    Over(&'a [u8]),
    Broken,
}

impl Chunk {
    fn step<'a>(&mut self, bytes: &'a [u8]) -> Step<'a> {
        let Some((first, rest)) = bytes.split_first() else { return Step::More(bytes) };
        match self {
            Self::Size(size, over) => match (first, char::from(*first).to_digit(16)) {
                (b'\n', _) => {
                    // The data, then CR LF.
                    *self = match *size {
                        0 => Self::Trailers(true),
                        size => Self::Data(size.saturating_add(2)),
                    };
                }
                (_, Some(digit)) if !*over => match size.checked_mul(16) {
                    Some(more) => *size = more + u64::from(digit),
                    None => return Step::Broken,
                },
                _ => *over = true,
            },
            Self::Data(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Size(0, false);
                }
                return Step::More(&bytes[taken..]);
            }
            Self::Trailers(empty) => match (first, *empty) {
                (b'\n', true) => return Step::Over(rest),
                (b'\n', false) => *empty = true,
                (b'\r', _) => {}
                _ => *empty = false,
            },
        }
        Step::More(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found when the bytes come in pieces of `size`.
    fn found(bytes: &str, size: usize) -> Option<Form> {
        let (mut reader, found) = (Reader::new(300), Found::default());
        for piece in bytes.as_bytes().chunks(size) {
            reader.read(piece, &found);
        }
        found.form()
    }

    #[test]
    fn odd_framing_is_found_wherever_it_stands_and_however_it_is_cut() {
        let good = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
            POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
            5;x=transfer-encoding\r\nab\r\nc\r\n0\r\nX-Trailer: 1\r\n\r\n\
            GET /c HTTP/1.1\r\nHost: a\r\n\r\n";
        let bad = |lines: &str| format!("{good}POST /d HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
        let cases = [
            (good.to_owned(), None),
            (bad("Content-Length: 3\r\nTransfer-Encoding: chunked"), Some(Form::BothLengths)),
            (bad("Transfer-Encoding: chunked\r\ncontent-length: 3"), Some(Form::BothLengths)),
            (bad("Content-Length: 3\r\nContent-Length: 3"), Some(Form::RepeatedLength)),
            (bad("Transfer-Encoding: gzip, chunked"), Some(Form::OddEncoding)),
            (bad("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"), Some(Form::OddEncoding)),
            (bad("X: 1\nY: 2"), Some(Form::BareLf)),
            (bad(&format!("X: {}", "1".repeat(300))), Some(Form::TooLarge)),
        ];
        for (bytes, expected) in cases {
            for size in [1, 2, 3, 7, 64, bytes.len()] {
                assert_eq!(found(&bytes, size), expected, "in pieces of {size}: {bytes}");
            }
        }
        assert_eq!(found("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n", 100), None);
    }
}
