//! Server-sent events out of a chunked HTTP body, read as cheaply as ten thousand streams on two cores need.

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::wire::{chunk_size, find};

/// Where in the chunked body the reader is.
#[derive(Clone, Copy)]
enum At {
    Size,
    Data(usize),
    /// After a chunk's data: its line end.
    End,
}

/// Takes a body apart.
pub struct Events {
    at: At,
    size: Vec<u8>,
    /// An event that is not whole yet.
    text: Vec<u8>,
}

impl Default for Events {
    fn default() -> Self {
        Self { at: At::Size, size: Vec::new(), text: Vec::new() }
    }
}

impl Events {
    /// Takes in what arrived; `heard` gets every event that is whole now.
    pub fn feed(&mut self, mut bytes: &[u8], mut heard: impl FnMut(&[u8])) -> anyhow::Result<()> {
        while let Some(first) = bytes.first() {
            match self.at {
                At::Size if *first == b'\n' => {
                    self.at = At::Data(chunk_size(&self.size)?);
                    self.size.clear();
                    bytes = &bytes[1..];
                }
                At::Size => {
                    self.size.push(*first);
                    bytes = &bytes[1..];
                }
                At::Data(0) => self.at = At::End,
                At::Data(left) => {
                    let (data, rest) = bytes.split_at(left.min(bytes.len()));
                    self.text.extend_from_slice(data);
                    (bytes, self.at) = (rest, At::Data(left - data.len()));
                }
                At::End => {
                    if *first == b'\n' {
                        self.at = At::Size;
                    }
                    bytes = &bytes[1..];
                }
            }
        }
        let mut done = 0;
        while let Some(end) = find(&self.text, b"\n\n", done) {
            heard(&self.text[done..end]);
            done = end + 2;
        }
        self.text.drain(..done);
        if self.text.is_empty() && self.text.capacity() > 4096 {
            // A whole map came by; ten thousand of them need not be kept room for.
            self.text = Vec::new();
        }
        Ok(())
    }
}

/// Reads a stream until it ends.
pub async fn listen(stream: TcpStream, first: Vec<u8>, mut heard: impl FnMut(&[u8])) -> anyhow::Result<()> {
    let mut events = Events::default();
    events.feed(&first, &mut heard)?;
    drop(first);
    loop {
        // Waiting costs no buffer.
        stream.readable().await?;
        let mut buffer = [0; 4096];
        match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => events.feed(&buffer[..read], &mut heard)?,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for the first whole event.
pub async fn first(mut stream: TcpStream, first: Vec<u8>) -> anyhow::Result<()> {
    let (mut events, mut heard, mut buffer) = (Events::default(), 0, vec![0; 16 * 1024]);
    events.feed(&first, |_| heard += 1)?;
    while heard == 0 {
        let read = stream.read(&mut buffer).await?;
        anyhow::ensure!(read > 0, "the stream ended before its first event");
        events.feed(&buffer[..read], |_| heard += 1)?;
    }
    Ok(())
}

/// The names of the seats in a change; nothing of what is another kind of event.
pub fn changed_seats(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    const SEAT: &[u8] = b"\"seat\":\"";
    let is_change = find(event, b"event: change", 0).is_some() || find(event, b"event:change", 0).is_some();
    let mut at = if is_change { 0 } else { event.len() };
    std::iter::from_fn(move || {
        let start = find(event, SEAT, at)? + SEAT.len();
        let length = event[start..].iter().position(|byte| *byte == b'"')?;
        at = start + length;
        Some(&event[start..at])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_chunks_and_reads_cut_them() {
        let body = b"5\r\nid: 1\r\n9;x=1\r\n\nevent: c\r\n2a\r\nhange\ndata: {\"seats\":[{\"seat\":\"A1\"}]}\n\n:\n\n\r\n";
        for piece in [1, 2, 7, body.len()] {
            let (mut events, mut heard) = (Events::default(), Vec::new());
            for bytes in body.chunks(piece) {
                events.feed(bytes, |event| heard.push(String::from_utf8(event.to_vec()).unwrap())).unwrap();
            }
            assert_eq!(
                heard,
                ["id: 1\nevent: change\ndata: {\"seats\":[{\"seat\":\"A1\"}]}", ":"],
                "{piece}"
            );
        }
    }

    #[test]
    fn only_changes_name_seats() {
        let names = |text: &str| {
            let seats = changed_seats(text.as_bytes()).map(|s| String::from_utf8(s.to_vec()).unwrap());
            seats.collect::<Vec<_>>().join(" ")
        };
        let data =
            r#"data: {"seq":2,"seats":[{"seat":"A1","status":"held"},{"seat":"B20","status":"free"}]}"#;
        assert_eq!(names(&format!("event: change\nid: 1.2\n{data}")), "A1 B20");
        assert_eq!(names(&format!("event: snapshot\n{data}")), "");
        assert_eq!(names(": alive"), "");
    }
}
