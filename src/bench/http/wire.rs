//! HTTP/1.1 as thin as it goes: one connection, one request at a time, kept alive. The load must not take
//! more of the machine than what it measures.

use std::net::SocketAddr;
use std::sync::Mutex;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// What came back; the body is the connection's until the next request.
pub struct Answer<'a> {
    pub status: u16,
    pub head: &'a [u8],
    /// As it came: compressed where it was.
    pub body: &'a [u8],
}

impl Wire {
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a whole request and reads the whole answer.
    pub async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n", 0) {
                break end + 4;
            }
            self.more().await?;
        };
        let status = status(&self.buffer)?;
        let body = if let Some(length) = header(&self.buffer[..head], "content-length") {
            let length: usize = length.parse().context("content-length")?;
            self.buffer.reserve(length);
            while self.buffer.len() < head + length {
                self.more().await?;
            }
            head..head + length
        } else if header(&self.buffer[..head], "transfer-encoding").is_some() {
            head..self.chunks(head).await?
        } else {
            head..head
        };
        Ok(Answer { status, head: &self.buffer[..head], body: &self.buffer[body] })
    }

    /// Joins chunks where they lie; answers where the body ends.
    async fn chunks(&mut self, head: usize) -> anyhow::Result<usize> {
        let (mut end, mut at) = (head, head);
        loop {
            let line = loop {
                match find(&self.buffer, b"\r\n", at) {
                    Some(line) => break line,
                    None => self.more().await?,
                }
            };
            let size = chunk_size(&self.buffer[at..line])?;
            let data = line + 2;
            while self.buffer.len() < data + size + 2 {
                self.more().await?;
            }
            self.buffer.copy_within(data..data + size, end);
            end += size;
            at = data + size + 2;
            if size == 0 {
                return Ok(end);
            }
        }
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            bail!("the connection was closed before the answer was whole");
        }
        Ok(())
    }

    /// Sends a request whose answer never ends; what came of it so far, and the stream to go on with.
    pub async fn stream(mut self, request: &[u8]) -> anyhow::Result<(TcpStream, Vec<u8>)> {
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n", 0) {
                break end + 4;
            }
            self.more().await?;
        };
        let status = status(&self.buffer)?;
        anyhow::ensure!(status == 200, "a stream was refused with {status}");
        anyhow::ensure!(
            header(&self.buffer[..head], "transfer-encoding").is_some(),
            "a stream comes in chunks"
        );
        let rest = self.buffer.split_off(head);
        Ok((self.stream, rest))
    }
}

/// Connections to one address, as many as are busy at once.
pub struct Wires {
    pub address: SocketAddr,
    idle: Mutex<Vec<Wire>>,
}

impl Wires {
    pub fn to(address: SocketAddr) -> Self {
        Self { address, idle: Mutex::default() }
    }

    /// The answer's status and body.
    pub async fn ask(&self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        let idle = self.idle().pop();
        let mut wire = match idle {
            Some(wire) => wire,
            None => Wire::connect(self.address).await?,
        };
        let answer = wire.ask(request).await?;
        let answer = (answer.status, answer.body.to_vec());
        self.idle().push(wire);
        Ok(answer)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Wire>> {
        self.idle.lock().expect("no code panics while holding it")
    }
}

fn status(head: &[u8]) -> anyhow::Result<u16> {
    let status = head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.context("not an HTTP answer")
}

pub fn chunk_size(line: &[u8]) -> anyhow::Result<usize> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or(line);
    let text = std::str::from_utf8(digits).context("a chunk's size")?;
    usize::from_str_radix(text.trim(), 16).context("a chunk's size")
}

/// A header's value, by its name in lower case.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    std::str::from_utf8(head).ok()?.split("\r\n").find_map(|line| {
        let (known, value) = line.split_once(':')?;
        known.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

pub fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    let last = *what.last()?;
    let mut at = from + what.len() - 1;
    while at < bytes.len() {
        // The last byte is looked for alone, which the compiler does fast.
        at += bytes[at..].iter().position(|byte| *byte == last)?;
        if bytes[..=at].ends_with(what) {
            return Some(at + 1 - what.len());
        }
        at += 1;
    }
    None
}

/// A request without a body.
pub fn get(address: SocketAddr, path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n").into_bytes()
}

/// A request with a JSON body, under an idempotency key of its own.
pub fn post(address: SocketAddr, path: &str, token: &str, body: &str) -> Vec<u8> {
    let (key, length) = (rand::random::<u128>(), body.len());
    format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\nidempotency-key: {key:032x}\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn strings_are_found_wherever_they_stand() {
        assert_eq!(find(b"ab\r\n\r\ncd", b"\r\n\r\n", 0), Some(2));
        assert_eq!(find(b"\r\n\r\n", b"\r\n\r\n", 0), Some(0));
        assert_eq!(find(b"\r\n\r\n", b"\r\n", 1), Some(2));
        assert_eq!(find(b"\r\n\r", b"\r\n\r\n", 0), None);
        assert_eq!(header(b"HTTP/1.1 200 OK\r\nETag: x\r\n\r\n", "etag"), Some("x"));
    }

    #[tokio::test]
    async fn bodies_are_read_by_length_and_by_chunks_however_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            for answer in [
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole",
                "HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n3\r\npie\r\n4;x=y\r\nces!\r\n0\r\n\r\n",
                "HTTP/1.1 304 Not Modified\r\n\r\n",
            ] {
                let _ = stream.read(&mut request).await.unwrap();
                for byte in answer.bytes() {
                    stream.write_all(&[byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
        });
        let mut wire = Wire::connect(address).await.unwrap();
        for (status, body) in [(200, "whole"), (409, "pieces!"), (304, "")] {
            let answer = wire.ask(&get(address, "/", "")).await.unwrap();
            assert_eq!((answer.status, answer.body), (status, body.as_bytes()));
        }
    }
}
